"""Sharing rules: which weights of a layer are one value.

A rule is written into a layer, ``Dense(128, share=hashed(1 / 8))``, or given to an estimator for all layers that have
none of their own. It is asked for the weights and the bias when the layer is connected:

    parameter(first, layer, builder, options) -> Parameter     `first`: independent first weights, an array
    bias(n_out, layer, builder) -> Parameter
"""

from abc import ABC, abstractmethod
from math import sqrt

import numpy as np
from sklearn.base import BaseEstimator

from sparseshare.validation import check_axes, check_bool, check_choice, check_number

from .codebooks import merge_values, nearest_levels
from .parameters import Parameter
from .patterns import PIECE, Circulant, Hashed, Listed, Toeplitz, positions_of


class SharingRule(BaseEstimator, ABC):
    """Base of all rules.

    Attributes
    ----------
    fits_all : bool
        Whether the rule fits weights of any shape.
    """

    fits_all = False

    @abstractmethod
    def parameter(self, first, layer, builder, options):
        """Weights of a layer.

        Parameters
        ----------
        first : ndarray
            First weights as they would be without sharing; its last axis counts the units.
        layer : Layer
        builder : Builder
        options : dict
            For `Parameter`.

        Returns
        -------
        Parameter

        Raises
        ------
        ValueError
            If the rule does not fit the shape of the weights.
        """

    def bias(self, n_out, layer, builder):
        """Bias of a layer, zeros at first, one a unit.

        Parameters
        ----------
        n_out : int
        layer : Layer
        builder : Builder

        Returns
        -------
        Parameter
        """
        return Parameter(np.zeros(n_out, builder.dtype))


class hashed(SharingRule):
    """Every weight is one of few values, with a sign of its own; which one, a hash of its place says.

    Parameters
    ----------
    n_values : int or float
        Number of values; a float below 1 is a fraction of the weights.
    seed : int, default=0
        Of the hash.
    signed : bool, default=True
        Random signs: two weights of one value then add up as often as they cancel. Non-negative weights have none.
    run : int, default=1
        A hash for so many weights beside each other, whose values lie beside each other, too: 1, as published, or a
        multiple of 16. With 64 a network predicts faster, single rows above all: there are fewer hashes, and values
        come by whole vectors. Layers with fewer units or values take shorter runs.

    References
    ----------
    W. Chen, J. Wilson, S. Tyree, K. Weinberger, Y. Chen, "Compressing neural networks with the hashing trick",
    ICML 2015, equations 3 to 5.

    Examples
    --------
    >>> from sparseshare.network import Dense, hashed
    >>> Dense(128, share=hashed(1 / 8))
    Dense(n_units=128, share=hashed(n_values=0.125))
    >>> faster = Dense(128, share=hashed(1 / 8, run=64))
    """

    fits_all = True

    def __init__(self, n_values, seed=0, signed=True, run=1):
        self.n_values = n_values
        self.seed = seed
        self.signed = signed
        self.run = run

    def parameter(self, first, layer, builder, options):
        """See `SharingRule`."""
        n_values = _count("hashed", self.n_values, first.size)
        seed = check_number("seed", self.seed, 0, 2**32 - 1, integer=True, of="hashed")
        signed = check_bool("signed", self.signed, of="hashed") and not options["nonnegative"]
        run = check_number("run", self.run, 1, integer=True, of="hashed")
        if run > 1 and run % PIECE:
            raise ValueError(f"The 'run' parameter of hashed must be 1 or a multiple of {PIECE}, got {run}")
        # A value gathers the gradients of this many weights: with random signs their sum grows with the root.
        step = 1 / sqrt(first.size / n_values)
        return Parameter(
            first.ravel()[:n_values].copy(), Hashed(first.shape, n_values, seed, signed, run), step=step, **options
        )


