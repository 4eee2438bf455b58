"""Convolution and pooling: against plain sums, finite differences, dense layers, translations and PyTorch."""

from itertools import product

import numpy as np
import pytest
from network.finite_differences import check_gradients, connected

from sparseshare.network.convolutional import AvgPool, Conv, MaxPool
from sparseshare.network.layers import Builder, Dense
from sparseshare.network.patterns import padding_before
from sparseshare.network.sharing import hashed, toeplitz

FORMS = [
    ((7, 6, 2), 3, 1, "valid"),
    ((7, 6, 2), 3, 1, "same"),
    ((7, 8, 2), (2, 3), (2, 1), "valid"),
    ((8, 7, 2), (2, 3), (3, 2), "same"),
    ((5, 5, 1), 1, 3, "same"),
    ((2, 2, 1), 5, 1, "same"),
    ((9, 3), 4, 1, "valid"),
    ((9, 3), 4, 2, "same"),
    ((9, 3), 9, 1, "valid"),
    ((10, 2), 2, 3, "valid"),
]
POOLS = [
    ((6, 8, 3), 2, None),
    ((7, 9, 3), (2, 3), None),
    ((7, 6, 2), 3, 1),
    ((7, 6, 2), 2, 3),
    ((7, 2), 2, None),
    ((7, 2), 3, 2),
    ((40, 2), 20, 17),
]


def patches(x, kernel, stride, before, positions):
    """Patches of every sample and position, zeros outside."""
    out = np.zeros((len(x), *positions, *kernel, x.shape[-1]))
    for place in product(*map(range, positions)):
        for step in product(*map(range, kernel)):
            pixel = tuple(p * s + k - b for p, s, k, b in zip(place, stride, step, before, strict=True))
            if all(0 <= p < n for p, n in zip(pixel, x.shape[1:], strict=False)):
                out[(slice(None), *place, *step)] = x[(slice(None), *pixel)]
    return out


def axes(value, n):
    return (value,) * n if isinstance(value, int) else value


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), FORMS)
def test_a_convolution_is_the_sum_over_patches(shape, kernel, stride, padding, rng, dtype):
    node = connected(Conv(4, kernel, stride=stride, padding=padding, activation="linear"), shape, dtype=dtype)
    x = rng.standard_normal((5, *shape)).astype(dtype)
    kernel, stride = axes(kernel, len(shape) - 1), axes(stride, len(shape) - 1)
    positions = node.output_shape[:-1]
    before = padding_before(shape[:-1], kernel, stride, padding)
    rows = patches(x, kernel, stride, before, positions).reshape(5, *positions, -1)
    expected = rows @ node.parameters["weights"].full() + node.parameters["bias"].full()
    for training in (True, False):
        y, _ = node.forward(x, training)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, atol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), FORMS)
@pytest.mark.parametrize("activation", ["tanh", "hard"])
def test_gradients_of_convolutions(shape, kernel, stride, padding, activation, rng):
    node = connected(Conv(3, kernel, stride=stride, padding=padding, activation=activation), shape)
    check_gradients(node, rng.standard_normal((3, *shape)))


