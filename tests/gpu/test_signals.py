"""Signals into a tile and codes out of it: the twins on a GPU against those of the CPU, bit for bit."""

import numpy as np
import pytest
from scipy.sparse import random_array

from sparseshare.kernels.cpu import signals as on_cpu

DTYPES = [np.float32, np.float64]
ORDERS = ["forward", "reverse", "random"]

pytestmark = pytest.mark.races


@pytest.fixture
def on_gpu(gpu):
    from sparseshare.kernels.gpu import signals

    return signals


def rows_of_all_sizes(dtype, n_features=33):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((41, n_features)).astype(dtype)
    tiny, huge = (1e-38, 1e38) if dtype == np.float32 else (1e-308, 1e308)
    X[1], X[2, 3], X[3] = 0, tiny / 100, X[3] * (huge / 1e2)
    X[4] *= tiny * 10
    X[5, 0] = np.finfo(dtype).max
    return X


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
def test_scaling(gpu, on_gpu, dtype, order):
    X = rows_of_all_sizes(dtype)
    n = len(X)
    expected = np.zeros_like(X), np.zeros(n, np.int32), np.zeros(n), np.zeros(n)
    assert on_cpu.scale_tile(X, X.view(np.int32 if X.itemsize == 4 else np.int64), *expected) == -1
    xp = gpu.xp
    found = xp.empty(X.shape, dtype), xp.empty(n, np.int32), xp.empty(n), xp.empty(n)
    with gpu.order(order):
        first_bad_row = on_gpu.scale_tile(gpu.asarray(X), None, *found)
    assert first_bad_row() == -1
    for a, b in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(gpu.get(a), b)
    np.testing.assert_allclose(gpu.get(found[3]), (gpu.get(found[0]).astype(float) ** 2).sum(axis=1), rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_bad_row_is_named(gpu, on_gpu, dtype, bad):
    X = rows_of_all_sizes(dtype)
    X[17, 32] = X[40, 0] = bad
    xp = gpu.xp
    scratch = xp.empty(X.shape, dtype), xp.empty(41, np.int32), xp.empty(41), xp.empty(41)
    assert on_gpu.scale_tile(gpu.asarray(X), None, *scratch)() == 17


def some_codes(dtype, capacity):
    """Codes as solvers leave them: unsorted, some of them zero, rubbish beyond each row's count."""
    rng = np.random.default_rng(1)
    n, n_atoms = 37, 50
    indices = np.array([rng.permutation(n_atoms)[:capacity] for _ in range(n)], np.int32)
    values = rng.standard_normal((n, capacity)).astype(dtype)
    values[rng.random(values.shape) < 0.2] = 0
    counts = rng.integers(0, capacity + 1, n).astype(np.int32)
    counts[:2] = 0, capacity
    exponents = rng.integers(-20, 20, n).astype(np.int32)
    return indices, values, counts, exponents, rng.random(n_atoms) + 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("capacity", [1, 31, 33, 50])
@pytest.mark.parametrize("order", ORDERS)
def test_packing_and_spreading(gpu, on_gpu, dtype, capacity, order):
    codes = some_codes(dtype, capacity)
    indices, values, counts, exponents, atom_scale = codes
    dense = np.zeros((len(counts), len(atom_scale)), dtype)
    on_cpu.spread_tile(*codes, dense)
    there, out = tuple(map(gpu.asarray, codes)), gpu.xp.zeros(dense.shape, dtype)
    with gpu.order(order):
        on_gpu.spread_tile(*there, out)
        lengths, atoms, packed = on_gpu.pack_tile(*there)
    np.testing.assert_array_equal(gpu.get(out), dense)
    room, own_lengths = int(counts.sum()), np.zeros(len(counts), np.int64)
    own_atoms, own_packed = np.empty(room, np.int32), np.empty(room, dtype)
    written = on_cpu.pack_tile(*(np.copy(array) for array in codes), own_atoms, own_packed, own_lengths)
    np.testing.assert_array_equal(gpu.get(lengths), own_lengths)
    np.testing.assert_array_equal(gpu.get(atoms), own_atoms[:written])
    np.testing.assert_array_equal(gpu.get(packed), own_packed[:written])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("capacity", [3, 40, 70])
def test_starting_codes(gpu, on_gpu, dtype, capacity):
    rows = random_array((29, 70), density=0.6, rng=np.random.default_rng(2), format="csr", dtype=dtype)
    rows.data[::7] = 0
    exponents = np.arange(29, dtype=np.int32) - 14
    atom_scale = np.linspace(0.5, 2, 70)
    atom_scale[5::9] = 0
    start = rows.indptr.astype(np.int64), rows.indices, rows.data, exponents, atom_scale
    results = np.zeros((29, capacity), np.int32), np.zeros((29, capacity), dtype), np.zeros(29, np.int32)
    on_cpu.start_tile(*start, *results)
    there = tuple(gpu.asarray(array.copy()) for array in results)
    on_gpu.start_tile(*map(gpu.asarray, start), *there)
    for a, b in zip(there, results, strict=True):
        np.testing.assert_array_equal(gpu.get(a), b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_certificates(gpu, on_gpu, dtype):
    _, values, counts, _, _ = some_codes(dtype, 33)
    rng, n = np.random.default_rng(3), len(counts)
    gaps, norms2, status = 10.0 ** rng.integers(-9, 0, n), rng.random(n) + 1, (rng.random(n) < 0.5).astype(np.int8)
    norms2[3] = gaps[3] = 0
    relative, converged = np.empty(n), np.empty(n, bool)
    on_cpu.certify_tile(values, counts, gaps, norms2, status, 1e-4, 1e-6, relative, converged)
    own = gpu.xp.empty(n), gpu.xp.empty(n, bool)
    on_gpu.certify_tile(*map(gpu.asarray, (values, counts, gaps, norms2, status)), 1e-4, 1e-6, *own)
    np.testing.assert_allclose(gpu.get(own[0]), relative, rtol=1e-12)
    np.testing.assert_array_equal(gpu.get(own[1]), converged)
