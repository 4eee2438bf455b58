"""Signals with entries missing: their codes are those of the observed entries alone, for atoms cut in the same way."""

import warnings

import numpy as np
import pytest
from coding.problems import MOST, TOL, lasso_form, signals_and_atoms, typical_alpha
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kernels.tile import PROBLEMS
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from reference import lasso_objective, relative_gap
from sparseshare import sparse_encode, sparse_encode_path
from sparseshare.coding import Problem, encode

CLOSE = {np.float32: 2e-4, np.float64: 1e-9}


def masked(name, dtype, share=0.4, n_signals=8, seed=0):
    """Signals, atoms, and a mask that leaves at least one entry of every signal."""
    X, D = signals_and_atoms(name, dtype, seed, n_signals)
    missing = np.random.default_rng(seed).random(X.shape) < share
    missing[:, 0] = False
    return X, D, missing


def alone(X, D, missing, **options):
    """The oracle: one signal after the other, with zeros for what is missing in signals and atoms."""
    codes, infos = [], []
    for i, (x, gone) in enumerate(zip(X, missing, strict=True)):
        own = {name: a[i] if np.shape(a)[:1] == (len(X),) else a for name, a in options.items()}
        w, info = sparse_encode(x[None] * ~gone, D * ~gone, return_info=True, **own)
        codes.append(w[0])
        infos.append(info)
    return np.array(codes), {name: np.concatenate([info[name] for info in infos]) for name in infos[0]}


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize(
    "form", ["plain", "positive", "elastic net", "penalties of signals", "weights", "atoms kept out"]
)
@pytest.mark.parametrize("name", PROBLEMS)
def test_lasso(name, form, share, dtype):
    X, D, missing = masked(name, dtype, share)
    lasso = lasso_form(form, X, D, 0.05)
    lasso = lasso._replace(signals=X, observed=~missing)
    codes, info = sparse_encode(X, D, mask=missing, tol=TOL[dtype], return_info=True, **lasso.options)
    expected, _ = alone(X, D, missing, tol=TOL[dtype], **lasso.options)
    gaps = lasso.gaps(D, codes)
    assert codes.dtype == dtype and np.all(gaps <= MOST[dtype]) and np.all(gaps <= info["gap"] + MOST[dtype])
    assert info["converged"].all() and np.all(info["gap"] <= 2 * MOST[dtype])
    for w, other, gone in zip(codes, expected, missing, strict=True):
        assert np.count_nonzero(w) <= np.count_nonzero(~gone) or form == "elastic net"
        np.testing.assert_allclose(w @ (D * ~gone), other @ (D * ~gone), atol=20 * np.sqrt(MOST[dtype]))


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("options", [{"n_nonzero_coefs": 4}, {"n_nonzero_coefs": [1, 2, 3, 20, 5, 6, 0, 8]},
                                     {"max_error": 0.05}, {"max_error": np.linspace(0, 0.5, 8)}])  # fmt: skip
@pytest.mark.parametrize("name", ["wide", "tall", "any_norm", "zero_atoms", "low_rank"])
def test_omp(name, options, share, dtype):
    X, D, missing = masked(name, dtype, share)
    options = {key: np.array(value) if isinstance(value, list) else value for key, value in options.items()}
    codes, info = sparse_encode(X, D, algorithm="omp", mask=missing, return_info=True, **options)
    expected, other = alone(X, D, missing, algorithm="omp", **_within(options, missing))
    size = np.sum((X * ~missing) ** 2, axis=1).max()
    left = np.sum(((X - codes.astype(float) @ D) * ~missing) ** 2, axis=1)
    np.testing.assert_allclose(info["residual"], left, atol=CLOSE[dtype] * size)
    np.testing.assert_allclose(info["residual"], other["residual"], atol=CLOSE[dtype] * size)
    assert np.all(np.count_nonzero(codes, axis=1) <= np.count_nonzero(~missing, axis=1))
    few = np.count_nonzero(expected, axis=1) <= 3  # later choices among nearly equal scores are rounding's
    np.testing.assert_allclose(codes[few], expected[few], rtol=CLOSE[dtype], atol=CLOSE[dtype])


def _within(options, missing):
    """Counts that each signal's entries allow."""
    if "n_nonzero_coefs" not in options:
        return options
    counts = np.minimum(options["n_nonzero_coefs"], np.count_nonzero(~missing, axis=1))
    return {"n_nonzero_coefs": counts[:, None]}


