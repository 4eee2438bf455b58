"""Patches, their pooling and quantisation: kernels of a GPU against those of the CPU."""

import numpy as np
import pytest
from scipy.sparse import random_array

from sparseshare.kernels.cpu import features as cpu_features
from sparseshare.kernels.cpu import patches as cpu_patches
from sparseshare.kernels.cpu import pooling as cpu_pooling

DTYPES = [np.float32, np.float64]
ORDERS = ["forward", "reverse", "random"]
BOXES = [
    ((3, 17, 19), (1, 4, 6), (1, 2, 3), 2, 40),  # some patches of several images
    ((1, 30, 31), (1, 5, 5), (1, 1, 1), 0, None),
    ((9, 9, 9), (3, 2, 4), (2, 3, 1), 5, 31),
    ((1, 1, 400), (1, 1, 300), (1, 1, 1), 0, None),  # more entries than threads
    ((4, 5, 6), (1, 1, 1), (2, 2, 2), 0, None),
]
SIZES = [1, 33, 257]


def close(found, expected, dtype):
    np.testing.assert_allclose(found, expected, **dict(rtol=1e-5, atol=1e-5) if dtype == np.float32 else dict(
        rtol=1e-11, atol=1e-11))  # fmt: skip


def in_order(gpu, call):
    """What a call returns in every order of threads, which is to be the same."""
    found = []
    for order in ORDERS:
        with gpu.order(order, seed=3):
            found.append([gpu.get(array) for array in call()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    return found[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, patch, stride, first, n", BOXES)
def test_patches_and_back(gpu, shape, patch, stride, first, n, dtype):
    from sparseshare.kernels.gpu import patches

    rng, (patch, stride) = np.random.default_rng(0), map(np.array, (patch, stride))
    grid = (np.array(shape) - patch) // stride + 1
    n = n or int(grid.prod()) - first
    image, expected = rng.standard_normal(shape).astype(dtype), np.empty((n, patch.prod()), dtype)
    cpu_patches.take_patches(image, first, patch, stride, grid, expected)

    def taken():
        rows = gpu.poisoned(expected.shape, dtype)
        patches.take_patches(gpu.asarray(image), first, patch, stride, grid, rows)
        return [rows]

    np.testing.assert_array_equal(in_order(gpu, taken)[0], expected)
    numbers = rng.permutation(n)[:7]
    some = gpu.poisoned((len(numbers), patch.prod()), dtype)
    patches.take_patches(gpu.asarray(image), 0, patch, stride, grid, some, gpu.asarray(numbers + first))
    np.testing.assert_array_equal(gpu.get(some), expected[numbers])

    before = rng.standard_normal(shape)
    for low, high in ((np.zeros(3, np.int64), np.array(shape)), (np.array(shape) // 3, np.array(shape) - 1)):
        sums = before.copy()
        cpu_patches.add_patches(expected, first, patch, stride, grid, low, high, sums)
        there = gpu.asarray(before)
        patches.add_patches(gpu.asarray(expected), first, patch, stride, grid, low, high, there)
        np.testing.assert_array_equal(gpu.get(there), sums)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normalise", [True, False])
def test_loading(gpu, normalise, dtype):
    from sparseshare.kernels.gpu import features

    images = np.random.default_rng(0).standard_normal((5, 13, 14 * 3)).astype(dtype)
    images[2] = 3  # no contrast
    patch, stride, grid = np.array([5, 12]), np.array([2, 3]), np.array([5, 11])
    n = 5 * grid.prod() - 10
    expected = np.zeros((patch.prod(), n), dtype)
    for epsilon in (dtype(0.1), dtype(0)):
        cpu_features.load_patches(images, 3, n, patch, stride, grid, epsilon, normalise, expected)

        def loaded(epsilon=epsilon):
            columns = gpu.poisoned(expected.shape, dtype)
            features.load_patches(gpu.asarray(images), 3, n, patch, stride, grid, epsilon, normalise, columns)
            return [columns]

        found = in_order(gpu, loaded)[0]
        close(found, expected, dtype)
        np.testing.assert_array_equal(found == 0, expected == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_atoms", SIZES)
@pytest.mark.parametrize("signed", [True, False])
def test_quantisation(gpu, n_atoms, signed, dtype):
    from sparseshare.kernels.gpu import features

    rng = np.random.default_rng(n_atoms)
    products, offsets = rng.standard_normal((70, n_atoms)).astype(dtype), rng.standard_normal(n_atoms).astype(dtype)
    products[5], offsets[:] = 0, 0 if signed else offsets  # equal ones: the first of them
    products[:, n_atoms // 2] = products[:, 0]
    labels, values = np.empty(69, np.int64), np.empty(69, dtype)
    cpu_features.nearest_atoms(products, 69, offsets, signed, labels, values)

    def nearest():
        found = gpu.poisoned(69, np.int64), gpu.poisoned(69, dtype)
        features.nearest_atoms(gpu.asarray(products), 69, gpu.asarray(offsets), signed, *found)
        return found

    found = in_order(gpu, nearest)
    np.testing.assert_array_equal(found[0], labels)
    np.testing.assert_array_equal(found[1], values)

    X = rng.standard_normal((70, 45)).astype(dtype)
    before = rng.standard_normal((n_atoms, 45)), rng.random(n_atoms)
    expected = [array.copy() for array in before]
    cpu_features.add_to_atoms(X, 69, labels, values, signed, *expected)

    def added():
        sums = [gpu.asarray(array) for array in before]
        features.add_to_atoms(gpu.asarray(X), 69, gpu.asarray(labels), gpu.asarray(values), signed, *sums)
        return sums

    for a, b in zip(in_order(gpu, added), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


ROW_CELLS, COLUMN_CELLS = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 1, 1])  # of maps of 5 x 7 patches


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_atoms", SIZES)
@pytest.mark.parametrize("first, n", [(0, 4 * 35), (13, 100)])
@pytest.mark.parametrize("maximum", [True, False])
def test_pooling(gpu, maximum, first, n, n_atoms, dtype):
    from sparseshare.kernels.gpu import pooling

    rng, place = np.random.default_rng(n_atoms), (ROW_CELLS, COLUMN_CELLS)
    products = rng.standard_normal((n, n_atoms)).astype(dtype)
    lower, upper = rng.standard_normal((2, n_atoms)).astype(dtype)
    before = np.abs(rng.standard_normal((4, 3, 2, 2, n_atoms))).astype(dtype)
    expected = before.copy()
    cpu_pooling.pool_thresholded(products, n, first, *place, lower, upper, maximum, expected)

    def thresholded():
        sums = gpu.asarray(before)
        pooling.pool_thresholded(
            gpu.asarray(products), n, first, *place, gpu.asarray(lower), gpu.asarray(upper), maximum, sums
        )
        return [sums]

    close(in_order(gpu, thresholded)[0], expected, dtype)

    norms2, centres2 = rng.random(n).astype(dtype) + 5, rng.random(n_atoms).astype(dtype)
    rows, expected = products.copy(), before[:, :, :, :1].copy()
    cpu_pooling.pool_nearness(rows, n, first, *place, norms2, centres2, maximum, expected)

    def near():
        sums, there = gpu.asarray(before[:, :, :, :1].copy()), gpu.asarray(products)
        pooling.pool_nearness(
            there, n, first, *place, gpu.asarray(norms2), gpu.asarray(centres2), maximum, sums
        )  # fmt: skip
        return sums, there

    found = in_order(gpu, near)
    close(found[0], expected, dtype)
    close(found[1], rows, dtype)

    codes = random_array((n, n_atoms), density=0.2, format="csr", rng=rng, dtype=dtype)
    codes.data -= dtype(0.5)
    arrays = codes.indptr.astype(np.int32), codes.indices.astype(np.int32), codes.data
    expected = before.copy()
    cpu_pooling.pool_codes(*arrays, first, *place, maximum, expected)
    for shared in (pooling._SHARED, 80):  # all atoms at once, and a few

        def pooled(shared=shared):
            sums = gpu.asarray(before)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pooling, "_SHARED", shared)
                pooling.pool_codes(*map(gpu.asarray, arrays), first, *place, maximum, sums)
            return [sums]

        np.testing.assert_array_equal(in_order(gpu, pooled)[0], expected)


@pytest.mark.races
def test_no_races(gpu):
    """No two threads touch an address with no barrier between them."""
    from sparseshare.kernels.gpu import features, patches, pooling, unrolled_steps

    rng, place = np.random.default_rng(0), (ROW_CELLS, COLUMN_CELLS)
    image, grid = gpu.asarray(rng.random((1, 9, 80))), np.array([1, 6, 76])
    patch, stride = np.array([1, 4, 5]), np.array([1, 1, 1])
    rows, columns = gpu.poisoned((6 * 76, 20)), gpu.poisoned((20, 6 * 76))
    products, codes = gpu.asarray(rng.standard_normal((35, 33))), gpu.asarray(rng.standard_normal((35, 33)))
    sparse = random_array((35, 33), density=0.2, format="csr", rng=rng)
    offsets, labels, values = gpu.asarray(rng.random(33)), gpu.poisoned(35, np.int64), gpu.poisoned(35)
    sums, norms2 = gpu.xp.zeros((1, 3, 2, 2, 33)), gpu.asarray(rng.random(35))
    with gpu.races():
        patches.take_patches(image, 0, patch, stride, grid, rows)
        total = gpu.xp.zeros((1, 9, 80))
        patches.add_patches(rows, 0, patch, stride, grid, np.zeros(3, int), np.array([1, 9, 80]), total)
        features.load_patches(image, 0, 6 * 76, patch[1:], stride[1:], grid[1:], 0.1, True, columns)
        features.nearest_atoms(products, 35, offsets, True, labels, values)
        features.add_to_atoms(codes, 35, labels, values, True, gpu.xp.zeros((33, 33)), gpu.xp.zeros(33))
        pooling.pool_thresholded(products, 35, 0, *place, offsets, offsets, False, sums)
        pooling.pool_nearness(products, 35, 0, *place, norms2, offsets, True, gpu.xp.zeros((1, 3, 2, 1, 33)))
        arrays = sparse.indptr.astype(np.int32), sparse.indices.astype(np.int32), sparse.data
        pooling.pool_codes(*map(gpu.asarray, arrays), 0, *place, False, sums)
        unrolled_steps.unrolled_step(products, codes, 1.0, offsets, False, codes, gpu.xp.empty_like(codes), 0.5)
        gram = gpu.asarray(np.eye(33) + 0.1)
        unrolled_steps.descend_rows(products, gram, 0.1, 1e-4, 3, False, codes)
