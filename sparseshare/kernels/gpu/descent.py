"""Proximal gradient over a linear operator, with everything that it decides decided on the device."""

import numpy as np

from .module import kernel
from .readback import Readback

METHODS = ("ista", "fista", "backtracking")
_STATE = (
    "curvature", "momentum", "z_ago", "before_ago", "bound", "objective", "done", "count", "total", "share", "pull",
    "learned", "failed", "t_now",
)  # fmt: skip
_THREADS, _BLOCKS = 256, 1024
_CHECK = 10  # iterations between looks at whether it is done


def proximal_gradient(
    forward,
    adjoint,
    target,
    most,
    start,
    objective,
    first,
    alpha,
    weights,
    positive,
    joint,
    tolerance,
    max_iter,
    method,
):
    """Minimise 0.5 |A z - b|^2 + alpha sum_p w_p ((1 - joint) sum_j |z_jp| + joint |z_p|), z >= 0 if `positive`.

    As `optimization.proximal.proximal_gradient`, which is the one to call. A step whose curvature was too low is taken
    again with `most`, and only the step after that with twice the curvature: so the device need not wait to be told.

    Parameters
    ----------
    forward, adjoint : callables
        A, from codes to images, and A'; they only put work into the current stream.
    target : cupy.ndarray
        b.
    most : float
        A bound on the largest eigenvalue of A'A, above 0.
    start : cupy.ndarray of shape (n_groups, ...)
        Codes to start from; overwritten.
    objective : float
        Of the start.
    first : float
        Curvature to begin with; not used by "ista" and "fista".
    alpha : float
    weights : cupy.ndarray that broadcasts to one entry of the first axis of the codes, or None
    positive : bool
    joint : float
    tolerance : float
        Duality gap at which to stop.
    max_iter : int
        At least 1.
    method : str, one of `METHODS`

    Returns
    -------
    codes : cupy.ndarray
    state : dict of float
        "objective", "bound", "count" (iterations), "done" (1: within the tolerance).
    """
    import cupy

    dtype, groups, n = start.dtype, len(start), start.size // len(start)
    target = cupy.ascontiguousarray(target, dtype)
    blocks = min(_BLOCKS, -(-n // _THREADS))
    image_blocks = min(_BLOCKS, -(-target.size // _THREADS))
    residual_at, moved = kernel("descent", "residual_at", dtype), kernel("descent", "image_moved", dtype)
    step = kernel("descent", "joint_step" if joint > 0 else "l1_step", dtype)
    decide = kernel("descent", "decide", np.float64)
    residual_sums, moved_sums = cupy.empty((image_blocks, 2)), cupy.empty((image_blocks, 2))
    step_sums = cupy.empty((blocks, 4))
    curvature = min(most, 0.9 * first) if method == "backtracking" else most
    values = dict.fromkeys(_STATE, 0.0)
    values |= {"curvature": curvature, "z_ago": 1.0, "before_ago": 2.0, "share": 1.0, "t_now": 1.0}
    values["objective"] = objective
    state = cupy.asarray([values[name] for name in _STATE], dtype=np.float64)
    weights, a_weight = _flat_weights(weights, start.shape[1:], dtype)
    codes = [start, *(cupy.empty_like(start) for _ in range(3))]
    images = [cupy.ascontiguousarray(forward(start), dtype)] * 4
    residual, readback = cupy.empty_like(target), Readback(state)
    done, at = _STATE.index("done"), 0
    for i in range(2 * max_iter + 1):  # steps taken back included
        if i % _CHECK == _CHECK - 1:
            seen = readback.next(state)
            if seen is not None and seen[done]:
                break
        one, two, three, four = (images[(i - ago) % 4] for ago in (0, 1, 2, 3))
        residual_at(
            (image_blocks,), (_THREADS,), target, one, two, three, four, state, target.size, residual, residual_sums
        )
        correlations = cupy.ascontiguousarray(adjoint(residual), dtype)
        at = (i + 1) % 4
        step(
            (blocks,), (_THREADS,), correlations, *(codes[(i - ago) % 4] for ago in (0, 1, 2)), codes[at], state, alpha,
            weights, a_weight, positive, *((joint,) if joint > 0 else ()), groups, n, step_sums,
        )  # fmt: skip
        images[at] = cupy.ascontiguousarray(forward(codes[at]), dtype)
        moved((image_blocks,), (_THREADS,), target, residual, images[at], target.size, moved_sums)
        decide(
            (1,), (_THREADS,), residual_sums, step_sums, moved_sums, image_blocks, blocks, alpha, most, tolerance,
            max_iter, METHODS.index(method), state,
        )  # fmt: skip
    found = dict(zip(_STATE, state.get().tolist(), strict=True))
    return codes[(at - int(found["z_ago"]) + 1) % 4], found


def _flat_weights(weights, shape, dtype):
    """Weights as a flat array, and how many consecutive entries of a group share one."""
    import cupy

    if weights is None:
        return None, 1
    shared = int(np.prod(shape[1:], dtype=np.int64))
    if weights.ndim == len(shape) and weights.shape[0] == weights.size == shape[0]:
        return cupy.ascontiguousarray(weights.ravel(), dtype), shared
    return cupy.ascontiguousarray(cupy.broadcast_to(weights, shape), dtype).ravel(), 1
