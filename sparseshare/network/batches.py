"""Samples for a network where it is computed: batch by batch, some of which go to a GPU together, or in their order."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from sparseshare.devices import (
    array_module,
    computing_on,
    device_of,
    free_memory,
    module_of,
    pinned_array,
    to_device,
    to_host,
)
from sparseshare.sources import Stack

from .pieces import pieces_of

_PIECE_BYTES = 1 << 26  # of samples that are put in their order, or sent, together
_SHARE = 0.25  # of a GPU's free memory that samples may take for good; more stay with the host


def _moved(X, device):
    """All samples on a GPU; those on disk are never in the host's memory together."""
    if not isinstance(X, Stack):
        return to_device(np.ascontiguousarray(X), device)
    there, n_rows = module_of(device).empty(X.shape, X.dtype), max(1, _PIECE_BYTES * len(X) // X.nbytes)
    slices = [slice(start, min(start + n_rows, len(X))) for start in range(0, len(X), n_rows)]
    with closing(pieces_of(X, slices)) as pieces:
        for number, _, samples in pieces:
            there[slices[number]] = to_device(samples, device)
    return there


class StoredTargets:
    """Targets on disk, of which some are read in the precision of the network.

    Parameters
    ----------
    stack : Stack
    dtype : dtype
    """

    def __init__(self, stack, dtype):
        self._stack, self.shape, self.dtype = stack, stack.shape, np.dtype(dtype)

    def __len__(self):
        return len(self._stack)

    def __getitem__(self, rows):
        return self._stack[rows].astype(self.dtype, copy=False)


class Batches:
    """Reads samples in the shape and precision of a network.

    Where samples are their own targets, it stands for them: ``batches[rows]`` is ``batches(rows)``.

    On a GPU the set is moved over as a whole where it takes no more than a quarter of the free memory. Otherwise it
    stays with the host, and pieces of it are sent while the network learns from those before.

    Parameters
    ----------
    X : array or Stack of shape (n_samples, ...)
        Of any real dtype; it is cast where it is computed with.
    shape : tuple of int
        Of a sample as the network takes it.
    dtype : dtype
    device : str, default="cpu"
        Where the network is computed.
    rows : int ndarray or None, default=None
        Which samples there are, None for all.
    once : bool, default=False
        Whether they are gone through only once: what is on disk is then read when its turn comes.
    """

    def __init__(self, X, shape, dtype, device="cpu", rows=None, once=False):
        elsewhere = device != "cpu" and device_of(X) != device and not (once and isinstance(X, Stack))
        if elsewhere and X.nbytes <= _SHARE * free_memory(device):
            X = _moved(X, device)
        self.X, self.shape, self.dtype, self.device, self.rows = X, tuple(shape), np.dtype(dtype), device, rows

    def among(self, rows):
        """Some of the samples, numbered anew."""
        other = Batches.__new__(Batches)
        other.__dict__.update(self.__dict__, rows=np.asarray(rows))
        return other

    def __call__(self, rows):
        """Some samples.

        Parameters
        ----------
        rows : int ndarray or slice

        Returns
        -------
        array of shape (len(rows), *shape)
        """
        if self.rows is not None:
            rows = self.rows[rows if isinstance(rows, slice) else to_host(rows)]
        if isinstance(rows, np.ndarray):
            rows = to_device(rows, device_of(self.X))
        return self._ready(self.X[rows])

    __getitem__ = __call__

    def __len__(self):
        return len(self.X if self.rows is None else self.rows)

    def in_order(self, slices):
        """All samples, piece by piece, see `pieces_of`.

        Parameters
        ----------
        slices : list of slice

        Yields
        ------
        number, first : int
        samples : array of shape (n, *shape)
        """
        with closing(pieces_of(self.X, slices)) as pieces:
            for number, first, samples in pieces:
                yield number, first, self._ready(samples)

    def _ready(self, samples):
        samples = to_device(samples, self.device)
        return array_module(samples).ascontiguousarray(samples, self.dtype).reshape(-1, *self.shape)

    def epoch(self, targets, order, size):
        """Go through samples once.

        Parameters
        ----------
        targets : ndarray or StoredTargets of shape (n_samples, ...), or these Batches themselves
            On the host, or on the GPU that X lives on.
        order : int ndarray
            Of the samples.
        size : int
            Of a batch.

        Yields
        ------
        samples : array of shape (at most size, *shape)
        targets : array of their number
        """
        if self.device == "cpu":
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                samples = self(rows)
                yield samples, samples if targets is self else targets[rows]
            return
        bytes_a_row = self.dtype.itemsize * int(np.prod(self.shape))
        n_rows = max(1, _PIECE_BYTES // max(1, bytes_a_row * size)) * size
        pieces = [order[start : start + n_rows] for start in range(0, len(order), n_rows)]
        arriving = self._resident if device_of(self.X) == self.device else self._sent
        for X, y in arriving(targets, pieces):
            for start in range(0, len(X), size):
                yield X[start : start + size], y[start : start + size]

    def _resident(self, targets, pieces):
        for rows in pieces:
            samples = self(rows)
            if targets is self:
                yield samples, samples
            else:
                yield samples, to_device(targets[to_device(rows, device_of(targets))], self.device)

    def _sent(self, targets, pieces):
        """Pieces that a second thread puts together, and a second stream sends, one ahead of their use."""
        cuda = module_of(self.device).cuda
        copies, here = cuda.Stream(non_blocking=True), cuda.get_current_stream()
        sources = [self.X] if targets is self else [self.X, targets]
        slots = [_Slot(len(pieces[0]), sources, self.device) for _ in pieces[:2]]

        def send(number):
            slot, rows = slots[number % 2], pieces[number]
            with computing_on(self.device):
                slot.send(sources, [rows if self.rows is None else self.rows[rows], rows], copies)
            return slot

        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(send, 0)
            for number, rows in enumerate(pieces):
                slot = coming.result()
                if number + 1 < len(pieces):
                    coming = pool.submit(send, number + 1)
                here.wait_event(slot.sent)
                samples = self._ready(slot.there[0][: len(rows)])
                yield samples, samples if targets is self else slot.there[1][: len(rows)]
                slot.used.record(here)


class _Slot:
    """Room for a piece, in memory of the host that copies can leave from by themselves, and on the GPU."""

    def __init__(self, n_rows, sources, device):
        xp = module_of(device)
        self.host = [pinned_array((n_rows, *array.shape[1:]), array.dtype) for array in sources]
        self.there = [xp.empty(array.shape, array.dtype) for array in self.host]
        self.sent, self.used = xp.cuda.Event(), xp.cuda.Event()

    def send(self, sources, rows, stream):
        self.sent.synchronize()  # what was here before has left
        for number, (array, host, there) in enumerate(zip(sources, self.host, self.there, strict=True)):
            chosen = rows[number]
            part = host[: len(chosen)]
            if isinstance(array, np.ndarray):
                np.take(array, chosen, axis=0, out=part, mode="clip")  # rows lie inside; "raise" takes a copy first
            else:
                part[...] = array[chosen]
            if number == 0:
                stream.wait_event(self.used)
            there[: len(chosen)].set(part, stream=stream)
        self.sent.record(stream)