@pytest.mark.parametrize("algorithm", ["lasso_lars", "omp"])
def test_a_mask_of_nothing_is_no_mask(algorithm, dtype):
    X, D = signals_and_atoms("any_norm", dtype, n_signals=30)
    options = {"algorithm": algorithm, "alpha": typical_alpha(X, D, 0.1)} | {"tol": TOL[dtype]}
    codes = sparse_encode(X, D, mask=np.zeros(X.shape, bool), **options)
    np.testing.assert_allclose(codes, sparse_encode(X, D, **options), atol=50 * CLOSE[dtype] * np.abs(codes).max())


@pytest.mark.parametrize("power", [-80, -30, 30])
@pytest.mark.parametrize("algorithm", ["lasso_lars", "omp"])
def test_entries_of_any_size(algorithm, power, dtype):
    """A mask may leave no more than 2**-80 of every atom: codes are those of a dictionary of that size."""
    X, D, missing = masked("wide", dtype, 0.0, n_signals=20)
    near = np.arange(20) < 10
    missing[:10], missing[10:] = ~near, near
    size = np.where(near, dtype(2.0**power), dtype(1))
    options = {"n_nonzero_coefs": 2} if algorithm == "omp" else {"alpha": 0.1}
    plain = sparse_encode(X, D, algorithm=algorithm, mask=missing, **options)
    if algorithm == "lasso_lars":  # the codes are to grow by what the atoms shrink: so do the penalties
        options["alpha"] = np.where(np.arange(20) < 10, 0.1 * 2.0**power, 0.1)
    codes = sparse_encode(X, D * size, algorithm=algorithm, mask=missing, **options)
    codes[:10] *= dtype(2.0**power)
    np.testing.assert_allclose(codes, plain, rtol=CLOSE[dtype], atol=CLOSE[dtype])


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("name", ["low_rank", "duplicates", "coherent"])
def test_atoms_are_exchanged_where_they_depend_on_each_other(name, share, positive, dtype):
    X, D, missing = masked(name, dtype, 0.3, n_signals=30)
    alpha = typical_alpha(X, D, share)
    rough = dtype == np.float32 and share == 1e-5  # the penalty is near the rounding errors of correlations
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if rough else "error", ConvergenceWarning)
        codes, info = sparse_encode(X, D, alpha=alpha, mask=missing, positive=positive, return_info=True)
    exact, _ = alone(X.astype(float), D.astype(float), missing, alpha=alpha, positive=positive, tol=1e-8)
    for x, w, best, gone, converged in zip(X, codes, exact, missing, info["converged"], strict=True):
        x, atoms = x.astype(float) * ~gone, D.astype(float) * ~gone
        worse = lasso_objective(x, atoms, w, alpha) - lasso_objective(x, atoms, best, alpha)
        assert converged or rough
        assert worse <= (1e-5 if converged else 0.1) * 0.5 * np.sum(x**2)


def test_start_from_codes(dtype):
    X, D, missing = masked("any_norm", dtype)
    options = {"alpha": typical_alpha(X, D, 0.05), "mask": missing, "tol": TOL[dtype], "return_info": True}
    codes, info = sparse_encode(X, D, **options)
    again, other = sparse_encode(X, D, init=codes, **options)
    assert other["n_iter"].sum() < info["n_iter"].sum()
    np.testing.assert_allclose(again, codes, atol=50 * CLOSE[dtype])


@settings(max_examples=60, deadline=None)
@given(missing=arrays(bool, (3, 20)), seed=st.integers(0, 20), share=st.sampled_from([0.0, 0.02, 0.3]))
def test_any_mask_gets_codes_of_small_gap(missing, seed, share):
    X, D, _ = masked("duplicates", np.float64, n_signals=3, seed=seed)
    missing[missing.all(axis=1), 3] = False
    alpha = typical_alpha(X, D, share)
    codes = sparse_encode(X, D, alpha=alpha, mask=missing, tol=1e-9)
    for x, gone, w in zip(X, missing, codes, strict=True):
        if alpha > 0:
            assert relative_gap(x * ~gone, D * ~gone, w, alpha) <= 1e-8
        else:
            best = np.linalg.lstsq((D * ~gone).T, x * ~gone, rcond=None)[0]
            np.testing.assert_allclose(w @ (D * ~gone), best @ (D * ~gone), atol=1e-4)


@pytest.mark.parametrize("options", [{"alpha": 0.1}, {"algorithm": "omp", "n_nonzero_coefs": 3}])
def test_kinds_of_input(options, dtype, tmp_path):
    X, D, missing = masked("any_norm", dtype, n_signals=300)
    codes = sparse_encode(X, D, mask=missing, **options)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "mask.npy", missing)
    mapped, mapped_mask = (np.load(tmp_path / name, mmap_mode="r") for name in ("X.npy", "mask.npy"))
    holes = np.where(missing, dtype(np.nan), X)
    for other, mask in (
        (csr_array(X), missing),
        (mapped, mapped_mask),
        (X, np.asfortranarray(missing)),
        (X, missing.tolist()),
        (holes, "nan"),
        (np.where(missing, dtype(np.inf), X), missing),
    ):
        np.testing.assert_array_equal(sparse_encode(other, D, mask=mask, **options), codes)


