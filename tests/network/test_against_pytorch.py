"""Layers, thresholds, sharing rules, losses, optimizers and a whole network against PyTorch, where it is installed.

Recurrent layers and attention are held to it beside their other tests.
"""

import numpy as np
import pytest
from network.finite_differences import connected

from sparseshare.network import (
    LSTM,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    MaxPool,
    Network,
    circulant,
    hashed,
    shared,
    tied,
    toeplitz,
)
from sparseshare.network.losses import SoftmaxCrossEntropy, SquaredError
from sparseshare.network.optimizers import OPTIMIZERS
from sparseshare.network.patterns import padding_before

torch = pytest.importorskip("torch")

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
INDEX = np.array([[0, 1, -1, 2], [3, 0, 1, 1], [2, -1, 3, 3]])
ACTIVATIONS = {
    "relu": (None, torch.relu),
    "tanh": (None, torch.tanh),
    "linear": (None, lambda z: z),
    "soft": (0.4, lambda z: torch.nn.functional.softshrink(z, 0.4)),
    "soft_nonnegative": (0.4, lambda z: torch.relu(z - 0.4)),
    "hard": (0.4, lambda z: torch.nn.functional.hardshrink(z, 0.4)),
}
SHARED = {
    "hashed": ((10, 6), Dense(6, share=hashed(7))),
    "circulant": ((8, 5), Dense(5, share=circulant())),
    "toeplitz": ((5 * 4 * 2, 12), Dense(12, share=toeplitz((5, 4, 2), kernel=(3, 2), stride=(2, 2), padding="same"))),
    "index": ((3, 4), Dense(4, share=shared(INDEX))),
}


def leaf(array):
    return torch.tensor(array, requires_grad=True)


def channels_first(array):
    """(n, ..., channels) to (n, channels, ...)."""
    return np.moveaxis(array, -1, 1)


def channels_last(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def threshold_of(kind):
    return ACTIVATIONS[kind][0]


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(6,), (3, 6)])
def test_dense_layers_and_activations(kind, shape, rng, dtype):
    node = connected(Dense(5, activation=kind, threshold=threshold_of(kind)), shape, dtype=dtype)
    x, dy = rng.standard_normal((9, *shape)).astype(dtype), rng.standard_normal((9, *node.output_shape)).astype(dtype)
    y, cache = node.forward(x, training=True)
    dx = node.backward(dy, cache)
    rows, weights, bias = leaf(x), leaf(node.weights.values), leaf(node.bias.values)
    out = ACTIVATIONS[kind][1](rows @ weights + bias)
    out.backward(torch.tensor(dy))
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else CLOSE
    np.testing.assert_allclose(y, out.detach().numpy(), **close)
    for ours, theirs in ((dx, rows), (node.weights.gradient, weights), (node.bias.gradient, bias)):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), **close)


@pytest.mark.parametrize("kind", ["soft", "soft_nonnegative"])
def test_learned_thresholds(kind, rng):
    node = connected(Dense(5, activation=kind, threshold="learned"), (6,))
    x, dy = rng.standard_normal((9, 6)), rng.standard_normal((9, 5))
    node.backward(dy, node.forward(x, training=True)[1])
    thresholds = leaf(node.parameters["threshold"].values)
    z = torch.tensor(x) @ torch.tensor(node.weights.values) + torch.tensor(node.bias.values)
    size = torch.relu((z.abs() if kind == "soft" else z) - thresholds)
    (torch.sign(z) * size if kind == "soft" else size).backward(torch.tensor(dy))
    np.testing.assert_allclose(node.parameters["threshold"].gradient, thresholds.grad.numpy(), **CLOSE)


