"""Patches as columns, their adjoint, and products that skip zeros, against plain ones."""

import numpy as np
import pytest

from sparseshare.kernels.cpu.columns import add_columns, pad_images, sparse_columns_product, take_columns, take_rows
from sparseshare.kernels.cpu.sparse_products import count_nonzeros, sparse_product

GRIDS = [(3, 3, 1, 1, 4, 5), (2, 3, 2, 1, 3, 5), (1, 4, 1, 3, 6, 2), (6, 7, 1, 1, 1, 1)]  # on images of 6 x 7


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("n_channels", [1, 3, 17])
def test_columns_are_patches(grid, n_channels, rng, dtype):
    images = rng.standard_normal((2, 6, 7, n_channels)).astype(dtype)
    kh, kw, sy, sx, n_lines, n_pixels = grid
    expected = np.array(
        [
            images[i, y * sy : y * sy + kh, x * sx : x * sx + kw].ravel()
            for i in range(2)
            for y in range(n_lines)
            for x in range(n_pixels)
        ]
    )
    columns = np.empty_like(expected)
    take_columns(images, *grid, columns)
    np.testing.assert_array_equal(columns, expected)
    rows = np.empty(expected.shape[::-1], dtype)
    take_rows(images, *grid, rows)
    np.testing.assert_array_equal(rows, expected.T)


@pytest.mark.parametrize("grid", GRIDS)
def test_adding_is_the_adjoint_of_taking(grid, rng):
    images = rng.standard_normal((2, 6, 7, 3))
    columns = np.empty((2 * grid[4] * grid[5], grid[0] * grid[1] * 3))
    take_columns(images, *grid, columns)
    others, back = rng.standard_normal(columns.shape), np.empty_like(images)
    add_columns(others, *grid, back)
    np.testing.assert_allclose((columns * others).sum(), (images * back).sum(), rtol=1e-12)


def test_padding_puts_zeros_around(rng, dtype):
    images = rng.standard_normal((2, 3, 4, 2)).astype(dtype)
    padded = np.full((2, 5, 8, 2), np.nan, dtype)
    pad_images(images, 1, 2, padded)
    np.testing.assert_array_equal(padded, np.pad(images, ((0, 0), (1, 1), (2, 2), (0, 0))))
    cropped = np.full((2, 3, 4, 2), np.nan, dtype)
    pad_images(images, 1, 2, cropped)
    np.testing.assert_array_equal(cropped[:, 1:, 2:], images[:, :2, :2])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_products_skip_zeros_of_images(grid, density, rng, dtype):
    images = (rng.standard_normal((2, 6, 7, 9)) * (rng.random((2, 6, 7, 9)) < density)).astype(dtype)
    columns = np.empty((2 * grid[4] * grid[5], grid[0] * grid[1] * 9), dtype)
    take_columns(images, *grid, columns)
    weights = rng.standard_normal((columns.shape[1], 128)).astype(dtype)
    out = np.full((len(columns), 100), np.nan, dtype)
    sparse_columns_product(images, *grid, weights, out)
    close = 1e-3 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(out, columns @ weights[:, :100], rtol=close, atol=close)


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_products_skip_zeros_of_rows(density, rng, dtype):
    x = (rng.standard_normal((11, 33)) * (rng.random((11, 33)) < density)).astype(dtype)
    weights, out = rng.standard_normal((33, 64)).astype(dtype), np.full((11, 50), np.nan, dtype)
    sparse_product(x, weights, out)
    close = 1e-4 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(out, x @ weights[:, :50], rtol=close, atol=close)
    assert count_nonzeros(x) == np.count_nonzero(x)
