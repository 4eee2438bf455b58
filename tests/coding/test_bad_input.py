"""What is refused, with the words that say why, and what looks odd but is welcome."""

import warnings

import numpy as np
import pandas as pd
import pytest
from coding.problems import LASSO, PURSUITS, signals_and_atoms
from scipy.sparse import csr_array

from sparseshare import sparse_encode

ALGORITHMS = (*LASSO, "lars", *PURSUITS, "threshold")
N, K, FEATURES = 6, 70, 20


@pytest.fixture
def X():
    return signals_and_atoms("wide", np.float64)[0]


@pytest.fixture
def D():
    return signals_and_atoms("wide", np.float64)[1]


def put(array, where, value):
    array = np.array(array)
    array[where] = value
    return array


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_in_the_signals(X, D, algorithm, value):
    bad = put(X, (3, 5), value)
    for signals in (bad, bad.astype(np.float32), csr_array(bad), np.asfortranarray(bad)):
        with pytest.raises(ValueError, match="X contains NaN or infinity, first in row 3.*mask='nan'"):
            sparse_encode(signals, D.astype(signals.dtype), algorithm=algorithm)


def test_it_is_found_in_any_tile_and_thread(X, D):
    with pytest.raises(ValueError, match="first in row 1999"):
        sparse_encode(put(np.tile(X, (400, 1)), (1999, 0), np.nan), D, alpha=0.1, n_jobs=2)
    for weights in (put(np.ones(K), 0, 0), np.ones((N, K))):
        with pytest.raises(ValueError, match="X contains NaN or infinity"):
            sparse_encode(put(X, (3, 5), np.nan), D, weights=weights)


