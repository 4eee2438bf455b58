"""What a layer is, and the layers that know no positions: `Dense`, `Flatten`, `Dropout`.

A layer as the user writes it holds parameters of its own only; `connect` makes of it, for an input shape, a node that
computes. So one list of layers serves many fits, can be cloned, printed and searched over.
"""

from abc import ABC, abstractmethod
from math import prod

import numpy as np
from sklearn.base import BaseEstimator

from sparseshare.devices import array_module, device_of
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.validation import check_bool, check_number

from .blocks import SparseWeights, in_blocks, product, row_blocks, transposed_product
from .parameters import Parameter, initial
from .thresholds import activation_of

_SPARSE_BELOW = 0.12  # density of the input under which skipping its zeros beats a dense product


class Layer(BaseEstimator, ABC):
    """Base of all layers."""

    @abstractmethod
    def connect(self, input_shape, builder):
        """Make the node that computes this layer.

        Parameters
        ----------
        input_shape : tuple of int
            Of one sample.
        builder : Builder

        Returns
        -------
        Node

        Raises
        ------
        ValueError
            If the layer cannot take such samples, or for parameters that are wrong.
        """


class Node(ABC):
    """A layer connected to its input.

    Attributes
    ----------
    layer : Layer
    output_shape : tuple of int
        Of one sample.
    parameters : dict of str to Parameter
    activation : Activation or None
        What follows the linear part; it measures its own density.
    input_gradient : bool
        Whether `backward` is asked for the gradient by the input. The first node of a network may be told that it is
        not: then it returns None where that saves work.
    """

    parameters = {}
    activation = None
    input_gradient = True
    _stays_on_host = ("layer",)  # as the user has written it

    def __init__(self, layer, output_shape):
        self.layer, self.output_shape = layer, tuple(output_shape)

    def numbers_a_sample(self):
        """About how many numbers `forward` makes of one sample, its output among them."""
        return 2 * prod(self.output_shape)

    @abstractmethod
    def forward(self, x, training=False, random_state=None):
        """Output for a batch, and what `backward` needs.

        Parameters
        ----------
        x : ndarray of shape (n_samples, *input_shape)
        training : bool, default=False
        random_state : numpy.random.RandomState or None, default=None
            For dropout.

        Returns
        -------
        y : ndarray of shape (n_samples, *output_shape)
        cache : object
        """

    @abstractmethod
    def backward(self, dy, cache):
        """Gradient by the input; the parameters add theirs.

        Parameters
        ----------
        dy : ndarray of shape (n_samples, *output_shape)
        cache : object

        Returns
        -------
        ndarray of shape (n_samples, *input_shape), or None without `input_gradient`
        """


class Builder:
    """Gives nodes their parameters: the one place where they are made, shared and tied.

    Parameters
    ----------
    dtype : dtype
    random_state : numpy.random.RandomState
    activation, threshold, density : default="relu", None and None
        For layers that leave them open, see `activation_of`.
    n_threads : int, default=1
        For the nodes. Their results do not depend on it.
    """

    def __init__(self, dtype, random_state, *, activation="relu", threshold=None, density=None, n_threads=1):
        self.dtype, self.random_state = np.dtype(dtype), random_state
        self.activation, self.threshold, self.density = activation, threshold, density
        self.n_threads = n_threads
        self.tied = {}
        self._place = 0

    def place(self, layer, kind):
        """Which of the weights (or biases) of the layer being connected is asked for: 0 the first.

        Parameters
        ----------
        layer : Layer
        kind : {"weights", "bias"}

        Returns
        -------
        int
        """
        return self._place if kind == "weights" else 0

    def weights(self, layer, shape, fan_in=None, fan_out=None, place=0):
        """A weight array for a layer, by its `share`, `init`, `nonnegative`, `l1`, `l2`.

        Parameters
        ----------
        layer : Layer
        shape : tuple of int
            (n_in, n_out) or more axes, n_out last.
        fan_in, fan_out : int or None, default=None
            For `initial`.
        place : int, default=0
            Of a layer with several weights: which of them, so that ties join first with first.

        Returns
        -------
        Parameter
        """
        self._place = place
        first = initial(layer.init, shape, self.random_state, self.dtype, fan_in, fan_out)
        if layer.nonnegative:
            np.abs(first, out=first)
        options = {"nonnegative": layer.nonnegative, "l1": layer.l1, "l2": layer.l2}
        if layer.share is None:
            return Parameter(first, **options)
        return layer.share.parameter(first, layer, self, options)

    def bias(self, layer, n_out):
        """Zeros, or None for a layer without a bias; of tied layers the same one."""
        if not layer.bias:
            return None
        if layer.share is None:
            return Parameter(np.zeros(n_out, self.dtype))
        return layer.share.bias(n_out, layer, self)


