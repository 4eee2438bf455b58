"""Photographs and their patches: values, shapes, repeatability, refusals."""

import numpy as np
import pytest

from sparseshare.datasets import load_photographs, photo_patches

pytest.importorskip("PIL")


def test_photographs_are_grey_values(dtype):
    photographs = load_photographs(dtype)
    assert photographs.shape == (2, 427, 640) and photographs.dtype == dtype
    assert 0 <= photographs.min() < 0.05 and 0.95 < photographs.max() <= 1
    assert photographs.flags.c_contiguous


def test_patches_have_no_mean_and_unit_norm(dtype):
    patches = photo_patches(500, (6, 9), random_state=0, dtype=dtype)
    assert patches.shape == (500, 54) and patches.dtype == dtype
    np.testing.assert_allclose(patches.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(patches, axis=1), 1, rtol=1e-6)


def test_raw_patches_are_windows_of_the_photographs():
    patches = photo_patches(20, (5, 7), centered=False, normalized=False, random_state=1)
    windows = np.lib.stride_tricks.sliding_window_view(load_photographs(), (5, 7), axis=(1, 2)).reshape(-1, 35)
    for patch in patches:
        assert (windows[windows[:, 0] == patch[0]] == patch).all(axis=1).any()


def test_no_flat_patch():
    patches = photo_patches(20_000, centered=False, normalized=False, random_state=0)
    assert patches.std(axis=1).min() >= 1 / 255


def test_same_seed_same_patches_and_more_of_them_begin_alike():
    few, again, other = (photo_patches(100, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(few, again)
    assert not np.array_equal(few, other)
    np.testing.assert_array_equal(photo_patches(200, random_state=3)[:100], few)


def test_all_patches_can_be_had_and_no_more():
    total = 2 * 3 * 4
    patches = photo_patches(total, (425, 637), centered=False, normalized=False, random_state=0, dtype=np.float32)
    assert len(np.unique(patches[:, :50], axis=0)) == total
    with pytest.raises(ValueError, match=f"there are {total} that are not flat"):
        photo_patches(total + 1, (425, 637), dtype=np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_patches": 0}, "n_patches"),
        ({"n_patches": 1.5}, "n_patches"),
        ({"patch_shape": 8}, "patch_shape"),
        ({"patch_shape": (8, 8, 3)}, "patch_shape"),
        ({"patch_shape": (428, 8)}, r"patch_shape\[0\]"),
        ({"patch_shape": (8, 0)}, r"patch_shape\[1\]"),
        ({"centered": "yes"}, "centered"),
        ({"normalized": 1}, "normalized"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        photo_patches(**{"n_patches": 10, **arguments})