@pytest.mark.parametrize("algorithm", ["lasso_lars", "omp", "ista", "threshold"])
def test_bad_rows_are_named_by_their_number(algorithm):
    X, D = signals_and_atoms("tall", np.float64, n_signals=5000)
    X[4500, 2] = np.nan
    with pytest.raises(ValueError, match="infinity where mask says it is observed, first in row 4500"):
        sparse_encode(X, D, algorithm=algorithm, mask=np.zeros(X.shape, bool), max_iter=1, n_jobs=1)
    X[4500] = np.nan
    with pytest.raises(ValueError, match="every entry of row 4500 of X is missing"):
        sparse_encode(X, D, algorithm=algorithm, mask="nan", max_iter=1, n_jobs=1)


def test_the_gram_matrix_is_not_built():
    X, D, missing = masked("wide", np.float64)
    for options in ({"alpha": 0.1}, {"algorithm": "omp", "n_nonzero_coefs": 3}):
        problem = Problem(D, **options)
        encode(X, problem, mask=missing)
        assert "gram" not in vars(problem)


# ------------------------------------------------------------------------------------------------------------- the path
@pytest.mark.parametrize("form", ["plain", "positive", "elastic net", "weights"])
@pytest.mark.parametrize("name", ["wide", "tall", "any_norm", "duplicates"])
def test_path_of_penalties(name, form, dtype):
    X, D, missing = masked(name, dtype)
    options = lasso_form(form, X, D, 1.0).options | {"tol": TOL[dtype], "mask": missing}
    del options["alpha"]
    alphas = typical_alpha(X, D, 1.0) * np.array([0.1, 2.0, 0.3, 0.05, 0.3])
    path = sparse_encode_path(X, D, alphas, **options)
    assert path.shape == (5, len(X), len(D)) and path.dtype == dtype
    for codes, alpha in zip(path, alphas, strict=True):
        one = sparse_encode(X, D, alpha=alpha, **options)
        np.testing.assert_allclose((codes @ D)[~missing], (one @ D)[~missing], atol=20 * np.sqrt(MOST[dtype]))
        for x, w, gone in zip(X, codes, missing, strict=True):
            weights, ratio = options.get("weights", np.ones(len(D))), options.get("l1_ratio", 1)
            args = alpha * ratio * weights, options.get("positive", False), alpha * (1 - ratio)
            assert relative_gap(x * ~gone, D * ~gone, w, *args) <= MOST[dtype]


@pytest.mark.parametrize(("algorithm", "positive"), [("omp", False), ("omp", True), ("ols", False)])
def test_path_of_counts(algorithm, positive, dtype):
    X, D, missing = masked("any_norm", dtype, 0.7)
    counts = [3, 1, 500, 7]
    options = {"algorithm": algorithm, "positive": positive, "mask": missing}
    path = sparse_encode_path(X, D, n_nonzero_coefs=counts, **options)
    for codes, count in zip(path, counts, strict=True):
        np.testing.assert_array_equal(codes, sparse_encode(X, D, n_nonzero_coefs=count, **options))


def test_long_and_sparse_paths(dtype):
    X, D, missing = masked("wide", dtype, n_signals=40)
    alphas = np.geomspace(1.0, 0.02, 30)
    path = sparse_encode_path(X, D, alphas, mask=missing, tol=TOL[dtype])
    holes = np.where(missing, dtype(np.nan), X)
    sparse = sparse_encode_path(holes, D, alphas, mask="nan", tol=TOL[dtype], sparse_output=True)
    for codes, same in zip(sparse, path, strict=True):
        np.testing.assert_array_equal(codes.toarray(), same)
    one = sparse_encode(X, D, alpha=alphas[-1], mask=missing, tol=TOL[dtype])
    np.testing.assert_allclose((path[-1] @ D)[~missing], (one @ D)[~missing], atol=20 * np.sqrt(MOST[dtype]))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("NaN", "mask must be 'nan'.*got 'NaN'"),
        (np.zeros((8, 3), bool), "of X's shape"),
        (np.zeros((8, 20)), "dtype float64"),
        (np.ones((8, 20), bool), "every entry of row 0"),
    ],
)
def test_bad_masks_of_a_path(mask, message):
    X, D, _ = masked("wide", np.float64)
    with pytest.raises(ValueError, match=message):
        sparse_encode_path(X, D, [0.1], mask=mask)
