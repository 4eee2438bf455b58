"""What all estimators with a dictionary share: codes, reconstruction, score, names, dtypes, persistence."""

import pickle

import numpy as np
import pytest
from learning.learners import learners, name_of
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV

from sparseshare.coding.encode import sparse_encode
from sparseshare.learning import DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder

pytestmark = pytest.mark.filterwarnings("ignore:.*raise max_iter:sklearn.exceptions.ConvergenceWarning")
each = pytest.mark.parametrize("learner", learners(), ids=name_of)


@pytest.fixture
def X(rng):
    return rng.standard_normal((64, 8))


@each
def test_fit_transform_equals_fit_and_transform(learner, X):
    one, two = clone(learner), clone(learner)
    np.testing.assert_array_equal(one.fit_transform(X), two.fit(X).transform(X))


@each
def test_the_default_transform_solves_the_problem_that_was_fitted(learner, X):
    learner = clone(learner).fit(X)
    if name_of(learner) == "KSVD":
        expected = sparse_encode(X, learner.components_, algorithm="omp", n_nonzero_coefs=2)
    else:
        expected = sparse_encode(X, learner.components_, algorithm="lasso_lars", alpha=0.3)
    np.testing.assert_allclose(learner.transform(X), expected, atol=1e-10)


@each
def test_transform_options_override(learner, X):
    learner = clone(learner).set_params(transform_algorithm="omp", transform_n_nonzero_coefs=1).fit(X)
    expected = sparse_encode(X, learner.components_, algorithm="omp", n_nonzero_coefs=1)
    np.testing.assert_array_equal(learner.transform(X), expected)
    learner.set_params(transform_n_nonzero_coefs=None, n_nonzero_coefs=None, transform_max_error=0.5)
    expected = sparse_encode(X, learner.components_, algorithm="omp", max_error=0.5)
    np.testing.assert_array_equal(learner.transform(X), expected)
    learner.set_params(transform_algorithm="lasso_cd", transform_alpha=0.7, transform_max_error=None)
    expected = sparse_encode(X, learner.components_, algorithm="lasso_cd", alpha=0.7)
    np.testing.assert_array_equal(learner.transform(X), expected)


@each
def test_precision_is_kept(learner, X, dtype):
    learner = clone(learner).fit(X.astype(dtype))
    codes = learner.transform(X.astype(dtype))
    assert learner.components_.dtype == codes.dtype == learner.inverse_transform(codes).dtype == dtype
    for options in (dict(sparse_output=True), dict(split_sign=True), dict(split_sign=True, sparse_output=True)):
        other = learner.set_params(**options).transform(X.astype(dtype))
        assert other.dtype == dtype
    assert learner.transform(X.astype(np.float16)).dtype == np.float64
    assert clone(learner).fit((10 * X).astype(int)).components_.dtype == np.float64


@each
def test_sparse_output_and_split_signs(learner, X):
    learner = clone(learner).fit(X)
    codes = learner.transform(X)
    sparse = learner.set_params(sparse_output=True).transform(X)
    assert isinstance(sparse, csr_array)
    np.testing.assert_array_equal(sparse.toarray(), codes)
    np.testing.assert_allclose(learner.inverse_transform(sparse), codes @ learner.components_)
    learner.set_params(split_sign=True)
    split = learner.transform(X)
    assert isinstance(split, csr_array) and (split.data >= 0).all()
    np.testing.assert_array_equal(split.toarray(), np.hstack([np.maximum(codes, 0), np.maximum(-codes, 0)]))
    np.testing.assert_allclose(learner.inverse_transform(split), codes @ learner.components_)
    with pytest.raises(ValueError, match="Expected 12, got 6"):
        learner.inverse_transform(codes)


@each
def test_names_of_output_columns(learner, X):
    prefix = name_of(learner).lower()
    learner = clone(learner).fit(X)
    assert learner.get_feature_names_out().tolist() == [f"{prefix}{i}" for i in range(6)]
    learner.set_params(split_sign=True).set_output(transform="pandas")
    frame = learner.transform(X)
    assert frame.columns.tolist() == [f"{prefix}{i}" for i in range(12)]


