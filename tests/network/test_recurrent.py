"""Layers through time: gradients, the tied deep stack they equal, PyTorch."""

import numpy as np
import pytest
from network.finite_differences import check_gradients, connected

from sparseshare.network.layers import Builder, Dense
from sparseshare.network.recurrent import LSTM, Recurrent
from sparseshare.network.sharing import hashed, tied


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"activation": "relu"},
        {"activation": "linear"},
        {"activation": "soft", "threshold": 0.2},
        {"activation": "soft", "threshold": "learned"},
        {"activation": "hard", "threshold": 0.3},
        {"activation": "topk", "density": 0.5},
        {"share": hashed(5)},
    ],
)
def test_gradients_of_recurrent_layers(options, sequences, rng):
    node = connected(Recurrent(4, return_sequences=sequences, **options), (6, 3))
    node.recurrent.values *= 0.5
    check_gradients(node, rng.standard_normal((5, 6, 3)))


@pytest.mark.parametrize("layer", [Recurrent(4), LSTM(4)])
def test_gradients_of_one_step(layer, rng):
    check_gradients(connected(layer, (1, 3)), rng.standard_normal((5, 1, 3)))


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"share": hashed(0.5)}])
def test_gradients_of_lstm(options, sequences, rng):
    check_gradients(connected(LSTM(4, return_sequences=sequences, **options), (6, 3)), rng.standard_normal((5, 6, 3)))


