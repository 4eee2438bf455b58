"""Pursuits on a GPU against those of the CPU: codes, counts, residuals and status of every signal."""

import warnings

import numpy as np
import pytest
from kernels.tile import Tile, aligned, problem
from scipy.sparse import issparse

from reference import ols, omp, rows
from sparseshare import orthogonal_mp, orthogonal_mp_gram, sparse_encode
from sparseshare.kernels.cpu import masked_pursuit as masked_on_cpu
from sparseshare.kernels.cpu import matching as matching_on_cpu
from sparseshare.kernels.cpu import pursuit as on_cpu

ORDERS = ("forward", "reverse", "random")
FORMS = ("shared memory", "little of it", "scratch memory")
TOL = {np.float32: 2e-5, np.float64: 1e-10}


def tile_of(name, dtype, n_signals=5, seed=0):
    """A tile with atoms of unit norm, as problems of pursuits have them."""
    X, D = problem(name, n_signals, seed)
    norms = np.linalg.norm(D, axis=1, keepdims=True)
    tile = Tile(X, np.divide(D, norms, out=np.zeros_like(D), where=norms > 0), dtype)
    diagonal = np.einsum("ii->i", tile.G)
    diagonal[diagonal > 0.5] = 1
    return tile


class Results:
    """Poisoned room for the codes of a tile."""

    def __init__(self, n, capacity, n_stops, dtype):
        self.indices = np.full((n, capacity), -1, np.int32)
        self.values = np.full((n, capacity), np.nan, dtype)
        self.counts, self.status = np.full(n, -1, np.int32), np.full(n, -1, np.int8)
        self.residuals = np.full(n, np.nan)
        self.path = np.full((n, n_stops, capacity), np.nan, dtype)

    @property
    def all(self):
        return self.indices, self.values, self.counts, self.residuals, self.status, self.path


def pursue(kernels, tile, n_nonzero, max_error=-1.0, *, gpu=None, least_squares=False, weight=None, stops=()):
    """Codes of a tile; on the GPU if it is given."""
    n, put = len(tile.Q), gpu.asarray if gpu else np.asarray
    counts = np.broadcast_to(n_nonzero, n).astype(np.int64)
    out = Results(n, max(int(counts.max()), 1), len(stops), tile.Q.dtype)
    arrays = [put(a) for a in (tile.Q, tile.norms2, tile.G, counts, np.broadcast_to(max_error, n).astype(float))]
    stops, results = np.array(stops, np.int64), [put(a) for a in out.all]
    if least_squares:
        kernels.ols_tile(*arrays, stops, *results)
    else:
        kernels.omp_tile(*arrays, None if weight is None else put(weight), stops, *results)
    if gpu:
        for own, there in zip(out.all, results, strict=True):
            own[...] = gpu.get(there)
    return out


def dense(tile, out):
    codes = np.zeros((len(tile.Q), len(tile.G)))
    for w, atoms, values, count in zip(codes, out.indices, out.values, out.counts, strict=True):
        assert len(set(atoms[:count].tolist())) == count
        w[atoms[:count]] = values[:count]
    return codes


@pytest.fixture
def on_gpu(gpu):
    from sparseshare.kernels.gpu import pursuit

    return pursuit


@pytest.fixture
def use_form(on_gpu, monkeypatch):
    """Makes larger codes take one of the forms."""
    from sparseshare.kernels.gpu import workspace

    def use(form):
        monkeypatch.setattr(on_gpu, "shared_memory", lambda: {"shared memory": 2**17}.get(form, 9 * 2**10))
        monkeypatch.setattr(on_gpu, "_MOST_THREADS", 0 if form == "scratch memory" else 512)
        monkeypatch.setattr(on_gpu, "_LISTED_BLOCKS", 1)
        monkeypatch.setattr(workspace, "_BLOCKS", 0)  # one block, which goes from signal to signal

    return use


def assert_equal_codes(tile, found, expected):
    tol = TOL[tile.Q.dtype.type]
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.status, expected.status)
    for i, count in enumerate(expected.counts):
        np.testing.assert_array_equal(found.indices[i, :count], expected.indices[i, :count])
        np.testing.assert_allclose(found.values[i, :count], expected.values[i, :count], atol=tol)
    np.testing.assert_allclose(found.residuals, expected.residuals, atol=tol * tile.norms2.max())


