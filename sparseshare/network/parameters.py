"""Weights of a network: the values that are stored and trained, and the array they stand for."""

from math import prod, sqrt

import numpy as np

from sparseshare.devices import array_module, device_of, to_device, to_host
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.validation import check_choice

from .blocks import product
from .patterns import Hashed, Kept, Listed, Pattern
from .products import hashed_product, pruned_product

INITIAL = ("glorot", "he", "uniform")
# What a parameter can do without, as long as it is not computed with.
_MADE_AGAIN = ("_gradient", "_parts", "_full", "_index", "_signs", "_uses", "_segments")


class Parameter:
    """An array of weights, each stored on its own or made of shared values: ``signs * values[index]``.

    Parameters
    ----------
    values : ndarray
        What is stored and trained: the weights themselves, or one axis of values for an `index` to point at.
    index : int array, Pattern or None, default=None
        For every weight the number of its value; -1 is a weight that is always 0.
    signs : int8 array of the shape of `index`, or None, default=None
        +1 or -1, a factor of the value.
    nonnegative : bool, default=False
        `project` keeps values at 0 or above.
    l1, l2 : float, default=0.0
        Penalties ``l1 * sum |weight| + 0.5 * l2 * sum weight^2`` on the array.
    step : float, default=1.0
        Factor of the learning rate: values that gather the gradients of many weights need less.

    Attributes
    ----------
    shape : tuple
        Of the array.
    pattern : Pattern or None
        How weights share values.
    gradient : ndarray of the shape of `values`
        Sum of what `add_gradient` and `add_gradient_parts` were given since `reset_gradient`.
    state : dict
        What an optimizer keeps between steps.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network.parameters import Parameter
    >>> band = Parameter(np.array([1.0, -2.0]), index=np.array([[0, 1, -1], [-1, 0, 1]]))
    >>> band.full()
    array([[ 1., -2.,  0.],
           [ 0.,  1., -2.]])
    >>> band.add_gradient(np.ones((2, 3)))
    >>> band.gradient
    array([2., 2.])
    """

    pending = None  # a rule that will merge values while the network is trained

    def __init__(self, values, index=None, signs=None, *, nonnegative=False, l1=0.0, l2=0.0, step=1.0):
        self.nonnegative, self.l1, self.l2, self.step = nonnegative, l1, l2, step
        if index is not None and not isinstance(index, Pattern):
            index = Listed(np.asarray(index), values.size, signs)
        self.set(values, index)

    def set(self, values, pattern):
        """Other values, and another pattern; what an optimizer kept of the former ones is dropped."""
        self.values, self.pattern = values, pattern
        self.shape = values.shape if pattern is None else pattern.shape
        self.state = {}
        self.release()

    def release(self):
        """Drop what can be made again: the gradient, the array, the index."""
        self.__dict__.update(dict.fromkeys(_MADE_AGAIN))

    def __getstate__(self):
        return {**self.__dict__, **dict.fromkeys(_MADE_AGAIN)}

    @property
    def device(self):
        """Where the values live: "cpu" or "cuda:N"."""
        return device_of(self.values)

    @property
    def shared(self):
        """Whether there is a pattern."""
        return self.pattern is not None

    @property
    def index(self):
        """For every weight the number of its value; None where each is stored on its own."""
        if self._index is None and self.pattern is not None:
            self._index, self._signs = self.pattern.on(self.device)
        return self._index

    @property
    def signs(self):
        """+1 or -1 for every weight, or None."""
        return None if self.index is None else self._signs

    @property
    def gradient(self):
        """By the values."""
        if self._parts is not None:
            self._gradient, self._parts = self._parts.sum(axis=0), None
        if self._gradient is None:
            self._gradient = array_module(self.values).zeros_like(self.values)
        return self._gradient

    @gradient.setter
    def gradient(self, gradient):
        self._gradient, self._parts = gradient, None

    def gradient_parts(self):
        """The gradient, or parts along a first axis that add up to it: for a step that adds them up as it goes."""
        return self.gradient if self._parts is None else self._parts

    @property
    def nbytes(self):
        """What keeping values and pattern costs."""
        return self.values.nbytes + (0 if self.pattern is None else self.pattern.nbytes)

    def full(self):
        """The array of weights; made again only after `changed`. Do not write into it."""
        if self.pattern is None:
            return self.values
        if self._full is None:
            index, full = self.index, array_module(self.values).empty(self.shape, self.values.dtype)
            kernels_for(self.device, "shared_products").spell_out(
                self.values, index.reshape(-1), self._flat_signs(), full.reshape(-1)
            )
            self._full = full
        return self._full

    def product(self, rows, n_threads=1):
        """``rows @ full()``, without ever holding the array where that is possible and it is not at hand.

        Parameters
        ----------
        rows : ndarray of shape (n, n_in)
        n_threads : int, default=1
            The result does not depend on it.

        Returns
        -------
        ndarray of shape (n, n_out)
        """
        if self._full is None and len(self.shape) == 2 and self.device == "cpu":
            if isinstance(self.pattern, Hashed):
                return hashed_product(rows, self.values, self.pattern, n_threads)
            if isinstance(self.pattern, Kept):
                return pruned_product(rows, self.values, self.pattern, n_threads)
        return product(rows, self.full(), n_threads)

    def changed(self):
        """Say that `values` have been written to."""
        self._full = None

    def uses(self):
        """How many weights every value makes; an array of the shape of `values`."""
        if self._uses is None:
            if self.pattern is None:
                self._uses = array_module(self.values).ones(self.values.shape, np.int64)
            else:
                counts = np.bincount(to_host(self.index).ravel() + 1, minlength=self.values.size + 1)[1:]
                self._uses = to_device(np.ascontiguousarray(counts, np.int64), self.device)
        return self._uses

    def nonzeros(self):
        """Weights that are not 0."""
        if self.pattern is None:
            return int(np.count_nonzero(to_host(self.values)))
        return int(self.uses()[self.values != 0].sum())

    def add_gradient(self, gradient):
        """Add the gradient by the array to that by the values: a value gathers from all its weights.

        Parameters
        ----------
        gradient : ndarray of shape `shape`
        """
        xp, kernels = array_module(self.values), kernels_for(self.device, "shared_products")
        if self.pattern is None:
            if xp is not np and self._gradient is None and self._parts is None:
                self._gradient = xp.ascontiguousarray(gradient)  # the first is kept as it is: no zeros to add it to
            else:
                self.gradient += gradient
            return
        if xp is not np and self._segments is None:
            self._segments = kernels.segments(to_host(self.index).reshape(-1), self.values.size, self.device)
        more = () if xp is np else (self._segments,)
        kernels.gather_gradients(
            xp.ascontiguousarray(gradient, self.values.dtype).reshape(-1),
            self.index.reshape(-1),
            self._flat_signs(),
            self.gradient,
            *more,
        )

    def add_gradient_parts(self, parts):
        """Add the gradient by the array, in parts: on a GPU they are not added up before a step asks for them.

        Parameters
        ----------
        parts : ndarray of shape (n_parts, *shape)
        """
        fresh = self._gradient is None and self._parts is None
        if fresh and self.pattern is None and self.device != "cpu":
            self._parts = parts
        else:
            self.add_gradient(parts.sum(axis=0))

    def _flat_signs(self):
        if self.signs is None:
            return array_module(self.values).empty(0, np.int8)
        return self.signs.reshape(-1)

    def reset_gradient(self):
        """Start a new sum."""
        if self.device != "cpu" and self.pattern is None:
            self._gradient = self._parts = None
        elif self._gradient is not None:
            self._gradient[...] = 0

    def penalty(self, l1=0.0, l2=0.0):
        """l1 and l2 penalty of the array, those given added to its own; 0 without them."""
        l1, l2 = l1 + self.l1, l2 + self.l2
        if not (l1 or l2):
            return 0.0
        magnitudes = abs(self.values.astype(np.float64))
        total = 0.0
        if l1:
            total += l1 * (self._times_used(magnitudes)).sum()
        if l2:
            total += 0.5 * l2 * (self._times_used(magnitudes**2)).sum()
        return float(total)

    def add_penalty_gradient(self, l1=0.0, l2=0.0):
        """Add the gradient of `penalty`."""
        l1, l2 = l1 + self.l1, l2 + self.l2
        scalar = self.values.dtype.type  # a float64 scalar would lift float32 arrays
        if l2:
            self.gradient += self._times_used(scalar(l2) * self.values)
        if l1:
            self.gradient += self._times_used(scalar(l1) * array_module(self.values).sign(self.values))

    def _times_used(self, array):
        if self.pattern is None:
            return array
        return array * self.uses().astype(array.dtype)

    def project(self):
        """Bring the values back to what is allowed, after a step."""
        if self.nonnegative:
            array_module(self.values).maximum(self.values, 0, out=self.values)
        self.changed()


def initial(kind, shape, random_state, dtype, fan_in=None, fan_out=None):
    """First weights.

    Parameters
    ----------
    kind : {"glorot", "he", "uniform"}
        Uniform within sqrt(6 / (fan_in + fan_out)) of 0 (Glorot and Bengio 2010, equation 16); normal with variance
        2 / fan_in (He et al. 2015, equation 10); uniform within 0.05 of 0.
    shape : tuple of int
    random_state : numpy.random.RandomState
    dtype : dtype
    fan_in, fan_out : int or None, default=None
        Inputs of a unit and units an input goes to; None reads them off a matrix of shape (n_in, n_out).

    Returns
    -------
    ndarray
    """
    check_choice("init", kind, INITIAL)
    fan_in = prod(shape[:-1]) if fan_in is None else fan_in
    fan_out = shape[-1] if fan_out is None else fan_out
    if kind == "he":
        return (sqrt(2 / fan_in) * random_state.standard_normal(shape)).astype(dtype)
    bound = 0.05 if kind == "uniform" else sqrt(6 / (fan_in + fan_out))
    return random_state.uniform(-bound, bound, shape).astype(dtype)
