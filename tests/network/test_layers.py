"""Dense, Flatten, Dropout: outputs, gradients, what they refuse."""

import numpy as np
import pytest
from network.finite_differences import check_gradients, connected
from sklearn.base import clone

from sparseshare.network.layers import Builder, Dense, Dropout, Flatten
from sparseshare.network.sharing import hashed, tied


def builder(dtype=np.float64, **defaults):
    return Builder(dtype, np.random.RandomState(0), **defaults)


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_is_a_product_on_the_last_axis(shape, bias, rng, dtype):
    node = connected(Dense(4, activation="linear", bias=bias), shape, dtype=dtype)
    x = rng.standard_normal((5, *shape)).astype(dtype)
    y, _ = node.forward(x)
    expected = np.tensordot(x, node.parameters["weights"].full(), axes=1)
    if bias:
        expected += node.parameters["bias"].full()
    assert y.dtype == dtype and y.shape == (5, *node.output_shape)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (3, 7)])
@pytest.mark.parametrize("share", [None, hashed(5)])
def test_gradients_of_dense(shape, share, rng):
    check_gradients(connected(Dense(4, activation="tanh", share=share), shape), rng.standard_normal((6, *shape)))


def test_gradients_of_flatten_and_dropout(rng):
    x = rng.standard_normal((6, 3, 4))
    check_gradients(connected(Flatten(), (3, 4)), x)
    check_gradients(connected(Dropout(0.5), (3, 4)), x, training=True)


def test_gradients_add_up_over_calls(rng):
    node = connected(Dense(4), (7,))
    x, dy = rng.standard_normal((6, 7)), rng.standard_normal((6, 4))
    for _ in range(2):
        node.backward(dy, node.forward(x)[1])
    twice = {name: parameter.gradient.copy() for name, parameter in node.parameters.items()}
    for parameter in node.parameters.values():
        parameter.reset_gradient()
    node.backward(dy, node.forward(x)[1])
    for name, parameter in node.parameters.items():
        np.testing.assert_allclose(twice[name], 2 * parameter.gradient, rtol=1e-12)


def test_the_gradient_by_the_input_is_left_out_where_nobody_asks(rng):
    node = connected(Dense(4), (7,))
    node.input_gradient = False
    assert node.backward(np.ones((6, 4)), node.forward(rng.standard_normal((6, 7)))[1]) is None


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
def test_zeros_of_the_input_are_skipped_in_prediction(density, rng, dtype):
    node = connected(Dense(33, activation="linear"), (70,), dtype=dtype)
    x = (rng.standard_normal((300, 70)) * (rng.random((300, 70)) < density)).astype(dtype)
    x[3] = 0
    y, _ = node.forward(x, training=False)
    np.testing.assert_allclose(y, node.forward(x, training=True)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_samples", [1, 5, 600])
@pytest.mark.parametrize("share", [None, hashed(50)])
def test_bits_do_not_depend_on_threads(n_samples, share, rng):
    x = rng.standard_normal((n_samples, 130)).astype(np.float32)
    dy = rng.standard_normal((n_samples, 40)).astype(np.float32)
    found = []
    for n_threads in (1, 4):
        node = connected(Dense(40, share=share), (130,), dtype=np.float32, n_threads=n_threads)
        y, cache = node.forward(x, training=True)
        predicted, _ = node.forward(x)
        dx = node.backward(dy, cache)
        found.append([y, predicted, dx, *(parameter.gradient for parameter in node.parameters.values())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_of_any_layout(rng):
    node = connected(Dense(4), (3, 7))
    x, dy = rng.standard_normal((7, 3, 6)).T, rng.standard_normal((4, 3, 6)).T
    y, cache = node.forward(x)
    dx = node.backward(dy, cache)
    plain, cache = node.forward(np.ascontiguousarray(x))
    np.testing.assert_array_equal(y, plain)
    np.testing.assert_array_equal(dx, node.backward(np.ascontiguousarray(dy), cache))


def test_an_empty_batch_gives_none():
    node = connected(Dense(4), (7,))
    y, cache = node.forward(np.empty((0, 7)))
    assert y.shape == (0, 4) and node.backward(y, cache).shape == (0, 7)


def test_dropout_keeps_the_mean_and_predicts_all(rng, dtype):
    node = connected(Dropout(0.25), (1000,))
    x = np.ones((50, 1000), dtype)
    y, _ = node.forward(x, training=True, random_state=np.random.RandomState(0))
    assert y.dtype == dtype and abs((y == 0).mean() - 0.25) < 0.01 and abs(y.mean() - 1) < 0.02
    assert node.forward(x)[0] is x


def test_nonnegative_weights_begin_and_stay_so():
    node = Dense(4, nonnegative=True).connect((7,), builder())
    weights = node.parameters["weights"]
    assert weights.values.min() >= 0
    weights.values -= 10
    weights.project()
    assert weights.values.min() == 0


def test_tied_layers_hold_one_parameter():
    one = builder()
    layers = [Dense(7, share=tied("step")), Dense(7, share=tied("step"))]
    first, second = (layer.connect((7,), one) for layer in layers)
    assert first.parameters["weights"] is second.parameters["weights"]
    assert first.parameters["bias"] is second.parameters["bias"]


def test_layers_are_plain_estimators():
    layer = Dense(4, activation="hard", threshold=0.2)
    assert clone(layer).get_params() == layer.get_params()
    assert layer.set_params(threshold=0.5).threshold == 0.5
    assert repr(Dropout(0.5)) == "Dropout(rate=0.5)"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Dense(0), "'n_units' parameter of Dense"),
        (Dense(2.5), "'n_units' parameter of Dense"),
        (Dense(3, bias=1), "'bias' parameter of Dense"),
        (Dense(3, nonnegative=None), "'nonnegative' parameter of Dense"),
        (Dense(3, l1=-1), "'l1' parameter of Dense"),
        (Dense(3, l2=np.nan), "'l2' parameter of Dense"),
        (Dense(3, init="zeros"), "'init' parameter"),
        (Dense(3, share="tied"), "'share' parameter of Dense must be a sharing rule"),
        (Dense(3, share=hashed), "'share' parameter of Dense must be a sharing rule"),
        (Dropout(1.0), "'rate' parameter of Dropout"),
        (Dropout(-0.1), "'rate' parameter of Dropout"),
    ],
)
def test_wrong_parameters_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        layer.connect((7,), builder())


def test_a_layer_without_input_is_refused():
    with pytest.raises(ValueError, match="Dense.*takes samples of at least one axis"):
        Dense(3).connect((), builder())
