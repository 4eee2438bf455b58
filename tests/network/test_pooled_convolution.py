"""A convolution and the pooling behind it computed as one, against the two one after the other."""

import numpy as np
import pytest
from network.finite_differences import check_gradients, connected

from sparseshare.network import AvgPool, Conv, Dense, Flatten, MaxPool
from sparseshare.network.layers import Builder
from sparseshare.network.model import Network
from sparseshare.network.pooled_convolution import joined

FORMS = [
    ((13, 12, 32), Conv(64, 3), MaxPool(2)),
    ((9, 8, 16), Conv(16, 3, padding="same"), MaxPool(2)),
    ((12, 17, 16), Conv(32, (2, 3), stride=(1, 2)), MaxPool((3, 2))),
    ((11, 10, 16), Conv(48, 3, stride=2, padding="same"), MaxPool((1, 5))),
    ((5, 5, 16), Conv(16, 5), MaxPool(1)),
    ((41, 16), Conv(32, 5, stride=2, padding="same"), MaxPool(3)),
]
FEW = [((12, 11, 1), Conv(32, 3), MaxPool(2)), ((20, 3), Conv(16, 4, padding="same"), MaxPool(2))]
ACTIVATIONS = [
    {"activation": "relu"},
    {"activation": "hard", "threshold": 0.4},
    {"activation": "soft", "threshold": "learned"},
    {"activation": "soft_nonnegative", "threshold": 0.2},
    {"activation": "linear"},
]


def pair(shape, conv, pool, dtype=np.float64, **defaults):
    """Nodes of the two layers, and both as one."""
    first = connected(conv, shape, dtype=dtype, **defaults)
    second = pool.connect(first.output_shape, Builder(dtype, np.random.RandomState(0)))
    # Of images of few channels nobody asks for the gradient: they come first in a network.
    first.input_gradient = shape[-1] >= 8
    (one,) = joined([first, second])
    return first, second, one


def one_after_the_other(first, second, x, dy=None, training=True):
    """Output, gradient by the input and by the parameters of the two nodes."""
    for parameter in first.parameters.values():
        parameter.reset_gradient()
    y, cache = first.forward(x, training)
    pooled, place = second.forward(y)
    dx = None if dy is None else first.backward(second.backward(dy, place), cache)
    return pooled, dx, [parameter.gradient.copy() for parameter in first.parameters.values()]


def as_one(first, one, x, dy=None, training=True):
    for parameter in first.parameters.values():
        parameter.reset_gradient()
    y, cache = one.forward(x, training)
    dx = None if dy is None else one.backward(dy, cache)
    return y, dx, [parameter.gradient.copy() for parameter in first.parameters.values()]


def assert_close(found, expected, dtype):
    scale = max(1.0, np.abs(expected).max(initial=0))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=scale * (2e-5 if dtype == np.float32 else 1e-11))


@pytest.mark.parametrize("options", ACTIVATIONS)
@pytest.mark.parametrize(("shape", "conv", "pool"), FORMS + FEW)
def test_values_and_gradients_are_those_of_the_two(shape, conv, pool, options, rng, dtype):
    first, second, one = pair(shape, conv, pool, dtype, **options)
    x = rng.standard_normal((21, *shape)).astype(dtype)
    dy = rng.standard_normal((21, *second.output_shape)).astype(dtype)
    y, dx, gradients = one_after_the_other(first, second, x, dy)
    found, found_dx, found_gradients = as_one(first, one, x, dy)
    assert_close(found, y, dtype)
    assert (dx is None) == (found_dx is None)
    if dx is not None:
        assert_close(found_dx, dx, dtype)
    for one_gradient, other in zip(found_gradients, gradients, strict=True):
        assert_close(one_gradient, other, dtype)


@pytest.mark.parametrize(
    ("shape", "conv", "pool"),
    [((5, 4, 8), Conv(8, 2), MaxPool(2)), ((4, 16), Conv(8, 3, padding="same"), MaxPool(2))],
)
def test_gradients_by_differences(shape, conv, pool, rng):
    first, _, one = pair(shape, conv, pool, activation="hard", threshold=0.3)
    one.parameters, one.output_shape, one.activation = first.parameters, one.pool.output_shape, first.activation
    check_gradients(one, rng.standard_normal((2, *shape)))


@pytest.mark.parametrize("density", [0.0, 0.03, 0.3])
@pytest.mark.parametrize(("shape", "conv", "pool"), [*FORMS[:4], ((41, 7), Conv(112, 5, padding="same"), MaxPool(3))])
def test_zeros_of_the_input_are_skipped_in_prediction(shape, conv, pool, density, rng, dtype):
    first, second, one = pair(shape, conv, pool, dtype, activation="hard", threshold=0.1)
    x = (rng.standard_normal((20, *shape)) * (rng.random((20, *shape)) < density)).astype(dtype)
    assert_close(as_one(first, one, x, training=False)[0], one_after_the_other(first, second, x)[0], dtype)


