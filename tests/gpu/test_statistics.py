"""Sums over coded signals on a GPU against those of the CPU, in every order of threads."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare.devices import to_device
from sparseshare.kernels.cpu import statistics as on_cpu
from sparseshare.learning.statistics import (
    Statistics,
    joined_rows,
    order_by_atom,
    partial_statistics,
    squared_residuals,
)

DTYPES = [np.float32, np.float64]
ORDERS = ["forward", "reverse", "random"]


def some_codes(n_signals, n_atoms, density, dtype, seed=0):
    """Codes with an atom that nothing uses, one that all use, and a signal of zeros."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n_signals, n_atoms)) < density, rng.standard_normal((n_signals, n_atoms)), 0)
    if n_atoms > 2:
        dense[:, 1], dense[:, 2] = 0, 1
    dense[n_signals // 2] = 0
    return csr_array(dense.astype(dtype))


def signals(n_signals, n_features, dtype):
    return np.random.default_rng(9).standard_normal((n_signals, n_features)).astype(dtype)


def on(gpu, codes):
    """Codes as CuPy's CSR matrix."""
    return to_device(codes, f"cuda:{gpu.xp.cuda.Device().id}")


def close(gpu, found, expected, dtype):
    scale = np.abs(expected).max(initial=1)
    np.testing.assert_allclose(gpu.get(found), expected, atol=scale * (1e-6 if dtype == np.float32 else 1e-13))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(1, 1), (31, 33), (300, 5), (257, 64)])
def test_non_zeros_atom_by_atom(gpu, shape, order):
    codes = some_codes(*shape, 0.2, np.float64)
    expected = order_by_atom(codes)
    with gpu.order(order):
        found = order_by_atom(on(gpu, codes))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(gpu.get(one), other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (41, 33, 31), (600, 5, 3), (90, 257, 7)])
