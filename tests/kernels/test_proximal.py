"""ISTA and FISTA, held to the duality gap."""

import numpy as np
from kernels.lasso import LassoKernel
from kernels.tile import Tile, problem

from sparseshare.kernels.cpu.proximal import fista_tile, ista_tile


def safe_step(tile):
    return 1 / (1.0001 * np.linalg.norm(tile.D.astype(float), 2) ** 2)


class TestIsta(LassoKernel):
    tol = {np.float32: 1e-4, np.float64: 1e-4}  # each further digit takes several times the iterations
    max_iter = 300_000

    def solve(self, tile, alpha, tol, max_iter, positive):
        ista_tile(
            tile.Q,
            tile.norms2,
            tile.G,
            alpha,
            safe_step(tile),
            tol,
            max_iter,
            positive,
            *tile.codes,
            *tile.report,
        )


class TestFista(LassoKernel):
    max_iter = 30_000

    def solve(self, tile, alpha, tol, max_iter, positive):
        fista_tile(
            tile.Q,
            tile.norms2,
            tile.G,
            alpha,
            safe_step(tile),
            tol,
            max_iter,
            positive,
            *tile.codes,
            *tile.report,
        )


def test_momentum_pays():
    iterations = []
    for kernel in (TestIsta(), TestFista()):
        tile = Tile(*problem("coherent"), np.float64)
        alpha = np.full(len(tile.Q), 0.05)
        kernel.solve(tile, alpha, 1e-6, kernel.max_iter, False)
        iterations.append(tile.iterations.mean())
    assert iterations[1] < 0.2 * iterations[0]


def test_ista_never_raises_the_objective():
    tile = Tile(*problem("any_norm"), np.float64)
    alpha = np.full(len(tile.Q), 0.05)
    last = np.inf
    for _ in range(30):  # one iteration at a time, each from where the last one ended
        TestIsta().solve(tile, alpha, 1e-12, 1, False)
        W = tile.dense()
        objective = 0.5 * tile.residuals() + alpha * np.abs(W).sum(axis=1)
        assert np.all(objective <= last + 1e-14)
        last = objective
