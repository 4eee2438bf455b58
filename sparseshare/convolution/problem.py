"""One convolutional sparse coding problem: a signal, shared atoms, a penalty; and what certifies its codes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


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

    Everything is checked already, and in the forms of this room (channels first).

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
        return 0.5 * _squared_norm(self._weigh(self.signal))

    def residual(self, maps):
        """W (x - D z)."""
        return self._weigh(self.signal - self.operator.synthesize(maps))

    def correlate(self, residual):
        """D'W r, for a weighted residual r."""
        return self.operator.correlate(self._weigh(residual))

    def gradient(self, maps):
        """Gradient of the smooth part: D'W^2 (D z - x) + smoothness G'G z."""
        gradient = -self.correlate(self.residual(maps))
        return gradient if self.smoothness is None else gradient + self.roughness(maps)

    def penalty(self, maps):
        """alpha times the weighted norms, in float64."""
        magnitudes = np.abs(maps)
        total = (1 - self.joint) * magnitudes
        if self.joint:
            total[0] += self.joint * np.sqrt((magnitudes**2).sum(axis=0))
        if self.weights is not None:
            total *= self.weights
        return self.alpha * float(total.sum(dtype=np.float64))

    def objective(self, maps):
        """What is minimised."""
        return 0.5 * _squared_norm(self.residual(maps)) + self.penalty(maps)

    def gap(self, maps, gradient=None):
        """How far the objective may be above the least: the duality gap of the rescaled residual.

        Parameters
        ----------
        maps : ndarray of shape `maps_shape`
        gradient : ndarray of the same shape or None, default=None
            `gradient(maps)` if it is at hand.
        """
        residual = self.residual(maps)
        correlations = self.correlate(residual) if gradient is None else -gradient
        if not self.positive:
            correlations = np.abs(correlations)
        if self.weights is not None:
            correlations = correlations / self.weights
        largest = max(float(correlations.max()), 0.0)
        scale = min(1.0, self.alpha / largest) if largest > 0 else 1.0
        fit = 0.5 * _squared_norm(residual)
        dual = self.energy - 0.5 * _squared_norm(self._weigh(self.signal) - scale * residual)
        return fit + self.penalty(maps) - dual

    def largest_alpha(self):
        """The least alpha at which all codes are zero."""
        correlations = self.correlate(self._weigh(self.signal))
        if not self.positive:
            correlations = np.abs(correlations)
        if self.weights is not None:
            correlations = correlations / self.weights
        return max(float(correlations.max()), 0.0)

    def _weigh(self, signal):
        return signal if self.mask is None else self.mask * signal


def _squared_norm(array):
    flat = array.ravel().astype(np.float64, copy=False)
    return float(flat @ flat)
