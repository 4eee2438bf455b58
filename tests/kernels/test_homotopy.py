"""The homotopy: paths against scikit-learn's, codes against their duality gap, constrained forms at their bounds."""

import numpy as np
import pytest
from kernels.lasso import FLOOR, LassoKernel
from kernels.tile import PROBLEMS, Tile, problem
from sklearn.linear_model import lars_path

from reference import bounded_error_gap, bounded_norm_gap, lars, lasso_gap
from sparseshare.kernels.dispatch import kernels_for

TOL = LassoKernel.tol


def tile_of(signals, atoms, dtype):
    """A tile whose codes have room for no more atoms than can be independent."""
    return Tile(signals, atoms, dtype).clear(min(atoms.shape))


def follow(
    tile, alpha=0.0, max_l1_norm=np.inf, max_error=-1.0, max_nonzero=None, drop=True, positive=False, max_iter=1000
):
    """Run the kernel with one bound for all signals or one each; returns the penalties where the paths stopped."""
    n_signals, dtype = len(tile.Q), tile.Q.dtype
    max_nonzero = tile.indices.shape[1] if max_nonzero is None else max_nonzero
    penalties = np.full(n_signals, np.nan)
    kernels_for("cpu", "homotopy").homotopy_tile(
        tile.Q,
        tile.norms2,
        tile.G,
        np.broadcast_to(alpha, n_signals).astype(dtype),
        np.broadcast_to(max_l1_norm, n_signals).astype(float),
        np.broadcast_to(max_error, n_signals).astype(float),
        np.broadcast_to(max_nonzero, n_signals).astype(np.int64),
        TOL[dtype.type],
        drop,
        positive,
        max_iter,
        *tile.codes,
        tile.certificates,
        penalties,
        tile.iterations,
        tile.status,
    )
    return penalties


def energies(tile):
    return np.where(tile.norms2 > 0, 0.5 * tile.norms2, 1.0)


class TestLasso(LassoKernel):
    """Stopped at a penalty, the homotopy is one more lasso kernel; it has no use for a start."""

    test_a_warm_start_needs_less_and_ends_at_the_same_minimum = None
    test_a_limit_on_iterations_is_kept_and_reported = None
    test_a_start_of_the_wrong_sign_is_left_where_codes_are_positive = None

    def solve(self, tile, alpha, tol, max_iter, positive):
        follow(tile.clear(min(tile.D.shape)), alpha, positive=positive, max_iter=max_iter)


@pytest.mark.parametrize("share", [0.3, 0.03, 0.003])
@pytest.mark.parametrize("name", ["wide", "tall", "coherent", "any_norm"])
def test_the_lasso_is_scikit_learn_s(name, share):
    tile = tile_of(*problem(name, n_signals=6), np.float64)
    alpha = share * tile.largest
    follow(tile, alpha)
    for x, w, a, count in zip(tile.X[:-1], tile.dense(), alpha, tile.iterations, strict=False):
        n = len(x)
        _, _, path = lars_path(tile.D.T, x, method="lasso", alpha_min=a / n, Gram=tile.D @ tile.D.T)
        np.testing.assert_allclose(w, path[:, -1], atol=1e-9 * np.abs(path).max())
        assert count == path.shape[1] - 1


@pytest.mark.parametrize("count", [0, 1, 2, 5, 20, 1000])
@pytest.mark.parametrize("name", ["wide", "tall", "coherent", "any_norm", "zero_atoms"])
def test_least_angle_regression_is_the_reference_s(name, count):
    tile = tile_of(*problem(name, n_signals=4), np.float64)
    follow(tile, max_nonzero=count, drop=False)
    assert np.all(tile.counts <= count) and np.all(tile.status == 0)
    for x, w in zip(tile.X, tile.dense(), strict=True):
        if name != "coherent" or count <= 5:  # further on its atoms depend on each other to the last digits
            np.testing.assert_allclose(w, lars(x, tile.D, count), atol=1e-8 * max(1, np.abs(w).max()))
    tile.check_residuals()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_least_angle_regression_is_scikit_learn_s(count, dtype):
    tile = tile_of(*problem("wide"), dtype)
    follow(tile, max_nonzero=np.full(len(tile.Q), count), drop=False)
    for x, w in zip(tile.X[:-1], tile.dense(), strict=False):
        _, _, path = lars_path(tile.D.T.astype(float), x.astype(float), method="lar", max_iter=count)
        np.testing.assert_allclose(w, path[:, -1], atol=2e-5 if dtype == np.float32 else 1e-10)


