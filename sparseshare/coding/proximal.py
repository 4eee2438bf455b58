"""Solvers of the lasso by proximal gradient. Each fills a tile of a problem; none knows more."""

from sparseshare.kernels.dispatch import kernels_for


def solve_ista(problem, tile, tol):
    """Iterative soft thresholding (Beck and Teboulle 2009, section 3)."""
    _solve("ista_tile", problem, tile, tol)


def solve_fista(problem, tile, tol):
    """The same with momentum and adaptive restart (Beck and Teboulle 2009; O'Donoghue and Candes 2015)."""
    _solve("fista_tile", problem, tile, tol)


def _solve(name, problem, tile, tol):
    forms = {}
    if tile.device != "cpu":  # where codes are dense on the way, the residual may take fewer operations
        forms = {"signals": tile.signals, "atoms": problem.atoms, "ridge": _ridge(problem)}
    getattr(kernels_for(tile.device, "proximal"), name)(
        tile.correlations, tile.norms2, problem.gram, problem.penalties(tile.rows, tile.units),
        problem.safe_step, tol, problem.max_iter, problem.positive, tile.indices, tile.values, tile.counts,
        tile.gaps, tile.iterations, tile.status, **forms,
    )  # fmt: skip


def solve_own_penalties(problem, tile, tol, weights=None, max_iter=None):
    """The lasso on a GPU where every signal has weights or a mask of its own, by FISTA for all of them at once.

    Parameters
    ----------
    problem, tile, tol : as of all solvers
    weights : array of shape (T, n_components) or None, default=None
        Of the tile's signals; on the device.
    max_iter : int or None, default=None
        None is the problem's.
    """
    kernels = kernels_for(tile.device, "proximal")
    if weights is not None:
        weights = kernels.padded(weights, tile.correlations.shape[1], tile.correlations.dtype)
    steps = problem.safe_step if tile.missing is None else kernels.masked_steps(
        problem.atoms, tile.missing, problem.ridge, problem.lipschitz
    )  # fmt: skip
    kernels.fista_tile(
        tile.correlations, tile.norms2, None if tile.missing is not None else problem.gram,
        problem.penalties(tile.rows, tile.units), steps, tol, max_iter or problem.max_iter, problem.positive,
        tile.indices, tile.values, tile.counts, tile.gaps, tile.iterations, tile.status, signals=tile.signals,
        atoms=problem.atoms, ridge=_ridge(problem), weights=weights, missing=tile.missing,
    )  # fmt: skip


def _ridge(problem):
    return None if problem.l1_ratio == 1 else problem.ridge
