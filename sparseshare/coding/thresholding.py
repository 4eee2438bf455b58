"""Coders by thresholding: soft, in one step, and hard, iterated. Each fills a tile of a problem; none knows more."""

from sparseshare.kernels.dispatch import kernels_for

from .pursuit import budgets


def solve_threshold(problem, tile, tol, weights=None):
    """Soft-thresholded correlations: the lasso's solution for orthonormal atoms.

    `weights`, (T, K) on the device, are factors of the thresholds; on a GPU only.
    """
    forms = {} if weights is None else {"weights": weights}
    kernels_for(tile.device, "thresholding").threshold_tile(
        tile.correlations, problem.penalties(tile.rows, tile.units), problem.positive, tile.indices, tile.values,
        tile.counts, **forms,
    )  # fmt: skip


def solve_iht(problem, tile, tol):
    """Normalised iterative hard thresholding (Blumensath and Davies 2010)."""
    counts, _ = budgets(problem, tile)
    kernels_for(tile.device, "thresholding").iht_tile(
        tile.correlations, tile.norms2, problem.gram, counts, problem.safe_step, tol, problem.max_iter,
        problem.positive, tile.indices, tile.values, tile.counts, tile.gaps, tile.iterations, tile.status,
    )  # fmt: skip
