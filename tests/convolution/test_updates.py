"""Atom updates against finite differences, against a plain projected gradient, and against what atoms may be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.statistics import ConvStatistics
from sparseshare.convolution.updates import AtomForm, AtomObjective, update_atoms
from sparseshare.optimization import AtomConstraint

CONSTRAINTS = [
    AtomConstraint(),
    AtomConstraint("sphere"),
    AtomConstraint(nonnegative=True),
    AtomConstraint(zero_mean=True),
    AtomConstraint("sphere", zero_mean=True),
    AtomConstraint("sphere", nonnegative=True),
]


def problem(rng, shape=(20, 18), support=(4, 3), boundary="full", n_components=5, n_channels=2):
    """Statistics of signals that other atoms made, with noise, and those signals."""
    geometry = Geometry(shape, support, boundary)
    maps = rng.standard_normal((1, n_components, *geometry.positions))
    maps = np.where(rng.random(maps.shape) < 0.1, maps, 0)
    atoms = rng.standard_normal((2, n_components, n_channels, *support))
    atoms /= np.sqrt((atoms.reshape(2, n_components, -1) ** 2).sum(axis=2)).reshape(
        2, n_components, *[1] * (len(shape) + 1)
    )
    signal = Convolution(atoms[0], geometry).synthesize(maps)
    signal += 0.1 * rng.standard_normal(signal.shape)
    statistics = ConvStatistics.zeros(n_components, n_channels, support).add(signal, maps, boundary)
    return statistics, atoms[1], signal, maps, geometry


@given(
    n_axes=st.integers(1, 3),
    n_channels=st.integers(1, 3),
    boundary=st.sampled_from(["circular", "full"]),
    seed=st.integers(0, 99),
)
def test_value_and_gradient_are_those_of_the_squared_error(n_axes, n_channels, boundary, seed):
    rng = np.random.default_rng(seed)
    support = tuple(rng.integers(1, 5, n_axes).tolist())
    shape = tuple(length + int(rng.integers(0, 6)) for length in support)
    statistics, atoms, signal, maps, geometry = problem(rng, shape, support, boundary, 3, n_channels)
    objective = AtomObjective(statistics)

    def error(atoms):
        return 0.5 * float(((signal - Convolution(atoms, geometry).synthesize(maps)) ** 2).sum())

    assert objective.value(atoms) == pytest.approx(error(atoms), abs=1e-9 * (1 + statistics.energy))
    # The function is quadratic: its central differences are exact for any step.
    direction = rng.standard_normal(atoms.shape)
    difference = 0.5 * (error(atoms + direction) - error(atoms - direction))
    slope = float(np.vdot(objective.gradient(atoms), direction))
    assert slope == pytest.approx(difference, abs=1e-8 * (1 + statistics.energy))


def test_curvatures_bound_the_second_derivatives(rng):
    statistics, atoms, *_ = problem(rng)
    objective = AtomObjective(statistics)
    for k in range(len(atoms)):
        direction = np.zeros_like(atoms)
        direction[k] = rng.standard_normal(atoms[k].shape)
        assert np.vdot(direction, objective.apply(direction)) <= objective.curvatures[k] * (direction**2).sum()


def plain_descent(atoms, objective, form, n_iter=20000):
    """Projected gradient with a small enough step, until it moves nothing."""
    step = 1 / objective.curvatures.sum()
    for _ in range(n_iter):
        before, atoms = atoms, form.project(atoms - step * objective.gradient(atoms))
        if np.abs(atoms - before).max() <= 1e-12:
            break
    return atoms


@pytest.mark.parametrize("constraint", CONSTRAINTS[:1] + CONSTRAINTS[2:4], ids=repr)
def test_convex_constraints_end_in_the_minimum(constraint, rng):
    statistics, atoms, *_ = problem(rng)
    objective, form = AtomObjective(statistics), AtomForm(constraint, (4, 3))
    least = objective.value(plain_descent(form.project(atoms), objective, form))
    found = update_atoms(form.project(atoms), objective, form, max_iter=2000, tol=0)
    assert objective.value(found) == pytest.approx(least, rel=1e-7)


SUPPORTS = (None, ((4, 3), (2, 2), (2, 2), (4, 3), (1, 3)))


@pytest.mark.parametrize("rank1", [False, True])
@pytest.mark.parametrize("supports", SUPPORTS, ids=["one size", "several sizes"])
@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
def test_updates_descend_among_the_atoms_that_may_be(constraint, supports, rank1, rng, dtype):
    statistics, atoms, *_ = problem(rng)
    objective, form = AtomObjective(statistics), AtomForm(constraint, (4, 3), supports, rank1)
    atoms = form.project(atoms).astype(dtype)
    values = [objective.value(atoms)]
    for _ in range(5):
        atoms = update_atoms(atoms, objective, form, max_iter=5)
        assert atoms.dtype == dtype
        values.append(objective.value(atoms))
    assert (np.diff(values) <= 1e-6 * values[0]).all() and values[-1] < 0.9 * values[0]
    assert constraint.contains(atoms.reshape(5, -1), 1e-5)
    for k, shape in enumerate(supports or ()):
        outside = atoms[k].copy()
        outside[:, : shape[0], : shape[1]] = 0
        assert not outside.any()
    if rank1:
        second = np.linalg.svd(atoms.reshape(5, 2, -1), compute_uv=False)[:, 1]
        assert second.max() < 1e-6


def test_several_sizes_have_zero_mean_each(rng):
    form = AtomForm(AtomConstraint(zero_mean=True), (4, 3), SUPPORTS[1])
    atoms = form.project(10 + rng.standard_normal((5, 2, 4, 3)))
    np.testing.assert_allclose(atoms[1, :, :2, :2].sum(), 0, atol=1e-12)
    np.testing.assert_allclose(atoms.reshape(5, -1).sum(axis=1), 0, atol=1e-12)


def test_rank_one_learns_what_made_the_signals(rng):
    statistics, atoms, signal, maps, geometry = problem(rng)
    form = AtomForm(AtomConstraint(), (4, 3), rank1=True)
    truth = form.project(atoms)
    made = Convolution(truth, geometry).synthesize(maps)
    objective = AtomObjective(ConvStatistics.zeros(5, 2, (4, 3)).add(made, maps, "full"))
    start = form.project(truth + 0.1 * rng.standard_normal(truth.shape))
    found = update_atoms(start, objective, form, max_iter=500, tol=0)
    np.testing.assert_allclose(found, truth, atol=1e-4)


def test_atoms_that_nothing_uses_stay(rng):
    statistics, atoms, *_ = problem(rng)
    statistics.drop(3)
    for rank1 in (False, True):
        form = AtomForm(AtomConstraint(), (4, 3), rank1=rank1)
        start = form.project(atoms)
        found = update_atoms(start, AtomObjective(statistics), form)
        np.testing.assert_allclose(found[3], start[3], atol=1e-12)
        assert np.abs(found[2] - start[2]).max() > 0.01


def test_no_codes_change_nothing(rng):
    atoms = rng.standard_normal((3, 1, 4)) / 10
    objective = AtomObjective(ConvStatistics.zeros(3, 1, (4,)))
    np.testing.assert_array_equal(update_atoms(atoms, objective, AtomForm(AtomConstraint(), (4,))), atoms)


@pytest.mark.parametrize("scale", [1e-18, 1e15])
def test_the_scale_of_the_data_does_not_matter(scale, rng):
    _, atoms, signal, maps, _ = problem(rng)
    form = AtomForm(AtomConstraint(), (4, 3))
    plain, scaled = (
        update_atoms(
            form.project(atoms),
            AtomObjective(ConvStatistics.zeros(5, 2, (4, 3)).add(by * signal, by * maps, "full")),
            form,
        )
        for by in (1, scale)
    )
    np.testing.assert_allclose(plain, scaled, atol=1e-6)


def test_an_l1_budget_is_refused():
    with pytest.raises(ValueError, match="l1 budget"):
        AtomForm(AtomConstraint(l1_budget=2.0), (4,))
