"""SparseImageEncoder against the same pipeline written out slowly, and as a citizen of scikit-learn."""

import pickle
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator

from sparseshare import MiniBatchDictionaryLearning, sparse_encode
from sparseshare.image import PatchGrid, SparseImageEncoder, ZCAWhitening
from sparseshare.image.quantization import VectorQuantizer

pytestmark = [
    # Some checks fit with a DataFrame and transform an array on purpose.
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    pytest.mark.filterwarnings("ignore:X has feature names:UserWarning"),
]


def small(**options):
    options = {"n_components": 12, "patch_shape": 3, "n_patches": 2000, "max_iter": 5, "random_state": 0} | options
    return SparseImageEncoder(**options)


def slow_codes(encoder, image):
    """Codes of one image's patches, signs apart: (rows, columns, n_signs, n_components)."""
    image = image.astype(np.float64)
    channels = image.shape[2] if image.ndim == 3 else None
    grid = PatchGrid(image.shape[:2], encoder.patch_shape, encoder.stride, channels)
    patches = grid.extract(image)
    if encoder.contrast_epsilon_ is not None:
        patches = patches - patches.mean(axis=1, keepdims=True)
        patches /= np.sqrt((patches**2).mean(axis=1, keepdims=True) + encoder.contrast_epsilon_)
    if encoder.whitening_ is not None:
        patches = (patches - encoder.whitening_.mean_) @ encoder.whitening_.whitening_
    atoms = encoder.components_.astype(np.float64)
    if encoder.encoding == "triangle":
        distances = np.linalg.norm(patches[:, None] - atoms, axis=2)
        return np.maximum(distances.mean(axis=1, keepdims=True) - distances, 0).reshape(*grid.grid_shape, 1, -1)
    if encoder.dictionary == "kmeans":
        atoms = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    if encoder.encoding == "threshold":
        codes = patches @ atoms.T
        codes = np.sign(codes) * np.maximum(abs(codes) - encoder.alpha, 0)
    elif encoder.encoding == "lasso":
        codes = sparse_encode(patches, atoms, alpha=encoder.alpha)
    else:
        codes = sparse_encode(patches, atoms, algorithm="omp", n_nonzero_coefs=encoder.n_nonzero_coefs)
    signs = np.stack([np.maximum(codes, 0), np.maximum(-codes, 0)], axis=1)
    return signs.reshape(*grid.grid_shape, 2, -1)


def slow_features(encoder, images):
    rows = []
    for image in images:
        codes, row = slow_codes(encoder, image), []
        height, width = codes.shape[:2]
        levels = encoder.grid if isinstance(encoder.grid, list) else [encoder.grid]
        for level in levels:
            r, c = (level, level) if isinstance(level, int) else level
            for i in range(r):
                for j in range(c):
                    cell = codes[i * height // r : (i + 1) * height // r, j * width // c : (j + 1) * width // c]
                    pooled = getattr(np, encoder.pooling)(cell, axis=(0, 1))
                    if len(pooled) == 2 and not encoder.split_sign:
                        plus, minus = pooled
                        pooled = np.where(plus >= minus, plus, -minus) if encoder.pooling == "max" else plus - minus
                    row.append(pooled.ravel())
        rows.append(np.concatenate(row))
    return np.array(rows)


def slow_maps(encoder, image):
    codes = slow_codes(encoder, image)
    if codes.shape[2] == 2 and not encoder.split_sign:
        codes = codes[:, :, :1] - codes[:, :, 1:]
    return np.moveaxis(codes.reshape(*codes.shape[:2], -1), -1, 0)


@pytest.fixture
def images(rng):
    return rng.uniform(0, 255, (6, 11, 9))


@settings(max_examples=40)
@given(
    st.sampled_from(["threshold", "lasso", "omp", "triangle"]),
    st.sampled_from(["sum", "mean", "max"]),
    st.sampled_from([1, 2, (2, 3), [1, (3, 2)]]),
    st.booleans(),
    st.sampled_from([1, (2, 1)]),
    st.sampled_from([None, 3]),
    st.sampled_from(["auto", None]),
    st.sampled_from(["zca", None]),
)
def test_features_are_those_of_the_slow_pipeline(encoding, pooling, grid, split, stride, channels, contrast, whitening):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (5, 11, 9) if channels is None else (5, 11, 9, channels))
    encoder = small(
        encoding=encoding, pooling=pooling, grid=grid, split_sign=split, stride=stride, contrast_epsilon=contrast,
        whitening=whitening, patch_shape=(3, 2), n_nonzero_coefs=2, dictionary="random",
    ).fit(images)  # fmt: skip
    features = encoder.transform(images)
    assert_allclose(features, slow_features(encoder, images), rtol=1e-6, atol=1e-6)
    assert features.shape[1] == len(encoder.get_feature_names_out())
    maps = encoder.encode(images[:2])
    for number in range(2):
        assert_allclose(maps[number], slow_maps(encoder, images[number]), rtol=1e-6, atol=1e-6)
    sparse = clone(encoder).set_params(sparse_output=True).fit(images)
    rows, codes = sparse.transform(images), sparse.encode(images[:2])
    assert issparse(rows) and issparse(codes) and codes.has_sorted_indices
    assert_array_equal(rows.toarray(), features)
    assert_array_equal(codes.toarray(), np.moveaxis(maps, 1, -1).reshape(codes.shape))


