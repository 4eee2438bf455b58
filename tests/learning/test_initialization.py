"""First dictionaries: what each start is, and that there are always enough atoms."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare.learning.initialization import feasible_atoms, initial_dictionary
from sparseshare.optimization import AtomConstraint

BALL = AtomConstraint()


def start(X, n_components, dict_init, constraint=BALL, seed=0, dtype=np.float64):
    return initial_dictionary(X, n_components, dict_init, constraint, np.random.RandomState(seed), dtype)


@pytest.mark.parametrize("dict_init", [None, "data", "svd", "k-means++"])
@pytest.mark.parametrize("n_components", [1, 5, 40])
@pytest.mark.parametrize("n_samples", [1, 3, 30])
def test_always_enough_unit_atoms(dict_init, n_components, n_samples, rng, dtype):
    X = rng.standard_normal((n_samples, 6)).astype(dtype)
    atoms = start(X, n_components, dict_init, dtype=dtype)
    assert atoms.shape == (n_components, 6) and atoms.dtype == dtype and atoms.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(atoms, start(X, n_components, dict_init, dtype=dtype))
    np.testing.assert_allclose(start(csr_array(X), n_components, dict_init, dtype=dtype), atoms, atol=1e-6)


@pytest.mark.parametrize("dict_init", ["data", "svd", "k-means++"])
@pytest.mark.parametrize(
    "constraint",
    [
        AtomConstraint(nonnegative=True),
        AtomConstraint("sphere", zero_mean=True),
        AtomConstraint(l1_budget=1.2),
        AtomConstraint("sphere", nonnegative=True),
    ],
    ids=repr,
)
def test_atoms_fulfil_the_constraints(dict_init, constraint, rng):
    X = rng.standard_normal((20, 5))
    X[:4] = 0
    X[4:8] = 1.0  # nothing is left of a constant signal when its mean is taken away
    assert constraint.contains(start(X, 25, dict_init, constraint))


def test_data_are_signals(rng):
    X = rng.standard_normal((50, 7))
    X[::2] = 0
    atoms = start(X, 10, "data")
    unit = X[1::2] / np.linalg.norm(X[1::2], axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(atoms @ unit.T).max(axis=1), 1)
    assert len(np.unique(atoms.round(8), axis=0)) == 10
    assert not np.array_equal(atoms, start(X, 10, "data", seed=1))


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_svd_spans_what_a_full_svd_spans(scale, rng):
    X = scale * rng.standard_normal((40, 3)) @ rng.standard_normal((3, 8))
    atoms = start(X, 3, "svd")
    right = np.linalg.svd(X / scale)[2][:3]
    np.testing.assert_allclose(np.abs(atoms @ right.T), np.eye(3), atol=1e-6)
    assert start(X, 6, "svd").shape == (6, 8)  # the rank is 3


def test_k_means_seeds_find_separate_clusters(rng):
    centers = np.eye(8)[:4]
    X = np.repeat(centers, 50, axis=0) * rng.choice([-3, 3], size=(200, 1)) + 0.01 * rng.standard_normal((200, 8))
    np.testing.assert_allclose(np.abs(start(X, 4, "k-means++") @ centers.T).max(axis=0), 1, atol=1e-2)


def test_arrays_are_taken_as_they_are(rng):
    X, given = rng.standard_normal((30, 4)), 5 * rng.standard_normal((6, 4))
    given.setflags(write=False)
    atoms = start(X, None, given)
    np.testing.assert_array_equal(atoms, given)
    assert not np.shares_memory(atoms, given)
    np.testing.assert_array_equal(start(X, 4, given), given[:4])
    longer = start(X, 9, given)
    np.testing.assert_array_equal(longer[:6], given)
    np.testing.assert_allclose(np.linalg.norm(longer[6:], axis=1), 1)
    assert start(X, 6, given.tolist()).shape == (6, 4)


@pytest.mark.parametrize(
    ("n_components", "dict_init", "message"),
    [
        (3, "random", "dict_init"),
        (3, np.ones((3, 5)), "5 features per atom, X has 4"),
        (3, np.full((3, 4), np.nan), "dict_init contains NaN"),
        (0, None, "n_components"),
        (3, np.ones(4), "dict_init"),
    ],
)
def test_bad_starts_are_refused(n_components, dict_init, message, rng):
    with pytest.raises(ValueError, match=message):
        start(rng.standard_normal((10, 4)), n_components, dict_init)


def test_all_signals_zero():
    assert start(np.zeros((5, 3)), 4, None).shape == (4, 3)
    assert start(np.zeros((5, 3)), 4, "svd").shape == (4, 3)
    assert start(np.zeros((5, 3)), 4, "k-means++").shape == (4, 3)


def test_constraints_that_nothing_fulfils():
    with pytest.raises(ValueError, match="fulfils the constraints"):
        start(np.ones((5, 1)), 2, None, AtomConstraint(zero_mean=True))


def test_feasible_atoms_know_their_rows():
    atoms, rows = feasible_atoms(np.array([[0.0, 0], [-2, -1], [3, -1]]), AtomConstraint(nonnegative=True), True)
    np.testing.assert_array_equal(rows, [2])
    np.testing.assert_allclose(atoms, [[1, 0]])
