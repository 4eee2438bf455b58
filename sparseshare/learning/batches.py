"""Signals on their way into learning: random batches, and pieces of all signals, on the device that learns.

From the host's memory batches go through page-locked memory: a thread of its own gathers the rows of the next batch and
sends them off while the device works on this one.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count, pairwise

import numpy as np
from scipy.sparse import issparse

from sparseshare.buffering import paged_empty, read_ahead
from sparseshare.devices import computing_on, free_memory, module_of, on_gpu, pinned_array, rows_that_fit, to_device
from sparseshare.sources import Source, rows_a_block
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
    X : array, CSR array or Source of shape (n_samples, n_features)
        On the host or on the device.
    parts : BatchOrder
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
    if isinstance(X, Source):
        read = _read_batches(X, parts, dtype)
        if device == "cpu":
            yield from read
            return
        fetch = partial(_copied, read)
    elif device == "cpu" or on_gpu(X):
        for rows in parts:
            yield dense_rows(X, rows, dtype)
        return
    else:
        fetch = partial(_gathered, X, iter(parts), n_threads=thread_count(n_jobs))
    yield from _sent(fetch, (parts.batch_size, X.shape[1]), dtype, device)


def _read_batches(X, parts, dtype):
    """Batches of a source: many are read at one go."""
    if X.in_order_only:
        for number, block in enumerate(X.blocks(parts.batch_size)):
            if number >= parts.first:
                yield dense_rows(block.rows, slice(None), dtype)
        return
    groups = _read_groups(X, parts, dtype)
    with closing(read_ahead(groups) if X.in_threads else groups) as groups:
        for together, batches in groups:
            for rows in batches:
                yield together[rows]


def _read_groups(X, parts, dtype):
    """What `parts` reads together, and where the rows of each batch lie in it."""
    for windows, batches in parts.groups():
        together = paged_empty((sum(map(_length, windows)), X.shape[1]), dtype)
        start = 0
        for window in windows:
            for rows in _cut(window):
                block = X[rows]
                together[start : start + block.shape[0]] = block.toarray() if issparse(block) else block
                start += block.shape[0]
        yield together, batches


def _cut(window):
    """Parts of a window that are read one after the other, so that no second copy of all stands beside the first."""
    for start in range(window.start, window.stop, _GATHERED):
        yield slice(start, min(start + _GATHERED, window.stop))


def _copied(batches, out):
    """The next batch into `out`; how many rows it has, 0 if there is none."""
    batch = next(batches, None)
    if batch is None:
        return 0
    out[: len(batch)] = batch
    return len(batch)


def _gathered(X, parts, out, n_threads):
    rows = next(parts, None)
    if rows is None:
        return 0
    gather(X, rows, out[: _length(rows)], n_threads)
    return _length(rows)


def _sent(fetch, shape, dtype, device):
    xp = module_of(device)
    copies = xp.cuda.Stream(non_blocking=True)
    places = [(pinned_array(shape, dtype), xp.empty(shape, dtype), xp.cuda.Event()) for _ in range(_PLACES)]

    def send(number, free):
        staging, there, arrived = places[number % _PLACES]
        with computing_on(device):
            arrived.synchronize()  # the copy before has left the page-locked memory
            n = fetch(staging)
            if n == 0:
                return None, arrived
            copies.wait_event(free)
            there[:n].set(staging[:n], stream=copies)
            arrived.record(copies)
        return there[:n], arrived

    with ThreadPoolExecutor(1, thread_name_prefix="sparseshare-batches") as sender:
        try:
            work = xp.cuda.get_current_stream()
            coming = sender.submit(send, 0, work.record())
            for number in count(1):
                there, arrived = coming.result()
                if there is None:
                    return
                work.wait_event(arrived)
                coming = sender.submit(send, number, work.record())
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
    """All signals of a fit, gone through again and again: whole on the CPU, piece by piece from a source or on a GPU.

    What fits well into the memory of a GPU stays there between the turns.

    Parameters
    ----------
    X : array, CSR array or Source of shape (n_samples, n_features)
    dtype : dtype
    device : str
    n_components : int
        Atoms: what codes of a piece will take is left free.
    """

    def __init__(self, X, dtype, device, n_components):
        self.X, self.dtype, self.device = X, dtype, device
        self._resident = None
        streamed = isinstance(X, Source)
        n_samples, n_features = X.shape
        if device == "cpu":
            self._n_rows = rows_a_block(n_features, X.dtype) if streamed else n_samples
            self.edges = [*range(0, n_samples, self._n_rows), n_samples]
            return
        a_row = np.dtype(dtype).itemsize * (2 * n_features + 2 * n_components)
        self._n_rows = min(rows_that_fit(device, a_row, most=_PIECE), n_samples)
        self.edges = [*range(0, n_samples, self._n_rows), n_samples]
        if streamed:
            return
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
        if isinstance(self.X, Source):
            for rows, block in zip(self.slices, self.X.blocks(self._n_rows), strict=True):
                signals = dense_rows(block.rows, slice(None), self.dtype) if self.device != "cpu" else block.rows
                yield rows, to_device(signals, self.device)
        elif self.device == "cpu":
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
