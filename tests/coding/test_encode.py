"""Codes of the lasso in all its forms, held to duality gaps that are recomputed from signals, atoms and codes alone."""

import warnings

import numpy as np
import pytest
from coding.problems import ENOUGH, FORMS, LASSO, MOST, TOL, lasso_form, signals_and_atoms, typical_alpha
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernels.tile import PROBLEMS
from scipy.sparse import csr_array, issparse
from sklearn.exceptions import ConvergenceWarning
from stored import KINDS, Watched, Written, stored

from reference import bounded_error_gap, bounded_norm_gap, lars, lasso_objective, relative_gap, rows, threshold
from sparseshare import sparse_encode
from sparseshare.coding import Problem, encode, open_codes
from sparseshare.datasets import photo_patches
from sparseshare.sources import BlockError, blocks


def settings_of(algorithm, dtype):
    """Proximal gradient without momentum takes its time for each further digit."""
    tol = 1e-5 if algorithm == "ista" else TOL[dtype]
    return {"algorithm": algorithm, "tol": tol, "max_iter": ENOUGH}, max(MOST[dtype], 1.1 * tol)


def check(form, D, algorithm, dtype):
    options, most = settings_of(algorithm, dtype)
    codes, info = sparse_encode(form.signals, D, return_info=True, **options, **form.options)
    assert codes.dtype == dtype and np.all(np.isfinite(codes)) and info["converged"].all()
    assert not form.positive or np.all(codes >= 0)
    assert np.all(codes[np.isinf(form.penalties)] == 0)
    gaps = form.gaps(D, codes)
    assert np.all(gaps <= most)
    return codes, gaps, info


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("algorithm", LASSO)
def test_the_gap_of_every_form_is_within_the_tolerance_and_never_claimed_smaller(algorithm, form, dtype):
    X, D = signals_and_atoms("any_norm", dtype)
    codes, gaps, info = check(lasso_form(form, X, D, 0.1), D, algorithm, dtype)
    assert np.any(codes[:-1]) and not np.any(codes[-1])
    if "free" not in form:  # there it is relative to what those atoms leave of the signal
        slack = {np.float32: 1e-6, np.float64: 1e-14}[dtype]
        assert np.all(info["gap"] >= gaps - slack)
        np.testing.assert_allclose(info["gap"], gaps, atol=MOST[dtype])


@settings(max_examples=30)
@given(
    st.sampled_from(PROBLEMS), st.sampled_from(FORMS), st.sampled_from(LASSO),
    st.sampled_from([np.float32, np.float64]), st.floats(0.05, 1.2), st.integers(0, 1000),
)  # fmt: skip
def test_the_gap_on_any_problem(name, form, algorithm, dtype, share, seed):
    assume(algorithm != "ista" or name != "coherent")  # hundreds of thousands of steps
    X, D = signals_and_atoms(name, dtype, seed)
    check(lasso_form(form, X, D, share, seed), D, algorithm, dtype)


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("name", ["low_rank", "duplicates", "coherent"])
def test_the_active_set_exchanges_atoms_where_they_depend_on_each_other(name, share, positive, dtype):
    X, D = signals_and_atoms(name, dtype, n_signals=30)
    alpha = typical_alpha(X, D, share)
    rough = dtype == np.float32 and share == 1e-5  # the penalty is near the rounding errors of correlations
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if rough else "error", ConvergenceWarning)
        codes, info = sparse_encode(X, D, alpha=alpha, positive=positive, return_info=True)
    assert rough or info["converged"].all()
    gaps = np.array([relative_gap(x, D, w, alpha, positive) for x, w in zip(X, codes, strict=True)])
    if not rough:
        assert np.all(gaps <= max(MOST[dtype], 1e-6))
    else:
        exact = sparse_encode(X.astype(float), D.astype(float), alpha=alpha, positive=positive, tol=1e-8)
        for x, w, best, converged in zip(X, codes, exact, info["converged"], strict=True):
            worse = lasso_objective(x, D, w, alpha) - lasso_objective(x, D, best, alpha)
            # Where float32 loses the factor of nearly dependent atoms, the best code met so far comes with a warning.
            assert worse <= (1e-5 if converged else 0.1) * 0.5 * np.sum(x.astype(float) ** 2)
    rank = np.linalg.matrix_rank(D.astype(float), tol=1e-4)
    assert np.all(np.count_nonzero(codes, axis=1) <= rank)