def test_least_angle_regression_keeps_atoms_whose_sign_changes():
    tile = tile_of(*problem("coherent"), np.float64)
    follow(tile, max_nonzero=12, drop=False)
    assert np.all(tile.counts[:-1] == 12)
    correlations = (tile.X - tile.dense() @ tile.D) @ tile.D.T
    assert np.any(tile.dense() * correlations < 0)


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_bound_on_the_norm_is_met_and_optimal(name, share, positive, dtype):
    tile = tile_of(*problem(name), dtype)
    follow(tile, 0.02, positive=positive)  # what may be asked for
    bound = share * np.abs(tile.dense()).sum(axis=1)
    penalties = follow(tile.clear(tile.indices.shape[1]), max_l1_norm=bound, positive=positive)
    assert np.all(tile.status == 0)
    W, rounding = tile.dense(), 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(np.abs(W).sum(axis=1), bound, rtol=rounding, atol=1e-12)
    assert not positive or np.all(W >= 0)
    for x, w, limit, energy in zip(tile.X, W, bound, energies(tile), strict=True):
        assert bounded_norm_gap(x, tile.D, w, limit, positive) <= (TOL[dtype] + FLOOR[dtype]) * energy
    gaps = tile.gaps(penalties, positive)
    np.testing.assert_allclose(tile.certificates / energies(tile), gaps, atol=FLOOR[dtype])


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("share", [0.9, 0.4, 0.05])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_bound_on_the_error_is_met_and_optimal(name, share, positive, dtype):
    tile = tile_of(*problem(name), dtype)
    follow(tile, positive=positive)
    least = tile.residuals()
    bound = least + share * (tile.norms2 - least)
    penalties = follow(tile.clear(tile.indices.shape[1]), max_error=bound, positive=positive)
    assert np.all(tile.status == 0)
    W, rounding = tile.dense(), 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(tile.residuals(), bound, atol=rounding * tile.norms2.max())
    for x, w, limit, penalty in zip(tile.X[:-1], W, bound, penalties, strict=False):
        excess = bounded_error_gap(x, tile.D, w, limit, positive)
        assert penalty * excess <= (TOL[dtype] + 4 * FLOOR[dtype]) * 0.5 * x @ x
    gaps = tile.gaps(penalties, positive)
    np.testing.assert_allclose(tile.certificates / energies(tile), gaps, atol=FLOOR[dtype])


def test_an_error_out_of_reach_is_reported_and_gives_least_squares(dtype):
    tile = tile_of(*problem("tall"), dtype)
    tile.X[:-1, 0] += 1
    W = np.linalg.lstsq(tile.D.T.astype(float), tile.X.T.astype(float), rcond=None)[0].T
    best = np.sum((tile.X - W @ tile.D) ** 2, axis=1)
    tile = tile_of(tile.X, tile.D, dtype)
    follow(tile, max_error=np.where(tile.norms2 > 0, 0.5 * best, 1))
    np.testing.assert_array_equal(tile.status[:-1], 2)
    np.testing.assert_allclose(tile.dense()[:-1], W[:-1], atol=1e-4 if dtype == np.float32 else 1e-9)
    assert tile.status[-1] == 0 and tile.counts[-1] == 0


def test_bounds_that_hold_at_zero_give_empty_codes(dtype):
    for bound in ({"max_l1_norm": 0.0}, {"max_error": 1e6}, {"max_nonzero": 0}, {"alpha": 1e6}):
        tile = tile_of(*problem("wide"), dtype)
        penalties = follow(tile, **bound)
        np.testing.assert_array_equal(tile.counts, 0)
        np.testing.assert_array_equal(tile.status, 0)
        np.testing.assert_allclose(penalties, np.maximum(tile.largest, bound.get("alpha", 0)))
        np.testing.assert_allclose(tile.certificates, 0, atol=1e-6)


