"""Convolution, its adjoint and codes of problems on a GPU, against those of the CPU."""

# Kernels: convolution, conv_fista, conv_pooling, spectra.

import itertools
import pickle

import numpy as np
import pytest
from convolution.problems import BOUNDARIES, OPTIONS, conv_problem, form
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from stored import stored

from sparseshare.convolution import ConvSparseCoder, conv_sparse_encode, encoder, fista
from sparseshare.convolution.device_operator import DeviceConvolution
from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.maps import SparseMaps
from sparseshare.convolution.operator import Convolution
from sparseshare.convolution.pooling import CellGrid, pooled_magnitudes
from sparseshare.convolution.problem import ConvProblem
from sparseshare.convolution.rounds import Rounds, solve_many
from sparseshare.convolution.statistics import ConvStatistics

ORDERS = ("forward", "reverse", "random")
# Odd sizes, axes shorter and longer than a tile of the kernels, single rows.
SHAPES = [((1,), (1,)), ((257,), (33,)), ((33, 37), (3, 5)), ((1, 40), (1, 3)), ((5, 4, 6), (2, 2, 3))]


def operators(gpu, shape, support, boundary, n_channels, dtype, n_components=5):
    """An operator of the CPU and its twins by transforms and direct, maps and a signal."""
    rng = np.random.default_rng(0)
    geometry = Geometry(shape, support, boundary)
    atoms = rng.standard_normal((n_components, n_channels, *support)).astype(dtype)
    maps = rng.standard_normal((2, n_components, *geometry.positions)).astype(dtype)
    signal = rng.standard_normal((2, n_channels, *shape)).astype(dtype)
    twins = [DeviceConvolution(gpu.asarray(atoms), geometry, direct) for direct in (False, True)]
    return Convolution(atoms, geometry), twins, maps, signal


def on_device(gpu, problem, direct=False):
    """The same problem with its arrays on the device."""
    arrays = {
        name: None if getattr(problem, name) is None else gpu.asarray(getattr(problem, name))
        for name in ("weights", "mask")
    }
    operator = DeviceConvolution(gpu.asarray(problem.atoms), problem.geometry, direct)
    return ConvProblem(
        gpu.asarray(problem.signal), operator, problem.alpha, positive=problem.positive, joint=problem.joint,
        smoothness=problem.smoothness, **arrays,
    )  # fmt: skip


