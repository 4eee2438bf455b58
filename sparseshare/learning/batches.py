"""Signals on their way into learning: random batches, and pieces of all signals, on the device that learns.

From the host's memory batches go through page-locked memory: a thread of its own gathers the rows of the next batch and
sends them off while the device works on this one.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from scipy.sparse import issparse

from sparseshare.devices import computing_on, free_memory, module_of, on_gpu, pinned_array, rows_that_fit
from sparseshare.staging import StagedRows
from sparseshare.threads import run_in_threads, thread_count

from .statistics import dense_rows

_PLACES = 3  # batches on a device: one being coded, the one before, whose atoms may yet be exchanged, and the next
_GATHERED = 8192  # rows that a thread gathers at a time
_RESIDENT = 0.25  # of the free memory that signals may take to stay on a device between the turns of a fit
_PIECE = 262_144  # rows at most


def batches(X, parts, dtype, device, n_jobs=None):
    """Batches of signals, dense, where `device` says.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
        On the host or on the device.
    parts : list of slices or ndarrays of int
        The rows of each batch, which come in the order of X.
    dtype : dtype
    device : str
        "cpu" or "cuda:N".
    n_jobs : int or None, default=None
        Threads that gather rows in the host's memory.

    Yields
    ------
    array of shape (n_rows, n_features)
        On a GPU the memory is used again for the third batch after this one.
    """
    if device != "cpu" and not on_gpu(X):
        yield from _sent(X, parts, dtype, device, thread_count(n_jobs))
        return
    for rows in parts:
        yield dense_rows(X, _in_order(rows), dtype)


def _in_order(rows):
    """Kinder to files and caches."""
    return rows if isinstance(rows, slice) else np.sort(rows)


def _sent(X, parts, dtype, device, n_threads):
    xp = module_of(device)
    copies = xp.cuda.Stream(non_blocking=True)
    shape = max(_length(rows) for rows in parts), X.shape[1]
    places = [(pinned_array(shape, dtype), xp.empty(shape, dtype), xp.cuda.Event()) for _ in parts[:_PLACES]]

    def send(number, free):
        staging, there, arrived = places[number % _PLACES]
        n = _length(parts[number])
        with computing_on(device):
            arrived.synchronize()  # the copy before has left the page-locked memory
            gather(X, _in_order(parts[number]), staging[:n], n_threads)
            copies.wait_event(free)
            there[:n].set(staging[:n], stream=copies)
            arrived.record(copies)
        return there[:n], arrived

    with ThreadPoolExecutor(1, thread_name_prefix="sparseshare-batches") as sender:
        try:
            work = xp.cuda.get_current_stream()
            coming = sender.submit(send, 0, work.record())
            for number in range(len(parts)):
                there, arrived = coming.result()
                work.wait_event(arrived)
                if number + 1 < len(parts):
                    coming = sender.submit(send, number + 1, work.record())
                yield there
        finally:
            coming.exception()  # wait: the memory is not to go while it is written to
            copies.synchronize()


def gather(X, rows, out, n_threads=1):
    """Rows of signals of the host into `out`, dense; threads share them out."""
    n = len(out)

    def work(part, worker):
        own = slice(part * _GATHERED, min((part + 1) * _GATHERED, n))
        block = X[slice(rows.start + own.start, rows.start + own.stop) if isinstance(rows, slice) else rows[own]]
        out[own] = block.toarray() if issparse(block) else block

    run_in_threads(work, -(-n // _GATHERED), n_threads)


def _length(rows):
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


class Pieces:
    """All signals of a fit, gone through again and again: whole on the CPU, piece by piece on a GPU.

    What fits well into the memory of a GPU stays there between the turns.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    dtype : dtype
    device : str
    n_components : int
        Atoms: what codes of a piece will take is left free.
    """

    def __init__(self, X, dtype, device, n_components):
        self.X, self.dtype, self.device = X, dtype, device
        self._resident = None
        n_samples, n_features = X.shape
        if device == "cpu":
            self.edges = [0, n_samples]
            return
        a_row = np.dtype(dtype).itemsize * (2 * n_features + 2 * n_components)
        self._n_rows = min(rows_that_fit(device, a_row, most=_PIECE), n_samples)
        self.edges = [*range(0, n_samples, self._n_rows), n_samples]
        if on_gpu(X) or n_samples * n_features * np.dtype(dtype).itemsize <= _RESIDENT * free_memory(device):
            self._resident = []

    @property
    def slices(self):
        """The rows of each piece."""
        return [slice(first, last) for first, last in pairwise(self.edges)]

    def cut(self, edges):
        """Cut into the pieces of an earlier fit where they fit: sums over pieces depend on them to the last bit."""
        if self.device != "cpu" and edges[1] <= self.edges[1]:
            self.edges, self._n_rows = list(edges), edges[1]

    def __iter__(self):
        """Pairs of a slice and the signals, on a GPU dense."""
        if self.device == "cpu":
            yield self.slices[0], self.X
        elif self._resident:
            yield from zip(self.slices, self._resident, strict=True)
        else:
            staged = StagedRows(self.X, self.dtype, self.device, self._n_rows)
            kept = []
            for rows, block in staged:
                staged.prefetch()
                if self._resident is not None:
                    kept.append(block if on_gpu(self.X) else block.copy())
                yield rows, block
            self._resident = self._resident if self._resident is None else kept
