"""Signals with masks, weights and free atoms on a GPU: certified, and with the objectives of the CPU."""

import numpy as np
import pytest
from kernels.tile import problem
from scipy.sparse import csr_array, issparse

from reference import relative_gap
from sparseshare import sparse_encode, sparse_encode_path
from sparseshare.coding.masks import check_mask, hide_missing


def masked(name="wide", dtype=np.float64, share=0.3, n_signals=6):
    X, D = (a.astype(dtype) for a in problem(name, n_signals))
    missing = np.random.default_rng(0).random(X.shape) < share
    missing[:, 0] = False
    return X, D, missing


def gaps(X, D, codes, alpha, missing=None, weights=None, positive=False):
    """Relative duality gaps in float64, of each signal's own problem."""
    found = []
    for i, (x, w) in enumerate(zip(X.astype(float), codes.astype(float), strict=True)):
        seen = slice(None) if missing is None else ~missing[i]
        own = np.ones(len(D)) if weights is None else np.broadcast_to(weights, (len(X), len(D)))[i]
        kept = np.isfinite(own)
        assert (w[~kept] == 0).all()
        atoms = D[kept][:, seen].astype(float) / own[kept, None]
        found.append(relative_gap(x[seen], atoms, w[kept] * own[kept], np.broadcast_to(alpha, len(X))[i], positive))
    return np.array(found)


@pytest.mark.parametrize(
    ("form", "algorithm", "dtype"),
    [
        ("plain", "lasso_lars", np.float64),
        ("plain", "fista", np.float32),
        ("positive", "lasso_cd", np.float64),
        ("weights", "lasso_lars", np.float32),
        ("weights of signals", "lasso_cd", np.float64),
        ("mask and weights of signals", "lasso_lars", np.float64),
    ],
)
def test_lassos_together(gpu, dtype, algorithm, form):
    X, D, missing = masked(dtype=dtype, n_signals=3)
    options, rng = {"alpha": np.linspace(0.2, 0.4, 3)}, np.random.default_rng(1)
    if "weights" in form:
        shape = (3, len(D)) if "signals" in form else len(D)
        options["weights"] = rng.uniform(0.5, 2, shape)
        options["weights"][..., 4] = np.inf
    if form != "weights of signals":
        options["mask"] = missing
    tol = 1e-4 if dtype == np.float32 else 1e-5
    options |= {"algorithm": algorithm, "tol": tol, "positive": form == "positive"}
    codes, info = sparse_encode(X, D, device="cuda", return_info=True, **options)
    assert type(codes) is np.ndarray and codes.dtype == dtype
    assert info["converged"].all() and (info["gap"] <= 1.01 * tol).all()
    assert (gaps(X, D, codes, options["alpha"], options.get("mask"), options.get("weights"), form == "positive")
            <= 1.02 * tol + 1e-6 * (dtype == np.float32)).all()  # fmt: skip
    resident = sparse_encode(gpu.asarray(X), gpu.asarray(D), sparse_output=True, **options)
    assert not issparse(resident)
    np.testing.assert_array_equal(resident.get().toarray(), codes)


def test_elastic_net_with_a_mask_and_a_start(gpu):
    X, D, missing = masked(n_signals=2)
    options = {"mask": missing, "alpha": 0.3, "l1_ratio": 0.6, "algorithm": "fista", "tol": 1e-7}
    expected = sparse_encode(X, D, **options)
    codes, info = sparse_encode(X, D, device="cuda", return_info=True, **options)
    assert info["converged"].all()
    np.testing.assert_allclose(codes, expected, atol=1e-3)
    again, later = sparse_encode(X, D, device="cuda", init=codes, return_info=True, **(options | {"tol": 1.1e-7}))
    assert (later["n_iter"] == 0).all()
    np.testing.assert_allclose(again, codes, rtol=1e-12)


def test_nan_is_missing(gpu):
    X, D, missing = masked(n_signals=2)
    X[missing] = np.nan
    codes = sparse_encode(X, D, alpha=0.4, mask="nan", tol=1e-4, device="cuda")
    np.testing.assert_array_equal(codes, sparse_encode(X, D, alpha=0.4, mask=missing, tol=1e-4, device="cuda"))
    resident = sparse_encode(gpu.asarray(X), gpu.asarray(D), alpha=0.4, mask="nan", tol=1e-4)
    np.testing.assert_array_equal(gpu.get(resident), codes)
    resident = sparse_encode(gpu.asarray(X), gpu.asarray(D), alpha=0.4, mask=gpu.asarray(missing), tol=1e-4)
    np.testing.assert_array_equal(gpu.get(resident), codes)


def test_a_path_of_masked_signals(gpu):
    X, D, missing = masked(n_signals=4)
    alphas = [0.4, 0.2]
    path = sparse_encode_path(X, D, alphas, mask=missing, tol=1e-6, device="cuda")
    for codes, alpha in zip(path, alphas, strict=True):
        assert (gaps(X, D, gpu.get(codes), alpha, missing) <= 1.02e-6).all()


