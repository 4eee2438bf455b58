"""Greedy solvers: atoms one by one until a count or an error is reached. Each fills a tile; none knows more."""

import numpy as np

from sparseshare.devices import array_module
from sparseshare.kernels.dispatch import kernels_for

_NO_STOPS = np.zeros(0, np.int64)


def solve_omp(problem, tile, tol, stops=_NO_STOPS, path_values=None):
    """Orthogonal matching pursuit; with `positive`, its non-negative form."""
    counts, errors = budgets(problem, tile)
    if problem.positive:
        kernels_for(tile.device, "matching").positive_omp_tile(
            tile.correlations, tile.norms2, problem.gram, counts, errors, tile.indices, tile.values, tile.counts,
            tile.gaps, tile.iterations, tile.status,
        )  # fmt: skip
        return
    codes = tile.indices, tile.values, tile.counts, tile.gaps, tile.status, _path(tile, path_values)
    if tile.missing is not None:
        kernels_for(tile.device, "masked_pursuit").masked_omp_tile(
            tile.correlations, tile.norms2, problem.atoms, problem.transposed_atoms, tile.missing, counts, errors,
            stops, *codes,
        )  # fmt: skip
    else:
        kernels_for(tile.device, "pursuit").omp_tile(
            tile.correlations, tile.norms2, problem.gram, counts, errors, None, stops, *codes
        )
    tile.iterations[:] = tile.counts


def solve_ols(problem, tile, tol, stops=_NO_STOPS, path_values=None):
    """Orthogonal least squares: the atom that lowers the residual most."""
    counts, errors = budgets(problem, tile)
    kernels_for(tile.device, "pursuit").ols_tile(
        tile.correlations, tile.norms2, problem.gram, counts, errors, stops, tile.indices, tile.values, tile.counts,
        tile.gaps, tile.status, _path(tile, path_values),
    )  # fmt: skip
    tile.iterations[:] = tile.counts


def solve_mp(problem, tile, tol):
    """Matching pursuit."""
    counts, errors = budgets(problem, tile)
    kernels_for(tile.device, "matching").mp_tile(
        tile.correlations, tile.norms2, problem.gram, counts, errors, problem.max_iter, problem.positive, tile.indices,
        tile.values, tile.counts, tile.gaps, tile.iterations, tile.status,
    )  # fmt: skip


def budgets(problem, tile):
    """Atoms and squared error allowed for each signal of a tile; -1 is no error target."""
    counts = problem.for_rows(problem.counts, tile.rows).astype(np.int64)
    if problem.max_error is None:
        return counts, array_module(counts).full(len(counts), -1.0)
    return counts, problem.for_rows(problem.max_error, tile.rows) * tile.units**2


def _path(tile, path_values):
    if path_values is None:
        return array_module(tile.values).empty((len(tile.counts), 0, tile.values.shape[1]), tile.values.dtype)
    return path_values
