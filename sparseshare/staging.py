"""Rows of data on their way to a GPU: piece by piece, the next one copied while the GPU works on this one."""

from scipy.sparse import issparse

from .devices import array_module, module_of, on_gpu, pinned_array, to_device


class StagedRows:
    """Pieces of signals as dense arrays on a GPU, in order; `prefetch` copies the next one while the GPU works.

    Parameters
    ----------
    X : array, csr_array or memory map of the host, or array or csr_matrix of a GPU
    dtype : dtype
        Of the pieces.
    device : str
        "cuda:N".
    n_rows : int
        Signals in a piece.
    """

    def __init__(self, X, dtype, device, n_rows):
        self.X, self.dtype, self.device, self.n_rows = X, dtype, device, n_rows

    def __iter__(self):
        slices = [slice(i, min(i + self.n_rows, self.X.shape[0])) for i in range(0, self.X.shape[0], self.n_rows)]
        if on_gpu(self.X):
            for rows in slices:
                yield rows, self._resident(rows)
            return
        xp = module_of(self.device)
        shape = (min(self.n_rows, self.X.shape[0]), self.X.shape[1])
        copies = xp.cuda.Stream(non_blocking=True)
        places = [(pinned_array(shape, self.dtype), xp.empty(shape, self.dtype), xp.cuda.Event())
                  for _ in slices[:2]]  # fmt: skip
        released = {}  # when whoever works on a place is done with it
        sent = 0

        def prefetch():
            nonlocal sent
            if sent == len(slices):
                return
            staging, there, arrived = places[sent % 2]
            n = slices[sent].stop - slices[sent].start
            arrived.synchronize()  # the copy before has left the staging memory
            block = self.X[slices[sent]]
            staging[:n] = block.toarray() if issparse(block) else block
            if sent in released:
                copies.wait_event(released.pop(sent))
            there[:n].set(staging[:n], stream=copies)
            arrived.record(copies)
            sent += 1

        self.prefetch = prefetch
        try:
            for number, rows in enumerate(slices):
                if sent == number:
                    prefetch()
                _, there, arrived = places[number % 2]
                xp.cuda.get_current_stream().wait_event(arrived)
                yield rows, there[: rows.stop - rows.start]
                released[number + 2] = xp.cuda.get_current_stream().record()
        finally:
            copies.synchronize()

    def prefetch(self):
        """Send the next piece on its way; to be called when the work on this one has been launched."""

    def _resident(self, rows):
        xp = array_module(self.X)
        block = self.X[rows]
        block = block.toarray() if hasattr(block, "toarray") else block
        return xp.ascontiguousarray(to_device(block, self.device), dtype=self.dtype)
