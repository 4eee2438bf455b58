"""Convolutional problems whose optimum is known: what every solver that applies is held to.

`problem("R1")` gives the arguments of `conv_sparse_encode` and the optimum. R1, R2 and R5 code a photograph with
learned atoms that are not normalised (circular boundary), R10 a long made-up recording (full boundary). An optimum
stands with the duality gap that certifies it and the two solvers, written apart, that agree on it within their gaps;
`certificate.py` holds the plain one of them.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data" / "acceptance.npz"
GRAY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Acceptance:
    """A problem and its certified optimum.

    Attributes
    ----------
    name : str
    X : ndarray of shape (1, *spatial[, channels])
    atoms : ndarray of shape (K, *support[, channels])
    options : dict
        Further arguments of `conv_sparse_encode`: `alpha`, `boundary` and so on.
    optimum : float
        Least objective; its true value lies between `optimum - gap` and `optimum`.
    gap : float
        Duality gap of the codes that have the objective `optimum`.
    certified_by : tuple of str
        The solvers that agree on it.
    n_nonzeros : int or None
        Of the codes at the optimum; None where some of them are so small that solvers need not agree.
    """

    name: str
    X: np.ndarray
    atoms: np.ndarray
    options: dict
    optimum: float
    gap: float
    certified_by: tuple
    n_nonzeros: int | None = None


def highpass(image, penalty=10.0, border=16):
    """An image (height, width[, channels]) less the smooth s that minimises |x - s|^2 + penalty |G s|^2.

    G are the forward differences along both axes; the image is mirrored by `border` pixels first.
    """
    channels = ((0, 0),) * (image.ndim - 2)
    padded = np.pad(image, ((border, border), (border, border), *channels), "symmetric")
    rows, columns = (2 - 2 * np.cos(2 * np.pi * np.fft.fftfreq(n)) for n in padded.shape[:2])
    divisor = (1 + penalty * (rows[:, None] + columns)).reshape(padded.shape[:2] + (1,) * (image.ndim - 2))
    smooth = np.fft.ifft2(np.fft.fft2(padded, axes=(0, 1)) / divisor, axes=(0, 1)).real
    return image - smooth[border:-border, border:-border]


def stored(name):
    """An array of `tests/data/acceptance.npz`."""
    with np.load(DATA) as arrays:
        return arrays[name]


def photograph(gray=True):
    """The crop in [0, 1] as float64: scaled and made grey in float32, so that all digits are those of the source."""
    scaled = stored("photograph").astype(np.float32) / np.float32(255)
    if gray:
        scaled = GRAY[0] * scaled[..., 0] + GRAY[1] * scaled[..., 1] + GRAY[2] * scaled[..., 2]
    return scaled.astype(np.float64)


def recording():
    """R10: a signal (20000,) of 993 events, the 25 atoms (25, 64) it is made of and its penalty."""
    rng = np.random.RandomState(0)  # the legacy generator fixes the draw
    n_atoms, support, length = 25, 64, 20_000
    atoms = rng.randn(n_atoms, 1, support)
    atoms /= np.linalg.norm(atoms, axis=(1, 2), keepdims=True)
    atoms = atoms[:, 0]
    maps = np.zeros((1, n_atoms, length - support + 1))
    on = rng.rand(*maps.shape) < 0.002
    maps[on] = rng.rand(on.sum()) + 0.2
    clean = sum(np.convolve(one, atom) for one, atom in zip(maps[0], atoms, strict=True))
    signal = clean + 0.05 * rng.randn(1, 1, length)[0, 0]
    alpha = 0.1 * max(np.correlate(signal, atom, "valid").max() for atom in atoms)
    return signal, atoms, alpha


def _r1():
    atoms = stored("atoms_8x8x32").astype(np.float64)
    return highpass(photograph()), atoms, {"alpha": 0.05}


def _r2():
    signal, atoms, options = _r1()
    return signal, atoms, options | {"positive": True}


def _r5():
    return highpass(photograph(gray=False)), stored("atoms_8x8x3x64").astype(np.float64), {"alpha": 0.1}


def _r10():
    signal, atoms, alpha = recording()
    return signal, atoms, {"alpha": alpha, "boundary": "full", "positive": True}


def _crop(height, width, gray=True):
    return np.ascontiguousarray(highpass(photograph(gray))[-height:, -width:])  # the corner that is not flat


def _masked():
    signal, atoms = _crop(48, 40), stored("atoms_8x8x32").astype(np.float64)
    mask = np.random.default_rng(0).random(signal.shape) < 0.5
    return signal, atoms, {"alpha": 0.01, "mask": mask[None]}


def _valid():
    return _crop(40, 48), stored("atoms_8x8x32").astype(np.float64), {"alpha": 0.03, "boundary": "valid"}


def _joint():
    return _crop(32, 40, gray=False), stored("atoms_8x8x32").astype(np.float64), {"alpha": 0.03, "joint": 0.5}


def _smooth():
    image = photograph()[-40:, -36:]
    impulse = np.zeros((1, 8, 8))
    impulse[0, 0, 0] = 1
    atoms = np.concatenate([stored("atoms_8x8x32").astype(np.float64), impulse])
    last = np.arange(33) == 32
    options = {"alpha": 0.05, "smoothness": 2.0 * last, "weights": np.where(last, 0.05, 1.0)}
    return image - image.mean(), atoms, options


def _float32():
    signal, atoms, options = _r1()
    return signal.astype(np.float32), atoms.astype(np.float32), options


def _together():
    rng = np.random.default_rng(1)
    signal = _crop(28, 25, gray=False)
    atoms = stored("atoms_8x8x32")[::3].astype(np.float64)
    mask = rng.random(signal.shape) < 0.2
    weights = rng.uniform(0.5, 2.0, (len(atoms), 35, 32))
    options = {"alpha": 0.02, "boundary": "valid", "positive": True, "joint": 0.3, "mask": mask[None]}
    return signal, atoms, options | {"weights": weights}


def _channels():
    rng = np.random.default_rng(2)
    atoms = rng.standard_normal((6, 20, 3))
    signal = 0.3 * rng.standard_normal((500, 3))
    for _ in range(40):
        start = rng.integers(481)
        signal[start : start + 20] += rng.uniform(0.5, 1.5) * atoms[rng.integers(6)]
    return signal, atoms, {"alpha": 12.0, "boundary": "full", "positive": True}


def _volume():
    rng = np.random.default_rng(3)
    atoms = rng.standard_normal((5, 3, 4, 3))
    return rng.standard_normal((12, 14, 10)), atoms, {"alpha": 8.0}


# name: how it is made, optimum, gap, certified by, non-zeros
_KNOWN = {
    "R1": (_r1, 0.3217163296, 1.4e-10, ("plain FISTA", "SPORCO ADMM"), 206),
    "R2": (_r2, 0.3610376428, 9e-11, ("plain FISTA", "SPORCO ADMM"), 201),
    "R5": (_r5, 1.1541583372, 2.1e-10, ("plain FISTA", "SPORCO ADMM"), 424),
    "R10": (_r10, 118.394154159, 6e-9, ("plain FISTA", "alphacsc LGCD"), 2622),
    "masked": (_masked, 0.0653605587, 9e-11, ("plain FISTA", "SPORCO additive mask simulation"), 377),
    "valid": (_valid, 0.1943851407, 9e-11, ("plain FISTA", "SPORCO additive mask simulation"), 285),
    "joint": (_joint, 0.5861173214, 1.9e-10, ("plain FISTA", "SPORCO ConvBPDNJoint"), 1423),
    "smooth": (_smooth, 0.4987744188, 2e-10, ("plain FISTA", "SPORCO ConvBPDNGradReg"), 1628),
    "float32": (_float32, 0.3217163301, 8e-11, ("plain FISTA", "SPORCO ADMM"), None),
    "together": (_together, 0.3810304668, 8e-11, ("plain FISTA", "sparseshare"), None),
    "channels": (_channels, 479.0816272650, 1.4e-11, ("plain FISTA", "alphacsc LGCD"), 40),
    "volume": (_volume, 685.64679509, 4e-9, ("plain FISTA", "SPORCO ADMM"), 576),
}
NAMES = tuple(_KNOWN)


@cache
def problem(name):
    """One of `NAMES`. Its arrays are read-only: it is made once."""
    make, optimum, gap, certified_by, n_nonzeros = _KNOWN[name]
    signal, atoms, options = make()
    options = {"boundary": "circular"} | options
    X = signal[None]
    for array in (X, atoms, *(value for value in options.values() if isinstance(value, np.ndarray))):
        array.setflags(write=False)
    return Acceptance(name, X, atoms, options, optimum, gap, certified_by, n_nonzeros)
