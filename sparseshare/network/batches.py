"""Samples of a training set, batch by batch where the network is computed; to a GPU some batches travel together."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sparseshare.devices import (
    array_module,
    computing_on,
    device_of,
    free_memory,
    module_of,
    pinned_array,
    to_device,
)
from sparseshare.sources import Stack

_PIECE_BYTES = 1 << 26  # of samples that are put in their order, or sent, together
_SHARE = 0.25  # of a GPU's free memory that samples may take for good; more stay with the host


class Batches:
    """Reads samples in the shape and precision of a network.

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
    """

    def __init__(self, X, shape, dtype, device="cpu", rows=None):
        if device != "cpu" and device_of(X) != device and X.nbytes <= _SHARE * free_memory(device):
            X = to_device(np.ascontiguousarray(X[:]), device)
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
            rows = self.rows[rows]
        if isinstance(rows, np.ndarray):
            rows = to_device(rows, device_of(self.X))
        return self._ready(self.X[rows])

    def _ready(self, samples):
        samples = to_device(samples, self.device)
        return array_module(samples).ascontiguousarray(samples, self.dtype).reshape(-1, *self.shape)

    def epoch(self, targets, order, size):
        """Go through samples once.

        Parameters
        ----------
        targets : ndarray of shape (n_samples, ...)
            On the host.
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
                yield self(rows), targets[rows]
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
            yield self(rows), to_device(targets[rows], self.device)

    def _sent(self, targets, pieces):
        """Pieces that a second thread puts together, and a second stream sends, one ahead of their use."""
        cuda = module_of(self.device).cuda
        copies, here = cuda.Stream(non_blocking=True), cuda.get_current_stream()
        slots = [_Slot(len(pieces[0]), self.X, targets, self.device) for _ in pieces[:2]]

        def send(number):
            slot, rows = slots[number % 2], pieces[number]
            with computing_on(self.device):
                slot.send(self.X, rows if self.rows is None else self.rows[rows], targets, rows, copies)
            return slot

        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(send, 0)
            for number, rows in enumerate(pieces):
                slot = coming.result()
                if number + 1 < len(pieces):
                    coming = pool.submit(send, number + 1)
                here.wait_event(slot.sent)
                yield self._ready(slot.X[: len(rows)]), slot.targets[: len(rows)]
                slot.used.record(here)


class _Slot:
    """Room for a piece, in memory of the host that copies can leave from by themselves, and on the GPU."""

    def __init__(self, n_rows, X, targets, device):
        xp = module_of(device)
        self.host = [pinned_array((n_rows, *array.shape[1:]), array.dtype) for array in (X, targets)]
        self.X, self.targets = (xp.empty(array.shape, array.dtype) for array in self.host)
        self.sent, self.used = xp.cuda.Event(), xp.cuda.Event()

    def send(self, X, rows, targets, target_rows, stream):
        self.sent.synchronize()  # what was here before has left
        for array, chosen, host, there in zip(
            (X, targets), (rows, target_rows), self.host, (self.X, self.targets), strict=True
        ):
            part = host[: len(chosen)]
            if isinstance(array, Stack):
                part[...] = array[chosen]
            else:
                np.take(array, chosen, axis=0, out=part, mode="clip")  # rows lie inside; "raise" takes a copy first
            if array is X:
                stream.wait_event(self.used)
            there[: len(chosen)].set(part, stream=stream)
        self.sent.record(stream)
