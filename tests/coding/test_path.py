"""Codes at many penalties: those that each penalty has alone."""

import numpy as np
import pytest
from coding.problems import MOST, TOL, lasso_form, signals_and_atoms, typical_alpha
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from stored import KINDS, Watched, stored

from reference import relative_gap
from sparseshare import sparse_encode, sparse_encode_path
from sparseshare.sources import BlockError, blocks


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


# ------------------------------------------------------------------------------------------------- rows on disk
ROWS = np.random.default_rng(0).standard_normal((300, 16))
ATOMS = np.random.default_rng(1).standard_normal((24, 16))
PATHS = {
    "lasso": {"alphas": [0.5, 3.0, 1.0]},
    "lasso, many": {"alphas": np.linspace(3, 1, 21), "positive": True},
    "elastic net": {"alphas": [3.0, 1.0], "l1_ratio": 0.9},
    "omp": {"algorithm": "omp", "n_nonzero_coefs": [5, 2]},
    "ols": {"algorithm": "ols", "n_nonzero_coefs": [5, 2]},
    "positive omp": {"algorithm": "omp", "n_nonzero_coefs": [3, 2], "positive": True},
}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_MOST", 64)


@pytest.mark.parametrize("name", PATHS)
def test_rows_on_disk_and_in_blocks(name, small_blocks, tmp_path):
    expected = sparse_encode_path(ROWS, ATOMS, **PATHS[name])
    given = [stored(kind, ROWS, tmp_path) for kind in KINDS] if name == "lasso" else [stored(KINDS[0], ROWS, tmp_path)]
    given += [[csr_array(ROWS[:7]), ROWS[7:200], ROWS[200:]], iter([ROWS[:150], ROWS[150:]])]
    for X in given:
        np.testing.assert_array_equal(sparse_encode_path(X, ATOMS, **PATHS[name]), expected)
    watched = Watched(ROWS)
    codes = sparse_encode_path(watched, ATOMS, sparse_output=True, **PATHS[name])
    assert watched.most == 64 and watched.n_read == 300  # one pass, however many penalties
    for one, other in zip(codes, expected, strict=True):
        assert isinstance(one, csr_array)
        np.testing.assert_array_equal(one.toarray(), other)


@pytest.mark.parametrize("name", PATHS)
def test_a_mask_goes_along_with_its_rows(name, small_blocks, tmp_path):
    X = ROWS[:100]
    mask = np.zeros(X.shape, bool)
    mask[:, :2] = np.random.default_rng(2).random((100, 2)) < 0.5  # few patterns: each has a problem of its own
    missing = np.where(mask, np.nan, X)
    expected = sparse_encode_path(X, ATOMS, mask=mask, **PATHS[name])
    watched = Watched(mask)
    for given, own in (
        (stored("memory map", X, tmp_path), stored("memory map", mask, tmp_path, "mask")),
        (Watched(X), watched),
        (stored("memory map", missing, tmp_path, "missing"), "nan"),
        ((block for block in (missing[:30], missing[30:])), "nan"),
        ((block for block in (X[:30], X[30:])), mask),
    ):
        codes = sparse_encode_path(given, ATOMS, mask=own, **PATHS[name])
        np.testing.assert_array_equal(codes, expected)
    assert watched.most == 64


def test_a_bad_block_is_named(small_blocks):
    bad = ROWS.copy()
    bad[140, 3] = np.nan

    def interrupted():
        yield ROWS[:100]
        raise OSError("the cable is out")

    for options in (PATHS["lasso"], PATHS["omp"]):
        for X, message in (
            (Watched(bad), r"block 2 \(rows 128 to 191\) of X contains NaN or infinity, first in row 140"),
            ([ROWS[:100], bad[100:]], r"block 1 \(rows 100 to 299\) of X contains NaN or infinity, first in row 140"),
            ([ROWS[:100], ROWS[100:, :9]], r"block 1 \(rows 100 to 299\) of X has 9 columns, those before it have 16"),
            (interrupted(), "block 1 of X, whose rows begin at 100, could not be read: OSError: the cable is out"),
        ):
            with pytest.raises(BlockError, match=message):
                sparse_encode_path(X, ATOMS, **options)
    bad[140] = np.nan
    with pytest.raises(BlockError, match=r"block 2 \(rows 128 to 191\) .* every entry of row 12 of X is missing"):
        sparse_encode_path(Watched(bad), ATOMS, [1.0], mask="nan")
    with pytest.raises(ValueError, match="different numbers of features"):
        sparse_encode_path(Watched(ROWS[:, :9]), ATOMS, [1.0])
    with pytest.raises(ValueError, match=r"mask must be .* X's shape \(300, 16\)"):
        sparse_encode_path(Watched(ROWS), ATOMS, [1.0], mask=np.zeros((299, 16), bool))


def test_codes_of_all_blocks_that_miss_the_goal_are_counted(small_blocks):
    with pytest.warns(ConvergenceWarning, match="of 600 codes have not converged"):
        sparse_encode_path(Watched(ROWS), ATOMS, [0.1, 0.01], max_iter=2, tol=1e-9)
