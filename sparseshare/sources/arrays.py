"""Rows of whatever can be cut anywhere: memory maps, chunked stores, arrays."""

from threading import Lock

import numpy as np
from scipy.sparse import issparse

from ..devices import on_gpu
from ..mapping import mapped_file
from .blocks import is_block
from .source import Source

_FAR = 2**20  # bytes: rows further apart than this are not worth reading what lies between


class ArrayRows(Source):
    """Rows of anything with a shape, a dtype and row slices: memory maps, zarr arrays, HDF5 data sets, arrays, CSR.

    Of a memory map only the pages of a block stay in this process: they are handed back once the block has been copied.

    Parameters
    ----------
    array : object of shape (n_samples, n_features)
    name : str, default="X"
    """

    def __init__(self, array, name="X"):
        super().__init__(array.shape, array.dtype, name)
        self.array, self._mapped = array, mapped_file(array)
        self._lock = None if is_block(array) or on_gpu(array) else Lock()  # not every library reads in threads

    @property
    def in_threads(self):
        return not on_gpu(self.array)  # the streams of a GPU belong to a thread

    def read(self, rows):
        if self._lock is None:
            if self._mapped is not None:
                self._mapped.check_size()
            return self.array[rows]
        with self._lock:
            block = self.array[rows]
        return block if issparse(block) else np.asarray(block)

    def scattered(self, rows):
        bytes_a_row = self.shape[1] * self.dtype.itemsize
        if self._mapped is None or len(rows) == 0 or np.ptp(rows) * bytes_a_row < _FAR * len(rows):
            return super().scattered(rows)
        return self._mapped.scattered()

    def release(self, rows):
        if self._mapped is None:
            return
        # Pages come in by the dozen around the one that was asked for, up to megabytes: so all go, not these rows'.
        # Those still in the cache of the system are back without a read.
        self._mapped.release()
