"""Statistics add up, forget, and know the error of any dictionary."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare.learning import Statistics, partial_statistics
from sparseshare.learning.statistics import dense_rows, squared_residuals


@pytest.fixture
def coded(rng):
    dense = np.where(rng.random((9000, 10)) < 0.3, rng.standard_normal((9000, 10)), 0)
    return rng.standard_normal((9000, 6)), csr_array(dense), dense


def as_arrays(statistics):
    return [np.asarray(value) for value in vars(statistics).values()]


def assert_equal(one, other, rtol=1e-12):
    for a, b in zip(as_arrays(one), as_arrays(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-9)


def test_what_they_are(coded):
    X, codes, W = coded
    statistics = partial_statistics(X, codes)
    expected = Statistics(W.T @ W, W.T @ X, np.abs(W).sum(axis=0), (W != 0).sum(axis=0), (X**2).sum(), 9000)
    assert_equal(statistics, expected)


def test_statistics_of_two_halves_add_up(coded):
    X, codes, _ = coded
    halves = [partial_statistics(X[rows], codes[rows]) for rows in (slice(0, 4000), slice(4000, None))]
    assert_equal(halves[0].merge(halves[1]), partial_statistics(X, codes))


def test_same_bits_for_every_number_of_threads(coded):
    X, codes, _ = coded
    one, *others = [partial_statistics(X, codes, n_jobs=n_jobs) for n_jobs in (1, 2, None)]
    for other in others:
        for a, b in zip(as_arrays(one), as_arrays(other), strict=True):
            assert a.tobytes() == b.tobytes()


def test_sparse_and_read_only_signals(coded):
    X, codes, _ = coded
    sparse = np.where(np.abs(X) > 1, X, 0)
    expected = partial_statistics(sparse, codes)
    assert_equal(partial_statistics(csr_array(sparse), codes), expected)
    sparse.setflags(write=False)
    assert_equal(partial_statistics(sparse, codes), expected)
    assert_equal(partial_statistics(np.asfortranarray(sparse), codes), expected)


def test_forgetting_weighs_the_past(coded):
    X, codes, _ = coded
    late, early = slice(0, 50), slice(50, 150)
    statistics = partial_statistics(X[early], codes[early]).forget(0.25).add(X[late], codes[late], weight=2.0)
    weights = np.concatenate([np.full(100, 0.25), np.full(50, 2.0)])
    rows = np.concatenate([np.arange(50, 150), np.arange(50)])
    W, weighted = codes.toarray()[rows], weights[:, None] * codes.toarray()[rows]
    np.testing.assert_allclose(statistics.A, W.T @ weighted, atol=1e-12)
    np.testing.assert_allclose(statistics.B, weighted.T @ X[rows], atol=1e-12)
    assert statistics.n_seen == weights.sum()


@pytest.mark.parametrize("l1_ratio", [1.0, 0.4])
def test_objective_of_any_dictionary(coded, l1_ratio, rng):
    X, codes, W = coded
    dictionary = rng.standard_normal((10, 6))
    expected = 0.5 * ((X - W @ dictionary) ** 2).sum()
    expected += 0.7 * (l1_ratio * np.abs(W).sum() + 0.5 * (1 - l1_ratio) * (W**2).sum())
    np.testing.assert_allclose(partial_statistics(X, codes).objective(dictionary, 0.7, l1_ratio), expected)


def test_changed_codes_without_the_codes(coded, rng):
    X, codes, W = coded
    norms = rng.random(10) + 0.5
    statistics = partial_statistics(X, codes)
    statistics.rescale(norms)
    assert_equal(statistics, partial_statistics(X, csr_array(W * norms)))
    moved = W.copy()
    moved[:, 2], moved[:, 7] = W[:, 2] - W[:, 7], 0
    statistics = partial_statistics(X, codes)
    statistics.hand_over(7, 2, -1)
    expected = partial_statistics(X, csr_array(moved))
    np.testing.assert_allclose(statistics.A, expected.A, atol=1e-9)
    np.testing.assert_allclose(statistics.B, expected.B, atol=1e-9)
    assert statistics.usage[7] == statistics.l1[7] == 0


def test_tiny_and_huge_float32_signals(rng):
    for scale in (1e-30, 1e30):
        X = (scale * rng.standard_normal((20, 3))).astype(np.float32)
        codes = csr_array((scale * rng.standard_normal((20, 4))).astype(np.float32))
        statistics = partial_statistics(X, codes)
        np.testing.assert_allclose(statistics.A, codes.toarray().astype(float).T @ codes.toarray(), rtol=1e-6)
        np.testing.assert_allclose(statistics.squared_norm, (X.astype(float) ** 2).sum(), rtol=1e-6)


def test_squared_residuals(coded, rng):
    X, codes, W = coded
    dictionary = rng.standard_normal((10, 6))
    expected = ((X - W @ dictionary) ** 2).sum(axis=1)
    np.testing.assert_allclose(squared_residuals(X, codes, dictionary), expected)


def test_dense_rows_are_what_kernels_take(rng):
    X = rng.standard_normal((30, 4))
    X.setflags(write=False)
    for source in (X, np.asfortranarray(X), csr_array(X), X.astype(np.float16), X[::2]):
        block = dense_rows(source, slice(3, 9), np.float32)
        assert (
            block.dtype == np.float32 and block.flags.c_contiguous and block.flags.writeable and block.shape == (6, 4)
        )