@pytest.mark.parametrize("least_squares", [False, True], ids=["omp", "ols"])
@pytest.mark.parametrize("name", ["wide", "tall", "zero_atoms", "duplicates", "low_rank"])
def test_codes_are_those_of_the_cpu(gpu, on_gpu, name, least_squares, dtype):
    tile, options = tile_of(name, dtype), {"least_squares": least_squares}
    found, expected = pursue(on_gpu, tile, 6, gpu=gpu, **options), pursue(on_cpu, tile, 6, **options)
    if name in ("wide", "tall", "zero_atoms"):
        assert_equal_codes(tile, found, expected)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_allclose(found.residuals, expected.residuals, atol=TOL[dtype] * tile.norms2.max())
    assert found.counts[-1] == 0 and found.status[-1] == expected.status[-1]


@pytest.mark.parametrize("solver", [omp, ols])
def test_codes_are_the_reference_s(gpu, on_gpu, solver):
    tile = tile_of("wide", np.float64)
    found = pursue(on_gpu, tile, 6, gpu=gpu, least_squares=solver is ols)
    expected = rows(solver, tile.X, tile.D, 6)
    np.testing.assert_allclose(dense(tile, found)[:, : len(tile.D)], expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("least_squares", [False, True], ids=["omp", "ols"])
@pytest.mark.parametrize("order", ORDERS)
def test_all_forms_in_any_order_of_threads(gpu, on_gpu, use_form, form, least_squares, order):
    tile = tile_of("wide", np.float64, 7)
    use_form(form)
    counts = np.array([0, 1, 10, 11, 13, 17, 17])
    target = np.array([-1, -1, -1, -1, -1, 0.2, 1e-4]) * tile.norms2
    options = {"least_squares": least_squares, "stops": (1, 4, 12)}
    expected = pursue(on_cpu, tile, counts, target, **options)
    with gpu.order(order):
        found = pursue(on_gpu, tile, counts, target, gpu=gpu, **options)
    assert_equal_codes(tile, found, expected)
    for own, other, count in zip(found.path, expected.path, expected.counts, strict=True):
        for a, b, stop in zip(own, other, options["stops"], strict=True):
            np.testing.assert_allclose(a[: min(stop, count)], b[: min(stop, count)], atol=1e-10)
    assert found.counts[0] == 0 and found.residuals[0] == pytest.approx(tile.norms2[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_atoms", [1, 31, 33, 257])
def test_any_number_of_atoms(gpu, on_gpu, use_form, n_atoms, form, dtype):
    use_form(form)
    rng = np.random.default_rng(n_atoms)
    D = rng.standard_normal((n_atoms, 40))
    tile = Tile(rng.standard_normal((2, 40)), D / np.linalg.norm(D, axis=1, keepdims=True), dtype)
    np.einsum("ii->i", tile.G)[:n_atoms] = 1
    assert_equal_codes(tile, pursue(on_gpu, tile, 12, gpu=gpu), pursue(on_cpu, tile, 12))


@pytest.mark.races
@pytest.mark.parametrize("form", FORMS)
def test_more_atoms_than_a_warp_has_lanes(gpu, on_gpu, use_form, form):
    use_form(form)
    D = np.random.default_rng(0).standard_normal((50, 70))
    X = np.random.default_rng(1).standard_normal((2, 70))
    tile = Tile(X, D / np.linalg.norm(D, axis=1, keepdims=True), np.float64)
    np.einsum("ii->i", tile.G)[:50] = 1
    found, expected = pursue(on_gpu, tile, 45, gpu=gpu, stops=(36,)), pursue(on_cpu, tile, 45, stops=(36,))
    assert_equal_codes(tile, found, expected)
    np.testing.assert_allclose(found.path[:, 0, :36], expected.path[:, 0, :36], atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_dependent_atoms_are_passed_over(gpu, on_gpu, use_form, form, dtype):
    """The second atom in line is a copy of the first but for rounding."""
    use_form(form)
    rng = np.random.default_rng(0)
    D = np.linalg.qr(rng.standard_normal((40, 40)))[0][:20]
    D = np.concatenate([D, D, -D[:5]])
    tile = Tile(rng.standard_normal((3, 40)), D, dtype)
    tile.G[np.arange(45), np.arange(45)] = 1
    tile.Q[:, 20:] *= 1.001  # correlations that no signal has: copies stay in the lead once the first is chosen
    found, expected = pursue(on_gpu, tile, 20, gpu=gpu), pursue(on_cpu, tile, 20)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.status, expected.status)
    codes, others = dense(tile, found), dense(tile, expected)
    np.testing.assert_allclose(codes, others, atol=20 * TOL[dtype])


@pytest.mark.parametrize("form", FORMS)
def test_weights_decide_among_atoms(gpu, on_gpu, use_form, form, dtype):
    tile = tile_of("wide", dtype)
    use_form(form)
    weight = aligned(np.linspace(0.2, 1, tile.Q.shape[1]).astype(dtype))
    assert_equal_codes(tile, pursue(on_gpu, tile, 12, gpu=gpu, weight=weight), pursue(on_cpu, tile, 12, weight=weight))


@pytest.mark.races
@pytest.mark.parametrize("least_squares", [False, True], ids=["omp", "ols"])
@pytest.mark.parametrize("form", FORMS)
def test_threads_do_not_race(gpu, on_gpu, use_form, form, least_squares):
    D = np.random.default_rng(0).standard_normal((200, 30))
    tile = Tile(D[:3] + D[3:6], D / np.linalg.norm(D, axis=1, keepdims=True), np.float64)
    np.einsum("ii->i", tile.G)[:200] = 1
    use_form(form)
    with gpu.races():
        found = pursue(on_gpu, tile, 12, gpu=gpu, least_squares=least_squares, stops=(3,))
    assert_equal_codes(tile, found, pursue(on_cpu, tile, 12, least_squares=least_squares, stops=(3,)))


def match(kernels, name, tile, n_nonzero, max_error=-1.0, gpu=None, options=()):
    """Fill the tile with codes by one of the kernels of `matching`."""
    n, put = len(tile.Q), gpu.asarray if gpu else np.asarray
    counts = np.broadcast_to(n_nonzero, n).astype(np.int64)
    tile.clear(max(int(counts.max()), 1))
    given = tile.Q, tile.norms2, tile.G, counts, np.broadcast_to(max_error, n).astype(float)
    results = [put(a) for a in (*tile.codes, *tile.report)]
    getattr(kernels, name)(*map(put, given), *options, *results)
    if gpu:
        for own, there in zip((*tile.codes, *tile.report), results, strict=True):
            own[...] = gpu.get(there)
    return tile


MATCHING = [("mp_tile", (30, False)), ("mp_tile", (30, True)), ("positive_omp_tile", ())]


@pytest.fixture(params=["shared memory", "scratch memory"])
def matching_on_gpu(gpu, request, monkeypatch):
    from sparseshare.kernels.gpu import matching, workspace

    if request.param == "scratch memory":
        monkeypatch.setattr(workspace, "shared_memory", lambda: 0)
        monkeypatch.setattr(workspace, "_BLOCKS", 0)
    return matching


@pytest.mark.races
@pytest.mark.parametrize(("kernel", "options"), MATCHING, ids=["signed", "upwards", "positive"])
@pytest.mark.parametrize("name", ["wide", "tall", "any_norm", "zero_atoms", "coherent"])
def test_matching(gpu, matching_on_gpu, name, kernel, options, dtype):
    tiles = [Tile(*problem(name, 5), dtype) for _ in range(2)]
    counts, targets = np.array([0, 3, 8, 12, 5]), np.array([-1, 0.1, -1, 1e-3, -1]) * tiles[0].norms2
    found = match(matching_on_gpu, kernel, tiles[0], counts, targets, gpu, options)
    expected = match(matching_on_cpu, kernel, tiles[1], counts, targets, None, options)
    level = tiles[0].norms2.max() * (1e-4 if dtype == np.float32 else 1e-10)
    np.testing.assert_allclose(found.certificates, expected.certificates, atol=level)
    np.testing.assert_allclose(found.residuals(), expected.residuals(), atol=level)
    if dtype == np.float64:
        np.testing.assert_array_equal(found.counts, expected.counts)
        np.testing.assert_array_equal(found.iterations, expected.iterations)
        np.testing.assert_array_equal(found.status, expected.status)
        if name != "coherent":
            scale = np.abs(expected.dense()).max()
            np.testing.assert_allclose(found.dense(), expected.dense(), atol=1e-9 * scale)


@pytest.mark.races
@pytest.mark.parametrize(("kernel", "options"), MATCHING, ids=["signed", "upwards", "positive"])
@pytest.mark.parametrize("order", [*ORDERS, "races"])
def test_matching_in_any_order_of_threads(gpu, matching_on_gpu, order, kernel, options):
    D = np.random.default_rng(0).standard_normal((257, 30))
    X = D[:3] + D[3:6] + D[6:9]
    first = match(matching_on_gpu, kernel, Tile(X, D, np.float64), 8, -1.0, gpu, options)
    with gpu.races() if order == "races" else gpu.order(order):
        other = match(matching_on_gpu, kernel, Tile(X, D, np.float64), 8, -1.0, gpu, options)
    for a, b in zip((*first.codes, *first.report), (*other.codes, *other.report), strict=True):
        np.testing.assert_array_equal(a, b)


def masked(tile, missing, n_nonzero, max_error=-1.0, gpu=None, stops=(), power=0, raised=0):
    """Codes for the observed entries of the signals of a tile; atoms times 2**power.

    Correlations with the last `raised` atoms are larger than any signal has.
    """
    from sparseshare.kernels.dispatch import kernels_for

    n, dtype = len(tile.X), tile.Q.dtype
    put = gpu.asarray if gpu else np.asarray
    atoms = aligned(np.zeros((tile.Q.shape[1], tile.X.shape[1]), dtype))
    atoms[: len(tile.D)] = np.ldexp(tile.D, power)
    seen = np.where(missing, 0, tile.X)
    counts = np.broadcast_to(n_nonzero, n).astype(np.int64)
    out = Results(n, max(int(counts.max()), 1), len(stops), dtype)
    Q = aligned(seen @ atoms.T)
    Q[:, len(tile.D) - raised : len(tile.D)] *= 1.001
    given = (
        Q, np.sum(seen.astype(float) ** 2, axis=1), atoms, aligned(atoms.T.copy()), missing,
        counts, np.broadcast_to(max_error, n).astype(float),
    )  # fmt: skip
    results = [put(a) for a in out.all]
    kernels = kernels_for("cuda", "masked_pursuit") if gpu else masked_on_cpu
    kernels.masked_omp_tile(*map(put, given), np.array(stops, np.int64), *results)
    if gpu:
        for own, there in zip(out.all, results, strict=True):
            own[...] = gpu.get(there)
    return out


@pytest.mark.parametrize("name", ["wide", "tall", "zero_atoms", "duplicates"])
@pytest.mark.parametrize("power", [0, -70])
def test_masked_signals(gpu, name, power, dtype):
    tile = tile_of(name, dtype, 9)
    missing = np.random.default_rng(0).random(tile.X.shape) < 0.4
    missing[0, 2:] = True
    counts, targets = np.array([5, 0, 1, 3, 5, 5, 8, 8, 4]), np.array([-1] * 6 + [0.3, 0.05, -1]) * tile.norms2
    found, expected = (masked(tile, missing, counts, targets, where, (1, 4), power) for where in (gpu, None))
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.residuals, expected.residuals, atol=5 * TOL[dtype] * tile.norms2.max())
    if name == "duplicates":
        return
    level = np.ldexp(100 * TOL[dtype], -power)
    np.testing.assert_allclose(dense(tile, found), dense(tile, expected), atol=level)
    for i, count in enumerate(expected.counts):
        for p, stop in enumerate((1, 4)):
            own, other = (out.path[i, p, : min(stop, count)] for out in (found, expected))
            np.testing.assert_allclose(own, other, atol=level)


def test_dependent_atoms_of_masked_signals_are_passed_over(gpu, dtype):
    D = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0][:20]
    tile = Tile(np.random.default_rng(1).standard_normal((3, 40)), np.concatenate([D, D]), dtype)
    missing = np.zeros(tile.X.shape, bool)
    missing[:, 35:] = True
    found, expected = (masked(tile, missing, 20, -1.0, where, raised=20) for where in (gpu, None))
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(dense(tile, found), dense(tile, expected), atol=200 * TOL[dtype])


@pytest.mark.races
@pytest.mark.parametrize("order", [*ORDERS, "races"])
def test_masked_signals_in_any_order_of_threads(gpu, order, monkeypatch):
    from sparseshare.kernels.gpu import workspace

    monkeypatch.setattr(workspace, "_BLOCKS", 0)
    tile = tile_of("wide", np.float64, 9)
    missing = np.random.default_rng(1).random(tile.X.shape) < 0.4
    first = masked(tile, missing, 5, -1.0, gpu)
    with gpu.races() if order == "races" else gpu.order(order):
        other = masked(tile, missing, 5, -1.0, gpu)
    np.testing.assert_array_equal(dense(tile, first), dense(tile, other))
    np.testing.assert_array_equal(first.residuals, other.residuals)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "omp", "n_nonzero_coefs": 4},
        {"algorithm": "omp", "n_nonzero_coefs": 12, "max_error": 0.5},
        {"algorithm": "omp", "n_nonzero_coefs": 4, "positive": True},
        {"algorithm": "omp", "n_nonzero_coefs": 4, "mask": "nan"},
        {"algorithm": "ols", "n_nonzero_coefs": 4},
        {"algorithm": "mp", "n_nonzero_coefs": 4, "max_iter": 8},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_encoding(gpu, options, dtype):
    X, D = (a.astype(dtype) for a in problem("any_norm", 6))
    if "mask" in options:
        X[:, ::3] = np.nan
    expected, about = sparse_encode(X, D, return_info=True, **options)
    hosted, info = sparse_encode(X, D, device="cuda", return_info=True, **options)
    assert type(hosted) is np.ndarray and hosted.dtype == dtype
    np.testing.assert_allclose(hosted, expected, atol=1e4 * TOL[dtype])
    np.testing.assert_allclose(info["residual"], about["residual"], atol=100 * TOL[dtype])
    resident = sparse_encode(gpu.asarray(X), gpu.asarray(D), sparse_output=True, **options)
    assert not issparse(resident) and resident.dtype == dtype
    np.testing.assert_array_equal(resident.get().toarray(), hosted)


