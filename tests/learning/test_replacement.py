"""Dead and duplicate atoms give way to the worst-coded signals."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare.learning.replacement import COHERENCE, duplicate_atoms, replace_atoms
from sparseshare.learning.statistics import partial_statistics, squared_residuals
from sparseshare.optimization import AtomConstraint


@pytest.fixture
def coded(rng):
    dictionary = rng.standard_normal((8, 12))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    dictionary[6] = -dictionary[1] + 1e-3 * rng.standard_normal(12)
    W = np.where(rng.random((60, 8)) < 0.4, rng.standard_normal((60, 8)), 0)
    W[:, 4] = 0
    X = W @ dictionary + 0.01 * rng.standard_normal((60, 12))
    X[[7, 21]] += 5 * rng.standard_normal((2, 12))
    codes = csr_array(W)
    return X, codes, dictionary, partial_statistics(X, codes), squared_residuals(X, codes, dictionary)


def test_duplicates_of_either_sign(coded):
    _, _, dictionary, statistics, _ = coded
    weaker, stronger = sorted((1, 6), key=lambda k: statistics.A[k, k])
    assert duplicate_atoms(dictionary, statistics) == [(weaker, stronger, -1)]


def test_none_where_there_are_none(coded, rng):
    _, _, dictionary, statistics, _ = coded
    dictionary[6] = dictionary[4] = 0
    assert duplicate_atoms(dictionary, statistics) == []


def test_a_bunch_of_equal_atoms_keeps_one(coded):
    _, _, dictionary, statistics, _ = coded
    dictionary[[0, 2, 5]] = dictionary[3]
    found = duplicate_atoms(dictionary, statistics)
    gone, kept = {atom for atom, _, _ in found}, {keep for _, keep, _ in found}
    assert gone.isdisjoint(kept) and len(gone & {0, 2, 3, 5}) >= 1


def test_the_worst_coded_signals_come_in(coded):
    X, _, dictionary, statistics, residuals = coded
    duplicates = duplicate_atoms(dictionary, statistics)
    gone, kept, _ = duplicates[0]
    before = dictionary.copy()
    replaced = replace_atoms(dictionary, statistics, np.array([4]), duplicates, X, residuals, AtomConstraint())
    assert set(replaced.tolist()) == {4, gone}
    unit = X[[7, 21]] / np.linalg.norm(X[[7, 21]], axis=1, keepdims=True)
    np.testing.assert_allclose(sorted(np.abs(unit @ dictionary[replaced].T).max(axis=0)), 1)
    others = np.setdiff1d(np.arange(8), replaced)
    np.testing.assert_array_equal(dictionary[others], before[others])
    for atom in replaced:
        assert not statistics.A[atom].any() and not statistics.A[:, atom].any() and not statistics.B[atom].any()
    assert statistics.A[kept, kept] > 0


def test_the_same_every_time(coded):
    X, _, dictionary, statistics, residuals = coded
    other = dictionary.copy()
    for atoms in (dictionary, other):
        replace_atoms(atoms, statistics, np.array([4, 2]), [], X, residuals, AtomConstraint())
    np.testing.assert_array_equal(dictionary, other)


def test_well_coded_signals_replace_nothing(coded):
    X, codes, dictionary, statistics, _ = coded
    X = codes.toarray() @ dictionary
    before = dictionary.copy()
    residuals = squared_residuals(X, codes, dictionary)
    assert len(replace_atoms(dictionary, statistics, np.array([4]), [], X, residuals, AtomConstraint())) == 0
    np.testing.assert_array_equal(dictionary, before)


def test_newcomers_are_unlike_each_other_and_the_rest(coded, rng):
    X, _, dictionary, statistics, residuals = coded
    X[:30] = X[7] * rng.uniform(0.5, 2, size=(30, 1))
    X[30:] = 3 * dictionary[0]
    replaced = replace_atoms(dictionary, statistics, np.arange(3, 8), [], X, np.full(60, 1.0), AtomConstraint())
    assert len(replaced) == 1
    cosines = np.abs(dictionary[replaced] @ dictionary[[0, 1, 2]].T)
    assert cosines.max() <= COHERENCE


def test_newcomers_are_feasible(coded):
    X, _, dictionary, statistics, residuals = coded
    constraint = AtomConstraint(nonnegative=True)
    dictionary = constraint.project(dictionary)
    replace_atoms(dictionary, statistics, np.array([4, 5]), [], X, residuals, constraint)
    assert constraint.contains(dictionary)


def test_nothing_to_replace(coded):
    X, _, dictionary, statistics, residuals = coded
    assert len(replace_atoms(dictionary, statistics, [], [], X, residuals, AtomConstraint())) == 0
