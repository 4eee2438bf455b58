"""The lasso by proximal gradient steps: ISTA, and FISTA with adaptive restart.

Beck and Teboulle 2009; restart by the gradient scheme of O'Donoghue and Candes 2015, section 3.2. Iterates are sparse,
so an iteration is one sweep over the Gram rows of the atoms in use. Correlations are kept at the thresholded iterates,
where they give the duality gap for nothing; at the extrapolated point they are a combination of the last two.
"""

from math import sqrt

import numpy as np

from .duality import duality_gap, rounding_level, violation
from .jit import called, kernel, part
from .thresholding import nonzeros, soft_threshold
from .vectors import SLOTS, sweep

_IDLE = 200  # iterations without a smaller gap after which, if the optimality conditions are broken by no more than
_NEAR = 3  # times the rounding of a correlation, the iterates only move within their own rounding


@kernel
def ista_tile(Q, norms2, G, alpha, step, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
    """Minimise 0.5 |x - w D|^2 + alpha |w|_1 for every signal of a tile by iterative soft thresholding.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal
    norms2 : (T,) float64 array, |x|^2
    G : (K, K) array, D D'
    alpha : (T,) array of G's dtype, the penalties
    step : float, 1 over the largest eigenvalue of G, or less
    tol : float, the relative duality gap at which a signal is done
    max_iter : int, iterations a signal
    positive : bool, codes >= 0
    indices, values, counts : (T, K) int32, (T, K), (T,) int32; in: where to start (count 0: from zero), out: the codes
    gaps : (T,) float64, out: the duality gap
    iterations : (T,) int32, out: iterations
    status : (T,) int8, out: 0 within the tolerance or the float's own limit, 1 stopped at max_iter
    """
    _proximal_gradient(
        Q,
        norms2,
        G,
        alpha,
        step,
        tol,
        max_iter,
        positive,
        False,
        indices,
        values,
        counts,
        gaps,
        iterations,
        status,
    )


@kernel
def fista_tile(Q, norms2, G, alpha, step, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
    """As `ista_tile`, with momentum that is dropped whenever it points uphill."""
    _proximal_gradient(
        Q,
        norms2,
        G,
        alpha,
        step,
        tol,
        max_iter,
        positive,
        True,
        indices,
        values,
        counts,
        gaps,
        iterations,
        status,
    )


@called
def _proximal_gradient(
    Q,
    norms2,
    G,
    alpha,
    step,
    tol,
    max_iter,
    positive,
    accelerated,
    indices,
    values,
    counts,
    gaps,
    iterations,
    status,
):
    n_signals, n_atoms = Q.shape
    w, old_w, new_w = np.zeros(n_atoms, Q.dtype), np.zeros(n_atoms, Q.dtype), np.zeros(n_atoms, Q.dtype)
    g, old_g, coef = np.zeros(n_atoms, Q.dtype), np.zeros(n_atoms, Q.dtype), np.zeros(n_atoms, Q.dtype)
    idx = np.zeros(n_atoms, np.int32)
    top_value, top_atom = np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32)
    length = Q.dtype.type(step)
    for i in range(n_signals):
        q, penalty = Q[i], alpha[i]
        largest = abs(q[sweep(q, G, idx, coef, 0, None, False, g, top_value, top_atom)])
        floor = rounding_level(Q) * max(largest, penalty)
        for k in range(n_atoms):
            w[k] = 0
        for a in range(counts[i]):
            value = values[i, a]
            w[indices[i, a]] = value if value > 0 or not positive else 0
        m = nonzeros(w, idx, coef)
        j = sweep(q, G, idx, coef, m, None, positive, g, top_value, top_atom)
        target, outcome, rounds, t = tol * 0.5 * norms2[i], 1, 0, 1.0
        lowest, lowest_at = np.inf, 0
        momentum = Q.dtype.type(0)
        for k in range(n_atoms):
            old_w[k], old_g[k] = w[k], g[k]
        while True:
            top = g[j] if positive else abs(g[j])
            gap = duality_gap(q, g, idx, coef, m, norms2[i], penalty, top)
            if gap < lowest:
                lowest, lowest_at = gap, rounds
            breach = violation(g, idx, coef, m, penalty, top)
            if gap <= target or breach <= floor or (breach <= _NEAR * floor and rounds - lowest_at >= _IDLE):
                outcome = 0
                break
            if rounds >= max_iter:
                break
            rounds += 1
            uphill = _step(w, old_w, g, old_g, momentum, length, penalty, positive, new_w)
            if accelerated:
                t_old = 1.0 if uphill > 0 else t
                t = 0.5 * (1 + sqrt(1 + 4 * t_old * t_old))
                momentum = Q.dtype.type((t_old - 1) / t)
            w, old_w, new_w = new_w, w, old_w
            g, old_g = old_g, g
            m = nonzeros(w, idx, coef)
            j = sweep(q, G, idx, coef, m, None, positive, g, top_value, top_atom)
        gaps[i] = gap
        iterations[i] = rounds
        status[i] = outcome
        counts[i] = m
        for a in range(m):
            indices[i, a], values[i, a] = idx[a], coef[a]


@part
def _step(w, old_w, g, old_g, momentum, length, penalty, positive, new_w):
    """One gradient and threshold step from y = w + momentum (w - old_w); returns (y - new_w) . (new_w - w)."""
    threshold = length * penalty
    uphill = momentum - momentum
    for k in range(w.shape[0]):
        y = w[k] + momentum * (w[k] - old_w[k])
        slope = g[k] + momentum * (g[k] - old_g[k])
        new = soft_threshold(y + length * slope, threshold, positive)
        new_w[k] = new
        uphill += (y - new) * (new - w[k])
    return uphill
