"""Pursuits as users call them: against plain references, in their bounds, and for atoms of any norm."""

import numpy as np
import pytest
from coding.problems import PURSUITS, signals_and_atoms
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reference import iht, mp, ols, omp, rows
from sparseshare import sparse_encode, sparse_encode_path

ROUNDING = {np.float32: 1e-5, np.float64: 1e-10}
GREEDY = {"omp": omp, "ols": ols}


def residuals(X, D, codes):
    return np.sum((X.astype(float) - codes.astype(float) @ D.astype(float)) ** 2, axis=1)


def energies(X):
    return np.sum(X.astype(float) ** 2, axis=1)


def untied(x, D, algorithm, count, margin):
    """Whether every step of the reference chose by more than a margin."""
    codes = [GREEDY[algorithm](x, D, k) for k in range(count)]
    for w in codes:
        rest, on = D.astype(float), np.flatnonzero(w)
        if algorithm == "ols" and len(on):
            basis = np.linalg.qr(rest[on].T)[0]
            rest = rest - (rest @ basis) @ basis.T
        norms = np.linalg.norm(rest, axis=1)
        score = np.abs(rest @ (x - w @ D)) / np.where(norms > 1e-3 * np.linalg.norm(D, axis=1), norms, np.inf)
        score[on] = 0
        second, first = np.sort(score)[-2:]
        if first - second <= margin * np.linalg.norm(x):
            return False
    return True


@settings(max_examples=40)
@given(
    st.sampled_from(["wide", "tall", "any_norm", "zero_atoms", "coherent"]), st.sampled_from(list(GREEDY)),
    st.sampled_from([np.float32, np.float64]), st.integers(1, 6), st.integers(0, 10_000),
)  # fmt: skip
def test_supports_are_the_reference_s_where_nothing_is_tied(name, algorithm, dtype, count, seed):
    X, D = signals_and_atoms(name, dtype, seed, n_signals=2)
    assume(
        untied(
            X[0], D, algorithm, count, 100 * np.sqrt(count) * np.finfo(dtype).eps * (50 if name == "coherent" else 1)
        )
    )
    codes, info = sparse_encode(X, D, algorithm=algorithm, n_nonzero_coefs=count, return_info=True)
    expected = rows(GREEDY[algorithm], X.astype(float), D.astype(float), count)
    np.testing.assert_array_equal(codes != 0, expected != 0)
    level = ROUNDING[dtype] * energies(X) * (20 if name == "coherent" else 1)
    assert np.all(np.abs(residuals(X, D, codes) - residuals(X, D, expected)) <= level)
    np.testing.assert_allclose(info["residual"], residuals(X, D, codes), atol=level.max())
    assert info["converged"].all() and not codes[-1].any()


@pytest.mark.parametrize("name", ["duplicates", "low_rank"])
@pytest.mark.parametrize("algorithm", GREEDY)
def test_residuals_are_the_reference_s_where_atoms_are_tied(algorithm, name):
    X, D = signals_and_atoms(name, np.float64)
    for count in (1, 3, 6, 20):
        codes = sparse_encode(X, D, algorithm=algorithm, n_nonzero_coefs=count)
        expected = residuals(X, D, rows(GREEDY[algorithm], X, D, count))
        np.testing.assert_allclose(residuals(X, D, codes), expected, atol=1e-9 * energies(X).max())


@pytest.mark.parametrize("name", ["wide", "coherent", "any_norm", "duplicates"])
def test_two_atoms_of_orthogonal_least_squares_are_never_worse_than_those_of_omp(name, dtype):
    X, D = signals_and_atoms(name, dtype, n_signals=200)
    for count in (1, 2):
        least, greedy = (
            residuals(X, D, sparse_encode(X, D, algorithm=algorithm, n_nonzero_coefs=count))
            for algorithm in ("ols", "omp")
        )
        assert np.all(least <= greedy + 10 * ROUNDING[dtype] * energies(X))


@pytest.mark.parametrize("algorithm", PURSUITS)
def test_counts_of_signals_are_kept_one_by_one(algorithm, dtype):
    X, D = signals_and_atoms("wide", dtype)
    counts = np.array([0, 1, 2, 3, 8, 4])
    codes = sparse_encode(X, D, algorithm=algorithm, n_nonzero_coefs=counts)
    used = np.count_nonzero(codes, axis=1)
    assert np.all(used <= counts)
    if algorithm in GREEDY:
        np.testing.assert_array_equal(used[:-1], counts[:-1])
    for count in np.unique(counts[1:]):
        alike = counts == count
        np.testing.assert_array_equal(
            codes[alike], sparse_encode(X, D, algorithm=algorithm, n_nonzero_coefs=count)[alike]
        )


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("algorithm", ["omp", "ols", "mp"])
def test_errors_of_signals_and_counts_whichever_comes_first(algorithm, positive, dtype):
    if positive and algorithm == "ols":
        pytest.skip("has no positive form")
    X, D = signals_and_atoms("wide", dtype)
    D = np.abs(D) if positive else D
    X = np.abs(X) if positive else X
    share = np.array([0.9, 0.5, 0.3, 0.2, 0.1, 0.1])
    options = {"algorithm": algorithm, "positive": positive, "max_iter": 5000}
    targets = share * energies(X)
    codes, info = sparse_encode(X, D, max_error=targets, return_info=True, **options)
    reached = residuals(X, D, codes) <= targets + ROUNDING[dtype] * energies(X)
    used = np.count_nonzero(codes, axis=1)
    assert positive or reached.all()
    np.testing.assert_allclose(info["residual"], residuals(X, D, codes), atol=ROUNDING[dtype] * energies(X).max())
    if not positive:  # one atom fewer is too few
        for i in np.flatnonzero(used > 1):
            fewer = sparse_encode(X[i : i + 1], D, n_nonzero_coefs=used[i] - 1, **options)
            assert algorithm == "mp" or residuals(X[i : i + 1], D, fewer)[0] > targets[i]
    both = sparse_encode(X, D, max_error=targets, n_nonzero_coefs=2, **options)
    assert np.all(np.count_nonzero(both, axis=1) <= 2)
    np.testing.assert_array_equal(both[used <= 2], codes[used <= 2])
    few = sparse_encode(X, D, n_nonzero_coefs=2, **options)
    if algorithm in GREEDY and not positive:
        np.testing.assert_array_equal(both[used > 2], few[used > 2])


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("algorithm", PURSUITS)
def test_atoms_of_any_norm_give_the_reconstruction_of_unit_atoms(algorithm, positive, dtype):
    if positive and algorithm == "ols":
        pytest.skip("has no positive form")
    X, D = signals_and_atoms("wide", dtype)
    options = {"algorithm": algorithm, "n_nonzero_coefs": 4, "positive": positive}
    codes = sparse_encode(X, D, **options)
    sizes = np.exp2(np.random.default_rng(0).integers(-20, 20, len(D))).astype(dtype)[:, None]
    for sizes_now in (sizes, dtype(1000) * np.ones_like(sizes)):
        other = sparse_encode(X, D * sizes_now, **options)
        np.testing.assert_array_equal(other != 0, codes != 0)
        np.testing.assert_allclose(other * sizes_now.T, codes, rtol=2e-3 if dtype == np.float32 else 1e-7)


