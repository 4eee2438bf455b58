"""Orthogonal matching pursuit under scikit-learn's signatures, beside scikit-learn's own."""

import warnings

import numpy as np
import pytest
from sklearn import linear_model

from sparseshare import orthogonal_mp, orthogonal_mp_gram


def problem(unequal=False, n_targets=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((30, 40))
    X /= np.linalg.norm(X, axis=0)
    if unequal:
        X *= rng.uniform(0.3, 3, 40)
    y = X[:, rng.choice(40, 5, replace=False)] @ rng.standard_normal((5, n_targets)) + 0.05 * rng.standard_normal(
        (30, n_targets)
    )
    return X, y


@pytest.mark.parametrize("unequal", [False, True], ids=["unit", "unequal"])
@pytest.mark.parametrize("n_targets", [1, 3])
@pytest.mark.parametrize("options", [{}, {"n_nonzero_coefs": 1}, {"n_nonzero_coefs": 7}, {"tol": 0.1}, {"tol": 1e-3}])
@pytest.mark.parametrize("path", [False, True])
def test_the_same_results(unequal, n_targets, options, path):
    X, y = problem(unequal, n_targets)
    y = y[:, 0] if n_targets == 1 else y
    if path and n_targets > 1 and "tol" in options:
        # target by target: scikit-learn fails where one takes more steps than another
        paths = [linear_model.orthogonal_mp(X, target, return_path=True, **options) for target in y.T]
        last = max(each.shape[1] for each in paths)
        paths = [np.pad(each, ((0, 0), (0, last - each.shape[1])), mode="edge") for each in paths]
        expected = np.stack(paths, axis=1)
    else:
        expected = linear_model.orthogonal_mp(X, y, return_path=path, **options)
    steps = linear_model.orthogonal_mp(X, y, return_n_iter=True, **options)[1]
    options = options | {"return_path": path, "return_n_iter": True}
    norms = np.sum(np.atleast_2d(y.T) ** 2, axis=1)
    for coef, n_iter in (
        orthogonal_mp(X, y, **options),
        orthogonal_mp(X, y, precompute=True, **options),
        orthogonal_mp_gram(X.T @ X, X.T @ y, norms_squared=norms, **options),
    ):
        assert coef.shape == expected.shape
        np.testing.assert_allclose(coef, expected, atol=1e-10)
        assert n_iter == steps


def test_precision_and_input_are_kept():
    X, y = problem()
    before = X.copy(), y.copy()
    coef = orthogonal_mp(X.astype(np.float32), y.astype(np.float32), n_nonzero_coefs=4)
    assert coef.dtype == np.float32
    np.testing.assert_allclose(coef, orthogonal_mp(X, y, n_nonzero_coefs=4), atol=1e-4)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    for array in (X, y):
        array.setflags(write=False)
    orthogonal_mp(X[::-1], y[::-1], n_nonzero_coefs=4, copy_X=False)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_scales(size, dtype):
    X, y = (a.astype(dtype) for a in problem())
    coef = orthogonal_mp(X, y, n_nonzero_coefs=4)
    np.testing.assert_allclose(orthogonal_mp(X, y * dtype(size), n_nonzero_coefs=4), coef * dtype(size), rtol=1e-3)
    np.testing.assert_allclose(orthogonal_mp(X * dtype(size), y * dtype(size), n_nonzero_coefs=4), coef, rtol=1e-3)


def test_atoms_that_depend_on_each_other_warn_and_are_left_out():
    X, y = problem()
    X = X[:, :3]
    X = np.hstack([X, X])
    with pytest.warns(RuntimeWarning, match="linear dependence"):
        coef = orthogonal_mp(X, y[:, 0], n_nonzero_coefs=5)
    assert np.count_nonzero(coef) == 3
    np.testing.assert_allclose(X @ coef, X[:, :3] @ np.linalg.lstsq(X[:, :3], y[:, 0], rcond=None)[0], atol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing to choose
        assert not orthogonal_mp(X, np.zeros(30), n_nonzero_coefs=2).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_nonzero_coefs": 0}, "n_nonzero_coefs"),
        ({"n_nonzero_coefs": 41}, "n_nonzero_coefs"),
        ({"n_nonzero_coefs": 2.5}, "n_nonzero_coefs"),
        ({"tol": -1.0}, "tol"),
        ({"tol": np.nan}, "tol"),
        ({"y": np.ones(29)}, "X must have the shape"),
        ({"y": np.ones((30, 2, 2))}, "X must have the shape"),
        ({"X": np.ones(30)}, "X must have the shape"),
        ({"X": np.full((30, 40), np.nan)}, "X contains NaN"),
        ({"y": np.full(30, np.inf)}, "y contains NaN or infinity"),
        ({"X": np.ones((30, 40), complex)}, "real numbers"),
        ({"y": np.array(["a"] * 30)}, "real numbers"),
        ({"X": np.ones((30, 0))}, "empty"),
    ],
)
def test_bad_input(change, message):
    X, y = problem()
    arguments = {"X": X, "y": y} | change
    with pytest.raises(ValueError, match=message):
        orthogonal_mp(**arguments)


def test_bad_input_of_the_gram_form():
    X, y = problem()
    gram, correlations = X.T @ X, X.T @ y
    for arguments, message in (
        ((gram[:, :5], correlations), "Gram must have the shape"),
        ((gram, correlations[:5]), "Gram must have the shape"),
        ((-gram, correlations), "cannot be negative"),
        ((gram, correlations, {"tol": 0.1}), "tol needs norms_squared"),
        ((gram, correlations, {"tol": 0.1, "norms_squared": [1.0]}), "norms_squared must have the shape"),
    ):
        options = arguments[2] if len(arguments) == 3 else {}
        with pytest.raises(ValueError, match=message):
            orthogonal_mp_gram(*arguments[:2], **options)
