"""Soft and hard thresholding on a GPU, against the twins on the CPU."""

import numpy as np
import pytest
from kernels.tile import Tile, problem

from sparseshare import sparse_encode
from sparseshare.kernels.cpu import thresholding as on_cpu

DTYPES = [np.float32, np.float64]
ORDERS = ["forward", "reverse", "random"]


@pytest.fixture
def on_gpu(gpu):
    from sparseshare.kernels.gpu import thresholding

    return thresholding


def results_of(gpu, tile, run):
    """Fill a tile of NumPy arrays by a function of poisoned device arrays."""
    results = (*tile.codes, *tile.report)
    there = [gpu.poisoned(a.shape, a.dtype) for a in results]
    run(*there)
    for own, found in zip(results, there, strict=True):
        own[...] = gpu.get(found)
    return tile


def soft(gpu, on_gpu, tile, alpha, positive, **weights):
    def run(indices, values, counts, *_):
        on_gpu.threshold_tile(gpu.asarray(tile.Q), gpu.asarray(alpha), positive, indices, values, counts, **weights)

    return results_of(gpu, tile, run)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("n_signals", [1, 31, 33])
def test_soft_threshold(gpu, on_gpu, dtype, positive, n_signals):
    tile, expected = (Tile(*problem("zero_atoms", n_signals), dtype) for _ in range(2))
    alpha = np.linspace(0.01, 0.6, n_signals).astype(dtype)
    on_cpu.threshold_tile(expected.Q, alpha, positive, *expected.codes)
    soft(gpu, on_gpu, tile, alpha, positive)
    np.testing.assert_array_equal(tile.counts, expected.counts)
    np.testing.assert_array_equal(tile.dense(), expected.dense())


def test_soft_threshold_with_weights(gpu, on_gpu):
    tile = Tile(*problem("wide"), np.float64)
    weights = np.random.default_rng(0).uniform(0.2, 3, tile.Q.shape)
    weights[1, 3] = np.inf
    alpha = np.full(len(tile.Q), 0.2)
    soft(gpu, on_gpu, tile, alpha, False, weights=gpu.asarray(weights))
    level = (alpha[:, None] * weights)[:, : tile.n_atoms]
    q = tile.Q[:, : tile.n_atoms]
    np.testing.assert_allclose(tile.dense(), np.sign(q) * np.maximum(np.abs(q) - level, 0), atol=1e-15)


def hard(gpu, on_gpu, tile, counts, positive=False, max_iter=8, tol=1e-8):
    step = 1 / (1.0001 * np.linalg.norm(tile.D.astype(float), 2) ** 2)

    def run(*results):
        on_gpu.iht_tile(
            gpu.asarray(tile.Q), gpu.asarray(tile.norms2), gpu.asarray(tile.G), gpu.asarray(counts), step, tol,
            max_iter, positive, *results,
        )  # fmt: skip

    return results_of(gpu, tile, run), step


@pytest.mark.races
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "positive"),
    [
        ("wide", False),
        ("wide", True),
        ("duplicates", False),
        ("zero_atoms", False),
        ("low_rank", True),
        ("tall", False),
    ],
)
def test_hard_threshold(gpu, on_gpu, name, dtype, positive):
    tile, expected = (Tile(*problem(name, 4), dtype).clear(8) for _ in range(2))
    counts = np.array([5, 0, 20, 5])
    _, step = hard(gpu, on_gpu, tile, counts, positive)
    on_cpu.iht_tile(
        expected.Q, expected.norms2, expected.G, counts, step, 1e-8, 8, positive, *expected.codes, *expected.report
    )
    tile.check_residuals()
    for i in range(len(counts)):
        assert (np.diff(tile.indices[i, : tile.counts[i]]) > 0).all()
    if dtype == np.float64 and name != "duplicates":
        np.testing.assert_array_equal(tile.counts, expected.counts)
        np.testing.assert_array_equal(tile.iterations, expected.iterations)
        np.testing.assert_array_equal(tile.status, expected.status)
        np.testing.assert_allclose(tile.dense(), expected.dense(), atol=1e-9)
    level = 1e-2 if dtype == np.float32 or name == "duplicates" else 1e-10
    assert tile.certificates.sum() <= expected.certificates.sum() + level * tile.norms2.sum()
    assert (tile.counts <= np.minimum(counts, 8)).all()
    assert not positive or (tile.dense() >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_order_of_threads(gpu, on_gpu, dtype):
    found = []
    for order in ORDERS:
        tile = Tile(*problem("wide", n_signals=2), dtype).clear(5)
        with gpu.order(order):
            codes = soft(
                gpu, on_gpu, Tile(*problem("wide", n_signals=33), dtype), np.full(33, 0.1, dtype), True
            ).dense()
            hard(gpu, on_gpu, tile, np.full(2, 5), max_iter=2)
        found.append((codes, tile.dense(), *tile.report))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.races
def test_no_two_threads_meet(gpu, on_gpu):
    with gpu.races():
        soft(gpu, on_gpu, Tile(*problem("wide"), np.float32), np.full(9, 0.1, np.float32), False)
        for positive in (False, True):
            hard(gpu, on_gpu, Tile(*problem("duplicates", 1), np.float32).clear(5), np.full(1, 5), positive, max_iter=1)


def test_codes_too_long_for_shared_memory(gpu, on_gpu):
    """What does not fit into shared memory is kept in device memory, with the same result."""
    signals, atoms = problem("wide", 2)
    tile, wide = Tile(signals, atoms, np.float64).clear(6), Tile(signals, atoms, np.float64).clear(130)
    hard(gpu, on_gpu, tile, np.full(2, 6), max_iter=2)
    hard(gpu, on_gpu, wide, np.full(2, 6), max_iter=2)
    np.testing.assert_array_equal(tile.dense(), wide.dense())


@pytest.mark.parametrize("options", [
    {"algorithm": "threshold", "alpha": 0.3},
    {"algorithm": "threshold", "alpha": 0.3, "weights": "atom", "positive": True},
    {"algorithm": "iht", "n_nonzero_coefs": 4, "tol": 0.05},
    {"algorithm": "iht", "n_nonzero_coefs": 4, "positive": True, "tol": 0.05},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES)
def test_encoding(gpu, options, dtype):
    X, D = (a.astype(dtype) for a in problem("any_norm", 2))
    options = dict(options)
    if "weights" in options:
        options["weights"] = np.linspace(0, 2, len(D))
    expected, about = sparse_encode(X, D, return_info=True, **options)
    hosted, info = sparse_encode(X, D, device="cuda", return_info=True, **options)
    assert type(hosted) is np.ndarray and hosted.dtype == dtype
    if options["algorithm"] == "threshold":
        np.testing.assert_allclose(hosted, expected, rtol=1e-5, atol=1e-5 if dtype == np.float32 else 1e-12)
    else:
        np.testing.assert_allclose(info["residual"], about["residual"], atol=1e-3 * (X**2).sum())
    resident = sparse_encode(gpu.asarray(X), gpu.asarray(D), **options)
    np.testing.assert_array_equal(gpu.get(resident), hosted)
