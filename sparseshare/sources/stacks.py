"""Stacks of images, signals or samples of one shape that are read part by part, when they are asked for."""

from math import prod
from threading import Lock

import numpy as np
from scipy.sparse import issparse

from ..devices import on_gpu
from ..mapping import mapped_file
from ..validation import refuse_dask
from .blocks import BlockError, gathered

_TOGETHER = 2**24  # bytes that are read at one go where single ones are wanted
_GAP = 2**13  # bytes: wanted ones that lie no further apart are read at one go


class Stack:
    """Arrays of one shape, one after the other: a memory map, a zarr array, an HDF5 data set, anything that is cut so.

    What an int, a slice, a pair of slices or an array of ints cuts out is read into an ndarray of its own; NaN passes.

    Parameters
    ----------
    array : object of shape (n, ...)
    name : str, default="X"
        What the messages call it.
    shape : tuple of int or None, default=None
        Of one, if it is to be another than in `array`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.sources import Stack
    >>> stack = Stack(np.arange(12).reshape(2, 6), shape=(3, 2))
    >>> stack.shape, stack[1, :2].tolist()
    ((2, 3, 2), [[6, 7], [8, 9]])
    """

    def __init__(self, array, name="X", shape=None):
        self._array, self.name, self._mapped = array, name, mapped_file(array)
        self._reshaped = shape is not None
        self.shape = (int(array.shape[0]), *map(int, array.shape[1:] if shape is None else shape))
        self.dtype, self.ndim = np.dtype(array.dtype), len(self.shape)
        self._lock = None if isinstance(array, np.ndarray) else Lock()  # not every library reads in threads

    def __len__(self):
        return self.shape[0]

    @property
    def nbytes(self):
        return prod(self.shape) * self.dtype.itemsize

    def reshape(self, n, *shape):
        """The same stack, each of its `n` arrays in another shape."""
        size = prod(self.shape[1:])
        return Stack(self._array, self.name, (size,) if shape == (-1,) else shape)

    def __getitem__(self, key):
        own, *inside = key if isinstance(key, tuple) else (key,)
        if isinstance(own, slice):
            return self._read(*own.indices(len(self))[:2], *inside)
        if not isinstance(own, np.ndarray):
            number = range(len(self))[own]
            return self._read(number, number + 1, *inside)[0]
        if self._lock is None:
            return self._cut(own, f"{len(own)} rows")
        bytes_each = max(1, self.nbytes // max(len(self), 1))
        parts, back = gathered(own, _GAP // bytes_each, max(1, _TOGETHER // bytes_each), self._read)
        return np.concatenate(parts)[back] if parts else np.empty((0, *self.shape[1:]), self.dtype)

    def __iter__(self):
        return map(self.__getitem__, range(len(self)))

    def _read(self, start, stop, *inside):
        rows = slice(start, stop)
        if self._reshaped:
            return self._cut(rows, f"rows {start} to {stop - 1}")[(slice(None), *inside)]
        return self._cut((rows, *inside) if inside else rows, f"rows {start} to {stop - 1}")

    def _cut(self, key, where):
        """What a key for all axes cuts out."""
        try:
            if self._mapped is not None:
                self._mapped.check_size()
            if self._lock is None:
                cut = np.array(self._array[key])
            else:
                with self._lock:
                    cut = self._array[key]
                cut = cut.toarray() if issparse(cut) else np.asarray(cut)
        except Exception as error:  # whatever a file format's library raises
            raise BlockError(f"{where} of {self.name} could not be read: {type(error).__name__}: {error}") from error
        if self._mapped is not None:
            self._mapped.release()
        return cut.reshape(-1, *self.shape[1:]) if self._reshaped else cut

    def __getstate__(self):
        # Locks, and what h5py gives, cannot be taken along.
        array = self._array if isinstance(self._array, np.ndarray) else self._array[:]
        return dict(array=array, name=self.name, shape=self.shape[1:] if self._reshaped else None)

    def __setstate__(self, state):
        self.__init__(**state)


def stack_of(X, name="X"):
    """What a user passes as images, signals or samples, as a `Stack` if it is to be read part by part.

    Parameters
    ----------
    X : object
    name : str, default="X"
        What the messages call it.

    Returns
    -------
    Stack, or X itself
        X itself if it is in memory already, or nothing that this module knows: arrays, tables, lists, sparse arrays.

    Raises
    ------
    TypeError
        For the arrays of Dask, and for iterators.
    """
    refuse_dask(X, name)
    if hasattr(X, "__next__"):
        raise TypeError(
            f"{name} is an iterator, here an array is needed, in memory or on disk: hand its blocks to partial_fit, "
            "transform or predict one after the other"
        )
    if isinstance(X, np.ndarray):
        return X if mapped_file(X) is None or X.ndim < 2 else Stack(X, name)
    if issparse(X) or on_gpu(X) or hasattr(X, "iloc"):
        return X
    if not all(hasattr(X, part) for part in ("shape", "dtype", "__getitem__")) or len(X.shape) < 2:
        return X
    try:
        np.dtype(X.dtype)
    except TypeError:  # of a library with dtypes of its own
        return X
    return Stack(X, name)
