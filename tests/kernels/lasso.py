"""What every lasso kernel is held to; each test file says which kernel, and how many iterations it may take."""

import numpy as np
import pytest
from kernels.tile import PROBLEMS, Tile, problem

from reference import lasso, lasso_objective

FLOOR = {np.float32: 8e-6, np.float64: 1e-12}  # relative gap that a code of the type may keep


class LassoKernel:
    """Tests of one kernel: its tolerances, how many iterations it may take for them, and how to call it."""

    tol = {np.float32: 2e-6, np.float64: 1e-8}
    max_iter = 100_000

    def solve(self, tile, alpha, tol, max_iter, positive):
        raise NotImplementedError

    def solved(self, name, dtype, share, positive=False):
        tile = Tile(*problem(name), dtype)
        alpha = (share * np.where(tile.largest > 0, tile.largest, 1)).astype(dtype)
        self.solve(tile, alpha, self.tol[dtype], self.max_iter, positive)
        return tile, alpha

    @pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
    @pytest.mark.parametrize("share", [0.5, 0.1])
    @pytest.mark.parametrize("name", PROBLEMS)
    def test_the_gap_recomputed_is_within_the_tolerance_and_as_reported(self, name, share, positive, dtype):
        tile, alpha = self.solved(name, dtype, share, positive)
        assert np.all(tile.status == 0)
        gaps = tile.gaps(alpha, positive)
        assert np.all(gaps <= self.tol[dtype] + FLOOR[dtype])
        energy = np.where(tile.norms2 > 0, 0.5 * tile.norms2, 1.0)
        np.testing.assert_allclose(tile.certificates / energy, gaps, atol=FLOOR[dtype])
        if positive:
            assert np.all(tile.dense() >= 0)

    @pytest.mark.parametrize("name", ["wide", "tall", "coherent"])
    def test_the_objective_is_the_reference_s(self, name):
        tile, alpha = self.solved(name, np.float64, 0.2)
        for x, w, a, energy in zip(tile.X, tile.dense(), alpha, tile.norms2, strict=True):
            best = lasso_objective(x, tile.D, lasso(x, tile.D, a), a)
            assert (
                best - 1e-12 <= lasso_objective(x, tile.D, w, a) <= best + self.tol[np.float64] * 0.5 * energy + 1e-12
            )

    def test_a_zero_signal_and_a_penalty_above_the_largest_correlation_give_empty_codes(self, dtype):
        tile, _ = self.solved("wide", dtype, 1.01)
        assert np.all(tile.counts == 0) and np.all(tile.status == 0)
        np.testing.assert_array_equal(tile.certificates, 0)

    def test_penalties_of_signals_do_not_mix(self, dtype):
        tile = Tile(*problem("wide"), dtype)
        shares = np.linspace(0.05, 1.2, len(tile.Q))
        alpha = (shares * np.where(tile.largest > 0, tile.largest, 1)).astype(dtype)
        self.solve(tile, alpha, self.tol[dtype], self.max_iter, False)
        assert np.all(tile.gaps(alpha) <= self.tol[dtype] + FLOOR[dtype])

    @pytest.mark.parametrize("name", ["wide", "coherent", "low_rank"])
    def test_a_signal_alone_has_the_same_bits(self, name, dtype):
        tile, alpha = self.solved(name, dtype, 0.1)
        for i in (3, 0, len(tile.Q) - 1):
            alone = tile.alone(i)
            self.solve(alone, alpha[i : i + 1], self.tol[dtype], self.max_iter, False)
            assert tile.same_bits(alone, i)

    def test_a_warm_start_needs_less_and_ends_at_the_same_minimum(self, dtype):
        tile, alpha = self.solved("coherent", dtype, 0.1)
        cold, W = tile.iterations.sum(), tile.dense()
        self.solve(tile, alpha, self.tol[dtype], self.max_iter, False)
        assert tile.iterations.sum() <= max(1, 0.1 * cold) + len(tile.Q)
        np.testing.assert_allclose(tile.dense() @ tile.D, W @ tile.D, atol=1e-2)
        self.solve(tile, alpha / 2, self.tol[dtype], self.max_iter, False)
        assert np.all(tile.gaps(alpha / 2) <= self.tol[dtype] + FLOOR[dtype])

    def test_a_start_of_the_wrong_sign_is_left_where_codes_are_positive(self, dtype):
        tile = Tile(*problem("wide"), dtype)
        alpha = np.full(len(tile.Q), 0.1, dtype)
        tile.indices[:, :3], tile.values[:, :3] = [5, 1, 60], [-1.0, 0.5, 2.0]
        tile.counts[:] = 3
        self.solve(tile, alpha, self.tol[dtype], self.max_iter, True)
        assert np.all(tile.dense() >= 0)
        assert np.all(tile.gaps(alpha, positive=True)[:-1] <= self.tol[dtype] + FLOOR[dtype])
        assert tile.counts[-1] == 0

    def test_a_limit_on_iterations_is_kept_and_reported(self, dtype):
        tile = Tile(*problem("coherent"), dtype)
        alpha = np.full(len(tile.Q), 0.05, dtype)
        self.solve(tile, alpha, self.tol[dtype], 2, False)
        assert np.all(tile.iterations <= 2)
        stopped = tile.status == 1
        assert stopped.any() and not stopped[-1]
        gaps = tile.gaps(alpha)
        assert np.all(gaps[stopped] > self.tol[dtype])
        np.testing.assert_allclose(tile.certificates[:-1] / (0.5 * tile.norms2[:-1]), gaps[:-1], atol=FLOOR[dtype])

    @pytest.mark.parametrize("name", ["wide", "tall"])
    def test_no_penalty_gives_least_squares(self, name):
        tile, _ = self.solved(name, np.float64, 0.0)
        W = np.linalg.lstsq(tile.D.T, tile.X.T, rcond=None)[0].T
        best = np.sum((tile.X - W @ tile.D) ** 2, axis=1)
        np.testing.assert_allclose(tile.residuals(), best, atol=3 * self.tol[np.float64] * tile.norms2.max())
        assert np.all(tile.status == 0)
