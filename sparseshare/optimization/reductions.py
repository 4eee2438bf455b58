"""Reductions that NumPy and CuPy spell differently."""

import numpy as np

from sparseshare.devices import array_module


def highest(array, axis=None):
    """Largest entry along an axis, and 0 where that is more or there is none.

    Parameters
    ----------
    array : array, NumPy or CuPy
    axis : int, tuple of int or None, default=None

    Returns
    -------
    array or scalar of the same dtype and device
        CuPy reductions know no `initial`, and refuse empty arrays.
    """
    xp = array_module(array)
    if array.size == 0:
        return array.sum(axis=axis)
    return xp.maximum(array.max(axis=axis), array.dtype.type(0))


def inner(x, y):
    """<x, y> of arrays of one shape, in float64.

    Parameters
    ----------
    x, y : arrays of the same shape and dtype, NumPy or CuPy

    Returns
    -------
    float
    """
    xp = array_module(x)
    if xp is not np:
        return float((x * y).sum(dtype=np.float64))
    if x.dtype == np.float64:
        return float(np.vdot(x, y))
    return sum(float(np.dot(a.astype(np.float64), b.astype(np.float64))) for a, b in blocks(x, y))


_BLOCK = 2**15  # entries at a time


def blocks(*arrays):
    """The same few entries of contiguous arrays at a time, so that temporaries stay in the cache; on a GPU all."""
    flat = [array.reshape(-1) for array in arrays]
    if array_module(arrays[0]) is not np:
        yield flat
        return
    for first in range(0, len(flat[0]), _BLOCK):
        yield [array[first : first + _BLOCK] for array in flat]