NAN = np.full((N, FEATURES), np.nan)
BAD = [
    # signals and atoms
    ({"X": np.ones((N, 19))}, "different numbers of features.*20.*19"),
    ({"dictionary": np.ones((K, 19))}, "different numbers of features"),
    ({"X": np.ones(FEATURES)}, "Expected 2D array, got 1D array"),
    ({"X": 1.0}, "Expected 2D array, got scalar"),
    ({"X": np.ones((2, 3, FEATURES))}, "dim 3.*2-D"),
    ({"dictionary": np.ones(FEATURES)}, "Expected 2D array, got 1D array"),
    ({"X": np.ones((0, FEATURES))}, r"0 sample\(s\)"),
    ({"X": np.ones((N, 0)), "dictionary": np.ones((K, 0))}, r"0 feature\(s\)"),
    ({"X": csr_array((0, FEATURES))}, r"0 sample\(s\)"),
    ({"dictionary": np.ones((0, FEATURES))}, "no atoms.*at least 1"),
    ({"X": np.ones((N, FEATURES), complex)}, "Complex data not supported"),
    ({"dictionary": np.ones((K, FEATURES), complex)}, "Complex data not supported"),
    ({"X": np.full((N, FEATURES), "a")}, "X must hold numbers"),
    ({"X": np.full((N, FEATURES), "a", object)}, "X must hold numbers"),
    ({"dictionary": np.full((K, FEATURES), np.nan)}, "dictionary contains NaN or infinity"),
    ({"X": np.ma.masked_array(np.ones((N, FEATURES)))}, "mask"),
    # options
    ({"algorithm": "lassolars"}, "'algorithm' parameter of sparse_encode must be 'auto', .*got 'lassolars'"),
    ({"algorithm": None}, "'algorithm' parameter"),
    ({"alpha": -0.1}, "'alpha' parameter of sparse_encode must be a finite number of at least 0.*got -0.1"),
    ({"alpha": np.nan}, "'alpha' parameter"),
    ({"alpha": np.inf}, "'alpha' parameter"),
    ({"alpha": "1"}, "'alpha' parameter"),
    ({"alpha": put(np.ones(N), 2, -1)}, "'alpha' parameter.*one such number a signal.*from -1"),
    ({"alpha": put(np.ones(N), 2, np.nan)}, "'alpha' parameter"),
    ({"alpha": np.ones((N, 1))}, "'alpha' parameter.*shape"),
    ({"alpha": np.ones(N - 1)}, "alpha has 5 entries for 6 signals"),
    ({"max_iter": 0}, "'max_iter' parameter"),
    ({"tol": -1e-3}, "'tol' parameter"),
    ({"l1_ratio": 0}, "'l1_ratio' parameter.*above 0"),
    ({"l1_ratio": 1.5}, "'l1_ratio' parameter.*at most 1"),
    ({"l1_ratio": 0.5, "alpha": np.ones(N)}, "l1_ratio below 1 needs one alpha"),
    ({"n_jobs": 0}, "'n_jobs' parameter"),
    ({"n_jobs": 1.5}, "'n_jobs' parameter"),
    ({"positive": "yes"}, "'positive' parameter"),
    ({"sparse_output": 1}, "'sparse_output' parameter"),
    ({"return_info": None}, "'return_info' parameter"),
    ({"device": "tpu"}, "device"),
    ({"algorithm": "lars", "positive": True}, "Positive constraint not supported for 'lars'"),
    ({"algorithm": "ols", "positive": True}, "Positive constraint not supported for 'ols'"),
    ({"algorithm": "omp", "n_nonzero_coefs": 0}, "'n_nonzero_coefs' parameter.*integer of at least 1"),
    ({"algorithm": "omp", "n_nonzero_coefs": 2.5}, "'n_nonzero_coefs' parameter"),
    ({"algorithm": "omp", "n_nonzero_coefs": -np.ones(N, int)}, "'n_nonzero_coefs' parameter.*one integer"),
    ({"algorithm": "omp", "n_nonzero_coefs": np.ones(N)}, "'n_nonzero_coefs' parameter.*dtype float64"),
    ({"algorithm": "omp", "n_nonzero_coefs": np.ones(N + 1, int)}, "n_nonzero_coefs has 7 entries for 6 signals"),
    ({"algorithm": "omp", "max_error": -1.0}, "'max_error' parameter"),
    ({"algorithm": "omp", "max_error": np.ones(N + 1)}, "max_error has 7 entries"),
    ({"max_l1_norm": -1.0}, "'max_l1_norm' parameter"),
    ({"max_l1_norm": np.ones(N + 1)}, "max_l1_norm has 7 entries"),
    # options that another algorithm would use
    ({"algorithm": "lasso_cd", "max_error": 1.0}, "max_error is not used by algorithm='lasso_cd'; it is by lasso_lars"),
    ({"algorithm": "omp", "max_l1_norm": 1.0}, "max_l1_norm is not used by algorithm='omp'"),
    ({"algorithm": "omp", "weights": np.ones(K)}, "weights is not used by algorithm='omp'"),
    ({"algorithm": "threshold", "l1_ratio": 0.5}, "l1_ratio is not used by algorithm='threshold'"),
    # arrays beside them
    ({"gram": np.eye(K + 1)}, r"gram must have the shape \(n_components, n_components\) = \(70, 70\), got \(71, 71\)"),
    ({"gram": np.full((K, K), np.nan)}, "gram contains NaN or infinity"),
    ({"gram": np.eye(K) * 1j}, "gram"),
    ({"cov": np.ones((N, K))}, r"cov must have the shape \(n_components, n_samples\) = \(70, 6\)"),
    ({"cov": np.full((K, N), np.nan)}, "cov contains NaN or infinity"),
    ({"cov": np.ones((K, N), complex)}, "cov"),
    ({"init": np.ones((K, N))}, r"init must have the shape \(n_samples, n_components\) = \(6, 70\)"),
    ({"init": np.full((N, K), np.nan)}, "init contains NaN or infinity"),
    ({"weights": np.ones(K - 1)}, r"weights must have the shape \(n_components,\) = \(70,\)"),
    ({"weights": np.ones((N + 1, K))}, "weights has 7 entries for 6 signals"),
    ({"weights": np.ones((1, 1, K))}, "weights must have the shape"),
    ({"weights": -np.ones(K)}, "weights must be non-negative"),
    ({"weights": np.full(K, np.nan)}, "weights must be non-negative"),
    ({"weights": np.zeros((N, K))}, "weights of 0.*not by signal"),
    ({"weights": put(np.ones(K), 0, 0), "positive": True}, "weights of 0.*positive"),
    ({"mask": np.zeros((N, FEATURES - 1), bool)}, "mask must be 'nan' or a boolean array of X's shape.*shape"),
    ({"mask": np.zeros((N, FEATURES))}, "mask must be 'nan' or a boolean array.*dtype float64"),
    ({"mask": "NaN"}, "mask must be 'nan'.*got 'NaN'"),
    ({"mask": put(np.zeros((N, FEATURES), bool), 2, True)}, "every entry of row 2 of X is missing"),
    ({"X": put(np.ones((N, FEATURES)), 4, np.nan), "mask": "nan"}, "every entry of row 4 of X is missing"),
    ({"X": put(np.ones((N, FEATURES)), (4, 1), np.inf), "mask": "nan"}, "NaN or infinity where mask says.*row 4"),
    ({"X": NAN, "mask": np.zeros((N, FEATURES), bool)}, "NaN or infinity where mask says.*row 0"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD, ids=[f"{k}-{'-'.join(c)}" for k, (c, _) in enumerate(BAD)])
def test_refused(X, D, change, message):
    arguments = {"X": X, "dictionary": D} | change
    with pytest.raises((ValueError, TypeError), match=message):
        sparse_encode(arguments.pop("X"), arguments.pop("dictionary"), **arguments)


@pytest.mark.parametrize("algorithm", ["lasso_lars", "omp", "threshold"])
def test_odd_arrays_are_welcome(X, D, algorithm):
    options = {"algorithm": algorithm}
    codes = sparse_encode(X, D, **options)
    wide = np.repeat(X, 2, axis=1)[:, ::2]
    locked_X, locked_D = X.copy(), D.copy()
    for array in (locked_X, locked_D):
        array.setflags(write=False)
    for signals, atoms in (
        (wide, np.repeat(D, 2, axis=0)[::2]),
        (np.asfortranarray(X), np.asfortranarray(D)),
        (locked_X, locked_D),
        (X.tolist(), D.tolist()),
        (pd.DataFrame(X), pd.DataFrame(D)),
        (X.astype(object), D.astype(object)),
        (X.astype(">f8"), D.astype(">f8")),
        (csr_array(X), csr_array(D)),
        (X[::-1][::-1], D),
    ):
        np.testing.assert_array_equal(sparse_encode(signals, atoms, **options), codes)
    mixed = sparse_encode(X, D.astype(np.float32), **options)
    assert mixed.dtype == np.float64
    flags = dict(gram=(D @ D.T)[:, ::-1][:, ::-1], n_jobs=np.int64(1), check_input=False, copy_cov=False, device="cpu")
    np.testing.assert_allclose(sparse_encode(X, D, **flags, **options), codes, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.int8, np.int64, np.uint8, bool])
