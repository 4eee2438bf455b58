"""Image estimators on a GPU against the CPU: NumPy and CuPy in, pieces, lists, pipelines, pickles, moves."""

import pickle

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from sparseshare.image import (
    ContrastNormalization,
    PatchExtractor,
    PatchGrid,
    SparseImageEncoder,
    ZCAWhitening,
    denoise_image,
    estimate_sigma,
    extractor_input,
    inpaint_image,
    patch_codes,
    row_transformer,
)
from sparseshare.sources import blocks as blocks_of_rows

TOLERANCE = {np.dtype(np.float32): dict(rtol=2e-4, atol=2e-4), np.dtype(np.float64): dict(rtol=1e-9, atol=1e-9)}


def images_of(n=12, shape=(11, 12, 3), dtype=np.float64, seed=0):
    return np.random.default_rng(seed).random((n, *shape)).astype(dtype)


def close(found, expected):
    np.testing.assert_allclose(found, expected, **TOLERANCE[expected.dtype])
    assert found.dtype == expected.dtype


def host(gpu, codes):
    codes = codes.get() if hasattr(codes, "get") else codes
    return codes.toarray() if hasattr(codes, "toarray") else codes


ENCODERS = {
    "threshold": {},
    "max": dict(pooling="max", grid=[1, 2], split_sign=False, whitening=None),
    "mean": dict(pooling="mean", grid=(3, 2), split_sign=False, contrast_epsilon=None),
    "triangle": dict(encoding="triangle", dictionary="kmeans", grid=1),
    "omp": dict(encoding="omp", n_nonzero_coefs=3),
    "lasso": dict(encoding="lasso", dictionary="random"),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_are_those_of_the_cpu(gpu, name, dtype):
    parameters = dict(n_components=7, patch_shape=4, max_iter=5, n_patches=300, random_state=0) | ENCODERS[name]
    X = images_of(3 if name == "lasso" else 5, (8, 9, 3), dtype)
    expected = SparseImageEncoder(**parameters).fit(X)
    features = expected.transform(X)
    moved = SparseImageEncoder(**parameters, device="cuda").fit(X)
    resident = SparseImageEncoder(**parameters).fit(gpu.asarray(X))
    for encoder, images, kind in ((moved, X, np.ndarray), (resident, gpu.asarray(X), gpu.xp.ndarray)):
        assert type(encoder.components_) is kind
        found = encoder.transform(images)
        assert type(found) is kind
        close(host(gpu, encoder.components_), expected.components_)
        close(host(gpu, found), features)
        encoder.set_params(sparse_output=True)
        close(host(gpu, encoder.transform(images)), features)
        expected.set_params(sparse_output=True)
        close(host(gpu, encoder.encode(images)), expected.encode(X).toarray())
        encoder.set_params(sparse_output=False)
        expected.set_params(sparse_output=False)
        close(host(gpu, encoder.encode(images)), expected.encode(X))


def test_pieces_lists_and_large_images(gpu, monkeypatch, tmp_path):
    """Small pieces: several of them, and images in bands of rows; the features are those of whole images."""
    X = images_of(9)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    parameters = dict(n_components=6, patch_shape=4, max_iter=2, n_patches=200, random_state=0, grid=[1, 2])
    expected = SparseImageEncoder(**parameters).fit(X)
    features = expected.transform(X)
    encoder = SparseImageEncoder(**parameters, device="cuda").fit(X)
    several = [X[0], X[1, :7, :8], X[2, :7, :8], X[3]]
    of_several = expected.transform(several)
    for entries in (2**27, 2**13, 2**11):
        monkeypatch.setattr(patch_codes, "_PIECE_ENTRIES", entries)
        close(encoder.transform(X), features)
        close(encoder.transform(mapped), features)
        close(encoder.transform(several), of_several)
        close(host(gpu, expected.set_params(device="cuda").transform(X)), features)
        for found, maps in zip(encoder.encode(several), expected.set_params(device="cpu").encode(several), strict=True):
            close(found, maps)
    resident = SparseImageEncoder(**parameters).fit([gpu.asarray(image) for image in X])
    found = resident.transform([gpu.asarray(image) for image in several])
    assert isinstance(found, gpu.xp.ndarray)
    close(host(gpu, found), of_several)


@pytest.mark.parametrize("kind", ["uint8", "bool", "rows", "strided"])
def test_other_kinds_of_images(gpu, kind):
    X = images_of(8, (9, 9))
    if kind == "rows":
        X = X.reshape(8, -1)
    elif kind == "strided":
        X = np.repeat(X, 2, axis=2)[:, :, ::2]
    else:
        X = (255 * X).astype("uint8") if kind == "uint8" else X > 0.5
    parameters = dict(n_components=5, patch_shape=3, max_iter=2, n_patches=200, random_state=0)
    features = SparseImageEncoder(**parameters).fit_transform(X)
    close(SparseImageEncoder(**parameters, device="cuda").fit_transform(X), features)
    close(host(gpu, SparseImageEncoder(**parameters).fit_transform(gpu.asarray(X))), features)


def test_learning_batch_by_batch(gpu):
    X, parameters = images_of(), dict(n_components=6, patch_shape=4, random_state=0)
    for dictionary in ("gain_shape", "kmeans"):
        expected = SparseImageEncoder(**parameters, dictionary=dictionary)
        found = SparseImageEncoder(**parameters, dictionary=dictionary)
        for batch in (X[:5], X[5:]):
            expected.partial_fit(batch)
            found.partial_fit(gpu.asarray(batch))
        close(host(gpu, found.components_), expected.components_)
        np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-10)