@pytest.mark.parametrize("name", ["wide", "tall", "low_rank", "duplicates"])
@pytest.mark.parametrize("algorithm", ["lasso_lars", "lasso_cd", "fista"])
def test_no_penalty_is_least_squares(algorithm, name, dtype):
    X, D = signals_and_atoms(name, dtype)
    codes, info = sparse_encode(X, D, alpha=0, algorithm=algorithm, max_iter=ENOUGH, return_info=True)
    assert info["converged"].all()
    best = np.linalg.lstsq(D.T.astype(float), X.T.astype(float), rcond=1e-5)[0].T @ D
    worse = np.sum((X - codes.astype(float) @ D) ** 2, axis=1) - np.sum((X - best) ** 2, axis=1)
    assert np.all(worse <= 1e-5 * np.sum(X.astype(float) ** 2, axis=1))


@pytest.mark.parametrize("algorithm", [*LASSO, "threshold"])
def test_a_penalty_above_the_largest_useful_one_gives_zeros(algorithm, dtype):
    X, D = signals_and_atoms("any_norm", dtype)
    alpha = np.abs(X.astype(float) @ D.T.astype(float)).max(axis=1) * 1.001
    codes, info = sparse_encode(X, D, alpha=alpha, algorithm=algorithm, return_info=True)
    assert not codes.any() and info["converged"].all() and np.all(info["gap"] == 0)


# ------------------------------------------------------------------------------------------------- constrained forms
@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("name", ["wide", "tall", "coherent", "duplicates", "any_norm"])
def test_a_bound_on_the_l1_norm_is_met_at_the_least_error(name, positive, dtype):
    X, D = signals_and_atoms(name, dtype)
    free = sparse_encode(X, D, alpha=typical_alpha(X, D, 0.05), positive=positive)
    bound = 0.7 * np.abs(free).sum(axis=1).astype(float)
    codes, info = sparse_encode(X, D, max_l1_norm=bound, positive=positive, return_info=True)
    assert info["converged"].all() and (not positive or np.all(codes >= 0))
    assert np.all(np.abs(codes.astype(float)).sum(axis=1) <= bound * (1 + 1e-5))
    energy = np.sum(X.astype(float) ** 2, axis=1)
    for x, w, most, scale in zip(X, codes, bound, energy, strict=True):
        assert bounded_norm_gap(x, D, w, most, positive) <= 3 * MOST[dtype] * scale + MOST[np.float64]


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("name", ["wide", "tall", "coherent", "duplicates", "any_norm"])
def test_a_bound_on_the_error_is_met_at_the_least_l1_norm(name, positive, dtype):
    X, D = signals_and_atoms(name, dtype)
    free = sparse_encode(X, D, alpha=typical_alpha(X, D, 0.05), positive=positive)
    bound = 1.3 * np.sum((X - free.astype(float) @ D) ** 2, axis=1)
    bound[-1] = 1
    codes, info = sparse_encode(X, D, max_error=bound, positive=positive, return_info=True)
    assert info["converged"].all() and (not positive or np.all(codes >= 0)) and not codes[-1].any()
    energy = np.sum(X.astype(float) ** 2, axis=1)
    assert np.all(np.sum((X - codes.astype(float) @ D) ** 2, axis=1) <= bound + 2 * MOST[dtype] * energy)
    for x, w, most in zip(X[:-1], codes[:-1], bound[:-1], strict=True):
        if w.any():
            assert (
                bounded_error_gap(x, D, w, most, positive)
                <= {np.float32: 1e-3, np.float64: 1e-5}[dtype] * np.abs(w).sum()
            )
        else:
            assert np.sum(x.astype(float) ** 2) <= most


def test_bounds_out_of_reach_or_out_of_the_way(dtype):
    X, D = signals_and_atoms("tall", dtype)
    exact = np.linalg.lstsq(D.T.astype(float), X.T.astype(float), rcond=None)[0].T
    loose = sparse_encode(X, D, max_l1_norm=1e6)
    np.testing.assert_allclose(loose @ D, exact @ D, atol=1e-4)
    assert not sparse_encode(X, D, max_l1_norm=0).any()
    assert not sparse_encode(X, D, max_error=1e6).any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # no code has so small an error
        strict = sparse_encode(X, D, max_error=1e-9)
    np.testing.assert_allclose(strict @ D, exact @ D, atol=2e-3)


def test_a_bound_beside_a_penalty_stops_at_whichever_comes_first():
    X, D = signals_and_atoms("wide", np.float64)
    alpha = typical_alpha(X, D, 0.1)
    penalised = sparse_encode(X, D, alpha=alpha, tol=1e-10)
    norms = np.abs(penalised).sum(axis=1)
    np.testing.assert_allclose(
        sparse_encode(X, D, alpha=alpha, max_l1_norm=2 * norms.max(), tol=1e-10), penalised, atol=1e-7
    )
    bounded = sparse_encode(X, D, alpha=alpha, max_l1_norm=0.5 * norms, tol=1e-10)
    np.testing.assert_allclose(np.abs(bounded).sum(axis=1), 0.5 * norms, atol=1e-7)