@pytest.mark.parametrize("encoding", ["threshold", "lasso", "omp", "triangle"])
def test_bits_do_not_depend_on_threads_or_neighbours(encoding, dtype):
    images = load_digits().images[:700].astype(dtype)  # 36 patches each: several parts, several tiles
    encoder = small(encoding=encoding, n_components=20, n_jobs=1).fit(images)
    features = encoder.transform(images)
    assert features.dtype == dtype == encoder.components_.dtype
    assert_array_equal(encoder.set_params(n_jobs=3).transform(images), features)
    assert_array_equal(encoder.transform(images[300:301]), features[300:301])
    assert_array_equal(encoder.transform(list(images[5:400])), features[5:400])
    assert_array_equal(encoder.transform(images.reshape(700, 64)), features)
    again = clone(encoder).fit(images)
    assert_array_equal(again.components_, encoder.components_)
    assert_allclose(features[:3], slow_features(encoder, images[:3]), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("encoding", "pooling"), [("threshold", "sum"), ("omp", "mean"), ("triangle", "max")])
def test_large_images_come_in_bands(rng, encoding, pooling):
    image = rng.uniform(0, 255, (150, 131))  # 18,241 patches
    small_one = rng.uniform(0, 255, (20, 30))
    encoder = small(encoding=encoding, pooling=pooling, grid=[1, 2, 3], n_nonzero_coefs=2, n_jobs=1, stride=(1, 1))
    encoder.fit([image, small_one])
    assert encoder.image_shape_ is None
    features = encoder.transform([small_one, image, small_one])
    assert_allclose(features, slow_features(encoder, [small_one, image, small_one]), rtol=1e-6)
    encoder.n_jobs = 3
    assert_array_equal(encoder.transform([image, small_one]), features[1:])
    maps = encoder.encode([image, small_one])
    for each, of in zip(maps, (image, small_one), strict=True):
        assert_allclose(each, slow_maps(encoder, of), rtol=1e-6, atol=1e-6)
    encoder.sparse_output = True
    assert_array_equal(encoder.transform([small_one, image, small_one]).toarray(), features)


def test_dictionaries_of_every_kind(capsys):
    images = load_digits().images[:100].astype(np.float32)
    learned = small(verbose=True).fit(images)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(learned.loss_curve_) == 5 and re.match(
        r"\[VectorQuantizer\] epoch 1/5: loss", printed[0]
    )
    assert_allclose(np.linalg.norm(learned.components_, axis=1), 1, rtol=1e-6)
    random = small(dictionary="random").fit(images)
    assert_allclose(np.linalg.norm(random.components_, axis=1), 1, rtol=1e-6)
    assert random.loss_curve_ == []
    for name in ("kmeans", "gain_shape"):
        assert len(small(dictionary=name).fit(images).loss_curve_) == 5
    kmeans = small(dictionary="kmeans").fit(images)
    assert_allclose(kmeans.transform(images[:2]), slow_features(kmeans, images[:2]), rtol=1e-3, atol=1e-3)
    learner = MiniBatchDictionaryLearning(7, alpha=0.5, max_iter=2, random_state=0)
    estimator = small(dictionary=learner).fit(images)
    assert estimator.components_.shape == (7, 9) and not hasattr(learner, "components_")
    assert_array_equal(estimator.learner_.components_, estimator.components_)
    assert estimator.loss_curve_ == estimator.learner_.loss_curve_
    frozen = small(dictionary=FrozenEstimator(estimator.learner_), whitening=FrozenEstimator(estimator.whitening_))
    frozen = clone(frozen).set_params(contrast_epsilon=estimator.contrast_epsilon_).fit(images[50:] + 1)
    assert_array_equal(frozen.transform(images), estimator.transform(images))
    given_ = small(dictionary=estimator.components_.tolist(), whitening=ZCAWhitening(0.5)).fit(images)
    assert_array_equal(given_.components_, estimator.components_)
    assert given_.whitening_.epsilon == 0.5


