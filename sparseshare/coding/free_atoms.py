"""Atoms of weight 0: they are solved out, and the lasso sees what they leave of signals and of the other atoms."""

from typing import NamedTuple

import numpy as np


class FreeAtoms(NamedTuple):
    """Atoms F without penalty, by their singular values.

    With the quadratic penalty l2 their best codes leave |M^(1/2) (x - w D)|^2 of the error, where M = I - F' inv(F F' +
    l2 I) F: for l2 = 0 the projection away from F.

    Attributes
    ----------
    atoms : (K,) bool array
        Which atoms are free.
    basis : (r, n) float64 array
        Orthonormal rows.
    removal : (n, r) float64 array
        What is left of rows is ``rows - (rows @ removal) @ basis``.
    inverse, left : (n, r) and (r, K_free) float64 arrays
        Best codes are ``(rows @ inverse) @ left``.
    """

    atoms: np.ndarray
    basis: np.ndarray
    removal: np.ndarray
    inverse: np.ndarray
    left: np.ndarray


def has_free_atoms(problem):
    """Whether a lasso leaves some atoms without penalty."""
    return problem.form.lasso and problem.weights is not None and bool((problem.weights == 0).any())


def free_atoms(problem):
    """The free atoms of a problem with one dictionary and one weight an atom."""
    free = problem.weights == 0
    l2 = problem.alpha * (1 - problem.l1_ratio) if problem.l1_ratio != 1 else 0.0
    left, sizes, basis = np.linalg.svd(problem.dictionary[free].astype(np.float64), full_matrices=False)
    kept = sizes > 1e-10 * sizes.max()
    left, sizes, basis = left[:, kept], sizes[kept], basis[kept]
    removed = 1 - np.sqrt(l2 / (sizes**2 + l2))
    return FreeAtoms(free, basis, basis.T * removed, basis.T * (sizes / (sizes**2 + l2)), left.T)


def bound_problem(problem, dictionary, free):
    """The problem of the atoms that are not free, with what the free ones leave of the dictionary."""
    bound = problem.restricted(weights=np.where(free.atoms, np.inf, problem.weights))
    bound.dictionary, bound._given_gram = dictionary, None
    return bound
