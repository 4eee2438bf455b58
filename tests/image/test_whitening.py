"""Contrast normalisation and whitening against their definitions, and back again."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparseshare.image import ContrastNormalization, ZCAWhitening

pytestmark = [
    # Some checks fit with a DataFrame and transform an array on purpose.
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    pytest.mark.filterwarnings("ignore:X has feature names:UserWarning"),
]


@parametrize_with_checks([ContrastNormalization(), ZCAWhitening()])
def test_common_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", [ContrastNormalization(), ZCAWhitening()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "name",
    [
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
        "check_set_output_transform_pandas",
        "check_set_output_transform_polars",
        "check_dataframe_column_names_consistency",
        "check_inplace_ensure_writeable",
    ],
)
def test_checks_that_the_suite_leaves_out(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, clone(estimator))


def slow_normalized(X, epsilon):
    return np.array([(x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + epsilon) for x in X.astype(np.float64)])


@pytest.fixture
def patches(rng, dtype):
    return (rng.uniform(0, 255, (300, 12)) * rng.uniform(0, 1, (300, 1))).astype(dtype)


def tolerance(dtype):
    return 1e-10 if dtype == np.float64 else 2e-4


@pytest.mark.parametrize("epsilon", [0, 0.1, 10])
def test_contrast_is_what_the_formula_says(patches, epsilon, dtype):
    normalization = ContrastNormalization(epsilon)
    rows = normalization.fit_transform(patches)
    assert rows.dtype == dtype
    assert_allclose(rows, slow_normalized(patches, epsilon), atol=tolerance(dtype))
    means, scales = normalization.statistics(patches)
    assert_allclose(means, patches.mean(axis=1, dtype=np.float64), rtol=1e-6)
    assert_allclose(scales**2, patches.var(axis=1, dtype=np.float64) + epsilon, rtol=1e-5)
    back = normalization.inverse_transform(rows, means, scales)
    assert back.dtype == dtype
    assert_allclose(back, patches, atol=255 * tolerance(dtype))


def test_contrast_comes_back_from_the_rows_alone(patches, dtype):
    normalization = ContrastNormalization(10)
    means, _ = normalization.statistics(patches)
    rows = normalization.transform(patches)
    assert_allclose(normalization.inverse_transform(rows, means), patches, atol=255 * tolerance(dtype))
    centred = patches - means[:, None]
    assert_allclose(normalization.inverse_transform(rows), centred, atol=255 * tolerance(dtype))


@given(st.floats(-1e6, 1e6), st.integers(1, 40), st.sampled_from([0, 1e-4, 10]), st.sampled_from(["f4", "f8"]))
def test_constant_rows_become_exact_zeros(value, n_features, epsilon, dtype):
    X = np.full((2, n_features), value, dtype)
    assert_array_equal(ContrastNormalization(epsilon).transform(X), 0)
    whitened = ZCAWhitening().fit_transform(X)
    assert_allclose(whitened, 0, atol=1e-5 * max(abs(value), 1))
    assert np.isfinite(ZCAWhitening(0).fit_transform(X)).all()


def test_what_cannot_be_undone_is_said(patches):
    rows = ContrastNormalization(0).transform(patches)
    with pytest.raises(ValueError, match="with epsilon=0 the contrast is lost: give scales"):
        ContrastNormalization(0).inverse_transform(rows)
    with pytest.raises(ValueError, match="row 1 of X has variance 4; rows from transform have less than 1"):
        ContrastNormalization().inverse_transform([[0.0, 0], [2, -2]])
    for name in ("means", "scales"):
        with pytest.raises(ValueError, match=rf"{name} must have one number a row, shape \(300,\), got shape \(2,\)"):
            ContrastNormalization().inverse_transform(rows, **{name: [1, 2]})


def test_whitening_is_what_the_formula_says(patches, dtype):
    whitening = ZCAWhitening(0.1)
    X = ContrastNormalization().transform(patches)
    rows = whitening.fit(X).transform(X)
    assert rows.dtype == dtype and whitening.whitening_.dtype == np.float64
    values, vectors = np.linalg.eigh(np.cov(X.T.astype(np.float64), bias=True))
    expected = (X - X.mean(axis=0)) @ (vectors / np.sqrt(values + 0.1)) @ vectors.T
    assert_allclose(rows, expected, atol=tolerance(dtype))
    assert_allclose(whitening.inverse_transform(rows), X, atol=tolerance(dtype))
    assert_allclose(whitening.whitening_ @ whitening.coloring_, np.eye(12), atol=1e-10)


def test_no_epsilon_leaves_out_directions_without_variance(rng):
    X = ContrastNormalization(0).transform(rng.normal(size=(500, 6)))  # rows sum to 0: rank 5
    whitening = ZCAWhitening(0).fit(X)
    rows = whitening.transform(X)
    values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
    assert_allclose(values, [0, 1, 1, 1, 1, 1], atol=1e-10)
    assert_allclose(whitening.inverse_transform(rows), X, atol=1e-10)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(0, 100))
def test_batches_add_up_to_one_fit(lengths, seed):
    X = np.random.default_rng(seed).normal(size=(sum(lengths), 4)) + 100
    parts = ZCAWhitening()
    for batch in np.split(X, np.cumsum(lengths)[:-1]):
        parts.partial_fit(batch)
    whole = ZCAWhitening().fit(X)
    assert parts.n_samples_seen_ == whole.n_samples_seen_ == len(X)
    for name in ("mean_", "covariance_", "whitening_"):
        assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-9)


def test_a_fit_forgets_and_blocks_do_not_show(rng):
    X = rng.normal(size=(10_000, 3))  # more than one block
    whitening = ZCAWhitening().fit(rng.normal(size=(50, 3)) + 5).fit(X)
    assert whitening.n_samples_seen_ == len(X)
    assert_allclose(whitening.covariance_, np.cov(X.T, bias=True), atol=1e-12)
    assert_allclose(whitening.transform(X), (X - X.mean(axis=0)) @ whitening.whitening_, atol=1e-12)
    copy = pickle.loads(pickle.dumps(whitening))
    assert_array_equal(copy.transform(X), whitening.transform(X))


@pytest.mark.parametrize("estimator", [ContrastNormalization, ZCAWhitening])
@pytest.mark.parametrize("wrong", [-0.1, np.nan, "a", None])
def test_a_wrong_epsilon_is_refused(estimator, wrong):
    with pytest.raises(ValueError, match=f"'epsilon' parameter of {estimator.__name__} must be a finite number"):
        estimator(wrong).fit(np.eye(3))


@pytest.mark.parametrize("estimator", [ContrastNormalization(), ZCAWhitening()])
def test_overflow_is_an_error(estimator):
    with pytest.raises(ValueError, match="values whose squares overflow"):
        estimator.fit_transform(np.array([[1e200, 0], [0, 1e200]]))
