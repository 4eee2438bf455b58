"""Orthogonal matching pursuit and orthogonal least squares on the Gram matrix, one pass over all atoms a step.

Each chosen atom's Gram row is made orthogonal to the earlier ones (the rows of `basis`), so that the correlations lose
one multiple of one row a step and the Cholesky row of the next atom is a column of `basis`: no triangular solve before
the last step. Batch-OMP (Rubinstein, Zibulevsky, Elad 2008) in its order-recursive form; OLS after Chen, Billings, Luo
1989 and Rebollo-Neira, Lowe 2002. Atoms have unit norm, or are zero.
"""

from math import sqrt

import numpy as np

from .jit import kernel, part
from .observed import gram_row, squared_norm
from .vectors import SLOTS, least_squares_sweep, orthogonal_sweep


@kernel
def omp_tile(
    Q, norms2, G, n_nonzero, max_error, weight, stops, indices, values, counts, residuals, status, path_values
):
    """Codes of a tile by orthogonal matching pursuit.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal
    norms2 : (T,) float64 array, |x|^2
    G : (K, K) array, D D', unit diagonal but for zero atoms
    n_nonzero : (T,) int64 array, atoms at most; never more than the capacity
    max_error : (T,) float64 array, squared residual at which to stop; negative: no target
    weight : (K,) array or None; the next atom has the largest weight * |correlation|
    stops : (P,) int64 array, increasing counts at which `path_values` keeps the codes
    indices, values, counts : (T, capacity) int32, (T, capacity), (T,) int32, out: atoms in order of choice, codes
    residuals : (T,) float64, out: squared residual
    status : (T,) int8, out: 0 reached its count or target, or nothing is left to explain; 2 stopped since every atom
        left depends on the chosen ones
    path_values : (T, P, capacity), out: the codes of the first stops[p] atoms
    """
    n_atoms, capacity = Q.shape[1], indices.shape[1]
    basis = np.empty((capacity + 1, n_atoms), Q.dtype)
    factor = np.zeros((capacity, capacity), Q.dtype)
    g = np.empty(n_atoms, Q.dtype)
    row, y = np.zeros(capacity, Q.dtype), np.zeros(capacity, Q.dtype)
    inverse, code = np.zeros(capacity, Q.dtype), np.zeros(capacity, Q.dtype)
    top_value, top_atom = np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32)
    for i in range(Q.shape[0]):
        counts[i], residuals[i], status[i] = _pursue(
            Q[i], norms2[i], G, None, min(n_nonzero[i], capacity), max_error[i], weight, indices[i],
            basis, factor, g, row, y, inverse, top_value, top_atom,
        )  # fmt: skip
        _codes(np.int64(counts[i]), factor, y, inverse, code, values[i])
        for p in range(len(stops)):
            _codes(min(stops[p], counts[i]), factor, y, inverse, code, path_values[i, p])


@kernel
def ols_tile(Q, norms2, G, n_nonzero, max_error, stops, indices, values, counts, residuals, status, path_values):
    """Codes of a tile by orthogonal least squares: the next atom is the one that lowers the residual most.

    Parameters as in `omp_tile`.
    """
    n_atoms, capacity = Q.shape[1], indices.shape[1]
    basis = np.empty((capacity + 1, n_atoms), Q.dtype)
    factor = np.zeros((capacity, capacity), Q.dtype)
    g, distance = np.empty(n_atoms, Q.dtype), np.empty(n_atoms, Q.dtype)
    row, y = np.zeros(capacity, Q.dtype), np.zeros(capacity, Q.dtype)
    inverse, code = np.zeros(capacity, Q.dtype), np.zeros(capacity, Q.dtype)
    top_value, top_atom = np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32)
    for i in range(Q.shape[0]):
        for k in range(n_atoms):
            distance[k] = G[k, k]
        counts[i], residuals[i], status[i] = _pursue_least_squares(
            Q[i], norms2[i], G, min(n_nonzero[i], capacity), max_error[i], indices[i],
            basis, factor, g, distance, row, y, inverse, top_value, top_atom,
        )  # fmt: skip
        _codes(np.int64(counts[i]), factor, y, inverse, code, values[i])
        for p in range(len(stops)):
            _codes(min(stops[p], counts[i]), factor, y, inverse, code, path_values[i, p])


