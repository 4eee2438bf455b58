"""Sharing rules against their meaning: index arrays, ties, hashes; a convolution is one of them."""

import numpy as np
import pytest
from sklearn.base import clone

from sparseshare.network import Conv, Dense, Flatten, circulant, clustered, hashed, shared, tied, toeplitz
from sparseshare.network.model import Network
from sparseshare.network.recurrent import Recurrent
from sparseshare.network.sharing import one_line


def weights_of(rule, n_in=6, n_out=4, **options):
    return Network([Dense(n_out, share=rule, activation="linear", **options)], (n_in,)).nodes[0].weights


def gradients(network, x, dy):
    network.reset_gradients()
    y, caches = network.forward(x, training=True)
    network.backward(dy, caches)
    return y, [parameter.gradient.copy() for parameter in network.parameters]


RULES = {
    "hashed": hashed(7, seed=2),
    "hashed without signs": hashed(0.25, signed=False),
    "circulant": circulant(),
    "shared": shared(np.random.default_rng(0).integers(-1, 5, (6, 4))),
    "toeplitz": toeplitz((3, 2), 2),
    "tied": tied("a", hashed(5)),
}


@pytest.mark.parametrize("name", RULES)
def test_gradients_of_shared_values_against_finite_differences(name, rng):
    network = Network([Dense(4, share=RULES[name], activation="tanh")], (6,))
    x, dy = rng.standard_normal((5, 6)), rng.standard_normal((5, 4))
    _, exact = gradients(network, x, dy)
    for parameter, gradient in zip(network.parameters, exact, strict=True):
        for number in range(parameter.values.size):
            sides = []
            for sign in (1, -1):
                parameter.values[number] += sign * 1e-6
                parameter.changed()
                sides.append((network.output(x) * dy).sum())
                parameter.values[number] -= sign * 1e-6
                parameter.changed()
            assert gradient[number] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", RULES)
def test_rules_can_be_cloned_and_printed(name):
    rule = RULES[name]
    copy = clone(Dense(4, share=rule)).share
    assert type(copy) is type(rule) and repr(copy) == repr(rule) and type(rule).__name__ in repr(Dense(4, share=rule))
    np.testing.assert_array_equal(weights_of(copy).full(), weights_of(rule).full())


def test_first_weights_have_the_variance_that_their_fans_ask_for():
    for rule in (hashed(1 / 4), circulant(), toeplitz((20, 10, 4), 3)):
        n_in, n_out = (800, 18 * 8 * 50) if isinstance(rule, toeplitz) else (800, 600)
        weights = weights_of(rule, n_in, n_out, init="he")
        fan_in = 3 * 3 * 4 if isinstance(rule, toeplitz) else 800
        assert weights.values.var() == pytest.approx(2 / fan_in, rel=0.15)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
@pytest.mark.parametrize("kernel", [1, 3, (2, 3), (4, 2)])
def test_toeplitz_is_a_convolution(kernel, stride, padding, rng):
    """Conv equals Dense with the Toeplitz rule, in values and in gradients of what is shared."""
    shape = (7, 6, 2)
    conv = Network([Conv(3, kernel, stride=stride, padding=padding), Flatten()], shape)
    n_units = int(np.prod(conv.output_shape))
    rule = toeplitz(shape, kernel, stride, padding)
    dense = Network([Flatten(), Dense(n_units, share=rule)], shape)
    assert [p.values.size for p in conv.parameters] == [p.values.size for p in dense.parameters]
    for theirs, ours in zip(conv.parameters, dense.parameters, strict=True):
        ours.values[...] = theirs.values.ravel() if theirs.values.ndim > 1 else rng.standard_normal(theirs.values.size)
        theirs.values[...] = ours.values.reshape(theirs.values.shape)
        ours.changed()
    x = rng.standard_normal((4, *shape))
    dy = rng.standard_normal((4, n_units))
    y_conv, of_conv = gradients(conv, x, dy)
    y_dense, of_dense = gradients(dense, x, dy)
    np.testing.assert_allclose(y_dense, y_conv, atol=1e-12)
    for theirs, ours in zip(of_conv, of_dense, strict=True):
        np.testing.assert_allclose(ours, theirs.ravel(), atol=1e-11)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_toeplitz_of_a_signal_is_a_convolution(padding, rng):
    conv = Network([Conv(3, 4, stride=3, padding=padding), Flatten()], (11, 2))
    rule = toeplitz((11, 2), 4, 3, padding)
    dense = Network([Flatten(), Dense(conv.output_shape[0], share=rule)], (11, 2))
    dense.parameters[0].values[...] = conv.parameters[0].values.ravel()
    dense.parameters[0].changed()
    x = rng.standard_normal((4, 11, 2))
    np.testing.assert_allclose(dense.output(x), conv.output(x), atol=1e-12)