def test_bad_pixels_are_named(gpu):
    X = images_of(6)
    encoder = SparseImageEncoder(5, patch_shape=4, max_iter=1, random_state=0, device="cuda").fit(X)
    X[4, 0, 0, 0] = np.nan
    for images in (X, gpu.asarray(X), [gpu.asarray(image) for image in X]):
        with pytest.raises(ValueError, match="image 4 contains NaN"):
            encoder.transform(images)
        with pytest.raises(ValueError, match="image 4 contains NaN"):
            SparseImageEncoder(5, patch_shape=4, device="cuda").fit(images)


def test_mixed_devices(gpu):
    X = images_of(4)
    encoder = SparseImageEncoder(5, patch_shape=4, max_iter=1, random_state=0).fit(gpu.asarray(X))
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        encoder.transform(X)
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        encoder.fit([X[0], gpu.asarray(X[1])])
    with pytest.raises(RuntimeError, match="device='cpu'"):
        SparseImageEncoder(device="cpu").fit(gpu.asarray(X))


def test_moves_and_pickles(gpu):
    X = images_of()
    encoder = SparseImageEncoder(5, patch_shape=4, max_iter=2, random_state=0).fit(gpu.asarray(X))
    features = host(gpu, encoder.transform(gpu.asarray(X)))
    again = pickle.loads(pickle.dumps(encoder))
    assert type(again.components_) is type(again.whitening_.mean_) is np.ndarray
    close(again.transform(X), features)
    close(again.to_device("cpu").transform(X), features)
    assert isinstance(again.to_device("cuda").whitening_.whitening_, gpu.xp.ndarray)
    close(host(gpu, again.transform(gpu.asarray(X))), features)


