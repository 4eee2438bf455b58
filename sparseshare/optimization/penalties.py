"""Penalties on codes: the sparse one (weighted l1, joint l2,1, non-negative) and the one on differences of neighbours.

Codes are arrays of any shape, NumPy or CuPy, and weights live where they do. What the joint norm couples lies along
their first axis; weights broadcast to the others.
"""

from functools import cached_property
from math import inf, prod

import numpy as np
from scipy import fft

from sparseshare.devices import array_module, on_gpu, to_host

from .reductions import highest, inner

_HALVINGS = 60
_BLOCK = 2**16  # entries at a time


class SparsePenalty:
    """alpha * sum_p w_p ((1 - joint) sum_j |z_jp| + joint sqrt(sum_j z_jp^2)), and z >= 0 if `positive`.

    Parameters
    ----------
    alpha : float
        At least 0.
    weights : ndarray that broadcasts to one entry of the first axis of the codes, or None, default=None
        w >= 0; infinity keeps a coefficient out, None is 1.
    positive : bool, default=False
    joint : float, default=0.0
        Part of the penalty that is the l2 norm along the first axis, 0 to 1.

    Notes
    -----
    The l2,1 norm is that of the group lasso (Yuan and Lin 2006), with the l1 norm the sparse-group lasso (Simon et al.
    2013): its proximal map is the soft threshold followed by the shrinking of groups. Its dual norm is the epsilon norm
    (Ndiaye et al. 2016, equation 21).

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.optimization.penalties import SparsePenalty
    >>> penalty = SparsePenalty(0.5, weights=np.array([1.0, 2.0]))
    >>> penalty.value(np.array([[3.0, -1.0]]))
    2.5
    >>> penalty.prox(np.array([[3.0, -4.0]]), step=2.0)
    array([[ 2., -2.]])
    """

    def __init__(self, alpha, weights=None, positive=False, joint=0.0):
        self.alpha, self.weights, self.positive, self.joint = float(alpha), weights, positive, float(joint)

    @cached_property
    def _kept_out(self):
        """Where weights are infinite, or None if nowhere."""
        if self.weights is None:
            return None
        finite = array_module(self.weights).isfinite(self.weights)
        return None if finite.all() else ~finite

    def value(self, codes):
        """The penalty of codes, summed in float64.

        Parameters
        ----------
        codes : ndarray of shape (n_signals, ...)

        Returns
        -------
        float
            Infinite where a coefficient that is kept out is not 0, or a negative one is not allowed.
        """
        xp = array_module(codes)
        if self.positive and codes.size and codes.min() < 0:
            return inf
        total = 0.0
        weights = None if self.weights is None else xp.broadcast_to(self.weights, codes.shape[1:])
        for some in _blocks(codes):
            for norms, share in self._norms(codes[:, some]):
                if weights is not None:
                    norms = norms * xp.where(norms > 0, weights[some], 0)
                total += share * float(norms.sum(dtype=np.float64))
        return self.alpha * total

    def prox(self, v, step=1.0, out=None):
        """argmin_z 0.5 |z - v|^2 + step * value(z).

        Parameters
        ----------
        v : ndarray of shape (n_signals, ...)
        step : float, default=1.0
        out : ndarray of the same shape and dtype or None, default=None
            Where to write; may be `v`.

        Returns
        -------
        ndarray of the same shape and dtype
        """
        xp = array_module(v)
        out = xp.empty_like(v) if out is None else out
        threshold = xp.asarray(step * self.alpha, v.dtype)
        if self.weights is not None:
            threshold = threshold * self.weights.astype(v.dtype, copy=False)
        if self.joint == 1:
            xp.maximum(v, 0, out=out) if self.positive else xp.copyto(out, v)
        else:
            levels = xp.broadcast_to(v.dtype.type(1 - self.joint) * threshold, v.shape[1:])
            for some in _blocks(v):
                row, kept, level = v[:, some], out[:, some], levels[some]
                if self.positive:
                    xp.maximum(xp.subtract(row, level, out=kept), 0, out=kept)
                else:
                    xp.subtract(row, xp.clip(row, -level, level), out=kept)
        if self.joint:
            norms = _group_norms(out)
            shares = xp.maximum(norms - v.dtype.type(self.joint) * threshold, 0)
            shares /= xp.where(norms > 0, norms, 1)
            out *= shares
        return out

    def admit(self, codes):
        """Set to 0, in place, what has an infinite penalty: coefficients kept out, and negative ones if not allowed."""
        xp = array_module(codes)
        if self._kept_out is not None:
            xp.copyto(codes, 0, where=self._kept_out)
        if self.positive:
            xp.maximum(codes, 0, out=codes)
        return codes

    def largest_alpha(self, correlations, negated=False):
        """The least alpha at which the correlations of a residual make it dual feasible: the gauge of the dual ball.

        At the correlations of a signal it is the least alpha at which all codes are zero.

        Parameters
        ----------
        correlations : ndarray of shape (n_signals, ...)
        negated : bool, default=False
            `correlations` holds minus the correlations, as a gradient does.

        Returns
        -------
        float
            Infinite if the correlation of a coefficient of weight 0 is not 0.
        """
        xp = array_module(correlations)
        if not self.joint:
            weights = None if self.weights is None else xp.squeeze(self.weights)
            return _most(self._heights(correlations, negated), weights)
        if self.positive:
            magnitudes = xp.negative(correlations) if negated else correlations.copy()
            xp.maximum(magnitudes, 0, out=magnitudes)
        else:
            magnitudes = xp.abs(correlations)
        lower = _most(magnitudes.max(axis=0), self.weights)
        norms = _group_norms(magnitudes)
        if self.joint == 1 or not 0 < lower < inf:
            return _most(norms, self.weights)
        weights = xp.broadcast_to(xp.asarray(1.0 if self.weights is None else self.weights), norms.shape).ravel()
        contenders = xp.flatnonzero(norms.ravel() > lower * weights)
        groups = magnitudes.reshape(len(magnitudes), -1)[:, contenders] / weights[contenders].astype(np.float64)
        high = xp.maximum(_group_norms(groups), lower)
        low = xp.full_like(high, lower)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            inside = _group_norms(xp.maximum(groups - (1 - self.joint) * middle, 0)) <= self.joint * middle
            high, low = xp.where(inside, middle, high), xp.where(inside, low, middle)
        return max(lower, float(highest(high)))

    def _norms(self, codes):
        """Norms along the first axis, with their shares in the penalty."""
        if self.joint < 1:
            yield abs(codes).sum(axis=0) if len(codes) > 1 else abs(codes[0]), 1 - self.joint
        if self.joint:
            yield _group_norms(codes), self.joint

    def _heights(self, correlations, negated):
        """Largest magnitudes (if `positive`, correlations) along the axes on which weights do not vary."""
        shape = () if self.weights is None else self.weights.shape
        shape = (1,) * (correlations.ndim - len(shape)) + shape
        flat = tuple(axis for axis, length in enumerate(shape) if length == 1)
        if self.positive:
            return -correlations.min(axis=flat) if negated else correlations.max(axis=flat)
        return array_module(correlations).maximum(correlations.max(axis=flat), -correlations.min(axis=flat))


