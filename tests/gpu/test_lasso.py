"""The lasso on a GPU: certificates recomputed in float64, objectives of the CPU's kernels, every form of a kernel."""

import numpy as np
import pytest
from kernels.lasso import FLOOR
from kernels.tile import PROBLEMS, Tile, problem

from reference import lasso_objective, relative_gap
from sparseshare import sparse_encode, sparse_encode_path
from sparseshare.kernels.dispatch import kernels_for

ORDERS = ("forward", "reverse", "random")
KERNELS = ("lasso_tile", "coordinate_tile")
FAMILY = {"lasso_tile": "active_set", "lasso_path_tile": "active_set", "coordinate_tile": "coordinate"}
TOL = {np.float32: 2e-6, np.float64: 1e-8}


@pytest.fixture
def use_rooms(gpu, monkeypatch):
    """Makes the active-set method begin with other numbers of atoms, or none, in shared memory."""
    from sparseshare.kernels.gpu import active_set

    return lambda *rooms: monkeypatch.setattr(active_set, "_ROOMS", rooms)


@pytest.fixture
def no_shared_memory(gpu, monkeypatch):
    from sparseshare.kernels.gpu import workspace

    monkeypatch.setattr(workspace, "shared_memory", lambda: 0)


def clear(tile, kernel):
    """Poisoned room for codes, no larger than the kernel asks for."""
    tile.clear(len(tile.G) if kernel == "coordinate_tile" else min(tile.D.shape))
    tile.values[...] = np.nan
    return tile


def solve(kernel, tile, alpha, gpu=None, tol=None, max_iter=1000, positive=False):
    """Codes of a tile from those in it; on the GPU if it is given."""
    put = gpu.asarray if gpu else np.asarray
    given = [put(a) for a in (tile.Q, tile.norms2, tile.G, np.asarray(alpha, tile.Q.dtype))]
    results = [put(a) for a in (*tile.codes, *tile.report)]
    tol = TOL[tile.Q.dtype.type] if tol is None else tol
    kernels = kernels_for("cuda:0" if gpu else "cpu", FAMILY[kernel])
    getattr(kernels, kernel)(*given, tol, max_iter, positive, *results)
    if gpu:
        for own, there in zip((*tile.codes, *tile.report), results, strict=True):
            own[...] = gpu.get(there)
    return tile


def penalties(tile, share):
    return (share * np.where(tile.largest > 0, tile.largest, 1)).astype(tile.Q.dtype)


def assert_certified(tile, alpha, positive=False):
    dtype = tile.Q.dtype.type
    gaps, energy = tile.gaps(alpha, positive), np.where(tile.norms2 > 0, 0.5 * tile.norms2, 1.0)
    np.testing.assert_array_equal(tile.status, 0)
    assert np.all(gaps <= TOL[dtype] + FLOOR[dtype])
    np.testing.assert_allclose(tile.certificates / energy, gaps, atol=FLOOR[dtype])
    assert not positive or np.all(tile.dense() >= 0)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gap_recomputed_is_within_the_tolerance_and_as_reported(gpu, kernel, name, dtype):
    tile = Tile(*problem(name, n_signals=5), dtype)
    for share, positive in ((0.5, False), (0.1, True), (0.02, False)):
        alpha = penalties(tile, share)
        solve(kernel, clear(tile, kernel), alpha, gpu, positive=positive)
        assert_certified(tile, alpha, positive)
        assert tile.counts[-1] == 0