def test_the_first_bound_counts():
    tile = tile_of(*problem("wide", n_signals=4), np.float64)
    alone = {"alpha": 0.3, "max_l1_norm": 1.0, "max_error": 0.5 * tile.norms2, "max_nonzero": 4}
    stops = {name: follow(tile.clear(tile.indices.shape[1]), **{name: bound}) for name, bound in alone.items()}
    together = follow(tile.clear(tile.indices.shape[1]), **alone)
    np.testing.assert_allclose(together, np.max(list(stops.values()), axis=0), rtol=1e-12)


def test_a_count_stops_where_the_next_atom_would_join(dtype):
    tile = tile_of(*problem("wide"), dtype)
    penalties = follow(tile, max_nonzero=3)
    assert np.all(tile.counts[:-1] == 3)
    assert np.all(tile.gaps(penalties) <= TOL[dtype] + FLOOR[dtype])
    correlations = np.abs((tile.X - tile.dense() @ tile.D) @ tile.D.T)[:-1]
    at_bound = correlations >= penalties[:-1, None] * (1 - 1e-4)
    np.testing.assert_array_equal(at_bound.sum(axis=1), 4)


def test_max_iter_stops_at_an_event_with_a_code_that_is_optimal_there(dtype):
    tile = tile_of(*problem("wide"), dtype)
    penalties = follow(tile, 0.05, max_iter=3)
    assert np.all(tile.iterations <= 3)
    np.testing.assert_array_equal(tile.status[:-1], 1)
    assert tile.status[-1] == 0 and np.all(penalties[:-1] > 0.05)
    assert np.all(tile.gaps(penalties) <= TOL[dtype] + FLOOR[dtype])


def test_equal_correlations_join_one_after_the_other(dtype):
    D, x = np.eye(6), np.array([[1.0, -1.0, 1.0, 0.5, -0.5, 0.0]])
    tile = tile_of(x, D, dtype)
    follow(tile, 0.25)
    np.testing.assert_allclose(tile.dense()[0], np.sign(x[0]) * np.maximum(np.abs(x[0]) - 0.25, 0), atol=1e-6)
    assert tile.counts[0] == 5


def hard_problem(name, rng, n_signals=40):
    if name == "patches":  # smooth signals: a low penalty takes nearly as many atoms as there are features
        side = np.arange(6)
        waves = [np.cos(np.pi * f * (side + 0.5) / 6 + p) for f in np.linspace(0, 4, 9) for p in (0.0, 0.4)]
        D = np.array([np.outer(a, b).ravel() for a in waves for b in waves])[rng.permutation(324)[:120]]
        X = np.cumsum(np.cumsum(rng.standard_normal((n_signals, 6, 6)), axis=1), axis=2).reshape(n_signals, -1)
    elif name == "near_duplicates":
        D = rng.standard_normal((40, 20))
        D = np.concatenate([D, D + 1e-4 * rng.standard_normal(D.shape)])
        X = rng.standard_normal((n_signals, 20))
    else:
        D = rng.standard_normal((90, 6)) @ rng.standard_normal((6, 30))
        X = rng.standard_normal((n_signals, 6)) @ rng.standard_normal((6, 30))
    return X - X.mean(axis=1, keepdims=True), D / np.linalg.norm(D, axis=1, keepdims=True)


HARD = ["patches", "near_duplicates", "low_rank"]


@pytest.mark.parametrize("name", HARD)
def test_nearly_dependent_atoms_do_not_spoil_the_code(name, dtype, rng):
    tile = tile_of(*hard_problem(name, rng), dtype)
    alpha = (0.002 * tile.largest).astype(dtype)
    follow(tile, alpha)
    assert np.all(tile.status == 0)
    assert np.all(tile.gaps(alpha) <= (5e-5 if dtype == np.float32 else 1e-8))


@pytest.mark.parametrize("name", HARD)
def test_nearly_dependent_atoms_do_not_spoil_the_bounds(name, dtype, rng):
    tile = tile_of(*hard_problem(name, rng), dtype)
    loose = 1e-4 if dtype == np.float32 else 1e-8
    follow(tile, max_error=0.02 * tile.norms2)
    np.testing.assert_allclose(tile.residuals()[tile.status == 0], 0.02 * tile.norms2[tile.status == 0], rtol=loose)
    follow(tile.clear(tile.indices.shape[1]), 0.01 * tile.largest)
    bound = np.abs(tile.dense()).sum(axis=1)
    follow(tile.clear(tile.indices.shape[1]), max_l1_norm=bound)
    np.testing.assert_allclose(np.abs(tile.dense()).sum(axis=1), bound, rtol=loose)


