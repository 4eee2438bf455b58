"""Pooled activations against plain slices of maps, on signals, images and volumes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sparseshare.convolution.pooling import CellGrid, pooled_magnitudes


@st.composite
def grids_and_maps(draw):
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    level = st.tuples(*[st.integers(1, length) for length in shape])
    return tuple(shape), draw(st.lists(level, min_size=1, max_size=3))


def slow_features(maps, levels, pooling, n_signs):
    """Maps (n_channels, n_components, *positions) over the cells: (n_cells, n_signs, n_components, n_channels)."""
    gather, positions = getattr(np, pooling), maps.shape[2:]
    parts = [np.abs(maps)] if n_signs == 1 else [np.maximum(maps, 0), np.maximum(-maps, 0)]
    features = []
    for level in levels:
        for cell in np.ndindex(*level):
            inside = tuple(
                slice(at * length // cells, (at + 1) * length // cells)
                for at, length, cells in zip(cell, positions, level, strict=True)
            )
            own = [part[(..., *inside)].reshape(*maps.shape[:2], -1) for part in parts]
            features.append([gather(part, axis=-1).T for part in own])
    return np.array(features)


@settings(max_examples=80)
@given(
    grids_and_maps(), st.sampled_from(["sum", "mean", "max"]), st.integers(1, 2), st.integers(1, 3), st.integers(0, 9)
)
def test_cells_are_slices_of_the_map(case, pooling, n_signs, n_channels, seed):
    positions, levels = case
    rng = np.random.default_rng(seed)
    shape = (n_channels, 2, *positions)
    maps = rng.normal(size=shape) * (rng.random(shape) < 0.6)
    grid = CellGrid(levels, pooling, len(positions))
    indices = np.flatnonzero(maps)
    for dtype in (np.float32, np.float64):
        values = maps.ravel()[indices].astype(dtype)
        features = pooled_magnitudes(indices, values, maps.shape, grid.on(positions), n_signs)
        assert features.dtype == dtype and features.shape == (grid.n_cells, n_signs, 2, n_channels)
        assert_allclose(features, slow_features(maps, levels, pooling, n_signs), rtol=1e-6, atol=1e-12)


def test_no_activation_at_all():
    cells = CellGrid([1, 2], "max", 1).on((4,))
    assert not pooled_magnitudes(np.zeros(0, int), np.zeros(0), (1, 3, 4), cells, 2).any()


@pytest.mark.parametrize(
    ("n_axes", "grid", "names"),
    [
        (1, [1, 2], ["1_0", "2_0", "2_1"]),
        (1, (2,), ["2_0", "2_1"]),
        (2, (1, 2), ["1x2_0_0", "1x2_0_1"]),
        (3, (1, 1, 2), ["1x1x2_0_0_0", "1x1x2_0_0_1"]),
    ],
)
def test_names_of_cells(n_axes, grid, names):
    assert CellGrid(grid, "sum", n_axes).names() == names
    assert CellGrid(grid, "sum", n_axes).n_cells == len(names)


@pytest.mark.parametrize(
    ("n_axes", "grid", "message"),
    [
        (1, [], r"'pool_grid' parameter must be an int or a list of such grids, got \[\]"),
        (2, [], r"'pool_grid' parameter must be an int, two of them or a list of such grids, got \[\]"),
        (3, [], r"'pool_grid' parameter must be an int, 3 of them or a list"),
        (1, (2, 2), r"'pool_grid' parameter must be one int, got \(2, 2\)"),
        (3, (2, 2), r"'pool_grid' parameter must be one int or 3 of them, got \(2, 2\)"),
        (1, 0, "'pool_grid' parameter must be an integer of at least 1, got 0"),
    ],
)
def test_grids_that_cannot_be(n_axes, grid, message):
    with pytest.raises(ValueError, match=message):
        CellGrid(grid, "sum", n_axes, name="pool_grid")


def test_a_grid_finer_than_the_map_is_refused():
    with pytest.raises(ValueError, match="a grid of 5 cells is finer than the map of 4 positions: take a coarser grid"):
        CellGrid([1, 5], "sum", 1).on((4,))
