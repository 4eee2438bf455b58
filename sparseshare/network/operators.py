"""Linear maps between the codes of two layers: a dictionary, dense or shared over positions, and its adjoint.

Made of the nodes of `Dense` and `Conv`: weights W hold an atom in every column, x W analyses, codes W' synthesises.
All of it works on a few samples in one thread, or on a GPU if they and the weights live there; whoever has many samples
shares them out.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from math import prod

import numpy as np

from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.operator import Convolution
from sparseshare.devices import array_module, device_of, to_host
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.optimization.lipschitz import largest_eigenvalue

_BYTES = 1 << 21  # columns of a block of samples
_BYTES_ON_GPU = 1 << 28
_PIECE_BYTES = 1 << 24  # of samples and codes that are held at once where not all are
_ROWS = 64  # so many rows of a product, if there are as many
_SMALL = 256  # codes of a sample up to which the whole matrix is made to measure its norm
_PARTS = 16  # a batch is divided into at least so many blocks, if they get enough rows


class Operator(ABC):
    """A dictionary between inputs and codes.

    Parameters
    ----------
    node : Node
        Of a `Dense` or `Conv` without bias and activation.
    input_shape : tuple of int
        Of one sample, as is `output_shape`, that of its codes.

    Attributes
    ----------
    weights_shape : (int, int)
        Entries of an atom, and atoms.
    """

    def __init__(self, node, input_shape):
        self.node, self.input_shape, self.output_shape = node, tuple(input_shape), node.output_shape
        self.weights_shape = node.weights.shape

    @property
    @abstractmethod
    def scratch_size(self):
        """Numbers that one sample takes on the way."""

    @property
    @abstractmethod
    def atom_shape(self):
        """Shape of an atom."""

    @abstractmethod
    def patches(self, x):
        """What meets an atom, position by position; shape (n * n_positions, n_entries)."""

    @abstractmethod
    def synthesise(self, codes, weights):
        """Sum of atoms, the adjoint of `analyse`; codes of shape (n, *output_shape) to (n, *input_shape)."""

    @abstractmethod
    def norm2(self, weights):
        """Bound from above on the largest eigenvalue of the adjoint times the operator, computed on the CPU."""

    def analyse(self, x, weights):
        """Products with all atoms; x of shape (n, *input_shape) to (n, *output_shape)."""
        return (self.patches(x) @ weights).reshape(len(x), *self.output_shape)

    def gradient(self, x, codes):
        """Gradient of the sum over x * synthesise(codes), or analyse(x) * codes, by the weights."""
        return self.patches(x).T @ codes.reshape(-1, self.weights_shape[1])

    def atoms(self, weights):
        """Weights as a dictionary, (n_atoms, *atom_shape)."""
        return array_module(weights).ascontiguousarray(weights.T).reshape(-1, *self.atom_shape)

    def weights(self, atoms, dtype):
        """A dictionary as weights."""
        return array_module(atoms).ascontiguousarray(atoms.reshape(len(atoms), -1).T, dtype)


class DenseOperator(Operator):
    """A dictionary of rows; on images and sequences the same at every position."""

    @property
    def scratch_size(self):
        """See `Operator`."""
        return prod(self.input_shape)

    @property
    def atom_shape(self):
        """See `Operator`."""
        return self.weights_shape[:1]

    def patches(self, x):
        """See `Operator`."""
        return x.reshape(-1, self.weights_shape[0])

    def synthesise(self, codes, weights):
        """See `Operator`."""
        return (codes.reshape(-1, self.weights_shape[1]) @ weights.T).reshape(len(codes), *self.input_shape)

    def norm2(self, weights):
        """See `Operator`."""
        return _norm2(to_host(weights))


def _norm2(matrix):
    return largest_eigenvalue(matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix)


class ConvOperator(Operator):
    """Atoms shared over positions: `analyse` correlates, `synthesise` is the convolution with stride."""

    @property
    def scratch_size(self):
        """See `Operator`."""
        return prod(self.node.positions) * self.weights_shape[0]

    @property
    def atom_shape(self):
        """See `Operator`."""
        return (*self.node.kernel[3 - len(self.input_shape) :], self.input_shape[-1])

    def patches(self, x):
        """See `Operator`."""
        node, xp, kernels = self.node, array_module(x), kernels_for(device_of(x), "columns")
        x = xp.ascontiguousarray(x).reshape(-1, *node.image)
        return node._columns(node._padded(x, kernels), xp.empty(len(x) * self.scratch_size, x.dtype), kernels)

    def synthesise(self, codes, weights):
        """See `Operator`."""
        node, kernels = self.node, kernels_for(device_of(codes), "columns")
        x = array_module(codes).empty((len(codes), *node.image), codes.dtype)
        node._add_columns(codes.reshape(-1, self.weights_shape[1]) @ weights.T, x, kernels)
        return x.reshape(len(codes), *self.input_shape)

    @cached_property
    def _phases(self):
        """Strided atoms are atoms of stride 1 with a channel for every place between two positions."""
        node = self.node
        stride = node.grid[2:4]
        steps = [-(-size // step) for size, step in zip(node.kernel, stride, strict=True)]
        shape = [p + n - 1 for p, n in zip(node.positions, steps, strict=True)]
        return stride, steps, Geometry(tuple(shape), tuple(steps), "full")

    def norm2(self, weights):
        """See `Operator`."""
        weights = to_host(weights)
        n_positions, n_codes = prod(self.node.positions), prod(self.output_shape)
        if n_positions == 1:
            return _norm2(weights)
        if n_codes <= _SMALL:
            unit = np.eye(n_codes, dtype=weights.dtype).reshape(n_codes, *self.output_shape)
            return _norm2(self.synthesise(unit, weights).reshape(n_codes, -1))
        # What a circular convolution does to each frequency; there may be none that takes all of it.
        (height, width), n_channels = self.node.kernel, self.input_shape[-1]
        stride, steps, geometry = self._phases
        padded = np.zeros((weights.shape[1], steps[0] * stride[0], steps[1] * stride[1], n_channels))
        padded[:, :height, :width] = self.atoms(weights).reshape(-1, height, width, n_channels)
        padded = padded.reshape(-1, steps[0], stride[0], steps[1], stride[1], n_channels)
        atoms = padded.transpose(0, 2, 4, 5, 1, 3).reshape(len(padded), -1, *steps)
        # Rather as many channels as there are fewer of: the two Gram matrices have the same largest eigenvalue.
        return Convolution(atoms if atoms.shape[1] <= len(atoms) else atoms.swapaxes(0, 1), geometry).lipschitz


class Chain:
    """Dictionaries one after the other, with weights.

    Parameters
    ----------
    operators : list of Operator
    weights : list of ndarray

    Attributes
    ----------
    dtype : dtype
    device : str
        Where the weights live.
    """

    def __init__(self, operators, weights):
        self.operators, self.weights, self.dtype = operators, weights, weights[0].dtype
        self.device = device_of(weights[0])

    def estimates(self, codes):
        """What codes of the deepest layer stand for in every layer.

        Parameters
        ----------
        codes : ndarray of shape (n, *output_shape)

        Returns
        -------
        list of ndarray
            Signals first, `codes` last.
        """
        found = [codes]
        for operator, weights in zip(reversed(self.operators), reversed(self.weights), strict=True):
            found.append(operator.synthesise(found[-1], weights))
        return found[::-1]

    def norms2(self):
        """Bounds on the squared norms, one a layer."""
        return [operator.norm2(weights) for operator, weights in zip(self.operators, self.weights, strict=True)]

    def step(self, n_samples):
        """Samples that are worked on at once; it does not depend on the number of threads."""
        size = max(operator.scratch_size for operator in self.operators) * self.dtype.itemsize
        if self.device != "cpu":
            return max(1, _BYTES_ON_GPU // size)
        rows = min(prod(operator.output_shape[:-1]) for operator in self.operators)
        return max(1, min(_BYTES // size, max(-(-n_samples // _PARTS), _ROWS // rows)))

    def blocks(self, n_samples, step=None):
        """Slices of samples that are worked on at once, `step` each, or as many as `step` says for them."""
        return _slices(n_samples, self.step(n_samples) if step is None else step)

    def pieces(self, n_samples):
        """Slices of samples of some whole blocks each, as many as take 16 MB with their codes of all layers."""
        shapes = [self.operators[0].input_shape, *(operator.output_shape for operator in self.operators)]
        n_rows, step = _PIECE_BYTES // (sum(map(prod, shapes)) * self.dtype.itemsize), self.step(n_samples)
        return _slices(n_samples, max(1, n_rows // step) * step)


def _slices(n_samples, step):
    return [slice(start, min(start + step, n_samples)) for start in range(0, n_samples, step)]
