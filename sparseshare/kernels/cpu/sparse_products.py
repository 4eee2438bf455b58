"""Products of matrices that are mostly zeros with dense ones: only the rows of the weights that count are read."""

import numpy as np

from .jit import kernel, part


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


@part
def list_nonzeros(row, index, value):
    """Places and values of what is not 0 in a row, in order; returns how many."""
    m = 0
    for k in range(row.shape[0]):
        index[m], value[m] = k, row[k]
        m += row[k] != 0
    return m


@part
def add_rows(index, value, m, weights, out):
    """out += sum of value[a] * weights[index[a]], four rows at a time: `out` is read and written once for all four."""
    a = m - m
    while a + 4 <= m:
        p, q, r, s = value[a], value[a + 1], value[a + 2], value[a + 3]
        w0, w1, w2, w3 = weights[index[a]], weights[index[a + 1]], weights[index[a + 2]], weights[index[a + 3]]
        for k in range(out.shape[0]):
            out[k] += (p * w0[k] + q * w1[k]) + (r * w2[k] + s * w3[k])
        a += 4
    while a < m:
        p, w0 = value[a], weights[index[a]]
        for k in range(out.shape[0]):
            out[k] += p * w0[k]
        a += 1


@kernel
def sparse_product(x, weights, out):
    """out = x @ weights, skipping the zeros of x.

    Parameters
    ----------
    x : (N, K) array
    weights : (K, M) array of its dtype
    out : (N, M) array, out
    """
    index, value = np.empty(x.shape[1] + 1, np.int64), np.empty(x.shape[1] + 1, x.dtype)
    for i in range(x.shape[0]):
        m = list_nonzeros(x[i], index, value)
        out[i] = 0
        add_rows(index, value, m, weights, out[i])
