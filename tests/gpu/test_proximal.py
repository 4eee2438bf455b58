"""ISTA and FISTA on a GPU: certified by the duality gap, and as the twins on the CPU have it."""

import numpy as np
import pytest
from kernels.tile import Tile, problem

from reference import relative_gap
from sparseshare import sparse_encode
from sparseshare.kernels.cpu import proximal as on_cpu

DTYPES = [np.float32, np.float64]
TOL = {np.float32: 1e-4, np.float64: 1e-6}


@pytest.fixture
def on_gpu(gpu):
    from sparseshare.kernels.gpu import proximal

    return proximal


def penalties(tile, share):
    return np.maximum(share * tile.largest, 1e-3).astype(tile.Q.dtype)


def step_of(tile, ridge=0.0):
    return 1 / (1.0001 * np.linalg.norm(tile.D.astype(float), 2) ** 2 + ridge)


def solve(gpu, kernel, tile, alpha, tol, max_iter=3000, positive=False, step=None, start=False, **forms):
    """Run a twin of the GPU on a tile of NumPy arrays; poisoned results."""
    results = (*tile.codes, *tile.report)
    if not start:
        tile.clear(tile.indices.shape[1])
        results = (*tile.codes, *tile.report)
    on_device = [gpu.asarray(a) for a in results]
    if not start:
        on_device[1], on_device[3] = gpu.poisoned(tile.values.shape, tile.Q.dtype), gpu.poisoned(len(tile.Q))
    forms = {name: value if value is None else gpu.asarray(value) for name, value in forms.items()}
    kernel(
        gpu.asarray(tile.Q), gpu.asarray(tile.norms2), gpu.asarray(tile.G), gpu.asarray(alpha),
        step or step_of(tile), tol, max_iter, positive, *on_device, **forms,
    )  # fmt: skip
    for own, found in zip(results, on_device, strict=True):
        own[...] = gpu.get(found)
    return tile


def padded_atoms(tile):
    atoms = np.zeros((tile.Q.shape[1], tile.D.shape[1]), tile.Q.dtype)
    atoms[: tile.n_atoms] = tile.D
    return atoms


def in_residual_form(tile):
    return {"signals": tile.X, "atoms": padded_atoms(tile)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "form"),
    [("wide", "gram"), ("wide", "residual"), ("tall", "gram"), ("duplicates", "residual"), ("zero_atoms", "gram")],
)
def test_fista_is_certified(gpu, on_gpu, name, dtype, form):
    tile = Tile(*problem(name, 4), dtype)
    alpha, positive = penalties(tile, 0.3), name == "duplicates"
    forms = in_residual_form(tile) if form == "residual" else {}
    solve(gpu, on_gpu.fista_tile, tile, alpha, TOL[dtype], positive=positive, **forms)
    assert (tile.status == 0).all() and (tile.iterations % 10 == 0).all()
    assert (tile.gaps(alpha, positive) <= TOL[dtype] * 1.01 + 1e-6 * (dtype == np.float32)).all()
    w = tile.dense()
    assert not positive or (w >= 0).all()
    for i in range(len(w)):
        assert (np.diff(tile.indices[i, : tile.counts[i]]) > 0).all()
    half = 0.5 * tile.norms2 + (tile.norms2 == 0)
    np.testing.assert_allclose(
        tile.certificates / half, tile.gaps(alpha, positive), atol=3e-6 if dtype == np.float32 else 1e-12
    )


