"""The lasso by cyclic coordinate descent on the Gram matrix, over a working set of atoms.

The sweeps run on a compact copy of the working set's Gram matrix, so a step is an axpy as long as the set and not as
the dictionary. When a sweep changes little any more, one pass over all atoms brings fresh correlations, the duality gap
and the violators that join; atoms at zero leave (Friedman, Hastie, Tibshirani 2010, sections 2.2 and 2.6).

On coherent atoms plain sweeps crawl, thousands of them, and float32 rounding piles up faster than they gain. A set that
has not settled after a few sweeps is therefore helped on: it goes to the minimum for its signs as they stand.
"""

import numpy as np

from .duality import duality_gap, rounding_level, violation
from .factor import append_atom, capacity_for, clear_tail, delete_atom, project_atom, solve, triangles
from .jit import inline, kernel, part
from .thresholding import soft_threshold
from .vectors import SLOTS, sweep

_REACH = 0.6  # a violator enters beside the largest one if it exceeds the penalty by this share of what that one does
_QUIET = 0.3  # a working set is settled enough when its conditions are met to this share of the worst outside it
_PATIENCE = 8  # sweeps before a set that does not settle is helped on
_LARGEST_STEP = 256  # atoms moved at once by that step at most
_REFINEMENTS = 3  # of that step, which is not quite exact


@kernel
def coordinate_tile(Q, norms2, G, alpha, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
    """Minimise 0.5 |x - w D|^2 + alpha |w|_1 for every signal of a tile.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal
    norms2 : (T,) float64 array, |x|^2
    G : (K, K) array, D D'
    alpha : (T,) array of G's dtype, the penalties
    tol : float, the relative duality gap at which a signal is done
    max_iter : int, sweeps over the working set a signal
    positive : bool, codes >= 0
    indices, values, counts : (T, K) int32, (T, K), (T,) int32; in: where to start (count 0: from zero), out: the codes
    gaps : (T,) float64, out: the duality gap
    iterations : (T,) int32, out: sweeps
    status : (T,) int8, out: 0 within the tolerance or the float's own limit, 1 stopped at max_iter
    """
    n_signals, n_atoms = Q.shape
    # One more vector than a power of two, or all rows would fall into the same few lines of the cache.
    compact = np.empty((n_atoms, n_atoms + SLOTS), Q.dtype)
    g = np.empty(n_atoms, Q.dtype)
    w, inner = np.zeros(n_atoms + SLOTS, Q.dtype), np.zeros(n_atoms + SLOTS, Q.dtype)
    scale, inverse = np.zeros(n_atoms, Q.dtype), np.zeros(n_atoms, Q.dtype)
    idx = np.zeros(n_atoms, np.int32)
    used = np.zeros(n_atoms, np.bool_)
    top_value, top_atom = np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32)
    room = capacity_for(min(n_atoms, _LARGEST_STEP))
    lower, upper = triangles(room, Q)
    scratch, chosen = np.zeros((5, room), Q.dtype), np.zeros(room, np.int32)
    none = np.int64(0)  # not a literal, for which every part would be compiled once more
    for i in range(n_signals):
        q, penalty = Q[i], alpha[i]
        m = none
        for a in range(counts[i]):
            j, value = indices[i, a], values[i, a]
            if G[j, j] > 0 and value != 0 and not (positive and value < 0):
                m = _enter(j, value, m, G, idx, used, w, scale, inverse, compact)
        largest = abs(q[sweep(q, G, idx, w, 0, None, False, g, top_value, top_atom)])
        floor = rounding_level(Q) * max(largest, penalty)
        target, sweeps, outcome = tol * 0.5 * norms2[i], 0, 1
        while True:
            j = sweep(q, G, idx, w, m, None, positive, g, top_value, top_atom)
            top = g[j] if positive else abs(g[j])
            gap = duality_gap(q, g, idx, w, m, norms2[i], penalty, top)
            if gap <= target or violation(g, idx, w, m, penalty, top) <= floor:
                outcome = 0
                break
            if sweeps >= max_iter:
                break
            entry = penalty + Q.dtype.type(_REACH) * (top - penalty)
            for lane in range(SLOTS):
                j = top_atom[lane]
                if top_value[lane] > entry and not used[j] and G[j, j] > 0:
                    m = _enter(j, Q.dtype.type(0), m, G, idx, used, w, scale, inverse, compact)
            norm1 = Q.dtype.type(0)
            for a in range(m):
                inner[a] = g[idx[a]]
                norm1 += abs(w[a])
            quiet = Q.dtype.type(_QUIET) * (top - penalty)
            if norm1 > 0:
                quiet = max(quiet, Q.dtype.type(0.2 * target) / norm1)
            quiet = max(quiet, Q.dtype.type(0.25) * floor)
            allowed = min(_PATIENCE, max_iter - sweeps)
            done = _descend(m, penalty, positive, quiet, allowed, w, inner, scale, inverse, compact)
            sweeps += min(done, allowed)
            if done > allowed:
                _settle_signs(m, penalty, w, inner, scale, compact, lower, upper, chosen, scratch)
            m = _drop_zeros(m, idx, used, w, scale, inverse, compact)
        gaps[i] = gap
        iterations[i] = sweeps
        status[i] = outcome
        counts[i] = m
        for a in range(m):
            indices[i, a], values[i, a] = idx[a], w[a]
            used[idx[a]] = False


