"""Convolutional sparse coding by ADMM in the frequency domain, in residual form.

Maps x that explain the signal and maps y that are sparse are held together by multipliers u. With v = y - u the x-step
is x = v + D'q, where (rho + D D') q = x_signal - D v: one C x C system a frequency (Sherman, Morrison, Woodbury), and
no spectrum of maps is kept. A sweep takes a few atoms at a time through the inverse transform of D'q, the threshold,
the multiplier and the transform of the next v, so that what an iteration touches stays in the cache.
"""

from math import inf, log, prod, sqrt

import numpy as np
from scipy import fft

from sparseshare.kernels.dispatch import kernels_for
from sparseshare.optimization.penalties import RoughnessPenalty
from sparseshare.threads import run_in_threads

from .operator import eigen_of_channels
from .problem import Solution

_MAX_ITER = 5000
_RELAXATION = 1.8
_CHUNK = 2**16  # samples a thread works on at once
_LANES = 8  # sums over atoms, added up in this order whatever the number of threads
_FIRST_RHO, _IMPULSE_GAIN = 0.3, 0.2  # parts of the mean of D D' over frequencies
# How rho follows the residuals: every so many iterations, to a primal one so many times the dual one, so many times at
# most; then it stays, and the method converges. Fewest iterations on photographs, gray, colour and half masked.
_EVERY, _BALANCE, _CHANGES = 5, 3.0, 30


def solve(problem, *, start=None, tol=1e-4, max_iter=None, n_threads=1):
    """Minimise a problem's objective.

    Parameters
    ----------
    problem : ConvProblem
    start : ndarray of shape `problem.maps_shape`, SparseMaps or None, default=None
        Codes to start from.
    tol : float, default=1e-4
        Stop at a duality gap of `tol * problem.energy`, taken at the sparse iterate.
    max_iter : int or None, default=None
        None is 5000.
    n_threads : int, default=1
        The codes do not depend on it.

    Returns
    -------
    Solution

    Notes
    -----
    Wohlberg 2016 ("Efficient algorithms for convolutional sparse representations", sections III and IV): relaxation by
    1.8 and a penalty rho that balances the residuals. Here the residuals are relative, so the scale of the signal does
    not matter. A mask is simulated by an impulse that takes the residual where it does not count (Wohlberg 2014,
    "Endogenous convolutional sparse representations"); for factors other than 0 and 1 it takes a part of it.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution import admm
    >>> from sparseshare.convolution.geometry import Geometry
    >>> from sparseshare.convolution.operator import Convolution
    >>> from sparseshare.convolution.problem import ConvProblem
    >>> signal = np.array([[[0.0, 1.0, 2.0, 1.0, 0.0, 0.0]]])
    >>> operator = Convolution(np.array([[[1.0, 2.0, 1.0]]]), Geometry((6,), (3,), "full"))
    >>> admm.solve(ConvProblem(signal, operator, alpha=0.6), tol=1e-9).maps.round(4)
    array([[[0. , 0.9, 0. , 0. ]]])
    """
    max_iter = _MAX_ITER if max_iter is None else max_iter
    state = _Splitting(problem, start, n_threads)
    target, bound, looks, due = tol * problem.energy, -inf, [], 0
    while True:
        if state.n_iter >= due or state.n_iter >= max_iter:
            maps = state.codes()
            residual = problem.residual(maps)
            objective = problem.objective(maps, residual)
            bound = max(bound, problem.dual_value(maps, residual, problem.gradient(maps, residual)))
            gap = max(objective - bound, 0.0)
            if gap <= target or state.n_iter >= max_iter:
                return Solution(maps, objective, gap, state.n_iter, gap <= target)
            del maps, residual
            looks.append((state.n_iter, gap))
            due = _next_look(looks[-2:], target)
        state.iterate()