def test_circulant_rows_are_shifted(rng):
    weights = weights_of(circulant(), 5, 5).full()
    for row in range(1, 5):
        np.testing.assert_array_equal(weights[row], np.roll(weights[0], row))


def test_tied_layers_hold_one_weight_and_add_up_their_gradients(rng):
    """A deep network with one weight: the gradient is the sum of those of its untied twin."""
    tied_network = Network([Dense(5, share=tied("w"), activation="tanh") for _ in range(3)], (5,))
    free = Network([Dense(5, activation="tanh") for _ in range(3)], (5,))
    assert len(tied_network.parameters) == 2 and len(free.parameters) == 6
    weights, bias = tied_network.parameters
    bias.values[...] = rng.standard_normal(5)
    for node in free.nodes:
        node.weights.values[...], node.bias.values[...] = weights.values, bias.values
    x, dy = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))
    y_tied, (of_weights, of_bias) = gradients(tied_network, x, dy)
    y_free, of_free = gradients(free, x, dy)
    np.testing.assert_allclose(y_tied, y_free)
    np.testing.assert_allclose(of_weights, sum(of_free[::2]))
    np.testing.assert_allclose(of_bias, sum(of_free[1::2]))


def test_ties_of_other_names_do_not_join():
    assert len(Network([Dense(5, share=tied(name)) for name in "aba"], (5,)).parameters) == 4


def test_tied_recurrent_layers_join_like_with_like():
    layers = [Recurrent(4, return_sequences=True, share=tied("r")), Recurrent(4, share=tied("r"))]
    network = Network(layers, (3, 4))
    assert len(network.parameters) == 3
    assert network.nodes[0].recurrent is network.nodes[1].recurrent is not network.nodes[1].weights


def test_clusters_are_gathered_when_asked(rng):
    weights = weights_of(clustered(3), 8, 8)
    before = weights.values.copy()
    assert weights.pending.start == 0.5 and not weights.shared
    weights.pending.gather(weights)
    assert weights.pending is None and weights.values.size == 3
    for value in range(3):
        np.testing.assert_allclose(weights.values[value], before[weights.index == value].mean())
    distances = np.abs(before[:, :, None] - weights.values)
    np.testing.assert_array_equal(distances.argmin(axis=2), weights.index)


def test_nonnegative_weights_take_no_signs():
    weights = weights_of(hashed(1 / 2), nonnegative=True)
    assert weights.signs is None and weights.full().min() >= 0


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (hashed(0), "'n_values' parameter of hashed must be an integer of at least 1, got 0"),
        (hashed(1.5), "must be an integer of at least 1 or a fraction between 0 and 1, got 1.5"),
        (hashed(25), "hashed has 25 values for 24 weights"),
        (hashed(3, seed=-1), "'seed' parameter of hashed"),
        (hashed(3, signed="yes"), "'signed' parameter of hashed"),
        (clustered(30), "clustered has 30 values for 24 weights"),
        (clustered(3, start=2), "'start' parameter of clustered"),
        (clustered(0.5), "'n_values' parameter of clustered"),
        (shared(np.zeros((6, 4))), "must hold integers, got dtype float64"),
        (shared(np.zeros((4, 6), int)), r"has the shape \(4, 6\), the weights of .* have \(6, 4\)"),
        (shared(np.full((6, 4), -1)), "at least one value; got -1 to -1"),
        (shared(np.full((6, 4), -2)), "or -1 for no weight.*got -2 to -2"),
        (shared(np.full((6, 4), 30)), "shared has 31 values for 24 weights"),
        (toeplitz((3, 2), 4), r"kernel \(4,\) of toeplitz is larger than its input \(3, 2\)"),
        (toeplitz((3, 3), 2), r"makes weights of shape \(9, 2 \* number of filters\), those of .* have the shape"),
        (toeplitz((6,), 2), r"must be \(time, channels\) or \(height, width, channels\), got \(6,\)"),
        (toeplitz((3, 2), (2, 2)), "'kernel' parameter of toeplitz must be one int"),
        (toeplitz((3, 2), 2, padding="full"), "'padding' parameter of toeplitz must be 'valid' or 'same'"),
        (tied(3), "'name' parameter of tied must be a string, got 3"),
    ],
    ids=repr,
)
def test_wrong_rules_say_what_is_wrong(rule, message):
    with pytest.raises(ValueError, match=message):
        weights_of(rule)


def test_tied_layers_of_different_shape_are_both_named():
    layers = [Dense(8, share=tied("w")), Dense(5, share=tied("w"))]
    with pytest.raises(ValueError) as caught:
        Network(layers, (8,))
    for part in (*map(one_line, layers), "'w'", "(8, 8)", "(8, 5)"):
        assert part in str(caught.value)
