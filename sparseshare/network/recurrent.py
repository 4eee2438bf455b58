"""Layers that go through time with the same weights at every step: `Recurrent` and `LSTM`."""

import numpy as np

from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, single_threaded_blas
from sparseshare.validation import check_bool, check_number

from .blocks import product, row_blocks, transposed_product
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
    threshold, density : default=None
        As in `Dense`, and so are all that follow, for both weights: W (n_features, n_units) and R (n_units, n_units).
    bias : bool, default=True
    init : {"glorot", "he", "uniform"}, default="glorot"
    share : sharing rule or None, default=None
    nonnegative : bool, default=False
    l1, l2 : float, default=0.0

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
    init : {"glorot", "he", "uniform"}, default="glorot"
        As in `Dense`, and so are all that follow, for both weights: W (n_features, 4 n_units) and R (n_units,
        4 n_units), columns in the order i, f, g, o.
    share : sharing rule or None, default=None
    nonnegative : bool, default=False
    l1, l2 : float, default=0.0

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

    def _inputs(self, x, scale=None):
        """Inputs step by step, (time, n, features), and their products with the weights, the bias added.

        With a bias they have one more feature, which is 1: so the bias and its gradient come with those of the weights.
        """
        n, n_steps, n_features = x.shape
        weights = self.weights.full()
        steps = np.empty((n_steps, n, n_features + (self.bias is not None)), x.dtype)
        steps[:, :, :n_features] = x.transpose(1, 0, 2)
        if self.bias is not None:
            steps[:, :, n_features] = 1
            weights = np.vstack([weights, self.bias.full()])
        if scale is not None:
            weights = weights * scale
        z = product(steps.reshape(n_steps * n, steps.shape[2]), weights, self.n_threads)
        return steps, z.reshape(n_steps, n, z.shape[1])

    def _in_blocks(self, n_samples, work):
        """Call `work(block, number of the block)` for samples that go through all steps together, in any thread."""
        blocks = row_blocks(n_samples)
        with single_threaded_blas:
            run_in_threads(lambda i, _: work(blocks[i], i), len(blocks), self.n_threads)

    def _output(self, states):
        if self.layer.return_sequences:
            return np.ascontiguousarray(states.transpose(1, 0, 2))
        return states[-1].copy()

    def _by_state(self, dy, dz, back, t, block, dh):
        """Write into `dh` the gradient by the state of a step: from the output and from the step after."""
        last = t + 1 == len(dz)
        if not last:
            np.matmul(dz[t + 1, block], back, out=dh)
        if self.layer.return_sequences:
            np.add(0 if last else dh, dy[block, t], out=dh)
        elif last:
            dh[...] = dy[block]

    def _finish(self, steps, states, dz):
        """Gradients by the parameters and the input from that by what the steps add up."""
        n_steps, n, n_columns = dz.shape
        rows, n_features = dz.reshape(-1, n_columns), self.weights.shape[0]
        # Turned around, since blocks are taken of the side that has more columns.
        gradient = transposed_product(rows, steps.reshape(n_steps * n, steps.shape[2]), self.n_threads).T
        self.weights.add_gradient(gradient[:n_features])
        if self.bias is not None:
            self.bias.add_gradient(gradient[n_features])
        before = states[:-1].reshape(-1, self.n_units)
        self.recurrent.add_gradient(transposed_product(before, rows[n:], self.n_threads))
        if not self.input_gradient:
            return None
        dx = product(rows, self.weights.full().T, self.n_threads).reshape(n_steps, n, n_features)
        return np.ascontiguousarray(dx.transpose(1, 0, 2))