def test_pipeline_and_grid_search(gpu):
    X, y = images_of(30, (10, 10), np.float32), np.arange(30) % 2
    X[y == 1, :5] *= 0.2
    encoder = SparseImageEncoder(6, patch_shape=3, max_iter=3, random_state=0, device="cuda")
    pipeline = make_pipeline(encoder, LinearSVC())
    assert pipeline.fit(X, y).score(X, y) > 0.9
    search = GridSearchCV(pipeline, {"sparseimageencoder__alpha": [0.1, 0.5]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_score_ > 0.8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalisation_and_whitening(gpu, dtype):
    X = images_of(dtype=dtype).reshape(48, -1)
    for transformer in (ContrastNormalization(0.1), ZCAWhitening(0.01), ZCAWhitening(0)):
        rows = transformer.fit(X).transform(X)
        back = transformer.inverse_transform(rows)
        resident = type(transformer)(transformer.epsilon).fit(gpu.asarray(X))
        moved = type(transformer)(transformer.epsilon, device="cuda").fit(X)
        for other, signals in ((resident, gpu.asarray(X)), (moved, X)):
            found = other.transform(signals)
            assert type(found) is type(signals)
            close(host(gpu, found), rows)
            close(host(gpu, other.inverse_transform(found)), back)
    means, scales = ContrastNormalization(0.1).statistics(X)
    for signals, device in ((gpu.asarray(X), "auto"), (X, "cuda")):
        found = ContrastNormalization(0.1, device).statistics(signals)
        np.testing.assert_allclose(host(gpu, found[0]), means, rtol=1e-6)
        np.testing.assert_allclose(host(gpu, found[1]), scales, rtol=1e-6)
    with pytest.raises(ValueError, match="NaN or infinity"):
        ZCAWhitening().fit(gpu.asarray(np.where(X == X[3, 3], np.nan, X)))
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        resident.transform(X)


def test_patches_of_a_grid(gpu):
    rng = np.random.default_rng(0)
    for shape, patch, channels in (((40,), 7, None), ((9, 11), (3, 4), 3), ((6, 7, 8), 3, None)):
        grid = PatchGrid(shape, patch, 2, channels)
        for dtype in (np.float32, np.float64):
            image = rng.random(grid.image_shape).astype(dtype)
            there = gpu.asarray(image)
            rows = grid.extract(there, 2)
            np.testing.assert_array_equal(host(gpu, rows), grid.extract(image, 2))
            numbers = rng.permutation(grid.n_patches)[:5]
            np.testing.assert_array_equal(host(gpu, grid.take(there, numbers)), grid.take(image, numbers))
            own = rng.random((grid.n_patches, grid.n_features)).astype(dtype)
            for average in (True, False):
                found = grid.overlap_add(gpu.asarray(own), average=average)
                np.testing.assert_array_equal(host(gpu, found), grid.overlap_add(own, average=average))


def test_extractor(gpu):
    X = images_of(5, (9, 10))
    for parameters in (dict(patch_shape=4, stride=2), dict(patch_shape=(3, 5), max_patches=6, random_state=0)):
        extractor = PatchExtractor(**parameters).fit(X)
        rows, places = extractor.transform(X), extractor.locate(X)
        back = extractor.inverse_transform(rows, locations=places)
        moved, resident = PatchExtractor(**parameters, device="cuda").fit(X), PatchExtractor(**parameters)
        for other, images in ((moved, X), (resident.fit(gpu.asarray(X)), gpu.asarray(X))):
            found = other.transform(images)
            assert type(found) is type(images)
            np.testing.assert_array_equal(host(gpu, found), rows)
            for a, b in zip(other.locate(images), places, strict=True):
                np.testing.assert_array_equal(a, b)
            close(host(gpu, other.inverse_transform(found, locations=places)), back)
            if "stride" in parameters:
                close(host(gpu, other.inverse_transform(found)), extractor.inverse_transform(rows))
            several = [image[:8] for image in images]
            close(host(gpu, other.transform(several)), extractor.transform([image[:8] for image in X]))


def test_results_are_written_as_they_are_made(gpu, monkeypatch, tmp_path):
    """Of what lives on a GPU, and of what is read from disk to be worked on there; some at a time."""
    X = images_of(13, (8, 9), np.float32)
    flat = X.reshape(13, -1)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "flat.npy", flat)
    encoder = dict(n_components=6, patch_shape=4, max_iter=2, n_patches=200, random_state=0)
    cases = [
        (PatchExtractor, dict(patch_shape=3), X, "X"),
        (PatchExtractor, dict(patch_shape=3, max_patches=5, random_state=0), X, "X"),
        (ContrastNormalization, dict(epsilon=0.1), flat, "flat"),
        (ZCAWhitening, dict(epsilon=0.1), flat, "flat"),
        (SparseImageEncoder, encoder, X, "X"),
    ]
    monkeypatch.setattr(patch_codes, "_PIECE_ENTRIES", 2**13)
    monkeypatch.setattr(patch_codes, "_WRITTEN_BYTES", 2**10)
    monkeypatch.setattr(extractor_input, "_PART_BYTES", 4 * X[0].nbytes)
    monkeypatch.setattr(blocks_of_rows, "_FEWEST", 8)
    monkeypatch.setattr(blocks_of_rows, "_MOST", 8)
    monkeypatch.setattr(row_transformer, "_ROWS", 4)
    for make, parameters, images, name in cases:
        expected = make(**parameters).fit(images).transform(images)
        mapped = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        moved, resident = make(**parameters, device="cuda").fit(mapped), make(**parameters).fit(gpu.asarray(images))
        close(moved.transform(mapped), expected)
        for estimator, given in ((moved, mapped), (moved, images), (resident, gpu.asarray(images))):
            out = np.zeros_like(expected)
            assert estimator.transform(given, out=out) is out
            close(out, expected)


NOISY = 100.0 * (np.indices((13, 14)).sum(axis=0) % 12 < 6) + 10 * np.random.default_rng(0).standard_normal((13, 14))


@pytest.mark.parametrize("shape", [(20, 21), (14, 15, 3), (9, 10, 11)])
def test_noise(gpu, shape):
    image = np.random.default_rng(0).standard_normal(shape)
    expected = estimate_sigma(image)
    np.testing.assert_allclose(estimate_sigma(gpu.asarray(image)), expected, rtol=1e-12)
    np.testing.assert_allclose(estimate_sigma(image, device="cuda"), expected, rtol=1e-12)


@pytest.mark.parametrize("options", [dict(max_iter=0, sigma=None), dict(max_iter=2, sigma=10), dict(sigma=0)])
def test_denoising(gpu, options):
    options = dict(n_components=20, patch_shape=4, random_state=0, return_dictionary=True) | options
    expected = denoise_image(NOISY, **options)
    for image, device in ((NOISY, "cuda"), (gpu.asarray(NOISY), "auto")):
        found = denoise_image(image, device=device, **options)
        assert all(type(array) is type(image) for array in found)
        for array, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(host(gpu, array), other, rtol=1e-8, atol=1e-8)


def test_denoising_colours_with_a_dictionary(gpu):
    image = NOISY[:9, :8, None] * np.array([1.0, 0.5, 0.2])
    dictionary = np.random.default_rng(1).standard_normal((30, 48))
    expected = denoise_image(image, 8, dictionary=dictionary, patch_shape=4)
    np.testing.assert_allclose(denoise_image(image, 8, dictionary=dictionary, patch_shape=4, device="cuda"), expected)
    there = denoise_image(gpu.asarray(image), 8, dictionary=gpu.asarray(dictionary), patch_shape=4)
    np.testing.assert_allclose(host(gpu, there), expected)
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        denoise_image(gpu.asarray(image), 8, dictionary=dictionary, patch_shape=4)


@pytest.mark.parametrize("options", [dict(), dict(sigma=5), dict(learn=False)])
def test_inpainting(gpu, options):
    options = dict(n_components=20, patch_shape=4, random_state=0, max_iter=2) | options
    missing = np.random.default_rng(2).random(NOISY.shape) < 0.4
    missing[:4, :5] = True  # a hole
    expected = inpaint_image(NOISY, missing, **options)
    found = inpaint_image(NOISY, missing, device="cuda", **options)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    found = inpaint_image(gpu.asarray(NOISY), gpu.asarray(missing), **options)
    assert isinstance(found, gpu.xp.ndarray)
    np.testing.assert_allclose(host(gpu, found), expected, rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match="every pixel of image is missing"):
        inpaint_image(gpu.asarray(NOISY * np.nan))


def test_inpainting_what_is_nan(gpu):
    image = np.where(np.random.default_rng(2).random((9, 8, 3)) < 0.3, np.nan, NOISY[:9, :8, None])
    options = dict(n_components=30, patch_shape=3, random_state=0, max_iter=2)
    expected = inpaint_image(image, **options)
    np.testing.assert_allclose(inpaint_image(image, device="cuda", **options), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("encoding", ["threshold", "omp"])
def test_more_images_than_memory_and_how_often_the_host_waits(gpu, encoding):
    if gpu.state is None:
        pytest.skip("a real GPU has no counters, and too much memory")
    X = images_of(90, (12, 12, 3))
    parameters = dict(n_components=8, patch_shape=4, encoding=encoding, n_nonzero_coefs=1, n_patches=200, max_iter=2)
    expected = SparseImageEncoder(**parameters, random_state=0).fit(X)
    encoder = SparseImageEncoder(**parameters, random_state=0, device="cuda").fit(X)
    trips = []
    for n_images in (20, 40):  # of one piece
        there = gpu.asarray(X[:n_images])
        gpu.state.trips.clear()
        close(host(gpu, encoder.transform(there)), expected.transform(X[:n_images]))
        trips.append(sum(gpu.state.trips.values()))
    assert trips[0] == trips[1] < 25
    gpu.state.limit = gpu.state.used_bytes + X.nbytes // 2
    close(encoder.transform(X), expected.transform(X))
