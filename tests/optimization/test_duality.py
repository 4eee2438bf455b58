"""The dual bound against the optimum of the written-out problem: never above it, and there at the optimum."""

import numpy as np
import pytest
from convolution.problems import FORMS, Dense, conv_problem, form, solved
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sparseshare.optimization.duality import multiple_within, scaled_dual_value, without


@pytest.mark.parametrize(("name", "boundary"), FORMS)
def test_gap_is_a_bound_and_closes_at_the_optimum(rng, name, boundary):
    problem, dense, least, codes = solved(name, boundary)
    assert_allclose(problem.objective(codes), least, rtol=1e-12)
    assert problem.gap(codes) <= 1e-11 * problem.energy
    for scale in (1e-3, 1.0):
        other = dense.prox(codes + scale * rng.standard_normal(codes.shape), scale)
        objective, gap = problem.objective(other), problem.gap(other)
        assert_allclose(objective, dense.objective(other), rtol=1e-11)
        assert_allclose(problem.gradient(other), dense.gradient(other), atol=1e-11 * (1 + np.abs(other).max()))
        assert_allclose(problem.gap(other, problem.gradient(other)), gap, rtol=1e-12)
        assert objective - least <= gap * (1 + 1e-10) + 1e-12 * least
        assert gap <= objective * (1 + 1e-12)


@pytest.mark.parametrize("n_axes", [1, 3])
@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
def test_gap_along_other_axes(boundary, n_axes):
    problem = conv_problem(boundary, n_axes, weights="free", smoothness=True)
    least, codes = Dense(problem).solve()
    assert_allclose(problem.objective(codes), least, rtol=1e-12)
    assert problem.gap(codes) <= 1e-11 * problem.energy


def test_single_precision():
    problem = form("many at once", "valid", dtype=np.float32)
    _, codes = Dense(problem).solve()
    gap = problem.gap(codes.astype(np.float32))
    assert isinstance(gap, float) and 0 <= gap < 1e-5 * problem.energy


def test_no_bound_for_a_free_atom_without_smoothness():
    problem = conv_problem("full", weights="free")
    codes = np.zeros(problem.maps_shape)
    assert problem.gap(codes) == problem.objective(codes)


def test_largest_alpha_is_where_codes_vanish():
    for changes in ({}, {"positive": True}, {"n_signals": 3, "joint": 0.5}, {"mask": "real", "weights": "atoms"}):
        problem = conv_problem("valid", **changes)
        largest = problem.largest_alpha()
        problem.alpha = largest * (1 + 1e-9)
        zero = np.zeros(problem.maps_shape)
        assert problem.gap(zero) <= 1e-12 * problem.energy
        assert not Dense(problem).solve()[1].any()
        problem.alpha = largest * (1 - 1e-3)
        assert Dense(problem).solve()[1].any()


@given(st.floats(-3, 3), st.floats(0, 3), st.floats(0, 3))
def test_no_multiple_is_better(product, norm2, most):
    value = scaled_dual_value(product, norm2, most)
    scales = np.linspace(0, most, 50)
    if norm2 > 0:
        assert value >= (scales * product - 0.5 * scales**2 * norm2).max() - 1e-12
    assert value >= 0


def test_multiples():
    assert multiple_within(1.0, 4.0) == 0.25
    assert multiple_within(1.0, 0.0) == np.inf
    assert scaled_dual_value(1.0, 1.0, 0.0) == 0.0


def test_without_directions(rng):
    directions = rng.standard_normal((3, 2, 10))
    directions[2] = directions[0] - directions[1]  # one of them depends on the others
    residual = rng.standard_normal((2, 10))
    rest = without(directions, residual)
    for j in range(2):
        assert_allclose(directions[:, j] @ rest[j], 0, atol=1e-13)
        basis = np.linalg.qr(directions[:2, j].T)[0]
        assert_allclose(rest[j], residual[j] - basis @ (basis.T @ residual[j]), atol=1e-13)
    assert_allclose(without(np.zeros((1, 2, 10)), residual), residual)
