"""Solvers of the lasso on the Gram matrix, and least angle regression. Each fills a tile; none knows more."""

import numpy as np

from sparseshare.devices import array_module
from sparseshare.kernels.dispatch import kernels_for


def solve_lasso_lars(problem, tile, tol):
    """The solution at the penalty by the direct active-set method; the constrained forms by homotopy."""
    if problem.constrained:
        _follow_path(problem, tile, tol, drop=True)
        return
    alphas = problem.penalties(tile.rows, tile.units)
    if tile.missing is not None:
        codes = tile.indices, tile.values, tile.counts, tile.gaps, tile.iterations, tile.status
        solve_masked(problem, tile, tol, alphas[:, None], *(array[:, None] for array in codes))
        return
    kernels_for(tile.device, "active_set").lasso_tile(
        tile.correlations, tile.norms2, problem.gram, alphas, tol, problem.max_iter, problem.positive, tile.indices,
        tile.values, tile.counts, tile.gaps, tile.iterations, tile.status,
    )  # fmt: skip


def solve_masked(problem, tile, tol, alphas, indices, values, counts, gaps, iterations, status):
    """Signals with a mask each, at one penalty after the other; results have a column a penalty."""
    kernels_for(tile.device, "masked").masked_lasso_tile(
        tile.correlations, tile.norms2, problem.atoms, problem.transposed_atoms, tile.missing, problem.ridge, alphas,
        tol, problem.max_iter, problem.positive, tile.exponents, indices, values, counts, gaps, iterations, status,
    )  # fmt: skip


def solve_lars(problem, tile, tol):
    """Least angle regression: atoms join one by one and stay."""
    _follow_path(problem, tile, tol, drop=False)


def solve_lasso_cd(problem, tile, tol):
    """Cyclic coordinate descent."""
    kernels_for(tile.device, "coordinate").coordinate_tile(
        tile.correlations, tile.norms2, problem.gram, problem.penalties(tile.rows, tile.units), tol,
        problem.max_iter, problem.positive, tile.indices, tile.values, tile.counts, tile.gaps, tile.iterations,
        tile.status,
    )  # fmt: skip


def _follow_path(problem, tile, tol, drop):
    rows, units, xp = tile.rows, tile.units, array_module(tile.units)
    bound, error = xp.full(len(units), np.inf), xp.full(len(units), -1.0)
    if problem.max_l1_norm is not None:
        bound = problem.for_rows(problem.max_l1_norm, rows) * units / problem.norm_unit
    if problem.max_error is not None:
        error = problem.for_rows(problem.max_error, rows) * units**2
    nonzero = xp.full(len(units), tile.indices.shape[1])
    if not drop:
        nonzero = problem.for_rows(problem.counts, rows).astype(np.int64)
    kernels_for(tile.device, "homotopy").homotopy_tile(
        tile.correlations, tile.norms2, problem.gram, problem.penalties(rows, units), bound, error, nonzero, tol,
        drop, problem.positive, problem.max_iter, tile.indices, tile.values, tile.counts, tile.gaps,
        xp.empty(len(units)), tile.iterations, tile.status,
    )  # fmt: skip