def test_batches():
    images = load_digits().images
    encoder = small(n_components=20)
    first = encoder.partial_fit(images[:300]).whitening_.whitening_.copy()
    for _ in range(2):
        encoder.partial_fit(images[300:])
    encoder.partial_fit(images[:300])
    assert len(encoder.loss_curve_) == 4 and encoder.loss_curve_[-1] < encoder.loss_curve_[0]
    assert_array_equal(encoder.whitening_.whitening_, first)  # atoms would not be for patches whitened otherwise
    assert_allclose(np.linalg.norm(encoder.components_, axis=1), 1)
    fitted = small(n_components=20).fit(images)
    losses = len(fitted.loss_curve_)
    assert len(fitted.partial_fit(images[:100]).loss_curve_) == losses + 1
    for dictionary in ("kmeans", "random", np.eye(9)):
        encoder = small(dictionary=dictionary).partial_fit(images[:50])
        before = encoder.components_.copy()
        encoder.partial_fit(images[50:100])
        assert np.array_equal(encoder.components_, before) == (
            not isinstance(dictionary, str) or dictionary == "random"
        )
    online = small(dictionary=MiniBatchDictionaryLearning(5, random_state=0))
    assert online.partial_fit(images[:50]).partial_fit(images[50:80]).learner_.n_steps_ == 2
    with pytest.raises(ValueError, match="partial_fit needs a 'dictionary' that has it, LinearSVC has not"):
        small(dictionary=LinearSVC()).partial_fit(images[:50])
    with pytest.raises(ValueError, match="'dictionary' parameter: StandardScaler learned no components_"):
        small(dictionary=StandardScaler()).fit(images[:50])


def test_a_search_learns_once_a_fold(tmp_path, monkeypatch):
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300]
    fits = []
    fit = VectorQuantizer.fit
    monkeypatch.setattr(VectorQuantizer, "fit", lambda self, *args: fits.append(1) or fit(self, *args))
    pipeline = make_pipeline(small(memory=str(tmp_path)), StandardScaler(), LinearSVC())
    grid = {"sparseimageencoder__alpha": [0.1, 0.5], "sparseimageencoder__pooling": ["sum", "max"]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert len(fits) == 3  # two folds, and all
    assert search.score(X, y) > 0.95
    plain = clone(search.best_estimator_).set_params(sparseimageencoder__memory=None).fit(X, y)
    assert_array_equal(plain[0].components_, search.best_estimator_[0].components_)


def test_pickles_clones_and_frames(images):
    encoder = small().fit(images)
    features = encoder.transform(images)
    copy = pickle.loads(pickle.dumps(encoder))
    assert_array_equal(copy.transform(images), features)
    assert clone(encoder).get_params() == encoder.get_params()
    assert not hasattr(clone(encoder), "components_")
    frame = clone(encoder).set_output(transform="pandas").fit(images).transform(images)
    assert frame.columns.tolist() == encoder.get_feature_names_out().tolist()
    assert frame.columns[[0, 12, 24]].tolist() == ["atom0+_2x2_0_0", "atom0-_2x2_0_0", "atom0+_2x2_0_1"]
    assert_array_equal(frame.to_numpy(), features)
    names = small(split_sign=False, grid=[1, (1, 2)]).fit(images).get_feature_names_out()
    assert names[[0, 12, 35]].tolist() == ["atom0_1x1_0_0", "atom0_1x2_0_0", "atom11_1x2_0_1"]


def test_memory_does_not_grow_with_images():
    encoder = small(n_components=50, n_jobs=1, grid=1).fit(load_digits().images)
    peaks = []
    for n in (500, 4000):
        images = np.resize(load_digits().images, (n, 8, 8))
        encoder.transform(images[:10])
        tracemalloc.start()
        features = encoder.transform(images)
        peaks.append(tracemalloc.get_traced_memory()[1] - features.nbytes)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000  # 144,000 patches times 50 atoms would be 58 MB


# Every check brings data of its own width: 3 columns if not listed here.
WIDTHS = {
    "check_fit2d_1feature": 1,
    "check_estimators_fit_returns_self": 2,
    "check_estimators_overwrite_params": 2,
    "check_fit_check_is_fitted": 2,
    "check_fit_idempotent": 2,
    "check_n_features_in": 2,
    "check_readonly_memmap_input": 2,
    "check_n_features_in_after_fitting": 4,
    "check_positive_only_tag_during_fit": 4,
    "check_estimators_dtypes": 5,
    "check_global_output_transform_pandas": 5,
    "check_set_output_transform": 5,
    "check_set_output_transform_pandas": 5,
    "check_transformers_unfitted_stateless": 5,
    "check_dataframe_column_names_consistency": 8,
    "check_dtype_object": 10,
    "check_fit2d_1sample": 10,
    "check_estimators_partial_fit_n_features": 2,
    "check_dict_unchanged": 3,
}
LEFT_OUT = [
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_get_feature_names_out_error",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_dataframe_column_names_consistency",
    "check_inplace_ensure_writeable",
    "check_estimators_partial_fit_n_features",
]


def one_line(width):
    """An encoder of images of one line, so that any number of columns will do."""
    return SparseImageEncoder(
        3, patch_shape=(1, min(2, width)), image_shape=(1, width), grid=1, max_iter=2, random_state=0
    )


def name_of(check):
    return getattr(check, "func", check).__name__


@pytest.mark.parametrize("check", [check for _, check in estimator_checks_generator(one_line(3))], ids=name_of)
def test_common_checks(check):
    check(one_line(WIDTHS.get(name_of(check), 3)))


@pytest.mark.parametrize("name", LEFT_OUT)
def test_checks_that_the_suite_leaves_out(name):
    getattr(estimator_checks, name)("SparseImageEncoder", one_line(WIDTHS.get(name, 3)))
