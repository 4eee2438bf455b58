"""Scores on held-out entries, in searches and pipelines, and the rule that takes sparser codes for a standard error."""

import pickle
from functools import partial

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparseshare.coding.encode import sparse_encode
from sparseshare.datasets import make_sparse_signals
from sparseshare.learning import KSVD, DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder
from sparseshare.model_selection import (
    SparseCoderCV,
    heldout_entries_scorer,
    make_heldout_entries_scorer,
    reconstruction_density_scorer,
    sparsest_within_one_standard_error,
)

PENALTIES = [0.6, 0.1, 0.001]


@pytest.fixture
def data():
    X, D, _ = make_sparse_signals(60, n_components=30, n_features=15, snr_db=10, random_state=0)
    return X + 0.1, D


@pytest.fixture
def coder(data):
    return SparseCoder(data[1], transform_algorithm="lasso_lars", transform_alpha=0.1).fit(data[0])


def expected_score(X, D, fraction, **options):
    """1 - |hidden - predicted|^2 / |hidden - mean|^2, a signal after the other."""
    order = np.random.RandomState(0).random_sample(X.shape).argsort(axis=1)
    n_hidden = round(fraction * X.shape[1])
    error = variance = 0.0
    for x, places in zip(X, order[:, :n_hidden], strict=True):
        seen = np.setdiff1d(np.arange(X.shape[1]), places)
        share = len(seen) / X.shape[1]
        own = dict(options)
        if "alpha" in own:
            own["alpha"] *= np.sqrt(share)
        if "max_error" in own:
            own["max_error"] *= share
        code = sparse_encode(x[None, seen], D[:, seen], **own)
        error += np.square(x[places] - (code @ D)[0, places]).sum()
        variance += np.square(x[places] - X.mean(axis=0)[places]).sum()
    return 1 - error / variance


@pytest.mark.parametrize("fraction", [0.2, 0.4])
def test_the_score_is_that_of_a_loop_over_signals(data, coder, fraction):
    X, D = data
    scorer = make_heldout_entries_scorer(fraction)
    assert scorer(coder, X) == pytest.approx(expected_score(X, D, fraction, alpha=0.1), rel=1e-4)
    coder.set_params(transform_algorithm="omp", transform_n_nonzero_coefs=2)
    assert scorer(coder, X) == pytest.approx(
        expected_score(X, D, fraction, algorithm="omp", n_nonzero_coefs=2), rel=1e-4
    )
    coder.set_params(transform_n_nonzero_coefs=None, transform_max_error=0.05)
    expected = expected_score(X, D, fraction, algorithm="omp", max_error=0.05)
    assert scorer(coder, X) == pytest.approx(expected, rel=1e-4)


def test_every_coder_and_learner_has_a_score(data):
    X, D = data
    settings = dict(n_components=6, max_iter=2, random_state=0)
    for estimator in (
        SparseCoder(D, alpha=0.1),
        SparseCoder(D, transform_algorithm="lasso_cd", transform_alpha=0.1, split_sign=True, sparse_output=True),
        SparseCoder(D, alpha=0.1, transform_algorithm="lasso_lars", l1_ratio=0.8),
        SparseCoder(alpha=0.1, **settings),
        DictionaryLearning(alpha=0.1, tol=0, **settings),
        MiniBatchDictionaryLearning(alpha=0.1, **settings),
        KSVD(n_nonzero_coefs=2, tol=0, **settings),
        SparseCoderCV(D, alphas=[0.1], cv=2),
    ):
        fitted = estimator.fit(X)
        score = heldout_entries_scorer(fitted, X)
        assert -1 < score < 1
        assert heldout_entries_scorer(fitted, csr_array(X)) == pytest.approx(score)
        assert heldout_entries_scorer(fitted, X) == score  # the same entries again
        assert make_heldout_entries_scorer(random_state=1)(fitted, X) != score


def test_a_search_finds_a_penalty_between_the_ends_where_score_takes_the_smallest(data, coder):
    X, _ = data
    grid = {"transform_alpha": PENALTIES}
    assert GridSearchCV(coder, grid, scoring=heldout_entries_scorer, cv=3).fit(X).best_params_["transform_alpha"] == 0.1
    assert GridSearchCV(coder, grid, cv=3).fit(X).best_params_["transform_alpha"] == 0.001
    again = pickle.loads(pickle.dumps(make_heldout_entries_scorer(0.3)))
    search = GridSearchCV(coder, grid, scoring=again, cv=3).fit(X)
    assert search.best_params_["transform_alpha"] == 0.1


