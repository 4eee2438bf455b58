"""Layers that go through time with the same weights at every step: `Recurrent` and `LSTM`."""

import numpy as np

from sparseshare.threads import single_threaded_blas
from sparseshare.validation import check_bool, check_number

from .blocks import product, transposed_product
from .layers import Layer, Node, check_layer
from .thresholds import activation_of


class Recurrent(Layer):
    """A state that sees the input of its step and the state before: h_t = activation(x_t W + h_{t-1} R + b), h_0 = 0.

    Unrolled it is a deep network whose layers share their weights.

    Parameters
    ----------
    n_units : int
    return_sequences : bool, default=False
        Whether the output is the state of every step, (time, n_units), or of the last one, (n_units,).
    activation : str, default="tanh"
        As in `Dense`, and None there: that of the estimator.
    threshold, density, bias, init, share, nonnegative, l1, l2
        As in `Dense`, for both weights: W (n_features, n_units) and R (n_units, n_units).

    References
    ----------
    J. Elman, "Finding structure in time", Cognitive Science 1990. Gradients: P. Werbos, "Backpropagation through time",
    Proceedings of the IEEE 1990.

    Examples
    --------
    >>> from sparseshare.network import Recurrent
    >>> Recurrent(64, activation="soft", threshold=0.1)
    Recurrent(activation='soft', n_units=64, threshold=0.1)
    """

    def __init__(
        self,
        n_units,
        *,
        return_sequences=False,
        activation="tanh",
        threshold=None,
        density=None,
        bias=True,
        init="glorot",
        share=None,
        nonnegative=False,
        l1=0.0,
        l2=0.0,
    ):
        self.n_units = n_units
        self.return_sequences = return_sequences
        self.activation = activation
        self.threshold = threshold
        self.density = density
        self.bias = bias
        self.init = init
        self.share = share
        self.nonnegative = nonnegative
        self.l1 = l1
        self.l2 = l2

    def connect(self, input_shape, builder):
        """See `Layer`."""
        n_units = _check_recurrent(self, input_shape)
        return _RecurrentNode(self, input_shape, n_units, builder)


class LSTM(Layer):
    """A state and a memory with gates: what to forget, what to take in, what to show (long short-term memory).

    With gates i, f, o = sigmoid(x_t W + h_{t-1} R + b) and a candidate g = tanh(the same), the memory is
    c_t = f c_{t-1} + i g and the state h_t = o tanh(c_t).

    Parameters
    ----------
    n_units : int
    return_sequences : bool, default=False
        Whether the output is the state of every step, (time, n_units), or of the last one, (n_units,).
    bias : bool, default=True
        That of the forget gate begins at 1, so that memories are kept at first (Jozefowicz et al. 2015).
    init, share, nonnegative, l1, l2
        As in `Dense`, for both weights: W (n_features, 4 n_units) and R (n_units, 4 n_units), columns in the order
        i, f, g, o.

    References
    ----------
    S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 1997. Forget gates: F. Gers et al. 2000.

    Examples
    --------
    >>> from sparseshare.network import LSTM
    >>> LSTM(64, return_sequences=True)
    LSTM(n_units=64, return_sequences=True)
    """

    def __init__(
        self,
        n_units,
        *,
        return_sequences=False,
        bias=True,
        init="glorot",
        share=None,
        nonnegative=False,
        l1=0.0,
        l2=0.0,
    ):
        self.n_units = n_units
        self.return_sequences = return_sequences
        self.bias = bias
        self.init = init
        self.share = share
        self.nonnegative = nonnegative
        self.l1 = l1
        self.l2 = l2

    def connect(self, input_shape, builder):
        """See `Layer`."""
        n_units = _check_recurrent(self, input_shape)
        return _LSTMNode(self, input_shape, n_units, builder)


def _check_recurrent(layer, input_shape):
    owner = type(layer).__name__
    n_units = check_number("n_units", layer.n_units, 1, integer=True, of=owner)
    check_bool("return_sequences", layer.return_sequences, of=owner)
    check_layer(layer)
    if len(input_shape) != 2:
        raise ValueError(f"{layer!r} takes sequences (time, features), got samples of shape {tuple(input_shape)}")
    return n_units


