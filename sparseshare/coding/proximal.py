"""Solvers of the lasso by proximal gradient. Each fills a tile of a problem; none knows more."""

from sparseshare.kernels.dispatch import kernels_for


def solve_ista(problem, tile, tol):
    """Iterative soft thresholding (Beck and Teboulle 2009, section 3)."""
    _solve("ista_tile", problem, tile, tol)


def solve_fista(problem, tile, tol):
    """The same with momentum and adaptive restart (Beck and Teboulle 2009; O'Donoghue and Candes 2015)."""
    _solve("fista_tile", problem, tile, tol)


def _solve(name, problem, tile, tol):
    getattr(kernels_for("cpu", "proximal"), name)(
        tile.correlations, tile.norms2, problem.gram, problem.penalties(tile.rows, tile.units),
        problem.safe_step, tol, problem.max_iter, problem.positive, tile.indices, tile.values, tile.counts,
        tile.gaps, tile.iterations, tile.status,
    )  # fmt: skip
