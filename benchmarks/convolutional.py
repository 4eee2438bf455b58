"""Signals and atoms of the convolutional rows, and the judge of convolutional codes.

The judge is plain NumPy in float64 and shares nothing with the package, as `objectives.py`.
"""

import sys
from pathlib import Path

import numpy as np
from data import picture

TESTS = Path(__file__).parents[1] / "tests"
PICTURES = ("boat", "house", "peppers")


def recording():
    """R10 of the acceptance tests: signal (20000,), atoms (25, 64), alpha."""
    return _acceptance().recording()


def atoms(name):
    """A dictionary that SPORCO ships, as float64: "8x8x32", "12x12x36" or, channels last, "8x8x3x64"."""
    return _acceptance().stored(f"atoms_{name}").astype(np.float64)


def image(side, settings, name="boat"):
    """The middle of a picture in [0, 1], its smooth part taken off: (side, side) float64."""
    pixels = picture(name, settings)
    top, left = ((length - side) // 2 for length in pixels.shape)
    return _acceptance().highpass(pixels[top : top + side, left : left + side] / 255.0)


def colour_image(side):
    """The middle of a photograph that scikit-learn carries, likewise: (side, side, 3) float64."""
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image("china.jpg")
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return _acceptance().highpass(pixels[top : top + side, left : left + side] / 255.0)


def crops(n, side, settings):
    """Pieces (n, side, side) of the pictures, in turns, float64, their smooth parts taken off."""
    rng = np.random.default_rng(0)
    pictures = [_acceptance().highpass(picture(name, settings) / 255.0) for name in PICTURES]
    pieces = []
    for i in range(n):
        whole = pictures[i % len(pictures)]
        top, left = (rng.integers(length - side + 1) for length in whole.shape)
        pieces.append(whole[top : top + side, left : left + side])
    return np.array(pieces)


def starting_atoms(images, n_atoms, side):
    """Pieces of the images of unit norm, (n_atoms, side, side): the same start for every contestant."""
    rng = np.random.default_rng(1)
    pieces = []
    while len(pieces) < n_atoms:
        whole = images[rng.integers(len(images))]
        top, left = (rng.integers(length - side + 1) for length in whole.shape)
        piece = whole[top : top + side, left : left + side]
        if np.linalg.norm(piece) > 0.05 * side:
            pieces.append(piece / np.linalg.norm(piece))
    return np.array(pieces)


def worth(x, atoms, maps, alpha, boundary="circular", positive=False):
    """Objective 0.5 |D z - x|^2 + alpha |z|_1 of codes, and its duality gap: by how much the least may lie below.

    Parameters
    ----------
    x : ndarray of shape (*spatial[, channels])
    atoms : ndarray of shape (K, *support[, channels])
    maps : ndarray of shape (K, *positions)
    alpha : float
    boundary : {"circular", "full"}
    positive : bool
    """
    x, atoms, maps = (np.asarray(array, np.float64) for array in (x, atoms, maps))
    spatial = tuple(range(1, maps.ndim))
    if x.ndim < maps.ndim:
        x, atoms = x[..., None], atoms[..., None]
    grid = x.shape[:-1]
    spectra = np.fft.rfftn(atoms, grid, axes=spatial)
    sums = np.zeros((*spectra.shape[1:-1], x.shape[-1]), complex)
    for one, spectrum in zip(maps, spectra, strict=True):
        sums += np.fft.rfftn(one, grid, axes=[axis - 1 for axis in spatial])[..., None] * spectrum
    axes = [axis - 1 for axis in spatial]
    residual = x - np.fft.irfftn(sums, grid, axes=axes)
    left = np.fft.rfftn(residual, grid, axes=axes)
    inside = tuple(slice(n) for n in maps.shape[1:])
    largest = 0.0
    for spectrum in spectra:
        correlation = np.fft.irfftn((spectrum.conj() * left).sum(axis=-1), grid, axes=axes)[inside]
        largest = max(largest, float(correlation.max() if positive else np.abs(correlation).max()))
    objective = 0.5 * np.sum(residual**2) + alpha * np.abs(maps).sum()
    dual = min(1.0, alpha / max(largest, 1e-300)) * residual
    return float(objective), float(objective - 0.5 * np.sum(x**2) + 0.5 * np.sum((x - dual) ** 2))


def largest_alpha(x, atoms):
    """The least penalty at which the codes of an image are zero: the largest correlation, circular."""
    spectra = np.fft.rfft2(atoms, x.shape)
    return float(np.abs(np.fft.irfft2(spectra.conj() * np.fft.rfft2(x), x.shape)).max())


def _acceptance():
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    from convolution import acceptance

    return acceptance
