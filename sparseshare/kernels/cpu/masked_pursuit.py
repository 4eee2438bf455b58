"""Pursuit of signals with entries missing, each with a mask of its own: the solver of `pursuit.py`.

It is given the rows of each signal's own Gram matrix as it asks for them (`observed.py`).
"""

from math import sqrt

import numpy as np

from .jit import kernel, part
from .observed import observe, observed_atoms, observed_norms
from .pursuit import _codes, _pursue
from .vectors import SLOTS


@kernel
def masked_omp_tile(
    Q, norms2, atoms, transposed, missing, n_nonzero, max_error, stops, indices, values, counts, residuals, status,
    path_values,
):  # fmt: skip
    """As `pursuit.omp_tile`, for the error over the entries of each signal that are not missing.

    Parameters
    ----------
    Q, norms2, atoms, transposed, missing : as in `masked.masked_lasso_tile`. Atoms have unit norm, or are zero; what a
        mask leaves of them is brought to unit norm here. Where that is less than 1e-15 of the longest, it counts as
        zero.
    n_nonzero : (T,) int64 array, atoms at most; never more than the capacity
    max_error, stops, indices, values, counts, residuals, status, path_values : as in `omp_tile`
    """
    n_atoms, capacity = Q.shape[1], indices.shape[1]
    observed = observed_atoms(atoms, transposed, np.zeros(n_atoms, Q.dtype))
    gram = np.zeros((1, n_atoms), Q.dtype)
    basis = np.empty((capacity + 1, n_atoms), Q.dtype)
    factor = np.zeros((capacity, capacity), Q.dtype)
    g = np.empty(n_atoms, Q.dtype)
    row, y = np.zeros(capacity, Q.dtype), np.zeros(capacity, Q.dtype)
    inverse, code = np.zeros(capacity, Q.dtype), np.zeros(capacity, Q.dtype)
    top_value, top_atom = np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32)
    for i in range(Q.shape[0]):
        n = observe(observed, missing[i])
        _normalise(observed, Q[i])
        counts[i], residuals[i], status[i] = _pursue(
            Q[i], norms2[i], gram, observed, min(n_nonzero[i], capacity, n), max_error[i], None, indices[i],
            basis, factor, g, row, y, inverse, top_value, top_atom,
        )  # fmt: skip
        count = np.int64(counts[i])
        _codes(count, factor, y, inverse, code, values[i])
        _rescale(observed.scale, indices[i], count, values[i])
        for p in range(len(stops)):
            count = min(stops[p], np.int64(counts[i]))
            _codes(count, factor, y, inverse, code, path_values[i, p])
            _rescale(observed.scale, indices[i], count, path_values[i, p])


@part
def _normalise(observed, q):
    """Let what is left of every atom have norm 1."""
    largest, boost2 = observed_norms(observed)
    zero, one = q.dtype.type(0), q.dtype.type(1)
    boost, least = one * sqrt(boost2), one * 1e-30 * largest
    for k in range(q.shape[0]):
        norm2 = observed.diagonal[k]
        counts = norm2 > least
        observed.scale[k] = boost / sqrt(norm2 if counts else one) if counts else zero
        observed.diagonal[k] = one if counts else zero
        q[k] *= observed.scale[k]


@part
def _rescale(scale, atoms, count, values):
    for a in range(count):
        values[a] *= scale[atoms[a]]
