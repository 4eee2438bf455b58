"""Where a dictionary starts: rows of the data, singular vectors, k-means++ seeds, or an array.

Made on the host, of a few signals of wherever they are: so the same numbers give the same atoms on every device.
"""

import numpy as np
from sklearn.utils.random import sample_without_replacement

from sparseshare.devices import array_module, to_host
from sparseshare.optimization.constraints import row_norms
from sparseshare.validation import check_choice, check_dictionary, check_number

from .statistics import dense_rows

METHODS = ("data", "svd", "k-means++")
_BLOCK = 4096  # signals at a time
_BLOCK_ON_GPU = 262_144
_MOST_SHUFFLED = 2**20  # signals whose numbers are held in memory
_TRIED = 64  # signals of many for an atom, in case some are zero
_SHORTEST = 1e-6  # of a unit signal: what a projection leaves below this is rounding


def initial_dictionary(X, n_components, dict_init, constraint, random_state, dtype):
    """Dictionary to start from.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    n_components : int or None
        None means the length of `dict_init` if that is an array, else n_features.
    dict_init : None, "data", "svd", "k-means++" or array of shape (n_atoms, n_features)
        None is "data".

        - "data": random signals that are not zero;
        - "svd": the right singular vectors of X, largest first;
        - "k-means++": signals drawn with a probability proportional to the squared error that the best of the atoms
          drawn so far leaves (Arthur and Vassilvitskii 2007, with lines through the origin in the place of points);
        - an array is taken as it is, cut after `n_components` atoms.

        Whatever leaves atoms to choose is filled up with signals, and with random directions when these run out.
    constraint : AtomConstraint
        All atoms but those of an array are feasible, of unit norm where the constraint lets them.
    random_state : numpy.random.RandomState
    dtype : dtype

    Returns
    -------
    ndarray of shape (n_components, n_features), C-contiguous, new

    Raises
    ------
    ValueError
    """
    n_features = X.shape[1]
    given = not (dict_init is None or isinstance(dict_init, str))
    if given:
        atoms = check_dictionary(to_host(dict_init), dtype, name="dict_init")
        if atoms.shape[1] != n_features:
            raise ValueError(f"dict_init has {atoms.shape[1]} features per atom, X has {n_features}")
    if n_components is None:
        n_components = len(atoms) if given else n_features
    n_components = check_number("n_components", n_components, 1, integer=True)
    if not given:
        method = check_choice("dict_init", "data" if dict_init is None else dict_init, METHODS)
        start = {"data": _signals, "svd": _singular_vectors, "k-means++": _spread_signals}[method]
        atoms = start(X, n_components, constraint, random_state, dtype)
    parts = [atoms[:n_components]]
    missing = n_components - len(parts[0])
    if missing > 0 and (given or method == "svd"):
        parts.append(_signals(X, missing, constraint, random_state, dtype))
        missing -= len(parts[-1])
    while missing > 0:
        directions = feasible_atoms(random_state.standard_normal((missing, n_features)), constraint)
        if len(directions) == 0:
            raise ValueError(f"no atom of {n_features} feature(s) fulfils the constraints on the atoms")
        parts.append(directions)
        missing -= len(directions)
    return np.concatenate(parts).astype(dtype, copy=False)


def feasible_atoms(signals, constraint, return_rows=False):
    """Signals as atoms: scaled to unit norm and projected; those that are zero, or of which nothing is left, fall out.

    Parameters
    ----------
    signals : ndarray of shape (n_samples, n_features)
    constraint : AtomConstraint
    return_rows : bool, default=False

    Returns
    -------
    atoms : ndarray of shape (n_atoms, n_features)
    rows : ndarray of int, only with `return_rows`
        The signals they come from.
    """
    lengths = row_norms(signals)
    rows = np.flatnonzero(lengths > 0)
    atoms = constraint.project((signals[rows] / lengths[rows, None]).astype(signals.dtype, copy=False))
    lengths = row_norms(atoms)
    long = np.flatnonzero(lengths > _SHORTEST)
    atoms, rows = atoms[long], rows[long]
    if constraint.l1_budget is None:
        atoms = (atoms / lengths[long, None]).astype(signals.dtype, copy=False)
    return (atoms, rows) if return_rows else atoms


def _signals(X, count, constraint, random_state, dtype):
    """Up to `count` random signals that are not zero."""
    order = _random_rows(X.shape[0], max(_TRIED * count, _MOST_SHUFFLED), random_state)
    parts, found, at = [np.empty((0, X.shape[1]), dtype)], 0, 0
    while found < count and at < len(order):
        step = max(count - found, 64)
        chosen = order[at : at + step]
        parts.append(feasible_atoms(to_host(dense_rows(X, chosen, dtype)), constraint)[: count - found])
        found += len(parts[-1])
        at += step
    return np.concatenate(parts)


def _random_rows(n_samples, count, random_state):
    """Numbers of `count` different signals, or of all where there are not many, in random order."""
    if n_samples <= _MOST_SHUFFLED:
        return random_state.permutation(n_samples)
    rows = sample_without_replacement(n_samples, min(count, n_samples), random_state=random_state)
    return random_state.permutation(rows)


def _singular_vectors(X, count, constraint, random_state, dtype):
    """Leading right singular vectors, from the (n_features, n_features) matrix X'X in float64."""
    n_samples, n_features = X.shape
    xp = array_module(X)
    size = _BLOCK if xp is np else _BLOCK_ON_GPU
    total, largest = xp.zeros((n_features, n_features)), 0.0
    for start in range(0, n_samples, size):  # one scale for all: squares of tiny data would vanish
        largest = max(largest, float(xp.abs(dense_rows(X, slice(start, start + size), np.float64)).max()))
    for start in range(0, n_samples, size):
        block = dense_rows(X, slice(start, start + size), np.float64) / (largest or 1)
        total += block.T @ block
    values, vectors = np.linalg.eigh(to_host(total))
    rank = int((values > values[-1] * n_features * np.finfo(np.float64).eps).sum()) if largest > 0 else 0
    vectors = vectors[:, ::-1][:, : min(rank, count)].T
    # The sign is free: let the larger half be positive, which is also what a non-negative atom can keep.
    flip = (np.maximum(-vectors, 0) ** 2).sum(axis=1) > (np.maximum(vectors, 0) ** 2).sum(axis=1)
    return feasible_atoms(np.where(flip[:, None], -vectors, vectors).astype(dtype), constraint)


def _spread_signals(X, count, constraint, random_state, dtype):
    """Seeds of k-means++ among at most max(10 * count, 2000) random signals."""
    size = min(X.shape[0], max(10 * count, 2000))
    candidates = to_host(dense_rows(X, np.sort(_random_rows(X.shape[0], size, random_state)[:size]), dtype))
    atoms, rows = feasible_atoms(candidates, constraint, return_rows=True)
    signals = candidates[rows].astype(np.float64)
    signals /= np.abs(signals).max(initial=1e-300)
    energy = np.einsum("ij,ij->i", signals, signals)
    error, chosen = energy.copy(), []
    while len(chosen) < min(count, len(atoms)):
        error[chosen] = 0
        cumulative = error.cumsum()
        if cumulative.size == 0 or cumulative[-1] <= 1e-12 * energy.sum():
            break
        pick = int(np.searchsorted(cumulative, random_state.uniform() * cumulative[-1], side="right"))
        chosen.append(min(pick, len(atoms) - 1))
        error = np.minimum(error, np.maximum(energy - (signals @ atoms[chosen[-1]]) ** 2, 0))
    return atoms[chosen]
