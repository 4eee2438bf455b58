"""Atoms for given statistics: the quadratic function they stand for, what atoms may be, and its projected descent."""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import fft

from sparseshare.devices import array_module
from sparseshare.optimization.constraints import AtomConstraint, row_norms
from sparseshare.optimization.reductions import highest, inner

LEAST_MASS = 1e-10  # of the largest curvature: atoms below it are left as they are
_GROWTH = 1.5  # of the step's inverse after a refusal


class AtomObjective:
    """F(D) = 0.5 |x - D z|^2 as a function of the atoms, from statistics alone, and its gradient; on either device.

    The gradient is a convolution of the atoms with phi (Dupré la Tour et al. 2018, section 3.2), taken here by
    transforms on a grid as small as phi.

    Parameters
    ----------
    statistics : ConvStatistics
        Not to be changed while this is in use.

    Attributes
    ----------
    curvatures : ndarray of shape (n_components,)
        No second derivative within an atom is larger.
    """

    def __init__(self, statistics):
        xp = self._xp = array_module(statistics.psi)
        self.psi, self.energy = statistics.psi, float(statistics.energy)
        self._fft = fft if xp is np else xp.fft
        self.support = statistics.support
        self._axes = tuple(range(-len(self.support), 0))
        self._grid = tuple(fft.next_fast_len(2 * length - 1, real=True) for length in self.support)
        n_components = len(self.psi)
        around = xp.ix_(*(xp.arange(1 - length, length) for length in self.support))
        spectra = xp.empty((n_components, n_components, *self._grid[:-1], self._grid[-1] // 2 + 1), np.complex128)
        for k in range(n_components):  # row by row: all of phi on the grid would be as large again
            row = xp.zeros((n_components, *self._grid))
            row[(slice(None), *around)] = statistics.row(k)
            spectra[k] = self._fft.rfftn(row, axes=self._axes)
        spectra = xp.moveaxis(spectra.reshape(n_components, n_components, -1), -1, 0)
        self.curvatures = xp.maximum(spectra.real.diagonal(axis1=1, axis2=2).max(axis=0), 0)
        self._spectra = xp.ascontiguousarray(spectra)

    def apply(self, atoms):
        """phi * D, shape and dtype of `psi`."""
        xp, (n_components, n_channels) = self._xp, self.psi.shape[:2]
        spectra = self._fft.rfftn(atoms, s=self._grid, axes=self._axes)
        shape = spectra.shape
        products = self._spectra @ xp.moveaxis(spectra.reshape(n_components, n_channels, -1), -1, 0)
        products = xp.ascontiguousarray(xp.moveaxis(products, 0, -1)).reshape(shape)
        inside = tuple(slice(length) for length in self.support)
        return self._fft.irfftn(products, s=self._grid, axes=self._axes)[(..., *inside)]

    def gradient(self, atoms):
        """dF / dD, shape (n_components, n_channels, *support)."""
        return self.apply(atoms) - self.psi

    def value(self, atoms, applied=None):
        """F(D); `applied` is `apply(atoms)` if it is at hand."""
        return self.energy + self.change(atoms, applied)

    def change(self, atoms, applied=None):
        """F(D) - F(0), without the cancellation of the energy."""
        applied = self.apply(atoms) if applied is None else applied
        return inner(atoms.astype(np.float64, copy=False), 0.5 * applied - self.psi)


@dataclass(frozen=True)
class AtomForm:
    """What atoms may be.

    Parameters
    ----------
    constraint : AtomConstraint
        Of every atom, all of its channels together.
    support : tuple of int
        Spatial axes of the array of atoms.
    supports : tuple of tuples or None, default=None
        Spatial axes of each atom, which is zero outside; None where they are all `support`.
    rank1 : bool, default=False
        Every atom is u v', a pattern over the channels times a pattern over the support, both within the constraint's
        norm.
    n_fixed : int, default=0
        The first atoms stay what they are, whatever that is.

    Raises
    ------
    ValueError
    """

    constraint: AtomConstraint
    support: tuple
    supports: tuple | None = None
    rank1: bool = False
    n_fixed: int = 0
    _groups: dict = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self):
        if self.constraint.l1_budget is not None:
            raise ValueError("shared atoms know no l1 budget")
        if self.rank1 and self.n_fixed:
            raise ValueError("rank1 knows no fixed atoms")
        groups = {}
        if self.supports is not None and set(self.supports) != {self.support}:
            for k, shape in enumerate(self.supports):
                groups.setdefault(shape, []).append(k)
        object.__setattr__(self, "_groups", groups)

    def project(self, atoms):
        """Nearest atoms that may be (for rank 1: of the nearest matrix of rank 1, its factors); a new array.

        Parameters
        ----------
        atoms : ndarray of shape (n_components, n_channels, *support)
        """
        if self.rank1:
            return join(*self.factors(atoms))
        projected = self._by_support(atoms, self.constraint.project)
        projected[: self.n_fixed] = atoms[: self.n_fixed]
        return projected

    def movable(self, objective):
        """Which atoms an update moves: those that are used enough, and not fixed."""
        movable = objective.curvatures > LEAST_MASS * highest(objective.curvatures)
        movable[: self.n_fixed] = False
        return movable

    def of(self, members):
        """The form of some of the atoms."""
        supports = None if self.supports is None else tuple(self.supports[k] for k in members)
        return replace(self, supports=supports, n_fixed=0)

    def factors(self, atoms):
        """Patterns u (n_components, n_channels) and v (n_components, *support) of the nearest matrices of rank 1."""
        xp = array_module(atoms)
        if self.constraint.nonnegative:
            atoms = xp.maximum(atoms, 0)
        u, scale, v = xp.linalg.svd(atoms.reshape(*atoms.shape[:2], -1), full_matrices=False)
        u, scale, v = u[:, :, 0], scale[:, 0], v[:, 0].reshape(len(atoms), *self.support)
        if self.constraint.nonnegative:
            u, v = abs(u), abs(v)
        # The norm is divided evenly, so that neither half starts at the other's bound.
        root = scale**0.5
        return self.project_patterns((root * u.T).T), self.project_shapes((root * v.T).T)

    def project_patterns(self, u):
        """Nearest patterns over the channels: within the norm and the sign, never of zero mean."""
        constraint = AtomConstraint(self.constraint.norm, self.constraint.nonnegative)
        return constraint.project(u)

    def project_shapes(self, v):
        """Nearest patterns over the support."""
        return self._by_support(v[:, None], self.constraint.project)[:, 0]

    def _by_support(self, atoms, project):
        if not self._groups:
            return project(atoms.reshape(len(atoms), -1)).reshape(atoms.shape)
        xp = array_module(atoms)
        projected = xp.zeros_like(atoms)
        for shape, members in self._groups.items():
            at = (xp.asarray(members), slice(None), *map(slice, shape))
            own = atoms[at]
            projected[at] = project(own.reshape(len(members), -1)).reshape(own.shape)
        return projected


def join(u, v):
    """Atoms of rank 1, shape (n_components, n_channels, *support)."""
    return u.reshape(*u.shape, *[1] * (v.ndim - 1)) * v[:, None]


def update_atoms(atoms, objective, form, *, max_iter=50, tol=1e-3):
    """Descend the quadratic function over the atoms that may be: it never rises.

    Accelerated projected gradient, restarted where it would rise. An atom's step is its own curvature's inverse, times
    a factor common to all: projections onto the atoms' sets stay what they are, and seldom used atoms move as fast as
    the others.

    Parameters
    ----------
    atoms : ndarray of shape (n_components, n_channels, *support)
        Where to start; they are as they may be.
    objective : AtomObjective
    form : AtomForm
    max_iter : int, default=50
    tol : float, default=1e-3
        Stop when a step lowers the function by at most this fraction of what all steps did.

    Returns
    -------
    ndarray of the same shape and dtype
    """
    if form.rank1:
        return _update_factors(atoms, objective, form, max_iter, tol)
    used = form.movable(objective)
    if not used.any():
        return atoms
    xp = array_module(atoms)
    spread = _spread(xp.where(used, objective.curvatures, 1), atoms.ndim)
    idle = ~_spread(used, atoms.ndim)
    current = point = xp.asarray(atoms, dtype=np.float64)
    applied = ahead = objective.apply(current)
    start = value = objective.change(current, applied)
    factor, momentum = 1.0, 1.0
    for _ in range(max_iter):
        slope = ahead - objective.psi
        while True:
            trial = xp.where(idle, current, form.project(point - slope / (factor * spread)))
            trial_applied = objective.apply(trial)
            step = trial - point
            if inner(step, trial_applied - ahead) <= factor * inner(spread * step, step) * (1 + 1e-12):
                break
            factor *= _GROWTH
        trial_value = objective.change(trial, trial_applied)
        if trial_value > value:
            if momentum == 1.0:  # a plain step cannot rise but by rounding
                break
            point, ahead, momentum = current, applied, 1.0
            continue
        following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        inertia = (momentum - 1) / following
        point = trial + inertia * (trial - current)
        ahead = trial_applied + inertia * (trial_applied - applied)
        decrease = value - trial_value
        current, applied, value, momentum = trial, trial_applied, trial_value, following
        if decrease <= tol * (start - value):
            break
    return current.astype(atoms.dtype, copy=False)


def _update_factors(atoms, objective, form, max_iter, tol):
    """Patterns over the channels and over the support in turns (Dupré la Tour et al. 2018, section 3.2)."""
    xp, used = array_module(atoms), form.movable(objective)
    u, v = form.factors(xp.asarray(atoms, dtype=np.float64))
    current = join(u, v)
    applied = objective.apply(current)
    start = value = objective.change(current, applied)
    factors = [1.0, 1.0]
    for _ in range(max_iter):
        before = value
        for side in (0, 1):
            slope = applied - objective.psi
            flat = slope.reshape(*slope.shape[:2], -1)
            if side == 0:
                moved, other = u, row_norms(v.reshape(len(v), -1))
                slope, project = (flat @ v.reshape(len(v), -1, 1))[..., 0], form.project_patterns
            else:
                moved, other = v, row_norms(u)
                slope, project = (u[:, None] @ flat).reshape(v.shape), form.project_shapes
            movable = used & (other > 0)
            spread = _spread(xp.where(movable, objective.curvatures * other**2, 1), moved.ndim)
            idle = ~_spread(movable, moved.ndim)
            while True:
                trial = xp.where(idle, moved, project(moved - slope / (factors[side] * spread)))
                joined = join(trial, v) if side == 0 else join(u, trial)
                trial_applied = objective.apply(joined)
                step = trial - moved
                bound = factors[side] * inner(spread * step, step) * (1 + 1e-12)
                if inner(joined - current, trial_applied - applied) <= bound:
                    break
                factors[side] *= _GROWTH
            trial_value = objective.change(joined, trial_applied)
            if trial_value > value:
                continue
            u, v = (trial, v) if side == 0 else (u, trial)
            current, applied, value = joined, trial_applied, trial_value
        if before - value <= tol * (start - value):
            break
    return current.astype(atoms.dtype, copy=False)


def _spread(values, n_axes):
    return values.reshape(-1, *[1] * (n_axes - 1))