class PathTile:
    """Codes of a tile at every penalty of a list."""

    def __init__(self, tile, alphas, positive=False, max_iter=1000):
        self.tile, dtype = tile, tile.Q.dtype
        # a copy: a view that cannot be written is another type to the compiler
        alphas = np.array(np.broadcast_to(alphas, (len(tile.Q), np.shape(alphas)[-1])), dtype, order="C")
        shape = alphas.shape
        self.codes = (
            np.zeros((*shape, tile.indices.shape[1]), np.int32),
            np.zeros((*shape, tile.indices.shape[1]), dtype),
        )
        self.counts, self.iterations = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
        self.gaps, self.status = np.full(shape, np.nan), np.full(shape, -1, np.int8)
        kernels_for("cpu", "homotopy").path_tile(
            tile.Q, tile.norms2, tile.G, alphas, TOL[dtype.type], max_iter, positive, *self.codes, self.counts,
            self.gaps, self.iterations, self.status,
        )  # fmt: skip

    def at(self, p):
        """A tile with the codes at penalty p."""
        tile = self.tile.clear(self.codes[0].shape[2])
        for mine, theirs in zip(tile.codes, (*self.codes, self.counts), strict=True):
            mine[:] = theirs[:, p]
        tile.certificates[:], tile.status[:] = self.gaps[:, p], self.status[:, p]
        return tile


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_path_solves_for_every_penalty(name, positive, dtype):
    tile = tile_of(*problem(name), dtype)
    alphas = np.outer(np.where(tile.largest > 0, tile.largest, 1), [1.2, 1.0, 0.7, 0.7, 0.1, 0.09, 0.01])
    path = PathTile(tile, alphas, positive)
    for p, alpha in enumerate(alphas.astype(dtype).T):
        here = path.at(p)
        gaps = here.gaps(alpha, positive)
        assert np.all(gaps <= TOL[dtype] + FLOOR[dtype])
        np.testing.assert_allclose(here.certificates / energies(tile), gaps, atol=FLOOR[dtype])
    assert np.all(path.status == 0)


@pytest.mark.parametrize("name", HARD)
def test_a_path_through_nearly_dependent_atoms_is_right(name, dtype, rng):
    tile = tile_of(*hard_problem(name, rng), dtype)
    alphas = np.outer(tile.largest, np.geomspace(0.9, 0.002, 6))
    path = PathTile(tile, alphas)
    for p, alpha in enumerate(alphas.astype(dtype).T):
        assert np.all(path.at(p).gaps(alpha) <= (5e-5 if dtype == np.float32 else 1e-8))


def test_a_path_that_max_iter_has_stopped_goes_on_from_there(dtype):
    tile = tile_of(*problem("wide"), dtype)
    alphas = np.outer(tile.largest, [0.5, 0.2, 0.1, 0.05])
    path = PathTile(tile, alphas, max_iter=15)
    for p, alpha in enumerate(alphas.astype(dtype).T):
        here = path.at(p)
        done = here.status == 0
        assert np.all(here.gaps(alpha)[done] <= TOL[dtype] + FLOOR[dtype])
    assert np.all(path.status[:, 0] == 0)


def test_a_signal_alone_has_the_same_bits_on_a_path(dtype):
    tile = tile_of(*problem("coherent"), dtype)
    alphas = np.outer(np.where(tile.largest > 0, tile.largest, 1), [0.5, 0.2, 0.02])
    path = PathTile(tile, alphas)
    for i in (4, 0):
        alone = PathTile(tile.alone(i), alphas[i])
        for p in range(3):
            assert path.at(p).counts[i] == alone.at(p).counts[0]
            np.testing.assert_array_equal(path.at(p).dense()[i], alone.at(p).dense()[0])


def test_a_gap_of_a_stopped_path_is_that_of_its_own_penalty(dtype):
    tile = tile_of(*problem("wide"), dtype)
    penalties = follow(tile, max_l1_norm=1.5)
    for x, w, c, gap in zip(tile.X, tile.dense(), penalties, tile.certificates, strict=True):
        assert abs(lasso_gap(x, tile.D, w, c) - gap) <= FLOOR[dtype] * max(x @ x, 1)
