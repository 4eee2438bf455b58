"""Sums over coded signals that learning needs: A = W'W, B = W'X, residuals, and how much each atom is used.

Codes come as the three arrays of a CSR matrix. Sums are in float64. One call owns the rows `first` to `last` of A and B
and goes through the signals of each atom in order, so the bits do not depend on how threads split the atoms.
"""

import numpy as np

from .jit import kernel


@kernel
def order_by_atom(indptr, indices, starts, signals, positions):
    """List the non-zeros atom by atom, signals in order (a counting sort).

    Parameters
    ----------
    indptr (T + 1,) int64, indices int32 : codes by signal
    starts : (K + 1,) int64 out, where each atom's list begins
    signals, positions : int32 out, of each non-zero the signal and its place in `indices`
    """
    n_atoms = len(starts) - 1
    starts[:] = 0
    for a in range(len(indices)):
        starts[indices[a] + 1] += 1
    for k in range(n_atoms):
        starts[k + 1] += starts[k]
    place = starts[:n_atoms].copy()
    for i in range(len(indptr) - 1):
        for a in range(indptr[i], indptr[i + 1]):
            k = indices[a]
            signals[place[k]] = i
            positions[place[k]] = a
            place[k] += 1


@kernel
def accumulate(indptr, indices, values, X, weight, starts, signals, positions, first, last, A, B):
    """A += weight * W'W and B += weight * W'X in the rows of some atoms (Mairal et al. 2010, algorithm 1, lines 5, 6).

    Atom by atom, a row of A and of B stays in the first cache while its signals go by.

    Parameters
    ----------
    indptr (T + 1,) int64, indices int32, values : codes of T signals; values in the dtype of X
    X : (T, n) array
    weight : float64
    starts, signals, positions : from `order_by_atom`
    first, last : rows of A and B to add to
    A, B : (K, K) and (K, n) arrays, float64, updated in place
    """
    n_features = X.shape[1]
    for k in range(first, last):
        row, cross = A[k], B[k]
        for p in range(starts[k], starts[k + 1]):
            i = signals[p]
            scaled = weight * np.float64(values[positions[p]])
            for b in range(indptr[i], indptr[i + 1]):
                row[indices[b]] += scaled * values[b]
            x = X[i]
            for f in range(n_features):
                cross[f] += scaled * x[f]


@kernel
def atom_usage(indices, values, weight, l1, counts):
    """l1[k] += weight * sum_i |w_ik| and counts[k] += number of signals that use atom k; both (K,), float64."""
    for a in range(len(indices)):
        value = np.float64(values[a])
        if value != 0:
            l1[indices[a]] += weight * abs(value)
            counts[indices[a]] += 1


@kernel
def squared_residuals(indptr, indices, values, X, dictionary, residuals):
    """residuals[i] = |x_i - w_i D|^2 for every signal, (T,) float64."""
    n_signals, n_features = X.shape
    residual = np.empty(n_features, X.dtype)
    for i in range(n_signals):
        for f in range(n_features):
            residual[f] = X[i, f]
        for a in range(indptr[i], indptr[i + 1]):
            value = values[a]
            atom = dictionary[indices[a]]
            for f in range(n_features):
                residual[f] -= value * atom[f]
        total = 0.0
        for f in range(n_features):
            total += np.float64(residual[f]) * np.float64(residual[f])
        residuals[i] = total


@kernel
def subtract_reconstruction(indptr, indices, values, dictionary, residual):
    """residual[i] -= w_i D for every signal, (T, n) in place."""
    n_signals, n_features = residual.shape
    for i in range(n_signals):
        row = residual[i]
        for a in range(indptr[i], indptr[i + 1]):
            value = values[a]
            atom = dictionary[indices[a]]
            for f in range(n_features):
                row[f] -= value * atom[f]
