"""Convolutional sparse coding by accelerated proximal gradient: every boundary, mask and penalty, on either device."""

from sparseshare.devices import array_module
from sparseshare.optimization.proximal import LeastSquares, proximal_gradient

from .maps import SparseMaps
from .problem import Solution

_MAX_ITER = 10_000


def solve(problem, *, start=None, tol=1e-4, max_iter=None, n_threads=1, method="backtracking"):
    """Minimise a problem's objective.

    Parameters
    ----------
    problem : ConvProblem
    start : ndarray of shape `problem.maps_shape`, SparseMaps or None, default=None
        Codes to start from.
    tol : float, default=1e-4
        Stop at a duality gap of `tol * problem.energy`.
    max_iter : int or None, default=None
        None is 10000.
    n_threads : int, default=1
        Not used: the operator has threads of its own.
    method : {"backtracking", "fista", "ista"}, default="backtracking"

    Returns
    -------
    Solution

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution import fista
    >>> from sparseshare.convolution.geometry import Geometry
    >>> from sparseshare.convolution.operator import Convolution
    >>> from sparseshare.convolution.problem import ConvProblem
    >>> signal = np.array([[[0.0, 1.0, 2.0, 1.0, 0.0, 0.0]]])
    >>> operator = Convolution(np.array([[[1.0, 2.0, 1.0]]]), Geometry((6,), (3,), "full"))
    >>> fista.solve(ConvProblem(signal, operator, alpha=0.6), tol=1e-9).maps.round(4)
    array([[[0. , 0.9, 0. , 0. ]]])
    """
    smooth = LeastSquares(
        problem.synthesize, problem.correlate, problem.target, problem.lipschitz, quadratic=problem.roughness
    )
    result = proximal_gradient(
        smooth,
        problem.sparse_penalty,
        _first_codes(problem, start),
        gap=tol * problem.energy,
        max_iter=_MAX_ITER if max_iter is None else max_iter,
        method=method,
        dual_value=problem.dual_value,
    )
    return Solution(result.codes, result.objective, result.gap, result.n_iter, result.converged)


def _first_codes(problem, start):
    """A copy of the start that the penalty admits, or zeros."""
    xp = array_module(problem.signal)
    if start is None:
        return xp.zeros(problem.maps_shape, problem.dtype)
    start = xp.array(start.dense() if isinstance(start, SparseMaps) else start, problem.dtype)
    return problem.sparse_penalty.admit(start)
