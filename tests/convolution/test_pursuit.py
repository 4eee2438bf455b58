"""Convolutional orthogonal matching pursuit against pursuit on the dictionary of all atoms at all positions."""

import numpy as np
import pytest
from convolution.problems import Dense, conv_problem, form

from reference import omp
from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.problem import ConvProblem
from sparseshare.convolution.pursuit import solve

NAMES = ["plain", "positive", "mask", "weighted residual", "several codes", "colour atoms", "colour atoms, masked"]
BOUNDARIES = ["circular", "full", "valid"]


def dictionary(problem):
    """Signal and dictionary (one row an atom and position) of a problem, all signals in one."""
    dense = Dense(problem)
    n_columns = dense.matrix.shape[1]
    x = (dense.mask * dense.signals).ravel()
    D = np.zeros((len(dense.signals) * n_columns, len(x)))
    size = dense.signals.shape[1]
    for j, mask in enumerate(dense.mask):
        D[j * n_columns : (j + 1) * n_columns, j * size : (j + 1) * size] = dense.matrix.T * mask
    return x, D


def check(problem, n_nonzero=None, max_error=None, atol=1e-9):
    """Solve by both; returns the solution."""
    solution = solve(problem, n_nonzero_coefs=n_nonzero, max_error=max_error)
    x, D = dictionary(problem)
    expected = omp(x, D, n_nonzero, -1.0 if max_error is None else max_error, positive=problem.positive)
    found = solution.maps.dense()
    assert found.shape == problem.maps_shape
    np.testing.assert_array_equal(np.flatnonzero(found), np.flatnonzero(expected))
    np.testing.assert_allclose(found.ravel(), expected, atol=atol * np.abs(expected).max())
    residual = x - found.ravel() @ D
    assert solution.gap == pytest.approx(residual @ residual, abs=1e-10 * (x @ x))
    assert solution.objective == 0.5 * solution.gap and solution.converged
    return solution


@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", NAMES)
def test_codes_are_those_of_the_dictionary(name, boundary, n_axes):
    problem = form(name, boundary, n_axes)
    solution = check(problem, 7)
    assert len(solution.maps.values) <= 7 <= solution.n_iter


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("seed", range(4))
def test_clusters_that_grow_together(boundary, seed):
    problem = conv_problem(boundary, 1, n_components=2, seed=seed)
    check(problem, 12, atol=1e-7)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", ["plain", "mask", "several codes"])
def test_an_error_is_met_with_the_first_atom_that_meets_it(name, boundary):
    problem = form(name, boundary)
    bound = 0.3 * 2 * problem.energy
    solution = check(problem, max_error=bound)
    assert solution.gap <= bound
    fewer = solve(problem, n_nonzero_coefs=solution.n_iter - 1)
    assert fewer.gap > bound


def test_whichever_comes_first():
    problem = conv_problem()
    assert solve(problem, n_nonzero_coefs=3, max_error=0.0).n_iter == 3
    assert solve(problem, n_nonzero_coefs=30, max_error=1.5 * problem.energy).n_iter < 30
    nothing = solve(problem, max_error=2.1 * problem.energy)
    assert nothing.n_iter == 0 and len(nothing.maps.values) == 0 and nothing.gap == pytest.approx(2 * problem.energy)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_isolated_atoms_are_found_exactly(boundary):
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((5, 1, 4, 4))
    operator = Convolution(atoms, Geometry((40, 30), (4, 4), boundary))
    maps = np.zeros((1, 5, *operator.geometry.positions))
    for a in range(1, 30, 9):
        for b in range(2, 20, 9):
            maps[0, rng.integers(5), a, b] = rng.choice([-1, 1]) * rng.uniform(1, 2)
    problem = ConvProblem(operator.synthesize(maps), operator, None)
    solution = solve(problem, max_error=1e-20 * 2 * problem.energy)
    np.testing.assert_allclose(solution.maps.dense(), maps, atol=1e-12)
    assert solution.n_iter == np.count_nonzero(maps)


def test_more_atoms_than_there_was_room_for(monkeypatch):
    problem = conv_problem("valid", 2, seed=3)
    expected = solve(problem, n_nonzero_coefs=25)
    monkeypatch.setattr("sparseshare.convolution.pursuit._ROOM", 1)
    found = solve(problem, n_nonzero_coefs=25)
    np.testing.assert_array_equal(found.maps.indices, expected.maps.indices)
    np.testing.assert_allclose(found.maps.values, expected.maps.values, atol=1e-10)


def test_a_signal_is_explained_wholly_and_no_further():
    problem = conv_problem("circular", 1)
    solution = solve(problem, n_nonzero_coefs=1000)
    assert solution.gap <= 1e-18 * problem.energy
    assert len(solution.maps.values) <= problem.signal.size


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_twins_and_atoms_of_zeros_are_chosen_once_or_never(boundary):
    rng = np.random.default_rng(1)
    atoms = rng.standard_normal((4, 1, 3, 3))
    atoms[1], atoms[2] = 0, -2 * atoms[0]
    operator = Convolution(atoms, Geometry((9, 8), (3, 3), boundary))
    problem = ConvProblem(rng.standard_normal((1, 1, 9, 8)), operator, None)
    maps = solve(problem, n_nonzero_coefs=20).maps.dense()
    assert not maps[0, 1].any() and not np.any((maps[0, 0] != 0) & (maps[0, 2] != 0))


def test_no_signal_no_codes():
    problem = conv_problem()
    problem.signal[:] = 0
    solution = solve(problem, n_nonzero_coefs=5)
    assert solution.n_iter == 0 and solution.converged and solution.gap == 0


@pytest.mark.parametrize("name", ["plain", "positive", "mask"])
def test_float32(name):
    exact, single = form(name, "circular"), form(name, "circular", dtype=np.float32)
    expected, found = solve(exact, n_nonzero_coefs=8), solve(single, n_nonzero_coefs=8)
    assert found.maps.values.dtype == np.float32
    np.testing.assert_array_equal(found.maps.indices, expected.maps.indices)
    np.testing.assert_allclose(found.maps.values, expected.maps.values, rtol=1e-4)


def test_a_larger_image_ends_orthogonal_to_what_was_chosen():
    rng = np.random.default_rng(2)
    atoms = rng.standard_normal((8, 1, 6, 6))
    operator = Convolution(atoms, Geometry((48, 40), (6, 6), "circular"))
    problem = ConvProblem(rng.standard_normal((1, 1, 48, 40)), operator, None)
    solution = solve(problem, n_nonzero_coefs=300)
    maps = solution.maps.dense()
    correlations = operator.correlate(problem.signal - operator.synthesize(maps))
    level = np.abs(operator.correlate(problem.signal)).max()
    assert np.count_nonzero(maps) == 300
    assert np.abs(correlations[maps != 0]).max() <= 1e-11 * level