class RoughnessPenalty:
    """0.5 sum_k smoothness_k |G z_k|^2, with G the forward differences along every axis of a map.

    Parameters
    ----------
    smoothness : ndarray of shape (n_components,)
        At least 0; maps of smoothness 0 are left alone.
    shape : tuple of int
        Axes of a map.
    wraps : bool
        Whether the last entry along an axis has the first as its neighbour.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.optimization.penalties import RoughnessPenalty
    >>> RoughnessPenalty(np.array([2.0]), (3,), wraps=False).value(np.array([[[0.0, 1.0, 3.0]]]))
    5.0
    """

    def __init__(self, smoothness, shape, wraps):
        self.smoothness, self.shape, self.wraps = np.asarray(to_host(smoothness)), tuple(shape), wraps
        self.components = np.flatnonzero(self.smoothness)
        self._axes = tuple(range(-len(self.shape), 0))

    @property
    def lipschitz(self):
        """A bound on the largest eigenvalue of the Hessian."""
        return 4.0 * len(self.shape) * float(self.smoothness.max(initial=0))

    def value(self, maps):
        """The penalty of maps of shape (n_signals, n_components, *shape), in float64."""
        total = 0.0
        for k in self.components:
            for axis in self._axes:
                steps = self._differences(maps[:, k], axis)
                total += 0.5 * float(self.smoothness[k]) * inner(steps, steps)
        return total

    def add_gradient(self, maps, out):
        """Add smoothness_k G'G z_k to every map of `out`; return it."""
        xp = array_module(maps)
        for k in self.components:
            for axis in self._axes:
                flux = out.dtype.type(self.smoothness[k]) * self._differences(maps[:, k], axis)
                if self.wraps:
                    out[:, k] += xp.roll(flux, 1, axis) - flux
                else:
                    moved = xp.moveaxis(out[:, k], axis, -1)
                    flux = xp.moveaxis(flux, axis, -1)
                    moved[..., 1:] += flux
                    moved[..., :-1] -= flux
        return out

    def dual_energy(self, slopes, components):
        """0.5 sum_k <c_k, (smoothness_k G'G)^+ c_k>: the conjugate of the penalty, where every c_k sums to 0.

        A Poisson equation each, by the Fourier transform for maps that wrap, else by the cosine transform, which
        diagonalises differences that end at the border. The part of c_k that is constant is dropped.

        Parameters
        ----------
        slopes : ndarray of shape (n_signals, n_components, *shape)
        components : sequence of int
            Maps to count, all of smoothness above 0.

        Returns
        -------
        float
        """
        eigenvalues = self.eigenvalues
        inverse = np.divide(1, eigenvalues, out=np.zeros_like(eigenvalues), where=eigenvalues > 0)
        inverse = array_module(slopes).asarray(inverse)
        total = 0.0
        for k in components:
            power = self._power(slopes[:, k].astype(np.float64))
            total += 0.5 * float((power * inverse).sum()) / float(self.smoothness[k])
        return total

    def _power(self, slopes):
        """Squared magnitudes of the coefficients in the eigenvectors of G'G."""
        xp = array_module(slopes)
        if self.wraps:
            spectrum = xp.fft.fftn(slopes, axes=self._axes, norm="ortho")
            return spectrum.real**2 + spectrum.imag**2
        if xp is np:
            return fft.dctn(slopes, axes=self._axes, norm="ortho") ** 2
        # The cosine transform is, but for phases, the Fourier transform of the map and its mirror image.
        scale = 1.0
        for axis, length in zip(self._axes, self.shape, strict=True):
            slopes = xp.concatenate([slopes, xp.flip(slopes, axis)], axis=axis)
            line = xp.full(length, 0.5 / length)
            line[0] = 0.25 / length
            scale = scale * line.reshape([-1 if other == axis else 1 for other in self._axes])
        spectrum = xp.fft.fftn(slopes, axes=self._axes)[(..., *(slice(length) for length in self.shape))]
        return scale * (spectrum.real**2 + spectrum.imag**2)

    @property
    def eigenvalues(self):
        """Eigenvalues of G'G: over the frequencies of `fftn` for maps that wrap, else over those of `dctn`."""
        total = np.zeros(self.shape)
        for axis, length in enumerate(self.shape):
            frequencies = np.arange(length) * (2 * np.pi / length if self.wraps else np.pi / length)
            line = 2 - 2 * np.cos(frequencies)
            total += line.reshape([-1 if other == axis else 1 for other in range(len(self.shape))])
        return total

    def _differences(self, maps, axis):
        xp = array_module(maps)
        return xp.roll(maps, -1, axis) - maps if self.wraps else xp.diff(maps, axis=axis)


def _blocks(codes):
    """Slices of the second axis, so that temporaries stay in the cache; all of it on a GPU."""
    if on_gpu(codes):
        return [slice(None)]
    size = max(1, _BLOCK // max(1, prod((len(codes), *codes.shape[2:]))))
    return [slice(k, k + size) for k in range(0, codes.shape[1], size)]


def _group_norms(array):
    """l2 norms along the first axis."""
    if on_gpu(array):
        return array_module(array).sqrt((array * array).sum(axis=0))
    return np.sqrt(np.einsum("j...,j...->...", array, array))


def _most(heights, weights):
    """The largest height over its weight; 0 over 0 is 0."""
    xp = array_module(heights)
    heights = xp.maximum(heights, 0).astype(np.float64, copy=False)
    if weights is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            heights = xp.where(heights > 0, heights / weights, 0.0)
    return float(highest(heights))
