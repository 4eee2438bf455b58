"""One convolutional sparse coding problem: a signal, shared atoms, a penalty; and what certifies its codes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparseshare.devices import array_module, to_host
from sparseshare.optimization.duality import multiple_within, scaled_dual_value, without
from sparseshare.optimization.penalties import RoughnessPenalty, SparsePenalty
from sparseshare.optimization.reductions import inner


@dataclass
class Solution:
    """Codes of one signal, and how good they are.

    Attributes
    ----------
    maps : ndarray of shape (n_signals, n_components, *positions), or SparseMaps
    objective : float
    gap : float
        Duality gap: the objective is at most this much above the least.
    n_iter : int
    converged : bool
    """

    maps: object
    objective: float
    gap: float
    n_iter: int
    converged: bool


class ConvProblem:
    """Minimise over maps z the sum of

        0.5 |W (D z - x)|^2 + alpha sum_kp w_kp ((1 - joint) sum_j |z_jkp| + joint sqrt(sum_j z_jkp^2))
        + 0.5 sum_k smoothness_k |G z_k|^2

    Everything is checked already, and in the forms of this room (channels first). All arrays but `smoothness` live on
    one device, the CPU or a GPU.

    Parameters
    ----------
    signal : ndarray of shape (n_signals, n_channels, *signal_shape)
        x. The n_signals meet only in `joint`.
    operator : Convolution
        D.
    alpha : float
    weights : ndarray that broadcasts to (n_components, *positions), or None
        w; None is 1.
    positive : bool, default=False
        z >= 0.
    joint : float, default=0.0
        Part of the penalty that is the l2 norm over the n_signals, 0 to 1.
    smoothness : ndarray of shape (n_components,) or None, default=None
        Penalty on forward differences of the maps along every axis; they wrap for a circular boundary only.
    mask : ndarray of the signal's shape or None, default=None
        W, factors of the residual's samples.
    """

    def __init__(self, signal, operator, alpha, weights=None, positive=False, joint=0.0, smoothness=None, mask=None):
        self.signal, self.operator, self.alpha = signal, operator, alpha
        self.weights, self.positive, self.joint, self.smoothness = weights, positive, joint, smoothness
        self.mask = mask

    @property
    def atoms(self):
        """Atoms, shape (n_components, n_channels, *support)."""
        return self.operator.atoms

    @property
    def geometry(self):
        """Where the atoms lie."""
        return self.operator.geometry

    @property
    def dtype(self):
        """Precision of the codes."""
        return self.operator.dtype

    @property
    def maps_shape(self):
        """Shape of dense codes."""
        return (len(self.signal), len(self.atoms), *self.geometry.positions)

    @cached_property
    def energy(self):
        """0.5 |W x|^2, the unit of the tolerance."""
        return 0.5 * _squared_norm(self.target)

    @property
    def sparse_penalty(self):
        """The penalty on the codes' magnitudes."""
        return SparsePenalty(self.alpha, self.weights, self.positive, self.joint)

    @cached_property
    def roughness(self):
        """The penalty on the maps' differences, or None."""
        if self.smoothness is None or not np.any(self.smoothness):
            return None
        return RoughnessPenalty(self.smoothness, self.geometry.positions, self.geometry.boundary == "circular")

    @cached_property
    def lipschitz(self):
        """The smooth part's largest curvature, or a bound from above."""
        factor = 1.0 if self.mask is None else float(abs(self.mask).max()) ** 2
        return factor * self.operator.lipschitz + (0.0 if self.roughness is None else self.roughness.lipschitz)

    @cached_property
    def target(self):
        """W x."""
        return self._weigh(self.signal)

    def synthesize(self, maps):
        """W D z."""
        return self._weigh(self.operator.synthesize(maps))

    def residual(self, maps):
        """W (x - D z)."""
        return self.target - self.synthesize(maps)

    def correlate(self, residual):
        """D'W r, for a weighted residual r."""
        return self.operator.correlate(self._weigh(residual))

    def gradient(self, maps, residual=None):
        """Gradient of the smooth part: D'W^2 (D z - x) + smoothness G'G z."""
        gradient = self.correlate(self.residual(maps) if residual is None else residual)
        array_module(gradient).negative(gradient, out=gradient)
        return gradient if self.roughness is None else self.roughness.add_gradient(maps, gradient)

    def penalty(self, maps):
        """alpha times the weighted norms, in float64."""
        return self.sparse_penalty.value(maps)

    def objective(self, maps, residual=None):
        """What is minimised; `residual` is `residual(maps)`, if it is at hand."""
        fit = 0.5 * _squared_norm(self.residual(maps) if residual is None else residual)
        if self.roughness is not None:
            fit += self.roughness.value(maps)
        return fit + self.penalty(maps)

    def gap(self, maps, gradient=None):
        """How far the objective may be above the least: its distance to `dual_value`.

        Parameters
        ----------
        maps : ndarray of shape `maps_shape`
        gradient : ndarray of the same shape or None, default=None
            `gradient(maps)` if it is at hand.
        """
        residual = self.residual(maps)
        gradient = self.gradient(maps, residual) if gradient is None else gradient
        return max(self.objective(maps, residual) - self.dual_value(maps, residual, gradient), 0.0)

    def dual_value(self, maps, residual, gradient):
        """A lower bound on every objective, from any maps: the dual value of their rescaled residual.

        Parameters
        ----------
        maps : ndarray of shape `maps_shape`
        residual : ndarray of the signal's shape
            `residual(maps)`.
        gradient : ndarray of shape `maps_shape`
            `gradient(maps)`.

        Returns
        -------
        float

        Notes
        -----
        With the rows sqrt(smoothness) G below W D a residual has a second part, -sqrt(smoothness) G z, and its
        correlations are minus the gradient. Of atoms of weight 0 they must vanish. Where such an atom has smoothness,
        its second part is chosen so, by a Poisson equation that has a solution once the residual is orthogonal to all
        signals that constant maps make. For coefficients of weight 0 without smoothness, or of weight 0 at some
        positions only, no feasible point but 0 is known, the bound is 0 and the gap is the objective.
        """
        xp, roughness, norm2 = array_module(residual), self.roughness, _squared_norm(residual)
        product = inner(self.target, residual)
        free = self._free_atoms
        if len(free) == 0:
            needed = self.sparse_penalty.largest_alpha(gradient, negated=True)
            if roughness is not None:
                norm2 += 2 * roughness.value(maps)
            return scaled_dual_value(product, norm2, multiple_within(self.alpha, needed))
        if roughness is None or not np.isin(free, roughness.components).all():
            return 0.0
        rows = residual.reshape(len(residual), -1)
        residual = without(self._constant_signals, rows).reshape(residual.shape).astype(self.dtype)
        slopes = self.correlate(residual)
        norm2 = _squared_norm(residual) + 2 * roughness.dual_energy(slopes, free)
        product = inner(self.target, residual)
        others = xp.zeros_like(maps)
        penalised = np.setdiff1d(np.arange(len(self.atoms)), free)
        others[:, penalised] = maps[:, penalised]
        norm2 += 2 * roughness.value(others)
        slopes = xp.subtract(slopes, roughness.add_gradient(others, xp.zeros_like(slopes)), out=slopes)
        slopes[:, free] = 0
        needed = self.sparse_penalty.largest_alpha(slopes)
        return scaled_dual_value(product, norm2, multiple_within(self.alpha, needed))

    def largest_alpha(self):
        """The least alpha at which all codes are zero.

        Atoms of weight 0 do not count, nor is what they explain taken off the signal: with them it is a bound from
        above, as a rule.
        """
        correlations = self.correlate(self.target)
        if self.weights is not None:
            correlations *= self.weights != 0
        return self.sparse_penalty.largest_alpha(correlations)

    @cached_property
    def _free_atoms(self):
        """Atoms with a weight of 0."""
        if self.weights is None:
            return np.array([], int)
        free = (self.weights == 0).any(axis=tuple(range(1, self.weights.ndim)))
        return np.flatnonzero(np.broadcast_to(to_host(free), len(self.atoms)))

    @cached_property
    def _constant_signals(self):
        """What every atom of weight 0 makes of a map of ones, as an (n_atoms, n_signals, n) array."""
        xp, made = array_module(self.signal), []
        for k in self._free_atoms.tolist():
            maps = xp.zeros(self.maps_shape, self.dtype)
            maps[:, k] = 1
            made.append(self.synthesize(maps).reshape(len(self.signal), -1))
        return xp.stack(made)

    def _weigh(self, signal):
        return signal if self.mask is None else self.mask * signal


def _squared_norm(array):
    if array_module(array) is not np:
        return inner(array, array)
    flat = array.ravel().astype(np.float64, copy=False)
    return float(flat @ flat)