def _next_look(looks, target):
    """When to take the gap again, which costs an iteration: where it should be small enough if it falls as it did."""
    n_iter, gap = looks[-1]
    soonest, latest = n_iter + 5, n_iter + max(5, n_iter // 3)
    if len(looks) < 2 or target <= 0 or not gap < looks[0][1]:
        return min(n_iter + max(5, n_iter // 8), latest)
    rate = log(looks[0][1] / gap) / (n_iter - looks[0][0])
    return int(min(max(n_iter + log(gap / target) / rate, soonest), latest))


class _Splitting:
    """The variables of ADMM and one iteration of it."""

    def __init__(self, problem, start, n_threads):
        self.problem, self.n_threads, self.n_iter = problem, n_threads, 0
        self.kernels, self.products = kernels_for("cpu", "splitting"), kernels_for("cpu", "spectra")
        geometry, operator = problem.geometry, problem.operator
        self.grid, self.axes = geometry.grid, tuple(range(-geometry.n_axes, 0))
        self.inside = tuple(slice(n) for n in geometry.positions)
        self.visible = tuple(slice(-o, n - o) for o, n in zip(geometry.offset, geometry.signal_shape, strict=True))
        self.shape = (*problem.maps_shape[:2], *self.grid)
        self.n_points, self.dtype = prod(self.grid), problem.dtype
        self.atoms = operator.spectra.reshape(*operator.spectra.shape[:2], -1)
        self.values, self.vectors = operator.channel_gram
        self.y = np.zeros(self.shape, self.dtype)
        if start is not None:
            self.y[(..., *self.inside)] = start if isinstance(start, np.ndarray) else start.dense()
            problem.sparse_penalty.admit(self.y[(..., *self.inside)])
        self.u = np.zeros_like(self.y)
        self.weights = self._weights()
        self._prepare_residual()
        self.rho, self.changes = _FIRST_RHO * self._scale_of_atoms(), 0
        self.rough = None if problem.roughness is None else _Rough(problem, self.grid, self.scale, self.rho)
        self._follow_rho()

    def codes(self):
        """The sparse iterate, cut to the positions."""
        return np.ascontiguousarray(self.y[(..., *self.inside)])

    # ------------------------------------------------------------------------------------------------------- what stays
    def _weights(self):
        """Weights on the grid, infinite off the positions, with axes (atoms, points) of length 1 where they repeat."""
        given = self.problem.weights
        if self.grid == self.problem.geometry.positions:
            if given is None:
                return np.ones((1, 1), self.dtype)
            return np.ascontiguousarray(given.reshape(len(given), -1).astype(self.dtype))
        weights = np.full((1 if given is None else len(given), *self.grid), np.inf, self.dtype)
        weights[(..., *self.inside)] = 1 if given is None else given
        return weights.reshape(len(weights), -1)

    def _prepare_residual(self):
        """Scale the mask to a largest factor of 1, and find where and how freely an impulse takes the residual."""
        problem = self.problem
        mask, signal = problem.mask, problem.signal
        self.scale = 1.0 if mask is None else float(np.abs(mask).max()) ** 2
        on_grid = np.zeros((*signal.shape[:2], *self.grid), self.dtype)
        on_grid[(..., *self.visible)] = signal if mask is None else np.where(mask != 0, signal, 0)
        self.signal = self._transform(on_grid)
        self.impulse = None
        if problem.geometry.boundary == "valid" or (mask is not None and np.ptp(np.abs(mask)) > 0):
            factors = np.full(on_grid.shape, 0.0 if problem.geometry.boundary == "valid" else 1.0)
            factors[(..., *self.visible)] = 1.0 if mask is None else mask.astype(np.float64) ** 2 / self.scale
            with np.errstate(divide="ignore"):
                stiffness = factors / (1 - factors)
            self.impulse = _Impulse(stiffness.astype(self.dtype), _IMPULSE_GAIN * self._scale_of_atoms())

    def _scale_of_atoms(self):
        """Mean eigenvalue of D D', in whose units rho is; 1 for atoms of zeros."""
        return float(self.values.mean()) or 1.0

    # -------------------------------------------------------------------------------------------------------- iteration
    def iterate(self):
        """One iteration."""
        problem, change = self.problem, self.signal - self.total
        if self.impulse is not None:
            change -= self._transform(self.impulse.difference)
        change = self._divide(change.reshape(*change.shape[:2], -1))
        level = max(problem.alpha / self.scale / self.rho, np.finfo(self.dtype).tiny)
        chunks, lanes = self._chunks(), self._lanes()
        totals = np.zeros((lanes, *change.shape), change.dtype)
        sums = np.zeros((lanes, self.kernels.N_SUMS))
        half = self.signal.shape[2:]
        y, u = (array.reshape(*self.shape[:2], -1) for array in (self.y, self.u))

        def work(lane, _):
            for some in chunks[lane::lanes]:
                n, k = some.stop - some.start, some.start
                spectra = np.empty((len(y), n, change.shape[-1]), change.dtype)
                self.products.correlate_spectra(change, self.atoms, k, spectra)
                if self._is_rough(k):
                    self.rough.finish(k, spectra)
                step = self._back(spectra.reshape(len(y), n, *half)).reshape(len(y), n, -1)
                if self._is_rough(k):
                    sums[lane] += self.rough.step(k, step.reshape(len(y), *self.grid), self.rho)
                    step -= y[:, some] - u[:, some]
                self.kernels.threshold_step(
                    y, u, step, k, self.weights, level, problem.joint, _RELAXATION, problem.positive, sums[lane]
                )  # fmt: skip
                self._add_synthesis(step, k, totals[lane])

        run_in_threads(work, lanes, self.n_threads)
        self.total = totals.sum(axis=0).reshape(self.signal.shape)
        sums = sums.sum(axis=0)
        if self.impulse is not None:
            sums += self.impulse.step(self._back(change.reshape(self.signal.shape)), self.rho)
        self.n_iter += 1
        self._balance(*np.sqrt(sums))

    def _balance(self, apart, size_x, size_y, moved, size_u):
        """Change rho where one of the relative residuals is much larger than the other."""
        if self.n_iter % _EVERY or self.changes >= _CHANGES or size_u == 0 or max(size_x, size_y) == 0:
            return
        primal, dual = apart / max(size_x, size_y), moved / size_u
        if primal == 0 or dual == 0:
            return
        ratio = sqrt(primal / (_BALANCE * dual))
        if 1 / 1.1 < ratio < 1.1:
            return
        factor = min(max(ratio, 0.1), 10.0)
        self.changes += 1
        self.rho *= factor
        self.u *= self.dtype.type(1 / factor)
        if self.impulse is not None:
            self.impulse.u *= self.dtype.type(1 / factor)
        if self.rough is not None:
            self.rough.rescale(1 / factor)
        self._follow_rho()

    def _follow_rho(self):
        """Compute what changes with rho."""
        if self.rough is not None:
            self.values, self.vectors = eigen_of_channels(self.atoms, self.rough.gains(self.rho))
        total = np.zeros((len(self.y), *self.atoms.shape[1:]), self.atoms.dtype)
        for some in self._chunks():
            difference = self.y[:, some] - self.u[:, some]
            self._add_synthesis(difference.reshape(*difference.shape[:2], -1), some.start, total)
        self.total = total.reshape(self.signal.shape)

    def _divide(self, spectrum):
        """(rho + D D' (+ impulse))^-1 of the spectrum of a signal, (J, C, F)."""
        extra = self.rho + (0.0 if self.impulse is None else self.impulse.gain)
        inverse = (1 / (extra + self.values)).astype(self.dtype)
        if self.vectors is None:
            return spectrum * inverse
        along = np.einsum("cif,jcf->jif", self.vectors.conj(), spectrum) * inverse
        return np.einsum("cif,jif->jcf", self.vectors, along)

    def _add_synthesis(self, maps, first, total):
        """Add what a block of maps y - u makes to the spectrum of D (y - u)."""
        spectra = self._transform(maps.reshape(*maps.shape[:2], *self.grid)).reshape(*maps.shape[:2], -1)
        if self._is_rough(first):
            self.rough.begin(first, spectra)
        self.products.add_synthesis(spectra, self.atoms, first, total)

    def _is_rough(self, k):
        return self.rough is not None and k in self.rough.smoothness

    def _chunks(self):
        """Blocks of atoms; an atom with smoothness is one of its own."""
        n_atoms = self.shape[1]
        size = max(1, _CHUNK // (self.shape[0] * self.n_points))
        alone = [k for k in range(n_atoms) if self._is_rough(k)]
        ends = [0, *(end for k in alone for end in (k, k + 1)), n_atoms]
        return [
            slice(k, min(k + size, stop))
            for start, stop in zip(ends[:-1], ends[1:], strict=True)
            for k in range(start, stop, size)
        ]

    def _lanes(self):
        return max(1, min(_LANES, len(self._chunks()) // 2))

    def _transform(self, array):
        return fft.rfftn(array, axes=self.axes)

    def _back(self, spectrum):
        return fft.irfftn(spectrum, s=self.grid, axes=self.axes, overwrite_x=True)


class _Impulse:
    """Maps of an impulse in every channel: what of the residual does not count.

    A factor w on a residual of unit stiffness is a spring of stiffness w / (1 - w) in series with it: 0 leaves the
    impulse free, 1 holds it at 0.

    Parameters
    ----------
    stiffness : ndarray of the shape of the signal on the grid
    gain : float
        Squared norm of the impulse.
    """

    def __init__(self, stiffness, gain):
        self.stiffness, self.gain = stiffness, gain
        self.y, self.u = np.zeros_like(stiffness), np.zeros_like(stiffness)

    @property
    def difference(self):
        """What the impulse adds to D (y - u)."""
        return self.y.dtype.type(sqrt(self.gain)) * (self.y - self.u)

    def step(self, change, rho):
        """Its part of an iteration; returns its sums, as `threshold_step` does."""
        one = self.y.dtype.type
        before = self.y
        x = before - self.u + one(sqrt(self.gain)) * change
        x = one(_RELAXATION) * x + one(1 - _RELAXATION) * before
        total = x + self.u
        self.y = total * (1 / (1 + self.stiffness * one(self.gain / rho)))
        self.u = total - self.y
        return _sums(x, self.y, before, self.u)


class _Rough:
    """The maps with a penalty on their differences.

    For maps that wrap the penalty is diagonal in the frequency domain, and the x-step takes it in. For others the
    differences that cross a border do not count: they have copies p with multipliers of their own, kappa G x = p, and
    the x-step takes in kappa^2 rho |G x|^2, with differences that wrap.
    """

    def __init__(self, problem, grid, scale, rho):
        penalty, geometry = problem.roughness, problem.geometry
        self.smoothness = {int(k): float(penalty.smoothness[k]) / scale for k in penalty.components}
        self.grid, self.axes, self.dtype = grid, tuple(range(-len(grid), 0)), problem.dtype
        line = RoughnessPenalty(np.ones(1), grid, wraps=True).eigenvalues
        self.eigenvalues = line[..., : grid[-1] // 2 + 1].ravel()
        self.spectra = {}
        self.copies = None
        if geometry.boundary != "circular":
            self.kappa = {k: sqrt(smoothness / rho) for k, smoothness in self.smoothness.items()}
            shape = (len(grid), len(problem.signal), *grid)
            self.copies = {k: np.zeros(shape, self.dtype) for k in self.smoothness}
            self.multipliers = {k: np.zeros(shape, self.dtype) for k in self.smoothness}
            self.counts = np.zeros((len(grid), *grid), self.dtype)
            for axis in range(len(grid)):
                inner = [slice(n - (other == axis)) for other, n in enumerate(geometry.positions)]
                self.counts[(axis, *inner)] = 1

    def gains(self, rho):
        """rho over the x-step's diagonal, at every frequency, of every atom here."""
        self._gains = {
            k: 1 / (1 + (smoothness / rho if self.copies is None else self.kappa[k] ** 2) * self.eigenvalues)
            for k, smoothness in self.smoothness.items()
        }
        return self._gains

    def begin(self, k, spectra):
        """From the spectrum of y - u to what the x-step starts from; in place, and kept for `finish`."""
        if self.copies is not None:
            flux = self.dtype.type(self.kappa[k]) * (self.copies[k] - self.multipliers[k])
            back = sum(np.roll(part, 1, axis) - part for part, axis in zip(flux, self.axes, strict=True))
            spectra += fft.rfftn(back, axes=self.axes).reshape(spectra.shape)
        spectra *= self._gains[k].astype(self.dtype)
        self.spectra[k] = spectra

    def finish(self, k, spectra):
        """From D'q to the spectrum of x, in place."""
        spectra *= self._gains[k].astype(self.dtype)
        spectra += self.spectra[k]

    def step(self, k, x, rho):
        """Copies and multipliers once x is known; returns their sums, as `threshold_step` does."""
        if self.copies is None:
            return np.zeros(5)
        one, kappa = self.dtype.type, self.kappa[k]
        before = self.copies[k]
        steps = one(kappa) * np.stack([np.roll(x, -1, axis) - x for axis in self.axes])
        steps = one(_RELAXATION) * steps + one(1 - _RELAXATION) * before
        total = steps + self.multipliers[k]
        share = 1 / (1 + self.counts * one(self.smoothness[k] / (kappa * kappa * rho)))
        self.copies[k] = total * share[:, None]
        self.multipliers[k] = total - self.copies[k]
        return _sums(steps, self.copies[k], before, self.multipliers[k])

    def rescale(self, factor):
        """Keep rho times the multipliers when rho changes."""
        if self.copies is not None:
            for multipliers in self.multipliers.values():
                multipliers *= self.dtype.type(factor)


def _sums(x, y, before, u):
    parts = (x - y, x, y, y - before, u)
    return np.array([np.square(part, dtype=np.float64).sum() for part in parts])
