"""The convolutional problem written down plainly in float64, its duality gap, and a slow solver: the judge of others.

Nothing here is shared with the package. One signal at a time, in the users' forms: x (*spatial[, channels]),
atoms (K, *support[, channels]), maps (K, *positions[, channels]). Atoms have channels if their last axis is as long as
that of a signal with as many axes as an atom.
"""

import numpy as np


class PlainProblem:
    """0.5 |W (D z - x)|^2 + alpha sum w ((1 - joint) |z|_1 + joint |z|_2 over channels) + 0.5 sum smoothness |G z|^2.

    Parameters
    ----------
    x, atoms : ndarray
    alpha : float
    boundary : {"circular", "full", "valid"}, default="circular"
    positive : bool, default=False
    mask : ndarray of x's shape or of its spatial axes, or None, default=None
        True where a sample is missing.
    weights : float or ndarray of shape (K,) or (K, *positions), default=1.0
        Not 0: the gap would have no bound.
    joint : float, default=0.0
    smoothness : ndarray of shape (K,) or None, default=None
    """

    def __init__(
        self, x, atoms, alpha, boundary="circular", positive=False, mask=None, weights=1.0, joint=0.0, smoothness=None
    ):
        x, atoms = np.asarray(x, float), np.asarray(atoms, float)
        coloured = x.ndim == atoms.ndim - 1 and x.shape[-1] == atoms.shape[-1]
        self.d = atoms.ndim - 2 if coloured else atoms.ndim - 1
        many = x.ndim > self.d and not coloured
        self._one_code = not many
        # signals (J, C, *spatial), atoms (K, C, *support), maps (J, K, *positions)
        self.x = np.moveaxis(x, -1, 0)[None] if coloured else np.moveaxis(x, -1, 0)[:, None] if many else x[None, None]
        self.atoms = np.moveaxis(atoms, -1, 1) if coloured else atoms[:, None]
        if mask is None:
            self.seen = np.ones_like(self.x)
        else:
            seen = ~np.asarray(mask, bool)
            if seen.ndim > self.d:
                seen = np.moveaxis(seen, -1, 0)[(None,) if coloured else (slice(None), None)]
            self.seen = np.broadcast_to(seen, self.x.shape).astype(float)
        self.x = np.where(self.seen > 0, self.x, 0.0)
        self.alpha, self.positive, self.joint = alpha, positive, joint
        weights = np.asarray(weights, float)
        self.weights = weights.reshape(-1, *[1] * self.d) if weights.ndim < 2 else weights
        self.smoothness = None if smoothness is None else np.asarray(smoothness, float)
        self.boundary = boundary
        spatial, support = np.array(self.x.shape[2:]), np.array(self.atoms.shape[2:])
        self.positions = tuple(spatial + {"circular": 0, "full": -1, "valid": 1}[boundary] * (support - 1))
        self.grid = tuple(np.maximum(spatial, self.positions))
        self._axes = tuple(range(-self.d, 0))
        shift = support - 1 if boundary == "valid" else 0 * support
        self._visible = (..., *(slice(s, s + n) for s, n in zip(shift, spatial, strict=True)))
        self._spectra = np.fft.fftn(self.atoms, self.grid, self._axes)
        self.energy = 0.5 * np.sum(self.x**2)

    def synthesize(self, z):
        """D z, (J, C, *spatial)."""
        spectrum = np.einsum("jk...,kc...->jc...", np.fft.fftn(z, self.grid, self._axes), self._spectra)
        return np.fft.ifftn(spectrum, axes=self._axes).real[self._visible]

    def correlate(self, r):
        """D'r, (J, K, *positions)."""
        padded = np.zeros((*r.shape[:2], *self.grid))
        padded[self._visible] = r
        spectrum = np.fft.fftn(padded, axes=self._axes)
        z = np.fft.ifftn(np.einsum("jc...,kc...->jk...", spectrum, self._spectra.conj()), axes=self._axes).real
        return z[(..., *(slice(n) for n in self.positions))]

    def differences(self, z):
        """Forward differences of all maps along every axis, the last one wrapping or left out."""
        steps = []
        for axis in self._axes:
            step = np.roll(z, -1, axis) - z
            if self.boundary != "circular":
                np.moveaxis(step, axis, 0)[-1] = 0
            steps.append(step)
        return steps

    def rough(self, z):
        """smoothness G'G z."""
        total = np.zeros_like(z)
        for axis, step in zip(self._axes, self.differences(z), strict=True):
            total += np.roll(step, 1, axis) - step  # a step left out is 0
        return self._rates * total

    @property
    def _rates(self):
        return self.smoothness.reshape(-1, *[1] * self.d)

    def gradient(self, z):
        """Of the smooth part."""
        gradient = -self.correlate(self.seen * (self.x - self.synthesize(z)))
        return gradient if self.smoothness is None else gradient + self.rough(z)

    def fit(self, z):
        """The smooth part."""
        fit = 0.5 * np.sum((self.seen * (self.x - self.synthesize(z))) ** 2)
        if self.smoothness is not None:
            fit += 0.5 * sum(np.sum(self._rates * step**2) for step in self.differences(z))
        return fit

    def penalty(self, z):
        """The other part."""
        groups = (1 - self.joint) * np.abs(z).sum(0) + self.joint * np.sqrt((z**2).sum(0))
        return self.alpha * np.sum(self.weights * groups)

    def objective(self, z):
        """What is minimised, for maps (J, K, *positions)."""
        return self.fit(z) + self.penalty(z)

    def gap(self, z):
        """Duality gap: the differences are further samples, all of them 0, that the maps have to explain.

        The dual point is the residual, made shorter until it is feasible. With two norms in the penalty that is: what
        the soft threshold of the correlations leaves has an l2 norm within the rest of the penalty.
        """
        gradient = self.gradient(z)
        correlations = np.maximum(-gradient, 0) if self.positive else np.abs(gradient)
        scale = 1.0
        if not self._feasible(correlations):
            low, high = 0.0, 1.0
            for _ in range(100):
                scale = 0.5 * (low + high)
                low, high = (scale, high) if self._feasible(scale * correlations) else (low, scale)
            scale = low
        r = self.seen * (self.x - self.synthesize(z))
        # 0.5 |y|^2 - 0.5 |y - t r|^2 for all samples together, of which y is 0 in the differences
        return self.objective(z) - scale * np.sum(self.x * r) + scale**2 * self.fit(z)

    def _feasible(self, correlations):
        left = np.maximum(correlations - self.alpha * (1 - self.joint) * self.weights, 0)
        return np.all(np.sqrt((left**2).sum(0)) <= self.alpha * self.joint * self.weights + 1e-300)

    def lipschitz(self):
        """A bound of the gradient's slope: exact for a circular boundary without mask and smoothness."""
        spectra = np.moveaxis(self._spectra.reshape(*self.atoms.shape[:2], -1), -1, 0)
        rough = 0.0 if self.smoothness is None else 4 * self.d * self.smoothness.max()
        return np.linalg.eigvalsh(np.einsum("wkc,wke->wce", spectra, spectra.conj())).max() + rough

    def prox(self, z, step):
        """Proximal operator of `step` times the penalty."""
        threshold = step * self.alpha * self.weights
        z = np.maximum(z, 0) if self.positive else z
        z = np.sign(z) * np.maximum(np.abs(z) - (1 - self.joint) * threshold, 0)
        if self.joint:
            norms = np.sqrt((z**2).sum(0))
            z = z * np.maximum(1 - self.joint * threshold / np.maximum(norms, 1e-300), 0)
        return z

    def fista(self, tol=1e-10, max_iter=100_000, every=50):
        """Maps whose gap is at most `tol`, and that gap: FISTA that forgets its momentum when it points uphill."""
        step = 1 / self.lipschitz()
        z = y = np.zeros((len(self.x), len(self.atoms), *self.positions))
        t, best = 1.0, np.inf
        for iteration in range(max_iter):
            new = self.prox(y - step * self.gradient(y), step)
            if np.sum((y - new) * (new - z)) > 0:
                t = 1.0
            following = 0.5 * (1 + np.sqrt(1 + 4 * t * t))
            y, z, t = new + (t - 1) / following * (new - z), new, following
            if iteration % every == every - 1:
                best = self.gap(z)
                if best <= tol:
                    break
        return z, best

    def inside(self, maps):
        """Maps of the users' form as (J, K, *positions)."""
        maps = np.asarray(maps, float)
        return maps[None] if self._one_code else np.moveaxis(maps, -1, 0)

    def outside(self, z):
        """The other way round."""
        return z[0] if self._one_code else np.moveaxis(z, 0, -1)
