"""Denoising against a slow version written out patch by patch, against pictures that are known, and at its edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from reference import omp
from sparseshare.image import denoise_image, estimate_sigma
from sparseshare.image.restoration import overcomplete_cosines


def picture(shape=(64, 64), levels=255.0):
    """Stripes, a disc and a slope."""
    places = np.indices(shape)
    stripes = places[0] % 16 < 8
    disc = sum((p - n / 2) ** 2 for p, n in zip(places, shape, strict=True)) < (min(shape) / 3) ** 2
    return levels * (0.4 * stripes + 0.4 * disc + 0.2 * places[-1] / shape[-1])


def noisy_picture(sigma, *shape, dtype=np.float64):
    clean = picture(shape)
    return clean, (clean + sigma * np.random.default_rng(0).standard_normal(shape)).astype(dtype)


def slow_denoise(noisy, sigma, dictionary, patch, gain, weight, n_channels=1):
    """Equations 4 and 8 of the paper with a fixed dictionary, one patch after the other."""
    axes = noisy.ndim - (n_channels > 1)
    total, counts = np.zeros(noisy.shape), np.zeros(noisy.shape)
    for place in np.ndindex(*(length - patch + 1 for length in noisy.shape[:axes])):
        box = tuple(slice(start, start + patch) for start in place)
        x = noisy[box].reshape(-1, n_channels)
        mean = x.mean(axis=0)
        code = omp((x - mean).ravel(), dictionary, max_error=x.size * (gain * sigma) ** 2)
        total[box] += ((code @ dictionary).reshape(-1, n_channels) + mean).reshape(noisy[box].shape)
        counts[box] += 1
    return (weight * noisy + total) / (weight + counts)


@pytest.mark.parametrize(
    ("shape", "patch", "n_channels"), [((60,), 8, 1), ((14, 13), 4, 1), ((8, 7, 9), 3, 1), ((9, 10, 3), 4, 3)]
)
def test_the_same_as_patch_by_patch(shape, patch, n_channels):
    rng = np.random.default_rng(0)
    noisy = rng.standard_normal(shape)
    dictionary = rng.standard_normal((40, patch ** (len(shape) - (n_channels > 1)) * n_channels))
    unit = dictionary / np.linalg.norm(dictionary, axis=1, keepdims=True)
    options = dict(channels=n_channels > 1, patch_shape=patch, dictionary=dictionary, gain=1.1, weight=0.7)
    ours, used = denoise_image(noisy, 0.5, **options, return_dictionary=True)
    assert_allclose(used, unit)
    assert_allclose(ours, slow_denoise(noisy, 0.5, unit, patch, 1.1, 0.7, n_channels), atol=1e-10)


@pytest.mark.parametrize("shape", [(3000,), (64, 64), (64, 64, 3), (20, 21, 22)])
def test_noise_falls(shape):
    sigma = 20
    clean = np.repeat(picture(shape[:2])[..., None], 3, axis=2) if shape[-1] == 3 else picture(shape)
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(shape)
    denoised = denoise_image(noisy, sigma, max_iter=5, random_state=0)
    assert np.std(denoised - clean) < 0.5 * sigma


def test_learning_beats_the_cosines_and_estimated_noise_does_as_well():
    clean, noisy = noisy_picture(20, 96, 96)
    errors = [
        np.std(denoise_image(noisy, sigma, max_iter=max_iter, random_state=0) - clean)
        for sigma, max_iter in [(20, 0), (20, 10), (None, 10)]
    ]
    assert errors[1] < 0.95 * errors[0]
    assert_allclose(errors[2], errors[1], rtol=0.1)
    assert_allclose(
        denoise_image(noisy, max_iter=1, random_state=0),
        denoise_image(noisy, estimate_sigma(noisy), max_iter=1, random_state=0),
    )


def test_colours_help_each_other():
    clean = np.stack([picture() * factor for factor in (1, 0.8, 0.6)], axis=-1)
    noisy = clean + 25 * np.random.default_rng(1).standard_normal(clean.shape)
    together = denoise_image(noisy, 25, random_state=0)
    apart = np.stack([denoise_image(noisy[..., c], 25, random_state=0) for c in range(3)], axis=-1)
    assert np.std(together - clean) < 0.9 * np.std(apart - clean)


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3), st.integers(0, 100))
def test_units_do_not_matter(scale, offset, seed):
    noisy = np.random.default_rng(seed).standard_normal((20, 24)).cumsum(axis=0)
    plain = denoise_image(noisy, 0.8, max_iter=0)
    moved = denoise_image(scale * (noisy + offset), 0.8 * scale, max_iter=0)
    assert_allclose(moved / scale - offset, plain, atol=1e-6)


def test_dtypes():
    clean, noisy = noisy_picture(10, 40, 40)
    single = denoise_image(noisy.astype(np.float32), 10, max_iter=2, random_state=0)
    double = denoise_image(noisy, 10, max_iter=2, random_state=0)
    assert single.dtype == np.float32 and double.dtype == np.float64
    assert_allclose(single, double, atol=2)
    levels = np.clip(noisy, 0, 255).astype(np.uint8)
    from_levels = denoise_image(levels, 10, max_iter=2, random_state=0)
    assert from_levels.dtype == np.float64 and np.std(from_levels - clean) < 8
    assert_array_equal(from_levels, denoise_image(levels.astype(float), 10, max_iter=2, random_state=0))


def test_the_same_for_every_number_of_threads_and_random_state():
    _, noisy = noisy_picture(15, 80, 90, dtype=np.float32)
    options = dict(max_iter=3, max_patches=500, random_state=3)
    one = denoise_image(noisy, 15, n_jobs=1, **options)
    assert_array_equal(denoise_image(noisy, 15, n_jobs=4, **options), one)
    assert not np.array_equal(denoise_image(noisy, 15, **options | {"random_state": 4}), one)


def test_many_tiles_are_as_one(monkeypatch):
    _, noisy = noisy_picture(15, 40, 50)
    whole = denoise_image(noisy, 15, max_iter=1, random_state=0, max_patches=10**6)
    monkeypatch.setattr("sparseshare.image.denoising.TILE", 97)
    assert_allclose(denoise_image(noisy, 15, max_iter=1, random_state=0, max_patches=10**6), whole, atol=1e-9)


def test_input_is_left_alone():
    _, noisy = noisy_picture(15, 30, 30)
    noisy.flags.writeable = False
    dictionary = overcomplete_cosines((8, 8), 100)
    before = dictionary.copy()
    _, used = denoise_image(noisy, 15, dictionary=dictionary, max_iter=2, return_dictionary=True)
    assert_array_equal(dictionary, before)
    assert not np.allclose(used, before)
    assert denoise_image(noisy[::-1, ::2], 15, max_iter=0).shape == (30, 15)


def test_a_learned_dictionary_can_be_used_again():
    _, noisy = noisy_picture(15, 40, 40)
    image, dictionary = denoise_image(noisy, 15, n_components=70, random_state=0, return_dictionary=True)
    assert dictionary.shape == (70, 64)
    assert_allclose(np.linalg.norm(dictionary, axis=1), 1)
    assert_allclose(denoise_image(noisy, 15, dictionary=dictionary), image, atol=1e-9)


@pytest.mark.parametrize("sigma", [0, 1e-15])
def test_no_noise_nothing_to_remove(sigma):
    clean = picture((20, 20))
    image, dictionary = denoise_image(clean, sigma, return_dictionary=True)
    assert_array_equal(image, clean)
    assert image is not clean and not np.shares_memory(image, clean)
    assert dictionary.shape == (256, 64)


def test_little_noise_changes_little():
    clean = picture((24, 24))
    denoised = denoise_image(clean, 0.01, random_state=0)
    assert_allclose(denoised, clean, atol=0.05)


@pytest.mark.parametrize("sigma", [None, 0, 5])
@pytest.mark.parametrize("value", [0, 0.1, 255])
def test_constant_images_stay(sigma, value):
    constant = np.full((12, 12), float(value))
    image, dictionary = denoise_image(constant, sigma, return_dictionary=True)
    assert_allclose(image, constant, rtol=1e-12)
    assert np.isfinite(dictionary).all()


def test_an_image_of_one_patch():
    noisy = np.random.default_rng(0).standard_normal((8, 8))
    assert np.isfinite(denoise_image(noisy, 0.5, random_state=0)).all()


def test_progress_is_told(capsys):
    _, noisy = noisy_picture(15, 40, 40)
    told = []
    denoise_image(noisy, max_iter=3, random_state=0, verbose=True, callback=told.append)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[denoise_image] sigma is estimated at 1")
    assert [line.split(":")[0] for line in lines[1:4]] == [f"[denoise_image] epoch {k}/3" for k in (1, 2, 3)]
    assert lines[4].startswith("[denoise_image] 1089/1089 patches coded")
    assert [entry["stage"] for entry in told] == ["learn"] * 3 + ["code"]
    assert told[0]["loss"] > 0 and told[0]["dictionary"].shape == (256, 64)
    assert told[-1]["step"] == told[-1]["n_steps"] == 33 * 33


def test_a_callback_ends_learning():
    _, noisy = noisy_picture(15, 40, 40)
    told = []

    def stop(state):
        told.append(state["stage"])
        return True

    stopped = denoise_image(noisy, 15, random_state=0, callback=stop)
    assert told == ["learn", "code"]
    assert_array_equal(stopped, denoise_image(noisy, 15, max_iter=1, random_state=0))


@pytest.mark.parametrize("patch_shape", [(8, 8), (4, 6), (3, 3, 3), (16,), (1, 5)])
@pytest.mark.parametrize("n_components", [1, 7, 64, 256])
def test_cosines(patch_shape, n_components):
    atoms = overcomplete_cosines(patch_shape, n_components)
    assert atoms.shape == (n_components, np.prod(patch_shape))
    assert_allclose(np.linalg.norm(atoms[:1], axis=1), 1)
    norms = np.linalg.norm(atoms, axis=1)
    assert np.all(np.isclose(norms, 1) | (norms == 0))
    assert_allclose(atoms[1:].mean(axis=1), 0, atol=1e-12)


def test_cosines_are_those_of_the_paper():
    along = np.cos(np.outer(np.arange(8), np.arange(16)) * np.pi / 16)
    along[:, 1:] -= along[:, 1:].mean(axis=0)
    along /= np.linalg.norm(along, axis=0)
    assert_allclose(overcomplete_cosines((8, 8), 256), np.kron(along, along).T, atol=1e-12)


IMAGE = np.ones((10, 10))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.full((9, 9), np.nan), {}, "noisy contains NaN or infinity; inpaint_image fills"),
        (np.full((9, 9), np.inf), {}, "noisy contains NaN or infinity"),
        (np.ones((7, 30)), {}, r"a patch of \(8, 8\) does not fit into an image of \(7, 30\)"),
        (np.ones((10, 10, 4)), {}, "alpha channel"),
        (np.ones((9, 9, 9, 9, 3)), {}, "1 to 3 axes"),
        (np.full((3, 3), "a"), {}, "real numbers"),
        (np.ma.masked_array(IMAGE), {}, "masked array"),
        (IMAGE, {"sigma": -1}, "'sigma' parameter of denoise_image must be a finite number of at least 0"),
        (IMAGE, {"sigma": np.nan}, "'sigma' parameter"),
        (IMAGE, {"sigma": "much"}, "'sigma' parameter"),
        (IMAGE, {"patch_shape": (8, 8, 8)}, "'patch_shape' parameter"),
        (IMAGE, {"patch_shape": 0}, "patch_shape"),
        (IMAGE, {"n_components": 0}, "'n_components' parameter"),
        (IMAGE, {"dictionary": np.ones((5, 63))}, r"atoms of 63 entries, but patches of \(8, 8\) have 64"),
        (IMAGE, {"dictionary": np.full((5, 64), np.nan)}, "dictionary contains NaN"),
        (IMAGE, {"max_iter": -1}, "'max_iter' parameter"),
        (IMAGE, {"max_patches": 0}, "'max_patches' parameter"),
        (IMAGE, {"gain": 0}, "'gain' parameter"),
        (IMAGE, {"weight": -1}, "'weight' parameter"),
        (IMAGE, {"verbose": 2}, "'verbose' parameter"),
        (IMAGE, {"return_dictionary": None}, "'return_dictionary' parameter"),
        (IMAGE, {"callback": 3}, "'callback' parameter"),
        (IMAGE, {"channels": 1}, "'channels' parameter"),
        (IMAGE, {"device": "tpu"}, "'device' parameter"),
        (IMAGE, {"sigma": 1, "n_jobs": 0}, "'n_jobs' parameter"),
        (IMAGE, {"sigma": 1, "random_state": "a"}, "cannot be used to seed"),
    ],
)
def test_bad_input(image, options, message):
    with pytest.raises(ValueError, match=message):
        denoise_image(image, **options)