@pytest.mark.parametrize("n_targets", [None, 3])
@pytest.mark.parametrize(
    "options", [{"n_nonzero_coefs": 4}, {"tol": 0.3}, {"n_nonzero_coefs": 12, "return_path": True}], ids=str
)
def test_orthogonal_mp(gpu, n_targets, options, dtype):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((30, 40)) * rng.uniform(0.5, 2, 40)).astype(dtype)
    y = (X[:, :3] @ rng.standard_normal((3, 3)) + 0.1 * rng.standard_normal((30, 3))).astype(dtype)
    y = y[:, 0] if n_targets is None else y
    norms2 = np.atleast_1d((y**2).sum(axis=0))
    expected, steps = orthogonal_mp(X, y, return_n_iter=True, **options)
    level = 100 * TOL[dtype]
    hosted, n_iter = orthogonal_mp(X, y, device="cuda", return_n_iter=True, **options)
    assert type(hosted) is np.ndarray and hosted.dtype == dtype and n_iter == steps
    np.testing.assert_allclose(hosted, expected, atol=level)
    resident = orthogonal_mp(gpu.asarray(X), gpu.asarray(y), **options)
    np.testing.assert_array_equal(resident.get(), hosted)
    given = [gpu.asarray(a) for a in (X.T @ X, X.T @ y)]
    resident = orthogonal_mp_gram(*given, norms_squared=gpu.asarray(norms2), **options)
    np.testing.assert_allclose(resident.get(), expected, atol=level)
    assert resident.dtype == dtype


def test_orthogonal_mp_refuses_and_warns_as_on_the_cpu(gpu):
    X, y = np.random.default_rng(0).standard_normal((2, 30, 30))
    with pytest.raises(ValueError, match="y contains NaN"):
        orthogonal_mp(gpu.asarray(X), gpu.asarray(np.where(y > 2, np.nan, y)))
    with pytest.raises(TypeError, match="cuda"):
        orthogonal_mp(gpu.asarray(X), y)
    X[:, 3:] = X[:, :1]
    with pytest.warns(RuntimeWarning, match="linear dependence"):
        coef = orthogonal_mp(gpu.asarray(X), gpu.asarray(y[:, 0]), n_nonzero_coefs=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        np.testing.assert_allclose(coef.get(), orthogonal_mp(X, y[:, 0], n_nonzero_coefs=5), atol=1e-9)