# ------------------------------------------------------------------------------------------------- not the lasso
@pytest.mark.parametrize("name", ["wide", "tall", "any_norm"])
def test_least_angle_regression(name):
    X, D = signals_and_atoms(name, np.float64)
    codes = sparse_encode(X, D, algorithm="lars", n_nonzero_coefs=4)
    np.testing.assert_allclose(codes, rows(lars, X, D, 4), atol=1e-8 * np.abs(codes).max())


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e-3, 40.0])
def test_threshold_is_the_soft_threshold_of_correlations_for_atoms_of_any_size(size, weighted, positive, dtype):
    X, D = signals_and_atoms("any_norm", dtype)
    D *= dtype(size)
    weights = np.random.default_rng(0).uniform(0.5, 2, len(D)) if weighted else None
    if weighted:
        weights[3], weights[5] = 0, np.inf
    alpha = typical_alpha(X, D, 0.2)
    codes = sparse_encode(X, D, algorithm="threshold", alpha=alpha, positive=positive, weights=weights)
    expected = np.stack([threshold(x, D, alpha * (1 if weights is None else weights), positive) for x in X])
    np.testing.assert_allclose(codes, expected, atol=1e-6 * np.abs(expected).max())


# ------------------------------------------------------------------------------------------------- ways to ask
def test_auto_picks_by_what_is_given():
    X, D = signals_and_atoms("wide", np.float64)
    for options, algorithm in (
        ({"alpha": 0.1}, "lasso_lars"),
        ({}, "lasso_lars"),
        ({"n_nonzero_coefs": 3}, "omp"),
        ({"max_error": 0.1}, "omp"),
        ({"max_error": 0.1, "alpha": 0.1}, "lasso_lars"),
        ({"max_l1_norm": 1.0}, "lasso_lars"),
    ):
        assert Problem(D, **options).algorithm == algorithm
        np.testing.assert_array_equal(
            sparse_encode(X, D, algorithm="auto", **options), sparse_encode(X, D, algorithm=algorithm, **options)
        )


@pytest.mark.parametrize("algorithm", [*LASSO, "lars", "omp", "ols", "mp", "iht", "threshold"])
@pytest.mark.parametrize("form", ["plain", "mask", "weights of signals", "free atoms"])
def test_sparse_output_and_info(algorithm, form, dtype):
    X, D = signals_and_atoms("any_norm", dtype)
    options = {"algorithm": algorithm, "max_iter": ENOUGH if algorithm in LASSO else 100, "tol": 1e-5}
    if algorithm in (*LASSO, "threshold"):
        options |= lasso_form(form, X, D, 0.2).options
    elif "weights" in lasso_form(form, X, D, 0.2).options:
        pytest.skip("has no weights")
    elif form == "mask":
        options["mask"] = lasso_form(form, X, D, 0.2).options["mask"]
    dense, info = sparse_encode(X, D, return_info=True, **options)
    sparse, again = sparse_encode(X, D, return_info=True, sparse_output=True, **options)
    assert isinstance(sparse, csr_array) and sparse.dtype == dense.dtype and sparse.shape == dense.shape
    np.testing.assert_array_equal(sparse.toarray(), dense)
    assert sparse.has_sorted_indices and sparse.nnz == np.count_nonzero(dense) and sparse.indices.dtype == np.int32
    measure = "residual" if algorithm in ("omp", "ols", "mp", "iht") else "gap"
    assert list(info) == [measure, "n_iter", "converged"]
    for name, values in info.items():
        assert values.shape == (len(X),)
        np.testing.assert_array_equal(values, again[name])
    if measure == "residual":
        X = np.where(options.get("mask", False), 0, X)
        seen = ~options.get("mask", np.zeros(X.shape, bool))
        residual = np.sum((X - (dense.astype(float) @ D) * seen) ** 2, axis=1)
        np.testing.assert_allclose(info["residual"], residual, atol=MOST[dtype] * np.sum(X**2, axis=1).max())


