"""The homotopy on a GPU: gaps recomputed in float64, bounds met, least angle regression against the reference."""

import numpy as np
import pytest
from kernels.lasso import FLOOR
from kernels.tile import PROBLEMS, Tile, problem

from reference import bounded_error_gap, bounded_norm_gap, lars
from sparseshare import sparse_encode
from sparseshare.kernels.dispatch import kernels_for

ORDERS = ("forward", "reverse", "random")
TOL = {np.float32: 2e-6, np.float64: 1e-8}


@pytest.fixture
def use_rooms(gpu, monkeypatch):
    """Makes the homotopy begin with other numbers of atoms, or none, in shared memory."""
    from sparseshare.kernels.gpu import active_set

    return lambda *rooms: monkeypatch.setattr(active_set, "_ROOMS", rooms)


def tile_of(name, dtype, n_signals=4):
    signals, atoms = problem(name, n_signals)
    return Tile(signals, atoms, dtype).clear(min(atoms.shape))


def follow(
    tile, gpu=None, alpha=0.0, max_l1_norm=np.inf, max_error=-1.0, max_nonzero=None, drop=True, positive=False,
    max_iter=1000,
):  # fmt: skip
    """Fill the tile, with one bound for all signals or one each; returns the penalties where the paths stopped."""
    n, dtype, put = len(tile.Q), tile.Q.dtype, gpu.asarray if gpu else np.asarray
    tile.clear(min(tile.D.shape)).values[...] = np.nan
    max_nonzero = tile.indices.shape[1] if max_nonzero is None else max_nonzero
    bounds = (alpha, dtype), (max_l1_norm, float), (max_error, float), (max_nonzero, np.int64)
    bounds = [put(np.broadcast_to(value, n).astype(kind)) for value, kind in bounds]
    own = *tile.codes, tile.certificates, np.full(n, np.nan), tile.iterations, tile.status
    results = [put(a) for a in own]
    kernels_for("cuda:0" if gpu else "cpu", "homotopy").homotopy_tile(
        *map(put, (tile.Q, tile.norms2, tile.G)), *bounds, TOL[dtype.type], drop, positive, max_iter, *results
    )
    if gpu:
        for here, there in zip(own, results, strict=True):
            here[...] = gpu.get(there)
    return own[4]


def energies(tile):
    return np.where(tile.norms2 > 0, 0.5 * tile.norms2, 1.0)


def assert_certified(tile, penalties, positive=False, floors=1):
    """Gaps as reported, and within the tolerance but for some times what rounding may leave."""
    dtype = tile.Q.dtype.type
    gaps = tile.gaps(penalties, positive)
    np.testing.assert_array_equal(tile.status, 0)
    np.testing.assert_allclose(tile.certificates / energies(tile), gaps, atol=FLOOR[dtype])
    assert np.all(gaps <= TOL[dtype] + floors * FLOOR[dtype])
    assert not positive or np.all(tile.dense() >= 0)


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_code_at_a_penalty_is_the_lasso_s(gpu, name, positive, dtype):
    tile = tile_of(name, dtype)
    for share in (1.01, 0.5, 0.05):
        alpha = (share * np.where(tile.largest > 0, tile.largest, 1)).astype(dtype)
        penalties = follow(tile, gpu, alpha, positive=positive)
        assert_certified(tile, alpha, positive)
        assert np.all(penalties[:-1] == np.maximum(alpha, tile.largest * (share > 1))[:-1])
        assert tile.counts[-1] == 0 and (share < 1 or not tile.counts.any())


@pytest.mark.parametrize("name", ["wide", "any_norm"])
def test_codes_and_events_are_those_of_the_cpu(gpu, name, dtype):
    tile, other = tile_of(name, dtype), tile_of(name, dtype)
    for options in ({"alpha": 0.1}, {"max_nonzero": 5, "drop": False}, {"max_l1_norm": 0.5}, {"max_error": 0.1}):
        found, expected = follow(tile, gpu, **options), follow(other, **options)
        atol = {np.float32: 1e-5, np.float64: 1e-10}[dtype]
        np.testing.assert_allclose(tile.dense(), other.dense(), atol=atol * max(1, np.abs(other.dense()).max()))
        np.testing.assert_allclose(found, expected, atol=atol)
        np.testing.assert_array_equal(tile.iterations, other.iterations)
        np.testing.assert_array_equal(tile.status, other.status)


@pytest.mark.races
@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_bound_on_the_norm_is_met_and_optimal(gpu, name, positive, dtype):
    tile = tile_of(name, dtype)
    follow(tile, gpu, 0.02, positive=positive)
    norms = np.abs(tile.dense()).sum(axis=1)
    for share in (0.2, 0.9):
        bound = share * norms
        penalties = follow(tile, gpu, max_l1_norm=bound, positive=positive)
        assert_certified(tile, penalties, positive)
        W = tile.dense()
        np.testing.assert_allclose(np.abs(W).sum(axis=1), bound, rtol=100 * np.finfo(dtype).eps, atol=1e-12)
        for x, w, limit, energy in zip(tile.X, W, bound, energies(tile), strict=True):
            assert bounded_norm_gap(x, tile.D, w, limit, positive) <= (TOL[dtype] + FLOOR[dtype]) * energy


