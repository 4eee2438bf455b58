"""Dead and duplicate atoms give way to badly coded signals.

An atom that no signal uses, or that is nearly the same line as another one, costs time and explains nothing. Its place
goes to a signal that the dictionary codes worst. Nothing is drawn at random, so a fit stays reproducible.
"""

import numpy as np

from sparseshare.devices import array_module, to_host

from .initialization import feasible_atoms
from .statistics import dense_rows

COHERENCE = 0.99  # |cosine| from which two atoms count as one


def largest_cosine(dictionary):
    """The largest magnitude of a cosine between two atoms.

    Parameters
    ----------
    dictionary : array of shape (n_components, n_features)

    Returns
    -------
    float, or array of no axes on a GPU
    """
    xp, cosines = array_module(dictionary), _cosines(dictionary)
    return xp.maximum(cosines.max(), -cosines.min())


def _cosines(dictionary):
    """Of all pairs of atoms, 0 of an atom with itself."""
    xp = array_module(dictionary)
    norms = xp.sqrt(xp.einsum("ij,ij->i", dictionary, dictionary, dtype=np.float64))
    unit = dictionary / xp.where(norms > 0, norms, 1)[:, None].astype(dictionary.dtype)
    cosines = unit @ unit.T
    xp.fill_diagonal(cosines, 0)
    return cosines


def duplicate_atoms(dictionary, statistics):
    """Atoms that repeat another one. What lives on a GPU is fetched: there are few such atoms, and seldom.

    Parameters
    ----------
    dictionary : array of shape (n_components, n_features)
    statistics : Statistics
        Of each pair the atom of smaller mass A_kk goes.

    Returns
    -------
    list of (atom, kept, sign)
        `dictionary[atom]` is nearly parallel to `sign * dictionary[kept]`; no atom is both given up and kept.
    """
    cosines = _cosines(to_host(dictionary))
    if max(cosines.max(), -cosines.min()) <= COHERENCE:
        return []
    close = np.argwhere(np.triu(np.abs(cosines) > COHERENCE))
    mass = to_host(statistics.A.diagonal())
    gone, kept, found = set(), set(), []
    for j, k in close.tolist():
        atom, other = (k, j) if mass[k] <= mass[j] else (j, k)
        if gone.isdisjoint((atom, other)) and atom not in kept:
            gone.add(atom)
            kept.add(other)
            found.append((atom, other, 1 if cosines[j, k] > 0 else -1))
    return found


def replace_atoms(dictionary, statistics, dead, duplicates, X, residuals, constraint):
    """Put badly coded signals in the place of dead and duplicate atoms, in place.

    Parameters
    ----------
    dictionary : array of shape (n_components, n_features)
        Updated in place.
    statistics : Statistics
        The codes of a duplicate go to the atom it repeats; what is left of the old atoms is set to zero, in place.
    dead : array of int
        Atoms that nothing uses.
    duplicates : list of (atom, kept, sign)
        From `duplicate_atoms`.
    X : array or CSR array of shape (n_samples, n_features)
        Signals to choose from, anywhere.
    residuals : array of shape (n_samples,)
        Their squared residuals.
    constraint : AtomConstraint

    Returns
    -------
    ndarray of int
        The atoms that were replaced: fewer than asked for when no signal is coded badly, or when those that are look
        like an atom already there.
    """
    repeated = {atom: (kept, sign) for atom, kept, sign in duplicates}
    dead = [atom for atom in np.asarray(dead).tolist() if atom not in repeated]
    leaving = list(repeated) + dead
    if not leaving:
        return np.empty(0, dtype=np.intp)
    staying = np.delete(to_host(dictionary), leaving, axis=0)
    atoms = _worst_coded(staying, len(leaving), X, residuals, constraint)
    replaced = np.array(leaving[: len(atoms)], dtype=np.intp)
    for atom in replaced.tolist():
        if atom in repeated:
            statistics.hand_over(atom, *repeated[atom])
        else:
            statistics.drop(atom)
    xp = array_module(dictionary)
    dictionary[xp.asarray(replaced)] = xp.asarray(atoms)
    return replaced


def n_candidates(count):
    """How many of the worst coded signals may be looked at for the places of so many atoms."""
    return 4 * count + 16


def _worst_coded(dictionary, count, X, residuals, constraint):
    """Up to `count` atoms made of the signals with the largest residual, unlike each other and unlike the rest."""
    order = array_module(residuals).argsort(-residuals, kind="stable")[: n_candidates(count)]
    residuals, order = to_host(residuals[order]), to_host(order)
    signals = to_host(dense_rows(X, order, dictionary.dtype))
    energies = np.einsum("ij,ij->i", signals, signals, dtype=np.float64)
    signals = signals[residuals > 1e-8 * energies]  # the others are coded perfectly
    candidates = feasible_atoms(signals, constraint)
    lengths = np.sqrt(np.einsum("ij,ij->i", dictionary, dictionary, dtype=np.float64))
    limits = COHERENCE * np.where(lengths > 0, lengths, np.inf)
    taken = (np.abs(candidates @ dictionary.T) > limits).any(axis=1)
    chosen = []
    cosines = np.abs(candidates @ candidates.T)
    for i in np.flatnonzero(~taken).tolist():
        if len(chosen) == count:
            break
        if not chosen or cosines[i, chosen].max() <= COHERENCE:
            chosen.append(i)
    return candidates[chosen]
