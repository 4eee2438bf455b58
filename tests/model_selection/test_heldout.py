"""Entries held out: a partition of the entries, and errors as a slow loop over signals finds them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.linear_model import Lasso

from sparseshare.model_selection.choice import check_penalties, chosen_index, largest_penalty
from sparseshare.model_selection.heldout import entry_folds, heldout_errors

ALPHAS = np.array([0.8, 0.3, 0.1])


@given(st.integers(1, 30), st.integers(2, 12), st.integers(2, 12), st.integers(0, 100))
def test_every_signal_shares_its_entries_out_evenly(n_samples, n_features, n_folds, seed):
    n_folds = min(n_folds, n_features)
    folds = entry_folds(n_samples, n_features, n_folds, np.random.RandomState(seed))
    held = np.stack([(folds == fold).sum(axis=1) for fold in range(n_folds)])
    assert folds.shape == (n_samples, n_features)
    assert (held.sum(axis=0) == n_features).all()  # every entry once
    assert held.min() >= n_features // n_folds and held.max() <= -(-n_features // n_folds)


def test_no_entry_is_held_out_more_often_than_others():
    folds = entry_folds(5000, 7, 3, np.random.RandomState(0))
    shares = np.stack([(folds == fold).mean(axis=0) for fold in range(3)])
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)


def one_by_one(X, D, alphas, folds, positive=False):
    """Held-out errors of every fold and signal by scikit-learn's Lasso, and errors on what was seen."""
    n_folds = folds.max() + 1
    unseen = np.zeros((len(alphas), n_folds, *X.shape))
    seen, n_nonzero = np.zeros(len(alphas)), np.zeros(len(alphas))
    for a, alpha in enumerate(alphas):
        for fold in range(n_folds):
            for i, (x, held) in enumerate(zip(X, folds == fold, strict=True)):
                penalty = alpha * np.sqrt((~held).mean()) / (~held).sum()  # scikit-learn divides the error by its terms
                lasso = Lasso(penalty, fit_intercept=False, positive=positive, tol=1e-12, max_iter=100_000)
                code = lasso.fit(D.T[~held], x[~held]).coef_
                errors = (x - code @ D) ** 2
                unseen[a, fold, i] = np.where(held, errors, np.nan)
                seen[a] += errors[~held].sum() / ((n_folds - 1) * X.size)
                n_nonzero[a] += np.count_nonzero(np.abs(code) > 1e-8) / (n_folds * len(X))
    return np.nanmean(unseen, axis=(2, 3)), np.nanmean(unseen, axis=(1, 3)), seen, n_nonzero


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("n_folds", [2, 3])
def test_errors_are_those_of_a_loop_over_signals(rng, n_folds, positive):
    X, D = rng.standard_normal((9, 7)), rng.standard_normal((10, 7))
    folds = entry_folds(*X.shape, n_folds, np.random.RandomState(0))
    expected = one_by_one(X, D, ALPHAS, folds, positive)
    found = heldout_errors(X, D, ALPHAS, folds, positive=positive, tol=1e-12)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_sparse_signals_blocks_and_threads(rng, monkeypatch):
    X = np.where(rng.random((25, 8)) < 0.5, rng.standard_normal((25, 8)), 0)
    D, folds = rng.standard_normal((10, 8)), entry_folds(25, 8, 4, np.random.RandomState(0))
    once = heldout_errors(X, D, ALPHAS, folds)
    monkeypatch.setattr("sparseshare.model_selection.heldout._BLOCK", 10)
    for found in (heldout_errors(csr_array(X), D, ALPHAS, folds), heldout_errors(X, D, ALPHAS, folds, n_jobs=1)):
        for ours, theirs in zip(found, once, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_float32_gives_the_same_errors(rng):
    X, D = rng.standard_normal((25, 8)), rng.standard_normal((10, 8))
    folds = entry_folds(25, 8, 4, np.random.RandomState(0))
    found = heldout_errors(X.astype(np.float32), D.astype(np.float32), ALPHAS, folds)
    np.testing.assert_allclose(found.folds, heldout_errors(X, D, ALPHAS, folds).folds, rtol=1e-3)


def test_the_largest_penalty_leaves_no_code(rng):
    X, D = rng.standard_normal((25, 8)), rng.standard_normal((10, 8))
    assert largest_penalty(X, D) == pytest.approx(np.abs(X @ D.T).max())
    assert largest_penalty(csr_array(X), D, positive=True) == pytest.approx((X @ D.T).max())
    assert largest_penalty(-np.abs(X), np.abs(D), positive=True) == 0


def test_of_equal_errors_the_larger_penalty_is_taken():
    flat = np.array([2.0, 1.0, 1.0, 1.5])
    assert chosen_index(flat, np.zeros(4), "best") == chosen_index(flat, np.zeros(4), "one_standard_error") == 1
    assert chosen_index(flat, np.full(4, 1.0), "one_standard_error") == 0
    assert chosen_index(flat, np.full(4, np.nan), "one_standard_error") == 1


def test_penalties_are_sorted_and_told_apart():
    np.testing.assert_array_equal(check_penalties([0, 3, 1, 3], "it"), [3, 1, 0])
    for wrong in ([], [[1.0]], [-1], [np.inf], [np.nan], "a", 1.0, object()):
        with pytest.raises(ValueError, match="'alphas' parameter of it must be None or a list of finite numbers"):
            check_penalties(wrong, "it")
