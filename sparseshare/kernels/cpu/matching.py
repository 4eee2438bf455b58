"""Matching pursuit, and orthogonal matching pursuit with non-negative coefficients.

Mallat and Zhang 1993; non-negative least squares on the chosen atoms as in Lawson and Hanson 1974, chapter 23.
"""

from math import sqrt

import numpy as np

from .duality import rounding_level
from .factor import append_atom, capacity_for, project_atom, triangles
from .jit import kernel, part
from .thresholding import least_squares_step, squared_residual
from .vectors import SLOTS, sweep


@kernel
def mp_tile(
    Q,
    norms2,
    G,
    n_nonzero,
    max_error,
    max_iter,
    positive,
    indices,
    values,
    counts,
    residuals,
    iterations,
    status,
):
    """Approximate every signal of a tile by matching pursuit: one atom's coefficient a step, the others left alone.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal
    norms2 : (T,) float64 array, |x|^2
    G : (K, K) array, D D'
    n_nonzero : (T,) int array, stop before a step that needs more distinct atoms than this
    max_error : (T,) float64 array, stop once |x - w D|^2 is no larger; negative: no such stop
    max_iter : int, steps a signal
    positive : bool, steps upwards only, so that codes are >= 0
    indices, values, counts : (T, capacity) int32, (T, capacity), (T,) int32, out: the codes; capacity >= n_nonzero
    residuals : (T,) float64, out: |x - w D|^2
    iterations : (T,) int32, out: steps
    status : (T,) int8, out: 0 done, 1 stopped at max_iter
    """
    n_signals, n_atoms = Q.shape
    limit = indices.shape[1]
    g, score = np.empty(n_atoms, Q.dtype), np.empty(n_atoms, Q.dtype)
    coef, step = np.zeros(limit + 1, Q.dtype), np.zeros(1, Q.dtype)
    idx, moved = np.zeros(limit + 1, np.int32), np.zeros(1, np.int32)
    position = np.full(n_atoms, -1, np.int32)  # of each atom in the code
    weight = np.zeros(n_atoms, Q.dtype)
    unit = _inverse_norms(G, weight)
    top_value, top_atom = np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32)
    none = np.int64(0)  # not a literal, for which every part would be compiled once more
    for i in range(n_signals):
        q, count = Q[i], min(n_nonzero[i], limit)
        m, steps, outcome = none, 0, 0
        residual2 = norms2[i]
        j = sweep(q, G, moved, step, 0, None, positive, g, top_value, top_atom)
        if not unit:
            j = sweep(g, G, moved, step, 0, weight, positive, score, top_value, top_atom)
        level = rounding_level(Q) * abs(g[j])
        while residual2 > max_error[i]:
            fresh = position[j] < 0
            if not (g[j] if positive else abs(g[j])) > level or (fresh and m >= count):
                break
            if steps >= max_iter:
                outcome = 1
                break
            steps += 1
            if fresh:
                idx[m], coef[m], position[j] = j, 0, m
                m += 1
            moved[0], step[0] = j, g[j] / G[j, j]
            coef[position[j]] += step[0]
            residual2 -= float(g[j]) * float(step[0])
            j = sweep(g, G, moved, step, 1, None, positive, g, top_value, top_atom)
            if not unit:
                j = sweep(g, G, moved, step, 0, weight, positive, score, top_value, top_atom)
        sweep(q, G, idx, coef, m, None, positive, g, top_value, top_atom)
        residuals[i] = squared_residual(q, g, idx, coef, m, norms2[i])
        iterations[i] = steps
        status[i] = outcome
        counts[i] = 0
        for a in range(m):
            position[idx[a]] = -1
            if coef[a] != 0:
                indices[i, counts[i]], values[i, counts[i]] = idx[a], coef[a]
                counts[i] += 1


