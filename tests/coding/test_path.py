"""Codes at many penalties: those that each penalty has alone."""

import numpy as np
import pytest
from coding.problems import MOST, TOL, lasso_form, signals_and_atoms, typical_alpha
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from reference import relative_gap
from sparseshare import sparse_encode, sparse_encode_path


@pytest.mark.parametrize("form", ["plain", "positive", "elastic net", "weights", "atoms kept out"])
@pytest.mark.parametrize("name", ["wide", "tall", "any_norm", "duplicates", "low_rank"])
def test_codes_are_those_of_each_penalty_alone(name, form, dtype):
    X, D = signals_and_atoms(name, dtype)
    options = lasso_form(form, X, D, 1.0).options | {"tol": TOL[dtype]}
    del options["alpha"]
    alphas = typical_alpha(X, D, 1.0) * np.array([0.1, 2.0, 0.3, 0.05, 0.3])  # in no order, one twice
    path = sparse_encode_path(X, D, alphas, **options)
    assert path.shape == (5, len(X), len(D)) and path.dtype == dtype
    positive, weights = options.get("positive", False), options.get("weights", np.ones(len(D)))
    ratio = options.get("l1_ratio", 1)
    for codes, alpha in zip(path, alphas, strict=True):
        alone = sparse_encode(X, D, alpha=alpha, **options)
        np.testing.assert_allclose(codes @ D, alone @ D, atol=20 * np.sqrt(MOST[dtype]))
        for x, w in zip(X, codes, strict=True):
            assert relative_gap(x, D, w, alpha * ratio * weights, positive, alpha * (1 - ratio)) <= MOST[dtype]
    np.testing.assert_allclose(path[2], path[4], atol=100 * np.finfo(dtype).eps * np.abs(path).max())


def test_no_penalty_at_the_end_of_the_path(dtype):
    X, D = signals_and_atoms("tall", dtype)
    path = sparse_encode_path(X, D, [1.0, 0.1, 0.0])
    best = np.linalg.lstsq(D.T.astype(float), X.T.astype(float), rcond=None)[0].T @ D
    np.testing.assert_allclose(path[2] @ D, best, atol=2e-3 if dtype == np.float32 else 1e-5)


@pytest.mark.parametrize("options", [{"alphas": [0.3, 0.1]}, {"algorithm": "omp", "n_nonzero_coefs": [2, 5]}])
def test_sparse_output_is_a_list_of_the_same(options, dtype):
    X, D = signals_and_atoms("any_norm", dtype, n_signals=40)
    dense = sparse_encode_path(X, D, **options)
    for input_ in (X, csr_array(X)):
        sparse = sparse_encode_path(input_, D, sparse_output=True, **options)
        assert isinstance(sparse, list) and all(isinstance(codes, csr_array) for codes in sparse)
        for codes, same in zip(sparse, dense, strict=True):
            np.testing.assert_array_equal(codes.toarray(), same)


def test_positive_omp_over_counts(dtype):
    X, D = signals_and_atoms("wide", dtype)
    counts = [4, 1, 2]
    path = sparse_encode_path(X, D, algorithm="omp", n_nonzero_coefs=counts, positive=True)
    for codes, count in zip(path, counts, strict=True):
        alone = sparse_encode(X, D, algorithm="omp", n_nonzero_coefs=count, positive=True)
        np.testing.assert_array_equal(codes, alone)


def test_too_few_iterations_are_said_so():
    X, D = signals_and_atoms("coherent", np.float64)
    with pytest.warns(ConvergenceWarning, match="Raise max_iter or tol"):
        sparse_encode_path(X, D, [0.1, 0.01], max_iter=2, tol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs alphas"),
        ({"alphas": []}, "needs alphas"),
        ({"alphas": 0.1}, "needs alphas"),
        ({"alphas": [0.1, -1.0]}, "'alpha' parameter of sparse_encode_path"),
        ({"alphas": [0.1, np.nan]}, "'alpha' parameter of sparse_encode_path"),
        ({"algorithm": "omp"}, "needs n_nonzero_coefs"),
        ({"algorithm": "omp", "n_nonzero_coefs": [0, 3]}, "integers of at least 1"),
        ({"algorithm": "ols", "n_nonzero_coefs": [1.5, 3]}, "integer"),
        ({"algorithm": "ols", "n_nonzero_coefs": [1, 3], "positive": True}, "Positive constraint not supported"),
        ({"algorithm": "lasso_cd", "alphas": [0.1]}, "'algorithm' parameter of sparse_encode_path"),
        ({"alphas": [0.1], "weights": np.ones((2, 70))}, "weights of shape"),
        ({"alphas": [0.1], "weights": np.zeros(70)}, "weights of shape"),
    ],
)
def test_bad_input(options, message):
    X, D = signals_and_atoms("wide", np.float64)
    with pytest.raises(ValueError, match=message):
        sparse_encode_path(X, D, **options)
    X[2, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity, first in row 2"):
        sparse_encode_path(X, D, [0.1])
