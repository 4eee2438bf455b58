"""Inpainting finds pixels that are known to the test, leaves the others alone, and survives what masks can be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sparseshare.coding.problem import Problem
from sparseshare.image import PatchGrid, inpaint_image
from sparseshare.image.denoising import sum_of_coded_patches
from sparseshare.image.inpainting import fill_by_averages


def picture(shape=(48, 50)):
    """Slanted waves with an edge."""
    places = np.indices(shape)
    return 50 * np.sin(places.sum(axis=0) / 3) + 80 * (places[0] > shape[0] / 2) + 100.0


def lose(image, share, seed=0):
    mask = np.random.default_rng(seed).random(image.shape) < share
    return np.where(mask, 0, image), mask


def rms(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


def slow_averages(image, missing):
    """Coarse to fine, pixel by pixel."""
    if not missing.any():
        return image
    coarse_shape = tuple(-(-n // 2) for n in image.shape)
    coarse, empty = np.zeros(coarse_shape), np.zeros(coarse_shape, bool)
    for place in np.ndindex(*coarse_shape):
        box = tuple(slice(2 * p, 2 * p + 2) for p in place)
        known = image[box][~missing[box]]
        empty[place] = known.size == 0
        coarse[place] = known.mean() if known.size else 0
    coarse = slow_averages(coarse, empty)
    out = image.copy()
    for place in zip(*np.nonzero(missing), strict=True):
        value = coarse
        for p, length in zip(place, coarse_shape, strict=True):
            at = min(max((p - 0.5) / 2, 0), length - 1)
            low, high = int(at), min(int(at) + 1, length - 1)
            value = (1 - at + low) * value[low] + (at - low) * value[high]
        out[place] = value
    return out


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.floats(0, 1), st.integers(0, 1000))
def test_first_filling(shape, share, seed):
    rng = np.random.default_rng(seed)
    image, missing = rng.standard_normal(shape), rng.random(shape) < share
    missing.flat[seed % missing.size] = False
    assert_allclose(fill_by_averages(image, missing), slow_averages(image, missing), atol=1e-12)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_missing_pixels_are_found_and_known_ones_kept(share):
    clean = picture()
    damaged, mask = lose(clean, share)
    first = fill_by_averages(damaged, mask)
    filled = inpaint_image(damaged, mask, random_state=0)
    assert_array_equal(filled[~mask], clean[~mask])
    assert rms(filled[mask], clean[mask]) < 0.4 * rms(first[mask], clean[mask])


@pytest.mark.parametrize("n_channels", [None, 2])
def test_patches_that_touch_nothing_missing_need_no_codes(n_channels):
    shape = (20, 22) if n_channels is None else (20, 22, n_channels)
    image = np.random.default_rng(0).standard_normal(shape)
    missing = np.zeros(shape, bool)
    missing[5:8, 9] = True
    grid = PatchGrid((20, 22), 4, n_channels=n_channels)
    atoms = np.eye(grid.n_features)[::2].copy()
    problem = Problem(atoms, algorithm="omp", max_error=0.5)
    every, _ = sum_of_coded_patches(image, grid, problem, None)
    needed, _ = sum_of_coded_patches(image, grid, problem, None, missing=missing)
    assert_array_equal(needed[missing], every[missing])
    assert not np.array_equal(needed, every)


def test_learning_helps():
    rng = np.random.default_rng(0)
    tile = rng.standard_normal((6, 6))
    clean = np.tile(tile, (9, 9))
    damaged, mask = lose(clean, 0.4)
    learned = inpaint_image(damaged, mask, random_state=0)
    fixed = inpaint_image(damaged, mask, learn=False)
    assert rms(learned, clean) < 0.8 * rms(fixed, clean)


@pytest.mark.parametrize("shape", [(400,), (16, 17, 18), (40, 41, 3)])
def test_signals_volumes_and_colours(shape):
    places = np.indices(shape)
    clean = np.cos(places[0] / 4) + 0.3 * np.sin(places[-1] / 3)
    damaged, mask = lose(clean, 0.3)
    filled = inpaint_image(damaged, mask, max_iter=15, random_state=0)
    assert_array_equal(filled[~mask], clean[~mask])
    assert rms(filled[mask], clean[mask]) < 0.15 * np.std(clean)


def test_a_mask_of_pixels_is_one_of_all_channels():
    clean = np.stack([picture((30, 30))] * 3, axis=-1)
    mask = np.random.default_rng(1).random((30, 30)) < 0.3
    of_pixels = inpaint_image(clean, mask, max_iter=2, random_state=0)
    of_entries = inpaint_image(clean, np.repeat(mask[..., None], 3, axis=2), max_iter=2, random_state=0)
    assert_array_equal(of_pixels, of_entries)


def test_a_channel_is_filled_from_the_others():
    clean = np.stack([picture(), 0.5 * picture(), picture() + 20], axis=-1)
    mask = np.zeros(clean.shape, bool)
    mask[..., 1] = np.random.default_rng(2).random(clean.shape[:2]) < 0.7
    together = inpaint_image(clean, mask, max_iter=20, random_state=0)
    alone = inpaint_image(clean[..., 1], mask[..., 1], max_iter=20, random_state=0)
    assert rms(together[..., 1], clean[..., 1]) < rms(alone, clean[..., 1])


def test_nan_marks_what_is_missing():
    damaged, mask = lose(picture((20, 20)), 0.3)
    with_nan = np.where(mask, np.nan, damaged)
    expected = inpaint_image(damaged, mask, max_iter=2, random_state=0)
    assert_array_equal(inpaint_image(with_nan, max_iter=2, random_state=0), expected)
    assert_array_equal(inpaint_image(with_nan, mask, max_iter=2, random_state=0), expected)


def test_what_stands_at_missing_pixels_is_not_used():
    damaged, mask = lose(picture((20, 20)), 0.3)
    other = np.where(mask, 1e6, damaged)
    assert_array_equal(
        inpaint_image(other, mask, max_iter=2, random_state=0), inpaint_image(damaged, mask, max_iter=2, random_state=0)
    )


def test_a_hole_larger_than_patches_gets_a_sensible_content():
    clean = picture((64, 64))
    mask = np.zeros(clean.shape, bool)
    mask[20:44, 15:39] = True
    filled = inpaint_image(clean, mask, random_state=0)
    assert np.ptp(filled[mask]) < 2 * np.ptp(clean)
    assert rms(filled[mask], clean[mask]) < np.std(clean)


def test_one_known_pixel():
    mask = np.ones((12, 12), bool)
    mask[5, 7] = False
    assert_allclose(inpaint_image(np.full((12, 12), 3.0), mask), 3)


def test_noise_on_known_pixels_is_removed_too():
    clean = picture((64, 64))
    rng = np.random.default_rng(0)
    noisy, mask = clean + 10 * rng.standard_normal(clean.shape), rng.random(clean.shape) < 0.3
    filled = inpaint_image(noisy, mask, sigma=10, random_state=0)
    exact = inpaint_image(noisy, mask, random_state=0)
    assert rms(filled[~mask], clean[~mask]) < 7
    assert rms(filled[mask], clean[mask]) < rms(exact[mask], clean[mask])


@pytest.mark.parametrize("value", [0, 0.1, 200])
def test_constant_images(value):
    mask = np.random.default_rng(0).random((15, 15)) < 0.5
    assert_allclose(inpaint_image(np.full((15, 15), float(value)), mask), value, rtol=1e-12)


def test_nothing_missing():
    clean = picture((20, 20))
    filled, dictionary = inpaint_image(clean, np.zeros(clean.shape, bool), return_dictionary=True)
    assert_array_equal(filled, clean)
    assert not np.shares_memory(filled, clean) and dictionary.shape == (256, 64)


def test_dtypes():
    damaged, mask = lose(picture((24, 24)), 0.3)
    double = inpaint_image(damaged, mask, max_iter=4, random_state=0)
    single = inpaint_image(damaged.astype(np.float32), mask, max_iter=4, random_state=0)
    assert double.dtype == np.float64 and single.dtype == np.float32
    assert rms(single, double) < 3
    levels = damaged.round().astype(np.uint8)
    assert inpaint_image(levels, mask, max_iter=1).dtype == np.float64


def test_the_same_for_every_number_of_threads_and_input_is_left_alone():
    damaged, mask = lose(picture((60, 70)), 0.5)
    damaged.flags.writeable = mask.flags.writeable = False
    options = dict(max_iter=3, random_state=1, max_patches=500)
    assert_array_equal(
        inpaint_image(damaged, mask, n_jobs=1, **options), inpaint_image(damaged, mask, n_jobs=4, **options)
    )


def test_dictionary_in_and_out():
    damaged, mask = lose(picture((24, 24)), 0.3)
    _, learned = inpaint_image(damaged, mask, n_components=80, max_iter=3, random_state=0, return_dictionary=True)
    assert learned.shape == (80, 64)
    _, same = inpaint_image(damaged, mask, dictionary=2 * learned, max_iter=2, return_dictionary=True)
    assert_allclose(same, learned, atol=1e-12)
    _, moved = inpaint_image(damaged, mask, dictionary=learned, learn=True, max_iter=2, return_dictionary=True)
    assert not np.allclose(moved, learned)


def test_progress_is_told_and_can_be_ended(capsys):
    damaged, mask = lose(picture((20, 20)), 0.3)
    told = []
    inpaint_image(damaged, mask, max_iter=3, verbose=True, callback=told.append, random_state=0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"[inpaint_image] epoch {k}/3" for k in (1, 2, 3)]
    assert [(entry["stage"], entry["step"], entry["n_steps"]) for entry in told] == [("fill", k, 3) for k in (1, 2, 3)]
    assert all(entry["loss"] > 0 and entry["dictionary"].shape == (256, 64) for entry in told)
    calls = []
    inpaint_image(damaged, mask, max_iter=30, callback=lambda state: calls.append(1) or len(calls) == 2)
    assert len(calls) == 2


IMAGE = np.ones((10, 10))
MASK = np.zeros((10, 10), bool)


@pytest.mark.parametrize(
    ("image", "mask", "options", "message"),
    [
        (IMAGE, MASK[:9], {}, r"boolean array of shape \(10, 10\), True where missing; got .* \(9, 10\)"),
        (IMAGE, MASK.astype(int), {}, "dtype int64"),
        (IMAGE, MASK[..., None], {}, "boolean array of shape"),
        (np.ones((10, 10, 3)), MASK[:, :9], {}, r"\(10, 10\) or \(10, 10, 3\)"),
        (IMAGE, ~MASK, {}, "every pixel of image is missing"),
        (np.full((10, 10), np.nan), None, {}, "every pixel of image is missing"),
        (np.where(np.arange(3) == 1, np.nan, np.ones((10, 10, 3))), None, {}, "every pixel of channel 1 of image"),
        (np.where(np.eye(10), np.nan, 1), MASK, {}, "NaN where mask says it is known"),
        (np.where(np.eye(10), np.inf, 1), None, {}, "image contains infinity"),
        (np.ones((7, 10)), np.zeros((7, 10), bool), {}, "does not fit"),
        (np.ones((10, 10, 4)), None, {}, "alpha channel"),
        (IMAGE, MASK, {"sigma": -1}, "'sigma' parameter of inpaint_image"),
        (IMAGE, MASK, {"sigma": None}, "'sigma' parameter of inpaint_image"),
        (IMAGE, MASK, {"max_iter": 0}, "'max_iter' parameter"),
        (IMAGE, MASK, {"max_patches": 0}, "'max_patches' parameter"),
        (IMAGE, MASK, {"n_components": 0}, "'n_components' parameter"),
        (IMAGE, MASK, {"dictionary": np.ones((5, 63))}, "atoms of 63 entries"),
        (IMAGE, MASK, {"learn": "yes"}, "'learn' parameter"),
        (IMAGE, MASK, {"verbose": 2}, "'verbose' parameter"),
        (IMAGE, MASK, {"callback": 3}, "'callback' parameter"),
        (IMAGE, MASK, {"n_jobs": 0}, "'n_jobs' parameter"),
        (IMAGE, MASK, {"device": "tpu"}, "'device' parameter"),
    ],
)
def test_bad_input(image, mask, options, message):
    with pytest.raises(ValueError, match=message):
        inpaint_image(image, mask, **options)
