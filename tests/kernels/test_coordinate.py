"""Coordinate descent, held to the duality gap."""

import numpy as np
from kernels.lasso import LassoKernel
from kernels.tile import Tile, problem

from sparseshare.kernels.cpu.coordinate import coordinate_tile


class TestCoordinateDescent(LassoKernel):
    max_iter = 5000

    def solve(self, tile, alpha, tol, max_iter, positive):
        coordinate_tile(tile.Q, tile.norms2, tile.G, alpha, tol, max_iter, positive, *tile.codes, *tile.report)


def test_coherent_atoms_do_not_make_sweeps_crawl(dtype):
    tile = Tile(*problem("coherent", n_signals=40), dtype)
    alpha = np.full(len(tile.Q), 0.01, dtype)
    TestCoordinateDescent().solve(tile, alpha, 1e-6, 1000, False)
    assert np.all(tile.status == 0)
    assert tile.iterations.max() < 400