class _StepsNode(Node):
    """What nodes share that go through time: arrays with time first, so that every step is one run of memory."""

    def __init__(self, layer, input_shape, n_units, n_columns, builder):
        n_steps, n_features = input_shape
        super().__init__(layer, (n_steps, n_units) if layer.return_sequences else (n_units,))
        self.n_units, self.n_threads = n_units, builder.n_threads
        self.weights = builder.weights(layer, (n_features, n_columns), n_features, n_units)
        self.recurrent = builder.weights(layer, (n_units, n_columns), n_units, n_units, place=1)
        self.bias = builder.bias(layer, n_columns)
        self.parameters = {"weights": self.weights, "recurrent_weights": self.recurrent}
        if self.bias is not None:
            self.parameters["bias"] = self.bias

    def _inputs(self, x):
        """Inputs step by step, (time, n, features), and their products with the weights."""
        steps = np.ascontiguousarray(x.transpose(1, 0, 2))
        z = product(steps.reshape(-1, steps.shape[2]), self.weights.full(), self.n_threads)
        return steps, z.reshape(*steps.shape[:2], z.shape[1])

    def _output(self, states):
        if self.layer.return_sequences:
            return np.ascontiguousarray(states.transpose(1, 0, 2))
        return states[-1].copy()

    def _output_gradients(self, dy, n_steps):
        """Gradient by the states, step by step, as far as it comes from the output."""
        if self.layer.return_sequences:
            return np.ascontiguousarray(dy.transpose(1, 0, 2))
        gradients = np.zeros((n_steps, *dy.shape), dy.dtype)
        gradients[-1] = dy
        return gradients

    def _finish(self, steps, states, dz):
        """Gradients by the parameters and the input from that by what the steps add up."""
        n_steps, n, n_columns = dz.shape
        rows = dz.reshape(-1, n_columns)
        self.weights.add_gradient(transposed_product(steps.reshape(n_steps * n, steps.shape[2]), rows, self.n_threads))
        before = states[:-1].reshape(-1, self.n_units)
        self.recurrent.add_gradient(transposed_product(before, rows[n:], self.n_threads))
        if self.bias is not None:
            self.bias.add_gradient(rows.sum(axis=0))
        if not self.input_gradient:
            return None
        dx = product(rows, self.weights.full().T, self.n_threads).reshape(steps.shape)
        return np.ascontiguousarray(dx.transpose(1, 0, 2))


class _RecurrentNode(_StepsNode):
    def __init__(self, layer, input_shape, n_units, builder):
        super().__init__(layer, input_shape, n_units, n_units, builder)
        self.activation = activation_of(layer, (n_units,), builder, self.parameters)

    def forward(self, x, training=False, random_state=None):
        activation, recurrent = self.activation, self.recurrent.full()
        bias = None if self.bias is None else self.bias.full()
        steps, states = self._inputs(x)
        count, tracked = 0, {}
        activation.begin()
        with single_threaded_blas:
            for t, z in enumerate(states):
                if t:
                    z += product(states[t - 1], recurrent, self.n_threads)
                count += activation.apply(z, bias, tracked if training else None, t)
        activation.finish(count, states.size, tracked)
        return self._output(states), (steps, states)

    def backward(self, dy, cache):
        steps, states = cache
        activation, back = self.activation, self.recurrent.full().T
        dz = self._output_gradients(dy, len(states))
        sums = np.zeros(self.n_units, dz.dtype)
        threshold_sums = np.zeros(self.n_units if activation.learned else 0, dz.dtype)
        with single_threaded_blas:
            for t in range(len(states) - 1, -1, -1):
                if t + 1 < len(states):
                    dz[t] += product(dz[t + 1], back, self.n_threads)
                # A copy: in place the compiled loop cannot work on whole vectors.
                activation.differentiate(dz[t].copy(), states[t], dz[t], sums, threshold_sums)
        activation.add_threshold_gradient(threshold_sums)
        return self._finish(steps, states, dz)


class _LSTMNode(_StepsNode):
    def __init__(self, layer, input_shape, n_units, builder):
        super().__init__(layer, input_shape, n_units, 4 * n_units, builder)
        if self.bias is not None:
            self.bias.values[n_units : 2 * n_units] = 1
            self.bias.changed()

    def forward(self, x, training=False, random_state=None):
        recurrent, n_units = self.recurrent.full(), self.n_units
        steps, gates = self._inputs(x)
        if self.bias is not None:
            gates += self.bias.full()
        memories = np.zeros((*gates.shape[:2], n_units), gates.dtype)
        shown, states = np.empty_like(memories), np.empty_like(memories)
        with single_threaded_blas:
            for t, z in enumerate(gates):
                if t:
                    z += product(states[t - 1], recurrent, self.n_threads)
                i, f, g, o = (z[:, k * n_units : (k + 1) * n_units] for k in range(4))
                for gate in (z[:, : 2 * n_units], o):
                    _sigmoid(gate)
                np.tanh(g, out=g)
                np.multiply(i, g, out=memories[t])
                if t:
                    memories[t] += f * memories[t - 1]
                np.tanh(memories[t], out=shown[t])
                np.multiply(o, shown[t], out=states[t])
        return self._output(states), (steps, gates, memories, shown, states)

    def backward(self, dy, cache):
        steps, gates, memories, shown, states = cache
        n_units, back = self.n_units, self.recurrent.full().T
        dh = self._output_gradients(dy, len(states))
        dz, dc = np.empty_like(gates), np.zeros_like(memories[0])
        with single_threaded_blas:
            for t in range(len(states) - 1, -1, -1):
                if t + 1 < len(states):
                    dh[t] += product(dz[t + 1], back, self.n_threads)
                i, f, g, o = (gates[t][:, k * n_units : (k + 1) * n_units] for k in range(4))
                di, df, dg, do = (dz[t][:, k * n_units : (k + 1) * n_units] for k in range(4))
                dc += dh[t] * o * (1 - shown[t] ** 2)
                np.multiply(dh[t] * shown[t], o * (1 - o), out=do)
                np.multiply(dc * g, i * (1 - i), out=di)
                np.multiply(dc * i, 1 - g**2, out=dg)
                if t:
                    np.multiply(dc * memories[t - 1], f * (1 - f), out=df)
                else:
                    df[...] = 0
                dc *= f
        return self._finish(steps, states, dz)


def _sigmoid(z):
    """1 / (1 + exp(-z)) in place; by tanh nothing overflows."""
    z *= 0.5
    np.tanh(z, out=z)
    z *= 0.5
    z += 0.5