def test_top_k(rng):
    node = connected(Dense(12, activation="topk", density=0.25), (6,))
    x, dy = rng.standard_normal((9, 6)), rng.standard_normal((9, 12))
    y, cache = node.forward(x, training=True)
    dx = node.backward(dy, cache)
    rows = leaf(x)
    z = rows @ torch.tensor(node.weights.values) + torch.tensor(node.bias.values)
    kept = torch.zeros_like(z).scatter(1, z.abs().topk(3, dim=1).indices, 1.0)
    (z * kept).backward(torch.tensor(dy))
    np.testing.assert_allclose(y, (z * kept).detach().numpy(), **CLOSE)
    np.testing.assert_allclose(dx, rows.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("kind", ["relu", "hard"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("shape", "kernel"), [((11, 3), (4,)), ((8, 9, 2), (3, 2))])
def test_convolutions(shape, kernel, stride, padding, kind, rng):
    n_axes = len(kernel)
    node = connected(
        Conv(5, kernel, stride=stride, padding=padding, activation=kind, threshold=threshold_of(kind)), shape
    )
    x, dy = rng.standard_normal((4, *shape)), rng.standard_normal((4, *node.output_shape))
    y, cache = node.forward(x, training=True)
    dx = node.backward(dy, cache)
    # Zeros around by hand: PyTorch's own puts as many before as after, and has none for strides.
    before = padding_before(shape[:-1], kernel, (stride,) * n_axes, padding)
    around = [
        zeros
        for n, p, k, b in reversed(list(zip(shape[:-1], node.output_shape[:-1], kernel, before, strict=True)))
        for zeros in (b, max((p - 1) * stride + k - n - b, 0))
    ]
    signal = leaf(np.ascontiguousarray(channels_first(x)))
    weights = leaf(node.weights.values.reshape(*kernel, shape[-1], 5).transpose(-1, -2, *range(n_axes)).copy())
    bias = leaf(node.bias.values)
    convolve = getattr(torch.nn.functional, f"conv{n_axes}d")
    out = ACTIVATIONS[kind][1](convolve(torch.nn.functional.pad(signal, around), weights, bias, stride=stride))
    out.backward(torch.tensor(np.ascontiguousarray(channels_first(dy))))
    np.testing.assert_allclose(y, channels_last(out), **CLOSE)
    np.testing.assert_allclose(dx, channels_last(signal.grad), **CLOSE)
    by_weights = weights.grad.permute(*range(2, n_axes + 2), 1, 0).reshape(-1, 5)
    np.testing.assert_allclose(node.weights.gradient, by_weights.numpy(), **CLOSE)
    np.testing.assert_allclose(node.bias.gradient, bias.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("ours", [MaxPool, AvgPool])
@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 2), ((2, 3), (1, 2))])
def test_pooling_of_images(ours, size, stride, rng):
    node = connected(ours(size, stride=stride), (7, 9, 3))
    x, dy = rng.standard_normal((4, 7, 9, 3)), rng.standard_normal((4, *node.output_shape))
    y, cache = node.forward(x)
    image = leaf(np.ascontiguousarray(channels_first(x)))
    out = getattr(torch.nn, f"{ours.__name__}2d")(size, stride)(image)
    out.backward(torch.tensor(np.ascontiguousarray(channels_first(dy))))
    np.testing.assert_allclose(y, channels_last(out), **CLOSE)
    np.testing.assert_allclose(node.backward(dy, cache), channels_last(image.grad), **CLOSE)


@pytest.mark.parametrize("name", SHARED)
def test_shared_weights_are_values_at_an_index(name, rng):
    shape, layer = SHARED[name]
    node = connected(layer.set_params(activation="tanh", bias=False), shape[:1])
    assert node.weights.shape == shape
    x, dy = rng.standard_normal((6, shape[0])), rng.standard_normal((6, shape[1]))
    y, cache = node.forward(x, training=True)
    dx = node.backward(dy, cache)
    rows, values, index = leaf(x), leaf(node.weights.values), torch.tensor(node.weights.index.astype(np.int64))
    weights = torch.where(index >= 0, values[index.clamp(min=0)], 0.0)
    if node.weights.signs is not None:
        weights = weights * torch.tensor(node.weights.signs.astype(np.float64))
    out = torch.tanh(rows @ weights)
    out.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, out.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(dx, rows.grad.numpy(), **CLOSE)
    np.testing.assert_allclose(node.weights.gradient, values.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("weights", [None, np.array([0.5, 2.0, 0.0, 1.0])], ids=["equal", "weighted"])
def test_losses(weights, rng):
    outputs, classes, targets = 3 * rng.standard_normal((7, 4)), rng.integers(0, 4, 7), rng.standard_normal((7, 4))
    loss, gradient = SoftmaxCrossEntropy(weights)(outputs, classes)
    theirs = leaf(outputs)
    weights = None if weights is None else torch.tensor(weights)
    # The mean over samples, as scikit-learn's; PyTorch's own divides by the sum of their weights.
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(classes), weights, reduction="sum") / 7
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), **CLOSE)

    loss, gradient = SquaredError()(outputs, targets)
    theirs = leaf(outputs)
    expected = 0.5 * torch.nn.functional.mse_loss(theirs, torch.tensor(targets), reduction="sum") / 7
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), **CLOSE)


