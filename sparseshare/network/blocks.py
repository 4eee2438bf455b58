"""Matrix products of a batch in blocks of a fixed size, shared out to threads: the same bits for any number of them."""

import numpy as np

from sparseshare.devices import device_of
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, single_threaded_blas

_LINE = 64  # bytes of a cache line, and of a vector: one across two lines takes twice as long to load


def aligned_empty(shape, dtype):
    """Memory that begins with a cache line.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : dtype

    Returns
    -------
    ndarray
    """
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def aligned(array):
    """An array in memory that begins with a cache line, in C order: itself, if it is so, or a copy."""
    if array.flags.c_contiguous and array.ctypes.data % _LINE == 0:
        return array
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


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


def in_blocks(work, blocks, n_threads, device):
    """Call `work(number, worker)` for every block: on the CPU in threads, BLAS on one of them; else one by one.

    Parameters
    ----------
    work : callable
    blocks : sequence
    n_threads : int
    device : str
    """
    if device != "cpu":
        for number in range(len(blocks)):
            work(number, 0)
        return
    with single_threaded_blas:
        run_in_threads(work, len(blocks), n_threads)


class SparseWeights:
    """Weights for products that skip the zeros of the other side.

    Parameters
    ----------
    weights : ndarray of shape (n_in, n_out)
    below : float
        Density of the other side from which on a dense product is faster, if `weights` needs no padding.

    Attributes
    ----------
    padded : C-contiguous ndarray of shape (n_in, n_out + padding)
        Columns of zeros make it a whole number of vectors.
    below : float
        The same for these weights: columns of zeros cost time too.
    """

    def __init__(self, weights, below):
        n_in, n_out = weights.shape
        step = kernels_for("cpu", "vectors").PADDING
        width = -(-n_out // step) * step
        self.padded, self.below = np.ascontiguousarray(weights), below * n_out / width
        if width > n_out:
            self.padded = np.zeros((n_in, width), weights.dtype)
            self.padded[:, :n_out] = weights

    def pays(self, x):
        """Whether x (rows of any length) has so few non-zeros that skipping the others is faster."""
        return kernels_for("cpu", "sparse_products").count_nonzeros(x) < self.below * x.size


def product(x, weights, n_threads):
    """x @ weights.

    Parameters
    ----------
    x : array of shape (n, n_in)
    weights : array of shape (n_in, n_out)
    n_threads : int

    Returns
    -------
    array of shape (n, n_out)
    """
    if device_of(x) != "cpu":
        return x.dot(weights)
    out = np.empty((len(x), weights.shape[1]), x.dtype)
    blocks = row_blocks(len(x))
    with single_threaded_blas:
        run_in_threads(lambda i, _: np.matmul(x[blocks[i]], weights, out=out[blocks[i]]), len(blocks), n_threads)
    return out


def transposed_product(x, dz, n_threads):
    """x.T @ dz, the gradient by the weights of x @ weights.

    Parameters
    ----------
    x : array of shape (n, n_in)
    dz : array of shape (n, n_out)
    n_threads : int

    Returns
    -------
    array of shape (n_in, n_out)
    """
    if device_of(x) != "cpu":
        return x.T.dot(dz)
    out = np.empty((x.shape[1], dz.shape[1]), x.dtype)
    blocks = row_blocks(x.shape[1])
    with single_threaded_blas:
        run_in_threads(lambda i, _: np.matmul(x[:, blocks[i]].T, dz, out=out[blocks[i]]), len(blocks), n_threads)
    return out