class _RecurrentNode(_StepsNode):
    def __init__(self, layer, input_shape, n_units, builder):
        super().__init__(layer, input_shape, n_units, n_units, builder)
        self.activation = activation_of(layer, (n_units,), builder, self.parameters)

    def forward(self, x, training=False, random_state=None):
        activation, recurrent = self.activation, self.recurrent.full()
        steps, states = self._inputs(x)
        n_blocks = len(row_blocks(len(x)))
        counts, tracked = np.zeros(n_blocks, np.int64), {}
        activation.begin()

        def work(block, i):
            carried = np.empty_like(states[0, block])
            for t in range(len(states)):
                z = states[t, block]
                if t:
                    z += np.matmul(states[t - 1, block], recurrent, out=carried)
                counts[i] += activation.apply(z, None, tracked if training else None, t * n_blocks + i)

        self._in_blocks(len(x), work)
        activation.finish(counts.sum(), states.size, tracked)
        return self._output(states), (steps, states)

    def backward(self, dy, cache):
        steps, states = cache
        activation, back = self.activation, np.ascontiguousarray(self.recurrent.full().T)
        n_blocks = len(row_blocks(len(dy)))
        dz = np.empty_like(states)
        sums = np.zeros((n_blocks, self.n_units), dz.dtype)
        threshold_sums = np.zeros((n_blocks, self.n_units if activation.learned else 0), dz.dtype)

        def work(block, i):
            dh = np.empty_like(states[0, block])
            for t in range(len(states) - 1, -1, -1):
                self._by_state(dy, dz, back, t, block, dh)
                activation.differentiate(dh, states[t, block], dz[t, block], sums[i], threshold_sums[i])

        self._in_blocks(len(dy), work)
        activation.add_threshold_gradient(threshold_sums.sum(axis=0))
        return self._finish(steps, states, dz)


class _LSTMNode(_StepsNode):
    def __init__(self, layer, input_shape, n_units, builder):
        super().__init__(layer, input_shape, n_units, 4 * n_units, builder)
        if self.bias is not None:
            self.bias.values[n_units : 2 * n_units] = 1
            self.bias.changed()
        # i, f and o are sigmoid(z) = (1 + tanh(z / 2)) / 2: with their weights halved, one tanh does for all gates.
        self._scale = np.full(4 * n_units, 0.5, builder.dtype)
        self._scale[2 * n_units : 3 * n_units] = 1

    def forward(self, x, training=False, random_state=None):
        recurrent, n_units = self.recurrent.full() * self._scale, self.n_units
        steps, gates = self._inputs(x, self._scale)
        memories, shown, states = (np.empty((*gates.shape[:2], n_units), gates.dtype) for _ in range(3))
        lstm_memory = kernels_for("cpu", "recurrent").lstm_memory

        def work(block, i):
            carried, none = np.empty_like(gates[0, block]), np.zeros_like(states[0, block])
            for t in range(len(gates)):
                z, memory = gates[t, block], memories[t, block]
                if t:
                    z += np.matmul(states[t - 1, block], recurrent, out=carried)
                np.tanh(z, out=z)
                lstm_memory(z, memories[t - 1, block] if t else none, memory)
                np.tanh(memory, out=shown[t, block])
                np.multiply(z[:, 3 * n_units :], shown[t, block], out=states[t, block])

        self._in_blocks(len(x), work)
        return self._output(states), (steps, gates, memories, shown, states)

    def backward(self, dy, cache):
        steps, gates, memories, shown, states = cache
        back = np.ascontiguousarray(self.recurrent.full().T)
        dz = np.empty_like(gates)
        lstm_gradient = kernels_for("cpu", "recurrent").lstm_gradient

        def work(block, i):
            dh, dc, none = np.empty_like(states[0, block]), *(np.zeros_like(states[0, block]) for _ in range(2))
            for t in range(len(states) - 1, -1, -1):
                self._by_state(dy, dz, back, t, block, dh)
                before = memories[t - 1, block] if t else none
                lstm_gradient(dh, gates[t, block], before, shown[t, block], dc, dz[t, block])

        self._in_blocks(len(dy), work)
        return self._finish(steps, states, dz)
