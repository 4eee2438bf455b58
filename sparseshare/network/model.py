"""Layers connected one after the other."""

from contextlib import nullcontext
from math import prod

import numpy as np

from sparseshare.devices import array_module, device_of, moved
from sparseshare.threads import single_threaded_blas

from .layers import Builder, Layer
from .pooled_convolution import PooledConv, joined
from .sharing import one_line


class Network:
    """A chain of layers with weights, ready to compute and to learn.

    Parameters
    ----------
    layers : sequence of Layer
    input_shape : tuple of int
        Of one sample.
    dtype : dtype, default="float64"
    random_state : RandomState or int, default=0
        For first weights.
    activation : str, default="relu"
        Of layers that leave it open, as are the next two.
    threshold : float, "learned", "per_unit" or None, default=None
    density : float or None, default=None
    n_threads : int, default=1

    Attributes
    ----------
    nodes : list of Node
    input_shapes : list of tuple
        Of one sample, what each node takes.
    output_shape : tuple
    parameters : list of Parameter
        Each once, tied ones too.
    densities : list of float or None
        Share of non-zero activations behind each node, NaN for nodes without activations; None before
        `measure_densities`.
    input_densities : list of float or None
        Of what each node takes.

    Raises
    ------
    ValueError
        For layers that do not fit together; the message names both and their shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network import Dense, Flatten
    >>> from sparseshare.network.model import Network
    >>> network = Network([Flatten(), Dense(10)], (4, 5))
    >>> network.output(np.zeros((3, 4, 5))).shape
    (3, 10)
    """

    densities = input_densities = None

    def __init__(
        self,
        layers,
        input_shape,
        dtype="float64",
        random_state=0,
        *,
        activation="relu",
        threshold=None,
        density=None,
        n_threads=1,
    ):
        if not isinstance(random_state, np.random.RandomState):
            random_state = np.random.RandomState(random_state)
        self._dtype = np.dtype(dtype).name  # its name, which every format of files can hold
        builder = Builder(
            self.dtype,
            random_state,
            activation=activation,
            threshold=threshold,
            density=density,
            n_threads=n_threads,
        )
        self.nodes, self.input_shapes = [], []
        shape = tuple(int(length) for length in input_shape)
        for number, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise ValueError(
                    f"The 'layers' parameter must be a list of layers of sparseshare.network, its entry {number} is "
                    f"{layer!r}"
                )
            try:
                node = layer.connect(shape, builder)
            except ValueError as reason:
                before = (
                    f"layer {number - 1}, {one_line(layers[number - 1])}, whose output" if number else "an input that"
                )
                raise ValueError(
                    f"layer {number}, {one_line(layer)}, after {before} has the shape {shape}: {reason}"
                ) from reason
            self.nodes.append(node)
            self.input_shapes.append(shape)
            shape = node.output_shape
        self.output_shape = shape
        self._skip_input_gradients()

    def _skip_input_gradients(self):
        """Nobody wants the gradient by the data: it ends at the first node that learns."""
        self._first = next((number for number, node in enumerate(self.nodes) if node.parameters), len(self.nodes))
        if self._first < len(self.nodes):
            self.nodes[self._first].input_gradient = False

    @property
    def dtype(self):
        """Of the weights."""
        return np.dtype(self._dtype)

    @property
    def parameters(self):
        """Parameters of all nodes, each once."""
        unique = {id(parameter): parameter for node in self.nodes for parameter in node.parameters.values()}
        return list(unique.values())

    def named_parameters(self):
        """(number of the node, name, parameter) of all parameters, each where it appears first."""
        seen = set()
        for number, node in enumerate(self.nodes):
            for name, parameter in node.parameters.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield number, name, parameter

    def weights(self):
        """Parameters that penalties and compression are for: neither biases nor thresholds nor step sizes."""
        return [
            parameter
            for _, name, parameter in self.named_parameters()
            if not name.endswith("bias") and not name.startswith(("threshold", "step"))
        ]

    def forward(self, x, training=False, random_state=None):
        """Output for a batch, and what `backward` needs.

        Parameters
        ----------
        x : ndarray of shape (n_samples, *input_shape)
        training : bool, default=False
        random_state : RandomState or None, default=None
            For dropout.

        Returns
        -------
        y : ndarray of shape (n_samples, *output_shape)
        caches : list
        """
        caches = []
        with _blas(x):  # once, not in every node
            for step in self._steps():
                x, cache = step.forward(x, training, random_state)
                caches.append(cache)
        return x, caches

    def output(self, x, n_layers=None):
        """Output for a batch, of all layers or of the first few.

        Parameters
        ----------
        x : ndarray of shape (n_samples, *input_shape)
        n_layers : int or None, default=None

        Returns
        -------
        ndarray
        """
        with _blas(x):
            for step in joined(self.nodes[:n_layers]):
                x = step.forward(x)[0]
        return x

    def _steps(self):
        """What computes the nodes, those that learn nothing first."""
        return [*self.nodes[: self._first], *joined(self.nodes[self._first :])]

    def backward(self, dy, caches):
        """Let every parameter add up its gradient.

        Parameters
        ----------
        dy : ndarray of shape (n_samples, *output_shape)
        caches : list
            Of `forward`; emptied.
        """
        with _blas(dy):
            for step in reversed(self._steps()[self._first :]):
                dy = step.backward(dy, caches.pop())

    def reset_gradients(self):
        """Start new sums."""
        for parameter in self.parameters:
            parameter.reset_gradient()

    @property
    def device(self):
        """Where it is computed: "cpu" or "cuda:N"."""
        return self.parameters[0].device if self.parameters else "cpu"

    def bytes_a_sample(self):
        """About what a sample takes while it goes through the layers, most of it behind one of them."""
        return self.dtype.itemsize * max(
            (prod(shape) + node.numbers_a_sample() for shape, node in zip(self.input_shapes, self.nodes, strict=True)),
            default=1,
        )

    def to_device(self, device):
        """The network on a device.

        Parameters
        ----------
        device : str
            "cpu" or "cuda:N".

        Returns
        -------
        Network
            Itself, if it is there; else a copy, with what an optimizer remembers.
        """
        return moved(self, device)

    def state(self):
        """Copies of values and patterns, for `restore`."""
        return [(parameter.values.copy(), parameter.pattern) for parameter in self.parameters]

    def restore(self, state):
        """Go back to what `state` gave."""
        for parameter, (values, pattern) in zip(self.parameters, state, strict=True):
            if parameter.pattern is pattern and parameter.values.shape == values.shape:
                parameter.values[...] = values
                parameter.changed()
            else:
                parameter.set(values.copy(), pattern)

    def release(self):
        """Drop gradients, and arrays made of shared values: what is left is what the network stores."""
        for parameter in self.parameters:
            parameter.release()

    def set_threads(self, n_threads):
        """Compute with so many threads; results do not depend on it."""
        for node in self.nodes:
            for part in (node, node.activation):
                if hasattr(part, "n_threads"):
                    part.n_threads = n_threads

    def measure_densities(self, batches):
        """Shares of non-zeros over some batches, kept in `densities` and `input_densities`.

        Parameters
        ----------
        batches : iterable of ndarray of shape (n, *input_shape)
        """
        counts, sizes = np.zeros(len(self.nodes) + 1), np.zeros(len(self.nodes) + 1)
        for x in batches:
            number = 0
            for step in (*joined(self.nodes), None):
                counts[number] += int(array_module(x).count_nonzero(x))
                sizes[number] += x.size
                number += 1
                if step is None:
                    continue
                n_samples, x = len(x), step.forward(x)[0]
                if isinstance(step, PooledConv):  # what lies between the two was counted there
                    counts[number] += n_samples * step.conv.activation.measured_density
                    sizes[number] += n_samples
                    number += 1
        shares = (counts / sizes).tolist()
        self.input_densities = shares[:-1]
        self.densities = [
            np.nan if node.activation is None else share for node, share in zip(self.nodes, shares[1:], strict=True)
        ]


def _blas(x):
    """BLAS on one thread where the CPU computes."""
    return single_threaded_blas if device_of(x) == "cpu" else nullcontext()
