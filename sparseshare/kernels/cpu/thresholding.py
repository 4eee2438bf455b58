"""Codes by thresholding: the soft threshold, once, and the iterative hard threshold for a count of atoms."""

import numpy as np

from .factor import append_atom, capacity_for, clear_tail, delete_atom, project_atom, solve, triangles
from .jit import inline, kernel, part, rare
from .vectors import SLOTS, sweep

_BLOCK = 16  # atoms looked at together where few of them count


@inline
def soft_threshold(value, threshold, positive):
    """The minimiser of 0.5 (w - value)^2 + threshold |w|, over w >= 0 if `positive`."""
    low = value if positive or value > -threshold else -threshold
    return value - (threshold if low > threshold else low)


@part
def nonzeros(w, idx, coef):
    """Collect the non-zeros of w in the order of the atoms; returns their number."""
    m = 0
    for start in range(0, w.shape[0], _BLOCK):
        some = 0
        for k in range(start, start + _BLOCK):
            some += w[k] != 0
        if some > 0:
            for k in range(start, start + _BLOCK):
                if w[k] != 0:
                    idx[m], coef[m] = k, w[k]
                    m += 1
    return m


@kernel
def threshold_tile(Q, alpha, positive, indices, values, counts):
    """Soft-threshold the correlations of every signal: the lasso's solution where atoms are orthonormal.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal
    alpha : (T,) array of Q's dtype, the thresholds
    positive : bool, codes >= 0
    indices, values, counts : (T, K) int32, (T, K), (T,) int32, out: the codes
    """
    n_atoms = Q.shape[1]
    w = np.empty(n_atoms, Q.dtype)
    for i in range(Q.shape[0]):
        q, threshold = Q[i], alpha[i]
        for k in range(n_atoms):
            w[k] = soft_threshold(q[k], threshold, positive)
        counts[i] = nonzeros(w, indices[i], values[i])


