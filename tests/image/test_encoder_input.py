"""What SparseImageEncoder takes for images, and what it refuses, by name."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.datasets import load_digits

from sparseshare.image import SparseImageEncoder


def small(**options):
    options = {"n_components": 12, "patch_shape": 3, "n_patches": 2000, "max_iter": 5, "random_state": 0} | options
    return SparseImageEncoder(**options)


@pytest.fixture
def images(rng):
    return rng.uniform(0, 255, (6, 11, 9))


def test_three_kinds_of_input(images):
    encoder = small(image_shape=(11, 9)).fit(images)
    expected = encoder.transform(images)
    for same in (
        list(images),
        images[..., None],
        images.reshape(6, -1),
        images.reshape(6, -1).tolist(),
        np.asfortranarray(images),
    ):
        assert_allclose(encoder.transform(same), expected, rtol=1e-12)
    by_rows = small(image_shape=(11, 9)).fit(images.reshape(6, -1))
    assert_array_equal(by_rows.components_, encoder.components_)
    assert by_rows.n_features_in_ == 99 and by_rows.image_shape_ == (11, 9, 1)
    with pytest.raises(ValueError, match="X has 98 features, but SparseImageEncoder is expecting 99 features"):
        small(image_shape=(11, 9)).fit(images.reshape(6, -1)).set_params(image_shape=(49, 2)).transform(
            np.zeros((2, 98))
        )
    colour = np.random.default_rng(1).integers(0, 255, (4, 6, 5, 4), dtype=np.uint8)  # RGBA: four channels like others
    encoder = small(image_shape=(6, 5, 4)).fit(colour.reshape(4, -1))
    assert encoder.n_channels_ == 4 and encoder.components_.shape == (12, 36)
    assert encoder.contrast_epsilon_ == 10
    assert encoder.filters_.shape == (12, 3, 3, 4)
    assert_array_equal(encoder.transform(colour), encoder.transform(list(colour)))
    # Without image_shape rows are square, or what fit saw.
    assert small().fit(np.random.default_rng(0).random((5, 64))).image_shape_ == (8, 8, 1)
    tall = small().fit(images)
    assert_array_equal(tall.transform(images.reshape(6, -1)), tall.transform(images))


def test_read_only_and_mapped_images(images, tmp_path):
    np.save(tmp_path / "images.npy", images.astype(np.float32))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    encoder = small().fit(mapped)
    assert_array_equal(encoder.transform(mapped), encoder.transform(np.array(mapped)))


def test_grey_values_of_any_range():
    images = load_digits().images
    scaled = small().fit(images / 16)
    large = small().fit(images * 1000)
    assert_allclose(scaled.contrast_epsilon_, 10 / 255**2)
    assert_allclose(scaled.transform(images[:5] / 16), large.transform(images[:5] * 1000), rtol=1e-6)
    for dtype, epsilon in ((np.uint8, 10), (np.uint16, 10 * 257**2), (bool, 10 / 255**2)):
        assert_allclose(small().fit(images.astype(dtype)).contrast_epsilon_, epsilon)
    assert small(contrast_epsilon=3.5).fit(images).contrast_epsilon_ == 3.5


def test_constant_images_give_numbers():
    for images in (np.zeros((3, 8, 8)), np.full((3, 8, 8), 0.1), np.full((1, 5, 5), 7, np.uint8)):
        for options in ({}, {"encoding": "triangle", "dictionary": "kmeans"}, {"contrast_epsilon": 0}):
            assert np.isfinite(small(**options).fit(images).transform(images)).all()
    assert_array_equal(small().fit(np.zeros((3, 8, 8))).transform(np.zeros((1, 8, 8))), 0)


WRONG = {
    "n_components": [0, 1.5],
    "patch_shape": [0, (2, 2, 2), 1.5],
    "stride": [0, (1, 2.5)],
    "image_shape": [(8,), 8, (8, 0)],
    "dictionary": ["ksvd", [[1.0, np.nan]]],
    "encoding": ["softmax"],
    "alpha": [-1, np.nan, None],
    "n_nonzero_coefs": [0, 1.5],
    "split_sign": [1],
    "pooling": ["median"],
    "grid": [0, [], (2, 2, 2)],
    "contrast_epsilon": [-1, "none"],
    "whitening": ["pca", 0.1],
    "whitening_epsilon": [-1],
    "n_patches": [0],
    "max_iter": [-1],
    "sparse_output": ["yes"],
    "n_jobs": ["all", 1.5],
    "device": ["gpu"],
    "verbose": [2.5],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_parameters_are_named(images, name):
    for wrong in [*WRONG[name], object()]:
        encoder = small().set_params(**{name: wrong})
        with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
            encoder.fit(images)


def with_nan(images):
    images = images.copy()
    images[4, 3, 2] = np.nan
    return images


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_nan, "image 4 contains NaN or infinity"),
        (lambda X: list(with_nan(X)), "image 4 contains NaN or infinity"),
        (lambda X: X[:, :2], r"image 0: a patch of \(3, 3\) does not fit into an image of \(2, 9\)"),
        (lambda X: [X[0], X[1, :, :2]], r"image 1: a patch of \(3, 3\) does not fit into an image of \(11, 2\)"),
        (lambda X: [X[0], X[1].astype(np.uint8)], "image 0 of X has dtype float64, image 1 has uint8: .* Convert all"),
        (lambda X: [X[0], X[1][..., None].repeat(3, axis=2)], r"image 0 of X has 1 channel\(s\), image 1 has 3"),
        (
            lambda X: [X[0], X],
            r"image 1 of X has shape \(6, 11, 9\), image_shape|image 1 of X has 9 channel|has 1 channel",
        ),
        (lambda X: X[None, None], "Found array with dim 5"),
        (lambda X: X[0, 0], "Expected 2D array, got 1D array instead"),
        (lambda X: X.reshape(6, -1)[:, :50], "flat rows of 50 pixels, which make no square image: give image_shape"),
        (lambda X: X[:0], r"no images, or images without pixels: its shape is \(0, 11, 9\)"),
        (lambda X: [], "Expected 2D array"),
        (lambda X: X + 1j, "Complex data not supported"),
        (lambda X: X.astype(str), "must hold numbers"),
        (lambda X: [X[0].astype(str)] * 2, "image 0 of X must hold numbers"),
        (lambda X: [np.zeros((0, 4))], r"image 0 of X must have the shape \(height, width\[, n_channels\]\), got"),
        (lambda X: np.ma.masked_array(X, X > 100), "masked array"),
    ],
)
def test_wrong_images_are_described(images, make, message):
    with pytest.raises(ValueError, match=message):
        small().fit(make(images))


def test_more_wrong_images(images):
    encoder = small().fit(images)
    with pytest.raises(TypeError, match="Sparse data was passed for X, but images must be dense"):
        encoder.transform(csr_array(images[0]))
    with pytest.raises(ValueError, match="image 4 contains NaN"):
        encoder.transform(with_nan(images))
    with pytest.raises(ValueError, match=r"images of 3 channel\(s\), SparseImageEncoder was fitted to 1"):
        encoder.transform(np.zeros((2, 11, 9, 3)))
    with pytest.raises(ValueError, match="a grid of 10x10 cells is finer than the map of 9x7 positions"):
        encoder.set_params(grid=[2, 10]).transform(images)
    with pytest.raises(ValueError, match="fit again after changing patch_shape"):
        encoder.set_params(grid=2, patch_shape=4).transform(images)
    with pytest.raises(ValueError, match=r"X has images of shape \(11, 9\), image_shape asks for \(9, 11\)"):
        small(image_shape=(9, 11)).fit(images)
    with pytest.raises(ValueError, match=r"image 0 of X has shape \(11, 9\), image_shape asks for \(9, 11\)"):
        small(image_shape=(9, 11)).fit(list(images))
    with pytest.raises(ValueError, match=r"X has 99 columns, images of shape \(9, 12\) have 108 pixels"):
        small(image_shape=(9, 12)).fit(images.reshape(6, -1))
    with pytest.raises(ValueError, match="'dictionary' parameter has atoms of 8 entries, patches have 9"):
        small(dictionary=np.eye(8)).fit(images)
