"""The lasso by homotopy: the path of solutions from the largest useful penalty down, one atom at a time.

Between two events the active atoms A and the signs s of their correlations stay, and all is linear in the penalty
c: as it falls by d the code moves by d u, u = inv(G_AA) s, and the correlations by -d G u (Osborne, Presnell, Turlach
2000; Efron, Hastie, Johnstone, Tibshirani 2004, equations 2.13 and 3.4). An event is an atom that joins or one that
leaves. `segment_sweep` computes the correlations from the code at each event, so rounding does not pile up, and finds
the next atom to join in the same pass.

Where rounding has left a gap too large, the active-set method takes over: a kernel of its own, called from here, since
it would take as long to compile within these as they do.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np

from .active_set import lasso_tile
from .duality import duality_gap, rounding_level
from .factor import append_atom, capacity_for, clear_tail, delete_atom, project_atom, solve, triangles
from .jit import inline, kernel, part, rare
from .segments import loses_sign, move, segment_sweep
from .vectors import SLOTS, sweep

_LEAVES, _NOTHING, _JOINS = -1, 0, 1
_CLOSED = 1e30
_REFRESH = 8  # events, after which correlations are computed afresh
_ROUNDS = 1000  # of the active-set method, where it has to take over
_ATTEMPTS = 20  # to meet a bound after that
_UNSETTLED, _HELD = 16, 8  # in the status of codes whose gap rounding has left too large
_GO_ON, _REPAIRED = 0, 1  # of a repair
_FAILED = 2  # the status in the end


class Path(NamedTuple):
    """Where one signal is on its path."""

    idx: np.ndarray  # (capacity,) int32, the active atoms A
    sign: np.ndarray  # (capacity,) of their correlations
    w: np.ndarray  # (capacity,) their coefficients
    u: np.ndarray  # (capacity,) how fast these change as the penalty falls
    g: np.ndarray  # (K,) correlations with the residual
    a: np.ndarray  # (K,) how fast those fall, G u
    bar: np.ndarray  # (K,) a rounding error of a correlation, or _CLOSED for an atom that may not join
    lower: np.ndarray  # the inverse Cholesky factor of G_AA, see factor.py
    upper: np.ndarray
    w_end: np.ndarray  # (capacity,) coefficients further down the segment, where a code is wanted
    g_end: np.ndarray  # (K,) correlations there
    b: np.ndarray  # scratch, (capacity,) as those that follow
    column: np.ndarray
    projection: np.ndarray
    expansion: np.ndarray
    top_value: np.ndarray  # scratch of `sweep`
    top_atom: np.ndarray


def homotopy_tile(
    Q, norms2, G, alpha, max_l1_norm, max_error, max_nonzero, tol, drop, positive, max_iter,
    indices, values, counts, gaps, penalties, iterations, status,
):  # fmt: skip
    """Follow the path of every signal of a tile to the first of its bounds.

    With `drop` it is the path of the lasso, min 0.5 |x - w D|^2 + c |w|_1. Without, atoms stay when their sign changes:
    least angle regression.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal
    norms2 : (T,) float64 array, |x|^2
    G : (K, K) array, D D'
    alpha : (T,) array of G's dtype, the penalties to stop at
    max_l1_norm : (T,) float64 array, where to stop by |w|_1; inf: no bound. Needs `drop`
    max_error : (T,) float64 array, where to stop by |x - w D|^2; 0 or less: no bound
    max_nonzero : (T,) int64 array, with so many atoms stop where the next would join; with `drop` the capacity or more
        is no bound
    tol : float, the relative duality gap up to which a code counts as the lasso's. Needs `drop`
    drop, positive : bool
    max_iter : int, events a signal
    indices, values, counts : (T, capacity) int32, (T, capacity), (T,) int32, out: the codes. The capacity must be
        max_nonzero or the rank of D, whichever is less, or more
    gaps : (T,) float64, out: the duality gap at the penalty where the path stopped; without `drop` |x - w D|^2
    penalties : (T,) float64, out: that penalty
    iterations : (T,) int32, out: events
    status : (T,) int8, out: 0 stopped by a bound, 1 by max_iter, 2 where max_error is out of reach or rounding left a
        gap above tol
    """
    _follow(
        Q, norms2, G, alpha, max_l1_norm, max_error, max_nonzero, tol, drop, positive, max_iter,
        indices, values, counts, gaps, penalties, iterations, status,
    )  # fmt: skip
    rows = np.flatnonzero(status >= _UNSETTLED) if drop else ()
    if len(rows):
        _repair(rows, Q, norms2, G, alpha, max_l1_norm, max_error, tol, positive, indices, values, counts, gaps,
                penalties, status)  # fmt: skip


@kernel
def _follow(
    Q, norms2, G, alpha, max_l1_norm, max_error, max_nonzero, tol, drop, positive, max_iter,
    indices, values, counts, gaps, penalties, iterations, status,
):  # fmt: skip
    """As `homotopy_tile`, but for what is left to the active-set method: the status says so."""
    n_signals, limit = indices.shape
    path = _scratch(Q, limit)
    for i in range(n_signals):
        q, norm2 = Q[i], norms2[i]
        largest, j = _begin(path, q, positive)
        c, following, fall = largest, largest, largest - largest
        end = max(c, alpha[i])
        m, gone = np.int64(0), np.int64(-1)  # bare numbers would be types of their own, and parts compiled for each
        event, steps, outcome, bound = np.int64(_JOINS), np.int64(0), 0, 0.0
        counted = not drop or max_nonzero[i] < limit
        bounded = max_l1_norm[i] < np.inf or max_error[i] > 0
        moving = c > alpha[i] and norm2 > max_error[i] and max_nonzero[i] > 0
        while moving:
            m, gone, fall = _advance(path, q, G, m, limit, c, following, event, j, largest, steps, positive)
            c = following
            event, j, following = _next_event(path, G, m, c, fall, gone, counted or m < limit, drop, positive)
            if bounded:
                bound = _bound(path, q, m, c, norm2, max_l1_norm[i], max_error[i])
            end = max(alpha[i], min(c, Q.dtype.type(bound)))
            if event == _JOINS and counted and m >= max_nonzero[i]:
                end = max(end, following)
            steps += 1
            if end >= following:
                break
            if steps == max_iter:
                end, outcome = following, 1
                break
        goal = 0.5 * tol * norm2
        gaps[i], done = _look_ahead(path, q, G, m, c, end, norm2, largest, goal, drop, positive)
        counts[i] = _write(path, m, indices[i], values[i])
        residual2 = _residual2(path, q, m, norm2)
        if end == 0 and residual2 > max_error[i] + 16 * np.finfo(Q.dtype).eps * norm2 and max_error[i] > 0:
            outcome = 2
        if not drop:
            gaps[i] = residual2
        elif not done:
            outcome += _UNSETTLED
            if end > max(alpha[i], Q.dtype.type(bound)):
                outcome += _HELD
        iterations[i], status[i], penalties[i] = steps, outcome, end


def path_tile(Q, norms2, G, alphas, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
    """The lasso at every penalty of a list, from one way down the path; all results have a column a penalty.

    Parameters
    ----------
    Q, norms2, G, tol, positive : as in `homotopy_tile`
    alphas : (T, P) array of G's dtype, descending in every row
    max_iter : int, events a signal; `lasso_tile` solves for the penalties that they do not reach, in as many rounds
    indices, values, counts : (T, P, capacity) int32, (T, P, capacity), (T, P) int32, out: the codes. The capacity must
        be the rank of D or more
    gaps : (T, P) float64, out: the duality gaps
    iterations, status : (T, P) int32 and int8, out: events so far and 0, or what `lasso_tile` says where it was needed:
        there, and where rounding left a gap above tol
    """
    _follow_list(Q, norms2, G, alphas, tol, max_iter, positive, indices, values, counts, gaps, iterations, status)
    for p in np.flatnonzero((status == _UNSETTLED).any(axis=0)):
        rows = np.flatnonzero(status[:, p] == _UNSETTLED)
        results = indices, values, counts, gaps, iterations, status
        parts = [array[rows, p] for array in results]
        lasso_tile(Q[rows], norms2[rows], G, alphas[rows, p], tol, max_iter, positive, *parts)
        for array, part_ in zip(results, parts, strict=True):
            array[rows, p] = part_


@kernel
def _follow_list(Q, norms2, G, alphas, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
    """As `path_tile`, but for what is left to the active-set method: the status says so."""
    n_signals, n_penalties, limit = indices.shape
    path = _scratch(Q, limit)
    for i in range(n_signals):
        q, norm2 = Q[i], norms2[i]
        largest, j = _begin(path, q, positive)
        c, following, fall, goal = largest, largest, largest - largest, 0.5 * tol * norm2
        p, m, steps, gone, event = 0, np.int64(0), np.int64(0), np.int64(-1), np.int64(_JOINS)
        while p < n_penalties and alphas[i, p] >= largest:
            counts[i, p], gaps[i, p], iterations[i, p], status[i, p] = 0, 0.0, 0, 0
            p += 1
        while p < n_penalties:
            m, gone, fall = _advance(path, q, G, m, limit, c, following, event, j, largest, steps, positive)
            c = following
            event, j, following = _next_event(path, G, m, c, fall, gone, m < limit, True, positive)
            steps += 1
            while p < n_penalties and (alphas[i, p] >= following or steps == max_iter):
                end = max(alphas[i, p], following)
                gaps[i, p], done = _look_ahead(path, q, G, m, c, end, norm2, largest, goal, True, positive)
                counts[i, p] = _write(path, m, indices[i, p], values[i, p])
                iterations[i, p], status[i, p] = steps, 0
                if end > alphas[i, p] or not done:
                    status[i, p] = _UNSETTLED
                p += 1


@inline
def _scratch(Q, limit):
    capacity = capacity_for(limit)
    lower, upper = triangles(capacity, Q)
    atoms, rows = np.zeros((4, Q.shape[1]), Q.dtype), np.zeros((8, capacity), Q.dtype)
    # taken one by one: rows that are unpacked are not known to be contiguous
    return Path(
        np.zeros(capacity, np.int32), rows[0], rows[1], rows[2], atoms[0], atoms[1], atoms[2], lower, upper, rows[3],
        atoms[3], rows[4], rows[5], rows[6], rows[7], np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32),
    )  # fmt: skip


@part
def _begin(path, q, positive):
    """Nothing is active yet: the penalty at which the first atom joins, and that atom."""
    j = sweep(q, q.reshape(1, -1), path.idx, path.w, 0, None, positive, path.g, path.top_value, path.top_atom)
    largest = max(path.g[j] if positive else abs(path.g[j]), path.w.dtype.type(0))
    path.sign[:] = 0
    path.bar[:] = 8 * np.finfo(path.w.dtype).eps * largest
    path.a[:] = 0
    return largest, j


@part
def _next_event(path, G, m, c, fall, gone, room, drop, positive):
    """The next event as the penalty falls from c: what, to which atom (its place in A if it leaves), at which penalty.

    `fall` is how far the penalty has fallen since the correlations were computed. `gone` is the atom that has just
    left, or -1: its correlation is, up to rounding, on the bound that it comes from, so it may join only at the other
    one. Without `room` no atom joins: with as many in use as the rank, all others depend on them.
    """
    least = path.bar[gone] if gone >= 0 else c
    if gone >= 0:
        path.bar[gone] = _CLOSED
    j = segment_sweep(G, path.idx, path.u, m, fall, c, path.bar, positive, path.g, path.a)
    event, atom, following = _NOTHING, 0, c - c
    meeting = _meeting(path, j, c, path.bar[j], positive)
    if meeting >= 0 and room:
        event, atom, following = _JOINS, j, meeting
    if gone >= 0:
        path.bar[gone] = least
        meeting = _meeting(path, gone, c, least, positive)
        if meeting > following and (path.g[gone] - c * path.a[gone]) * path.g[gone] < 0:
            event, atom, following = _JOINS, gone, meeting
    if drop and loses_sign(path.w, path.u, c - following, path.sign, m):
        for k in range(m):
            if (path.w[k] + (c - following) * path.u[k]) * path.sign[k] < 0 and path.u[k] * path.sign[k] < 0:
                event, atom, following = _LEAVES, k, c - abs(path.w[k] / path.u[k])
    return event, atom, following


@part
def _meeting(path, j, c, least, positive):
    """The penalty at which atom j joins, or -1."""
    one = path.w.dtype.type(1)
    h = path.g[j] - c * path.a[j]
    if (h if positive else abs(h)) <= least:
        return -one
    divisor = one - (path.a[j] if h > 0 else -path.a[j])
    return min(c, abs(h) / divisor) if divisor > 0 else c


@rare
def _refresh(path, q, G, m, c, largest, positive):
    """The correlations from the code; correct the code if those of A are off c s by more than a rounding error."""
    sweep(q, G, path.idx, path.w, m, None, positive, path.g, path.top_value, path.top_atom)
    worst = c - c
    for k in range(m):
        path.b[k] = path.g[path.idx[k]] - c * path.sign[k]
        worst = max(worst, abs(path.b[k]))
    if worst > 4 * np.finfo(path.w.dtype).eps * largest:
        clear_tail(path.b, m)
        solve(path.b, 0, m, path.lower, path.upper, path.column, path.projection)
        for k in range(m):
            path.w[k] += path.projection[k]


@part
def _advance(path, q, G, m, limit, c, following, event, j, largest, steps, positive):
    """Go to the next event and let it happen.

    Returns the number of atoms, the one that left or -1, and how far the correlations have yet to fall.
    """
    gone = np.int64(-1)
    move(path.w, path.u, c - following, m, path.w)
    if event == _JOINS:
        m = _join(path, G, m, limit, j, path.g[j] - c * path.a[j])
    elif event == _LEAVES:
        gone = path.idx[j]
        m = _leave(path, m, j, 8 * np.finfo(path.w.dtype).eps * largest)
    if steps % _REFRESH == _REFRESH - 1:
        _refresh(path, q, G, m, following, largest, positive)
        return m, gone, c - c
    return m, gone, c - following


@part
def _join(path, G, m, limit, j, h):
    """Let atom j join at the bound of the sign of h; an atom that depends on A is put aside until A has changed."""
    one = path.w.dtype.type(1)
    path.bar[j] = _CLOSED
    least = one * 1e-6 if path.w.itemsize == 4 else one * 1e-10
    pivot2 = G[j, j] - project_atom(G[j], path.idx, m, path.upper, path.column, path.projection)
    if pivot2 <= least * G[j, j] or m == limit:
        return m
    append_atom(path.projection, pivot2, m, path.lower, path.upper, path.expansion)
    s = one if h > 0 else -one
    path.idx[m], path.sign[m], path.w[m], path.u[m] = j, s, 0, 0
    speed = (s - path.a[j]) / sqrt(pivot2)
    move(path.u, path.lower[m], speed, m + 1, path.u)
    return m + 1


@part
def _leave(path, m, d, least):
    """Take the atom at place d out of A; returns the number of atoms."""
    delete_atom(d, m, path.lower, path.upper)
    m -= 1
    for k in range(d, m):
        path.idx[k], path.sign[k], path.w[k] = path.idx[k + 1], path.sign[k + 1], path.w[k + 1]
    path.sign[m] = 0
    path.bar[:] = least
    for k in range(m):
        path.bar[path.idx[k]] = _CLOSED
    _turn(path, m)
    return m


@part
def _turn(path, m):
    """u = inv(G_AA) s, from scratch."""
    for k in range(m):
        path.b[k] = path.sign[k]
    clear_tail(path.b, m)
    if m > 0:
        solve(path.b, 0, m, path.lower, path.upper, path.column, path.u)


@part
def _bound(path, q, m, c, norm2, max_l1_norm, max_error):
    """The penalty at which the segment meets the first of two bounds, above c if it has passed it; 0 if it does not.

    Along a segment |w|_1 grows by h = u.s for a fall of 1, and |r|^2 = |r(c)|^2 - h (c^2 - c'^2).
    """
    norm1, h, residual2 = 0.0, 0.0, norm2
    for k in range(m):
        w, s = float(path.w[k]), float(path.sign[k])
        norm1 += w * s
        h += float(path.u[k]) * s
        residual2 -= w * (float(q[path.idx[k]]) + c * s)
    reached = 0.0
    if norm1 + h * c > max_l1_norm:
        reached = c - (max_l1_norm - norm1) / h
    if max_error > 0:
        reached = max(reached, sqrt(max(c * float(c) - (residual2 - max_error) / h, 0.0)))
    return reached


@part
def _look_ahead(path, q, G, m, c, end, norm2, largest, goal, drop, positive):
    """The code at penalty `end` of this segment, in w_end, and its correlations, in g_end.

    Returns its duality gap, and whether that is within `goal` but for rounding errors.
    """
    move(path.w, path.u, c - end, m, path.w_end)
    if drop and loses_sign(path.w, path.u, c - end, path.sign, m):
        for k in range(m):
            if path.w_end[k] * path.sign[k] < 0:
                path.w_end[k] = 0
    j = sweep(q, G, path.idx, path.w_end, m, None, positive, path.g_end, path.top_value, path.top_atom)
    top = path.g_end[j] if positive else abs(path.g_end[j])
    error = rounding_level(q) * max(largest, end)
    gap = duality_gap(q, path.g_end, path.idx, path.w_end, m, norm2, max(end, min(top, error)), top)
    if gap <= goal:
        return gap, True
    top = max(top - error, c - c)
    return gap, duality_gap(q, path.g_end, path.idx, path.w_end, m, norm2, end, top) <= goal


@part
def _residual2(path, q, m, norm2):
    """|x - w D|^2 of the code that was looked at."""
    for k in range(m):
        j = path.idx[k]
        norm2 -= float(path.w_end[k]) * (float(q[j]) + float(path.g_end[j]))
    return max(norm2, 0.0)


@part
def _write(path, m, indices, values):
    """Hand out the non-zeros of the code that was looked at; returns how many."""
    count = 0
    for k in range(m):
        if path.w_end[k] != 0:
            indices[count], values[count] = path.idx[k], path.w_end[k]
            count += 1
    return count


def _repair(
    rows, Q, norms2, G, alpha, max_l1_norm, max_error, tol, positive, indices, values, counts, gaps, penalties, status
):
    """Solve signals `rows` at the penalties that meet their bounds, or where they are if those are held.

    In turn: the active-set method at a penalty, and along the segment found there to the penalty of `_bound`.
    """
    held = status[rows] - _UNSETTLED >= _HELD
    status[rows] -= np.where(held, _UNSETTLED + _HELD, _UNSETTLED).astype(status.dtype)
    bounds = alpha[rows], max_l1_norm[rows], max_error[rows], held
    work = [Q[rows], norms2[rows], *bounds, penalties[rows].astype(Q.dtype)]
    codes = [indices[rows], values[rows], counts[rows], gaps[rows]]
    for attempt in range(_ATTEMPTS):
        own_Q, own_norms2, *bounds, penalty = work
        rounds, solved = np.empty(len(rows), counts.dtype), np.empty(len(rows), status.dtype)
        lasso_tile(own_Q, own_norms2, G, penalty, tol, _ROUNDS, positive, *codes, rounds, solved)
        state = np.empty(len(rows), status.dtype)
        _toward_bounds(own_Q, own_norms2, G, *bounds, tol, positive, solved, penalty, *codes, state)
        goes_on = (state == _GO_ON) & (attempt < _ATTEMPTS - 1)
        over = np.flatnonzero(~goes_on)
        place = rows[over]
        for whole, own in zip((indices, values, counts, gaps, penalties), (*codes, penalty), strict=True):
            whole[place] = own[over]
        status[place] = np.where(state[over] == _REPAIRED, status[place], _FAILED)
        if len(over) == len(rows):
            break
        rows, work, codes = rows[goes_on], [a[goes_on] for a in work], [a[goes_on] for a in codes]


@kernel
def _toward_bounds(
    Q, norms2, G, alpha, max_l1_norm, max_error, held, tol, positive, solved, penalties, indices, values, counts, gaps,
    state,
):  # fmt: skip
    """Go along the segment of codes that the active-set method has found to the penalties that meet the bounds.

    Parameters
    ----------
    Q, norms2, G, alpha, max_l1_norm, max_error, tol, positive : as in `homotopy_tile`
    held : (T,) bool array, codes that are to stay at their penalties
    solved : (T,) int8, the status of the active-set method
    penalties : (T,) array of G's dtype, in and out
    indices, values, counts, gaps : as in `homotopy_tile`, in and out
    state : (T,) int8, out: `_GO_ON`, `_REPAIRED` or `_FAILED`
    """
    n_signals, limit = indices.shape
    path = _scratch(Q, limit)
    for i in range(n_signals):
        q, norm2, end = Q[i], norms2[i], penalties[i]
        goal, m = 0.5 * tol * norm2, np.int64(0)
        largest, _ = _begin(path, q, positive)
        for k in range(counts[i]):
            before, value = m, values[i, k]
            m = _join(path, G, m, limit, indices[i, k], value)
            path.w[before] = value
        _turn(path, m)
        bound = max(alpha[i], Q.dtype.type(_bound(path, q, m, end, norm2, max_l1_norm[i], max_error[i])))
        if held[i] or bound == end:
            state[i] = _REPAIRED if solved[i] == 0 or gaps[i] <= goal else _FAILED
        else:
            gaps[i], done = _look_ahead(path, q, G, m, end, bound, norm2, largest, goal, True, positive)
            counts[i] = _write(path, m, indices[i], values[i])
            penalties[i], state[i] = bound, _REPAIRED if done else _GO_ON
