"""Losses against their definition, their gradients against finite differences."""

import numpy as np
import pytest
from scipy.special import log_softmax as reference

from sparseshare.network.losses import SoftmaxCrossEntropy, SquaredError, log_softmax


def slope(loss, outputs, targets):
    gradient = np.empty_like(outputs)
    for place in np.ndindex(outputs.shape):
        sides = []
        for sign in (1, -1):
            moved = outputs.copy()
            moved[place] += sign * 1e-6
            sides.append(loss(moved, targets)[0])
        gradient[place] = (sides[0] - sides[1]) / 2e-6
    return gradient


@pytest.mark.parametrize("weights", [None, np.array([0.5, 2.0, 0.0, 1.0])], ids=["equal", "weighted"])
def test_cross_entropy(weights, rng):
    outputs, targets = 3 * rng.standard_normal((7, 4)), rng.integers(0, 4, 7)
    loss, gradient = SoftmaxCrossEntropy(weights)(outputs, targets)
    each = -reference(outputs, axis=1)[np.arange(7), targets] * (1 if weights is None else weights[targets])
    assert loss == pytest.approx(each.mean())
    np.testing.assert_allclose(gradient, slope(SoftmaxCrossEntropy(weights), outputs, targets), atol=1e-8)


def test_squared_error(rng):
    outputs, targets = rng.standard_normal((7, 3)), rng.standard_normal((7, 3))
    loss, gradient = SquaredError()(outputs, targets)
    assert loss == pytest.approx(0.5 * ((outputs - targets) ** 2).sum(axis=1).mean())
    np.testing.assert_allclose(gradient, slope(SquaredError(), outputs, targets), atol=1e-8)


def test_precision_is_that_of_the_outputs(rng, dtype):
    outputs = rng.standard_normal((5, 3)).astype(dtype)
    before = outputs.copy()
    assert SoftmaxCrossEntropy(np.ones(3))(outputs, np.zeros(5, int))[1].dtype == dtype
    assert SquaredError()(outputs, np.zeros((5, 3), dtype))[1].dtype == dtype
    np.testing.assert_array_equal(outputs, before)


def test_large_outputs_neither_overflow_nor_lose_the_loss(dtype):
    outputs = np.array([[1e4, -1e4, 0]], dtype)
    np.testing.assert_allclose(log_softmax(outputs), [[0, -2e4, -1e4]])
    assert SoftmaxCrossEntropy()(outputs, np.array([1]))[0] == 2e4


def test_outputs_that_are_not_finite_give_such_a_loss():
    bad = np.array([[np.nan, 0.0], [np.inf, 1.0]])
    assert not np.isfinite(SoftmaxCrossEntropy()(bad, np.array([0, 1]))[0])
    assert not np.isfinite(SquaredError()(bad, np.zeros((2, 2)))[0])
