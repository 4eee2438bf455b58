"""Patches of many images as rows: the right ones, where they come from, and the way back."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.feature_extraction.image import PatchExtractor as TheirExtractor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from sparseshare.image import PatchExtractor


@st.composite
def collections(draw):
    """An extractor, and images for it: an array or a list, of signals, images or volumes, with channels or without."""
    n_axes = draw(st.integers(1, 3))
    patch = tuple(draw(st.integers(1, 4)) for _ in range(n_axes))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(n_axes))
    channels = draw(st.sampled_from([(), (1,), (3,)]))
    n_images, is_list = draw(st.integers(1, 3)), draw(st.booleans())
    shapes = [
        tuple(draw(st.integers(size, size + 4)) for size in patch) + channels for _ in range(n_images if is_list else 1)
    ]
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    if is_list:
        images = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    else:
        images = rng.normal(size=(n_images, *shapes[0])).astype(dtype)
    most = draw(st.sampled_from([None, 1, 2, 5, 0.1, 0.5, 1.0]))
    return PatchExtractor(patch, stride, max_patches=most, random_state=0), images


def slow_rows(extractor, images):
    """Every patch with its image and corner, by plain slicing."""
    rows, numbers, corners = [], [], []
    for number, image in enumerate(images):
        lengths = image.shape[: len(extractor.patch_shape)]
        for corner in np.ndindex(*lengths):
            box = tuple(slice(c, c + p) for c, p in zip(corner, extractor.patch_shape, strict=True))
            fits = all(c.stop <= length for c, length in zip(box, lengths, strict=True))
            if fits and all(c % s == 0 for c, s in zip(corner, extractor.stride, strict=True)):
                rows.append(image[box].ravel())
                numbers.append(number)
                corners.append(corner)
    return np.array(rows), np.array(numbers), np.array(corners)


@settings(deadline=None, max_examples=150)
@given(collections())
def test_rows_are_patches_and_go_back(case):
    extractor, images = case
    rows, (numbers, corners) = extractor.fit_transform(images), extractor.locate(images)
    assert rows.dtype == images[0].dtype
    for row, number, corner in zip(rows, numbers, corners, strict=True):
        box = tuple(slice(c, c + p) for c, p in zip(corner, extractor.patch_shape, strict=True))
        assert_array_equal(row, images[number][box].ravel())
    all_rows, all_numbers, all_corners = slow_rows(extractor, images)
    if extractor.max_patches is None:
        assert_array_equal(rows, all_rows)
        assert_array_equal(numbers, all_numbers)
        assert_array_equal(corners, all_corners)
    else:
        places = set(zip(numbers.tolist(), map(tuple, corners.tolist()), strict=True))
        assert len(places) == len(rows)  # none twice
        assert places <= set(zip(all_numbers.tolist(), map(tuple, all_corners.tolist()), strict=True))
        for number, there in enumerate(np.bincount(all_numbers)):
            most = extractor.max_patches
            wanted = min(there, most) if isinstance(most, int) else max(1, int(most * there))
            assert (numbers == number).sum() == wanted

    shapes = [image.shape for image in images] if isinstance(images, list) else images.shape
    back = extractor.inverse_transform(rows, shapes, locations=(numbers, corners))
    assert isinstance(back, list) == isinstance(images, list)
    for number, (image, again) in enumerate(zip(images, back, strict=True)):
        covered = np.zeros(image.shape, bool)
        for corner in corners[numbers == number]:
            covered[tuple(slice(c, c + p) for c, p in zip(corner, extractor.patch_shape, strict=True))] = True
        assert again.dtype == image.dtype and again.shape == image.shape
        assert_array_equal(again[covered], image[covered])
        assert_array_equal(again[~covered], 0)
    if extractor.max_patches is None:
        for image, again in zip(back, extractor.inverse_transform(rows, shapes), strict=True):
            assert_array_equal(again, image)


def test_patches_that_disagree_are_averaged():
    extractor = PatchExtractor((2, 2)).fit(np.zeros((2, 3, 4)))
    rows = np.random.default_rng(0).normal(size=(12, 4))
    locations = extractor.locate(np.zeros((2, 3, 4)))
    mean = extractor.inverse_transform(rows)
    assert mean[1, 0, 0] == rows[6, 0]
    assert_allclose(mean[0, 1, 1], (rows[0, 3] + rows[1, 2] + rows[3, 1] + rows[4, 0]) / 4)
    assert_allclose(extractor.inverse_transform(rows, locations=locations), mean, rtol=1e-14)
    shuffled = np.random.default_rng(1).permutation(12)
    moved = tuple(array[shuffled] for array in locations)
    assert_allclose(extractor.inverse_transform(rows[shuffled], (2, 3, 4), locations=moved), mean, rtol=1e-14)


def test_the_patches_of_scikit_learn(rng):
    images = rng.normal(size=(3, 9, 10, 3))
    theirs = TheirExtractor(patch_size=(4, 5)).fit_transform(images)
    assert_array_equal(PatchExtractor((4, 5)).fit_transform(images), theirs.reshape(len(theirs), -1))


def test_a_draw_depends_on_the_image_alone(rng):
    images = rng.normal(size=(4, 12, 12)).astype(np.float32)
    extractor = PatchExtractor(3, max_patches=7, random_state=0).fit(images)
    rows = extractor.transform(images)
    assert_array_equal(extractor.transform(images), rows)
    assert_array_equal(extractor.transform(images[2:3]), rows[14:21])
    assert_array_equal(extractor.transform(list(images[::-1])), rows.reshape(4, 7, 9)[::-1].reshape(28, 9))
    assert_array_equal(clone(extractor).fit(images).transform(images), rows)
    places = extractor.locate(images)[1].reshape(4, 7, 2)
    assert not any(np.array_equal(places[0], other) for other in places[1:])
    other = clone(extractor).set_params(random_state=1).fit_transform(images)
    assert not np.array_equal(other, rows)
    anew = PatchExtractor(3, max_patches=7)
    assert not np.array_equal(anew.fit_transform(images), anew.fit_transform(images))


def test_draws_are_even(rng):
    """Each of 9 places comes in a third of the images: 4 standard deviations allowed."""
    images = rng.normal(size=(3000, 3, 3))
    numbers, corners = PatchExtractor(1, max_patches=3, random_state=0).fit(images).locate(images)
    counts = np.bincount(corners[:, 0] * 3 + corners[:, 1])
    assert len(numbers) == 9000 and np.abs(counts - 1000).max() < 4 * np.sqrt(3000 * 2 / 9)


def test_integers_and_missing_pixels(rng):
    levels = rng.integers(0, 255, (2, 9, 9), dtype=np.uint8)
    rows = PatchExtractor().fit_transform(levels)
    assert rows.dtype == np.float64 and rows.shape == (8, 64)
    assert_array_equal(rows[0], levels[0, :8, :8].ravel())
    holes = np.where(levels > 100, np.nan, levels)
    assert_array_equal(PatchExtractor().fit_transform(holes)[0], holes[0, :8, :8].ravel())
    assert PatchExtractor().fit_transform([holes[0], holes[1].astype(np.float32)]).dtype == np.float64
    one = PatchExtractor().fit_transform(levels[:1, :8, :8])
    assert one.shape == (1, 64)


def test_it_stands_in_a_pipeline(rng):
    images = rng.normal(size=(5, 10, 12))
    pipeline = make_pipeline(PatchExtractor((4, 4), 2), StandardScaler())
    rows = pipeline.fit_transform(images)
    assert rows.shape == (5 * 4 * 5, 16)
    assert_allclose(pipeline.inverse_transform(rows), images, atol=1e-14)
    frame = PatchExtractor(2).set_output(transform="pandas").fit_transform(images)
    assert list(frame.columns[:2]) == ["patchextractor0", "patchextractor1"] and frame.shape == (5 * 99, 4)


@pytest.mark.parametrize(
    "name",
    [
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_checks_that_bring_no_rows(name):
    """scikit-learn runs none of its common checks on an estimator that takes no 2-D array."""
    getattr(estimator_checks, name)("PatchExtractor", PatchExtractor())


def test_fitted_state_travels(rng):
    images = rng.normal(size=(2, 9, 9))
    extractor = PatchExtractor(3, max_patches=0.2).fit(images)
    before = {name: value for name, value in vars(extractor).items()}
    rows = extractor.transform(images)
    assert vars(extractor) == before
    assert_array_equal(pickle.loads(pickle.dumps(extractor)).transform(images), rows)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (dict(patch_shape=(2, 2, 2, 2)), "'patch_shape' parameter must be an int or 1 to 3 of them"),
        (dict(patch_shape=(0, 2)), "'patch_shape' parameter must be an integer of at least 1, got 0"),
        (dict(patch_shape=2.5), "'patch_shape' parameter must be an integer of at least 1, got 2.5"),
        (dict(stride=0), "'stride' parameter must be an integer of at least 1, got 0"),
        (dict(stride=(1, 1, 1)), "'stride' parameter must be one int or 2 of them"),
        (dict(max_patches=0), "'max_patches' parameter must be an integer of at least 1 or None, got 0"),
        (dict(max_patches=1.5), "'max_patches' parameter must be a finite number above 0 and at most 1, got 1.5"),
        (dict(max_patches=True), "'max_patches' parameter must be an integer"),
        (dict(max_patches="all"), "'max_patches' parameter must be a finite number .*, got 'all'"),
        (dict(random_state="a"), "cannot be used to seed"),
    ],
)
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        PatchExtractor(**parameters).fit(np.zeros((2, 9, 9)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((9, 9)),
            r"cut from images \(n, height, width\[, channels\]\), got an array of shape \(9, 9\).*\[None\]",
        ),
        (np.zeros((0, 9, 9)), r"Found images of shape \(0, 9, 9\)"),
        ([], "list with 0 images"),
        (np.zeros((2, 7, 9)), r"a patch of \(8, 8\) does not fit into an image of \(7, 9\)"),
        ([np.zeros((9, 9)), np.zeros((9, 5))], r"does not fit into an image of \(9, 5\)"),
        ([np.zeros((9, 9)), np.zeros((9, 9, 3))], r"same channels: image 0 .* image 1 has \(9, 9, 3\)"),
        ([np.zeros((9, 9, 4)), np.zeros((9, 9, 3))], r"same channels: image 0 has shape \(9, 9, 4\)"),
        ([np.zeros((9, 9)), np.zeros((9, 9), np.uint8)], "image 0 has dtype float64, image 1 has uint8"),
        ([np.zeros((9, 9), np.uint16), np.zeros((9, 9), np.uint8)], "image 0 has dtype uint16, image 1 has uint8"),
        ([np.zeros((9, 9)), np.zeros(9)], r"image 1 has shape \(9,\)"),
        (np.full((1, 9, 9), -np.inf), "the images contain infinite pixels"),
        ([np.zeros((9, 9)), np.full((9, 9), np.inf)], "image 1 contains infinite pixels"),
        (np.zeros((1, 9, 9), complex), "real numbers, got dtype complex128"),
        (np.full((1, 9, 9), "a"), "real numbers, got dtype <U1"),
    ],
)
def test_images_that_cannot_be_cut(images, message):
    with pytest.raises(ValueError, match=message):
        PatchExtractor().fit(images)


def test_images_unlike_those_that_were_fitted():
    with pytest.raises(ValueError, match="not fitted"):
        PatchExtractor().transform(np.zeros((1, 9, 9)))
    extractor = PatchExtractor(2).fit(np.zeros((1, 4, 4, 3)))
    assert extractor.transform(np.zeros((2, 5, 3, 3))).shape == (16, 12)  # another size is welcome
    with pytest.raises(ValueError, match="fitted were images of 3 channels, these are of no channel axis"):
        extractor.transform(np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="fitted were images of 3 channels, these are of 4 channels"):
        extractor.locate(np.zeros((1, 4, 4, 4)))


def test_patches_that_make_no_images():
    extractor = PatchExtractor(2).fit([np.zeros((4, 4)), np.zeros((5, 5))])
    rows = np.zeros((9, 4))
    for wrong, message in [
        (dict(image_shapes=None), "have different shapes: pass image_shapes"),
        (dict(image_shapes=(1, 5, 5)), "images of these shapes have 16 patches, got 9"),
        (dict(image_shapes=(4, 4)), r"image_shapes must be of images \(n, height, width.*got \(4, 4\)"),
        (dict(image_shapes=[(4, 4)], locations=3), "locations must be two arrays"),
        (dict(image_shapes=[(4, 4)], locations=(np.zeros(9), np.zeros((9, 2)))), "integer arrays of shapes"),
        (dict(image_shapes=[(4, 4)], locations=(np.ones(9, int), np.zeros((9, 2), int))), "name image 1 or 1"),
        (dict(image_shapes=[(4, 4)], locations=(np.zeros(9, int), np.full((9, 2), 3))), "reach beyond their image"),
    ]:
        with pytest.raises(ValueError, match=message):
            extractor.inverse_transform(rows, **wrong)
    with pytest.raises(ValueError, match="rows of 4 entries"):
        extractor.inverse_transform(np.zeros((9, 5)), (1, 4, 4))
    drawing = PatchExtractor(2, max_patches=3).fit(np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="with max_patches=3 only some patches were drawn: pass locations"):
        drawing.inverse_transform(np.zeros((3, 4)))
