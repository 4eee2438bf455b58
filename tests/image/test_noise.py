"""The noise level is found in signals, images and volumes, and edges and constants do not disturb it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sparseshare.image import estimate_sigma


@pytest.mark.parametrize("shape", [(4000,), (70, 61), (1, 90, 80), (20, 21, 22), (9, 10, 11, 12)])
@pytest.mark.parametrize("sigma", [1e-3, 7.0])
def test_white_noise_of_any_number_of_axes(shape, sigma):
    noise = sigma * np.random.default_rng(0).standard_normal(shape)
    assert_allclose(estimate_sigma(3 * sigma + noise, channels=False), sigma, rtol=0.12)


def test_edges_and_slopes_barely_count():
    rows, columns = np.indices((128, 128))
    picture = 50.0 * (rows // 16 % 2) + 30 * ((rows - 60) ** 2 + (columns - 70) ** 2 < 900) + columns / 2
    noisy = picture + 5 * np.random.default_rng(1).standard_normal(picture.shape)
    assert_allclose(estimate_sigma(noisy), 5, rtol=0.1)
    assert estimate_sigma(np.add.outer(np.arange(50.0), 3 * np.arange(40.0))) < 1e-9


def test_the_mean_of_the_channels_is_returned():
    rng = np.random.default_rng(2)
    colours = rng.standard_normal((90, 90, 3)) * [1, 2, 3]
    assert_allclose(estimate_sigma(colours), 2, rtol=0.05)
    assert_allclose(estimate_sigma(colours), np.mean([estimate_sigma(colours[..., c]) for c in range(3)]))
    assert estimate_sigma(colours, channels=False) != estimate_sigma(colours)


def test_a_border_of_one_colour_does_not_count():
    noise = np.random.default_rng(3).standard_normal((100, 100))
    framed = np.full((200, 200), 0.1)
    framed[50:150, 50:150] = noise
    assert_allclose(estimate_sigma(framed), estimate_sigma(noise), rtol=0.1)


@pytest.mark.parametrize("image", [np.zeros((8, 8)), np.full((9, 9), 0.1, np.float32), np.full((5, 6), 255, np.uint8)])
def test_constants_have_no_noise(image):
    assert estimate_sigma(image) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_units_are_those_of_the_image(dtype):
    noisy = np.clip(100 + 10 * np.random.default_rng(4).standard_normal((100, 100)), 0, 255).astype(dtype)
    assert_allclose(estimate_sigma(noisy), 10, rtol=0.05)


def test_huge_and_tiny_entries():
    noise = np.random.default_rng(5).standard_normal((64, 64))
    for scale in (1e-200, 1e200):
        assert_allclose(estimate_sigma(scale * noise), scale * estimate_sigma(noise))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.full((9, 9), np.nan), {}, "image contains NaN or infinity"),
        (np.full((9, 9), np.inf), {}, "image contains NaN or infinity"),
        (np.ones((9, 9), complex), {}, "real numbers, got dtype complex128"),
        (np.ones((9, 9, 4)), {}, "alpha channel"),
        (np.ones((0, 4)), {}, "no empty one"),
        (np.float64(3), {}, "at least one axis"),
        (np.ones((1, 1)), {}, "at least 2 entries"),
        (np.ma.masked_array(np.ones((9, 9))), {}, "masked array"),
        (np.ones((9, 9)), {"channels": "last"}, "'channels' parameter"),
    ],
)
def test_bad_input(image, options, message):
    with pytest.raises(ValueError, match=message):
        estimate_sigma(image, **options)
