"""Proximal gradient on convolutional problems of every form, against their written-out optimum."""

import numpy as np
import pytest
from convolution.problems import BOUNDARIES, FORMS, Dense, conv_problem, form, solved
from numpy.testing import assert_allclose, assert_array_equal

from sparseshare.convolution import fista
from sparseshare.convolution.maps import SparseMaps


@pytest.mark.parametrize(("name", "boundary"), FORMS)
def test_it_reaches_the_optimum(name, boundary):
    problem, dense, least, _ = solved(name, boundary)
    solution = fista.solve(problem, tol=1e-8)
    assert solution.converged and 0 <= solution.gap <= 1e-8 * problem.energy
    assert_allclose(solution.objective, dense.objective(solution.maps), rtol=1e-12)
    assert -1e-12 * problem.energy <= solution.objective - least <= solution.gap + 1e-12 * problem.energy


@pytest.mark.parametrize("n_axes", [1, 3])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("method", ["backtracking", "fista"])
def test_other_axes_and_the_exact_step(boundary, n_axes, method):
    problem = conv_problem(boundary, n_axes, mask="binary")
    least, codes = Dense(problem).solve()
    solution = fista.solve(problem, tol=1e-8, method=method)
    assert solution.converged and solution.objective - least <= solution.gap + 1e-12
    assert_allclose(solution.maps, codes, atol=1e-3)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_single_precision(boundary):
    problem = form("many at once", boundary, dtype=np.float32)
    exact = form("many at once", boundary)
    exact.alpha = problem.alpha
    solution = fista.solve(problem, tol=1e-5)
    assert solution.converged and solution.maps.dtype == np.float32
    assert Dense(problem).objective(solution.maps) - Dense(exact).solve()[0] <= 2e-5 * problem.energy


def test_warm_start_is_a_fixed_point():
    problem, _, _, codes = solved("positive", "full")
    for start in (codes, SparseMaps.from_dense(codes)):
        solution = fista.solve(problem, start=start, tol=1e-9)
        assert solution.n_iter == 0 and solution.converged
        assert_array_equal(solution.maps, codes)
    bad = codes - 1.0  # not allowed: negative
    assert fista.solve(problem, start=bad, tol=1e-8).converged
    assert (bad < 0).any()  # and left as it was


def test_iterations_run_out():
    problem = solved("plain", "circular")[0]
    solution = fista.solve(problem, tol=1e-9, max_iter=3)
    assert solution.n_iter == 3 and not solution.converged and solution.gap > 1e-9 * problem.energy


def test_free_atom_takes_what_is_smooth():
    problem, _, least, codes = solved("free smooth atom", "valid")
    solution = fista.solve(problem, tol=1e-10)
    assert solution.converged
    assert_allclose(solution.maps, codes, atol=1e-4)