@pytest.mark.parametrize("algorithm", LASSO)
@pytest.mark.parametrize("form", ["plain", "positive", "elastic net", "weights", "mask", "weights of signals"])
def test_warm_starts_end_at_the_same_minimum_in_fewer_iterations(algorithm, form, dtype):
    X, D = signals_and_atoms("any_norm", dtype)
    lasso, (options, most) = lasso_form(form, X, D, 0.1), settings_of(algorithm, dtype)
    cold, info = sparse_encode(X, D, return_info=True, **options, **lasso.options)
    for init in (cold, csr_array(cold)):
        warm, again = sparse_encode(X, D, init=init, return_info=True, **options, **lasso.options)
        assert again["n_iter"].sum() < info["n_iter"].sum()
        assert np.all(lasso.gaps(D, warm) <= most)
        np.testing.assert_allclose(warm @ D, cold @ D, atol=20 * np.sqrt(most))
    astray = np.random.default_rng(0).standard_normal(cold.shape)
    warm = sparse_encode(X, D, init=astray, **options, **lasso.options)
    assert np.all(lasso.gaps(D, warm) <= most)


@pytest.mark.parametrize("algorithm", ["lasso_lars", "lasso_cd", "omp", "ols", "threshold"])
def test_gram_and_cov_at_hand_change_nothing(algorithm):
    X, D = signals_and_atoms("any_norm", np.float64)
    options = {"algorithm": algorithm, "tol": 1e-10, "max_iter": ENOUGH}
    options |= {"n_nonzero_coefs": 4} if algorithm in ("omp", "ols") else {"alpha": typical_alpha(X, D, 0.1)}
    plain = sparse_encode(X, D, **options)
    gram, cov = D @ D.T, D @ X.T
    for given_arrays in ({"gram": gram}, {"cov": cov}, {"gram": gram, "cov": cov}):
        kept = {name: array.copy() for name, array in given_arrays.items()}
        codes = sparse_encode(X, D, **options, **given_arrays)
        np.testing.assert_allclose(codes, plain, atol=1e-5 * np.abs(plain).max())
        for name, array in given_arrays.items():
            np.testing.assert_array_equal(array, kept[name])


def test_verbose_prints_one_line(capsys):
    X, D = signals_and_atoms("wide", np.float64)
    sparse_encode(X, D, alpha=0.1)
    assert capsys.readouterr().out == ""
    for algorithm in ("lasso_lars", "omp", "threshold", "lars"):
        sparse_encode(X, D, algorithm=algorithm, verbose=1)
        out = capsys.readouterr().out
        assert out.count("\n") == 1 and algorithm in out and "6 signals" in out


def test_too_few_iterations_are_said_so():
    X, D = signals_and_atoms("coherent", np.float64)
    for algorithm in LASSO:
        with pytest.warns(ConvergenceWarning, match=f"{algorithm} stopped at max_iter=2 .* Raise max_iter or tol"):
            _, info = sparse_encode(X, D, algorithm=algorithm, alpha=0.01, max_iter=2, tol=1e-9, return_info=True)
        assert not info["converged"].all() and info["n_iter"].max() <= 2


def test_a_problem_can_be_used_again_with_a_mask():
    X, D = signals_and_atoms("any_norm", np.float64)
    missing = np.random.default_rng(0).random(X.shape) < 0.2
    for options in (
        {"algorithm": "omp", "n_nonzero_coefs": 3},
        {"alpha": 0.1},
        {"alpha": 0.1, "weights": np.linspace(0.5, 2, 70)},
    ):
        used = Problem(D, **options)
        encode(X, used)
        again, fresh = (encode(X, one, mask=missing).values for one in (used, Problem(D, **options)))
        assert issparse(again)
        np.testing.assert_array_equal(again.toarray(), fresh.toarray())


@pytest.mark.parametrize("alpha", [0.3, 0.1])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_fista_in_float32_knows_where_its_float_ends(alpha):
    """On real patches, at the default tolerance: it neither iterates on rounding nor stops before the optimum."""
    X = photo_patches(1500, random_state=0, dtype=np.float32)
    dictionary = photo_patches(256, random_state=1, dtype=np.float32)

    def objectives(algorithm):
        codes, info = sparse_encode(X, dictionary, algorithm=algorithm, alpha=alpha, max_iter=5000, return_info=True)
        assert np.mean(info["converged"]) > 0.995
        codes = codes.astype(np.float64)
        return 0.5 * np.sum((X - codes @ dictionary) ** 2, axis=1) + alpha * np.abs(codes).sum(axis=1)

    assert np.max(objectives("fista") - objectives("lasso_lars")) < 1e-5


