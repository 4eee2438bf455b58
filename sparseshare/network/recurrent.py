"""Layers that go through time with the same weights at every step: `Recurrent` and `LSTM`."""

import numpy as np

from sparseshare.devices import array_module, device_of
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.validation import check_bool, check_number

from .blocks import in_blocks, product, row_blocks
from .layers import Layer, Node, check_layer
from .thresholds import activation_of

_COLUMNS = 256  # of a product over all samples and steps that a thread takes at a time


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
        self.n_steps, self.n_units, self.n_threads = n_steps, n_units, builder.n_threads
        self.weights = builder.weights(layer, (n_features, n_columns), n_features, n_units)
        self.recurrent = builder.weights(layer, (n_units, n_columns), n_units, n_units, place=1)
        self.bias = builder.bias(layer, n_columns)
        self.parameters = {"weights": self.weights, "recurrent_weights": self.recurrent}
        if self.bias is not None:
            self.parameters["bias"] = self.bias

    def numbers_a_sample(self):
        """See `Node`."""
        n_features, n_columns = self.weights.shape
        return self.n_steps * (n_features + 1 + 2 * self.n_units + 2 * n_columns)

    def _begin(self, x, scale=1):
        """What the steps see, (time + 1, n, features + 1 + units), and all weights, with the bias, below each other.

        Beside its input a step sees a 1, if there is a bias, and the state before: one product does for all, and one
        for all their gradients. States are filled in step by step, those after the last step too.
        """
        n, n_steps, n_features = x.shape
        xp = array_module(x)
        weights = [self.weights.full(), self.recurrent.full()]
        if self.bias is not None:
            weights.insert(1, self.bias.full()[None])
        weights = xp.concatenate(weights) * scale
        seen = xp.empty((n_steps + 1, n, len(weights)), x.dtype)
        seen[:-1, :, :n_features] = x.transpose(1, 0, 2)
        seen[:-1, :, n_features : -self.n_units] = 1
        seen[0, :, -self.n_units :] = 0
        return seen, weights

    def _blocks(self, x):
        """Samples that go through all steps together: on a GPU all of them."""
        return row_blocks(len(x)) if device_of(x) == "cpu" else [slice(None)]

    def _in_blocks(self, x, work):
        """Call `work(block, number of the block)`, on the CPU in any thread."""
        blocks = self._blocks(x)
        in_blocks(lambda i, _: work(blocks[i], i), blocks, self.n_threads, device_of(x))

    def _output(self, seen):
        states = seen[1:, :, -self.n_units :]
        return array_module(seen).array(
            states.transpose(1, 0, 2) if self.layer.return_sequences else states[-1], order="C"
        )

    def _by_state(self, dy, dz, back, t, block, dh):
        """Write into `dh` the gradient by the state of a step: from the output and from the step after."""
        last = t + 1 == len(dz)
        if not last:
            _product(dz[t + 1, block], back, dh)
        if self.layer.return_sequences and last:
            dh[...] = dy[block, t]
        elif self.layer.return_sequences:
            dh += dy[block, t]
        elif last:
            dh[...] = dy[block]

    def _finish(self, seen, dz):
        """Gradients by the parameters and the input from that by what the steps add up."""
        n_steps, n, n_columns = dz.shape
        rows, n_features = dz.reshape(-1, n_columns), self.weights.shape[0]
        met = seen[:-1].reshape(len(rows), seen.shape[2])
        if device_of(dz) == "cpu":
            gradient = np.empty((met.shape[1], n_columns), dz.dtype)
            width = _COLUMNS if n_columns > _COLUMNS else _COLUMNS // 4  # so that all threads get some
            parts = [slice(start, start + width) for start in range(0, n_columns, width)]
            in_blocks(
                lambda i, _: np.matmul(met.T, rows[:, parts[i]], out=gradient[:, parts[i]]),
                parts,
                self.n_threads,
                "cpu",
            )
        else:
            gradient = met.T.dot(rows)
        self.weights.add_gradient(gradient[:n_features])
        self.recurrent.add_gradient(gradient[-self.n_units :])
        if self.bias is not None:
            self.bias.add_gradient(gradient[n_features])
        if not self.input_gradient:
            return None
        dx = product(rows, self.weights.full().T, self.n_threads).reshape(n_steps, n, n_features)
        return array_module(dx).ascontiguousarray(dx.transpose(1, 0, 2))


