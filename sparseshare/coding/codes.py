"""Codes of signals for one problem: tile by tile, shared out to threads, each code with its certificate."""

from typing import NamedTuple

import numpy as np

from sparseshare.devices import array_module
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, thread_count

from .lasso import solve_lars, solve_lasso_cd, solve_lasso_lars
from .pieces import encode_pieces
from .proximal import solve_fista, solve_ista
from .pursuit import solve_mp, solve_ols, solve_omp
from .thresholding import solve_iht, solve_threshold
from .tiles import RowsInOrder, Tile, rows_a_tile, tile_run

SOLVERS = {
    "lasso_lars": solve_lasso_lars,
    "lasso_cd": solve_lasso_cd,
    "ista": solve_ista,
    "fista": solve_fista,
    "lars": solve_lars,
    "omp": solve_omp,
    "ols": solve_ols,
    "mp": solve_mp,
    "iht": solve_iht,
    "threshold": solve_threshold,
}
# Relative errors of a correlation, with a margin: no gap below what they amount to is asked for or claimed.
ROUNDING = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 2e-15}


class Codes(NamedTuple):
    """Codes and, for every signal, how good they are.

    Attributes
    ----------
    values : csr_array or ndarray of shape (n_samples, n_components)
    gap : ndarray of shape (n_samples,)
        Relative duality gap of lasso codes (of 0.5 ||x||^2; never below what the dtype can certify), squared residual
        norm of pursuits, 0 for `threshold` and NaN for `lars`, which minimise nothing.
    n_iter : ndarray of shape (n_samples,)
        Rounds, sweeps, iterations or atoms, as the algorithm counts.
    converged : ndarray of shape (n_samples,), bool
    """

    values: object
    gap: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray


def encode_tiles(X, problem, *, init=None, n_jobs=None, mask=None, cov=None, dense=False, device="cpu", keep=False):
    """Codes for a problem that is one for all signals, but for masks where its solver takes them.

    Parameters and result as of `encode`.
    """
    solve = SOLVERS[problem.algorithm]
    n_samples = X.shape[0]
    tol = max(problem.tol, ROUNDING[problem.dtype])
    if device != "cpu":
        run = dict(solve=solve, certify=certify, tol=tol)
        return Codes(*encode_pieces(X, problem, device, init=init, mask=mask, dense=dense, keep=keep, **run))
    n_rows = rows_a_tile(problem)
    n_tiles = -(-n_samples // n_rows)
    gap, n_iter, converged = np.zeros(n_samples), np.zeros(n_samples, np.int32), np.ones(n_samples, bool)
    n_threads = thread_count(n_jobs)
    if dense:
        values = np.zeros((n_samples, problem.n_components), problem.dtype)
    else:
        guess = n_samples * min(problem.capacity, 32)
        packed = RowsInOrder(n_samples, problem.n_components, problem.dtype, guess)
    tiles = {}

    def work(number, worker):
        rows = slice(number * n_rows, min((number + 1) * n_rows, n_samples))
        if worker not in tiles:
            tiles[worker] = Tile(problem, min(n_rows, -(-n_samples // 128) * 128))
        tile = tiles[worker]
        tile.load(X, rows, cov, init, mask)
        solve(problem, tile, tol)
        gap[rows], converged[rows] = certify(problem, tile, tol)
        n_iter[rows] = tile.iterations
        if dense:
            tile.spread(values[rows])
        else:
            packed.put(number, *tile.pack())

    with tile_run(problem, mask is not None):
        run_in_threads(work, n_tiles, n_threads)
    return Codes(values if dense else packed.csr(), gap, n_iter, converged)


def certify(problem, tile, tol):
    """The gap or residual of each signal in the user's units, and whether the solver has done what it was asked."""
    if problem.form.pursuit:
        return tile.gaps / tile.units**2, tile.status != 1
    if not problem.form.lasso:
        return 0.0 if problem.algorithm == "threshold" else np.nan, tile.status != 1
    xp = array_module(tile.gaps)
    relative, converged = xp.empty(len(tile.gaps)), xp.empty(len(tile.gaps), bool)
    kernels_for(tile.device, "signals").certify_tile(
        tile.values, tile.counts, tile.gaps, tile.norms2, tile.status, tol, ROUNDING[problem.dtype], relative, converged
    )
    return relative, converged
