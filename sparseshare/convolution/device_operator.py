"""The convolution of activation maps with atoms on a GPU: by cuFFT, or directly for small atoms and little memory."""

from functools import cached_property
from math import prod

import numpy as np

from sparseshare.devices import array_module, device_of
from sparseshare.kernels.dispatch import kernels_for

_TAPS = 32, 81  # samples of an atom along its axes up to which it is convolved directly: 1-D, and more axes
_CHUNK = 2**26  # bytes of the spectra of atoms that are held where the sums over them are all that is asked for


class DeviceConvolution:
    """The operator D of `operator.Convolution`, for atoms that live on a GPU.

    Parameters
    ----------
    atoms : cupy.ndarray of shape (n_components, n_channels, *support)
        float32 or float64; the operator computes in that precision.
    geometry : Geometry
    direct : bool or None, default=None
        Sample by sample instead of by Fourier transforms. None: for small atoms.

    Attributes
    ----------
    dtype : numpy.dtype
    direct : bool
    storage : tuple of int
        Axes of maps for `synthesize_stored` and `correlate_stored`: the grid of the transforms, of which the positions
        are the leading corner, or the positions.
    canvas : tuple of int
        Axes of signals there, which begin at `corner`.

    Notes
    -----
    By count: direct kernels take 2 M N l operations either way for M atoms of l taps on N samples, transforms about
    5 M N log2 N and 10 more passes over the maps, so that on a picture they draw at atoms of about 9 x 9.
    """

    def __init__(self, atoms, geometry, direct=None):
        self.atoms, self.geometry, self.dtype = atoms, geometry, atoms.dtype
        self._direct_kernels, self._kernels, self._transforms = (
            kernels_for(device_of(atoms), family) for family in ("convolution", "spectra", "transforms")
        )
        small = prod(geometry.support) <= _TAPS[geometry.n_axes > 1]
        self.direct = (small if direct is None else direct) and self._direct_kernels.fits(
            geometry.support, atoms.itemsize
        )
        self.storage = geometry.positions if self.direct else geometry.grid
        self.canvas = geometry.signal_shape if self.direct else geometry.grid
        self.corner = tuple(0 if self.direct else -first for first in geometry.offset)
        self._inside = (..., *(slice(n) for n in geometry.positions))
        self._visible = (
            ..., *(slice(first, first + n) for first, n in zip(self.corner, geometry.signal_shape, strict=True))
        )  # fmt: skip

    @cached_property
    def lipschitz(self):
        """Largest eigenvalue of D'D, or a bound from above: exact for a circular boundary and one channel.

        Of the matrix of the channels at a frequency it takes the trace, which is at most n_channels times too large.
        """
        xp = array_module(self.atoms)
        n_frequencies = prod(self.geometry.grid[:-1]) * (self.geometry.grid[-1] // 2 + 1)
        chunk = max(1, _CHUNK // (2 * self.atoms.itemsize * n_frequencies * self.atoms.shape[1]))
        power = 0.0
        for first in range(0, len(self.atoms), chunk):
            spectra = self._transforms.transform(self.atoms[first : first + chunk], self.geometry.grid)
            squares = spectra.real**2 + spectra.imag**2
            power = power + squares.sum(axis=(0, 1), dtype=np.float64)
        return max(float(xp.max(power)), 0.0)

    def synthesize(self, maps):
        """D z, as `Convolution.synthesize`."""
        if self.direct:
            return self.synthesize_stored(array_module(maps).ascontiguousarray(maps))
        return self.synthesize_stored(self._stored(maps, self._inside))[self._visible].copy()

    def correlate(self, signal):
        """D'r, as `Convolution.correlate`."""
        if self.direct:
            return self.correlate_stored(array_module(signal).ascontiguousarray(signal))
        return self.correlate_stored(self._stored(signal, self._visible))[self._inside].copy()

    def synthesize_stored(self, maps):
        """D z of maps (J, K, *storage), zero beside the positions, as (J, C, *canvas); new."""
        xp = array_module(maps)
        n_channels = self.atoms.shape[1]
        if self.direct:
            signal = xp.empty((len(maps), n_channels, *self.canvas), self.dtype)
            self._direct_kernels.synthesize_directly(maps, self.atoms, self._places, signal)
            return signal
        spectra = self._transforms.transform(maps, self.geometry.grid)
        total = xp.zeros((len(maps), n_channels, *spectra.shape[2:]), spectra.dtype)
        flat = (*total.shape[:2], -1)
        self._kernels.add_synthesis(spectra.reshape(*spectra.shape[:2], -1), self._spectra, 0, total.reshape(flat))
        del spectra
        return self._transforms.back(total, self.geometry.grid)

    def correlate_stored(self, signal):
        """D'r of signals (J, C, *canvas), zero beside the samples, as (J, K, *storage); new, anything beside."""
        xp = array_module(signal)
        n_atoms = len(self.atoms)
        if self.direct:
            maps = xp.empty((len(signal), n_atoms, *self.storage), self.dtype)
            self._direct_kernels.correlate_directly(signal, self.atoms, self._places, maps)
            return maps
        spectra = self._transforms.transform(signal, self.geometry.grid)
        products = xp.empty((len(signal), n_atoms, *spectra.shape[2:]), spectra.dtype)
        flat = (*products.shape[:2], -1)
        self._kernels.correlate_spectra(
            spectra.reshape(*spectra.shape[:2], -1), self._spectra, 0, products.reshape(flat)
        )  # fmt: skip
        return self._transforms.back(products, self.geometry.grid)

    def bytes_a_signal(self):
        """Device memory that `synthesize_stored` and `correlate_stored` take for a signal, results included."""
        maps, signals = (len(self.atoms) * prod(self.storage), self.atoms.shape[1] * prod(self.canvas))
        # Transforms: the spectra, the result, and a work area of cuFFT as large as the spectra.
        return self.atoms.itemsize * (maps * (1 if self.direct else 3) + 4 * signals)

    @property
    def bytes_of_atoms(self):
        """Device memory that the atoms take, spectra included."""
        spectra = prod(self.atoms.shape[:2]) * prod(self.geometry.grid) * self.atoms.itemsize
        return self.atoms.nbytes + (0 if self.direct else 2 * spectra)

    @cached_property
    def _places(self):
        geometry = self.geometry
        return self._direct_kernels.Places(
            geometry.signal_shape, geometry.positions, geometry.support, geometry.offset,
            geometry.boundary == "circular",
        )  # fmt: skip

    @cached_property
    def _spectra(self):
        """Half spectra of the atoms, flat, divided by what cuFFT multiplies there and back."""
        spectra = self._transforms.transform(self.atoms, self.geometry.grid).reshape(*self.atoms.shape[:2], -1)
        spectra *= self.dtype.type(1 / prod(self.geometry.grid))
        return spectra

    def _stored(self, array, where):
        """An array inside one of zeros of the size of the grid."""
        if array.shape[2:] == self.geometry.grid:
            return array_module(array).ascontiguousarray(array)
        stored = array_module(array).zeros((*array.shape[:2], *self.geometry.grid), self.dtype)
        stored[where] = array
        return stored
