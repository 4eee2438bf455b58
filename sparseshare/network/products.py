"""Products with matrices of shared or pruned weights that are never held as a whole."""

import numpy as np

from sparseshare.kernels.dispatch import kernels_for

_COLUMNS = 32  # one part in so many of a hashed matrix is made at a time
_LEAST = 16


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
    n_in, n_out = pattern.shape
    kernels = kernels_for("cpu", "shared_products")
    out = np.empty((len(rows), n_out), values.dtype)
    width = min(n_out, max(_LEAST, -(-n_out // _COLUMNS)))
    tile = np.empty((n_in, width), values.dtype)
    for first in range(0, n_out, width):
        part = tile[:, : min(width, n_out - first)]
        kernels.hashed_columns(values, pattern.seed, pattern.signed, n_out, first, part)
        out[:, first : first + width] = rows @ part
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
    kernels_for("cpu", "shared_products").pruned_product(
        np.ascontiguousarray(rows, values.dtype), values, pattern.bits, out
    )
    return out