@pytest.mark.parametrize(
    "options",
    [
        {"bias": False, "activation": "relu"},
        {"activation": "soft", "threshold": "learned"},
        {"activation": "soft_nonnegative", "threshold": "learned"},
        {"activation": "topk", "density": 0.3},
        {"activation": "linear", "share": hashed(7)},
        {"activation": "relu", "nonnegative": True},
    ],
)
def test_gradients_with_options(options, rng):
    check_gradients(connected(Conv(3, 2, **options), (4, 4, 2)), rng.standard_normal((20, 4, 4, 2)))


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), [form for form in FORMS if form[0] != (2, 2, 1)])
def test_a_convolution_is_a_dense_layer_with_a_sharing_rule(shape, kernel, stride, padding, rng):
    conv = connected(Conv(3, kernel, stride=stride, padding=padding, activation="tanh", bias=False), shape)
    rule = toeplitz(shape, kernel, stride=stride, padding=padding)
    dense = connected(Dense(np.prod(conv.output_shape), activation="tanh", bias=False, share=rule), (np.prod(shape),))
    dense.weights.values[:] = conv.weights.values.ravel()
    dense.weights.changed()
    x, dy = rng.standard_normal((4, *shape)), rng.standard_normal((4, *conv.output_shape))
    y, cache = conv.forward(x)
    flat, flat_cache = dense.forward(x.reshape(4, -1))
    np.testing.assert_allclose(flat, y.reshape(4, -1), atol=1e-12)
    dx = dense.backward(dy.reshape(4, -1), flat_cache)
    np.testing.assert_allclose(dx, conv.backward(dy, cache).reshape(4, -1), atol=1e-12)
    np.testing.assert_allclose(dense.weights.gradient, conv.weights.gradient.ravel(), atol=1e-12)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_moved_image_gives_moved_maps(padding, rng, dtype):
    node = connected(Conv(4, 3, padding=padding, activation="hard", threshold=0.3), (14, 15, 2), dtype=dtype)
    x = rng.standard_normal((2, 14, 15, 2)).astype(dtype)
    moved = np.zeros_like(x)
    moved[:, 2:, 3:] = x[:, :-2, :-3]
    y, other = node.forward(x)[0], node.forward(moved)[0]
    edge = 1 if padding == "same" else 0
    inner = y[:, edge : y.shape[1] - 2 - edge, edge : y.shape[2] - 3 - edge]
    np.testing.assert_array_equal(other[:, 2 + edge : other.shape[1] - edge, 3 + edge : other.shape[2] - edge], inner)


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), FORMS)
@pytest.mark.parametrize("density", [0.0, 0.05, 0.15])
def test_zeros_of_the_input_are_skipped_in_prediction(shape, kernel, stride, padding, density, rng, dtype):
    shape = (*shape[:-1], 7)
    node = connected(Conv(20, kernel, stride=stride, padding=padding, activation="linear"), shape, dtype=dtype)
    x = (rng.standard_normal((40, *shape)) * (rng.random((40, *shape)) < density)).astype(dtype)
    np.testing.assert_allclose(node.forward(x)[0], node.forward(x, training=True)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [Conv(5, 3, threshold="learned", activation="soft"), Conv(5, 3, padding="same")])