@part
def _pursue(
    q, norm2, G, observed, limit, target, weight, chosen, basis, factor, g, row, y, inverse, top_value, top_atom
):
    """One signal of `omp_tile`; returns count, squared residual and status.

    With a mask (`observed`) G has room for one row, and the row of each atom is computed there.
    """
    dependent = q.dtype.type(1e-6) if q.itemsize == 4 else q.dtype.type(1e-10)
    noise = q.dtype.type(1e-6) if q.itemsize == 4 else q.dtype.type(2e-15)
    for k in range(q.shape[0]):
        g[k] = q[k]
    m, j, residual2 = np.int64(0), np.int64(0), norm2
    new_inverse, new_y, level = q.dtype.type(0), q.dtype.type(0), q.dtype.type(-1)
    while m < limit and not (target >= 0 and residual2 <= target):
        here = j
        if observed is not None:
            here = np.int64(0)
            if m > 0:
                gram_row(observed, j, G[here])
        j = orthogonal_sweep(G[here], basis, row, max(m - 1, 0), new_inverse, new_y, weight, g, top_value, top_atom)
        if level < 0:
            level = noise * abs(g[j])
        if abs(g[j]) <= level or _is_chosen(j, chosen, m):  # what is left is rounding
            break
        pivot2 = _cholesky_row(j, m, squared_norm(G, observed, j), basis, row)
        while pivot2 <= dependent:  # it depends on the chosen atoms, so its correlation is rounding
            g[j] = 0
            j = _again(g, weight)
            if abs(g[j]) <= level:
                return m, max(residual2, 0.0), 2
            pivot2 = _cholesky_row(j, m, squared_norm(G, observed, j), basis, row)
        new_inverse, new_y = _accept(j, m, pivot2, g[j], row, factor, inverse, y, chosen)
        residual2 -= float(new_y) ** 2
        m += 1
    return m, max(residual2, 0.0), 0


@part
def _pursue_least_squares(
    q, norm2, G, limit, target, chosen, basis, factor, g, distance, row, y, inverse, top_value, top_atom
):
    """One signal of `ols_tile`; returns count, squared residual and status."""
    dependent = q.dtype.type(1e-6) if q.itemsize == 4 else q.dtype.type(1e-10)
    noise = q.dtype.type(1e-6) if q.itemsize == 4 else q.dtype.type(2e-15)
    for k in range(q.shape[0]):
        g[k] = q[k]
    m, j, residual2 = np.int64(0), np.int64(0), norm2
    new_inverse, new_y, level = q.dtype.type(0), q.dtype.type(0), q.dtype.type(-1)
    while m < limit and not (target >= 0 and residual2 <= target):
        j = least_squares_sweep(
            G[j], basis, row, max(m - 1, 0), new_inverse, new_y, dependent, g, distance, top_value, top_atom
        )
        if level < 0:
            level = noise * abs(g[j])
        free = distance[j] > dependent
        if abs(g[j]) <= level or not free or _is_chosen(j, chosen, m):
            return m, max(residual2, 0.0), 0 if free or residual2 <= dependent * norm2 else 2
        pivot2 = _cholesky_row(j, m, G[j, j], basis, row)
        if pivot2 <= q.dtype.type(0.1) * dependent:
            return m, max(residual2, 0.0), 2
        new_inverse, new_y = _accept(j, m, pivot2, g[j], row, factor, inverse, y, chosen)
        residual2 -= float(new_y) ** 2
        m += 1
    return m, max(residual2, 0.0), 0


@part
def _is_chosen(j, chosen, m):
    found = False
    for a in range(m):
        found |= chosen[a] == j
    return found


@part
def _cholesky_row(j, m, pivot2, basis, row):
    """row = the new row of the Cholesky factor for atom j; returns its squared pivot, given its squared norm."""
    for a in range(m):
        r = basis[a, j]
        row[a] = r
        pivot2 -= r * r
    return pivot2


@part
def _accept(j, m, pivot2, correlation, row, factor, inverse, y, chosen):
    chosen[m] = j
    inverse[m] = 1 / sqrt(pivot2)
    y[m] = correlation * inverse[m]
    for a in range(m):
        factor[m, a] = row[a]
    return inverse[m], y[m]


@part
def _again(g, weight):
    """The atom with the largest score, the slow way."""
    best, score = 0, g.dtype.type(-1)
    for k in range(g.shape[0]):
        value = abs(g[k]) if weight is None else abs(g[k]) * weight[k]
        if value > score:
            best, score = k, value
    return best


@part
def _codes(m, factor, y, inverse, code, values):
    """values = inv(L') y, from the last atom to the first."""
    for a in range(m):
        code[a] = y[a]
    for a in range(m - 1, -1, -1):
        c = code[a] * inverse[a]
        values[a] = c
        for b in range(a):
            code[b] -= c * factor[a, b]