def check_layer(layer):
    """Check the parameters that layers with weights have in common."""
    owner = type(layer).__name__
    check_bool("bias", layer.bias, of=owner)
    check_bool("nonnegative", layer.nonnegative, of=owner)
    check_number("l1", layer.l1, 0, of=owner)
    check_number("l2", layer.l2, 0, of=owner)
    if layer.share is not None and (isinstance(layer.share, type) or not hasattr(layer.share, "parameter")):
        raise ValueError(
            f"The 'share' parameter of {owner} must be a sharing rule of sparseshare.network or None, "
            f"got {layer.share!r}"
        )


class Dense(Layer):
    """Every unit sees all of its input: y = activation(x W + b).

    On sequences and images it works on the last axis, the same weights everywhere.

    Parameters
    ----------
    n_units : int
    activation : {"relu", "soft", "soft_nonnegative", "hard", "topk", "tanh", "linear"} or None, default=None
        None takes that of the estimator.
    threshold : float, array of shape (n_units,), "learned", "per_unit" or None, default=None
        Of the activations "soft", "soft_nonnegative" and "hard": fixed for all units or one a unit; learned with the
        weights (not of "hard"); or found for every unit by its density. None, with `density` None too, takes that of
        the estimator.
    density : float or None, default=None
        Share of non-zero activations that training moves the thresholds to; of "topk" the share it keeps. None, with
        `threshold` None too, takes that of the estimator.
    bias : bool, default=True
    init : {"glorot", "he", "uniform"}, default="glorot"
    share : sharing rule or None, default=None
        How weights share values, see `sparseshare.network.sharing`.
    nonnegative : bool, default=False
        Weights >= 0.
    l1, l2 : float, default=0.0
        Penalties on the weights.

    Examples
    --------
    >>> from sparseshare.network import Dense
    >>> Dense(128, activation="hard", threshold=0.5)
    Dense(activation='hard', n_units=128, threshold=0.5)
    """

    def __init__(
        self,
        n_units,
        *,
        activation=None,
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
        n_units = check_number("n_units", self.n_units, 1, integer=True, of="Dense")
        check_layer(self)
        if not input_shape:
            raise ValueError(f"{self!r} takes samples of at least one axis, got the shape ()")
        return _DenseNode(self, (*input_shape[:-1], n_units), input_shape[-1], builder)


class _DenseNode(Node):
    def __init__(self, layer, output_shape, n_in, builder):
        super().__init__(layer, output_shape)
        self.n_threads = builder.n_threads
        self.weights = builder.weights(layer, (n_in, output_shape[-1]))
        self.bias = builder.bias(layer, output_shape[-1])
        self.parameters = {"weights": self.weights}
        if self.bias is not None:
            self.parameters["bias"] = self.bias
        self.activation = activation_of(layer, output_shape, builder, self.parameters)

    def forward(self, x, training=False, random_state=None):
        device, xp = device_of(x), array_module(x)
        x = xp.ascontiguousarray(x)
        rows, positions = x.reshape(-1, x.shape[-1]), prod(x.shape[1:-1])
        bias = None if self.bias is None else self.bias.full()
        # Shared weights need not be spelled out to be multiplied by; making them anew costs as much as many rows.
        spelled = training or not self.weights.shared
        weights = self.weights.full() if spelled else None
        sparse = SparseWeights(weights, _SPARSE_BELOW) if spelled and not training and device == "cpu" else None
        if spelled and device == "cpu":
            z = np.empty((len(rows), self.output_shape[-1]), x.dtype)
        else:
            z = self.weights.product(rows, self.n_threads)
        y = z.reshape(*x.shape[:-1], self.output_shape[-1])
        blocks = row_blocks(len(x), positions) if device == "cpu" else [slice(0, len(x))]
        counts, tracked, activation = [0] * len(blocks), {}, self.activation
        activation.begin()

        def work(i, worker):
            block = blocks[i]
            part = slice(block.start * positions, block.stop * positions)
            if sparse is not None and sparse.pays(rows[part]):
                kernels_for("cpu", "sparse_products").sparse_product(rows[part], sparse.padded, z[part])
            elif spelled and device == "cpu":
                np.matmul(rows[part], weights, out=z[part])
            counts[i] = activation.apply(y[block], bias, tracked if training else None, i)

        in_blocks(work, blocks, self.n_threads, device)
        activation.finish(counts, z.size, tracked)
        return y, (rows, y)

    def backward(self, dy, cache):
        rows, y = cache
        n_out = self.output_shape[-1]
        if device_of(dy) == "cpu":
            sums = None if self.bias is None else np.zeros(n_out, y.dtype)
            dz = self.activation.backward(dy, y, sums).reshape(len(rows), n_out)
            if self.bias is not None:
                self.bias.add_gradient(sums)
        else:
            dz = self.activation.backward_there(dy, y, self.bias)
        self.weights.add_gradient(transposed_product(rows, dz, self.n_threads))
        if not self.input_gradient:
            return None
        return product(dz, self.weights.full().T, self.n_threads).reshape(*dy.shape[:-1], rows.shape[1])


class Flatten(Layer):
    """Lay out all axes of a sample in one.

    Examples
    --------
    >>> from sparseshare.network import Flatten
    >>> Flatten()
    Flatten()
    """

    def connect(self, input_shape, builder):
        """See `Layer`."""
        return _FlattenNode(self, (prod(input_shape),))


class _FlattenNode(Node):
    def forward(self, x, training=False, random_state=None):
        return x.reshape(len(x), -1), x.shape

    def backward(self, dy, cache):
        return dy.reshape(cache)


class Dropout(Layer):
    """Set a share of the activations to 0 while training, and scale up the others.

    Parameters
    ----------
    rate : float
        The share, below 1.

    Examples
    --------
    >>> from sparseshare.network import Dropout
    >>> Dropout(0.25)
    Dropout(rate=0.25)

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014.
    """

    def __init__(self, rate):
        self.rate = rate

    def connect(self, input_shape, builder):
        """See `Layer`."""
        rate = check_number("rate", self.rate, 0, of="Dropout")
        if rate >= 1:
            raise ValueError(f"The 'rate' parameter of Dropout must be a number of at least 0 and below 1, got {rate}")
        return _DropoutNode(self, input_shape)


class _DropoutNode(Node):
    def forward(self, x, training=False, random_state=None):
        if not training or self.layer.rate == 0:
            return x, None
        seed = int(random_state.randint(2**32, dtype=np.uint32))  # all that is drawn: the same zeros on every device
        return self._dropped(x, seed), seed

    def backward(self, dy, cache):
        return dy if cache is None else self._dropped(dy, cache)

    def _dropped(self, x, seed):
        rate, xp = self.layer.rate, array_module(x)
        x = xp.ascontiguousarray(x)
        out = xp.empty_like(x)
        scale = x.dtype.type(1 / (1 - rate))
        drop = kernels_for(device_of(x), "dropout").drop
        drop(x.reshape(-1), seed, int(rate * 2**32), scale, out.reshape(-1))
        return out
