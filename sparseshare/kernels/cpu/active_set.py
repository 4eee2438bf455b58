"""The lasso by a direct active-set method: the solution at one penalty, several atoms a round, with its certificate.

Feature-sign search (Lee, Battle, Raina, Ng 2006, algorithm 1) with up to four atoms a round, the inverse Cholesky factor
of `factor.py`, one `sweep` a round, and an exchange of atoms where a new one depends on those in use.
"""

import numpy as np

from .factor import append_atom, capacity_for, clear_tail, delete_atom, project_atom, solve, triangles
from .jit import kernel, part, rare
from .vectors import SLOTS, lanes_above, lowest_bit, sweep

_ROUND = 4  # atoms a round at most: more bring in atoms that have to leave again
_REACH = 0.3  # a violator enters beside the largest one if it exceeds the penalty by this share of what that one does
_COHERENCE = 0.5  # and if its inner product with those that just entered stays below this share of its squared norm


@kernel
def lasso_tile(
    Q, norms2, G, alpha, tol, max_iter, positive, indices, values, counts, gaps, iterations, status
):
    """Minimise 0.5 |x - w D|^2 + alpha |w|_1 for every signal of a tile.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal
    norms2 : (T,) float64 array, |x|^2
    G : (K, K) array, D D'
    alpha : (T,) array of G's dtype, the penalties
    tol : float, the relative duality gap at which a signal is done
    max_iter : int, rounds a signal
    positive : bool, codes >= 0
    indices, values, counts : (T, capacity) int32, (T, capacity), (T,) int32; in: where to start (count 0: from zero),
        out: the codes. The capacity must be the rank of D or more.
    gaps : (T,) float64, out: the duality gap
    iterations : (T,) int32, out: rounds
    status : (T,) int8, out: 0 within the tolerance or the float's own limit, 1 stopped at max_iter, 2 stalled
    """
    n_signals, n_atoms = Q.shape
    limit = indices.shape[1]
    capacity = capacity_for(limit)
    lower, upper = triangles(capacity, Q)
    g = np.empty(n_atoms, Q.dtype)
    idx = np.zeros(capacity, np.int32)
    coef, sign, rhs, step, scratch, column, projection, expansion = np.zeros((8, capacity), Q.dtype)
    position = np.full(n_atoms, -1, np.int32)  # of each atom in the active set
    top_value, top_atom = np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32)
    for i in range(n_signals):
        counts[i], gaps[i], iterations[i], status[i] = _solve_signal(
            Q[i], norms2[i], G, alpha[i], tol, max_iter, positive, indices[i], values[i], counts[i],
            lower, upper, g, idx, coef, sign, rhs, step, scratch, column, projection, expansion,
            position, top_value, top_atom,
        )  # fmt: skip