class clustered(SharingRule):
    """Weights are trained on their own at first, then gathered around few values by k-means, then trained together.

    Parameters
    ----------
    n_values : int
        Clusters.
    start : float, default=0.5
        When, as a share of the epochs: 0 before the first, 1 after the last, without fine-tuning.

    References
    ----------
    S. Han, H. Mao, W. Dally, "Deep compression", ICLR 2016, section 3.

    Examples
    --------
    >>> from sparseshare.network import Dense, clustered
    >>> Dense(128, share=clustered(32))
    Dense(n_units=128, share=clustered(n_values=32))
    """

    fits_all = True

    def __init__(self, n_values, start=0.5):
        self.n_values = n_values
        self.start = start

    def parameter(self, first, layer, builder, options):
        """See `SharingRule`."""
        check_number("n_values", self.n_values, 1, integer=True, of="clustered")
        _fits("clustered", self.n_values, first.size)
        check_number("start", self.start, 0, 1, of="clustered")
        parameter = Parameter(first, **options)
        parameter.pending = self
        return parameter

    def gather(self, parameter):
        """Merge the values of a parameter around their centres, now.

        Parameters
        ----------
        parameter : Parameter
        """
        parameter.pending = None
        merge_values(parameter, *nearest_levels(parameter, self.n_values, "kmeans"))


class circulant(SharingRule):
    """Every row is the one before it, moved on by one place: weight (i, j) depends on j - i alone, around the end.

    References
    ----------
    Y. Cheng et al., "An exploration of parameter redundancy in deep networks with circulant projections", ICCV 2015.

    Examples
    --------
    >>> from sparseshare.network import Dense, circulant
    >>> Dense(64, share=circulant())
    Dense(n_units=64, share=circulant())
    """

    def parameter(self, first, layer, builder, options):
        """See `SharingRule`."""
        if first.ndim != 2:
            raise ValueError(
                f"circulant() is for matrices of weights, those of {one_line(layer)} have the shape {first.shape}"
            )
        pattern = Circulant(first.shape)
        return Parameter(first.ravel()[: pattern.n_values].copy(), pattern, step=1 / sqrt(min(first.shape)), **options)