@kernel
def iht_tile(
    Q,
    norms2,
    G,
    n_nonzero,
    step,
    tol,
    max_iter,
    positive,
    indices,
    values,
    counts,
    residuals,
    iterations,
    status,
):
    """Approximate every signal of a tile by at most n_nonzero atoms, by normalised iterative hard thresholding.

    Blumensath and Davies 2010, algorithm 1, and least squares on the support that it ends with.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal
    norms2 : (T,) float64 array, |x|^2
    G : (K, K) array, D D'
    n_nonzero : (T,) int array, the largest number of atoms
    step : float, a step that always descends: 1 over the largest eigenvalue of G, or less
    tol : float, a signal is done when its support stays and |x - w D|^2 falls by less than tol |x|^2
    max_iter : int, iterations a signal
    positive : bool, codes >= 0
    indices, values, counts : (T, capacity) int32, (T, capacity), (T,) int32, out: the codes; capacity >= n_nonzero
    residuals : (T,) float64, out: |x - w D|^2
    iterations : (T,) int32, out: iterations
    status : (T,) int8, out: 0 settled, 1 stopped at max_iter, 2 settled on atoms of which some depend on others
    """
    n_signals, n_atoms = Q.shape
    limit = indices.shape[1]
    room = capacity_for(limit)
    lower, upper = triangles(room, Q)
    vectors, kept_idx = np.zeros((6, room), Q.dtype), np.zeros(room, np.int32)
    g, new_g = np.empty(n_atoms, Q.dtype), np.empty(n_atoms, Q.dtype)
    score, size = np.empty(n_atoms, Q.dtype), np.empty(n_atoms, Q.dtype)
    coef, new_coef = np.zeros(n_atoms, Q.dtype), np.zeros(n_atoms, Q.dtype)
    idx, new_idx = np.zeros(n_atoms, np.int32), np.zeros(n_atoms, np.int32)
    heap_value, heap_atom = np.empty(limit, Q.dtype), np.empty(limit, np.int32)
    top_value, top_atom = np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32)
    none = np.int64(0)  # not a literal, for which every part would be compiled once more
    safe, half = Q.dtype.type(step), Q.dtype.type(0.5)
    for i in range(n_signals):
        q, count = Q[i], min(n_nonzero[i], limit)
        m, rounds, outcome = none, 0, 1
        residual2 = norms2[i]
        sweep(q, G, idx, coef, 0, None, positive, g, top_value, top_atom)
        while rounds < max_iter:
            rounds += 1
            if m == 0:  # the atoms that a first step would choose
                new_m = _largest(g, count, positive, size, heap_value, heap_atom, new_idx, new_coef)
                length = _normalised_step(g, new_idx, new_m, G, safe)
            else:
                length = _normalised_step(g, idx, m, G, safe)
            while True:
                for k in range(n_atoms):
                    score[k] = length * g[k]
                for a in range(m):
                    score[idx[a]] += coef[a]
                new_m = _largest(score, count, positive, size, heap_value, heap_atom, new_idx, new_coef)
                sweep(q, G, new_idx, new_coef, new_m, None, positive, new_g, top_value, top_atom)
                new_residual2 = squared_residual(q, new_g, new_idx, new_coef, new_m, norms2[i])
                if new_residual2 <= residual2 or length <= safe:
                    break
                length = max(length * half, safe)
            same = new_m == m
            for a in range(min(m, new_m)):
                same &= new_idx[a] == idx[a]
            fall = residual2 - new_residual2
            idx, new_idx = new_idx, idx
            coef, new_coef = new_coef, coef
            g, new_g = new_g, g
            m, residual2 = new_m, new_residual2
            if same and fall <= tol * norms2[i]:
                outcome = 0
                break
        kept = _least_squares(q, G, idx, coef, m, positive, lower, upper, kept_idx, vectors)
        if kept < m and outcome == 0 and not positive:
            outcome = 2
        kept_coef = vectors[0]
        sweep(q, G, kept_idx, kept_coef, kept, None, positive, g, top_value, top_atom)
        counts[i] = kept
        for a in range(kept):
            indices[i, a], values[i, a] = kept_idx[a], kept_coef[a]
        residuals[i] = squared_residual(q, g, kept_idx, kept_coef, kept, norms2[i])
        iterations[i] = rounds
        status[i] = outcome


@part
def squared_residual(q, g, idx, coef, m, norm2):
    """|x - w D|^2 from the correlations with the signal and with the residual."""
    total = norm2
    for a in range(m):
        total -= float(coef[a]) * (float(q[idx[a]]) + float(g[idx[a]]))
    return max(total, 0.0)


@rare
def _largest(v, count, positive, size, heap_value, heap_atom, idx, coef):
    """The `count` largest non-zero entries of v by magnitude (by value if positive), earlier atoms first on a tie.

    They are kept in a heap whose root is the least of them, and come out in the order of the atoms. `size` is scratch.
    """
    for k in range(v.shape[0]):
        size[k] = v[k] if positive else abs(v[k])
    n = count - count
    least = v.dtype.type(0)  # what an entry has to exceed; ties with the root lose, since they come later
    if count > 0:
        for start in range(0, v.shape[0], _BLOCK):
            some = 0
            for k in range(start, start + _BLOCK):
                some += size[k] > least
            if some == 0:
                continue
            for k in range(start, start + _BLOCK):
                if size[k] > least:
                    n = _push(size[k], k, count, n, heap_value, heap_atom)
                    if n == count:
                        least = heap_value[0]
    return _at_least(v, size, n, heap_value[0], heap_atom[0], idx, coef) if n > 0 else n