@pytest.mark.parametrize("kernel", ["ista_tile", "fista_tile"])
@pytest.mark.parametrize("form", ["gram", "residual", "image"])
def test_the_same_steps_as_on_the_cpu(gpu, on_gpu, kernel, form):
    tile = Tile(*problem("wide"), np.float64)
    alpha = penalties(tile, 0.2)
    expected = Tile(*problem("wide"), np.float64)
    getattr(on_cpu, kernel)(
        expected.Q, expected.norms2, expected.G, alpha, step_of(tile), 0.0, 27, False, *expected.codes,
        *expected.report,
    )  # fmt: skip
    forms = {} if form == "gram" else in_residual_form(tile) | ({"signals": None} if form == "image" else {})
    solve(gpu, getattr(on_gpu, kernel), tile, alpha, 0.0, max_iter=27, **forms)
    np.testing.assert_allclose(tile.dense(), expected.dense(), rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(tile.iterations[:-1], 27)
    np.testing.assert_array_equal(tile.status, expected.status)
    np.testing.assert_allclose(tile.certificates, expected.certificates, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_features", [20, 70])
def test_images_are_summed_where_codes_are_sparse(gpu, on_gpu, monkeypatch, dtype, n_features):
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((200, n_features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    tile = Tile(atoms[:4] + 0.4 * atoms[4:8] + 0.1 * rng.standard_normal((4, n_features)), atoms, dtype)
    alpha, taken, real = penalties(tile, 0.6), [], on_gpu.kernel

    def kernel(family, name, *template):
        taken.append((name, *template[1:]))
        return real(family, name, *template)

    monkeypatch.setattr(on_gpu, "kernel", kernel)
    solve(gpu, on_gpu.fista_tile, tile, alpha, 1e-5, **in_residual_form(tile))
    assert ("step", 0, 2 if n_features == 20 else 8) in taken
    assert (tile.status == 0).all() and (tile.gaps(alpha) <= 1.2e-5).all()
    sparse = tile.dense()
    monkeypatch.setattr(on_gpu, "_SPARSE", -1.0)
    solve(gpu, on_gpu.fista_tile, tile, alpha, 1e-5, **in_residual_form(tile))
    np.testing.assert_allclose(tile.dense(), sparse, atol=1e-4 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["gram", "residual"])
def test_any_order_of_threads(gpu, on_gpu, dtype, form):
    found = []
    for order in ("forward", "reverse", "random"):
        tile = Tile(*problem("wide", n_signals=9), dtype)
        forms = in_residual_form(tile) if form == "residual" else {}
        with gpu.order(order):
            solve(gpu, on_gpu.fista_tile, tile, penalties(tile, 0.5), 1e-3, max_iter=25, **forms)
        found.append((tile.dense(), *tile.report))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.races
def test_no_two_threads_meet(gpu, on_gpu):
    tile = Tile(*problem("wide", n_signals=3), np.float32)
    with gpu.races():
        solve(gpu, on_gpu.fista_tile, tile, penalties(tile, 0.7), 1e-6, max_iter=25, **in_residual_form(tile))


@pytest.mark.parametrize("form", ["gram", "residual"])
def test_rows_that_are_done_are_left_out(gpu, on_gpu, form):
    """Signals that need many iterations have the same codes beside signals that need none."""
    signals, atoms = problem("wide", n_signals=31)
    signals[3:28] = atoms[3:28]  # solved within few iterations
    tile, alone = Tile(signals, atoms, np.float64), Tile(signals[[0, 1, 2, 28, 29, 30]], atoms, np.float64)
    shapes = []
    real = gpu.xp.matmul

    def matmul(a, b, out=None):
        shapes.append(len(a))
        return real(a, b, out=out)

    gpu.xp.matmul = matmul
    try:
        forms = in_residual_form(tile) if form == "residual" else {}
        alpha = np.where(np.isin(np.arange(31), np.arange(3, 28)), 0.9 * tile.largest, 0.1 * tile.largest + 1e-3)
        solve(gpu, on_gpu.fista_tile, tile, alpha, 1e-6, max_iter=400, **forms)
    finally:
        gpu.xp.matmul = real
    assert shapes[0] == 31 and min(shapes) < 10
    own = [0, 1, 2, 28, 29, 30]
    forms = in_residual_form(alone) if form == "residual" else {}
    solve(gpu, on_gpu.fista_tile, alone, alpha[own], 1e-6, max_iter=400, step=step_of(tile), **forms)
    np.testing.assert_allclose(tile.dense()[own], alone.dense(), atol=1e-10)
    np.testing.assert_array_equal(tile.iterations[own], alone.iterations)


@pytest.mark.races
@pytest.mark.parametrize("form", ["gram", "residual"])
def test_a_start_at_the_optimum_needs_no_iteration(gpu, on_gpu, form):
    tile = Tile(*problem("wide"), np.float64)
    alpha = penalties(tile, 0.3)
    forms = in_residual_form(tile) if form == "residual" else {}
    solve(gpu, on_gpu.fista_tile, tile, alpha, 1e-6, **forms)
    before = tile.dense()
    solve(gpu, on_gpu.fista_tile, tile, alpha, 1.01e-6, start=True, **forms)
    assert (tile.iterations == 0).all() and (tile.status == 0).all()
    np.testing.assert_array_equal(tile.dense(), before)


@pytest.mark.parametrize("form", ["gram", "residual"])
def test_ridge_and_weights(gpu, on_gpu, form):
    """A quadratic penalty and weights of each signal are those of an extended and rescaled problem."""
    tile = Tile(*problem("wide", n_signals=7), np.float64)
    rng = np.random.default_rng(1)
    ridge, weights = np.full(len(tile.G), 0.2), np.ones((7, len(tile.G)))
    weights[:, : tile.n_atoms] = rng.uniform(0.5, 2, (7, tile.n_atoms))
    weights[2, 5:9] = np.inf
    alpha = penalties(tile, 0.3)
    atoms = padded_atoms(tile)
    tile.G += np.diag(ridge)
    forms = {} if form == "gram" else {"signals": tile.X, "atoms": atoms, "ridge": ridge}
    solve(gpu, on_gpu.fista_tile, tile, alpha, 1e-8, step=step_of(tile, 0.2), weights=weights, **forms)
    assert (tile.status == 0).all()
    w = tile.dense()
    assert (w[2, 5:9] == 0).all()
    for i in range(7):
        kept = np.isfinite(weights[i, : tile.n_atoms])
        D = tile.D[kept] / weights[i, : tile.n_atoms][kept, None]
        scale = 1 / weights[i, : tile.n_atoms][kept]
        extended = np.hstack([D, np.diag(np.sqrt(0.2) * scale)])
        x = np.concatenate([tile.X[i], np.zeros(kept.sum())])
        assert relative_gap(x, extended, w[i][kept] / scale, alpha[i], False) <= 1.1e-8


@pytest.mark.parametrize("options", [
    {"algorithm": "fista", "alpha": 0.3},
    {"algorithm": "ista", "alpha": 0.5, "max_iter": 60, "tol": 0.1},
    {"algorithm": "fista", "alpha": 0.3, "positive": True},
    {"algorithm": "fista", "alpha": 0.3, "l1_ratio": 0.7},
    {"algorithm": "fista", "alpha": "each"},
    {"algorithm": "fista", "alpha": 0.3, "weights": "atom"},
], ids=str)  # fmt: skip
def test_encoding(gpu, options):
    X, D = problem("tall" if options.get("positive") else "wide", 4)
    options = dict(options)
    if options["alpha"] == "each":
        options["alpha"] = np.linspace(0.2, 0.5, 4)
    if "weights" in options:
        options["weights"] = np.linspace(0.5, 2, len(D))
        options["weights"][3] = np.inf
    options = {"tol": 1e-6, **options}
    expected, about = sparse_encode(X, D, return_info=True, **options)
    hosted, info = sparse_encode(X, D, device="cuda", return_info=True, **options)
    assert type(hosted) is np.ndarray
    assert info["converged"].all() and (info["gap"] <= options["tol"]).all()
    assert (np.abs(info["n_iter"] - about["n_iter"]) <= 40).all()  # the gap goes up and down, and is seen every 10
    l1 = options.get("l1_ratio", 1.0)

    def objectives(W):
        weights = options.get("weights", np.ones(len(D)))
        norms = np.where(W != 0, np.abs(W) * np.where(np.isfinite(weights), weights, 0), 0).sum(axis=1)
        rest = 0.5 * ((X - W @ D) ** 2).sum(axis=1)
        return rest + options["alpha"] * (l1 * norms + 0.5 * (1 - l1) * (W**2).sum(axis=1))

    bound = 2 * options["tol"] * 0.5 * (X**2).sum(axis=1) + 1e-12
    assert (np.abs(objectives(hosted) - objectives(expected)) <= bound).all()
    resident = sparse_encode(gpu.asarray(X), gpu.asarray(D), **options)
    np.testing.assert_array_equal(gpu.get(resident), hosted)


def test_the_host_hardly_waits(gpu, on_gpu):
    if gpu.state is None:
        pytest.skip("only the fake counts")
    tile, trips = Tile(*problem("wide", n_signals=4), np.float32), []
    for max_iter in (15, 45):
        gpu.state.trips.clear()
        solve(gpu, on_gpu.fista_tile, tile, penalties(tile, 0.02), 0.0, max_iter=max_iter, **in_residual_form(tile))
        trips.append(sum(n for kind, n in gpu.state.trips.items() if kind != "get without blocking"))
    assert trips[0] == trips[1]
