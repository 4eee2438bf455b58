"""Attention: formula, gradients, the simplex, PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from network.finite_differences import check_gradients, connected

from sparseshare.network.attention import Attention, softmax, sparsemax
from sparseshare.network.layers import Builder, Dense
from sparseshare.network.losses import SoftmaxCrossEntropy
from sparseshare.network.model import Network
from sparseshare.network.recurrent import LSTM
from sparseshare.network.sharing import hashed, tied

SCORES = ["softmax", "sparsemax"]


def plain_sparsemax(scores):
    """The threshold by bisection."""
    low, high = scores.max() - 1, scores.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(scores - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(scores - low, 0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_sparsemax_is_the_nearest_point_of_the_simplex(scores):
    scores = np.array([scores])
    shares = sparsemax(scores)
    np.testing.assert_allclose(shares[0], plain_sparsemax(scores[0]), atol=1e-9)
    np.testing.assert_allclose(shares.sum(), 1, atol=1e-9)


@pytest.mark.parametrize("function", [softmax, sparsemax])
def test_shares_keep_their_dtype_and_sum_to_one(function, rng, dtype):
    shares = function((10 * rng.standard_normal((20, 30))).astype(dtype))
    assert shares.dtype == dtype and shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("shape", [(6, 3), (3, 4, 2), (1, 3)])
def test_attention_is_its_formula(scores, shape, rng, dtype):
    node = connected(Attention(5, scores=scores), shape, dtype=dtype)
    x = rng.standard_normal((7, *shape)).astype(dtype)
    y, _ = node.forward(x)
    assert y.dtype == dtype and node.output_shape == shape[-1:]
    W, b, v = (node.parameters[name].full() for name in ("weights", "bias", "vector"))
    for one, found in zip(x.reshape(7, -1, shape[-1]), y, strict=True):
        s = np.tanh(one @ W + b) @ v[:, 0]
        shares = np.exp(s) / np.exp(s).sum() if scores == "softmax" else plain_sparsemax(s)
        np.testing.assert_allclose(found, shares @ one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"share": hashed(0.5)}, {"share": tied("one")}])
@pytest.mark.parametrize("shape", [(6, 3), (3, 4, 2)])
def test_gradients(scores, options, shape, rng):
    node = connected(Attention(5, scores=scores, **options), shape)
    node.vector.values *= 3
    check_gradients(node, rng.standard_normal((7, *shape)))


def test_sparsemax_looks_at_few_positions(rng):
    node = connected(Attention(8, scores="sparsemax"), (40, 3))
    node.vector.values *= 5
    _, (_, _, _, share) = node.forward(rng.standard_normal((10, 40, 3)))
    assert 0 < (share > 0).mean() < 0.5


def test_tied_attention_holds_one_vector():
    builder = Builder(np.float64, np.random.RandomState(0))
    first, second = (Attention(5, share=tied("one")).connect((6, 3), builder) for _ in range(2))
    for name in ("weights", "vector", "bias"):
        assert first.parameters[name] is second.parameters[name]


def test_bits_do_not_depend_on_threads(rng):
    x = rng.standard_normal((150, 9, 3)).astype(np.float32)
    found = []
    for n_threads in (1, 4):
        node = connected(Attention(6), (9, 3), dtype=np.float32, n_threads=n_threads)
        y, cache = node.forward(x)
        found.append([y, node.backward(y, cache), *(parameter.gradient for parameter in node.parameters.values())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_empty_batch_and_no_gradient_by_the_input(rng):
    node = connected(Attention(4), (5, 3))
    y, cache = node.forward(np.empty((0, 5, 3)))
    assert y.shape == (0, 3) and node.backward(y, cache).shape == (0, 5, 3)
    node.input_gradient = False
    y, cache = node.forward(rng.standard_normal((2, 5, 3)))
    assert node.backward(y, cache) is None


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("shape", [(6, 3), (3, 4, 2)])
def test_attention_is_that_of_pytorch(scores, shape, rng, dtype):
    torch = pytest.importorskip("torch")

    def sparse(s):
        """Martins and Astudillo 2016, algorithm 1, by operations that PyTorch differentiates."""
        ordered = s.sort(dim=1, descending=True).values
        sums, ranks = ordered.cumsum(dim=1) - 1, torch.arange(1, s.shape[1] + 1).reshape(1, -1, 1)
        size = (ordered * ranks > sums).sum(dim=1, keepdim=True)
        return torch.relu(s - sums.gather(1, size - 1) / size)

    node = connected(Attention(5, scores=scores), shape, dtype=dtype)
    x, dy = rng.standard_normal((7, *shape)).astype(dtype), rng.standard_normal((7, shape[-1])).astype(dtype)
    y, cache = node.forward(x)
    dx = node.backward(dy, cache)
    theirs = {name: torch.tensor(p.values, requires_grad=True) for name, p in node.parameters.items()}
    sequence = torch.tensor(x, requires_grad=True)
    flat = sequence.reshape(7, -1, shape[-1])
    s = torch.tanh(flat @ theirs["weights"] + theirs["bias"]) @ theirs["vector"]
    out = ((torch.softmax(s, dim=1) if scores == "softmax" else sparse(s)) * flat).sum(dim=1)
    out.backward(torch.tensor(dy))
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(y, out.detach().numpy(), **close)
    np.testing.assert_allclose(dx, sequence.grad.numpy(), **close)
    for name, parameter in node.parameters.items():
        np.testing.assert_allclose(parameter.gradient, theirs[name].grad.numpy(), **close)


def test_a_classifier_of_lstm_and_attention_is_that_of_pytorch(rng):
    """Loss and all gradients of the whole chain."""
    torch = pytest.importorskip("torch")
    network = Network([LSTM(4, return_sequences=True), Attention(5), Dense(3, activation="linear")], (6, 2))
    x, y = rng.standard_normal((9, 6, 2)), rng.integers(3, size=9)
    outputs, caches = network.forward(x, training=True)
    loss, gradient = SoftmaxCrossEntropy()(outputs, y)
    network.backward(gradient, caches)
    theirs = [torch.tensor(parameter.values, requires_grad=True) for parameter in network.parameters]
    W, R, b, V, c, v, U, d = theirs
    h, memory, states = torch.zeros(9, 4, dtype=torch.float64), torch.zeros(9, 4, dtype=torch.float64), []
    for t in range(6):
        i, f, g, o = (torch.tensor(x[:, t]) @ W + h @ R + b).split(4, dim=1)
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(memory)
        states.append(h)
    states = torch.stack(states, dim=1)
    names = list(network.nodes[1].parameters)
    V, c, v = (dict(zip(names, (V, c, v), strict=True))[name] for name in ("weights", "bias", "vector"))
    shares = torch.softmax(torch.tanh(states @ V + c) @ v, dim=1)
    expected = torch.nn.functional.cross_entropy((shares * states).sum(dim=1) @ U + d, torch.tensor(y))
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-10)
    for parameter, their in zip(network.parameters, theirs, strict=True):
        np.testing.assert_allclose(parameter.gradient, their.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Attention(4), (5,), r"Attention\(n_hidden=4\) takes sequences .* got samples of shape \(5,\)"),
        (Attention(0), (5, 3), "'n_hidden' parameter of Attention"),
        (Attention(4, scores="entmax"), (5, 3), "'scores' parameter of Attention"),
        (Attention(4, bias="no"), (5, 3), "'bias' parameter of Attention"),
    ],
)
def test_what_does_not_fit_is_refused(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer.connect(shape, Builder(np.float64, np.random.RandomState(0)))
