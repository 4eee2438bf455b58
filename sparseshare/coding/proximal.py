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


def solve_each(problem, tile, tol, weights=None):
    """The lasso on a GPU where every signal has weights of its own, or a mask: FISTA for all of them at once.

    Parameters
    ----------
    problem, tile, tol : as of all solvers
        The problem's dictionary is not weighted.
    weights : (T, K) array or None, default=None
        Factors of the penalties of the tile's signals, on the device.
    """
    masked, max_iter = kernels_for(tile.device, "masked"), problem.max_iter
    alphas = problem.penalties(tile.rows, tile.units)[:, None]
    if tile.missing is None:
        gram, each = problem.gram, {"step": problem.safe_step}
    else:
        gram = None
        each, alphas = masked.observed(
            tile.correlations, problem.atoms, tile.missing, problem.ridge, alphas, tile.exponents, tile.values
        )
    if problem.algorithm not in ("ista", "fista"):
        max_iter *= masked.ITERATIONS
    kernels_for(tile.device, "proximal").fista_tile(
        tile.correlations, tile.norms2, gram, alphas[:, 0].copy(), each.pop("step"), tol, max_iter, problem.positive,
        tile.indices, tile.values, tile.counts, tile.gaps, tile.iterations, tile.status, signals=tile.signals,
        atoms=problem.atoms, ridge=_ridge(problem), weights=weights, missing=tile.missing, **each,
    )  # fmt: skip


def _ridge(problem):
    return None if problem.l1_ratio == 1 else problem.ridge
