"""Soft thresholding and iterative hard thresholding against their plain versions."""

import numpy as np
import pytest
from kernels.tile import PROBLEMS, Tile, problem

from reference import iht, rows, soft_threshold
from sparseshare.kernels.cpu.jit import kernel
from sparseshare.kernels.cpu.thresholding import iht_tile, threshold_tile
from sparseshare.kernels.cpu.thresholding import soft_threshold as inline_soft_threshold
from sparseshare.optimization.lipschitz import largest_eigenvalue

TOL = {np.float32: 3e-6, np.float64: 1e-12}


@kernel
def threshold_each(values, threshold, positive, out):
    for k in range(values.shape[0]):
        out[k] = inline_soft_threshold(values[k], threshold, positive)


def hard(tile, count, max_iter=1000, positive=False, tol=1e-9):
    counts = np.broadcast_to(count, len(tile.Q)).astype(np.int64)
    tile.clear(max(1, counts.max()))
    step = 1 / largest_eigenvalue(tile.G)
    iht_tile(tile.Q, tile.norms2, tile.G, counts, step, tol, max_iter, positive, *tile.codes, *tile.report)
    return tile


@pytest.mark.parametrize("positive", [False, True])
def test_the_soft_threshold_is_exact(positive, dtype):
    values = np.array([-2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 1.5, 1e30, -1e30], dtype)
    out = np.empty_like(values)
    threshold_each(values, dtype(1), positive, out)
    np.testing.assert_array_equal(out, soft_threshold(values, 1.0, positive).astype(dtype))
    threshold_each(values, dtype(0), positive, out)
    np.testing.assert_array_equal(out, np.maximum(values, 0) if positive else values)


@pytest.mark.parametrize("positive", [False, True])
def test_thresholded_correlations(positive, dtype):
    tile = Tile(*problem("any_norm"), dtype)
    alpha = np.linspace(0.0, 1.0, len(tile.Q)).astype(dtype)
    threshold_tile(tile.Q, alpha, positive, *tile.codes)
    expected = soft_threshold(tile.Q, alpha[:, None], positive)[:, : tile.n_atoms]
    np.testing.assert_allclose(tile.dense(), expected, atol=TOL[dtype])
    assert tile.counts[-1] == 0
    alone = tile.alone(3)
    threshold_tile(alone.Q, alpha[3:4], positive, *alone.codes)
    np.testing.assert_array_equal(alone.dense()[0], tile.dense()[3])


def test_thresholding_solves_the_lasso_of_orthonormal_atoms(dtype):
    tile = Tile(np.random.default_rng(0).standard_normal((5, 12)), np.eye(12), dtype)
    alpha = np.full(5, 0.3, dtype)
    threshold_tile(tile.Q, alpha, False, *tile.codes)
    assert np.all(tile.gaps(alpha) <= TOL[dtype])


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_iht_keeps_its_count_and_reports_its_residual(name, positive, dtype):
    tile = hard(Tile(*problem(name), dtype), 4, positive=positive, tol=1e-6)
    tile.check_residuals()
    W = tile.dense()
    assert np.all((W != 0).sum(axis=1) <= 4)
    assert not positive or np.all(W >= 0)
    assert np.all(tile.residuals() <= tile.norms2) and tile.counts[-1] == 0
    assert np.all(tile.status != 1)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("name", ["wide", "tall", "any_norm"])
def test_iht_is_the_reference(name, positive):
    tile = hard(Tile(*problem(name), np.float64), 4, positive=positive)
    expected = rows(iht, tile.X, tile.D, 4, tol=1e-9, positive=positive)
    np.testing.assert_allclose(tile.dense(), expected, atol=1e-8 * np.abs(expected).max())


def test_iht_finds_the_atoms_of_an_incoherent_signal(dtype):
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((80, 60)) / np.sqrt(60)
    codes = np.zeros((20, 80))
    for w in codes:
        w[rng.choice(80, 4, replace=False)] = rng.choice([-1, 1], 4) * rng.uniform(0.5, 1.5, 4)
    tile = hard(Tile(codes @ atoms, atoms, dtype), 4)
    found = (tile.dense() != 0) == (codes != 0)
    assert found.all(axis=1).mean() >= 0.9
    assert np.median(tile.certificates / tile.norms2) < 1e-5


def test_iht_ends_at_least_squares_on_its_support():
    tile = hard(Tile(*problem("wide"), np.float64), 5)
    residuals = tile.X - tile.dense() @ tile.D
    for w, correlations in zip(tile.dense(), residuals @ tile.D.T, strict=True):
        np.testing.assert_allclose(correlations[w != 0], 0, atol=1e-12)


def test_ties_go_to_the_earlier_atom(dtype):
    atoms = np.eye(40)
    tile = hard(Tile(np.ones((2, 40)), atoms, dtype), 7)
    for w in tile.dense():
        np.testing.assert_array_equal(np.flatnonzero(w), np.arange(7))


def test_counts_of_signals_do_not_mix_and_nothing_is_chosen_for_none(dtype):
    tile = hard(Tile(*problem("wide"), dtype), np.array([0, 1, 2, 3, 5, 8, 70, 70, 3]))
    used = (tile.dense() != 0).sum(axis=1)
    np.testing.assert_array_equal(used[:6], [0, 1, 2, 3, 5, 8])
    assert tile.certificates[0] == tile.norms2[0] and tile.status[0] == 0


def test_dependent_atoms_are_reported(dtype):
    tile = hard(Tile(*problem("duplicates"), dtype), 6)
    assert np.any(tile.status == 2)
    assert np.all((tile.dense() != 0).sum(axis=1)[tile.status == 2] < 6)


def test_a_limit_on_iterations_is_kept_and_reported(dtype):
    tile = hard(Tile(*problem("coherent"), dtype), 5, max_iter=2)
    assert tile.iterations.max() == 2 and np.any(tile.status == 1)


@pytest.mark.parametrize("name", ["wide", "coherent", "duplicates"])
def test_a_signal_alone_has_the_same_bits(name, dtype):
    tile = hard(Tile(*problem(name), dtype), 5)
    for i in (4, 0, len(tile.Q) - 1):
        assert tile.same_bits(hard(tile.alone(i), 5), i)
