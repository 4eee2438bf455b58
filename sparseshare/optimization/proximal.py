"""Proximal gradient over any linear operator and any penalty: ISTA, FISTA, and FISTA with a step that finds itself.

Images A z are kept beside the codes z. Extrapolated points are linear combinations of codes, and so are their images:
an iteration takes one A' for the gradient there and one A for the image of the new codes, no more. Arrays are NumPy or
CuPy; on a GPU the plain problem runs in fused kernels that nothing on the host waits for.
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from sparseshare.devices import array_module, device_of, on_gpu
from sparseshare.kernels.dispatch import kernels_for

from .duality import multiple_within, scaled_dual_value
from .penalties import SparsePenalty
from .reductions import blocks, inner

METHODS = ("ista", "fista", "backtracking")
_SHRINK, _GROW = 0.9, 2.0  # the curvature after every step that held, and after one that did not


@dataclass(frozen=True)
class LeastSquares:
    """0.5 |A z - b|^2 + R(z): the smooth part of an objective.

    Parameters
    ----------
    forward, adjoint : callable
        A, from codes to images, and A'.
    target : ndarray
        b, an image.
    lipschitz : float
        Largest eigenvalue of A'A plus that of the Hessian of R, or a bound from above.
    quadratic : RoughnessPenalty or None, default=None
        R, a quadratic form with `value(codes)` and `add_gradient(codes, out)`; None is 0.
    """

    forward: object
    adjoint: object
    target: np.ndarray
    lipschitz: float
    quadratic: object = None

    def value(self, codes, residual):
        """The smooth part at codes with b - A z at hand, in float64."""
        fit = 0.5 * _squared_norm(residual)
        return fit if self.quadratic is None else fit + self.quadratic.value(codes)

    def gradient(self, codes, residual):
        """A'(A z - b) and the gradient of R, in a new array."""
        gradient = self.adjoint(residual)
        array_module(gradient).negative(gradient, out=gradient)
        return gradient if self.quadratic is None else self.quadratic.add_gradient(codes, gradient)

    def curvature(self, step, moved):
        """|A step|^2 + 2 R(step), given A step."""
        curvature = _squared_norm(moved)
        return curvature if self.quadratic is None else curvature + 2 * self.quadratic.value(step)


@dataclass
class Result:
    """Codes, and what is known of them.

    Attributes
    ----------
    codes : ndarray
    objective : float
    gap : float
        The objective is at most this much above the least.
    n_iter : int
    converged : bool
        Whether the gap is within the tolerance.
    """

    codes: np.ndarray
    objective: float
    gap: float
    n_iter: int
    converged: bool


def proximal_gradient(smooth, penalty, start, *, gap=0.0, max_iter=1000, method="backtracking", dual_value=None):
    """Minimise a least-squares term plus a sparse penalty.

    Parameters
    ----------
    smooth : LeastSquares
    penalty : SparsePenalty
        Anything with `alpha`, `value`, `prox` and `largest_alpha`.
    start : ndarray
        Codes to start from; overwritten.
    gap : float, default=0.0
        Duality gap at which to stop.
    max_iter : int, default=1000
    method : {"backtracking", "fista", "ista"}, default="backtracking"
        "ista" and "fista" take the step 1 / lipschitz; "backtracking" takes the longest that holds.
    dual_value : callable or None, default=None
        `dual_value(codes, residual, gradient)` is a lower bound on all objectives, computed at any codes. None rescales
        the residual. The best bound of all iterations counts. `codes` may be None where `smooth` has no quadratic.
        On a GPU a function of the host makes the device wait in every iteration: give None where it would do.

    Returns
    -------
    Result

    Notes
    -----
    "ista" and "fista": Beck and Teboulle 2009, with the momentum dropped when it points uphill (O'Donoghue and Candes
    2015, section 3.2). "backtracking": the method of Florea and Vorobyov 2017 ("A robust FISTA-like algorithm"), whose
    curvature falls by a tenth every iteration and doubles when it was too small, with the same restart. It keeps three
    arrays of codes.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.optimization.penalties import SparsePenalty
    >>> from sparseshare.optimization.proximal import LeastSquares, proximal_gradient
    >>> A, b = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 3.0]])
    >>> smooth = LeastSquares(lambda z: z @ A.T, lambda r: r @ A, b, np.linalg.norm(A, 2) ** 2)
    >>> result = proximal_gradient(smooth, SparsePenalty(0.5), np.zeros((1, 2)), gap=1e-12)
    >>> result.codes.round(3), round(result.objective, 3)
    (array([[1. , 1.5]]), 1.375)
    """
    plain = dual_value is None and smooth.quadratic is None and isinstance(penalty, SparsePenalty)
    if plain and on_gpu(start) and start.size and max_iter > 0:
        return _on_device(smooth, penalty, start, gap, max_iter, method)
    if dual_value is None:

        def dual_value(codes, residual, gradient):
            return _rescaled_residual(smooth, penalty, codes, residual, gradient)

    solve = _backtracking if method == "backtracking" else _fixed_step
    state = _State(smooth, penalty, start, gap, dual_value)
    del start
    if not state.done:
        solve(state, max_iter, *(() if method == "backtracking" else (method == "fista",)))
    return Result(state.codes, state.objective, state.gap, state.n_iter, state.done)