def test_bits_do_not_depend_on_threads(layer, rng):
    x = rng.standard_normal((70, 12, 12, 8)).astype(np.float32)
    found = []
    for n_threads in (1, 4):
        node = connected(layer, (12, 12, 8), dtype=np.float32, n_threads=n_threads)
        y, cache = node.forward(x, training=True)
        predicted = node.forward(x)[0]
        dx = node.backward(np.cos(y), cache)
        found.append([y, predicted, dx, *(parameter.gradient for parameter in node.parameters.values())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_density_is_reached_by_a_convolution(rng):
    node = connected(Conv(6, 3, activation="hard", density=0.1), (10, 10, 2), dtype=np.float32)
    for _ in range(60):
        node.forward(rng.standard_normal((64, 10, 10, 2)).astype(np.float32), training=True)
    node.forward(rng.standard_normal((500, 10, 10, 2)).astype(np.float32))
    assert abs(node.activation.measured_density - 0.1) < 0.01


def test_the_gradient_by_the_input_is_left_out_where_nobody_asks(rng):
    node = connected(Conv(4, 3), (7, 7, 2))
    node.input_gradient = False
    y, cache = node.forward(rng.standard_normal((6, 7, 7, 2)))
    assert node.backward(np.ones_like(y), cache) is None


@pytest.mark.parametrize("layer", [Conv(4, 3), MaxPool(2), AvgPool(2)])
def test_an_empty_batch_gives_none(layer):
    node = connected(layer, (7, 7, 2))
    y, cache = node.forward(np.empty((0, 7, 7, 2)))
    assert y.shape == (0, *node.output_shape) and node.backward(y, cache).shape == (0, 7, 7, 2)


@pytest.mark.parametrize("layer", [Conv(4, 3), MaxPool(2), AvgPool(2)])
def test_arrays_of_any_layout(layer, rng):
    node = connected(layer, (7, 7, 2))
    x = rng.standard_normal((2, 7, 7, 6)).T
    y, cache = node.forward(x)
    np.testing.assert_array_equal(y, node.forward(np.ascontiguousarray(x))[0])
    dy = np.asfortranarray(rng.standard_normal(y.shape))
    np.testing.assert_array_equal(node.backward(dy, cache), node.backward(np.ascontiguousarray(dy), cache))


@pytest.mark.parametrize(("shape", "size", "stride"), POOLS)
@pytest.mark.parametrize(("layer", "function"), [(MaxPool, np.max), (AvgPool, np.mean)])
def test_pooling_is_what_it_says(layer, function, shape, size, stride, rng, dtype):
    node = connected(layer(size, stride=stride), shape, dtype=dtype)
    x = rng.standard_normal((4, *shape)).astype(dtype)
    n_axes = len(shape) - 1
    sizes = axes(size, n_axes)
    steps = sizes if stride is None else axes(stride, n_axes)
    windows = patches(x, sizes, steps, (0,) * n_axes, node.output_shape[:-1])
    expected = function(windows, axis=tuple(range(n_axes + 1, 2 * n_axes + 1)))
    y, _ = node.forward(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "size", "stride"), POOLS)
@pytest.mark.parametrize("layer", [MaxPool, AvgPool])
def test_gradients_of_pooling(layer, shape, size, stride, rng):
    check_gradients(connected(layer(size, stride=stride), shape), rng.standard_normal((3, *shape)))


def test_of_equal_values_the_first_gets_the_gradient():
    node = connected(MaxPool(2), (2, 2, 1))
    y, cache = node.forward(np.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(node.backward(np.ones_like(y), cache).ravel(), [1, 0, 0, 0])


def test_nan_is_not_hidden_by_pooling():
    for at in range(4):
        x = np.arange(4.0).reshape(1, 2, 2, 1)
        x.ravel()[at] = np.nan
        assert np.isnan(connected(MaxPool(2), (2, 2, 1)).forward(x)[0]).all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_images_are_those_of_pytorch(stride, padding, rng, dtype):
    torch = pytest.importorskip("torch")
    # With an odd kernel and stride 1, or an odd length, both put the same zeros around.
    node = connected(Conv(5, 3, stride=stride, padding=("valid", "same")[padding]), (9, 11, 3), dtype=dtype)
    x, dy = (rng.standard_normal((4, *shape)).astype(dtype) for shape in ((9, 11, 3), node.output_shape))
    y, cache = node.forward(x, training=True)
    dx = node.backward(dy, cache)
    theirs = torch.nn.Conv2d(3, 5, 3, stride=stride, padding=padding)
    weights, bias = node.parameters["weights"], node.parameters["bias"]
    theirs.weight = torch.nn.Parameter(torch.tensor(weights.values.reshape(3, 3, 3, 5).transpose(3, 2, 0, 1)))
    theirs.bias = torch.nn.Parameter(torch.tensor(bias.values))
    image = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    out = torch.relu(theirs(image))
    out.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(y, out.detach().numpy().transpose(0, 2, 3, 1), **close)
    np.testing.assert_allclose(dx, image.grad.numpy().transpose(0, 2, 3, 1), **close)
    gradient = theirs.weight.grad.numpy().transpose(2, 3, 1, 0).reshape(weights.shape)
    np.testing.assert_allclose(weights.gradient, gradient, **close)
    np.testing.assert_allclose(bias.gradient, theirs.bias.grad.numpy(), **close)


@pytest.mark.parametrize(("ours", "name"), [(MaxPool, "MaxPool1d"), (AvgPool, "AvgPool1d")])
def test_pooling_of_signals_is_that_of_pytorch(ours, name, rng):
    torch = pytest.importorskip("torch")
    node = connected(ours(3, stride=2), (12, 4))
    x, dy = rng.standard_normal((5, 12, 4)), rng.standard_normal((5, *node.output_shape))
    y, cache = node.forward(x)
    signal = torch.tensor(x.transpose(0, 2, 1), requires_grad=True)
    out = getattr(torch.nn, name)(3, stride=2)(signal)
    out.backward(torch.tensor(dy.transpose(0, 2, 1)))
    np.testing.assert_allclose(y, out.detach().numpy().transpose(0, 2, 1), atol=1e-12)
    np.testing.assert_allclose(node.backward(dy, cache), signal.grad.numpy().transpose(0, 2, 1), atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Conv(4, 3), (5,), r"takes images .* got samples of shape \(5,\)"),
        (Conv(4, 3), (5, 5, 5, 5), "takes images"),
        (Conv(4, 6), (5, 5, 1), r"'kernel' of Conv\(kernel=6, n_filters=4\) is larger than its input"),
        (Conv(0, 3), (5, 5, 1), "'n_filters' parameter of Conv"),
        (Conv(4, 0), (5, 5, 1), "'kernel' parameter of Conv"),
        (Conv(4, (2, 2, 2)), (5, 5, 1), "'kernel' parameter of Conv"),
        (Conv(4, 3, stride=0), (5, 5, 1), "'stride' parameter of Conv"),
        (Conv(4, 3, padding="full"), (5, 5, 1), "'padding' parameter of Conv"),
        (Conv(4, 3, l1=-1), (5, 5, 1), "'l1' parameter of Conv"),
        (MaxPool(2), (5,), "takes images"),
        (MaxPool(6), (5, 5, 1), r"'size' of MaxPool\(size=6\) is larger than its input"),
        (MaxPool(0), (5, 5, 1), "'size' parameter of MaxPool"),
        (AvgPool(2, stride=1.5), (5, 5, 1), "'stride' parameter of AvgPool"),
    ],
)
def test_what_does_not_fit_is_refused(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer.connect(shape, Builder(np.float64, np.random.RandomState(0)))