def test_pipelines_and_frozen_steps(data, coder):
    X, D = data
    scaled = StandardScaler().fit(X)
    expected = heldout_entries_scorer(coder, scaled.transform(X))
    assert heldout_entries_scorer(make_pipeline(StandardScaler(), coder).fit(X), X) == pytest.approx(expected)
    frozen = make_pipeline(FrozenEstimator(scaled), FrozenEstimator(coder)).fit(X)
    assert heldout_entries_scorer(frozen, X) == pytest.approx(expected)
    assert heldout_entries_scorer(make_pipeline(coder), X) == heldout_entries_scorer(coder, X)
    learner = make_pipeline(StandardScaler(), MiniBatchDictionaryLearning(6, max_iter=2, random_state=0))
    assert cross_val_score(learner, X, scoring=heldout_entries_scorer, cv=3).shape == (3,)


def test_metrics_of_one_search(data, coder):
    X, D = data
    values = reconstruction_density_scorer(coder, X)
    codes = coder.transform(X)
    assert values["density"] == pytest.approx((codes != 0).mean())
    assert values["reconstruction"] == pytest.approx(coder.score(X))
    assert values["heldout_entries"] == heldout_entries_scorer(coder, X)
    search = GridSearchCV(
        coder, {"transform_alpha": [0.6, 0.12, 0.1, 0.001]}, scoring=reconstruction_density_scorer, cv=3,
        refit=sparsest_within_one_standard_error,
    ).fit(X)  # fmt: skip
    assert search.best_params_["transform_alpha"] in (0.12, 0.1)
    assert np.argmax(search.cv_results_["mean_test_reconstruction"]) == 3
    assert search.best_estimator_.transform(X).shape == (60, 30)


def results(means, spreads=None, name="score", n_splits=5, **more):
    spreads = [0.02] * len(means) if spreads is None else spreads
    found = {f"mean_test_{name}": means, f"std_test_{name}": spreads}
    return found | {f"split{k}_test_{name}": means for k in range(n_splits)} | more


@pytest.mark.parametrize(
    ("cv_results", "expected"),
    [
        # One standard error is 0.02 / sqrt(4) = 0.01.
        (results([0.9, 0.895, 0.89, 0.8], param_alpha=[0.1, 0.2, 0.3, 0.4]), 2),
        (results([0.9, 0.895, 0.885], param_alpha=[0.1, 0.2, 0.3]), 1),
        (results([0.9, 0.895, 0.885], param_coder__transform_n_nonzero_coefs=[5, 4, 3]), 1),
        (results([0.9, 0.895, 0.893], param_C=[1, 2, 3], mean_test_density=[0.3, 0.1, 0.2]), 1),
        (results([0.893, 0.9, 0.895], param_alpha=[0.2, 0.1, 0.2]), 2),  # equally sparse: the better score
        (results([np.nan, 0.9, 0.895], param_alpha=[0.5, 0.1, 0.2]), 2),
        (results([0.9, 0.5], name="heldout_entries", param_alpha=[1, 2]), 0),
        (results([0.9, 0.895], n_splits=1, param_alpha=[1, 2], spreads=[0.0, 0.0]), 0),
    ],
)
def test_the_sparsest_candidate_near_the_best(cv_results, expected):
    assert sparsest_within_one_standard_error(cv_results) == expected


def test_a_reconstruction_error_is_taken_only_if_asked_for():
    cv_results = results([0.9, 0.895], name="reconstruction", param_alpha=[1, 2])
    with pytest.raises(ValueError, match="needs a metric of the search: it has reconstruction"):
        sparsest_within_one_standard_error(cv_results)
    assert partial(sparsest_within_one_standard_error, metric="reconstruction")(cv_results) == 1


@pytest.mark.parametrize(
    ("cv_results", "message"),
    [
        (results([0.9, 0.8], param_C=[1, 2]), "the search is over C"),
        (results([0.9, 0.8], param_a__alpha=[1, 2], param_b__alpha=[1, 2]), "the search is over a__alpha, b__alpha"),
        (results([np.nan, np.nan], param_alpha=[1, 2]), "all fits have failed"),
        ({}, "it has none"),
    ],
)
def test_results_that_tell_too_little(cv_results, message):
    with pytest.raises(ValueError, match=message):
        sparsest_within_one_standard_error(cv_results)


def test_constant_signals_have_a_score():
    coder = SparseCoder(np.eye(4), transform_algorithm="omp", transform_n_nonzero_coefs=1)
    assert heldout_entries_scorer(coder, np.zeros((3, 4))) == 1
    assert heldout_entries_scorer(coder, np.full((3, 4), 2.0)) == 0


def test_wrong_input_is_refused(data, coder):
    X, _ = data
    with pytest.raises(TypeError, match="got LogisticRegression"):
        heldout_entries_scorer(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, np.arange(60) % 2), X)
    for wrong in (0, 1.5, "half"):
        with pytest.raises(ValueError, match="'fraction' parameter of make_heldout_entries_scorer"):
            make_heldout_entries_scorer(wrong)
        with pytest.raises(ValueError, match="'fraction' parameter of heldout_entries_scorer"):
            heldout_entries_scorer(coder, X, fraction=wrong)
    with pytest.raises(ValueError, match="at least 2 entries"):
        heldout_entries_scorer(SparseCoder(np.ones((2, 1)), alpha=0.1), X[:, :1])
