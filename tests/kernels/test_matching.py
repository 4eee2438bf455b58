"""Matching pursuit and non-negative OMP against their plain versions."""

import numpy as np
import pytest
from kernels.tile import PROBLEMS, Tile, problem

from reference import mp, nonnegative_least_squares, omp, rows
from sparseshare.kernels.cpu.matching import mp_tile, positive_omp_tile

TOL = {np.float32: 3e-6, np.float64: 1e-12}


def arguments(tile, count, max_error):
    counts = np.broadcast_to(count, len(tile.Q)).astype(np.int64)
    tile.clear(max(1, counts.max()))
    return tile.Q, tile.norms2, tile.G, counts, np.broadcast_to(max_error, len(tile.Q)).astype(float)


def match(tile, count, max_error=-1.0, max_iter=1000, positive=False):
    mp_tile(*arguments(tile, count, max_error), max_iter, positive, *tile.codes, *tile.report)
    return tile


def match_orthogonally(tile, count, max_error=-1.0):
    positive_omp_tile(*arguments(tile, count, max_error), *tile.codes, *tile.report)
    return tile


class TestMatchingPursuit:
    @pytest.mark.parametrize("positive", [False, True])
    @pytest.mark.parametrize("name", PROBLEMS)
    def test_residuals_counts_and_signs(self, name, positive, dtype):
        tile = match(Tile(*problem(name), dtype), 5, positive=positive)
        tile.check_residuals()
        W = tile.dense()
        assert np.all((W != 0).sum(axis=1) <= 5) and np.all(tile.status == 0) and tile.counts[-1] == 0
        assert not positive or np.all(W >= 0)

    @pytest.mark.parametrize("positive", [False, True])
    @pytest.mark.parametrize("name", ["wide", "tall", "any_norm", "zero_atoms"])
    def test_codes_are_the_reference_s(self, name, positive):
        tile = match(Tile(*problem(name), np.float64), 6, positive=positive)
        expected = rows(mp, tile.X, tile.D, 6, positive=positive)
        np.testing.assert_allclose(tile.dense(), expected, atol=1e-9 * np.abs(expected).max())

    def test_orthonormal_atoms_are_exact_after_as_many_steps(self, dtype):
        tile = match(Tile(np.random.default_rng(0).standard_normal((4, 30)), np.eye(30), dtype), 30)
        np.testing.assert_allclose(tile.residuals(), 0, atol=TOL[dtype])
        np.testing.assert_array_equal(tile.iterations, 30)

    def test_an_error_is_met_with_the_first_step_that_meets_it(self, dtype):
        tile = Tile(*problem("wide"), dtype)
        bound = 0.2 * tile.norms2
        match(tile, 70, bound)
        assert np.all(tile.residuals() <= bound + 1e-5 * tile.norms2) and tile.iterations[-1] == 0
        steps = tile.iterations.copy()
        for i in range(len(steps) - 1):
            assert match(tile.alone(i), 70, -1.0, int(steps[i]) - 1).residuals()[0] > bound[i]

    def test_steps_are_bounded_and_the_bound_reported(self, dtype):
        tile = match(Tile(*problem("coherent"), dtype), 100, max_iter=7)
        assert np.all(tile.iterations[:-1] == 7) and np.all(tile.status[:-1] == 1) and tile.status[-1] == 0

    def test_a_full_count_still_lets_chosen_atoms_move(self, dtype):
        atoms = np.array([[1.0, 0.0], [0.8, 0.6]])
        tile = match(Tile(np.array([[1.0, 1.0]]), atoms, dtype), 2)
        assert tile.iterations[0] > 10 and tile.counts[0] == 2
        np.testing.assert_allclose(tile.residuals(), 0, atol=TOL[dtype])

    def test_a_signal_alone_has_the_same_bits(self, dtype):
        tile = match(Tile(*problem("any_norm"), dtype), 5)
        for i in (4, 0, len(tile.Q) - 1):
            assert tile.same_bits(match(tile.alone(i), 5), i)


class TestPositiveOrthogonalMatchingPursuit:
    @pytest.mark.parametrize("name", PROBLEMS)
    def test_residuals_counts_and_signs(self, name, dtype):
        tile = match_orthogonally(Tile(*problem(name), dtype), 5)
        tile.check_residuals()
        W = tile.dense()
        assert np.all(W >= 0) and np.all((W > 0).sum(axis=1) <= 5) and tile.counts[-1] == 0
        for x, w in zip(tile.X.astype(float), W, strict=True):  # least squares on the chosen atoms
            on = w > 0
            correlations = tile.D[on].astype(float) @ (x - w @ tile.D.astype(float))
            np.testing.assert_allclose(correlations, 0, atol=10 * TOL[dtype] * np.linalg.norm(x))

    @pytest.mark.parametrize("name", ["wide", "tall", "any_norm", "zero_atoms"])
    def test_codes_are_the_reference_s(self, name):
        tile = match_orthogonally(Tile(*problem(name), np.float64), 6)
        expected = rows(omp, tile.X, tile.D, 6, positive=True)
        np.testing.assert_allclose(tile.dense(), expected, atol=1e-9 * np.abs(expected).max())

    @pytest.mark.parametrize("name", ["wide", "tall", "coherent"])
    def test_without_a_bound_it_is_non_negative_least_squares(self, name):
        tile = match_orthogonally(Tile(*problem(name), np.float64), 100)
        best = [np.sum((x - nonnegative_least_squares(x, tile.D) @ tile.D) ** 2) for x in tile.X]
        np.testing.assert_allclose(tile.residuals(), best, atol=1e-8 * tile.norms2.max())

    def test_an_error_is_met(self, dtype):
        tile = Tile(*problem("tall"), dtype)
        best = match_orthogonally(tile, 10).residuals()
        bound = best + 0.3 * (tile.norms2 - best)
        few = match_orthogonally(tile, 10, bound)
        assert np.all(few.residuals() <= bound + 1e-5 * tile.norms2)
        assert few.counts.mean() < 5

    def test_a_signal_that_no_atom_points_at_has_an_empty_code(self, dtype):
        tile = match_orthogonally(Tile(-np.ones((3, 8)), np.eye(8), dtype), 4)
        assert np.all(tile.counts == 0) and np.all(tile.status == 0)

    def test_counts_of_signals_do_not_mix(self, dtype):
        tile = match_orthogonally(Tile(*problem("wide"), dtype), np.array([0, 1, 2, 3, 4, 5, 6, 7, 8]))
        np.testing.assert_array_equal(tile.counts[:6], [0, 1, 2, 3, 4, 5])

    def test_a_signal_alone_has_the_same_bits(self, dtype):
        tile = match_orthogonally(Tile(*problem("coherent"), dtype), 8)
        for i in (4, 0, len(tile.Q) - 1):
            assert tile.same_bits(match_orthogonally(tile.alone(i), 8), i)