def _on_device(smooth, penalty, start, gap, max_iter, method):
    """The same where the device decides by itself when to restart, to shorten a step, and to stop."""
    start = array_module(start).ascontiguousarray(start)
    residual = smooth.target - smooth.forward(start)
    objective = smooth.value(start, residual) + penalty.value(start)
    most = smooth.lipschitz if smooth.lipschitz > 0 else 1.0
    first = min(most, _first_curvature(smooth, smooth.gradient(start, residual))) if method == "backtracking" else most
    codes, state = kernels_for(device_of(start), "descent").proximal_gradient(
        smooth.forward, smooth.adjoint, smooth.target, most, start, objective, first, penalty.alpha, penalty.weights,
        penalty.positive, penalty.joint, gap, max_iter, method,
    )  # fmt: skip
    objective, bound = state["objective"], state["bound"]
    return Result(codes, objective, max(objective - bound, 0.0), int(state["count"]), state["done"] == 1)


class _State:
    """Codes with their image, their objective, and the best lower bound so far."""

    def __init__(self, smooth, penalty, start, tolerance, dual_value):
        self.smooth, self.penalty, self.tolerance, self._dual_value = smooth, penalty, tolerance, dual_value
        self.bound, self.n_iter = -inf, 0
        self.image = smooth.forward(start)
        self._set(start)
        self.slope = self.gradient(start, self.image)

    def gradient(self, codes, image):
        """Gradient at any codes, whose residual may raise the bound."""
        residual = self.smooth.target - image
        gradient = self.smooth.gradient(codes, residual)
        self.bound = max(self.bound, self._dual_value(codes, residual, gradient))
        return gradient

    def move(self, codes, image):
        """Take new codes."""
        self.image = image
        self.n_iter += 1
        self._set(codes)

    def _set(self, codes):
        self.codes = codes
        self.objective = self.smooth.value(codes, self.smooth.target - self.image) + self.penalty.value(codes)

    @property
    def gap(self):
        """Distance of the objective to the bound."""
        return max(self.objective - self.bound, 0.0)

    @property
    def done(self):
        """Whether the gap is within the tolerance."""
        return self.gap <= self.tolerance


def _fixed_step(state, max_iter, accelerated):
    smooth, penalty = state.smooth, state.penalty
    step = 1 / smooth.lipschitz if smooth.lipschitz > 0 else 1.0
    point, image, t = state.codes, state.image, 1.0
    slope = state.slope
    del state.slope
    while state.n_iter < max_iter:
        slope = state.gradient(point, image) if slope is None else slope
        if state.done:
            return
        slope *= -step
        slope += point
        codes, slope = penalty.prox(slope, step, out=slope), None
        old, old_image = state.codes, state.image
        state.move(codes, smooth.forward(codes))
        if state.done:
            return
        if not accelerated:
            point, image = codes, state.image
            continue
        uphill = inner(point, codes) - inner(point, old) - inner(codes, codes) + inner(codes, old)
        t_old = 1.0 if uphill > 0 else t
        t = 0.5 * (1 + sqrt(1 + 4 * t_old * t_old))
        momentum = (t_old - 1) / t
        point = _combine(-momentum, old, 1 + momentum, codes)
        image = _combine(-momentum, old_image, 1 + momentum, state.image)


