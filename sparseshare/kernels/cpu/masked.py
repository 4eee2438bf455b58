"""Lasso codes of signals with entries missing, each with a mask of its own: the solver of `active_set.py`.

It is given the rows of each signal's own Gram matrix as it asks for them (`observed.py`).
"""

from math import floor, log2

import numpy as np

from .active_set import _scratch, _solve_signal
from .factor import capacity_for
from .jit import kernel, part
from .observed import observe, observed_atoms, observed_norms

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
    highest = 0.0
    for k in range(len(ridge)):
        highest = max(highest, float(ridge[k]))
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