@pytest.mark.races
@pytest.mark.parametrize(("n_channels", "dtype"), [(1, np.float64), (3, np.float32)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("shape", "support"), SHAPES)
def test_operators_agree(gpu, shape, support, boundary, n_channels, dtype):
    twin, devices, maps, signal = operators(gpu, shape, support, boundary, n_channels, dtype)
    image, slope = twin.synthesize(maps), twin.correlate(signal)
    atol = 2e-5 if dtype == np.float32 else 1e-12
    for operator in devices:
        made, found = operator.synthesize(gpu.asarray(maps)), operator.correlate(gpu.asarray(signal))
        assert made.dtype == found.dtype == dtype and made.shape == signal.shape and found.shape == maps.shape
        assert_allclose(gpu.get(made), image, atol=atol)
        assert_allclose(gpu.get(found), slope, atol=atol)
        left, right = np.vdot(gpu.get(made), signal), np.vdot(maps, gpu.get(found))
        assert_allclose(left, right, atol=100 * atol)
        assert twin.lipschitz * (1 - 1e-5) <= operator.lipschitz <= n_channels * twin.lipschitz * (1 + 1e-5)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("direct", [False, True])
def test_order_of_threads_does_not_show(gpu, boundary, direct):
    _, devices, maps, signal = operators(gpu, (33, 37), (5, 4), boundary, 3, np.float32)
    found = []
    for order in ORDERS:
        with gpu.order(order):
            operator = devices[direct]
            made = operator.synthesize(gpu.asarray(maps)), operator.correlate(gpu.asarray(signal))
            found.append([gpu.get(array) for array in made])
    for other in found[1:]:
        assert_array_equal(found[0][0], other[0])
        assert_array_equal(found[0][1], other[1])


def solve_on(gpu, problem, direct=False, **options):
    (solution,) = [one for _, one in solve_many(lambda _: on_device(gpu, problem, direct), 1, **options)]
    return solution


SMOOTH = ("smooth", "free smooth atom", "colour atoms, many at once", "many at once")
PLAIN = [name for name in OPTIONS if name not in SMOOTH]


@pytest.mark.parametrize(("name", "boundary"), [*zip(PLAIN, itertools.cycle(BOUNDARIES), strict=False)])
def test_rounds_reach_the_optimum(gpu, name, boundary):
    problem = form(name, boundary, share=0.5)
    twin = fista.solve(problem, tol=1e-6)
    solution = solve_on(gpu, problem, direct=boundary != "full", tol=1e-6)
    assert solution.converged and 0 <= solution.gap <= 1e-6
    maps = gpu.get(solution.maps)
    assert_allclose(problem.objective(maps), solution.objective, rtol=1e-12)
    assert_allclose(solution.objective, twin.objective, rtol=1e-10)
    assert solution.n_iter == pytest.approx(twin.n_iter, abs=1)


def problems_of(n):
    """Signals of one shape, and atoms."""
    rng = np.random.default_rng(3)
    signals, atoms = rng.standard_normal((n, 9, 11)), rng.standard_normal((3, 3, 2))
    return signals, atoms


@pytest.mark.filterwarnings("ignore:.*not converged")
def test_slots_are_filled_again_and_given_up(gpu):
    signals, atoms = problems_of(7)
    signals[2] = 0
    operator = DeviceConvolution(gpu.asarray(atoms[:, None]), Geometry((9, 11), (3, 2)))
    images = gpu.asarray(signals[:, None, None])
    options = {"alpha": 2.0, "tol": 1e-2, "max_iter": 6}
    expected, info = conv_sparse_encode(signals, atoms, solver="fista", return_info=True, **options)

    def problem(number):
        return ConvProblem(images[number], operator, 2.0)

    for n_slots in (3, 7):
        found = dict(solve_many(problem, 7, tol=1e-2, max_iter=6, n_slots=n_slots))
        assert sorted(found) == list(range(7))
        for number, solution in found.items():
            assert solution.n_iter == info["n_iter"][number]
            assert_allclose(gpu.get(solution.maps)[0], expected[number], atol=1e-10)


def test_out_of_memory_halves_the_slots(gpu, monkeypatch):
    signals, atoms = problems_of(4)
    operator = DeviceConvolution(gpu.asarray(atoms[:, None]), Geometry((9, 11), (3, 2)), direct=True)
    images, tried, make = gpu.asarray(signals[:, None, None]), [], Rounds.__init__

    def failing(self, operator, template, n_slots, tol, max_iter):
        tried.append(n_slots)
        if n_slots > 1:
            raise MemoryError("planted")
        make(self, operator, template, n_slots, tol, max_iter)

    monkeypatch.setattr(Rounds, "__init__", failing)
    found = dict(solve_many(lambda number: ConvProblem(images[number], operator, 5.0), 4, tol=1e-2, n_slots=4))
    assert sorted(found) == [0, 1, 2, 3] and tried == [4, 2, 1]
    monkeypatch.setattr(Rounds, "__init__", lambda *_: (_ for _ in ()).throw(MemoryError("planted")))
    with pytest.raises(MemoryError, match="no room for one signal, which takes about"):
        list(solve_many(lambda number: ConvProblem(images[number], operator, 5.0), 4, n_slots=4))


ENCODINGS = {
    "plain": {},
    "masked, positive": {"mask": "nan", "positive": True},
    "weighted": {"weights": np.array([1.0, 0.5, 2.0]), "boundary": "full"},
    "free": {"weights": np.array([1.0, 0.0, 1.0])},
    "smooth": {"smoothness": np.array([0.0, 3.0, 0.0]), "boundary": "valid"},
    "sparse, relative": {"sparse_output": True, "alpha_relative": True, "alpha": 0.5},
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("cupy_in", [False, True])
@pytest.mark.filterwarnings("ignore:.*not converged")
def test_encoding(gpu, name, cupy_in):
    signals, atoms = problems_of(3)
    options = {"alpha": 2.0, "tol": 1e-3, "max_iter": 6, **ENCODINGS[name]}
    if "mask" in options:
        signals[np.random.default_rng(0).random(signals.shape) < 0.2] = np.nan
    expected, info = conv_sparse_encode(signals, atoms, solver="fista", return_info=True, **options)
    if cupy_in:
        found, on = conv_sparse_encode(gpu.asarray(signals), gpu.asarray(atoms), return_info=True, **options)
        assert type(found).__module__.startswith("cupy")
        found = found.get()
    else:
        found, on = conv_sparse_encode(signals, atoms, device="cuda", return_info=True, **options)
    if options.get("sparse_output"):
        assert cupy_in or isinstance(found, csr_array)
        found, expected = found.toarray(), expected.toarray()
    assert isinstance(found, np.ndarray) and found.dtype == expected.dtype and found.shape == expected.shape
    assert_allclose(on["objective"], info["objective"], rtol=1e-9)
    assert_allclose(on["gap"], info["gap"], atol=1e-9)
    assert_array_equal(on["converged"], info["converged"])
    assert_allclose(found, expected, atol=1e-7)
    assert isinstance(on["alpha"], float) and on["alpha"] == pytest.approx(info["alpha"])


@pytest.mark.parametrize("joint", [0.0, 0.5])
@pytest.mark.filterwarnings("ignore:.*not converged")
def test_signals_of_different_sizes_and_channels(gpu, joint):
    rng = np.random.default_rng(1)
    signals = [rng.standard_normal((20, 2)), rng.standard_normal((31, 2)), rng.standard_normal((20, 2))]
    atoms = rng.standard_normal((3, 4))
    options = {"alpha": 1.5, "max_iter": 6, "joint": joint}
    expected = conv_sparse_encode(signals, atoms, solver="fista", **options)
    for found in (
        conv_sparse_encode(signals, atoms, device="cuda", **options),
        [gpu.get(maps) for maps in conv_sparse_encode(list(map(gpu.asarray, signals)), gpu.asarray(atoms), **options)],
    ):
        for one, other in zip(found, expected, strict=True):
            assert_allclose(one, other, atol=1e-7)


def test_float32_and_init(gpu):
    signals, atoms = (array.astype(np.float32) for array in problems_of(2))
    first, info = conv_sparse_encode(signals, atoms, alpha=3.0, device="cuda", return_info=True)
    expected = conv_sparse_encode(signals, atoms, alpha=3.0, solver="fista", return_info=True)[1]
    assert first.dtype == np.float32
    assert_allclose(info["objective"], expected["objective"], rtol=1e-4)
    again, info = conv_sparse_encode(signals, atoms, alpha=3.0, device="cuda", init=first, return_info=True)
    assert info["n_iter"].max() <= 8
    assert_allclose(again, first, atol=1e-2)


def test_refusals(gpu):
    signals, atoms = problems_of(1)
    for solver in ("lgcd", "working_set", "admm"):
        with pytest.raises(ValueError, match=f"solver='{solver}' does not run on a GPU: take solver='auto' or 'fista'"):
            conv_sparse_encode(signals, atoms, alpha=1.0, solver=solver, device="cuda")
    with pytest.raises(ValueError, match="does not run on a GPU"):
        conv_sparse_encode(signals, atoms, solver="omp", n_nonzero_coefs=3, device="cuda")
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        conv_sparse_encode(gpu.asarray(signals), atoms, alpha=1.0)
    with pytest.raises(RuntimeError, match="device='cpu' was asked for"):
        conv_sparse_encode(gpu.asarray(signals), gpu.asarray(atoms), alpha=1.0, device="cpu")
    with pytest.raises(TypeError, match="signals of X live on cpu and cuda:0"):
        conv_sparse_encode([signals[0], gpu.asarray(signals[0])], atoms, alpha=1.0, device="cuda")
    bad = gpu.asarray(signals).copy()
    bad[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="signal 0 contains NaN or infinity"):
        conv_sparse_encode(bad, gpu.asarray(atoms), alpha=1.0)


def test_all_zero_codes_are_warned_about(gpu):
    signals, atoms = problems_of(1)
    with pytest.warns(UserWarning, match="all codes are zero: alpha=1000"):
        codes = conv_sparse_encode(gpu.asarray(signals), gpu.asarray(atoms), alpha=1000.0)
    assert not gpu.get(codes).any()


@pytest.mark.parametrize(("pooling", "split_sign"), [("max", False), ("mean", True), ("sum", False), ("max", True)])
@pytest.mark.filterwarnings("ignore:.*not converged")
def test_coder(gpu, pooling, split_sign):
    signals, atoms = problems_of(2)
    options = {"alpha": 2.0, "max_iter": 3, "pooling": pooling, "pool_grid": [1, (2, 3)], "split_sign": split_sign}
    twin = ConvSparseCoder(atoms, solver="fista", **options).fit(signals)
    coder = ConvSparseCoder(gpu.asarray(atoms), **options).fit(gpu.asarray(signals))
    assert isinstance(coder.components_, gpu.xp.ndarray)
    X = gpu.asarray(signals)
    rows = coder.transform(X)
    assert isinstance(rows, gpu.xp.ndarray)
    assert_allclose(gpu.get(rows), twin.transform(signals), atol=1e-6)
    assert coder.score(X) == pytest.approx(twin.score(signals), abs=1e-8)
    codes = coder.encode(X)
    made = coder.inverse_transform(codes)
    assert isinstance(made, gpu.xp.ndarray)
    assert_allclose(gpu.get(made), twin.inverse_transform(gpu.get(codes)), atol=1e-10)
    moved = ConvSparseCoder(atoms, device="cuda", **options).fit(signals)
    rows = moved.transform(signals)
    assert isinstance(rows, np.ndarray) and isinstance(moved.components_, np.ndarray)
    assert_allclose(rows, twin.transform(signals), atol=1e-6)
    assert isinstance(moved.inverse_transform(moved.encode(signals)), np.ndarray)


@pytest.mark.parametrize("together", [1, 2**32])
@pytest.mark.filterwarnings("ignore:.*not converged")
def test_coder_writes(gpu, together, monkeypatch):
    monkeypatch.setattr(encoder, "_TOGETHER", together)
    signals, atoms = problems_of(3)
    twin = ConvSparseCoder(atoms, alpha=2.0, max_iter=3, solver="fista")
    coder = ConvSparseCoder(atoms, alpha=2.0, max_iter=3, device="cuda")
    for X in (gpu.asarray(signals), signals):
        for method in ("encode", "transform"):
            expected = getattr(twin, method)(signals)
            out = np.full(expected.shape, np.nan)
            assert getattr(coder, method)(X, out=out) is out
            assert_allclose(out, expected, atol=1e-6)
    with pytest.raises(ValueError, match="on a GPU"):
        coder.encode(signals, out=gpu.asarray(expected))


@pytest.mark.filterwarnings("ignore:.*not converged")
def test_masks_on_disk(gpu, tmp_path):
    signals, atoms = problems_of(3)
    missing = np.random.default_rng(0).random(signals.shape) < 0.2
    mask = stored("memory map", missing, tmp_path)
    expected = ConvSparseCoder(atoms, alpha=2.0, max_iter=3, solver="fista").encode(signals, mask=missing)
    coder = ConvSparseCoder(atoms, alpha=2.0, max_iter=3, device="cuda")
    for X in (gpu.asarray(signals), signals):
        assert_allclose(gpu.get(coder.encode(X, mask=mask)), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*not converged")
def test_coder_moves(gpu):
    signals, atoms = problems_of(2)
    coder = ConvSparseCoder(gpu.asarray(atoms), alpha=2.0, max_iter=3, sparse_output=True).fit(gpu.asarray(signals))
    codes = coder.encode(gpu.asarray(signals))
    assert codes.shape == (2, 3 * 99)
    made = gpu.get(coder.inverse_transform(codes))
    loaded = pickle.loads(pickle.dumps(coder))
    assert isinstance(loaded.components_, np.ndarray) and isinstance(loaded.atoms, np.ndarray)
    coder.to_device("cpu")
    assert isinstance(coder.components_, np.ndarray)
    assert_allclose(coder.inverse_transform(codes.get()), made, atol=1e-12)


@pytest.mark.races
@pytest.mark.parametrize("joint", [0.0, 0.5])
def test_no_races(gpu, joint):
    problem = conv_problem("full", n_signals=2, n_components=5, joint=joint, share=0.5)
    twin = fista.solve(problem, tol=1e-1)
    with gpu.races():
        solution = solve_on(gpu, problem, direct=True, tol=1e-1)
    assert_allclose(solution.objective, twin.objective, rtol=1e-10)
    sparse = SparseMaps.from_dense(solution.maps)
    cells = CellGrid([1, 2], "sum").on(problem.geometry.positions)
    with gpu.races():
        rows = pooled_magnitudes(sparse.indices, sparse.values, sparse.shape, cells, 2)
        statistics = ConvStatistics.zeros(5, 1, (3, 2), gpu.xp).add(gpu.asarray(problem.signal), sparse, "full")
    maps = gpu.get(solution.maps)
    expected = ConvStatistics.zeros(5, 1, (3, 2)).add(problem.signal, maps, "full")
    assert_allclose(gpu.get(statistics.psi), expected.psi, atol=1e-11)
    flat = np.flatnonzero(maps)
    assert_allclose(gpu.get(rows), pooled_magnitudes(flat, maps.ravel()[flat], maps.shape, cells, 2), atol=1e-11)
