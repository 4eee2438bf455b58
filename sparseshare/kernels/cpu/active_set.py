"""The lasso by a direct active-set method: the solution at one penalty, several atoms a round, with its certificate.

Feature-sign search (Lee, Battle, Raina, Ng 2006, algorithm 1) with up to four atoms a round, the inverse Cholesky
factor of `factor.py`, one `sweep` a round, and an exchange of atoms where a new one depends on those in use.
"""

from math import sqrt

import numpy as np

from .duality import duality_gap
from .factor import append_atom, capacity_for, clear_tail, delete_atom, project_column, solve, triangles
from .jit import inline, kernel, part
from .observed import correlate_code, gram_row, squared_norm
from .vectors import SLOTS, lanes_above, lowest_bit, sweep

_ROUND = 4  # atoms a round at most: more bring in atoms that have to leave again
_REACH = 0.3  # a violator enters beside the largest one if it exceeds the penalty by this share of what that one does
_FRAGILE = 30  # 1 over an atom's distance from the span of those in use, from which rounding has to be watched
_DIVERGED = 3  # status
_COHERENCE = 0.5  # and if its inner product with those that just entered stays below this share of its squared norm


def lasso_tile(Q, norms2, G, alpha, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
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
    results = (array[:, None] for array in (indices, values, counts, gaps, iterations, status))
    lasso_path_tile(Q, norms2, G, alpha[:, None], tol, max_iter, positive, *results)


@kernel
def lasso_path_tile(Q, norms2, G, alphas, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
    """As `lasso_tile` at several penalties a signal, each solved from the code at the one before.

    `alphas` is (T, P), best in descending order; all results have P as their second dimension.
    """
    idx = np.zeros(capacity_for(indices.shape[2]), np.int32)
    scratch = _scratch(Q, idx, idx)
    for i in range(Q.shape[0]):
        _solve_signal(
            Q[i], norms2[i], G, None, alphas[i], tol, max_iter, positive, indices[i], values[i], counts[i], gaps[i],
            iterations[i], status[i], *scratch,
        )  # fmt: skip


@inline
def _scratch(Q, idx, place):
    """`idx` holds the atoms in use, `place` their rows of G: the same array, but for masked signals."""
    capacity = len(idx)
    lower, upper = triangles(capacity, Q)
    rows = np.zeros((7, capacity), Q.dtype)  # taken one by one: unpacked rows are not known to be contiguous
    return (
        lower, upper, np.empty(Q.shape[1], Q.dtype), idx, place, rows[0], rows[1], rows[2], rows[3], rows[4], rows[5],
        rows[6], np.full(Q.shape[1], -1, np.int32), np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32),
    )  # fmt: skip


@part
def _solve_signal(
    q, norm2, G, observed, penalties, tol, max_iter, positive, indices, values, counts, gaps, iterations, status,
    lower, upper, g, idx, place, coef, sign, rhs, step, column, projection, expansion, position, top_value, top_atom,
):  # fmt: skip
    """One signal of the tile, at one penalty after the other; the factor and the active set go on."""
    m = np.int64(0)  # a bare 0 is a type of its own, for which all parts would be compiled once more
    if counts[0] > 0:
        m = _start(
            G, observed, positive, indices[0], values[0], np.int64(counts[0]),
            lower, upper, idx, place, coef, sign, column, projection, expansion, position,
        )  # fmt: skip
    for p in range(len(penalties)):
        row, code = indices[p], values[p]
        m, kept, top, outcome, rounds = _solve_penalty(
            q, norm2, G, observed, penalties[p], tol, max_iter, positive, m, row, code,
            lower, upper, g, idx, place, coef, sign, rhs, step, column, projection, expansion, position, top_value,
            top_atom,
        )  # fmt: skip
        iterations[p], status[p] = max(rounds, 1), outcome
        if outcome < _DIVERGED:
            counts[p] = _keep(idx, coef, m, row, code)
            gaps[p] = duality_gap(q, g, idx, coef, m, norm2, penalties[p], top)
        else:
            counts[p], status[p] = kept, 2
            for a in range(m):
                position[idx[a]] = -1
            top = _correlate(q, G, observed, row, code, kept, positive, g, top_value, top_atom)
            gaps[p] = duality_gap(q, g, row, code, kept, norm2, penalties[p], top)
            m = _start(
                G, observed, positive, row, code, kept,
                lower, upper, idx, place, coef, sign, column, projection, expansion, position,
            )  # fmt: skip
    for a in range(m):
        position[idx[a]] = -1


@part
def _solve_penalty(
    q, norm2, G, observed, penalty, tol, max_iter, positive, m, row, code,
    lower, upper, g, idx, place, coef, sign, rhs, step, column, projection, expansion, position, top_value, top_atom,
):  # fmt: skip
    """Rounds until the gap is within tol or the optimality conditions hold to rounding, from m atoms in use.

    Returns the number of atoms, how many of `row` and `code` were kept, the largest score, the status and the rounds.
    Every round lowers the objective, unless the factor has lost its accuracy to nearly dependent atoms. From the first
    of those on each code is kept and the next one compared with it: status 3 says that the kept one is the better.
    """
    zero = q.dtype.type(0)
    rounding = q.dtype.type(1e-6) if q.itemsize == 4 else q.dtype.type(1.8e-15)
    floor = rounding * max(penalty, q.dtype.type(0.5 * sqrt(norm2)))
    widest = penalty * q.dtype.type(sqrt(0.5 * tol))  # beyond it the gap's first term alone exceeds tol
    if penalty == 0:
        widest = q.dtype.type(np.inf)
    refine, refinements, rounds, outcome = m > 0, 0, 0, -1
    fragile, kept, lowest = False, np.int64(0), 0.5 * norm2
    while True:
        j = sweep(q, G, place, coef, m, None, positive, g, top_value, top_atom)
        top = g[j] if positive else abs(g[j])
        if fragile:
            objective = _objective(q, g, idx, coef, m, norm2, penalty)
            if not objective <= lowest + 5e-4 * norm2:  # true for NaN
                return m, kept, top, _DIVERGED, rounds
            lowest = min(lowest, objective)
            kept = _keep(idx, coef, m, row, code)
        norm1, kappa = zero, zero
        for a in range(m):
            norm1 += abs(coef[a])
            kappa = max(kappa, abs(g[idx[a]] - penalty * sign[a]))
        delta = floor
        if norm1 > 0:
            delta = max(delta, min(q.dtype.type(0.25 * tol * norm2) / norm1, widest))
        if rounds == max_iter:
            outcome = 1
        elif not refine and (top <= penalty + delta or position[j] >= 0):
            # done, but for conditions of atoms in use that rounding has spoilt: solve once more, with nothing new
            refine = (top > penalty + delta or kappa > delta) and refinements < 3
            if not refine:
                outcome = 0 if top <= penalty + delta else 2
        if outcome >= 0:  # without a penalty a correlation is only ever zero to rounding
            return m, kept, max(top - floor, zero) if penalty == 0 else top, outcome, rounds
        rounds += 1
        first = m
        if refine:
            refine = False
            refinements += 1
            first = 0
            for a in range(m):
                rhs[a] = g[idx[a]] - penalty * sign[a]
        else:
            threshold = penalty + max(delta, q.dtype.type(_REACH) * (top - penalty))
            grown, exchanged = _enter(
                j, threshold, G, observed, penalty, m, row, code,
                lower, upper, g, idx, place, coef, sign, rhs, column, projection, expansion, position, top_value,
                top_atom,
            )  # fmt: skip
            if exchanged:  # the residual is the old one but for rounding, the conditions of all atoms are new
                fragile, kept, m, refine = True, m, grown, True
                refinements -= 1
                continue
            if grown == m:
                return m, kept, top, 2, rounds
            for a in range(m, grown):
                if lower[a, a] > _FRAGILE and not fragile:
                    fragile, kept = True, _keep(idx, coef, m, row, code)
            m = grown
        m = _descend(first, m, observed, idx, place, coef, sign, rhs, step, column, position, lower, upper)


@part
def _enter(
    j, threshold, G, observed, penalty, m, row, code,
    lower, upper, g, idx, place, coef, sign, rhs, column, projection, expansion, position, top_value, top_atom,
):  # fmt: skip
    """Let atom j in, and up to three that violate almost as much, or exchange j for one in use.

    Returns the number of atoms in use, and whether there was an exchange; the code before that is kept.
    """
    zero, one = g.dtype.type(0), g.dtype.type(1)
    dependent = g.dtype.type(1e-6) if g.itemsize == 4 else g.dtype.type(1e-10)
    least = g.dtype.type(1e-7) if g.itemsize == 4 else g.dtype.type(1e-15)
    bits = lanes_above(top_value, threshold)
    before, allowed = m, min(_ROUND, max(1, (m + 2) // 3))
    value, exchanged = zero, False
    while True:
        s = one if g[j] > 0 else -one
        norm2 = squared_norm(G, observed, j)
        for a in range(m):
            column[a] = G[place[a], j]
        pivot2 = norm2 - project_column(column, m, upper, projection)
        if pivot2 > (least if exchanged else dependent) * norm2 and m < len(row):
            append_atom(projection, pivot2, m, lower, upper, expansion)
            idx[m], sign[m], coef[m], rhs[m], position[j] = j, s, value, g[j] - penalty * s, m
            if observed is not None:
                gram_row(observed, j, G[place[m]])
            m += 1
        elif m == before and not exchanged:
            _keep(idx, coef, m, row, code)
            drop, value = _exchange(s, m, projection, lower, expansion, coef, sign)
            if drop < 0:
                return m, False
            exchanged = True
            m = _leave(drop, m, observed, idx, place, sign, coef, rhs, position, lower, upper)
            continue  # with the same atom, which is independent of those that stay
        if exchanged or m - before == allowed:
            return m, exchanged
        j, bits = _next_violator(bits, top_value, top_atom, G, observed, place, before, m, position)
        if j < 0:
            return m, False


@part
def _keep(idx, coef, m, row, code):
    for a in range(m):
        row[a], code[a] = idx[a], coef[a]
    return m


@part
def _objective(q, g, idx, coef, m, norm2, penalty):
    residual2, norm1 = norm2, 0.0
    for a in range(m):
        w = float(coef[a])
        residual2 -= w * (float(q[idx[a]]) + float(g[idx[a]]))
        norm1 += abs(w)
    return 0.5 * residual2 + float(penalty) * norm1


@part
def _correlate(q, G, observed, idx, coef, m, positive, g, top_value, top_atom):
    """The correlations of all atoms with the residual of a code, and the largest score."""
    if observed is not None:
        return correlate_code(observed, q, idx, coef, m, positive, g, top_value, top_atom)
    j = sweep(q, G, idx, coef, m, None, positive, g, top_value, top_atom)
    return g[j] if positive else abs(g[j])


@part
def _start(
    G, observed, positive, indices, values, count,
    lower, upper, idx, place, coef, sign, column, projection, expansion, position,
):  # fmt: skip
    """The active set of the given code, without atoms that depend on earlier ones; returns its size."""
    dependent = G.dtype.type(1e-6) if G.itemsize == 4 else G.dtype.type(1e-10)
    m = np.int64(0)
    for a in range(count):
        j, value = np.int64(indices[a]), values[a]
        norm2 = squared_norm(G, observed, j)
        for b in range(m):
            column[b] = G[place[b], j]
        pivot2 = norm2 - project_column(column, m, upper, projection)
        if pivot2 > dependent * norm2 and value != 0 and not (positive and value < 0):
            append_atom(projection, pivot2, m, lower, upper, expansion)
            idx[m], coef[m], position[j] = j, value, m
            sign[m] = 1 if value > 0 else -1
            if observed is not None:
                gram_row(observed, j, G[place[m]])
            m += 1
    return m


@part
def _next_violator(bits, top_value, top_atom, G, observed, place, before, m, position):
    """The largest candidate that is incoherent with the atoms that just entered, and the candidates left."""
    while bits != 0:
        best, rest = -1, bits
        while rest != 0:
            lane = lowest_bit(rest)
            rest &= rest - 1
            if best < 0 or top_value[lane] > top_value[best]:
                best = lane
        bits &= ~(1 << best)
        j = np.int64(top_atom[best])
        coherent = position[j] >= 0
        for a in range(before, m):
            coherent |= abs(G[place[a], j]) >= G.dtype.type(_COHERENCE) * squared_norm(G, observed, j)
        if not coherent:
            return j, bits
    return -1, bits


@part
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
def _leave(d, m, observed, idx, place, sign, coef, rhs, position, lower, upper):
    """Take atom d out of the active set; returns what is left of m."""
    position[idx[d]] = -1
    delete_atom(d, m, lower, upper)
    for a in range(d, m - 1):
        idx[a], sign[a], coef[a], rhs[a] = idx[a + 1], sign[a + 1], coef[a + 1], rhs[a + 1]
        position[idx[a]] = a
    if observed is not None:  # its row is free for the next atom
        free = place[d]
        for a in range(d, m - 1):
            place[a] = place[a + 1]
        place[m - 1] = free
    coef[m - 1] = 0
    rhs[m - 1] = 0
    return m - 1


@part
def _descend(first, m, observed, idx, place, coef, sign, rhs, step, scratch, position, lower, upper):
    """Solve for the signs as they stand, as far as the first sign change; drop that atom and go on. Returns m."""
    one = coef.dtype.type(1)
    while first < m:
        clear_tail(rhs, m)
        solve(rhs, first, m, lower, upper, scratch, step)
        t, drop = one, np.int64(-1)
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
        m = _leave(drop, m, observed, idx, place, sign, coef, rhs, position, lower, upper)
        if drop < first:
            first -= 1
    for a in range(m):
        rhs[a] = 0
    return m