# ------------------------------------------------------------------------------------------------- codes on disk
ROWS = np.random.default_rng(0).standard_normal((300, 16))
ATOMS = np.random.default_rng(1).standard_normal((24, 16))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_MOST", 64)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_written_as_they_are_made(kind, small_blocks, tmp_path):
    expected = sparse_encode(ROWS, ATOMS, alpha=1.0)
    out = stored(kind, np.zeros(expected.shape), tmp_path, "codes")
    if kind == "memory map":
        out = np.load(out.filename, mmap_mode="r+")
    for X in (ROWS, ROWS.tolist(), csr_array(ROWS), stored(kind, ROWS, tmp_path), iter([ROWS[:7], ROWS[7:]])):
        out[:] = np.nan
        assert sparse_encode(X, ATOMS, alpha=1.0, out=out) is out
        np.testing.assert_array_equal(out[:], expected)
    watched, written = Watched(ROWS), Written(expected.shape, float)
    sparse_encode(watched, ATOMS, alpha=1.0, out=written, sparse_output=True)
    np.testing.assert_array_equal(written.array, expected)
    assert (watched.most, written.most) == (64, 64)
    for folder in (tmp_path / "folder", str(tmp_path / "another")):
        codes = sparse_encode(ROWS, ATOMS, alpha=1.0, out=folder)
        assert codes.complete and open_codes(folder).shape == expected.shape
        np.testing.assert_array_equal(codes[:].toarray(), expected)


def test_what_comes_beside_the_signals_goes_along(small_blocks, tmp_path):
    mask = np.zeros(ROWS.shape, bool)
    mask[:, 0] = np.arange(300) % 3 == 0
    options = {"alpha": np.linspace(0.5, 1, 300), "mask": mask, "init": np.ones((300, 24)), "return_info": True}
    expected, infos = sparse_encode(ROWS, ATOMS, **options)
    out = np.zeros((300, 24))
    codes, found = sparse_encode(ROWS, ATOMS, out=out, **options)
    assert codes is out
    np.testing.assert_array_equal(codes, expected)
    for name in infos:
        np.testing.assert_array_equal(found[name], infos[name])
    del options["return_info"]
    np.testing.assert_array_equal(sparse_encode(ROWS, ATOMS, out=tmp_path, **options)[:].toarray(), expected)
    for other in ({"alpha": np.linspace(0.5, 1.1, 300)}, {"alpha": 1.0}, {"mask": ~mask}, {"mask": None}):
        with pytest.raises(ValueError, match="codes of another run, which differs in problem"):
            sparse_encode(ROWS, ATOMS, out=tmp_path, **options | other)
    plain = tmp_path / "plain"
    sparse_encode(ROWS, ATOMS, out=plain)
    with pytest.raises(ValueError, match="codes of another run, which differs in problem"):
        sparse_encode(ROWS, ATOMS, mask="nan", out=plain)


def test_a_bad_block_loses_no_codes_before_it(small_blocks, tmp_path):
    bad, expected = ROWS.copy(), sparse_encode(ROWS, ATOMS, alpha=1.0)
    bad[140, 3] = np.nan
    out = np.zeros(expected.shape)
    for where in (out, tmp_path):
        for X in (bad, Watched(bad)):
            with pytest.raises(BlockError, match=r"block 2 \(rows 128 to 191\) of X contains NaN .* first in row 140"):
                sparse_encode(X, ATOMS, alpha=1.0, out=where)
    np.testing.assert_array_equal(out[:128], expected[:128])
    assert not out[128:].any()
    np.testing.assert_array_equal(open_codes(tmp_path)[:].toarray(), expected[:128])


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        (7, {}, "out must be the path of a folder, or an array"),
        (np.zeros((300, 23)), {}, r"out must have the shape \(300, 24\), got \(300, 23\)"),
        (np.zeros((300, 24), int), {}, "floating-point"),
        (np.broadcast_to(0.0, (300, 24)), {}, "read-only"),
        ("codes", {"return_info": True}, "return_info=True tells of the codes of this call"),
        ("codes", {"mask": np.zeros((3, 16), bool)}, r"mask must be .* X's shape \(300, 16\)"),
        ("codes", {"alpha": np.ones(3)}, "alpha has 3 entries for 300 signals"),
    ],
)
def test_an_out_that_does_not_suit_is_refused(out, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        sparse_encode(ROWS, ATOMS, out=out, **options)
    assert not any(tmp_path.iterdir())


def test_codes_on_disk_that_miss_the_goal_are_counted(small_blocks, capsys):
    with pytest.warns(ConvergenceWarning, match="300 of 300 codes have not converged") as caught:
        sparse_encode(
            ROWS, ATOMS, alpha=0.01, algorithm="lasso_cd", max_iter=1, tol=1e-9, out=np.zeros((300, 24)), verbose=1
        )
    assert caught[0].filename == __file__
    assert "[sparse_encode] 300 signals" in capsys.readouterr().out