@pytest.mark.parametrize("name", ["wide", "any_norm"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_objectives_are_those_of_the_cpu(gpu, kernel, name, dtype):
    tile, tol = Tile(*problem(name, n_signals=5), dtype), {np.float32: 1e-6, np.float64: 1e-12}[dtype]
    alpha = penalties(tile, 0.1)
    expected = solve(kernel, clear(tile, kernel), alpha, tol=tol).dense()
    found = solve(kernel, clear(tile, kernel), alpha, gpu, tol=tol, max_iter=100_000).dense()
    for x, w, v, a in zip(tile.X[:-1].astype(float), found, expected, alpha.astype(float), strict=False):
        best = lasso_objective(x, tile.D, v, a)
        assert abs(lasso_objective(x, tile.D, w, a) - best) <= {np.float32: 1e-5, np.float64: 1e-10}[dtype] * best


@pytest.mark.parametrize("n_atoms", [1, 31, 33, 257])
@pytest.mark.parametrize("kernel", KERNELS)
def test_any_number_of_atoms(gpu, kernel, n_atoms, dtype):
    rng = np.random.default_rng(n_atoms)
    tile = Tile(rng.standard_normal((3, 20)), rng.standard_normal((n_atoms, 20)), dtype)
    tile.Q, tile.G = tile.Q[:, :n_atoms].copy(), tile.G[:n_atoms, :n_atoms].copy()
    for share in (0.2, 1.01):
        alpha = penalties(tile, share)
        solve(kernel, clear(tile, kernel), alpha, gpu)
        assert_certified(tile, alpha)
    assert not tile.counts.any() and not tile.certificates.any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_order_of_threads_does_not_show(gpu, kernel, use_rooms):
    use_rooms(4, 8)
    tile = Tile(*problem("wide", n_signals=4), np.float64)
    results = []
    for order in ORDERS:
        with gpu.order(order, seed=3):
            solve(kernel, clear(tile, kernel), penalties(tile, 0.05), gpu)
        results.append([a.copy() for a in (*tile.codes, *tile.report)])
        assert_certified(tile, penalties(tile, 0.05))
    for other in results[1:]:
        for own, there in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(own, there)


@pytest.mark.races
@pytest.mark.parametrize("kernel", KERNELS)
def test_threads_do_not_race(gpu, kernel, use_rooms):
    use_rooms(4)
    tile = Tile(*problem("coherent", n_signals=2), np.float32)
    with gpu.races():
        solve(kernel, clear(tile, kernel), penalties(tile, 0.02), gpu)
    assert_certified(tile, penalties(tile, 0.02))


@pytest.mark.parametrize("rooms", [(2, 5), (2,), (3, 128), ()], ids=str)
@pytest.mark.parametrize("name", ["wide", "duplicates"])
def test_signals_with_more_atoms_than_there_is_room_for_go_on(gpu, use_rooms, rooms, name, dtype):
    tile = Tile(*problem(name, n_signals=4), dtype)
    use_rooms(*rooms)
    for positive in (False, True):
        alpha = penalties(tile, 0.05)
        solve("lasso_tile", clear(tile, "lasso_tile"), alpha, gpu, positive=positive)
        assert_certified(tile, alpha, positive)
    assert tile.counts.max() > 5


@pytest.mark.races
def test_sets_larger_than_shared_memory_go_on_by_plain_descent_and_where_that_crawls_directly(gpu, dtype):
    rng = np.random.default_rng(0)
    tile = Tile(rng.standard_normal((2, 120)), rng.standard_normal((150, 120)), dtype)
    for share in (0.15, 0.02):
        alpha = penalties(tile, share)
        solve("coordinate_tile", clear(tile, "coordinate_tile"), alpha, gpu)
        assert_certified(tile, alpha)
    assert tile.counts.max() > 96


@pytest.mark.parametrize("kernel", KERNELS)
def test_dictionaries_too_large_for_shared_memory(gpu, kernel, no_shared_memory, dtype):
    tile = Tile(*problem("wide", n_signals=3), dtype)
    alpha = penalties(tile, 0.2)
    solve(kernel, clear(tile, kernel), alpha, gpu)
    assert_certified(tile, alpha)


@pytest.mark.races
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_warm_start_needs_less_and_wrong_signs_are_left(gpu, kernel, dtype):
    tile = Tile(*problem("wide", n_signals=5), dtype)
    alpha = penalties(tile, 0.1)
    solve(kernel, clear(tile, kernel), alpha, gpu)
    cold = tile.iterations.sum()
    solve(kernel, tile, alpha, gpu)
    assert tile.iterations.sum() <= 0.3 * cold + len(tile.Q)
    assert_certified(tile, alpha)
    solve(kernel, tile, alpha / 2, gpu, positive=True)
    assert_certified(tile, alpha / 2, positive=True)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_limit_on_iterations_is_kept_and_reported(gpu, kernel, dtype):
    tile = Tile(*problem("wide", n_signals=5), dtype)
    alpha = penalties(tile, 0.02)
    solve(kernel, clear(tile, kernel), alpha, gpu, max_iter=2)
    assert np.all(tile.iterations <= 2)
    np.testing.assert_array_equal(tile.status, [1, 1, 1, 1, 0])
    gaps = tile.gaps(alpha)
    assert np.all(gaps[:-1] > TOL[dtype])
    np.testing.assert_allclose(tile.certificates[:-1] / (0.5 * tile.norms2[:-1]), gaps[:-1], atol=FLOOR[dtype])


@pytest.mark.parametrize("name", ["wide", "tall"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_no_penalty_gives_least_squares(gpu, kernel, name):
    tile = Tile(*problem(name, n_signals=4), np.float64)
    solve(kernel, clear(tile, kernel), np.zeros(4), gpu, max_iter=100_000)
    W = np.linalg.lstsq(tile.D.T, tile.X.T, rcond=None)[0].T
    best = np.sum((tile.X - W @ tile.D) ** 2, axis=1)
    np.testing.assert_allclose(tile.residuals(), best, atol=3e-8 * tile.norms2.max())
    np.testing.assert_array_equal(tile.status, 0)


@pytest.mark.parametrize("rooms", [(64, 128), (3, 6)], ids=str)
def test_penalties_after_one_another(gpu, use_rooms, rooms, dtype):
    use_rooms(*rooms)
    tile, shares = Tile(*problem("wide", n_signals=4), dtype), (1.1, 0.5, 0.1, 0.02)
    alphas = np.stack([penalties(tile, share) for share in shares], axis=1)
    n, n_penalties, capacity = len(tile.Q), len(shares), min(tile.D.shape)
    xp = gpu.xp
    codes = xp.full((n, n_penalties, capacity), -1, np.int32), gpu.poisoned((n, n_penalties, capacity), dtype)
    counts = xp.zeros((n, n_penalties), np.int32)
    report = [gpu.poisoned((n, n_penalties), kind) for kind in (float, np.int32, np.int8)]
    kernels_for("cuda:0", "active_set").lasso_path_tile(
        *map(gpu.asarray, (tile.Q, tile.norms2, tile.G, alphas)), TOL[dtype], 1000, False, *codes, counts, *report
    )
    for p in range(n_penalties):
        tile.indices, tile.values, tile.counts = (gpu.get(a)[:, p] for a in (*codes, counts))
        tile.certificates, tile.iterations, tile.status = (gpu.get(a)[:, p] for a in report)
        assert_certified(tile, alphas[:, p])
    assert not gpu.get(counts)[:, 0].any() and gpu.get(counts)[:-1, -1].min() > 6


@pytest.mark.parametrize(
    "options",
    [
        dict(algorithm="lasso_lars", alpha=np.linspace(0.1, 3, 6)),
        dict(algorithm="lasso_lars", alpha=0.5, positive=True, weights=np.linspace(0.5, 2, 30)),
        dict(algorithm="lasso_lars", alpha=0.5, l1_ratio=0.5),
        dict(algorithm="lasso_cd", alpha=0.5, tol=1e-12),
        dict(algorithm="lasso_cd", alpha=0.5, l1_ratio=0.5, positive=True, tol=1e-12),
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_sparse_encode(gpu, options):
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((6, 12)), rng.standard_normal((30, 12))
    X[3] = 0
    expected = sparse_encode(X, D, **options)
    found, info = sparse_encode(X, D, device="cuda", return_info=True, **options)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert type(found) is np.ndarray and info["converged"].all()
    np.testing.assert_array_less(info["gap"], 1e-6)
    there = sparse_encode(gpu.asarray(X), gpu.asarray(D), init=gpu.asarray(found), **options)
    assert type(there) is gpu.xp.ndarray
    np.testing.assert_allclose(gpu.get(there), expected, atol=1e-5)
    alpha, weights = np.broadcast_to(options["alpha"], 6), options.get("weights", np.ones(30))
    l1_ratio = options.get("l1_ratio", 1.0)
    if l1_ratio == 1:
        for x, w, a in zip(X, found, alpha, strict=True):
            assert relative_gap(x, D / weights[:, None], w * weights, a, options.get("positive", False)) < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        dict(alphas=[0.3, 2.0, 1.0]),
        dict(alphas=np.linspace(0.2, 2, 23)),
        dict(alphas=[1.0, 0.5], l1_ratio=0.5),
        dict(algorithm="omp", n_nonzero_coefs=[3, 1, 5]),
        dict(algorithm="ols", n_nonzero_coefs=[3, 1]),
        dict(algorithm="omp", n_nonzero_coefs=[3, 1], positive=True),
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_sparse_encode_path(gpu, options):
    rng = np.random.default_rng(1)
    X, D = rng.standard_normal((5, 12)), rng.standard_normal((30, 12))
    expected = sparse_encode_path(X, D, **options)
    found = sparse_encode_path(X, D, device="cuda", **options)
    assert type(found) is np.ndarray
    np.testing.assert_allclose(found, expected, atol=1e-9)
    there = sparse_encode_path(gpu.asarray(X), gpu.asarray(D), sparse_output=True, **options)
    for own, codes in zip(expected, there, strict=True):
        np.testing.assert_allclose(gpu.get(codes.toarray()), own, atol=1e-9)


def test_a_path_in_pieces(gpu, monkeypatch):
    """Signals that do not fit at once give the same codes."""
    import sparseshare.coding.path as path

    rng = np.random.default_rng(2)
    X, D, alphas = rng.standard_normal((7, 12)), rng.standard_normal((30, 12)), [1.0, 0.3]
    whole = sparse_encode_path(X, D, alphas, device="cuda")
    monkeypatch.setattr(path, "rows_that_fit", lambda *_: 3)
    np.testing.assert_allclose(sparse_encode_path(X, D, alphas, device="cuda"), whole, atol=1e-12)
    there = sparse_encode_path(gpu.asarray(X), gpu.asarray(D), gpu.asarray(alphas))
    np.testing.assert_allclose(gpu.get(there), whole, atol=1e-12)
    np.testing.assert_allclose(sparse_encode_path([X[:4], X[4:]], D, alphas, device="cuda"), whole, atol=1e-12)
