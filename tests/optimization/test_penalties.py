"""Penalties against their definitions: values, proximal maps by what makes them minimal, dual norms by both bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sparseshare.optimization.penalties import RoughnessPenalty, SparsePenalty

SHAPE = (3, 4, 5)
WEIGHTS = {
    "none": lambda rng: None,
    "per atom": lambda rng: rng.uniform(0.5, 2, (4, 1)),
    "per position": lambda rng: rng.uniform(0.5, 2, (4, 5)),
    "infinite": lambda rng: np.where(rng.random((4, 5)) < 0.3, np.inf, rng.uniform(0.5, 2, (4, 5))),
}
FORMS = [(joint, positive, name) for joint in (0.0, 0.3, 1.0) for positive in (False, True) for name in WEIGHTS]
every_form = pytest.mark.parametrize(("joint", "positive", "weights"), FORMS)


def value(codes, alpha, weights, joint):
    """The penalty, group by group."""
    total, weights = 0.0, np.broadcast_to(1.0 if weights is None else weights, codes.shape[1:])
    for place in np.ndindex(weights.shape):
        group = codes[(slice(None), *place)]
        if group.any():
            total += alpha * weights[place] * ((1 - joint) * np.abs(group).sum() + joint * np.linalg.norm(group))
    return total


@every_form
def test_value_is_its_definition(rng, joint, positive, weights):
    weights = WEIGHTS[weights](rng)
    penalty = SparsePenalty(0.7, weights, positive, joint)
    codes = np.abs(rng.standard_normal(SHAPE)) * (rng.random(SHAPE) < 0.5)
    if weights is not None:
        allowed = np.isfinite(np.broadcast_to(weights, SHAPE[1:]))
        assert np.isinf(penalty.value(codes)) == (not allowed.all())
        codes = codes * allowed
    assert_allclose(penalty.value(codes), value(codes, 0.7, weights, joint), rtol=1e-13)
    if positive:
        assert np.isinf(penalty.value(-codes))
    anything = rng.standard_normal(SHAPE)
    admitted = penalty.admit(anything.copy())
    assert np.isfinite(penalty.value(admitted))
    assert_array_equal(admitted[admitted != 0], anything[admitted != 0])


@every_form
def test_prox_is_the_least_point(rng, joint, positive, weights, dtype):
    weights = WEIGHTS[weights](rng)
    penalty = SparsePenalty(0.7, weights, positive, joint)
    v = rng.standard_normal(SHAPE).astype(dtype)
    near = penalty.prox(v, 0.8)
    assert near.dtype == dtype

    def objective(z):
        return 0.5 * ((z - v.astype(float)) ** 2).sum() + 0.8 * penalty.value(z)

    least = objective(near.astype(float))
    assert np.isfinite(least) and (near != 0).any() and (near == 0).any()
    for scale in (1e-3, 1e-1, 1.0):
        for _ in range(10):
            other = near + scale * rng.standard_normal(SHAPE) * (rng.random(SHAPE) < 0.2)
            other = np.maximum(other, 0) if positive else other
            if weights is not None:
                other = other * np.isfinite(np.broadcast_to(weights, SHAPE[1:]))
            assert objective(other) >= least - 1e-6 * (dtype == np.float32)
    assert_array_equal(penalty.prox(v, 0.8, out=v), near)


@every_form
def test_dual_norm_is_where_zero_stops_being_the_prox(rng, joint, positive, weights, dtype):
    weights = WEIGHTS[weights](rng)
    correlations = rng.standard_normal(SHAPE).astype(dtype)
    least = SparsePenalty(1.0, weights, positive, joint).largest_alpha(correlations)
    assert isinstance(least, float)
    assert least == SparsePenalty(1.0, weights, positive, joint).largest_alpha(-correlations, negated=True)
    correlations = correlations.astype(float)
    assert not SparsePenalty(least * (1 + 1e-6), weights, positive, joint).prox(correlations).any()
    assert SparsePenalty(least * (1 - 1e-6), weights, positive, joint).prox(correlations).any()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans(), st.integers(1, 6))
def test_dual_norm_bounds_the_inner_product(seed, joint, positive, n_signals):
    rng = np.random.default_rng(seed)
    penalty = SparsePenalty(1.0, rng.uniform(0.1, 3, 4), positive, joint)
    z, c = rng.standard_normal((2, n_signals, 4))
    z = np.abs(z) if positive else z
    assert (z * c).sum() <= penalty.value(z) * penalty.largest_alpha(c) * (1 + 1e-12) + 1e-12


def test_a_free_coefficient_has_no_dual_bound():
    penalty = SparsePenalty(1.0, np.array([1.0, 0.0]))
    assert penalty.largest_alpha(np.array([[2.0, 1e-9]])) == np.inf
    assert penalty.largest_alpha(np.array([[2.0, 0.0]])) == 2.0


def test_nothing_correlates():
    for joint in (0.0, 0.5, 1.0):
        assert SparsePenalty(1.0, joint=joint).largest_alpha(np.zeros((2, 3))) == 0.0
        assert SparsePenalty(1.0, positive=True, joint=joint).largest_alpha(-np.ones((2, 3))) == 0.0


# ------------------------------------------------------------------------------------------------------------ roughness
def difference_matrix(shape, wraps):
    """G of one map, a row a difference."""
    rows = []
    for place in np.ndindex(shape):
        for axis, length in enumerate(shape):
            following = list(place)
            following[axis] += 1
            if wraps:
                following[axis] %= length
            if following[axis] < length:
                row = np.zeros(shape)
                row[tuple(following)] += 1
                row[place] -= 1
                rows.append(row.ravel())
    return np.array(rows)


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 2, 4), (1, 6)])
def test_roughness_is_its_definition(rng, shape, wraps, dtype):
    G, smoothness = difference_matrix(shape, wraps), np.array([0.5, 0.0, 2.0], dtype)
    penalty = RoughnessPenalty(smoothness, shape, wraps)
    maps = rng.standard_normal((2, 3, *shape)).astype(dtype)
    steps = maps.reshape(2, 3, -1).astype(float) @ G.T
    tolerance = 1e-13 if dtype == np.float64 else 1e-5
    assert_allclose(penalty.value(maps), 0.5 * ((steps**2).sum(axis=(0, 2)) * smoothness).sum(), rtol=tolerance)
    gradient = penalty.add_gradient(maps, np.ones_like(maps))
    expected = 1 + smoothness[:, None] * (steps @ G)
    assert gradient.dtype == dtype
    assert_allclose(gradient, expected.reshape(maps.shape), rtol=tolerance, atol=10 * tolerance)
    assert np.linalg.eigvalsh(G.T @ G)[-1] * smoothness.max() <= penalty.lipschitz * (1 + 1e-12)


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 2, 4)])
def test_dual_energy_is_the_pseudoinverse(rng, shape, wraps):
    G, smoothness = difference_matrix(shape, wraps), np.array([0.5, 0.0, 2.0])
    penalty = RoughnessPenalty(smoothness, shape, wraps)
    slopes = rng.standard_normal((2, 3, *shape))
    inverse = np.linalg.pinv(G.T @ G)
    for components in ([0, 2], [2], []):
        flat = slopes.reshape(2, 3, -1)[:, components]
        expected = 0.5 * (np.einsum("jkp,pq,jkq->k", flat, inverse, flat) / smoothness[components]).sum()
        assert_allclose(penalty.dual_energy(slopes, components), expected, rtol=1e-12, atol=1e-15)
    assert_allclose(np.sort(penalty.eigenvalues.ravel()), np.linalg.eigvalsh(G.T @ G), atol=1e-12)
