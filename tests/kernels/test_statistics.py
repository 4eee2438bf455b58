"""Sums over coded signals against matrix products."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare.kernels.cpu import statistics


@pytest.fixture
def coded(rng, dtype):
    """Signals, a dictionary and codes, among them empty ones and a stored zero."""
    dense = np.where(rng.random((50, 12)) < 0.3, rng.standard_normal((50, 12)), 0).astype(dtype)
    dense[3] = 0
    codes = csr_array(dense)
    codes.data[5] = 0
    arrays = codes.indptr.astype(np.int64), codes.indices.astype(np.int32), codes.data
    X, dictionary = rng.standard_normal((50, 7)).astype(dtype), rng.standard_normal((12, 7)).astype(dtype)
    return arrays, codes.toarray().astype(np.float64), X, dictionary


def ordered(arrays, n_atoms):
    indptr, indices, _ = arrays
    order = np.empty(n_atoms + 1, np.int64), np.empty(len(indices), np.int32), np.empty(len(indices), np.int32)
    statistics.order_by_atom(indptr, indices, *order)
    return order


def test_order_by_atom(coded):
    arrays, _, _, _ = coded
    indptr, indices, _ = arrays
    starts, signals, positions = ordered(arrays, 12)
    np.testing.assert_array_equal(starts, np.concatenate([[0], np.bincount(indices, minlength=12).cumsum()]))
    for k in range(12):
        mine = slice(starts[k], starts[k + 1])
        assert (indices[positions[mine]] == k).all() and (np.diff(signals[mine]) > 0).all()
        np.testing.assert_array_equal(np.searchsorted(indptr, positions[mine], side="right") - 1, signals[mine])


def test_accumulate_whatever_the_split(coded):
    arrays, W, X, _ = coded
    expected = 0.5 * W.T @ W, 0.5 * W.T @ X.astype(np.float64)
    results = []
    for cuts in ([0, 12], [0, 5, 12], list(range(13))):
        A, B = np.zeros((12, 12)), np.zeros((12, 7))
        for first, last in zip(cuts[:-1], cuts[1:], strict=True):
            statistics.accumulate(*arrays, X, 0.5, *ordered(arrays, 12), first, last, A, B)
        np.testing.assert_allclose(A, expected[0], atol=1e-12)
        np.testing.assert_allclose(B, expected[1], atol=1e-12)
        results.append(A.tobytes() + B.tobytes())
    assert len(set(results)) == 1


def test_usage(coded):
    (_, indices, values), W, _, _ = coded
    l1, counts = np.zeros(12), np.zeros(12)
    statistics.atom_usage(indices, values, 2.0, l1, counts)
    np.testing.assert_allclose(l1, 2 * np.abs(W).sum(axis=0))
    np.testing.assert_array_equal(counts, (W != 0).sum(axis=0))


def test_residuals(coded):
    arrays, W, X, dictionary = coded
    expected = X.astype(np.float64) - W @ dictionary.astype(np.float64)
    squared, residual = np.empty(50), X.copy()
    statistics.squared_residuals(*arrays, X, dictionary, squared)
    statistics.subtract_reconstruction(*arrays, dictionary, residual)
    tol = 1e-5 if X.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(squared, (expected**2).sum(axis=1), rtol=tol, atol=tol)
    np.testing.assert_allclose(residual, expected, atol=tol)
