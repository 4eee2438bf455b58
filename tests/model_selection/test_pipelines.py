"""A search through a pipeline does not fit anew what does not change: fits are counted."""

import warnings

import numpy as np
import pytest
from joblib import Memory
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sparseshare.learning import KSVD, DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder
from sparseshare.model_selection import DictionaryLearningCV, SparseCoderCV

FITS = []


class CountingScaler(StandardScaler):
    def fit(self, X, y=None):
        FITS.append("scaler")
        return super().fit(X, y)


class CountingLearner(MiniBatchDictionaryLearning):
    def fit(self, X, y=None):
        FITS.append("learner")
        return super().fit(X, y)


@pytest.fixture
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:240].astype(np.float32), y[:240]


@pytest.fixture
def learner():
    FITS.clear()
    return CountingLearner(8, alpha=5.0, max_iter=1, batch_size=32, random_state=0)


def search(steps, grid, memory, digits):
    pipeline = Pipeline(steps, memory=memory)
    found = GridSearchCV(pipeline, grid, cv=2, refit=False).fit(*digits)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    return found.cv_results_["mean_test_score"]


def test_with_memory_a_dictionary_is_learned_once_a_fold(digits, learner, tmp_path):
    steps, grid = [("learn", learner), ("classify", RidgeClassifier())], {"classify__alpha": [0.1, 1.0, 10.0]}
    expected = search(steps, grid, None, digits)
    assert FITS.count("learner") == 6
    FITS.clear()
    found = search(steps, grid, Memory(tmp_path, verbose=0), digits)
    assert FITS.count("learner") == 2
    np.testing.assert_array_equal(found, expected)


def test_with_memory_the_steps_before_a_grid_over_alpha_are_fitted_once_a_fold(digits, learner, tmp_path):
    steps = [("scale", CountingScaler()), ("learn", learner), ("classify", RidgeClassifier())]
    search(steps, {"learn__alpha": [1.0, 2.0, 5.0]}, Memory(tmp_path, verbose=0), digits)
    assert FITS.count("scaler") == 2
    assert FITS.count("learner") == 6  # another alpha is another dictionary


def test_a_dictionary_that_is_given_is_not_learned_in_a_grid_over_alpha(digits, learner, tmp_path):
    D = learner.fit(digits[0]).components_
    coder = SparseCoder(D, transform_algorithm="lasso_lars")
    grid = {"code__transform_alpha": [1.0, 5.0, 20.0]}
    steps = [("scale", CountingScaler()), ("code", coder), ("classify", RidgeClassifier())]
    scores = search(steps, grid, Memory(tmp_path, verbose=0), digits)
    assert FITS.count("learner") == 1 and FITS.count("scaler") == 2
    assert len(set(scores)) > 1  # the penalties made a difference


def test_a_frozen_learner_is_not_fitted(digits, learner, tmp_path):
    frozen = FrozenEstimator(learner.fit(digits[0]))
    steps, grid = [("learn", frozen), ("classify", RidgeClassifier())], {"classify__alpha": [0.1, 1.0]}
    for memory in (None, Memory(tmp_path, verbose=0)):
        search(steps, grid, memory, digits)
    assert FITS.count("learner") == 1


@pytest.mark.parametrize(
    "estimator",
    [
        SparseCoder(n_components=4, max_iter=1, random_state=0),
        DictionaryLearning(4, max_iter=2, tol=0, random_state=0),
        KSVD(4, max_iter=2, tol=0, random_state=0),
        SparseCoderCV(np.eye(64), alphas=[5.0, 1.0], cv=2, random_state=0),
        DictionaryLearningCV(
            4, [5.0, 1.0], learner=MiniBatchDictionaryLearning(max_iter=1), cv=2, random_state=0
        ),
    ],
    ids=lambda estimator: type(estimator).__name__,
)  # fmt: skip
def test_every_estimator_comes_back_from_memory_as_it_was(estimator, digits, tmp_path):
    X, y = digits[0][:60], digits[1][:60]
    pipeline = Pipeline([("code", estimator), ("classify", RidgeClassifier())], memory=Memory(tmp_path, verbose=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = pipeline.fit(X, y).predict(X)
        second = pipeline.fit(X, y).predict(X)
    np.testing.assert_array_equal(first, second)
    plain = Pipeline([("code", estimator), ("classify", RidgeClassifier())])
    np.testing.assert_array_equal(plain.fit(X, y).predict(X), first)