@part
def _push(value, atom, count, n, heap_value, heap_atom):
    """Put an entry into a heap of n, in the place of the least if there are `count` already; returns its size."""
    if n < count:
        child = n
        n += 1
        while child > 0:
            parent = (child - 1) // 2
            if not _before(value, atom, heap_value[parent], heap_atom[parent]):
                break
            heap_value[child], heap_atom[child] = heap_value[parent], heap_atom[parent]
            child = parent
    else:
        child = 0
        while 2 * child + 1 < n:
            below = 2 * child + 1
            other = below + 1
            if other < n and _before(heap_value[other], heap_atom[other], heap_value[below], heap_atom[below]):
                below = other
            if _before(value, atom, heap_value[below], heap_atom[below]):
                break
            heap_value[child], heap_atom[child] = heap_value[below], heap_atom[below]
            child = below
    heap_value[child], heap_atom[child] = value, atom
    return n


@inline
def _before(value, atom, than, than_atom):
    """Whether an entry ranks below another: smaller, or as large and of a later atom."""
    return value < than or (value == than and atom > than_atom)


@part
def _at_least(v, size, n, least, last, idx, coef):
    """Collect the n entries that rank no lower than the size `least` of atom `last`, in the order of the atoms."""
    m = n - n
    for start in range(0, v.shape[0], _BLOCK):
        some = 0
        for k in range(start, start + _BLOCK):
            some += size[k] >= least
        if some > 0:
            for k in range(start, start + _BLOCK):
                if m < n and not _before(size[k], k, least, last):
                    idx[m], coef[m] = k, v[k]
                    m += 1
    return m


@rare
def _normalised_step(g, idx, m, G, safe):
    """The step that minimises the residual along g on the support: |g_A|^2 / (g_A G_AA g_A)."""
    square, curvature = g.dtype.type(0), g.dtype.type(0)
    for a in range(m):
        row, along = G[idx[a]], g.dtype.type(0)
        for b in range(m):
            along += row[idx[b]] * g[idx[b]]
        square += g[idx[a]] * g[idx[a]]
        curvature += along * g[idx[a]]
    return max(square / curvature, safe) if curvature > 0 else safe


@rare
def _least_squares(q, G, idx, coef, m, positive, lower, upper, kept_idx, vectors):
    """Least squares on a support, without atoms that depend on earlier ones; returns the number of atoms kept."""
    kept_coef, rhs, column = vectors[0], vectors[1], vectors[2]
    projection, expansion, x = vectors[3], vectors[4], vectors[5]
    dependent = q.dtype.type(1e-5) if q.itemsize == 4 else q.dtype.type(1e-10)
    kept = m - m
    for a in range(m):
        row = G[idx[a]]
        pivot2 = row[idx[a]] - project_atom(row, kept_idx, kept, upper, column, projection)
        if pivot2 > dependent * row[idx[a]]:
            append_atom(projection, pivot2, kept, lower, upper, expansion)
            kept_idx[kept], kept_coef[kept] = idx[a], coef[a]
            kept += 1
    return least_squares_step(q, kept, positive, kept_idx, kept_coef, rhs, column, x, lower, upper)


@part
def least_squares_step(q, m, positive, idx, coef, rhs, scratch, x, lower, upper):
    """Move the values of independent atoms to least squares; returns the number of atoms.

    If codes are to be non-negative, go as far as the first value that reaches zero, drop that atom, and go on.
    """
    while m > 0:
        for a in range(m):
            rhs[a] = q[idx[a]]
        clear_tail(rhs, m)
        solve(rhs, 0, m, lower, upper, scratch, x)
        t, drop = q.dtype.type(1), m
        if positive:
            for a in range(m):
                if x[a] <= 0 and (drop == m or coef[a] < t * (coef[a] - x[a])):
                    t = coef[a] / (coef[a] - x[a]) if coef[a] > 0 else q.dtype.type(0)
                    drop = a
        if drop == m:
            for a in range(m):
                coef[a] = x[a]
            break
        for a in range(m):
            coef[a] += t * (x[a] - coef[a])
        for a in range(drop, m - 1):
            idx[a], coef[a] = idx[a + 1], coef[a + 1]
        delete_atom(drop, m, lower, upper)
        m -= 1
    return m
