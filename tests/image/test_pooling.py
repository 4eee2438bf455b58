"""Cells of grids and pyramids against plain slices of maps, and the pooling kernels against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from sparseshare.convolution.pooling import CellGrid
from sparseshare.kernels.dispatch import kernels_for


@st.composite
def grids_and_maps(draw):
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    levels = draw(st.lists(st.tuples(st.integers(1, height), st.integers(1, width)), min_size=1, max_size=3))
    return levels, (height, width)


def slow_features(maps, levels, pooling):
    """Codes (n, height, width, n_components) over the cells, split by sign: (n, n_cells, 2, n_components)."""
    gather = getattr(np, pooling)
    height, width = maps.shape[1:3]
    cells = []
    for rows, columns in levels:
        for i in range(rows):
            for j in range(columns):
                part = maps[
                    :,
                    i * height // rows : (i + 1) * height // rows,
                    j * width // columns : (j + 1) * width // columns,
                ]
                cells.append([gather(np.maximum(sign * part, 0), axis=(1, 2)) for sign in (1, -1)])
    return np.moveaxis(np.array(cells), 2, 0)


@settings(max_examples=80)
@given(grids_and_maps(), st.sampled_from(["sum", "mean", "max"]), st.integers(0, 100), st.integers(1, 7))
def test_cells_are_slices_of_the_map(case, pooling, seed, n_tile):
    """Codes through `pool_codes` and `pool_thresholded`, in tiles that end anywhere."""
    levels, (height, width) = case
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(3, height, width, 4)) * (rng.random((3, height, width, 4)) < 0.6)
    cells = CellGrid(levels, pooling).on((height, width))
    patches, expected = maps.reshape(-1, 4), slow_features(maps, levels, pooling)
    kernels = kernels_for("cpu", "pooling")
    blocks = [np.zeros((3, *cells.shape, 2, 4)) for _ in range(2)]
    zeros = np.zeros(4)
    for first in range(0, len(patches), n_tile):
        tile = patches[first : first + n_tile]
        codes = csr_array(tile)
        place = first, *cells.block_of
        kernels.pool_codes(codes.indptr, codes.indices, codes.data, *place, cells.maximum, blocks[0])
        full = np.full((n_tile + 1, 4), 1e3)  # rows beyond those that count
        full[: len(tile)] = tile
        kernels.pool_thresholded(full, len(tile), *place, zeros, zeros, cells.maximum, blocks[1])
    for each in blocks:
        assert_allclose(cells.features(each), expected, atol=1e-12)
    plus, minus = expected[:, :, :1], expected[:, :, 1:]
    unsplit = np.where(plus >= minus, plus, -minus) if pooling == "max" else plus - minus
    assert_allclose(cells.features(blocks[0], split_sign=False), unsplit, atol=1e-12)


@pytest.mark.parametrize("maximum", [False, True])
def test_tiles_do_not_show(rng, dtype, maximum):
    """The same last bits wherever tiles end."""
    cells = CellGrid(2, "max" if maximum else "sum").on((9, 9))
    Q = rng.normal(size=(2 * 81, 40)).astype(dtype)
    upper, lower = rng.random(40).astype(dtype), -rng.random(40).astype(dtype)
    results = []
    for n_tile in (162, 7, 32, 1):
        blocks = np.zeros((2, 2, 2, 2, 40), dtype)
        for first in range(0, 162, n_tile):
            tile = Q[first : first + n_tile]
            kernels_for("cpu", "pooling").pool_thresholded(
                tile, len(tile), first, *cells.block_of, lower, upper, maximum, blocks
            )
        results.append(blocks)
    for other in results[1:]:
        assert_array_equal(other, results[0])
    codes = np.stack([np.maximum(Q - upper, 0), np.maximum(lower - Q, 0)], axis=1).reshape(2, 9, 9, 2, 40)
    gather = np.max if maximum else np.sum
    assert_allclose(results[0][:, 0, 1], gather(codes[:, :4, 4:], axis=(1, 2)), rtol=1e-4)


def test_nearness_is_the_triangle_of_k_means(rng):
    patches, centres = rng.normal(size=(30, 6)), rng.normal(size=(5, 6))
    distances = np.linalg.norm(patches[:, None] - centres, axis=2)
    expected = np.maximum(distances.mean(axis=1, keepdims=True) - distances, 0)
    norms2, centres2 = (patches**2).sum(axis=1), (centres**2).sum(axis=1)
    Q = patches @ centres.T
    rows = Q.copy()
    kernels_for("cpu", "pooling").nearness_rows(rows, 30, norms2, centres2)
    assert_allclose(rows, expected, atol=1e-12)
    for pooling in ("sum", "max"):
        cells = CellGrid(1, pooling).on((5, 6))
        blocks = np.zeros((1, 1, 1, 1, 5))
        place = 0, *cells.block_of
        kernels_for("cpu", "pooling").pool_nearness(Q.copy(), 30, *place, norms2, centres2, cells.maximum, blocks)
        assert_allclose(cells.features(blocks)[0, 0, 0], getattr(expected, pooling)(axis=0), atol=1e-12)


@pytest.mark.parametrize("pooling", ["sum", "max"])
def test_parts_of_an_image_merge(rng, pooling):
    cells = CellGrid([1, 2], pooling).on((4, 4))
    a, b = rng.random((2, 1, 2, 2, 2, 3))
    assert_array_equal(cells.merge(a, b), np.maximum(a, b) if pooling == "max" else a + b)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([], r"'grid' parameter must be an int, two of them or a list of such grids, got \[\]"),
        (0, "'grid' parameter must be an integer of at least 1, got 0"),
        ((2, 2, 2), "'grid' parameter must be one int or 2 of them"),
        ([1, (2, 2.5)], "'grid' parameter must be an integer of at least 1, got 2.5"),
    ],
)
def test_grids_that_cannot_be(grid, message):
    with pytest.raises(ValueError, match=message):
        CellGrid(grid, "sum")


def test_a_grid_finer_than_the_map_is_refused():
    CellGrid([1, 3], "sum").on((3, 3))
    with pytest.raises(ValueError, match="a grid of 3x3 cells is finer than the map of 2x5 positions"):
        CellGrid([1, 3], "sum").on((2, 5))
    with pytest.raises(ValueError, match="'pooling' parameter must be 'sum', 'mean' or 'max', got 'average'"):
        CellGrid(1, "average")
