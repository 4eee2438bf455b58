"""First atoms: patches of the signals, spread ones, noise; feasible whatever the constraint."""

import numpy as np
import pytest

from sparseshare.convolution.initialization import completed, initial_atoms
from sparseshare.convolution.signals import check_conv_signals
from sparseshare.convolution.updates import AtomForm
from sparseshare.optimization import AtomConstraint


def signals_of(X, mask=None):
    return check_conv_signals(X, 2, "any", mask=mask)


@pytest.mark.parametrize("method", ["data", "k-means++"])
def test_patches_come_from_the_signals(method, rng, dtype):
    X = rng.standard_normal((3, 9, 8, 2)).astype(dtype)
    form = AtomForm(AtomConstraint(), (3, 4))
    atoms = initial_atoms(signals_of(X), form, 6, method, 0)
    assert atoms.shape == (6, 2, 3, 4) and atoms.dtype == dtype
    windows = np.lib.stride_tricks.sliding_window_view(X, (3, 4), axis=(1, 2)).reshape(-1, 24)
    windows = windows / np.linalg.norm(windows, axis=1, keepdims=True)
    assert (atoms.reshape(6, -1) @ windows.T).max(axis=1).min() > 1 - 1e-5


@pytest.mark.parametrize("method", ["data", "k-means++", "gaussian"])
@pytest.mark.parametrize(
    "constraint",
    [AtomConstraint(), AtomConstraint("sphere", zero_mean=True), AtomConstraint(nonnegative=True)],
    ids=repr,
)
def test_first_atoms_may_be(method, constraint, rng):
    form = AtomForm(constraint, (3, 3), ((3, 3), (2, 2), (1, 3), (3, 3)))
    atoms = initial_atoms(signals_of(rng.standard_normal((2, 9, 8))), form, 4, method, 0)
    assert constraint.contains(atoms.reshape(4, -1))
    np.testing.assert_allclose(np.linalg.norm(atoms.reshape(4, -1), axis=1), 1)
    assert not atoms[1, :, 2:].any() and not atoms[2, :, 1:].any()


def test_spread_patches_are_not_all_of_one_kind(rng):
    """One bright patch among many like each other: lines through the origin are drawn apart."""
    X = np.tile(rng.standard_normal((4, 4)), (5, 5))[None]
    X[0, 8:12, 8:12] = rng.standard_normal((4, 4))
    atoms = initial_atoms(signals_of(X), AtomForm(AtomConstraint(), (4, 4)), 8, "k-means++", 0).reshape(8, -1)
    cosines = np.abs(atoms @ atoms.T)
    np.fill_diagonal(cosines, 0)
    assert cosines.max() < 0.999


def test_empty_signals_leave_noise():
    atoms = initial_atoms(signals_of(np.zeros((1, 9, 8))), AtomForm(AtomConstraint(), (3, 3)), 4, "data", 0)
    np.testing.assert_allclose(np.linalg.norm(atoms.reshape(4, -1), axis=1), 1)


def test_given_atoms_come_first_and_are_brought_into_the_set(rng):
    given = 3 * rng.standard_normal((2, 1, 3, 3))
    form = AtomForm(AtomConstraint(), (3, 3))
    atoms = initial_atoms(signals_of(rng.standard_normal((1, 9, 8))), form, 4, "data", 0, given)
    np.testing.assert_allclose(atoms[:2], form.project(given))


def test_constraints_that_nothing_fulfils_are_refused(rng):
    with pytest.raises(ValueError, match="fulfil the constraints"):
        initial_atoms(signals_of(rng.standard_normal((1, 9, 8))), AtomForm(AtomConstraint(zero_mean=True), (1, 1)), 2)


def test_missing_samples_are_means_of_those_around(rng):
    X = np.ones((1, 9, 8))
    X[0, 4, 4] = np.nan
    np.testing.assert_allclose(completed(signals_of(X, "nan"), 0), 1)


def test_the_same_seed_gives_the_same_atoms(rng):
    signals, form = signals_of(rng.standard_normal((2, 9, 8))), AtomForm(AtomConstraint(), (3, 3))
    one, two, other = (initial_atoms(signals, form, 4, "k-means++", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
