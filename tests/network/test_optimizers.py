"""Optimizers against the formulas of their papers, written plainly; schedules against theirs."""

import numpy as np
import pytest

from sparseshare.network.optimizers import SGD, Adam, Momentum, scheduled_rate
from sparseshare.network.parameters import Parameter


def steps(optimizer, parameter, gradients, rate=0.1):
    for gradient in gradients:
        parameter.reset_gradient()
        parameter.gradient += gradient
        optimizer.update(parameter, rate)
    return parameter.values


@pytest.fixture
def gradients(rng, dtype):
    return rng.standard_normal((6, 3, 5)).astype(dtype)


def parameter_of(dtype):
    return Parameter(np.ones((3, 5), dtype))


def test_sgd(gradients, dtype):
    values = steps(SGD(), parameter_of(dtype), gradients)
    assert values.dtype == dtype
    np.testing.assert_allclose(values, 1 - 0.1 * gradients.sum(axis=0), rtol=1e-5)


def test_momentum(gradients, dtype):
    expected, velocity = np.ones((3, 5)), np.zeros((3, 5))
    for gradient in gradients:
        velocity = 0.8 * velocity - 0.1 * gradient
        expected += velocity
    np.testing.assert_allclose(steps(Momentum(0.8), parameter_of(dtype), gradients), expected, rtol=1e-4, atol=1e-5)


def test_adam(gradients, dtype):
    expected, first, second = np.ones((3, 5)), np.zeros((3, 5)), np.zeros((3, 5))
    for number, gradient in enumerate(gradients.astype(float), 1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        expected -= 0.1 * (first / (1 - 0.9**number)) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
    values = steps(Adam(), parameter_of(dtype), gradients)
    assert values.dtype == dtype
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", [SGD(), Momentum()])
def test_values_that_gather_many_gradients_may_take_smaller_steps(optimizer, gradients, dtype):
    slow = parameter_of(dtype)
    slow.step = 0.25
    np.testing.assert_allclose(
        steps(optimizer, slow, gradients), steps(optimizer, parameter_of(dtype), gradients, rate=0.025), rtol=1e-5
    )


@pytest.mark.parametrize("optimizer", [SGD(), Momentum(), Adam()])
def test_constraints_hold_and_arrays_follow(optimizer):
    parameter = Parameter(np.array([0.01, 1.0]), np.array([[0, 1], [1, -1]]), nonnegative=True)
    parameter.full()
    steps(optimizer, parameter, np.ones((3, 2)))
    assert parameter.values.min() == 0
    np.testing.assert_array_equal(parameter.full(), [[0, parameter.values[1]], [parameter.values[1], 0]])


def test_other_values_start_anew():
    parameter = Parameter(np.ones(4))
    steps(Adam(), parameter, np.ones((2, 4)))
    assert parameter.state["steps"] == 2
    parameter.set(np.ones(2), None)
    steps(Adam(), parameter, np.ones((1, 2)))
    assert parameter.state["steps"] == 1


def test_schedules():
    rates = {name: [scheduled_rate(name, 0.2, epoch, 10) for epoch in range(10)] for name in ("step", "cosine")}
    assert rates["step"] == [0.2] * 5 + [0.1] * 5
    np.testing.assert_allclose(rates["cosine"], 0.1 * (1 + np.cos(np.pi * np.arange(10) / 10)))
    assert scheduled_rate("constant", 0.2, 7, 10) == scheduled_rate("adaptive", 0.2, 7, 10) == 0.2
    assert scheduled_rate(lambda epoch, max_iter: 1 - epoch / max_iter, 0.2, 5, 10) == 0.1
