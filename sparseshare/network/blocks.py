"""Matrix products of a batch in blocks of a fixed size, shared out to threads: the same bits for any number of them."""

import numpy as np

from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, single_threaded_blas

SPARSE_BELOW = 0.2  # density under which skipping zeros beats a dense product
_NARROW = 16  # so few columns that the zeros of a row cost more to skip than to multiply


def row_blocks(n_samples, rows_a_sample=1, rows=None):
    """Slices of samples for products: small ones where there are few, so that all threads get some.

    Parameters
    ----------
    n_samples : int
    rows_a_sample : int, default=1
        Rows of the product that one sample gives.
    rows : int or None, default=None
        Rows of a block; None is 64 or 256.

    Returns
    -------
    list of slices
    """
    if rows is None:
        rows = 64 if n_samples * rows_a_sample <= 512 else 256
    step = max(1, rows // max(rows_a_sample, 1))
    return [slice(start, min(start + step, n_samples)) for start in range(0, n_samples, step)]


def multiply(x, weights, out, skip_zeros=False):
    """out = x @ weights for one block.

    Parameters
    ----------
    x : ndarray of shape (n, n_in)
    weights : ndarray of shape (n_in, n_out)
    out : ndarray of shape (n, n_out)
    skip_zeros : bool, default=False
        Look whether x is sparse enough to leave its zeros out.
    """
    if skip_zeros and weights.shape[1] >= _NARROW and weights.flags.c_contiguous and len(x):
        kernels = kernels_for("cpu", "sparse_products")
        if kernels.count_nonzeros(x) < SPARSE_BELOW * x.size:
            kernels.sparse_product(x, weights, out)
            return
    np.matmul(x, weights, out=out)


def product(x, weights, n_threads):
    """x @ weights.

    Parameters
    ----------
    x : ndarray of shape (n, n_in)
    weights : ndarray of shape (n_in, n_out)
    n_threads : int

    Returns
    -------
    ndarray of shape (n, n_out)
    """
    out = np.empty((len(x), weights.shape[1]), x.dtype)
    blocks = row_blocks(len(x))
    with single_threaded_blas:
        run_in_threads(lambda i, _: np.matmul(x[blocks[i]], weights, out=out[blocks[i]]), len(blocks), n_threads)
    return out


def transposed_product(x, dz, n_threads):
    """x.T @ dz, the gradient by the weights of x @ weights.

    Parameters
    ----------
    x : ndarray of shape (n, n_in)
    dz : ndarray of shape (n, n_out)
    n_threads : int

    Returns
    -------
    ndarray of shape (n_in, n_out)
    """
    out = np.empty((x.shape[1], dz.shape[1]), x.dtype)
    blocks = row_blocks(x.shape[1])
    with single_threaded_blas:
        run_in_threads(lambda i, _: np.matmul(x[:, blocks[i]].T, dz, out=out[blocks[i]]), len(blocks), n_threads)
    return out