class toeplitz(SharingRule):
    """A convolution, written as the sharing rule that it is, for a `Dense` layer on flat input.

    Values and their order are those of `Conv`: ``prod(kernel) * n_channels`` times the number of filters; units are the
    flat output of `Conv`. The bias is shared over positions, too.

    Parameters
    ----------
    input_shape : tuple of int
        (time, channels) or (height, width, channels) of what the flat input was.
    kernel : int or tuple of int
    stride : int or tuple of int, default=1
    padding : {"valid", "same"}, default="valid"

    Examples
    --------
    >>> from sparseshare.network import Dense, toeplitz
    >>> Dense(6 * 6 * 4, share=toeplitz((8, 8, 1), kernel=3))
    Dense(n_units=144, share=toeplitz(input_shape=(8, 8, 1), kernel=3))
    """

    def __init__(self, input_shape, kernel, stride=1, padding="valid"):
        self.input_shape = input_shape
        self.kernel = kernel
        self.stride = stride
        self.padding = padding

    def parameter(self, first, layer, builder, options):
        """See `SharingRule`."""
        pattern = self._pattern(first.shape, layer)
        # First weights for the inputs that a unit really has, and the units that an input really goes to.
        values = first.ravel()[: pattern.n_values] / first.dtype.type(sqrt(_density(pattern)))
        return Parameter(values, pattern, **options)

    def bias(self, n_out, layer, builder):
        """See `SharingRule`."""
        n_positions = np.prod(self._positions())
        filters = np.tile(np.arange(n_out // n_positions), n_positions)
        return Parameter(np.zeros(n_out // n_positions, builder.dtype), filters)

    def _positions(self):
        shape = self.input_shape
        if not isinstance(shape, tuple | list) or len(shape) not in (2, 3):
            raise ValueError(
                "The 'input_shape' parameter of toeplitz must be (time, channels) or (height, width, channels), "
                f"got {shape!r}"
            )
        for length in shape:
            check_number("input_shape", length, 1, integer=True, of="toeplitz")
        check_choice("padding", self.padding, ("valid", "same"), of="toeplitz")
        self_kernel, self_stride = self._axes()
        if self.padding == "valid" and any(k > n for k, n in zip(self_kernel, shape[:-1], strict=True)):
            raise ValueError(f"The kernel {self_kernel} of toeplitz is larger than its input {tuple(shape)}")
        return positions_of(shape[:-1], self_kernel, self_stride, self.padding)

    def _axes(self):
        n_axes = len(self.input_shape) - 1
        return (
            check_axes("kernel", self.kernel, n_axes, of="toeplitz"),
            check_axes("stride", self.stride, n_axes, of="toeplitz"),
        )

    def _pattern(self, shape, layer):
        positions = self._positions()
        n_inputs, n_positions = int(np.prod(self.input_shape)), int(np.prod(positions))
        if len(shape) != 2 or shape[0] != n_inputs or shape[1] % n_positions:
            raise ValueError(
                f"{one_line(self)} makes weights of shape ({n_inputs}, {n_positions} * number of filters), those of "
                f"{one_line(layer)} have the shape {shape}"
            )
        return Toeplitz(self.input_shape, *self._axes(), self.padding, shape[1] // n_positions)


class shared(SharingRule):
    """An index array of one's own: weight = value[index].

    Parameters
    ----------
    index : int array of the shape of the weights
        Number of the value of every weight, from 0; -1 is a weight that is always 0.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network import Dense, shared
    >>> layer = Dense(3, share=shared(np.array([[0, 1, -1], [-1, 0, 1]])))
    """

    def __init__(self, index):
        self.index = index

    def parameter(self, first, layer, builder, options):
        """See `SharingRule`."""
        index = np.asarray(self.index)
        if index.dtype.kind not in "iu":
            raise ValueError(f"The 'index' parameter of shared must hold integers, got dtype {index.dtype}")
        if index.shape != first.shape:
            raise ValueError(
                f"The 'index' parameter of shared has the shape {index.shape}, the weights of {one_line(layer)} have "
                f"{first.shape}"
            )
        if index.min() < -1 or index.max() < 0:
            raise ValueError(
                "The 'index' parameter of shared must hold numbers of values, from 0, or -1 for no weight, and at "
                f"least one value; got {index.min()} to {index.max()}"
            )
        n_values = int(index.max()) + 1
        _fits("shared", n_values, first.size)
        pattern = Listed(index, n_values)
        values = first.ravel()[:n_values] / first.dtype.type(sqrt(_density(pattern)))
        return Parameter(values, pattern, **options)


class tied(SharingRule):
    """Layers with a tie of one name hold the same weights and the same bias; gradients add up over all their uses.

    Parameters
    ----------
    name : str
    share : sharing rule or None, default=None
        Of the tied weights; that of the first layer with this name holds.

    Examples
    --------
    >>> from sparseshare.network import Dense, tied
    >>> [Dense(32, share=tied("step")), Dense(32, share=tied("step"))]
    [Dense(n_units=32, share=tied(name='step')), Dense(n_units=32, share=tied(name='step'))]
    """

    def __init__(self, name, share=None):
        self.name = name
        self.share = share

    def parameter(self, first, layer, builder, options):
        """See `SharingRule`."""

        def make():
            if self.share is None:
                return Parameter(first, **options)
            return self.share.parameter(first, layer, builder, options)

        return self._tie("weights", first.shape, make, layer, builder)

    def bias(self, n_out, layer, builder):
        """See `SharingRule`."""

        def make():
            rule = super(tied, self) if self.share is None else self.share
            return rule.bias(n_out, layer, builder)

        return self._tie("bias", (n_out,), make, layer, builder)

    def _tie(self, kind, shape, make, layer, builder):
        if not isinstance(self.name, str):
            raise ValueError(f"The 'name' parameter of tied must be a string, got {self.name!r}")
        # A recurrent layer has several weights: the first are tied to the first, the second to the second.
        key = (self.name, kind, builder.place(layer, kind))
        if key not in builder.tied:
            builder.tied[key] = make(), layer
        parameter, other = builder.tied[key]
        if parameter.shape != shape:
            raise ValueError(
                f"{one_line(other)} and {one_line(layer)} are tied by {self.name!r}, but their {kind} have the shapes "
                f"{parameter.shape} and {shape}"
            )
        return parameter


def _count(rule, n_values, size):
    """A number of values, from a number or a fraction of the weights."""
    if isinstance(n_values, float):
        if not 0 < n_values < 1:
            raise ValueError(
                f"The 'n_values' parameter of {rule} must be an integer of at least 1 or a fraction between 0 and 1, "
                f"got {n_values!r}"
            )
        return max(1, round(n_values * size))
    n_values = check_number("n_values", n_values, 1, integer=True, of=rule)
    _fits(rule, n_values, size)
    return n_values


def _fits(rule, n_values, size):
    if n_values > size:
        raise ValueError(
            f"{rule} has {n_values} values for {size} weights: it takes at most as many as there are weights"
        )


def _density(pattern):
    return max(np.count_nonzero(pattern.index() >= 0), 1) / np.prod(pattern.shape)


def one_line(layer):
    """A layer or a rule as it prints, for messages."""
    return " ".join(repr(layer).split())
