"""Products with matrices of shared or pruned weights that are never held as a whole."""

import numpy as np

from sparseshare.kernels.dispatch import kernels_for

_LINE = 64  # bytes of a vector, and of a cache line
_PANEL_BYTES, _TURNED_BYTES = 2 * _LINE, 8 * _LINE  # of a row of scratch
_CACHE = 2**20  # bytes of the rows that stay at hand while panels go by


def hashed_product(rows, values, pattern):
    """Rows times a hashed matrix, some columns of which are made at a time.

    Parameters
    ----------
    rows : ndarray of shape (n, n_in)
    values : ndarray of shape (n_values,)
    pattern : Hashed

    Returns
    -------
    ndarray of shape (n, n_out)
    """
    out = np.empty((len(rows), pattern.shape[1]), values.dtype)
    n_in = pattern.shape[0]
    passes = -(-max(rows.size, 1) * values.itemsize // _CACHE)
    depth = -(-n_in // passes)
    kernels_for("cpu", "shared_products").hashed_product(
        np.ascontiguousarray(rows, values.dtype),
        values,
        pattern.seed,
        pattern.signed,
        _aligned(depth, _PANEL_BYTES, values.dtype),
        out,
    )
    return out


def pruned_product(rows, values, pattern):
    """Rows times a matrix of which few entries are kept.

    Parameters
    ----------
    rows : ndarray of shape (n, n_in)
    values : ndarray of shape (n_values,)
    pattern : Kept

    Returns
    -------
    ndarray of shape (n, n_out)
    """
    out = np.empty((len(rows), pattern.shape[1]), values.dtype)
    few = len(rows) * values.itemsize <= _LINE
    turned = _aligned(pattern.shape[0], _LINE if few else _TURNED_BYTES, values.dtype)
    kernels_for("cpu", "shared_products").pruned_product(
        np.ascontiguousarray(rows, values.dtype), values, pattern.bits, turned, out
    )
    return out


def _aligned(n_rows, row_bytes, dtype):
    """Scratch that begins with a cache line: a vector across two of them takes twice as long to load."""
    memory = np.empty(n_rows * row_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + n_rows * row_bytes].view(dtype).reshape(n_rows, -1)
