"""Patches come out where they should, and go back exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sparseshare.image.patches import PatchGrid


@st.composite
def grids(draw):
    n_axes = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(n_axes))
    patch = tuple(draw(st.integers(1, length)) for length in shape)
    stride = tuple(draw(st.integers(1, 4)) for _ in range(n_axes))
    return PatchGrid(shape, patch, stride, draw(st.sampled_from([None, 1, 2, 3])))


def slow_rows(grid, image):
    """Every patch by plain slicing."""
    rows = []
    for place in np.ndindex(*grid.grid_shape):
        box = tuple(slice(g * s, g * s + p) for g, s, p in zip(place, grid.stride, grid.patch_shape, strict=True))
        rows.append(image[box].ravel())
    return np.array(rows)


def slow_sum(grid, rows):
    total = np.zeros(grid.image_shape)
    for number, place in enumerate(np.ndindex(*grid.grid_shape)):
        box = tuple(slice(g * s, g * s + p) for g, s, p in zip(place, grid.stride, grid.patch_shape, strict=True))
        total[box] += rows[number].reshape(total[box].shape)
    return total


@settings(deadline=None, max_examples=150)
@given(grids(), st.sampled_from([np.float32, np.float64]), st.integers(0, 100))
def test_overlap_add_gives_back_the_image_exactly(grid, dtype, seed):
    image = np.random.default_rng(seed).normal(size=grid.image_shape).astype(dtype)
    rows = grid.extract(image)
    assert rows.dtype == dtype
    assert_array_equal(rows, slow_rows(grid, image))
    assert_array_equal(grid.view(image).reshape(rows.shape), rows)
    back = grid.overlap_add(rows)
    covered = grid.coverage() > 0
    assert back.dtype == dtype
    assert_array_equal(back[covered], image[covered])
    assert_array_equal(back[~covered], 0)
    assert_array_equal(
        grid.coverage(),
        slow_sum(
            PatchGrid(grid.shape, grid.patch_shape, grid.stride), np.ones((grid.n_patches, np.prod(grid.patch_shape)))
        ),
    )


@settings(deadline=None, max_examples=60)
@given(grids(), st.integers(0, 100), st.integers(0, 1000), st.integers(0, 1000))
def test_a_range_of_patches_is_that_range_of_all(grid, seed, a, b):
    first, last = sorted((a % (grid.n_patches + 1), b % (grid.n_patches + 1)))
    image = np.random.default_rng(seed).normal(size=grid.image_shape)
    rows = grid.extract(image)
    assert_array_equal(grid.extract(image, first, last), rows[first:last])
    total = np.zeros(grid.image_shape)
    grid.add(rows[:first], total)
    grid.add(rows[first:], total, first)
    assert_array_equal(total, grid.overlap_add(rows, average=False))
    assert_allclose(total, slow_sum(grid, rows), atol=1e-12)


@pytest.mark.parametrize("shape", [(40_000,), (150, 170), (30, 31, 32)])
def test_sums_do_not_depend_on_the_number_of_threads(shape):
    grid = PatchGrid(shape, 5, n_channels=2)
    rows = np.random.default_rng(0).normal(size=(grid.n_patches, grid.n_features)).astype(np.float32)
    one = grid.overlap_add(rows, n_jobs=1)
    assert_array_equal(grid.overlap_add(rows, n_jobs=4), one)
    assert_allclose(one * grid.coverage()[..., None], slow_sum(grid, rows), rtol=1e-4, atol=1e-4)


def test_images_of_other_kinds():
    grid = PatchGrid((6, 7), (2, 3), 2)
    levels = np.random.default_rng(0).integers(0, 255, (6, 7), dtype=np.uint8)
    assert grid.extract(levels).dtype == np.float64
    assert_array_equal(grid.extract(levels), slow_rows(grid, levels))
    turned = np.asfortranarray(levels.astype(np.float32))
    turned.flags.writeable = False
    assert_array_equal(grid.extract(turned), slow_rows(grid, levels))
    view = grid.view(turned)
    assert view.base is not None and not view.flags.writeable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), 5), r"a patch of \(5, 5\) does not fit into an image of \(4, 4\)"),
        (((4, 4), (2, 2, 2)), "'patch_shape' parameter must be one int or 2 of them"),
        (((4, 4), 2, 0), "'stride' parameter must be an integer of at least 1, got 0"),
        (((4, 4), 2, (1, 1.5)), "'stride' parameter must be an integer of at least 1, got 1.5"),
        (((4, 4, 4, 4), 2), "shape must have 1 to 3 axes"),
        (((4, 4), 2, 1, 0), "'n_channels' parameter must be an integer of at least 1 or None"),
    ],
)
def test_grids_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        PatchGrid(*arguments)


def test_arrays_that_do_not_fit():
    grid = PatchGrid((4, 4), 2)
    with pytest.raises(ValueError, match=r"images of shape \(4, 4\), got one of \(4, 5\)"):
        grid.extract(np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"rows must have shape \(9, 4\)"):
        grid.overlap_add(np.zeros((8, 4)))