@pytest.mark.parametrize("name", ["wide", "tall", "low_rank"])
@pytest.mark.parametrize("algorithm", [*PURSUITS, "lars"])
def test_counts_above_the_possible_are_cut(algorithm, name, dtype):
    X, D = signals_and_atoms(name, dtype)
    for count in (10**6, np.full(len(X), 10**6)):
        codes, info = sparse_encode(X, D, algorithm=algorithm, n_nonzero_coefs=count, return_info=True)
        assert np.all(np.isfinite(codes))
    if algorithm in GREEDY:
        best = np.linalg.lstsq(D.T.astype(float), X.T.astype(float), rcond=1e-5)[0].T
        np.testing.assert_allclose(residuals(X, D, codes), residuals(X, D, best), atol=ROUNDING[dtype] * 10)
        np.testing.assert_allclose(info["residual"], residuals(X, D, codes), atol=ROUNDING[dtype] * 10)


@pytest.mark.parametrize("name", ["wide", "tall", "any_norm"])
def test_positive_omp(name, dtype):
    X, D = signals_and_atoms(name, dtype)
    codes, info = sparse_encode(X, D, algorithm="omp", n_nonzero_coefs=4, positive=True, return_info=True)
    assert np.all(codes >= 0) and np.all(np.count_nonzero(codes, axis=1) <= 4)
    expected = rows(omp, X.astype(float), D.astype(float), 4, positive=True)
    np.testing.assert_allclose(residuals(X, D, codes), residuals(X, D, expected), atol=ROUNDING[dtype] * 10)
    np.testing.assert_allclose(info["residual"], residuals(X, D, codes), atol=ROUNDING[dtype] * 10)


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("name", ["wide", "tall", "any_norm"])
def test_matching_pursuit_and_hard_thresholding_are_the_reference_s(name, positive):
    X, D = signals_and_atoms(name, np.float64)
    codes = sparse_encode(X, D, algorithm="mp", n_nonzero_coefs=5, max_error=1e-3, positive=positive)
    expected = rows(mp, X, D, 5, max_error=1e-3, positive=positive)
    np.testing.assert_allclose(codes, expected, atol=1e-8 * np.abs(expected).max())
    codes = sparse_encode(X, D, algorithm="iht", n_nonzero_coefs=4, tol=1e-9, positive=positive)
    # thresholding sees atoms of unit norm, whatever norm they have
    norms = np.linalg.norm(D, axis=1)
    expected = rows(iht, X, D / norms[:, None], 4, tol=1e-9, positive=positive) / norms
    np.testing.assert_allclose(codes, expected, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("algorithm", GREEDY)
def test_one_pass_over_counts(algorithm, dtype):
    X, D = signals_and_atoms("any_norm", dtype)
    counts = [3, 1, 500, 7]
    path = sparse_encode_path(X, D, algorithm=algorithm, n_nonzero_coefs=counts)
    assert path.shape == (4, len(X), len(D)) and path.dtype == dtype
    for codes, count in zip(path, counts, strict=True):
        alone = sparse_encode(X, D, algorithm=algorithm, n_nonzero_coefs=count)
        np.testing.assert_array_equal(codes != 0, alone != 0)
        np.testing.assert_array_equal(codes, alone)


def test_masked_entries_do_not_count(dtype):
    X, D = signals_and_atoms("any_norm", dtype)
    missing = np.random.default_rng(0).random(X.shape) < 0.3
    for algorithm, plain in GREEDY.items():
        codes, info = sparse_encode(X, D, algorithm=algorithm, n_nonzero_coefs=3, mask=missing, return_info=True)
        for x, w, gone, residual in zip(X, codes, missing, info["residual"], strict=True):
            expected = plain(x[~gone].astype(float), D[:, ~gone].astype(float), 3)
            np.testing.assert_array_equal(w != 0, expected != 0)
            left = np.sum((x - w @ D)[~gone].astype(float) ** 2)
            assert residual == pytest.approx(left, abs=ROUNDING[dtype] * 10)