def test_thresholds(gpu):
    X, D, missing = masked()
    weights = np.random.default_rng(0).uniform(0.5, 2, (6, len(D)))
    weights[2, 5] = np.inf
    for options in ({"mask": missing}, {"weights": weights}, {"mask": missing, "weights": weights, "positive": True}):
        options = {"algorithm": "threshold", "alpha": 0.2, **options}
        codes = sparse_encode(X, D, device="cuda", **options)
        np.testing.assert_allclose(codes, sparse_encode(X, D, **options), atol=1e-12)


@pytest.mark.parametrize(("where", "options"), [
    ("host", {"algorithm": "ols", "n_nonzero_coefs": 3}),
    ("device", {"algorithm": "omp", "n_nonzero_coefs": 3, "positive": True}),
    ("sparse", {"algorithm": "mp", "n_nonzero_coefs": 3}),
    ("device", {"algorithm": "lasso_lars", "max_error": 0.3}),
    ("host", {"algorithm": "lasso_cd", "alpha": 0.2, "weights": "free"}),
], ids=str)  # fmt: skip
def test_signals_with_the_same_mask_share_a_problem(gpu, where, options):
    X, D, missing = masked(n_signals=3)
    missing[1] = missing[0]
    if "weights" in options:
        options = options | {"weights": np.where(np.arange(len(D)) < 2, 0.0, 1.0)}
    expected, about = sparse_encode(X, D, mask=missing, return_info=True, **options)
    signals = gpu.asarray(X) if where == "device" else csr_array(X) if where == "sparse" else X
    codes, info = sparse_encode(
        signals, D, mask=missing, return_info=True, device="cuda", sparse_output=True, **options
    )
    assert issparse(codes) == (where != "device")
    codes = codes.toarray() if issparse(codes) else codes.get().toarray()
    np.testing.assert_allclose(codes, expected, atol=1e-2)
    for name in ("residual", "gap"):
        if name in about:
            np.testing.assert_allclose(info[name], about[name], atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "l1_ratio", "sparse_output"), [(np.float32, 1.0, True), (np.float64, 0.7, False), (np.float64, 1.0, True)]
)
def test_free_atoms(gpu, dtype, l1_ratio, sparse_output):
    X, D = (a.astype(dtype) for a in problem("wide", 6))
    weights = np.ones(len(D))
    weights[[3, 8, 9]] = 0
    options = {"alpha": 0.3, "weights": weights, "l1_ratio": l1_ratio, "algorithm": "lasso_cd"}
    expected = sparse_encode(X, D, **options)
    options["sparse_output"] = sparse_output
    hosted = sparse_encode(X, D, device="cuda", **options)
    resident = sparse_encode(gpu.asarray(X), gpu.asarray(D), **options)
    resident = resident.get()
    if sparse_output:
        assert issparse(hosted)
        hosted, resident = hosted.toarray(), resident.toarray()
    assert hosted.dtype == dtype
    np.testing.assert_allclose(hosted, expected, atol=3e-3 if dtype == np.float32 else 3e-3)
    np.testing.assert_array_equal(hosted, resident)

    def objective(W):
        W = W.astype(float)
        norms = l1_ratio * np.abs(W) @ weights + 0.5 * (1 - l1_ratio) * (W**2).sum(axis=1)
        return 0.5 * ((X - W @ D) ** 2).sum(axis=1) + 0.3 * norms

    np.testing.assert_allclose(objective(hosted), objective(expected), rtol=1e-5, atol=1e-5)


def test_bad_signals_and_masks(gpu):
    X, D, missing = masked()
    X[3, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity where mask says it is observed, first in row 3"):
        sparse_encode(X, D, mask=missing, device="cuda")
    with pytest.raises(ValueError, match="NaN or infinity; for missing entries"):
        sparse_encode(X, D, weights=np.where(np.arange(len(D)) < 2, 0.0, 1.0), device="cuda")
    missing[2] = True
    X[3, 0] = 0
    for X_, where in ((X, "host"), (gpu.asarray(X), "device")):
        with pytest.raises(ValueError, match="every entry of row 2 of X is missing"):
            hide_missing(X_, gpu.asarray(missing) if where == "device" else missing)
    with pytest.raises(ValueError, match="mask must be 'nan' or a boolean array"):
        check_mask(gpu.asarray(missing[:2]), X.shape)


@pytest.mark.parametrize(("algorithm", "dtype"), [("lasso_lars", np.float32), ("fista", np.float64)])
def test_masks_that_leave_little_of_all_atoms(gpu, algorithm, dtype):
    """Where a mask leaves 2**-60 of every atom, codes are those of a dictionary of that size."""
    X, D, _ = masked(dtype=dtype, n_signals=2)
    near = np.arange(X.shape[1]) < 10
    missing = np.array([~near, near])
    size = np.where(near, dtype(2.0**-60), dtype(1))
    options = {"algorithm": algorithm, "mask": missing, "tol": 1e-5, "device": "cuda"}
    plain = sparse_encode(X, D, alpha=0.2, **options)
    codes = sparse_encode(X, D * size, alpha=np.array([0.2 * 2.0**-60, 0.2]), **options)
    codes[0] *= dtype(2.0**-60)
    np.testing.assert_allclose(codes, plain, atol=1e-2)
    assert (gaps(X, D, codes, 0.2, missing) <= 1.3e-5).all()