@kernel
def positive_omp_tile(Q, norms2, G, n_nonzero, max_error, indices, values, counts, residuals, iterations, status):
    """Approximate every signal of a tile by orthogonal matching pursuit with coefficients >= 0.

    The atom with the largest positive correlation joins, coefficients move to non-negative least squares on the chosen
    atoms, and those that reach zero leave; the residual falls every round.

    Parameters
    ----------
    Q : (T, K) array, the correlations D x of each signal
    norms2 : (T,) float64 array, |x|^2
    G : (K, K) array, D D'
    n_nonzero : (T,) int array, the largest number of atoms
    max_error : (T,) float64 array, stop once |x - w D|^2 is no larger; negative: no such stop
    indices, values, counts : (T, capacity) int32, (T, capacity), (T,) int32, out: the codes; capacity >= n_nonzero
    residuals : (T,) float64, out: |x - w D|^2
    iterations : (T,) int32, out: rounds
    status : (T,) int8, out: 0 done, 1 stopped at the bound on rounds, 2 no atom left that is independent of the chosen
    """
    n_signals, n_atoms = Q.shape
    limit = indices.shape[1]
    room = capacity_for(limit)
    lower, upper = triangles(room, Q)
    vectors = np.zeros((7, room), Q.dtype)
    coef, rhs, x, scratch = vectors[0], vectors[1], vectors[2], vectors[3]
    column, projection, expansion = vectors[4], vectors[5], vectors[6]
    idx = np.zeros(room, np.int32)
    dependent = Q.dtype.type(1e-6) if Q.itemsize == 4 else Q.dtype.type(1e-10)
    g, score = np.empty(n_atoms, Q.dtype), np.empty(n_atoms, Q.dtype)
    weight = np.zeros(n_atoms, Q.dtype)
    unit = _inverse_norms(G, weight)
    top_value, top_atom = np.empty(SLOTS, Q.dtype), np.empty(SLOTS, np.int32)
    none = np.int64(0)  # not a literal, for which every part would be compiled once more
    for i in range(n_signals):
        q, count = Q[i], min(n_nonzero[i], limit)
        m, rounds, outcome = none, 0, 0
        residual2 = norms2[i]
        sweep(q, G, idx, coef, 0, None, True, g, top_value, top_atom)
        j = sweep(g, G, idx, coef, 0, weight, True, score, top_value, top_atom)
        level = rounding_level(Q) * score[j]
        while m < count and residual2 > max_error[i]:
            if rounds >= 3 * count + 10:
                outcome = 1
                break
            for a in range(m):
                score[idx[a]] = 0
            j = sweep(score, G, idx, coef, 0, None, True, score, top_value, top_atom)
            pivot2 = Q.dtype.type(0)
            while score[j] > level:
                pivot2 = G[j, j] - project_atom(G[j], idx, m, upper, column, projection)
                if pivot2 > dependent * G[j, j]:
                    break
                outcome = 2
                score[j] = 0
                j = sweep(score, G, idx, coef, 0, None, True, score, top_value, top_atom)
            if not score[j] > level:
                break
            outcome = 0
            rounds += 1
            append_atom(projection, pivot2, m, lower, upper, expansion)
            idx[m], coef[m] = j, 0
            m = least_squares_step(q, m + 1, True, idx, coef, rhs, scratch, x, lower, upper)
            sweep(q, G, idx, coef, m, None, True, g, top_value, top_atom)
            old2, residual2 = residual2, squared_residual(q, g, idx, coef, m, norms2[i])
            if not residual2 < old2:  # what is left is rounding
                break
            if not unit:
                sweep(g, G, idx, coef, 0, weight, True, score, top_value, top_atom)
            else:
                for k in range(n_atoms):
                    score[k] = g[k]
        residuals[i] = residual2
        iterations[i] = rounds
        status[i] = outcome
        counts[i] = m
        for a in range(m):
            indices[i, a], values[i, a] = idx[a], coef[a]


@part
def _inverse_norms(G, weight):
    """Fill in 1 / |d_j| for every atom but those of zeros; returns whether all have norm 1 up to rounding."""
    unit = True
    for j in range(G.shape[0]):
        if G[j, j] > 0:
            weight[j] = 1 / sqrt(G[j, j])
            unit &= abs(float(G[j, j]) - 1.0) < 1e-6
    return unit