@pytest.mark.races
@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_bound_on_the_error_is_met_and_optimal(gpu, name, positive, dtype):
    tile = tile_of(name, dtype)
    follow(tile, gpu, positive=positive)
    least = tile.residuals()
    for share in (0.4, 0.05):
        bound = least + share * (tile.norms2 - least)
        penalties = follow(tile, gpu, max_error=bound, positive=positive)
        assert_certified(tile, penalties, positive, floors=4)  # correlations have the errors of larger residuals
        rounding = 100 * np.finfo(dtype).eps
        np.testing.assert_allclose(tile.residuals(), bound, atol=rounding * tile.norms2.max())
        for x, w, limit, penalty in zip(tile.X[:-1], tile.dense(), bound, penalties, strict=False):
            excess = bounded_error_gap(x, tile.D, w, limit, positive)
            assert penalty * excess <= (TOL[dtype] + 4 * FLOOR[dtype]) * 0.5 * x @ x


@pytest.mark.parametrize("name", ["wide", "tall", "any_norm", "zero_atoms"])
def test_least_angle_regression_is_the_reference_s(gpu, name):
    tile = tile_of(name, np.float64)
    for count in (0, 1, 2, 5, 20):
        follow(tile, gpu, max_nonzero=count, drop=False)
        assert np.all(tile.counts <= count) and np.all(tile.status == 0)
        for x, w in zip(tile.X, tile.dense(), strict=True):
            np.testing.assert_allclose(w, lars(x, tile.D, count), atol=1e-8 * max(1, np.abs(w).max()))
        tile.check_residuals()


@pytest.mark.parametrize("n_atoms", [1, 31, 33, 257])
def test_any_number_of_atoms(gpu, n_atoms, dtype):
    rng = np.random.default_rng(n_atoms)
    tile = Tile(rng.standard_normal((3, 20)), rng.standard_normal((n_atoms, 20)), dtype)
    tile.Q, tile.G = tile.Q[:, :n_atoms].copy(), tile.G[:n_atoms, :n_atoms].copy()
    alpha = (0.1 * tile.largest).astype(dtype)
    follow(tile, gpu, alpha)
    assert_certified(tile, alpha)


@pytest.mark.parametrize("rooms", [(2, 5), (3, 128), ()], ids=str)
def test_signals_with_more_atoms_than_there_is_room_for_are_followed_anew(gpu, use_rooms, rooms, dtype):
    tile = tile_of("wide", dtype)
    expected = follow(tile, gpu, max_l1_norm=0.9), tile.dense()
    use_rooms(*rooms)
    found = follow(tile, gpu, max_l1_norm=0.9), tile.dense()
    assert_certified(tile, found[0])
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, atol={np.float32: 1e-5, np.float64: 1e-10}[dtype])
    assert tile.counts.max() > 2


def test_the_order_of_threads_does_not_show(gpu, use_rooms):
    use_rooms(4, 8)
    tile, results = tile_of("coherent", np.float32, 3), []
    for order in ORDERS:
        with gpu.order(order, seed=3):
            penalties = follow(tile, gpu, max_l1_norm=0.9)
        results.append([a.copy() for a in (*tile.codes, *tile.report, penalties)])
    for other in results[1:]:
        for own, there in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(own, there)


@pytest.mark.races
def test_threads_do_not_race(gpu, use_rooms):
    use_rooms(4)
    tile = tile_of("coherent", np.float32, 2)
    with gpu.races():
        penalties = follow(tile, gpu, max_l1_norm=0.9)
    assert_certified(tile, penalties)


def test_an_error_out_of_reach_is_reported_and_gives_least_squares(gpu, dtype):
    tile = tile_of("tall", dtype)
    W = np.linalg.lstsq(tile.D.T.astype(float), tile.X.T.astype(float), rcond=None)[0].T
    best = np.sum((tile.X - W @ tile.D) ** 2, axis=1)
    follow(tile, gpu, max_error=np.where(tile.norms2 > 0, 0.5 * best, 1))
    np.testing.assert_array_equal(tile.status, [2, 2, 2, 0])
    np.testing.assert_allclose(tile.dense()[:-1], W[:-1], atol=1e-4 if dtype == np.float32 else 1e-9)


def test_a_limit_on_events_is_kept_and_reported(gpu, dtype):
    tile = tile_of("wide", dtype)
    penalties = follow(tile, gpu, max_iter=3)
    np.testing.assert_array_equal(tile.status, [1, 1, 1, 0])
    assert np.all(tile.iterations <= 3) and np.all(penalties[:-1] > 0)
    np.testing.assert_allclose(tile.certificates / energies(tile), tile.gaps(penalties), atol=FLOOR[dtype])


@pytest.mark.parametrize(
    "options",
    [
        dict(algorithm="lars", n_nonzero_coefs=np.array([0, 1, 3, 5, 12, 2])),
        dict(max_l1_norm=0.7),
        dict(max_error=np.linspace(0.1, 2, 6)),
        dict(max_error=1.0, alpha=0.5, positive=True),
    ],
    ids=lambda options: "-".join(options),
)
def test_sparse_encode(gpu, options):
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((6, 12)), rng.standard_normal((30, 12))
    expected = sparse_encode(X, D, **options)
    found, info = sparse_encode(X, D, device="cuda", return_info=True, **options)
    assert type(found) is np.ndarray and info["converged"].all()
    np.testing.assert_allclose(found, expected, atol=1e-10)
    there = sparse_encode(gpu.asarray(X), gpu.asarray(D), sparse_output=True, **options)
    np.testing.assert_allclose(gpu.get(there.toarray()), expected, atol=1e-10)
