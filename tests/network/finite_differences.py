"""Gradients of nodes against central differences."""

import numpy as np

from sparseshare.network.layers import Builder


def connected(layer, input_shape, *, dtype=np.float64, seed=0, spread=True, **defaults):
    """Node of a layer, with parameters that are not at their special first values (biases of 0)."""
    node = layer.connect(input_shape, Builder(dtype, np.random.RandomState(seed), **defaults))
    if spread:
        random = np.random.default_rng(seed + 1)
        for name, parameter in node.parameters.items():
            if name != "threshold":
                parameter.values += 0.3 * random.standard_normal(parameter.values.shape).astype(dtype)
                parameter.project()
    return node


def difference(function, array, step=1e-6):
    """Gradient of a scalar function by an array that it reads, entry by entry."""
    gradient = np.empty_like(array)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + step
        high = function()
        array[place] = kept - step
        low = function()
        array[place] = kept
        gradient[place] = (high - low) / (2 * step)
    return gradient


def check_gradients(node, x, *, training=False, tol=1e-6, seed=5):
    """Hold `backward` to central differences, by the input and by every parameter; at smooth points only."""
    along = np.random.default_rng(seed).standard_normal((len(x), *node.output_shape))

    def value():
        for parameter in node.parameters.values():
            parameter.changed()
        y, _ = node.forward(x, training, np.random.RandomState(0))
        return float((y * along).sum())

    for parameter in node.parameters.values():
        parameter.reset_gradient()
    y, cache = node.forward(x, training, np.random.RandomState(0))
    assert y.shape == (len(x), *node.output_shape) and y.dtype == x.dtype
    before, given = y.copy(), along.copy()
    dx = node.backward(along, cache)
    np.testing.assert_array_equal(y, before)
    np.testing.assert_array_equal(along, given)
    assert dx.shape == x.shape and dx.dtype == x.dtype
    scale = max(1.0, np.abs(dx).max())
    np.testing.assert_allclose(dx, difference(value, x), atol=tol * scale)
    for name, parameter in node.parameters.items():
        if name == "threshold" and not node.activation.learned:
            continue
        expected = difference(value, parameter.values)
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(parameter.gradient, expected, atol=tol * scale, err_msg=name)
