"""Products of matrices that are mostly zeros with dense ones: only the rows of the weights that count are read."""

import numpy as np

from .jit import kernel
from .vectors import weighted_rows


@kernel
def count_nonzeros(x):
    """Number of entries of a (N, K) array that are not 0."""
    count = 0
    for i in range(x.shape[0]):
        row, some = x[i], 0
        for k in range(x.shape[1]):
            some += row[k] != 0
        count += some
    return count


@kernel
def sparse_product(x, weights, out):
    """out = x @ weights, skipping the zeros of x.

    Parameters
    ----------
    x : (N, K) array
    weights : (K, M + padding) array of its dtype: zeros make its columns a multiple of `vectors.PADDING`
    out : (N, M) array, out
    """
    index, value = np.empty(x.shape[1] + 1, np.int32), np.empty(x.shape[1] + 1, x.dtype)
    total = np.empty(weights.shape[1], x.dtype)
    for i in range(x.shape[0]):
        row, m = x[i], 0
        for k in range(x.shape[1]):
            index[m], value[m] = k, row[k]
            m += row[k] != 0
        weighted_rows(weights, index, value, m, total)
        for k in range(out.shape[1]):
            out[i, k] = total[k]