def test_tied_layers_behind_an_lstm(rng):
    """Gradients of one weight that two layers hold, behind a recurrent layer: the sum over its uses."""
    layers = [LSTM(4, return_sequences=True), *(Dense(4, activation="tanh", share=tied("both")) for _ in range(2))]
    network = Network([*layers, Flatten()], (6, 3))
    x, dy = rng.standard_normal((5, 6, 3)), rng.standard_normal((5, 24))
    y, caches = network.forward(x, training=True)
    network.backward(dy, caches)
    lstm, dense = network.nodes[0], network.nodes[1]
    theirs = torch.nn.LSTM(3, 4, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(lstm.weights.values.T))
        theirs.weight_hh_l0.copy_(torch.tensor(lstm.recurrent.values.T))
        theirs.bias_ih_l0.copy_(torch.tensor(lstm.bias.values))
        theirs.bias_hh_l0.zero_()
    weights, bias = leaf(dense.weights.values), leaf(dense.bias.values)
    out, _ = theirs(torch.tensor(x))
    for _ in range(2):
        out = torch.tanh(out @ weights + bias)
    out.reshape(5, -1).backward(torch.tensor(dy))
    np.testing.assert_allclose(y, out.detach().reshape(5, -1).numpy(), **CLOSE)
    np.testing.assert_allclose(dense.weights.gradient, weights.grad.numpy(), **CLOSE)
    np.testing.assert_allclose(dense.bias.gradient, bias.grad.numpy(), **CLOSE)
    np.testing.assert_allclose(lstm.weights.gradient, theirs.weight_ih_l0.grad.numpy().T, **CLOSE)
    np.testing.assert_allclose(lstm.recurrent.gradient, theirs.weight_hh_l0.grad.numpy().T, **CLOSE)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_the_network_of_the_benchmarks(name, rng):
    """A small one of its form, ten steps of every optimizer from the same first weights."""
    layers = [Conv(4, 3), MaxPool(2), Conv(6, 3), MaxPool(2), Flatten(), Dense(8), Dense(3, activation="linear")]
    network = Network(layers, (12, 13, 1), random_state=1)
    images, classes = rng.standard_normal((20, 12, 13, 1)), rng.integers(0, 3, 20)

    def copy_of(number):
        weights = network.nodes[number].weights.values
        if number < 3:
            weights = weights.reshape(3, 3, -1, weights.shape[1]).transpose(3, 2, 0, 1)
        return leaf(np.ascontiguousarray(weights)), leaf(network.nodes[number].bias.values.copy())

    theirs = {number: copy_of(number) for number in (0, 2, 5, 6)}
    leaves = [tensor for pair in theirs.values() for tensor in pair]
    rate = 0.01
    if name == "adam":
        optimizer = torch.optim.Adam(leaves, lr=rate)
    else:
        optimizer = torch.optim.SGD(leaves, lr=rate, momentum=0.9 if name == "momentum" else 0.0)
    ours = OPTIMIZERS[name]()

    def forward(x):
        for number in (0, 2):
            x = torch.relu(torch.nn.functional.conv2d(x, *theirs[number]))
            x = torch.nn.functional.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).reshape(len(x), -1)
        x = torch.relu(x @ theirs[5][0] + theirs[5][1])
        return x @ theirs[6][0] + theirs[6][1]

    for _ in range(10):
        outputs, caches = network.forward(images, training=True)
        loss, gradient = SoftmaxCrossEntropy()(outputs, classes)
        network.reset_gradients()
        network.backward(gradient, caches)
        for parameter in network.parameters:
            ours.update(parameter, rate)
        optimizer.zero_grad()
        expected = torch.nn.functional.cross_entropy(
            forward(torch.tensor(images.transpose(0, 3, 1, 2))), torch.tensor(classes)
        )
        expected.backward()
        optimizer.step()
        assert loss == pytest.approx(expected.item(), rel=1e-9)
    found = forward(torch.tensor(images.transpose(0, 3, 1, 2))).detach().numpy()
    np.testing.assert_allclose(network.output(images), found, rtol=1e-7, atol=1e-7)
