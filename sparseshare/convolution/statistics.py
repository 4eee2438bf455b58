"""Additive statistics of activation maps: all that an update of shared atoms has to know about signals and codes.

With phi[k, k', tau] = sum_u z_k[u] z_k'[u + tau] and psi[k, c, l] = sum_u z_k[u] x_c[u + l], summed over the signals,
the squared error of any atoms D is

    |x - D z|^2 = |x|^2 - 2 <psi, D> + sum_kk'll' <D_k[l], D_k'[l']> phi[k, k', l - l']

so an update needs neither signals nor codes once these are summed; their size depends on the atoms alone, and sums of
batches, of workers, of days add up (Moreau and Gramfort 2020, section 4).

That holds where every pixel an atom covers is a pixel of the signal: on circular boundaries and for atoms that lie
wholly inside. Pixels outside (atoms that stick out) and missing pixels are `complete`d by what the present atoms put
there. The statistics of completed signals then stand for a function that is nowhere below the true error and touches
it at the present atoms: whatever lowers the one lowers the other (majorisation, the E step of an EM algorithm).
"""

from dataclasses import dataclass, fields
from math import prod

import numpy as np
from scipy import fft

from sparseshare.devices import array_module, device_of, on_gpu
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads

from .device_operator import DeviceConvolution
from .geometry import Geometry
from .maps import SparseMaps
from .operator import Convolution

_ATOMS_AT_ONCE = 4  # rows of phi that a thread takes
_PAIR_COST = 2.5  # of a pair of non-zeros, in units of a point of a transform times its logarithm
_DENSE = (
    0.05  # share of non-zeros from which a GPU transforms whole maps: it goes through non-zeros and all maps at once
)


