"""Codes of signals with entries missing, each with a mask of its own: the solvers of `active_set.py` and `pursuit.py`.

They are given the rows of each signal's own Gram matrix as they ask for them (`observed.py`).
"""

from math import floor, log2, sqrt

import numpy as np

from .active_set import _scratch, _solve_signal
from .factor import capacity_for
from .jit import kernel, part
from .observed import observe, observed_atoms, observed_norms
from .pursuit import _codes, _pursue
from .vectors import SLOTS

_MOST = 100  # powers of two, at most, that make up for what a mask takes from the longest atom


@kernel
def masked_lasso_tile(
    Q, norms2, atoms, transposed, missing, ridge, alphas, tol, max_iter, positive, exponents, indices, values, counts,
    gaps, iterations, status,
):  # fmt: skip
    """As `active_set.lasso_path_tile`, for the error over the entries of each signal that are not missing.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal with zeros where it is missing; overwritten
    norms2 : (T,) float64 array, |x|^2 over what is observed
    atoms, transposed : (K, n) and (n, K) arrays, D and D'
    missing : (T, n) bool array
    ridge : (K,) array, the quadratic penalty of each atom
    alphas : (T, P) array of D's dtype, the penalties, best in descending order
    tol, max_iter, positive : as in `lasso_tile`
    exponents : (T,) int32, in and out: codes are to be multiplied by 2**exponent; a mask that leaves little of all
        atoms adds to it
    indices, values, counts, gaps, iterations, status : as in `lasso_path_tile`, with P as their second dimension
    """
    limit = indices.shape[2]
    observed = observed_atoms(atoms, transposed, ridge)
    idx = np.zeros(capacity_for(limit), np.int32)
    scratch = _scratch(Q, idx, np.arange(len(idx)).astype(np.int32))
    rows = np.zeros((limit, Q.shape[1]), Q.dtype)
    highest = float(ridge.max())
    observe(observed, np.zeros(atoms.shape[1], np.bool_))
    longest2 = max(observed_norms(observed)[0], highest)
    for i in range(Q.shape[0]):
        observe(observed, missing[i])
        power = _scale_signal(observed, longest2, highest, Q[i], alphas[i], values[i, 0], counts[i, 0])
        exponents[i] += power
        _solve_signal(
            Q[i], norms2[i], rows, observed, alphas[i], tol, max_iter, positive, indices[i], values[i], counts[i],
            gaps[i], iterations[i], status[i], *scratch,
        )  # fmt: skip


@part
def _scale_signal(observed, longest2, highest, q, penalties, values, count):
    """Bring what is left of the longest atom to the length that it has without a mask, by a power of two.

    Else all would be measured against atoms that are not there. Returns the power.
    """
    largest, boost2 = observed_norms(observed)
    power = 0
    if largest > 0:
        power = int(floor(0.5 * log2(boost2 * longest2 / max(largest, boost2 * highest))))
        power = min(max(power, 0), _MOST)
    scale = 2.0**power
    one = q.dtype.type(1)
    unit, square, inverse = one * scale, one * (scale * scale / boost2), one / scale
    for k in range(q.shape[0]):
        observed.scale[k] = unit
        observed.diagonal[k] = observed.diagonal[k] * square + observed.ridge[k] * unit * unit
        q[k] *= unit
    for p in range(len(penalties)):
        penalties[p] = min(penalties[p] * unit, one * 1e30)
    for a in range(count):
        values[a] *= inverse
    return power


@kernel
def masked_omp_tile(
    Q, norms2, atoms, transposed, missing, n_nonzero, max_error, stops, indices, values, counts, residuals, status,
    path_values,
):  # fmt: skip
    """As `pursuit.omp_tile`, for the error over the entries of each signal that are not missing.

    Parameters
    ----------
    Q, norms2, atoms, transposed, missing : as in `masked_lasso_tile`. Atoms have unit norm, or are zero; what a mask
        leaves of them is brought to unit norm here. Where that is less than 1e-15 of the longest, it counts as zero.
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
        _codes(counts[i], factor, y, inverse, code, values[i])
        _rescale(observed.scale, indices[i], counts[i], values[i])
        for p in range(len(stops)):
            count = min(stops[p], counts[i])
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
