"""Summaries of blocks: what adds up to a batch, and steps from it."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare.learning import MiniBatchDictionaryLearning
from sparseshare.learning.summaries import SummaryUpdate, merged, summarize
from sparseshare.optimization.constraints import AtomConstraint

OPTIONS = dict(algorithm="lasso_lars", alpha=0.3, l1_ratio=0.9)


@pytest.fixture
def X(rng):
    return rng.standard_normal((400, 3)) @ rng.standard_normal((3, 10)) + 0.3 * rng.standard_normal((400, 10))


@pytest.fixture
def D(X):
    return X[:5] / np.linalg.norm(X[:5], axis=1, keepdims=True)


def in_blocks(X, D, size, **parameters):
    starts = range(0, len(X), size)
    return [summarize(X[at : at + size], D, OPTIONS, first_row=at, **parameters) for at in starts]


def test_summaries_of_blocks_add_up(X, D):
    whole, parts = summarize(X, D, OPTIONS), merged(*in_blocks(X, D, 70))
    assert parts.n_samples == whole.n_samples == 400
    assert parts.squared_error == pytest.approx(whole.squared_error)
    for name, array in vars(whole.statistics).items():
        np.testing.assert_allclose(getattr(parts.statistics, name), array, rtol=1e-12, err_msg=name)
    np.testing.assert_array_equal(np.sort(parts.rows), np.sort(whole.rows))
    order = np.argsort(-parts.residuals, kind="stable")
    np.testing.assert_array_equal(parts.rows[order], whole.rows)
    assert len(whole.rows) == 4 * 5 + 16


def test_threads_and_sparse_blocks_change_nothing(X, D):
    one, two = summarize(X, D, OPTIONS, n_jobs=1), summarize(csr_array(X), D, OPTIONS, n_jobs=2)
    for name, array in vars(one.statistics).items():
        np.testing.assert_array_equal(getattr(two.statistics, name), array, err_msg=name)
    np.testing.assert_array_equal(one.rows, two.rows)


def test_equal_residuals_keep_their_order(D):
    block = np.ones((40, 10))
    summary = merged(summarize(block, D, OPTIONS), summarize(block, D, OPTIONS, first_row=40))
    np.testing.assert_array_equal(summary.rows, np.arange(36))


@pytest.mark.parametrize("replace", [False, True])
def test_steps_are_those_of_the_mini_batch_learner(X, D, replace):
    """Batches of 100 in blocks of 25, with atoms that die on the way."""
    D = np.vstack([D, np.zeros((2, 10)), D[:1]])
    expected = MiniBatchDictionaryLearning(
        alpha=0.3, l1_ratio=0.9, batch_size=100, shuffle=False, dict_init=D, max_iter=3, tol=0, max_no_improvement=None,
        replace_atoms=replace,
    ).fit(X)  # fmt: skip
    update = SummaryUpdate(AtomConstraint().project(D), OPTIONS, AtomConstraint(), "bcd", replace, None)
    losses = [
        update.learn_from(merged(*in_blocks(X[at : at + 100], update.dictionary, 25)), X[at : at + 100].__getitem__)[0]
        for _ in range(3)
        for at in range(0, 400, 100)
    ]
    np.testing.assert_allclose(update.dictionary, expected.components_, atol=1e-9)
    np.testing.assert_allclose(np.reshape(losses, (3, 4)).mean(axis=1), expected.loss_curve_, rtol=1e-9)
    assert (np.linalg.norm(update.dictionary, axis=1) > 0).all() == replace