def _product(a, b, out):
    """a @ b into an array: of a GPU by the short way, without the generality of matmul."""
    if device_of(a) == "cpu":
        np.matmul(a, b, out=out)
    else:
        a.dot(b, out=out)


class _RecurrentNode(_StepsNode):
    def __init__(self, layer, input_shape, n_units, builder):
        super().__init__(layer, input_shape, n_units, n_units, builder)
        self.activation = activation_of(layer, (n_units,), builder, self.parameters)

    def forward(self, x, training=False, random_state=None):
        activation = self.activation
        seen, weights = self._begin(x)
        states = array_module(x).empty((x.shape[1], len(x), self.n_units), x.dtype)
        n_blocks = len(self._blocks(x))
        counts, tracked = [0] * (n_blocks * len(states)), {}
        activation.begin()

        def work(block, i):
            for t in range(len(states)):
                z, number = states[t, block], t * n_blocks + i
                _product(seen[t, block], weights, z)
                counts[number] = activation.apply(z, None, tracked if training else None, number)
                seen[t + 1, block, -self.n_units :] = z

        self._in_blocks(x, work)
        activation.finish(counts, states.size, tracked)
        return self._output(seen), (seen, states)

    def backward(self, dy, cache):
        seen, states = cache
        xp, activation = array_module(dy), self.activation
        back, dz = xp.ascontiguousarray(self.recurrent.full().T), xp.empty_like(states)
        if xp is not np:
            dh = xp.empty_like(states[0])
            for t in range(len(states) - 1, -1, -1):
                self._by_state(dy, dz, back, t, slice(None), dh)
                dz[t] = activation.backward_there(dh, states[t], None)
            return self._finish(seen, dz)
        n_blocks = len(self._blocks(dy))
        sums = np.zeros((n_blocks, self.n_units), dz.dtype)
        threshold_sums = np.zeros((n_blocks, self.n_units if activation.learned else 0), dz.dtype)

        def work(block, i):
            dh = np.empty_like(states[0, block])
            for t in range(len(states) - 1, -1, -1):
                self._by_state(dy, dz, back, t, block, dh)
                activation.differentiate(dh, states[t, block], dz[t, block], sums[i], threshold_sums[i])

        self._in_blocks(dy, work)
        activation.add_threshold_gradient(threshold_sums.sum(axis=0))
        return self._finish(seen, dz)


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
        seen, weights = self._begin(x, self._scale)
        n_units, first = self.n_units, len(weights) - self.n_units
        shape, xp = (x.shape[1], len(x), n_units), array_module(x)
        gates = xp.empty((*shape[:2], 4 * n_units), x.dtype)
        memories, shown = xp.empty(shape, x.dtype), xp.empty(shape, x.dtype)
        lstm_step = kernels_for(device_of(x), "recurrent").lstm_step

        def work(block, i):
            before = xp.zeros_like(memories[0, block])
            for t in range(len(gates)):
                z, memory = gates[t, block], memories[t, block]
                _product(seen[t, block], weights, z)
                lstm_step(z, before, memory, shown[t, block], seen[t + 1, block], first)
                before = memory

        self._in_blocks(x, work)
        return self._output(seen), (seen, gates, memories, shown)

    def backward(self, dy, cache):
        seen, gates, memories, shown = cache
        xp = array_module(dy)
        back = xp.ascontiguousarray(self.recurrent.full().T)
        dz = xp.empty_like(gates)
        lstm_gradient = kernels_for(device_of(dy), "recurrent").lstm_gradient

        def work(block, i):
            dh, dc, none = xp.empty_like(shown[0, block]), *(xp.zeros_like(shown[0, block]) for _ in range(2))
            for t in range(len(shown) - 1, -1, -1):
                self._by_state(dy, dz, back, t, block, dh)
                before = memories[t - 1, block] if t else none
                lstm_gradient(dh, gates[t, block], before, shown[t, block], dc, dz[t, block])

        self._in_blocks(dy, work)
        return self._finish(seen, dz)
