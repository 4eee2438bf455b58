"""The convolution of activation maps with atoms, its adjoint, and its norm: by Fourier transforms, or directly."""

from functools import cached_property
from math import prod

import numpy as np
from scipy import fft

from sparseshare.kernels.dispatch import kernels_for, plain
from sparseshare.threads import run_in_threads

from .interactions import correlations

# Up to here the direct form takes less time than Fourier transforms, by measurement; for 1-D signals, and for others:
_TAPS = 128, 32  # samples of an atom, channels included, correlated with the signal
_FEW = 0.05, 0.01  # share of non-zeros in the maps, each of which adds an atom
_CHUNK = 2**16  # samples transformed at once: their spectra stay in the cache, and memory stays at that of the maps
_LANES = 8  # sums over atoms, added up in this order whatever the number of threads
_FREQUENCIES = 2**12  # whose Gram matrices are decomposed at once


class Convolution:
    """The linear operator D that makes a signal of activation maps: D z = sum_k d_k * z_k.

    Parameters
    ----------
    atoms : ndarray of shape (n_components, n_channels, *support)
        float32 or float64; the operator computes in that precision.
    geometry : Geometry
    n_threads : int, default=1
        Threads, an atom or a few each; results do not depend on it.

    Attributes
    ----------
    dtype : numpy.dtype

    Notes
    -----
    Maps have the shape (n_signals, n_components, *positions), signals (n_signals, n_channels, *signal_shape): each of
    the n_signals is made of its own maps with the same atoms.
    """

    def __init__(self, atoms, geometry, n_threads=1):
        self.atoms, self.geometry, self.n_threads = plain(atoms), geometry, n_threads
        self.dtype = atoms.dtype
        self._axes = tuple(range(-geometry.n_axes, 0))
        self._inside = tuple(slice(n) for n in geometry.positions)
        self._visible = tuple(
            slice(-shift, n - shift) for shift, n in zip(geometry.offset, geometry.signal_shape, strict=True)
        )

    @cached_property
    def spectra(self):
        """Half spectra of the atoms on the grid, shape (n_components, n_channels, *half grid)."""
        return self._transform(self.atoms)

    @cached_property
    def lipschitz(self):
        """Largest eigenvalue of D'D: exact for a circular boundary, a bound from above (near to it) for the others.

        A frequency's part of D is the matrix of the atoms' spectra at this frequency.
        """
        return max(float(self.channel_gram[0].max()), 0.0)

    @cached_property
    def channel_gram(self):
        """Eigenvalues and eigenvectors of D D' at every frequency of the grid, a (C, C) matrix for C channels.

        Returns
        -------
        eigenvalues : float64 ndarray of shape (n_channels, n_frequencies)
        eigenvectors : complex ndarray of shape (n_channels, n_channels, n_frequencies), or None for one channel
            `[c, i]` is channel c of eigenvector i.
        """
        return eigen_of_channels(self._flat_spectra)

    def synthesize(self, maps):
        """D z.

        Parameters
        ----------
        maps : ndarray of shape (n_signals, n_components, *positions)

        Returns
        -------
        ndarray of shape (n_signals, n_channels, *signal_shape)
        """
        if np.count_nonzero(maps) <= _FEW[self.geometry.n_axes > 1] * maps.size:
            return self._synthesize_directly(maps)
        add, atoms, half = self._kernels.add_synthesis, self._flat_spectra, self.spectra.shape[2:]
        chunks = self._chunks(len(maps))
        lanes = max(1, min(_LANES, len(chunks) // 2))
        totals = np.zeros((lanes, len(maps), *atoms.shape[1:]), atoms.dtype)

        def work(lane, _):
            for some in chunks[lane::lanes]:
                spectra = self._transform(maps[:, some])
                add(spectra.reshape(*spectra.shape[:2], -1), atoms, some.start, totals[lane])

        run_in_threads(work, lanes, self.n_threads)
        total = totals.sum(axis=0).reshape(len(maps), -1, *half)
        return np.ascontiguousarray(self._back(total)[(..., *self._visible)])

    def correlate(self, signal):
        """D'r, the adjoint of `synthesize`: correlations of the signal with every atom at every position.

        Parameters
        ----------
        signal : ndarray of shape (n_signals, n_channels, *signal_shape)

        Returns
        -------
        ndarray of shape (n_signals, n_components, *positions)
        """
        geometry = self.geometry
        if prod(self.atoms.shape[1:]) <= _TAPS[geometry.n_axes > 1]:
            return self._correlate_directly(signal)
        if geometry.boundary == "valid":
            padded = np.zeros((*signal.shape[:2], *geometry.grid), self.dtype)
            padded[(..., *self._visible)] = signal
            signal = padded
        spectrum = self._transform(signal)
        spectrum, half = spectrum.reshape(*spectrum.shape[:2], -1), spectrum.shape[2:]
        out = np.empty((len(signal), len(self.atoms), *geometry.positions), self.dtype)
        multiply, atoms, chunks = self._kernels.correlate_spectra, self._flat_spectra, self._chunks(len(signal))

        def work(chunk, _):
            some = chunks[chunk]
            part = np.empty((len(signal), some.stop - some.start, atoms.shape[2]), atoms.dtype)
            multiply(spectrum, atoms, some.start, part)
            out[:, some] = self._back(part.reshape(*part.shape[:2], *half))[(..., *self._inside)]

        run_in_threads(work, len(chunks), self.n_threads)
        return out

    def _synthesize_directly(self, maps):
        """D z, atom by atom: for maps with few non-zeros."""
        geometry, n_components = self.geometry, len(self.atoms)
        reach = [max(sizes) for sizes in zip(geometry.signal_shape, geometry.positions, strict=True)]
        shapes = [
            np.array([1] * (3 - geometry.n_axes) + list(shape))
            for shape in (geometry.positions, reach, geometry.support)
        ]
        out = np.zeros((len(maps), self.atoms.shape[1], *reach), self.dtype)
        for flat, signal in zip(maps.reshape(len(maps), -1), out, strict=True):
            places = np.flatnonzero(flat)
            atom, position = np.divmod(places, geometry.n_positions)
            kernels_for("cpu", "residual_descent").add_atoms(
                position * n_components + atom,
                flat[places],
                self.atoms.reshape(-1),
                n_components,
                *shapes,
                signal.reshape(-1),
            )
        return np.ascontiguousarray(out[(..., *self._visible)])

    def _correlate_directly(self, signal):
        """D'r, sample by sample: for atoms of few samples."""
        geometry = self.geometry
        out = np.empty((len(signal), len(self.atoms), *geometry.positions), self.dtype)
        if geometry.boundary == "valid":
            border = [(0, 0), (0, 0), *((length - 1, length - 1) for length in geometry.support)]
            signal = np.pad(signal, border)
        for one, maps in zip(signal.astype(self.dtype, copy=False), out, strict=True):
            found = correlations(one, self.atoms, geometry.boundary == "circular", self.n_threads)
            maps[...] = np.moveaxis(found, -1, 0)
        return out

    @cached_property
    def _flat_spectra(self):
        return self.spectra.reshape(*self.spectra.shape[:2], -1)

    @property
    def _kernels(self):
        return kernels_for("cpu", "spectra")

    def _chunks(self, n_signals):
        size = max(1, _CHUNK // (n_signals * prod(self.geometry.grid)))
        return [slice(k, min(k + size, len(self.atoms))) for k in range(0, len(self.atoms), size)]

    def _transform(self, array):
        return fft.rfftn(array, s=self.geometry.grid, axes=self._axes)

    def _back(self, spectrum):
        return fft.irfftn(spectrum, s=self.geometry.grid, axes=self._axes, overwrite_x=True)


def eigen_of_channels(spectra, gains=None):
    """Eigenvalues and eigenvectors of sum_k gains_k d_k d_k' at every frequency, as `Convolution.channel_gram`.

    Parameters
    ----------
    spectra : complex ndarray of shape (n_components, n_channels, n_frequencies)
    gains : dict or None, default=None
        An array of shape (n_frequencies,) for some of the atoms; 1 for the others.
    """
    gains = {} if gains is None else gains
    n_channels, n_frequencies = spectra.shape[1:]
    values = np.zeros((n_channels, n_frequencies))
    if n_channels == 1:
        for k, spectrum in enumerate(spectra[:, 0]):
            power = spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2
            values[0] += power * gains[k] if k in gains else power
        return values, None
    vectors = np.empty((n_channels, n_channels, n_frequencies), spectra.dtype)
    for first in range(0, n_frequencies, _FREQUENCIES):
        some = slice(first, first + _FREQUENCIES)
        rows = np.moveaxis(spectra[..., some].astype(np.complex128), -1, 0)
        others = rows.conj()
        for k, gain in gains.items():
            others[:, k] *= gain[some, None]
        found, basis = np.linalg.eigh(np.matmul(rows.transpose(0, 2, 1), others))
        values[:, some], vectors[..., some] = found.T, np.moveaxis(basis, 0, -1)
    return values, vectors