@part
def _solve_signal(
    q, norm2, G, penalty, tol, max_iter, positive, indices, values, count,
    lower, upper, g, idx, coef, sign, rhs, step, scratch, column, projection, expansion,
    position, top_value, top_atom,
):  # fmt: skip
    """One signal of the tile; returns its count, gap, rounds and status."""
    limit = indices.shape[0]
    zero, one = q.dtype.type(0), q.dtype.type(1)
    dependent = q.dtype.type(1e-6) if q.itemsize == 4 else q.dtype.type(1e-10)
    rounding = q.dtype.type(1.2e-7) if q.itemsize == 4 else q.dtype.type(2.3e-16)
    m = 0
    if count > 0:
        m = _start(
            G, positive, dependent, indices, values, count,
            lower, upper, idx, coef, sign, column, projection, expansion, position,
        )  # fmt: skip
    refine, look_past = m > 0, False
    refinements, rounds, outcome = 0, 0, 1
    scale = penalty
    while True:
        if look_past:  # rounding keeps an atom in use above the penalty: look for others behind it
            for a in range(m):
                g[idx[a]] = zero
        j = sweep(g if look_past else q, G, idx, coef, 0 if look_past else m, None, positive, g, top_value, top_atom)
        if rounds == max_iter:
            break
        top = g[j] if positive else abs(g[j])
        scale = max(scale, top)
        norm1, kappa = zero, zero
        if not look_past:
            for a in range(m):
                norm1 += abs(coef[a])
                kappa = max(kappa, abs(g[idx[a]] - penalty * sign[a]))
        delta = 8 * rounding * scale
        if norm1 > 0:
            delta = max(delta, q.dtype.type(0.25 * tol * norm2) / norm1)
        if not refine and top <= penalty + delta:
            refine = kappa > delta and refinements < 3
            if not refine:
                outcome = 0
                break
        elif not refine and position[j] >= 0:
            refine = refinements < 3
            if not refine:
                look_past = True
                continue
        rounds += 1
        first = m
        if refine:
            refine = False
            refinements += 1
            first = 0
            for a in range(m):
                rhs[a] = g[idx[a]] - penalty * sign[a]
        else:
            bits = lanes_above(top_value, penalty + max(delta, q.dtype.type(_REACH) * (top - penalty)))
            entered = 0
            allowed = min(_ROUND, max(1, (m + 2) // 3))
            value = zero
            while True:
                s = one if g[j] > 0 else -one
                pivot2 = G[j, j] - project_atom(G[j], idx, m, upper, column, projection)
                exchanged = value != 0
                if pivot2 > (rounding if exchanged else dependent) * G[j, j] and m < limit:
                    append_atom(projection, pivot2, m, lower, upper, expansion)
                    idx[m], sign[m], coef[m], position[j] = j, s, value, m
                    rhs[m] = g[j] - penalty * s
                    m += 1
                    entered += 1
                    if exchanged or entered == allowed:
                        break
                elif entered == 0 and not exchanged:
                    drop, value = _exchange(s, m, projection, lower, expansion, coef, sign)
                    if drop < 0 or value == 0:
                        break
                    position[idx[drop]] = -1
                    _leave(drop, m, idx, sign, coef, rhs, position, lower, upper)
                    m -= 1
                    continue  # with the same atom, which is independent of those that stay
                elif exchanged:
                    break
                j, bits = _next_violator(bits, top_value, top_atom, G, idx, m, entered, position)
                if j < 0:
                    break
            if value != 0:  # the residual is the old one but for rounding: the conditions of all atoms are new
                refine = True
                refinements -= 1
                continue
            if entered == 0:
                outcome = 2
                break
        m = _descend(first, m, idx, coef, sign, rhs, step, scratch, position, lower, upper)
        look_past = False
    gap = _duality_gap(q, g, idx, coef, m, norm2, penalty, positive, top_value)
    for a in range(m):
        indices[a], values[a] = idx[a], coef[a]
        position[idx[a]] = -1
    return m, gap, max(rounds, 1), outcome


@rare
def _start(
    G, positive, dependent, indices, values, count,
    lower, upper, idx, coef, sign, column, projection, expansion, position,
):  # fmt: skip
    """The active set of the given code, without atoms that depend on earlier ones; returns its size."""
    m = 0
    for a in range(count):
        j, value = indices[a], values[a]
        pivot2 = G[j, j] - project_atom(G[j], idx, m, upper, column, projection)
        if pivot2 > dependent * G[j, j] and value != 0 and not (positive and value < 0):
            append_atom(projection, pivot2, m, lower, upper, expansion)
            idx[m], coef[m], position[j] = j, value, m
            sign[m] = 1 if value > 0 else -1
            m += 1
    return m


@part
def _next_violator(bits, top_value, top_atom, G, idx, m, entered, position):
    """The largest candidate that is incoherent with the atoms that just entered, and the candidates left."""
    while bits != 0:
        best, rest = -1, bits
        while rest != 0:
            lane = lowest_bit(rest)
            rest &= rest - 1
            if best < 0 or top_value[lane] > top_value[best]:
                best = lane
        bits &= ~(1 << best)
        j = top_atom[best]
        coherent = position[j] >= 0
        for a in range(m - entered, m):
            coherent |= abs(G[idx[a], j]) >= G.dtype.type(_COHERENCE) * G[j, j]
        if not coherent:
            return j, bits
    return -1, bits


@rare
def _exchange(s, m, projection, lower, expansion, coef, sign):
    """Put a dependent atom in: the one that leaves, and the value that enters.

    Moving w_j = t s and w_A -= t s v with v = inv(G_AA) G_Aj leaves the residual as it is and lowers |w|_1. The first
    coefficient to reach zero leaves; without one (rounding) there is nothing to exchange: -1.
    """
    from_zero = expansion[:m]
    clear_tail(projection, m)
    for b in range(m):
        total = projection.dtype.type(0)
        for a in range(b, m):
            total += lower[a, b] * projection[a]
        from_zero[b] = total
    drop, t = -1, projection.dtype.type(np.inf)
    for a in range(m):
        rate = s * from_zero[a] * sign[a]
        if rate > 0 and abs(coef[a]) < t * rate:
            t = abs(coef[a]) / rate
            drop = a
    if drop >= 0:
        for a in range(m):
            coef[a] -= t * s * from_zero[a]
    return drop, t * s


@part
def _leave(d, m, idx, sign, coef, rhs, position, lower, upper):
    delete_atom(d, m, lower, upper)
    for a in range(d, m - 1):
        idx[a], sign[a], coef[a], rhs[a] = idx[a + 1], sign[a + 1], coef[a + 1], rhs[a + 1]
        position[idx[a]] = a
    coef[m - 1] = 0
    rhs[m - 1] = 0


@part
def _descend(first, m, idx, coef, sign, rhs, step, scratch, position, lower, upper):
    """Solve for the signs as they stand, as far as the first sign change; drop that atom and go on. Returns m."""
    one = coef.dtype.type(1)
    while first < m:
        clear_tail(rhs, m)
        solve(rhs, first, m, lower, upper, scratch, step)
        t, drop = one, -1
        for a in range(m):
            if (coef[a] + step[a]) * sign[a] <= 0:
                length = abs(step[a])
                crossing = abs(coef[a]) / length if length > 0 else length
                if crossing < t or drop < 0:
                    t, drop = min(crossing, one), a
        for a in range(m):
            coef[a] += t * step[a]
        if drop < 0:
            break
        for a in range(first, m):
            rhs[a] *= one - t
        position[idx[drop]] = -1
        _leave(drop, m, idx, sign, coef, rhs, position, lower, upper)
        m -= 1
        if drop < first:
            first -= 1
    for a in range(m):
        rhs[a] = 0
    return m


@rare
def _duality_gap(q, g, idx, coef, m, norm2, alpha, positive, top_value):
    """Primal minus dual at the scaled residual, summed so that it cannot come out negative by cancellation."""
    largest = 0.0
    for lane in range(SLOTS):
        largest = max(largest, float(top_value[lane]))
    for a in range(m):
        value = float(g[idx[a]])
        largest = max(largest, value if positive else abs(value))
    s = 1.0 if largest <= alpha else alpha / largest
    residual2, total = norm2, 0.0
    for a in range(m):
        w, gw = float(coef[a]), float(g[idx[a]])
        residual2 -= w * (float(q[idx[a]]) + gw)
        total += alpha * abs(w) - s * w * gw
    return 0.5 * (1 - s) ** 2 * max(residual2, 0.0) + max(total, 0.0)