@each
def test_score_is_the_explained_variance(learner, X):
    X = X + 3
    learner = clone(learner).fit(X)
    rest = X - learner.inverse_transform(learner.transform(X))
    expected = 1 - (rest**2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    assert learner.score(X) == pytest.approx(expected)
    assert learner.score(csr_array(X)) == pytest.approx(expected)


def test_score_of_constant_signals():
    dictionary = np.eye(3)
    coder = SparseCoder(dictionary, transform_algorithm="omp", transform_n_nonzero_coefs=1)
    assert coder.score(np.tile([[2.0, 0, 0]], (4, 1))) == 1
    assert coder.score(np.tile([[2.0, 1, 0]], (4, 1))) == 0


def test_a_penalty_can_be_searched_for(X):
    search = GridSearchCV(DictionaryLearning(5, max_iter=5, tol=0, random_state=0), {"alpha": [0.1, 1.0]}, cv=2).fit(X)
    assert search.best_params_ == {"alpha": 0.1}


@each
def test_sparse_and_mapped_signals(learner, X, tmp_path):
    X = np.where(np.abs(X) > 0.8, X, 0)
    expected = clone(learner).fit(X)
    sparse = clone(learner).fit(csr_array(X))
    np.testing.assert_allclose(sparse.components_, expected.components_, atol=1e-8)
    np.testing.assert_allclose(sparse.transform(csr_array(X)), expected.transform(X), atol=1e-8)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(clone(learner).fit(mapped).components_, expected.components_)
    np.testing.assert_array_equal(expected.transform(mapped), expected.transform(X))


@each
def test_same_bits_for_every_number_of_threads(learner, X):
    one, two = (clone(learner).set_params(n_jobs=n_jobs).fit(X) for n_jobs in (1, 2))
    assert one.components_.tobytes() == two.components_.tobytes()
    assert one.transform(X).tobytes() == two.transform(X).tobytes()


@each
def test_pickles_carry_a_version(learner, X, monkeypatch):
    learner = clone(learner).fit(X)
    stored = pickle.dumps(learner)
    np.testing.assert_array_equal(pickle.loads(stored).transform(X), learner.transform(X))
    monkeypatch.setattr("sparseshare.version.__version__", "999.0")
    with pytest.warns(InconsistentVersionWarning, match="999.0"):
        pickle.loads(stored)


@each
def test_skops_round_trip(learner, X):
    skops = pytest.importorskip("skops.io")
    learner = clone(learner).fit(X)
    stored = skops.dumps(learner)
    loaded = skops.loads(stored, trusted=skops.get_untrusted_types(data=stored))
    np.testing.assert_array_equal(loaded.transform(X), learner.transform(X))


@each
def test_codes_that_have_not_converged_warn(learner, X):
    learner = clone(learner).fit(X)
    learner.set_params(transform_algorithm="lasso_cd", transform_alpha=1e-3, transform_max_iter=1)
    with pytest.warns(ConvergenceWarning, match="have not converged"):
        learner.transform(X)


@each
def test_bad_signals_are_refused(learner, X):
    for bad, message in [
        (np.where(X > 2, np.nan, X), "NaN"),
        (X[0], "Expected 2D array"),
        (X[:0], "0 sample"),
        (X + 1j, "Complex"),
    ]:
        with pytest.raises(ValueError, match=message):
            clone(learner).fit(bad)
    fitted = clone(learner).fit(X)
    with pytest.raises(ValueError, match="expecting 8 features"):
        fitted.transform(X[:, :5])
    with pytest.raises(ValueError, match="NaN"):
        fitted.transform(np.where(X > 2, np.nan, X))
    with pytest.raises(NotFittedError):
        clone(learner).transform(X)


@each
@pytest.mark.parametrize(
    "algorithm", ["auto", "lasso_cd", "cd", "ista", "fista", "omp", "ols", "mp", "iht", "threshold"]
)
def test_every_algorithm_fits(learner, algorithm, X):
    learner = clone(learner).set_params(fit_algorithm=algorithm, n_nonzero_coefs=2, max_iter=2, alpha=0.5).fit(X)
    assert np.isfinite(learner.components_).all() and learner.transform(X).shape == (64, 6)


@pytest.mark.parametrize("learner", [DictionaryLearning(), MiniBatchDictionaryLearning()], ids=name_of)
def test_names_of_scikit_learn_mean_the_lasso(learner, X):
    learner = clone(learner).set_params(n_components=5, alpha=0.3, max_iter=3, tol=0, random_state=0)
    components = [
        clone(learner).set_params(fit_algorithm=name).fit(X).components_ for name in ("lars", "lasso_lars", "cd")
    ]
    np.testing.assert_array_equal(components[0], components[1])
    np.testing.assert_allclose(components[0], components[2], atol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@each
def test_scales_of_the_data(learner, scale, X):
    parameters = {} if name_of(learner) == "KSVD" else {"alpha": 0.3 * scale}
    plain = clone(learner).set_params(tol=0).fit(X)
    scaled = clone(learner).set_params(tol=0, **parameters).fit(scale * X)
    np.testing.assert_allclose(scaled.components_, plain.components_, atol=1e-6)
