"""Atom steps of K-SVD against a slow version that forms every error matrix."""

import numpy as np
import pytest
from scipy.sparse import csc_array

from sparseshare.kernels.cpu import ksvd


def slow_steps(X, W, dictionary, exact):
    """One pass over the atoms, in float64."""
    W, dictionary = W.copy(), dictionary.copy()
    for k in range(len(dictionary)):
        users = np.flatnonzero(W[:, k])
        if len(users) == 0:
            continue
        W[users, k] = (weights := W[users, k]) * 0
        error = X[users] - W[users] @ dictionary
        if exact:
            _, _, right = np.linalg.svd(error)
            new = right[0] * (1 if right[0] @ dictionary[k] >= 0 else -1)
        else:
            new = weights @ error
            new /= np.linalg.norm(new)
        dictionary[k] = new
        W[users, k] = error @ new
    return W, dictionary


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("n_signals", [6, 200], ids=["fewer signals than features", "more"])
def test_steps(exact, n_signals, rng, dtype):
    dictionary = rng.standard_normal((10, 8))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    W = np.where(rng.random((n_signals, 10)) < 0.4, rng.standard_normal((n_signals, 10)), 0)
    W[:, 4] = 0
    X = W @ dictionary + 0.3 * rng.standard_normal((n_signals, 8))
    expected_codes, expected_atoms = slow_steps(X, W, dictionary, exact)
    codes = csc_array(W.astype(dtype))
    residual, atoms = (X - W @ dictionary).astype(dtype), dictionary.astype(dtype)
    arrays = codes.indptr.astype(np.int64), codes.indices.astype(np.int32), codes.data
    if exact:
        ksvd.exact_steps(*arrays, residual, atoms, 1e-9, 2000)
    else:
        ksvd.approximate_steps(*arrays, residual, atoms)
    tol = 2e-4 if dtype == np.float32 else 1e-6
    np.testing.assert_allclose(atoms, expected_atoms, atol=tol)
    np.testing.assert_allclose(codes.toarray(), expected_codes, atol=10 * tol)
    np.testing.assert_allclose(residual, X - codes.toarray() @ atoms, atol=tol)


def test_lapack_takes_over_where_power_iteration_is_slow(rng):
    """Two equal singular values: any direction of their plane is right."""
    X = np.diag([2.0, 2.0, 1.0]).repeat(2, axis=0)
    codes = csc_array(np.ones((6, 1)))
    residual, atoms = X - np.full((6, 1), 1.0) * np.array([[0.6, 0.0, 0.8]]), np.array([[0.6, 0.0, 0.8]])
    arrays = codes.indptr.astype(np.int64), codes.indices.astype(np.int32), codes.data
    ksvd.exact_steps(*arrays, residual, atoms, 1e-12, 1)
    np.testing.assert_allclose((residual**2).sum(), (X**2).sum() - 8, rtol=1e-12)


def test_an_atom_whose_signals_are_explained_stays(rng, dtype):
    atoms = np.eye(3, dtype=dtype)
    codes = csc_array(np.array([[0, 1e-30, 0]], dtype=dtype))
    arrays = codes.indptr.astype(np.int64), codes.indices.astype(np.int32), codes.data
    residual = np.zeros((1, 3), dtype)
    ksvd.exact_steps(*arrays, residual, atoms, 1e-7, 100)
    np.testing.assert_allclose(atoms, np.eye(3), atol=1e-6)