@pytest.mark.parametrize("algorithm", ["lasso_lars", "omp"])
def test_numbers_of_other_types_are_computed_in_float64(X, D, kind, algorithm):
    signals, atoms = (np.abs(10 * a).astype(kind) for a in (X, D))
    codes = sparse_encode(signals, atoms, algorithm=algorithm)
    assert codes.dtype == np.float64
    np.testing.assert_array_equal(codes, sparse_encode(signals.astype(float), atoms.astype(float), algorithm=algorithm))


SCALES = [1e-30, 1e30, 2.0**-100, 2.0**100]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_signals_of_any_scale(algorithm, scale, dtype):
    X, D = signals_and_atoms("wide", dtype)
    options = {"algorithm": algorithm, "tol": 1e-5, "max_iter": 100_000}
    penalised = algorithm in (*LASSO, "threshold")
    codes = sparse_encode(X, D, **options, **({"alpha": 0.25} if penalised else {}))
    scaled = sparse_encode(X * dtype(scale), D, **options, **({"alpha": 0.25 * scale} if penalised else {}))
    if scale in (2.0**-100, 2.0**100):
        np.testing.assert_array_equal(scaled, codes * dtype(scale))
    else:
        np.testing.assert_allclose(scaled / dtype(scale), codes, atol=1e-3 if dtype == np.float32 else 1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_atoms_of_any_scale(algorithm, scale, dtype):
    X, D = signals_and_atoms("wide", dtype)
    options = {"algorithm": algorithm, "tol": 1e-5, "max_iter": 100_000}
    penalised = algorithm in (*LASSO, "threshold")
    codes = sparse_encode(X, D, **options, **({"alpha": 0.25} if penalised else {}))
    scaled = sparse_encode(X, D * dtype(scale), **options, **({"alpha": 0.25 * scale} if penalised else {}))
    factor = dtype(scale) if algorithm == "threshold" else 1 / dtype(scale)
    np.testing.assert_allclose(scaled / factor, codes, atol=1e-3 if dtype == np.float32 else 1e-5)
    assert scaled.any()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bound", ["max_error", "max_l1_norm"])
def test_bounds_of_any_scale(bound, scale):
    X, D = signals_and_atoms("wide", np.float64)
    power = 2 if bound == "max_error" else 1
    codes = sparse_encode(X, D, **{bound: 0.5})
    scaled = sparse_encode(X * scale, D, **{bound: 0.5 * scale**power})
    np.testing.assert_allclose(scaled / scale, codes, atol=1e-5)
    scaled = sparse_encode(X, D * scale, **{bound: 0.5 if bound == "max_error" else 0.5 / scale})
    np.testing.assert_allclose(scaled * scale, codes, atol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_signals_of_all_scales_in_one_call(algorithm, dtype):
    X, D = signals_and_atoms("wide", dtype)
    options = {"algorithm": algorithm}
    sizes = 2.0 ** np.array([-90, 0, 90, 10, -40, 0])
    if algorithm in (*LASSO, "threshold"):
        options["alpha"] = 0.25 * sizes
    codes = sparse_encode((X * sizes[:, None]).astype(dtype), D, **options)
    for i in range(N):
        own = {**options, **({"alpha": options["alpha"][i]} if "alpha" in options else {})}
        np.testing.assert_array_equal(
            codes[i : i + 1], sparse_encode((X[i : i + 1] * sizes[i]).astype(dtype), D, **own)
        )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_atoms_of_zeros_and_a_single_feature_or_atom(algorithm, dtype):
    X, D = signals_and_atoms("wide", dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not sparse_encode(X, np.zeros_like(D), algorithm=algorithm).any()
        for signals, atoms in ((X, D[:1]), (X[:, :1], D[:, :1]), (X[:1], D), (X[:, :1], D[:1, :1])):
            codes = sparse_encode(signals, atoms, algorithm=algorithm)
            assert codes.shape == (len(signals), len(atoms)) and np.all(np.isfinite(codes))