@dataclass
class ConvStatistics:
    """Sums over coded signals, in float64; signals and codes live where the sums do.

    Attributes
    ----------
    half : ndarray of shape (n_components, n_components, n_offsets)
        phi for the offsets from 0 on in C order; phi[k, k', -tau] = phi[k', k, tau] gives the others.
    psi : ndarray of shape (n_components, n_channels, *support)
    usage : ndarray of shape (n_components,)
        Number of non-zeros of each atom. Never weighted, and forgotten as the rest is.
    energy : float
        0.5 |x|^2. On a GPU an array of no axes until `settle`.
    penalty : float
        What the objective holds beside the squared error.
    n_signals : float
        Number of signals, weighted.
    """

    half: np.ndarray
    psi: np.ndarray
    usage: np.ndarray
    energy: float = 0.0
    penalty: float = 0.0
    n_signals: float = 0.0

    @classmethod
    def zeros(cls, n_components, n_channels, support, xp=np):
        """Statistics of no signals.

        Parameters
        ----------
        n_components, n_channels : int
        support : tuple of int
        xp : module, default=numpy
            numpy or cupy.
        """
        n_offsets = (prod(2 * length - 1 for length in support) + 1) // 2
        shapes = (n_components, n_components, n_offsets), (n_components, n_channels, *support), n_components
        return cls(*map(xp.zeros, shapes))

    @property
    def support(self):
        """Spatial axes of the atoms."""
        return self.psi.shape[2:]

    @property
    def phi(self):
        """phi with all offsets -L < tau < L, shape (n_components, n_components, *(2 * support - 1)): a new array."""
        return array_module(self.half).stack([self.row(k) for k in range(len(self.half))])

    def row(self, atom):
        """phi[atom] with all offsets, shape (n_components, *(2 * support - 1)): a new array."""
        mirrored = self.half[:, atom, :0:-1]
        window = tuple(2 * length - 1 for length in self.support)
        return array_module(self.half).concatenate([mirrored, self.half[atom]], axis=1).reshape(-1, *window)

    def add(self, signal, maps, boundary, *, weight=1.0, penalty=0.0, constant=0.0, n_threads=1):
        """Count a signal in.

        Parameters
        ----------
        signal : array of shape (J, n_channels, *signal_shape)
        maps : array of shape (J, n_components, *positions), or SparseMaps
        boundary : {"circular", "full"}
            For "valid" and for missing pixels see `complete`.
        weight : float, default=1.0
        penalty : float, default=0.0
            Penalty of the maps.
        constant : float, default=0.0
            Added to the energy: part of the error that no atoms change.
        n_threads : int, default=1
            The sums are the same for any number.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For boundary="valid", where phi would depend on the position.
        """
        geometry = Geometry(signal.shape[2:], self.support, boundary)
        if boundary == "valid":
            raise ValueError(
                "phi and psi depend on the position where atoms stick out: complete the signal first, then add it with "
                "boundary='full'"
            )
        self.penalty += weight * penalty
        self.n_signals += weight
        if on_gpu(signal):
            return self._add_on_gpu(signal, maps, geometry, weight, constant)
        flat = signal.ravel().astype(np.float64, copy=False)
        self.energy += weight * (0.5 * float(flat @ flat) + constant)
        indices, values = _non_zeros(maps)
        self.usage += np.bincount(
            indices // geometry.n_positions % len(self.usage), minlength=len(self.usage)
        )  # fmt: skip
        if self._is_dense(len(values), len(signal), geometry):
            self._add_dense_pairs(maps if isinstance(maps, np.ndarray) else maps.dense(), geometry, weight, n_threads)
            pairs = False
        else:
            pairs = True
        size = len(self.usage) * geometry.n_positions
        ends = np.searchsorted(indices, size * np.arange(len(signal) + 1))
        for j, one in enumerate(signal):
            some = slice(ends[j], ends[j + 1])
            self._add_sparse(one, indices[some] - j * size, values[some], geometry, weight, n_threads, pairs)
        return self

    def settle(self):
        """Make the energy a number of the host, once for all signals added; returns self."""
        self.energy = float(self.energy)
        return self

    def forget(self, factor):
        """Let what was counted so far count only `factor` as much."""
        for field in fields(self):
            setattr(self, field.name, factor * getattr(self, field.name))
        return self

    def __iadd__(self, other):
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def __add__(self, other):
        sums = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        return ConvStatistics(**sums)

    def drop(self, atom):
        """Forget all about an atom that has been exchanged."""
        self.half[atom] = self.half[:, atom] = self.psi[atom] = 0
        self.usage[atom] = 0

    def _add_on_gpu(self, signal, maps, geometry, weight, constant):
        """What `add` does; nothing of it waits for the device but the number of non-zeros."""
        xp, kernels = array_module(signal), kernels_for(device_of(signal), "conv_statistics")
        self.energy = self.energy + weight * (0.5 * (signal * signal).sum(dtype=np.float64) + constant)
        sparse = maps if isinstance(maps, SparseMaps) else SparseMaps.from_dense(maps)
        size = len(self.usage) * geometry.n_positions
        self.usage += xp.bincount(sparse.indices // geometry.n_positions % len(self.usage), minlength=len(self.usage))
        dense, support = sparse.dense(), self.support
        pairs = len(sparse.values) <= _DENSE * dense.size
        if not pairs:
            self._add_dense_pairs(dense, geometry, weight, 1)
        ends = [0, len(sparse.values)]
        if len(signal) > 1:
            ends = xp.searchsorted(sparse.indices, size * xp.arange(len(signal) + 1)).tolist()
        circular = geometry.boundary == "circular"
        if circular:
            reach = [(0, 0), (0, 0), *((0, length - 1) for length in support)]
            signal = xp.pad(signal, reach, mode="wrap")
        signal = signal.astype(dense.dtype, copy=False)
        for j in range(len(signal)):
            some = slice(ends[j], ends[j + 1])
            entries = sparse.indices[some] - j * size, sparse.values[some]
            kernels.correlate_signal(*entries, signal[j], geometry.positions, weight, self.psi)
            if pairs:
                kernels.correlate_maps(*entries, dense[j], geometry.positions, support, circular, weight, self.half)
        return self

    def _is_dense(self, n_non_zeros, n_signals, geometry):
        """Whether transforms of whole maps cost less than going through the pairs of non-zeros."""
        n_components, n_positions = len(self.usage), geometry.n_positions
        pairs = n_non_zeros**2 / (n_signals * n_positions) * self.half.shape[2]
        grid = prod(_grid(geometry))
        transforms = (n_components**2 / 2 + n_signals * n_components) * grid * np.log2(grid + 1)
        return _PAIR_COST * pairs > transforms

    def _add_sparse(self, signal, indices, values, geometry, weight, n_threads, pairs):
        """psi, and phi if `pairs`, from the non-zeros of one signal."""
        kernels = kernels_for("cpu", "conv_statistics")
        shape, support = _three(geometry.positions), _three(self.support)
        reach = [length - 1 for length in self.support]
        if geometry.boundary == "circular":
            signal = np.pad(signal, [(0, 0), *((0, more) for more in reach)], mode="wrap")
        padding = 3 - geometry.n_axes
        signal = np.ascontiguousarray(signal, dtype=np.float64)
        signal = signal.reshape(len(signal), *[1] * padding, *signal.shape[1:])
        psi = self.psi.reshape(*self.psi.shape[:2], *support)
        n_components = len(self.usage)
        if pairs:
            first = np.empty(geometry.n_positions + 1, dtype=np.int64)
            places = np.empty(len(indices), dtype=np.int64)
            kernels.order_by_position(indices, geometry.n_positions, first, places)
            near = indices[places]
            near = (near // geometry.n_positions, near % geometry.n_positions, values[places], first)

        def work(block, _):
            begin, end = block * _ATOMS_AT_ONCE, min((block + 1) * _ATOMS_AT_ONCE, n_components)
            low, high = np.searchsorted(indices, [begin * geometry.n_positions, end * geometry.n_positions])
            own = indices[low:high], values[low:high]
            kernels.correlate_signal(*own, signal, shape, weight, psi)
            if pairs:
                circular = geometry.boundary == "circular"
                kernels.correlate_maps(*own, *near, shape, support, circular, weight, self.half)

        run_in_threads(work, -(-n_components // _ATOMS_AT_ONCE), n_threads)

    def _add_dense_pairs(self, maps, geometry, weight, n_threads):
        """phi by transforms: one product of spectra and one transform back for every pair of atoms."""
        xp, grid = array_module(maps), _grid(geometry)
        axes = tuple(range(-geometry.n_axes, 0))
        if xp is np:
            spectra = fft.rfftn(maps.astype(np.float64, copy=False), s=grid, axes=axes, workers=n_threads)
        else:
            spectra = xp.fft.rfftn(maps.astype(np.float64, copy=False), s=grid, axes=axes)
        around = xp.ix_(*(xp.arange(1 - length, length) % n for length, n in zip(self.support, grid, strict=True)))
        centre = self.half.shape[2] - 1
        n_components = len(self.usage)

        def work(k, _):
            products = (spectra[:, k, None].conj() * spectra[:, k:]).sum(axis=0)
            window = (fft if xp is np else xp.fft).irfftn(products, s=grid, axes=axes)
            window = window[(slice(None), *around)]
            window = weight * window.reshape(n_components - k, -1)
            self.half[k, k:] += window[:, centre:]
            self.half[k + 1 :, k] += window[1:, centre::-1]

        run_in_threads(work, n_components, n_threads)


def complete(signal, maps, operator, mask=None):
    """A signal with the pixels that statistics cannot do without: outside its ends and where it is missing.

    Parameters
    ----------
    signal : ndarray of shape (J, n_channels, *signal_shape)
    maps : ndarray of shape (J, n_components, *positions), or SparseMaps
    operator : Convolution
        With the present atoms.
    mask : ndarray of the signal's shape or None, default=None
        W, factors of the residual.

    Returns
    -------
    signal : ndarray
        To be added with the boundary below.
    boundary : {"circular", "full"}
    weight : float
        To be added with: the largest W^2.
    constant : float
        To be added with.
    """
    geometry = operator.geometry
    if geometry.boundary != "valid" and mask is None:
        return signal, geometry.boundary, 1.0, 0.0
    xp, dense = array_module(signal), maps.dense() if isinstance(maps, SparseMaps) else maps
    inside = signal
    weight, constant = 1.0, 0.0
    if geometry.boundary == "valid":
        around = tuple(n + 2 * (length - 1) for n, length in zip(geometry.signal_shape, geometry.support, strict=True))
        whole = Geometry(around, geometry.support, "full")
        whole = (
            Convolution(operator.atoms, whole, operator.n_threads) if xp is np
            else DeviceConvolution(operator.atoms, whole)
        )  # fmt: skip
        completed = whole.synthesize(dense)
        visible = (..., *(slice(length - 1, -(length - 1) or None) for length in geometry.support))
    else:
        completed, visible = operator.synthesize(dense), (...,)
    if mask is not None:
        squares = xp.square(mask.astype(np.float64))
        weight = float(squares.max()) or 1.0
        squares /= weight
        inside = completed[visible] + squares * (signal - completed[visible])
        constant = 0.5 * float((squares * (1 - squares) * (signal - completed[visible]) ** 2).sum())
    completed[visible] = inside
    return completed, "circular" if geometry.boundary == "circular" else "full", weight, constant


def _non_zeros(maps):
    """Sorted flat indices and values, float64, of maps in either form."""
    if isinstance(maps, np.ndarray):
        flat = maps.ravel()
        indices = np.flatnonzero(flat)
        return indices, flat[indices].astype(np.float64, copy=False)
    kept = np.flatnonzero(maps.values)
    return maps.indices[kept], maps.values[kept].astype(np.float64, copy=False)


def _three(shape):
    """Three axes, leading ones of length 1."""
    return np.array([1] * (3 - len(shape)) + list(shape), dtype=np.int64)


def _grid(geometry):
    """Grid on which correlations of maps at offsets below L come out right."""
    if geometry.boundary == "circular":
        return geometry.positions
    lengths = [n + length - 1 for n, length in zip(geometry.positions, geometry.support, strict=True)]
    return tuple(fft.next_fast_len(length, real=True) for length in lengths)