def _backtracking(state, max_iter):
    smooth, penalty = state.smooth, state.penalty
    most = smooth.lipschitz if smooth.lipschitz > 0 else 1.0
    slope = state.slope
    del state.slope
    curvature = min(most, _first_curvature(smooth, slope))
    far, far_image, total = state.codes.copy(), state.image, 0.0
    while state.n_iter < max_iter:
        curvature *= _SHRINK
        while True:
            t = (1 + sqrt(1 + 4 * curvature * total)) / (2 * curvature)
            share = t / (total + t)
            image = (1 - share) * state.image + share * far_image
            point = None if smooth.quadratic is None else (1 - share) * state.codes + share * far
            slope = state.gradient(point, image) if slope is None else slope
            if state.done:
                return
            _descend(slope, 1 / curvature, state.codes, far, share)
            codes, slope = penalty.prox(slope, 1 / curvature, out=slope), None
            new_image = smooth.forward(codes)
            moved = new_image - image
            length2, uphill = _progress(codes, state.codes, far, share)
            if curvature >= most:
                break
            step = None if point is None else array_module(point).subtract(codes, point, out=point)
            if smooth.curvature(step, moved) <= curvature * length2:
                break
            curvature = min(_GROW * curvature, most)
        if uphill < 0:
            far[...] = codes
            far_image, total = new_image, 0.0
        else:
            _pull(far, t * curvature, codes, state.codes, share)
            far_image = far_image + t * curvature * moved
            total += t
        state.move(codes, new_image)
        if state.done:
            return


def _first_curvature(smooth, slope):
    """Curvature along the gradient, which the largest eigenvalue is not below."""
    length2 = _squared_norm(slope)
    return smooth.curvature(slope, smooth.forward(slope)) / length2 if length2 > 0 else inf


def _rescaled_residual(smooth, penalty, codes, residual, gradient):
    norm2 = _squared_norm(residual)
    if smooth.quadratic is not None:
        norm2 += 2 * smooth.quadratic.value(codes)
    needed = penalty.largest_alpha(gradient, negated=True)
    return scaled_dual_value(inner(smooth.target, residual), norm2, multiple_within(penalty.alpha, needed))


def _combine(a, x, b, y):
    """a x + b y, written over x."""
    a, b = x.dtype.type(a), x.dtype.type(b)
    for old, other in blocks(x, y):
        old *= a
        old += b * other
    return x


# The extrapolated point (1 - share) codes + share far is never stored: a block of it is made where it is needed.
def _descend(slope, step, codes, far, share):
    """Overwrite the slope at the extrapolated point by the point less step times the slope."""
    step, rest, share = (slope.dtype.type(number) for number in (-step, 1 - share, share))
    for block, here, there in blocks(slope, codes, far):
        block *= step
        block += rest * here
        block += share * there


def _progress(new, codes, far, share):
    """|new - point|^2 and <new - point, new - codes>."""
    rest, share = new.dtype.type(1 - share), new.dtype.type(share)
    length2 = product = 0.0
    for block, here, there in blocks(new, codes, far):
        step = block - rest * here
        step -= share * there
        length2 += float(step @ step)
        product += float(step @ (block - here))
    return length2, product


def _pull(far, factor, new, codes, share):
    """far += factor (new - point)."""
    keep, pull, push = (far.dtype.type(number) for number in (1 - factor * share, factor, factor * (1 - share)))
    for there, block, here in blocks(far, new, codes):
        there *= keep
        there += pull * block
        there -= push * here


def _squared_norm(x):
    return inner(x, x)
