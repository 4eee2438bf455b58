"""Arrays on disk for tests, and arrays that count what is asked of them at once."""

import numpy as np
import pytest

KINDS = ["memory map", "zarr", "hdf5"]


def stored(kind, array, folder, name="X", rows=7):
    """A copy of an array in a folder, `rows` of it a chunk where there are chunks."""
    if kind == "memory map":
        np.save(folder / f"{name}.npy", array)
        return np.load(folder / f"{name}.npy", mmap_mode="r")
    if kind == "zarr":
        zarr = pytest.importorskip("zarr")
        copy = zarr.open(
            folder / f"{name}.zarr", mode="w", shape=array.shape, chunks=(rows, *array.shape[1:]), dtype=array.dtype
        )
        copy[:] = array
        return copy
    return pytest.importorskip("h5py").File(folder / f"{name}.h5", "w").create_dataset("X", data=array)


class Watched:
    """An array that is not in memory: rows and entries that have been read of it at one go at most, and rows in all."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype
        self.most = self.largest = self.n_read = 0

    def __getitem__(self, key):
        part = self._array[key]
        self.most, self.largest = max(self.most, part.shape[0]), max(self.largest, part.size)
        self.n_read += part.shape[0]
        return part.copy()


class Written:
    """An array to be written to: how many rows have been written to it at one go at most."""

    def __init__(self, shape, dtype):
        self.array, self.shape, self.dtype, self.most = np.full(shape, np.nan, dtype), shape, np.dtype(dtype), 0

    def __setitem__(self, rows, values):
        self.array[rows] = values
        self.most = max(self.most, values.shape[0])