@pytest.mark.parametrize(("shape", "conv", "pool"), [FORMS[0], FORMS[1]])
def test_bits_do_not_depend_on_threads(shape, conv, pool, rng):
    x = rng.standard_normal((70, *shape)).astype(np.float32)
    x *= rng.random(x.shape) < 0.2
    found = []
    for n_threads in (1, 3):
        first, _, one = pair(shape, conv, pool, np.float32, activation="hard", density=0.1, n_threads=n_threads)
        one.forward(x, training=True)
        y, cache = one.forward(x, training=True)
        dx = one.backward(np.cos(y), cache)
        found.append([y, dx, one.forward(x)[0], *(parameter.gradient for parameter in first.parameters.values())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threshold", [None, "per_unit"])
def test_a_density_is_reached(threshold, rng):
    conv = Conv(16, 3, activation="hard", density=0.1, threshold=threshold)
    first, _, one = pair((10, 10, 2), conv, MaxPool(2), np.float32)
    for _ in range(60):
        one.forward(rng.standard_normal((64, 10, 10, 2)).astype(np.float32), training=True)
    one.forward(rng.standard_normal((500, 10, 10, 2)).astype(np.float32))
    assert abs(first.activation.measured_density - 0.1) < 0.01


def test_activations_are_counted_as_by_the_convolution(rng):
    first, _, one = pair((10, 8, 16), Conv(16, 3), MaxPool(2), activation="soft", threshold=0.5)
    x = rng.standard_normal((33, 10, 8, 16))
    densities = []
    for node in (first, one):
        node.forward(x, training=True)
        densities.append(first.activation.measured_density)
    assert densities[0] == pytest.approx(densities[1])


@pytest.mark.parametrize(
    ("conv", "pool"),
    [
        (Conv(16, 3), MaxPool(2, stride=1)),
        (Conv(16, 3), AvgPool(2)),
        (Conv(3, 3), MaxPool(2)),
        (Conv(16, 3, activation="tanh"), MaxPool(2)),
        (Conv(16, 3, activation="topk", density=0.2), MaxPool(2)),
        (Conv(16, 4), MaxPool(2)),
    ],
)
def test_other_pairs_are_left_alone(conv, pool):
    first = connected(conv, (40, 40, 3))
    second = pool.connect(first.output_shape, Builder(np.float64, np.random.RandomState(0)))
    assert joined([first, second]) == [first, second]


def test_networks_join_what_they_can(rng):
    layers = [Flatten(), Dense(512), Conv(16, 3), MaxPool(2)]
    with pytest.raises(ValueError, match="images"):
        Network(layers, (8, 8))
    layers = [MaxPool(2), Conv(16, 3), MaxPool(2), Conv(16, 3), MaxPool(2), Flatten(), Dense(4)]
    network = Network(layers, (28, 24, 1), random_state=1)
    x = rng.standard_normal((9, 28, 24, 1))
    y, caches = network.forward(x, training=True)
    assert len(caches) == 5
    expected = x
    for node in network.nodes:
        expected = node.forward(expected)[0]
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(network.output(x), expected, atol=1e-12)
    two = network.nodes[1].forward(network.nodes[0].forward(x)[0])[0]
    np.testing.assert_allclose(network.output(x, 2), two, atol=1e-12)  # ends between the two of a pair
    network.backward(np.ones_like(y), caches)
    assert caches == [] or len(caches) == 1
    for parameter in network.parameters:
        assert np.abs(parameter.gradient).max() > 0


def test_densities_are_measured_between_the_two_as_well(rng):
    layers = [Conv(16, 3), MaxPool(2), Conv(16, 3), MaxPool(2), Flatten(), Dense(4)]
    network = Network(layers, (18, 14, 1), random_state=1, activation="hard", threshold=0.3)
    batches = [rng.standard_normal((n, 18, 14, 1)) for n in (20, 7)]
    network.measure_densities(batches)
    x, behind = np.concatenate(batches), []
    for node in network.nodes:
        x = node.forward(x)[0]
        behind.append(np.mean(x != 0))
    np.testing.assert_allclose(network.input_densities, [1, *behind[:-1]])
    expected = [np.nan if node.activation is None else d for node, d in zip(network.nodes, behind, strict=True)]
    np.testing.assert_allclose(network.densities, expected)


def test_an_empty_batch_gives_none():
    first, second, one = pair((9, 9, 16), Conv(16, 3), MaxPool(2))
    y, cache = one.forward(np.empty((0, 9, 9, 16)), training=True)
    assert y.shape == (0, *second.output_shape) and one.backward(y, cache).shape == (0, 9, 9, 16)


def test_arrays_of_any_layout(rng):
    _, _, one = pair((7, 6, 16), Conv(16, 3), MaxPool(2))
    x = rng.standard_normal((16, 6, 7, 5)).T
    y, cache = one.forward(x)
    np.testing.assert_array_equal(y, one.forward(np.ascontiguousarray(x))[0])
    dy = np.asfortranarray(rng.standard_normal(y.shape))
    np.testing.assert_array_equal(one.backward(dy, cache), one.backward(np.ascontiguousarray(dy), cache))


def test_other_types_of_numbers_are_converted(rng):
    _, _, one = pair((7, 6, 16), Conv(16, 3), MaxPool(2))
    x = rng.standard_normal((3, 7, 6, 16)).astype(np.float32)
    np.testing.assert_array_equal(one.forward(x)[0], one.forward(x.astype(np.float64))[0])


def test_nan_is_not_hidden(rng):
    for options in ACTIVATIONS:
        first, second, one = pair((8, 8, 16), Conv(16, 3), MaxPool(2), **options)
        x = rng.standard_normal((2, 8, 8, 16))
        x[0, 3, 4, 5] = np.nan
        expected = one_after_the_other(first, second, x)[0]
        np.testing.assert_allclose(one.forward(x)[0], expected, atol=1e-12)
