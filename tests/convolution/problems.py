"""Small convolutional problems of every form, and the slow, obvious version of what is minimised.

`conv_problem(...)` makes one problem, `FORMS` names a set in which every option meets every boundary, and `Dense`
writes a problem out with one big matrix, entry by entry from the definition, with no Fourier transform anywhere.
"""

import itertools
from functools import cache

import numpy as np

from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.problem import ConvProblem
from sparseshare.threads import single_threaded_blas

SIZES = {1: ((19,), (4,)), 2: ((8, 7), (3, 2)), 3: ((5, 4, 6), (2, 2, 3))}
BOUNDARIES = ("circular", "full", "valid")
OPTIONS = {
    "plain": {},
    "positive": {"positive": True},
    "mask": {"mask": "binary"},
    "weighted residual": {"mask": "real"},
    "weights of atoms": {"weights": "atoms"},
    "weights of positions": {"weights": "positions"},
    "kept out": {"weights": "infinite"},
    "smooth": {"smoothness": True},
    "free smooth atom": {"smoothness": True, "weights": "free"},
    "several codes": {"n_signals": 3},
    "joint": {"n_signals": 3, "joint": 0.4},
    "wholly joint": {"n_signals": 2, "joint": 1.0},
    "joint, positive": {"n_signals": 3, "joint": 0.6, "positive": True},
    "colour atoms": {"n_channels": 3},
    "colour atoms, masked": {"n_channels": 3, "mask": "binary"},
    "colour atoms, many at once": {
        "n_channels": 2, "mask": "real", "weights": "positions", "smoothness": True, "positive": True
    },
    "many at once": {
        "n_signals": 2, "joint": 0.3, "mask": "binary", "weights": "positions", "smoothness": True, "positive": True
    },
}  # fmt: skip
FORMS = list(itertools.product(OPTIONS, BOUNDARIES))


def conv_problem(
    boundary="circular",
    n_axes=2,
    n_signals=1,
    n_channels=1,
    mask=None,
    positive=False,
    joint=0.0,
    weights=None,
    smoothness=False,
    dtype=np.float64,
    n_components=3,
    share=0.2,
    seed=0,
):
    """A random problem.

    Parameters
    ----------
    boundary : {"circular", "full", "valid"}
    n_axes : {1, 2, 3}
    n_signals : int
        Channels with codes of their own (J); with it n_channels is 1.
    n_channels : int
        Channels of the atoms (C); with it n_signals is 1.
    mask : {None, "binary", "real"}
        None, about 30 % of the samples unknown, or positive factors and some zeros.
    positive : bool
    joint : float
    weights : {None, "atoms", "positions", "infinite", "free"}
        Shape (K, 1, ...) or (K, *positions) within [0.5, 2]; an infinite one here and there; 0 for the last atom.
    smoothness : bool
        On the first and the last atom.
    dtype : dtype
    n_components : int
    share : float
        alpha, as a share of the largest correlation of signal and atoms.
    seed : int
    """
    rng = np.random.default_rng(seed)
    signal_shape, support = SIZES[n_axes]
    geometry = Geometry(signal_shape, support, boundary)
    atoms = rng.standard_normal((n_components, n_channels, *support)) * rng.uniform(0.5, 1.5, n_components).reshape(
        -1, 1, *[1] * n_axes
    )
    signal = rng.standard_normal((n_signals, n_channels, *signal_shape))
    masks = {
        None: lambda: None,
        "binary": lambda: (rng.random(signal.shape) < 0.7).astype(dtype),
        "real": lambda: (rng.uniform(0.3, 1.5, signal.shape) * (rng.random(signal.shape) < 0.8)).astype(dtype),
    }
    mask = masks[mask]()
    operator = Convolution(atoms.astype(dtype), geometry)
    observed = signal.astype(dtype) if mask is None else mask**2 * signal.astype(dtype)
    alpha = share * float(np.abs(operator.correlate(observed)).max())
    per_atom = (n_components, *[1] * n_axes)
    if weights is not None:
        values = rng.uniform(0.5, 2, (n_components, *geometry.positions) if weights == "positions" else per_atom)
        if weights == "infinite":
            values = np.broadcast_to(values, (n_components, *geometry.positions)).copy()
            values[rng.random(values.shape) < 0.2] = np.inf
        if weights == "free":
            values[-1] = 0
        weights = values.astype(dtype)
    if smoothness:
        smoothness = np.zeros(n_components, dtype)
        smoothness[[0, -1]] = 0.5, 1.5
    else:
        smoothness = None
    return ConvProblem(
        signal.astype(dtype), operator, alpha, weights=weights, positive=positive, joint=joint, smoothness=smoothness,
        mask=mask,
    )  # fmt: skip


def form(name, boundary, n_axes=2, **changes):
    """The problem of one entry of `FORMS`."""
    return conv_problem(boundary, n_axes, **{**OPTIONS[name], **changes})


@cache
def solved(name, boundary, n_axes=2):
    """Problem, its written-out form, least objective and codes of one entry of `FORMS`; computed once, left alone."""
    problem = form(name, boundary, n_axes)
    dense = Dense(problem)
    return problem, dense, *dense.solve()


