"""Networks: gradients of a whole chain against finite differences, states, threads, and layers that do not fit."""

import numpy as np
import pytest

from sparseshare.network import AvgPool, Conv, Dense, Dropout, Flatten, MaxPool, Network, hashed, tied
from sparseshare.network.losses import SoftmaxCrossEntropy
from sparseshare.network.sharing import one_line

LAYERS = [
    Conv(4, 3, activation="tanh", padding="same"),
    AvgPool(2),
    Conv(5, 2, activation="tanh", share=hashed(1 / 2)),
    Flatten(),
    Dropout(0.2),
    Dense(12, activation="soft", threshold="learned"),
    Dense(12, share=tied("d"), activation="tanh"),
    Dense(12, share=tied("d"), activation="tanh"),
    Dense(3, activation="linear"),
]


@pytest.fixture
def network():
    return Network(LAYERS, (6, 6, 2), random_state=0)


def test_gradients_of_a_chain_against_finite_differences(network, rng):
    x, targets, loss = rng.standard_normal((4, 6, 6, 2)), rng.integers(0, 3, 4), SoftmaxCrossEntropy()
    outputs, caches = network.forward(x, True, np.random.RandomState(0))
    network.backward(loss(outputs, targets)[1], caches)
    assert len(network.parameters) == 4 + 3 + 2 + 2
    for parameter in network.parameters:
        flat = parameter.values.reshape(-1)
        for number in rng.choice(flat.size, min(6, flat.size), replace=False):
            sides = []
            for sign in (1, -1):
                flat[number] += sign * 1e-6
                parameter.changed()
                outputs, _ = network.forward(x, True, np.random.RandomState(0))
                sides.append(loss(outputs, targets)[0])
                flat[number] -= sign * 1e-6
                parameter.changed()
            slope = (sides[0] - sides[1]) / 2e-6
            assert parameter.gradient.reshape(-1)[number] == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_restore_goes_back(network, rng):
    x = rng.standard_normal((3, 6, 6, 2))
    before, state = network.output(x), network.state()
    for parameter in network.parameters:
        parameter.values += 1
        parameter.changed()
    assert np.abs(network.output(x) - before).max() > 0.1
    network.restore(state)
    np.testing.assert_array_equal(network.output(x), before)


def test_restore_goes_back_to_other_patterns(network, rng):
    x = rng.standard_normal((3, 6, 6, 2))
    before, state, last = network.output(x), network.state(), network.parameters[-2]
    last.set(np.array([1.0]), hashed(1).parameter(np.zeros(last.shape), None, None, {"nonnegative": False}).pattern)
    network.restore(state)
    np.testing.assert_array_equal(network.output(x), before)


def test_outputs_do_not_depend_on_threads(network, rng):
    x = rng.standard_normal((300, 6, 6, 2))
    one = network.output(x)
    network.set_threads(2)
    np.testing.assert_array_equal(network.output(x), one)


def test_precision_is_the_one_asked_for(dtype, rng):
    network = Network(LAYERS, (6, 6, 2), dtype)
    assert all(parameter.values.dtype == dtype for parameter in network.parameters)
    assert network.output(rng.standard_normal((3, 6, 6, 2)).astype(dtype)).dtype == dtype


def test_the_same_random_state_gives_the_same_network(rng):
    x = rng.standard_normal((3, 6, 6, 2))
    outputs = [Network(LAYERS, (6, 6, 2), random_state=seed).output(x) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 0.01


def test_densities_are_shares_of_non_zeros(rng):
    network = Network([Dense(20, activation="hard", threshold=0.5), Dense(3, activation="tanh")], (8,))
    x = rng.standard_normal((50, 8))
    network.measure_densities([x[:30], x[30:]])
    hidden = network.output(x, n_layers=1)
    assert network.input_densities == [1.0, np.mean(hidden != 0)]
    assert network.densities == [np.mean(hidden != 0), 1.0]


@pytest.mark.parametrize(
    ("layers", "shape", "wrong", "before", "shown"),
    [
        ([Dense(8), Conv(4, 3)], (5,), 1, 0, "(8,)"),
        ([Conv(4, 3), Flatten(), MaxPool(2)], (5, 5, 1), 2, 1, "(36,)"),
        ([Conv(4, 3), Conv(4, 5)], (5, 5, 1), 1, 0, "(3, 3, 4)"),
        ([Conv(4, 3)], (2, 2, 1), 0, None, "(2, 2, 1)"),
        ([Dense(4), Dense(-1)], (2,), 1, 0, "(4,)"),
    ],
)
def test_layers_that_do_not_fit_are_both_named(layers, shape, wrong, before, shown):
    with pytest.raises(ValueError) as caught:
        Network(layers, shape)
    message = str(caught.value)
    assert f"layer {wrong}, {one_line(layers[wrong])}" in message and shown in message
    if before is not None:
        assert f"layer {before}, {one_line(layers[before])}" in message


def test_what_is_no_layer_is_refused():
    with pytest.raises(ValueError, match=r"must be a list of layers of sparseshare.network, its entry 1 is 'relu'"):
        Network([Dense(3), "relu"], (4,))