@pytest.mark.parametrize("density", [0.04, 0.6], ids=["lists", "product"])
def test_sums(gpu, shape, density, dtype):
    n_signals, n_atoms, n_features = shape
    codes, X = some_codes(n_signals, n_atoms, density, dtype), signals(n_signals, n_features, dtype)
    expected = partial_statistics(X, codes)
    found = []
    for order in ORDERS:
        with gpu.order(order, seed=1):
            found.append(partial_statistics(gpu.asarray(X), on(gpu, codes)))
    for name, value in vars(expected).items():
        close(gpu, getattr(found[0], name), value, dtype)
        for other in found[1:]:
            np.testing.assert_array_equal(gpu.get(getattr(found[0], name)), gpu.get(getattr(other, name)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_lists_in_pieces_and_columns_in_parts(gpu, dtype, monkeypatch):
    from sparseshare.kernels.gpu import statistics as kernels

    monkeypatch.setattr(kernels, "_SHORTEST", 3)
    monkeypatch.setattr(kernels, "_SHARED", 8 * 20)
    codes, X = some_codes(150, 33, 0.1, dtype), signals(150, 17, dtype)
    expected, found = partial_statistics(X, codes), partial_statistics(gpu.asarray(X), on(gpu, codes))
    for name, value in vars(expected).items():
        close(gpu, getattr(found, name), value, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_in_pieces(gpu, dtype, monkeypatch):
    from sparseshare.kernels.gpu import statistics as kernels

    monkeypatch.setattr(kernels, "_DENSE_ROWS", 64)
    monkeypatch.setattr(kernels, "_SUMMED", 10)
    codes, X = some_codes(150, 12, 0.7, dtype), signals(150, 17, dtype)
    expected, found = partial_statistics(X, codes), partial_statistics(gpu.asarray(X), on(gpu, codes))
    for name, value in vars(expected).items():
        close(gpu, getattr(found, name), value, dtype)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("density", [0.1, 0.7], ids=["lists", "product"])
def test_tiny_and_huge_signals(gpu, scale, density):
    codes, X = some_codes(50, 20, density, np.float64), signals(50, 6, np.float64)
    codes, X = (scale * codes).astype(np.float32), (scale * X).astype(np.float32)
    expected, found = partial_statistics(X, codes), partial_statistics(gpu.asarray(X), on(gpu, codes))
    for name in ("A", "B", "l1", "squared_norm"):
        value = getattr(expected, name)
        np.testing.assert_allclose(gpu.get(getattr(found, name)), value, atol=1e-6 * np.abs(value).max())


def test_some_rows_of_the_sums_only(gpu):
    from sparseshare.kernels.gpu import statistics as kernels

    for density in (0.05, 0.7):
        codes, X = some_codes(80, 33, density, np.float64), signals(80, 6, np.float64)
        lists = order_by_atom(codes)
        arrays = codes.indptr.astype(np.int64), codes.indices.astype(np.int32), codes.data
        expected, sums = (np.ones((33, 33)), np.ones((33, 6))), (gpu.xp.ones((33, 33)), gpu.xp.ones((33, 6)))
        on_cpu.accumulate(*arrays, X, 0.5, *lists, 4, 9, *expected)
        kernels.accumulate(*map(gpu.asarray, (*arrays, X)), 0.5, *map(gpu.asarray, lists), 4, 9, *sums)
        for one, other in zip(sums, expected, strict=True):
            np.testing.assert_allclose(gpu.get(one), other, atol=1e-12)


def test_statistics_of_blocks_add_up_forget_and_move(gpu, monkeypatch):
    from sparseshare.learning import statistics as module

    monkeypatch.setattr(module, "_BLOCK_ON_GPU", 50)
    codes, X = some_codes(120, 10, 0.2, np.float64), signals(120, 4, np.float64)
    dictionary = signals(10, 4, np.float64)
    expected = Statistics.zeros(10, 4).add(X, codes, weight=2.0).forget(0.25).add(X, codes)
    device = on(gpu, codes).data.device.id
    found = Statistics.zeros(10, 4, f"cuda:{device}").add(X, on(gpu, codes), weight=2.0).forget(0.25)
    found.add(gpu.asarray(X), on(gpu, codes))
    norms = np.linspace(0.5, 2, 10)
    for one in (expected, found):
        one.rescale(norms)
        one.hand_over(7, 2, -1)
    for name, value in vars(expected).items():
        close(gpu, getattr(found, name), value, np.float64)
    np.testing.assert_allclose(
        found.objective(gpu.asarray(dictionary), 0.7, 0.4), expected.objective(dictionary, 0.7, 0.4)
    )
    both = found.merge(found)
    np.testing.assert_allclose(gpu.get(both.B), 2 * expected.B, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (37, 33, 31), (9, 40, 257)])
def test_residuals(gpu, shape, dtype):
    n_signals, n_atoms, n_features = shape
    codes, X = some_codes(n_signals, n_atoms, 0.3, dtype), signals(n_signals, n_features, dtype)
    dictionary = signals(n_atoms, n_features, dtype)
    expected = squared_residuals(X, codes, dictionary)
    found = []
    for order in ORDERS:
        with gpu.order(order):
            found.append(gpu.get(squared_residuals(gpu.asarray(X), on(gpu, codes), gpu.asarray(dictionary))))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4 if dtype == np.float32 else 1e-12)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_subtracting_what_codes_stand_for(gpu, dtype):
    from sparseshare.kernels.gpu import statistics as kernels

    codes, X, dictionary = some_codes(20, 33, 0.3, dtype), signals(20, 130, dtype), signals(33, 130, dtype)
    there = on(gpu, codes)
    residual = gpu.asarray(X)
    arrays = there.indptr.astype(np.int64), there.indices.astype(np.int32), there.data
    kernels.subtract_reconstruction(*arrays, gpu.asarray(dictionary), residual)
    np.testing.assert_allclose(gpu.get(residual), X - codes @ dictionary, atol=1e-4 if dtype == np.float32 else 1e-12)


def test_rows_of_several_parts(gpu):
    parts = [some_codes(n, 9, 0.3, np.float32, seed=n) for n in (5, 1, 8)]
    joined = joined_rows([on(gpu, part) for part in parts])
    expected = np.concatenate([part.toarray() for part in parts])
    np.testing.assert_array_equal(gpu.get(joined.toarray()), expected)
    np.testing.assert_array_equal(joined_rows(parts).toarray(), expected)


@pytest.mark.races
@pytest.mark.parametrize("density", [0.1, 0.7], ids=["lists", "product"])
def test_no_two_threads_meet_without_a_barrier(gpu, density):
    codes, X, dictionary = (
        some_codes(40, 33, density, np.float64),
        signals(40, 6, np.float64),
        signals(33, 6, np.float64),
    )
    with gpu.races():
        found = partial_statistics(gpu.asarray(X), on(gpu, codes))
        squared_residuals(gpu.asarray(X), on(gpu, codes), gpu.asarray(dictionary))
    close(gpu, found.A, partial_statistics(X, codes).A, np.float64)