@part
def _enter(j, value, m, G, idx, used, w, scale, inverse, compact):
    """Put atom j into the working set of m; returns its new size."""
    row, new = G[j], compact[m]
    if m % SLOTS == 0:  # a new vector begins: steps run over full vectors
        for a in range(m):
            old = compact[a]
            for b in range(m, m + SLOTS):
                old[b] = 0
    for a in range(m):
        new[a] = row[idx[a]]
        compact[a, m] = new[a]
    new[m] = row[j]
    for b in range(m + 1, (m + SLOTS) // SLOTS * SLOTS):
        new[b] = 0
    idx[m], w[m], scale[m], inverse[m] = j, value, row[j], 1 / row[j]
    used[j] = True
    return m + 1


@part
def _descend(m, penalty, positive, quiet, max_sweeps, w, inner, scale, inverse, compact):
    """Sweep over the working set until no step changes a correlation by more than `quiet`.

    Returns the sweeps, or one more than allowed if it was not to be.
    """
    for sweeps in range(1, max_sweeps + 1):
        change = quiet - quiet
        for a in range(m):
            old = w[a]
            new = soft_threshold(inner[a] + scale[a] * old, penalty, positive) * inverse[a]
            if new != old:
                _move(a, new, m, w, inner, compact)
                change = max(change, abs(new - old) * scale[a])
        if change <= quiet:
            return sweeps
    return max_sweeps + 1


@part
def _settle_signs(m, penalty, w, inner, scale, compact, lower, upper, chosen, scratch):
    """Go to the minimum for the signs as they stand, and where a coefficient reaches zero let it stay there and go on.

    A little more on the diagonal bounds the factor where atoms depend on each other. Steps still descend, for they
    minimise a majorant, and are long along what hardly changes the residual, so that superfluous atoms reach zero.
    """
    column, projection, expansion, rhs, step = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    ridge = w.dtype.type(1e-4) if w.itemsize == 4 else w.dtype.type(1e-10)
    n = m - m
    for a in range(m):
        if w[a] != 0 and n < _LARGEST_STEP:
            more = ridge * scale[a]
            pivot2 = scale[a] + more - project_atom(compact[a], chosen, n, upper, column, projection)
            if pivot2 >= more * w.dtype.type(0.5):  # all but rounding: the least that it can be is `more`
                append_atom(projection, pivot2, n, lower, upper, expansion)
                chosen[n] = a
                n += 1
    rounds = 0
    while n > 0 and rounds < _REFINEMENTS:
        for b in range(n):
            a = chosen[b]
            rhs[b] = inner[a] - penalty if w[a] > 0 else inner[a] + penalty
        clear_tail(rhs, n)
        solve(rhs, 0, n, lower, upper, column, step)
        t, drop = w.dtype.type(1), n
        for b in range(n):
            old, length = w[chosen[b]], abs(step[b])
            if (old + step[b]) * old <= 0 and abs(old) <= t * length:
                t, drop = abs(old) / length if length > 0 else length, b
        for b in range(n):
            a = chosen[b]
            new = w[a] + t * step[b] if b != drop else w.dtype.type(0)
            _move(a, new, m, w, inner, compact)
        if drop == n:
            rounds += 1
        else:
            for b in range(drop, n - 1):
                chosen[b] = chosen[b + 1]
            delete_atom(drop, n, lower, upper)
            n -= 1


@inline
def _move(a, new, m, w, inner, compact):
    """Give coefficient a of the working set a new value and correct the correlations of all m."""
    step = new - w[a]
    w[a] = new
    row = compact[a]
    for b in range((m + SLOTS - 1) // SLOTS * SLOTS):
        inner[b] -= step * row[b]


@part
def _drop_zeros(m, idx, used, w, scale, inverse, compact):
    """Take the atoms at zero out of the working set, the last one filling each gap; returns its new size."""
    for d in range(m - 1, -1, -1):
        if w[d] == 0:
            used[idx[d]] = False
            m -= 1
            if d < m:
                idx[d], w[d], scale[d], inverse[d] = idx[m], w[m], scale[m], inverse[m]
                gap, last = compact[d], compact[m]
                for a in range(m + 1):
                    gap[a] = last[a]
                for a in range(m + 1):
                    compact[a, d] = compact[a, m]
    return m