@pytest.mark.parametrize("activation", ["tanh", "soft", "relu", "hard"])
def test_a_recurrent_layer_is_a_deep_stack_of_tied_layers(activation, rng):
    """[x_t, h] -> h with the weights [W; R] tied over as many layers as there are steps."""
    node = connected(Recurrent(4, activation=activation), (5, 3))
    builder = Builder(np.float64, np.random.RandomState(0))
    layers = [Dense(4, activation=activation, share=tied("step")) for _ in range(5)]
    stack = [layer.connect((7,), builder) for layer in layers]
    weights, bias = stack[0].parameters["weights"], stack[0].parameters["bias"]
    assert all(one.parameters["weights"] is weights for one in stack)
    weights.values[:3], weights.values[3:] = node.weights.values, node.recurrent.values
    bias.values[:] = node.bias.values
    x, dy = rng.standard_normal((6, 5, 3)), rng.standard_normal((6, 4))
    h, caches = np.zeros((6, 4)), []
    for t, one in enumerate(stack):
        h, cache = one.forward(np.hstack([x[:, t], h]))
        caches.append(cache)
    y, cache = node.forward(x)
    np.testing.assert_allclose(y, h, atol=1e-12)
    dx, dh = np.empty_like(x), dy
    for t in range(4, -1, -1):
        both = stack[t].backward(dh, caches[t])
        dx[:, t], dh = both[:, :3], both[:, 3:]
    np.testing.assert_allclose(node.backward(dy, cache), dx, atol=1e-12)
    np.testing.assert_allclose(node.weights.gradient, weights.gradient[:3], atol=1e-12)
    np.testing.assert_allclose(node.recurrent.gradient, weights.gradient[3:], atol=1e-12)
    np.testing.assert_allclose(node.bias.gradient, bias.gradient, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_lstm_is_its_formula(bias, rng, dtype):
    """For samples in several blocks."""
    node = connected(LSTM(4, return_sequences=True, bias=bias), (5, 3), dtype=dtype)
    x = rng.standard_normal((150, 5, 3)).astype(dtype)
    W, R = node.weights.full(), node.recurrent.full()
    b = node.bias.full() if bias else 0
    h, c = np.zeros((2, 150, 4))
    y, _ = node.forward(x)
    assert y.dtype == dtype
    for t in range(5):
        i, f, g, o = np.split(x[:, t] @ W + h @ R + b, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-z)) for z in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        np.testing.assert_allclose(y[:, t], h, atol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("layer", [Recurrent(4), LSTM(4), Recurrent(4, activation="soft", threshold="learned")])
def test_gradients_add_up_over_blocks_of_samples(layer, rng):
    node = connected(layer, (5, 3))
    x, dy = rng.standard_normal((150, 5, 3)), rng.standard_normal((150, 4))
    found = []
    for parts in ([slice(None)], [slice(i, i + 10) for i in range(0, 150, 10)]):
        for parameter in node.parameters.values():
            parameter.reset_gradient()
        dx = [node.backward(dy[part], node.forward(x[part])[1]) for part in parts]
        found.append([np.concatenate(dx), *(parameter.gradient.copy() for parameter in node.parameters.values())])
    for whole, summed in zip(*found, strict=True):
        np.testing.assert_allclose(whole, summed, atol=1e-10)


@pytest.mark.parametrize("layer", [Recurrent, LSTM])
def test_what_is_returned_is_nobody_elses(layer, rng):
    """Writing into the output must not reach what the way back needs, for one sample and one step too."""
    for shape in [(1, 1, 3), (1, 5, 3), (2, 1, 3)]:
        for sequences in (False, True):
            node = connected(layer(4, return_sequences=sequences), shape[1:])
            x = rng.standard_normal(shape)
            (y, cache), (other, untouched) = node.forward(x), node.forward(x)
            dy = np.ones_like(y)
            y[...] = np.nan
            np.testing.assert_array_equal(node.backward(dy, cache), node.backward(dy, untouched))
            assert np.isfinite(other).all()


@pytest.mark.parametrize("layer", [Recurrent, LSTM])
def test_the_last_of_the_sequence_is_the_output(layer, rng, dtype):
    x = rng.standard_normal((6, 5, 3)).astype(dtype)
    all_steps, _ = connected(layer(4, return_sequences=True), (5, 3), dtype=dtype).forward(x)
    last, _ = connected(layer(4), (5, 3), dtype=dtype).forward(x)
    assert all_steps.dtype == last.dtype == dtype
    np.testing.assert_array_equal(all_steps[:, -1], last)


@pytest.mark.parametrize("layer", [Recurrent(8, activation="hard", density=0.3), LSTM(8)])
def test_bits_do_not_depend_on_threads(layer, rng):
    x = rng.standard_normal((150, 5, 3)).astype(np.float32)
    found = []
    for n_threads in (1, 4):
        node = connected(layer, (5, 3), dtype=np.float32, n_threads=n_threads)
        y, cache = node.forward(x, training=True)
        found.append([y, node.backward(y, cache), *(parameter.gradient for parameter in node.parameters.values())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_density_is_reached_over_the_steps(rng):
    node = connected(Recurrent(40, activation="hard", density=0.2), (6, 10))
    node.recurrent.values *= 0.2  # a state that does not grow
    for _ in range(80):
        node.forward(rng.standard_normal((64, 6, 10)), training=True)
    node.forward(rng.standard_normal((400, 6, 10)))
    assert abs(node.activation.measured_density - 0.2) < 0.02


def test_the_gates_saturate_without_overflow():
    node = connected(LSTM(4), (3, 2), dtype=np.float32)
    y, cache = node.forward(np.full((2, 3, 2), 1e30, np.float32))
    assert np.isfinite(y).all() and np.isfinite(node.backward(y, cache)).all()


def test_the_forget_gate_begins_open():
    bias = LSTM(3).connect((5, 2), Builder(np.float64, np.random.RandomState(0))).bias.values
    np.testing.assert_array_equal(bias.reshape(4, 3), [[0] * 3, [1] * 3, [0] * 3, [0] * 3])


@pytest.mark.parametrize("layer", [Recurrent(4), LSTM(4, return_sequences=True)])
def test_an_empty_batch_and_no_gradient_by_the_input(layer, rng):
    node = connected(layer, (5, 3))
    y, cache = node.forward(np.empty((0, 5, 3)))
    assert y.shape == (0, *node.output_shape) and node.backward(y, cache).shape == (0, 5, 3)
    node.input_gradient = False
    y, cache = node.forward(rng.standard_normal((2, 5, 3)))
    assert node.backward(y, cache) is None


@pytest.mark.parametrize("layer", [Recurrent(4), Recurrent(4, activation="relu"), LSTM(4)])
def test_sequences_are_those_of_pytorch(layer, rng, dtype):
    torch = pytest.importorskip("torch")
    layer = layer.set_params(return_sequences=True)
    node = connected(layer, (7, 3), dtype=dtype)
    x, dy = rng.standard_normal((5, 7, 3)).astype(dtype), rng.standard_normal((5, 7, 4)).astype(dtype)
    if isinstance(layer, LSTM):
        theirs = torch.nn.LSTM(3, 4, batch_first=True)
    else:
        theirs = torch.nn.RNN(3, 4, batch_first=True, nonlinearity=layer.activation)
    theirs.weight_ih_l0 = torch.nn.Parameter(torch.tensor(node.weights.values.T))
    theirs.weight_hh_l0 = torch.nn.Parameter(torch.tensor(node.recurrent.values.T))
    theirs.bias_ih_l0 = torch.nn.Parameter(torch.tensor(node.bias.values))
    theirs.bias_hh_l0 = torch.nn.Parameter(torch.zeros_like(theirs.bias_ih_l0))
    sequence = torch.tensor(x, requires_grad=True)
    out, _ = theirs(sequence)
    out.backward(torch.tensor(dy))
    y, cache = node.forward(x, training=True)
    dx = node.backward(dy, cache)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(y, out.detach().numpy(), **close)
    np.testing.assert_allclose(dx, sequence.grad.numpy(), **close)
    for ours, other in [
        (node.weights, theirs.weight_ih_l0),
        (node.recurrent, theirs.weight_hh_l0),
        (node.bias, theirs.bias_ih_l0),
    ]:
        np.testing.assert_allclose(ours.gradient, other.grad.numpy().T, **close)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Recurrent(4), (5,), r"Recurrent\(n_units=4\) takes sequences .* got samples of shape \(5,\)"),
        (LSTM(4), (5, 5, 1), "takes sequences"),
        (LSTM(0), (5, 3), "'n_units' parameter of LSTM"),
        (Recurrent(4, return_sequences="yes"), (5, 3), "'return_sequences' parameter of Recurrent"),
        (LSTM(4, return_sequences=1), (5, 3), "'return_sequences' parameter of LSTM"),
        (Recurrent(4, activation="gelu"), (5, 3), "'activation' parameter of Recurrent"),
        (Recurrent(4, threshold=0.1), (5, 3), "its activation is 'tanh'"),
        (LSTM(4, l2=-1), (5, 3), "'l2' parameter of LSTM"),
    ],
)
def test_what_does_not_fit_is_refused(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer.connect(shape, Builder(np.float64, np.random.RandomState(0)))