class Dense:
    """A problem with its operator written out, in float64.

    Attributes
    ----------
    matrix : (n_channels * N, K * P) array
        Column (k, p) is atom k at position p, as a signal.
    differences : (n, K * P) array
        Rows whose squares sum to sum_k smoothness_k |G z_k|^2; no rows without smoothness.
    signals : (J, n_channels * N) array
    mask : the same shape
    weights : (K * P,) array
    alpha, positive, joint
    """

    def __init__(self, problem):
        geometry, atoms = problem.geometry, problem.atoms.astype(float)
        self.shape = problem.maps_shape
        n_components, n_channels = atoms.shape[:2]
        columns = np.zeros((n_components, *geometry.positions, n_channels, *geometry.signal_shape))
        for position in np.ndindex(geometry.positions):
            for entry in np.ndindex(geometry.support):
                place = np.add(np.add(position, entry), geometry.offset)
                if geometry.boundary == "circular":
                    place = place % geometry.signal_shape
                if ((place >= 0) & (place < geometry.signal_shape)).all():
                    columns[(slice(None), *position, slice(None), *place)] += atoms[(..., *entry)]
        self.matrix = columns.reshape(n_components * geometry.n_positions, -1).T
        self.differences = _differences(problem)
        self.signals = problem.signal.reshape(len(problem.signal), -1).astype(float)
        self.mask = np.ones_like(self.signals) if problem.mask is None else problem.mask.reshape(self.signals.shape)
        weights = 1.0 if problem.weights is None else problem.weights.astype(float)
        self.weights = np.broadcast_to(weights, self.shape[1:]).ravel()
        self.alpha, self.positive, self.joint = problem.alpha, problem.positive, problem.joint
        nothing = np.zeros(len(self.differences))
        self._rows = [
            (np.vstack([mask[:, None] * self.matrix, self.differences]), np.concatenate([mask * signal, nothing]))
            for mask, signal in zip(self.mask, self.signals, strict=True)
        ]

    def rows(self, j):
        """The least-squares part of signal j: matrix and target, with the gradient penalty as further rows."""
        return self._rows[j]

    def penalty(self, maps):
        """alpha times the weighted norms of (J, K, *positions) maps; infinite where an entry kept out is not 0."""
        flat = np.asarray(maps, float).reshape(len(self.signals), -1)
        norms = (1 - self.joint) * np.abs(flat).sum(axis=0) + self.joint * np.sqrt((flat**2).sum(axis=0))
        on = norms > 0
        return self.alpha * (self.weights[on] * norms[on]).sum()

    def objective(self, maps):
        """What is minimised."""
        flat = np.asarray(maps, float).reshape(len(self.signals), -1)
        if self.positive and (flat < 0).any():
            return np.inf
        fits = [0.5 * ((matrix @ z - target) ** 2).sum() for z, (matrix, target) in zip(flat, self._rows, strict=True)]
        return sum(fits) + self.penalty(maps)

    def gradient(self, maps):
        """Gradient of the least-squares part, in the shape of the maps."""
        flat = np.asarray(maps, float).reshape(len(self.signals), -1)
        slopes = [matrix.T @ (matrix @ z - target) for z, (matrix, target) in zip(flat, self._rows, strict=True)]
        return np.reshape(slopes, self.shape)

    def prox(self, v, step):
        """argmin 0.5 |z - v|^2 + step * penalty, entry by entry and group by group."""
        flat = np.asarray(v, float).reshape(len(self.signals), -1)
        threshold = step * self.alpha * self.weights
        kept = np.maximum(flat, 0) if self.positive else flat
        kept = np.sign(kept) * np.maximum(np.abs(kept) - threshold * (1 - self.joint), 0) if self.joint < 1 else kept
        norms = np.sqrt((kept**2).sum(axis=0))
        shares = np.zeros_like(norms)
        on = np.isfinite(threshold) & (norms > threshold * self.joint if self.joint else norms > 0)
        shares[on] = 1 - threshold[on] * self.joint / norms[on]
        return (np.where(on, kept, 0) * shares).reshape(self.shape)

    def solve(self, n_iter=20000, tol=1e-13):
        """The least objective and its codes, by accelerated proximal gradient on the matrices with restart."""
        with single_threaded_blas:  # matrices so small that threads only wait for each other, eight times as long
            return self._solve(n_iter, tol)

    def _solve(self, n_iter, tol):
        lipschitz = max(np.linalg.norm(matrix, 2) ** 2 for matrix, _ in self._rows)
        z = y = np.zeros(self.shape)
        t, scale = 1.0, max(np.abs(self.gradient(z)).max(), 1e-300)
        for _ in range(n_iter):
            new = self.prox(y - self.gradient(y) / lipschitz, 1 / lipschitz)
            moved = np.abs(y - new).max() * lipschitz
            if ((y - new) * (new - z)).sum() > 0:
                t = 1.0
            t_new = 0.5 * (1 + np.sqrt(1 + 4 * t * t))
            z, y, t = new, new + (t - 1) / t_new * (new - z), t_new
            if moved <= tol * scale:
                break
        return self.objective(z), z

    def breach(self, maps):
        """How far maps are from optimal: the length of a proximal gradient step, 0 at the optimum."""
        gradient = self.gradient(maps)
        return float(np.abs(maps - self.prox(maps - gradient, 1.0)).max())


def _differences(problem):
    """Forward differences times the square root of the smoothness, one row a difference."""
    shape, n_components = problem.geometry.positions, problem.maps_shape[1]
    rows = []
    if problem.smoothness is not None:
        for k, position in itertools.product(range(n_components), np.ndindex(shape)):
            for axis, length in enumerate(shape):
                following = list(position)
                following[axis] += 1
                if problem.geometry.boundary == "circular":
                    following[axis] %= length
                if following[axis] < length and problem.smoothness[k] > 0:
                    row = np.zeros((n_components, *shape))
                    row[(k, *following)] += 1
                    row[(k, *position)] -= 1
                    rows.append(np.sqrt(float(problem.smoothness[k])) * row.ravel())
    return np.array(rows).reshape(-1, n_components * int(np.prod(shape)))
