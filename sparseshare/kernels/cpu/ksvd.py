"""Atom steps of K-SVD: an atom and its coefficients together, against the residual of all signals.

Codes come by atom, as the three arrays of a CSC matrix: signals[indptr[k]:indptr[k + 1]] are those that use atom k.
The residual X - W D is kept up to date, so that every atom sees the steps of the earlier ones.
"""

import numpy as np

from .jit import called, kernel, part


@part
def _replace(start, stop, signals, values, residual, atom, new):
    """Give an atom its new direction and each of its signals the best coefficient for it."""
    n_features = len(atom)
    overlap = atom.dtype.type(0)
    for f in range(n_features):
        overlap += atom[f] * new[f]
    for a in range(start, stop):
        row = residual[signals[a]]
        old = values[a]
        coefficient = old * overlap
        for f in range(n_features):
            coefficient += row[f] * new[f]
        for f in range(n_features):
            row[f] += old * atom[f] - coefficient * new[f]
        values[a] = coefficient
    for f in range(n_features):
        atom[f] = new[f]


@kernel
def approximate_steps(indptr, signals, values, residual, dictionary):
    """One alternation an atom (Rubinstein, Zibulevsky and Elad 2008, algorithm 5): d ~ sum_i w_i E_i, then w_i = E_i d.

    Parameters
    ----------
    indptr (K + 1,) int64, signals int32, values : codes by atom; values updated in place
    residual : (N, n) array, X - W D, updated in place
    dictionary : (K, n) array, atoms of unit norm, updated in place; an atom that no signal uses stays
    """
    n_atoms, n_features = dictionary.shape
    new = np.empty(n_features, dictionary.dtype)
    for k in range(n_atoms):
        start, stop = indptr[k], indptr[k + 1]
        atom = dictionary[k]
        mass = atom.dtype.type(0)
        for f in range(n_features):
            new[f] = 0
        for a in range(start, stop):
            value = values[a]
            row = residual[signals[a]]
            mass += value * value
            for f in range(n_features):
                new[f] += value * row[f]
        total = 0.0
        for f in range(n_features):
            new[f] += mass * atom[f]
            total += np.float64(new[f]) * np.float64(new[f])
        if total > 0:
            inverse = 1 / np.sqrt(total)
            for f in range(n_features):
                new[f] *= inverse
            _replace(start, stop, signals, values, residual, atom, new)


@called
def _leading_eigenvector(matrix, vector, tol, max_iter):
    """Power iteration from `vector`, in place; LAPACK where two eigenvalues are too close for it."""
    size = len(vector)
    product = np.empty(size)
    for _ in range(max_iter):
        norm = np.sqrt(np.sum(vector * vector))
        if norm == 0:
            break
        value = 0.0
        for i in range(size):
            vector[i] /= norm
        for i in range(size):
            total = 0.0
            row = matrix[i]
            for j in range(size):
                total += row[j] * vector[j]
            product[i] = total
            value += total * vector[i]
        error = 0.0
        for i in range(size):
            difference = product[i] - value * vector[i]
            error += difference * difference
            vector[i] = product[i]
        if error <= (tol * value) ** 2 and value > 0:
            return
    vectors = np.linalg.eigh(matrix)[1]
    for i in range(size):  # an assignment of slices takes seconds to compile, for its error message
        vector[i] = vectors[i, size - 1]


@kernel
def exact_steps(indptr, signals, values, residual, dictionary, tol, max_iter):
    """The leading singular pair of E_k = R + w_k d_k, an atom at a time (Aharon, Elad and Bruckstein 2006, section IV).

    Parameters
    ----------
    indptr, signals, values, residual, dictionary : as in `approximate_steps`
    tol : float64, relative error |Cv - lambda v| / lambda at which power iteration on C = E'E or EE' ends
    max_iter : iterations before LAPACK decomposes C instead
    """
    n_atoms, n_features = dictionary.shape
    most = 0
    for k in range(n_atoms):
        most = max(most, indptr[k + 1] - indptr[k])
    scratch = np.empty((most, n_features))
    direction = np.empty(n_features)
    new = np.empty(n_features, dictionary.dtype)
    for k in range(n_atoms):
        start, stop = indptr[k], indptr[k + 1]
        count = stop - start
        if count == 0:
            continue
        atom = dictionary[k]
        errors = scratch[:count]
        largest = 0.0
        for a in range(count):
            row = residual[signals[start + a]]
            value = np.float64(values[start + a])
            for f in range(n_features):
                errors[a, f] = row[f] + value * atom[f]
                largest = max(largest, abs(errors[a, f]))
        if largest == 0:
            continue
        for a in range(count):  # squares of tiny or huge data would leave the range of the numbers
            for f in range(n_features):
                errors[a, f] /= largest
        if count >= n_features:
            for f in range(n_features):
                direction[f] = atom[f]
            _leading_eigenvector(np.dot(errors.T, errors), direction, tol, max_iter)
        else:
            weights = np.empty(count)
            for a in range(count):
                weights[a] = values[start + a]
            _leading_eigenvector(np.dot(errors, errors.T), weights, tol, max_iter)
            for f in range(n_features):
                direction[f] = 0
            for a in range(count):
                for f in range(n_features):
                    direction[f] += weights[a] * errors[a, f]
        sign, total = 0.0, 0.0
        for f in range(n_features):
            sign += direction[f] * atom[f]
            total += direction[f] * direction[f]
        scale = (1 if sign >= 0 else -1) / np.sqrt(total)  # the sign of a singular vector is free: keep the atom's
        for f in range(n_features):
            new[f] = scale * direction[f]
        _replace(start, stop, signals, values, residual, atom, new)
