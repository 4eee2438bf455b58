"""The function for users against one big dictionary: every atom at every position written out as a row."""

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning

from sparseshare import conv_sparse_encode, sparse_encode
from sparseshare.convolution.encoder import SOLVERS
from sparseshare.convolution.geometry import Geometry

SIZES = {1: ((23,), (5,)), 2: ((9, 8), (3, 4)), 3: ((5, 4, 6), (2, 2, 3))}
PENALISED = [solver for solver in SOLVERS if solver != "omp"]


def big_dictionary(atoms, n_axes, signal_shape, boundary):
    """Rows of shape (K * positions, samples * channels): atom k at position p, in the order of the codes."""
    geometry = Geometry(signal_shape, atoms.shape[1 : 1 + n_axes], boundary)
    channels = atoms.shape[1 + n_axes :]
    rows = np.zeros((len(atoms), *geometry.positions, *signal_shape, *channels))
    for position in np.ndindex(geometry.positions):
        for entry in np.ndindex(geometry.support):
            place = np.add(np.add(position, entry), geometry.offset)
            if boundary == "circular":
                place %= signal_shape
            if ((place >= 0) & (place < signal_shape)).all():
                rows[(slice(None), *position, *place)] += atoms[(slice(None), *entry)]
    return rows.reshape(len(atoms) * geometry.n_positions, -1), geometry.positions


def problem(rng, n_axes, channels=(), n_samples=3):
    signal_shape, support = SIZES[n_axes]
    atoms = rng.standard_normal((3, *support, *channels))
    return rng.standard_normal((n_samples, *signal_shape, *channels)), atoms


@cache
def coded_by_the_big_dictionary(form, n_axes, boundary):
    """A problem in one form, and its codes by the lasso; made once for all solvers."""
    rng = np.random.default_rng(0)
    X, atoms = problem(rng, n_axes, (2,) if form == "channels" else ())
    rows, positions = big_dictionary(atoms, n_axes, SIZES[n_axes][0], boundary)
    options, dense = {}, {}
    if form == "positive":
        options = dense = {"positive": True}
    elif form == "mask":
        missing = rng.random(X.shape) < 0.3
        options, dense = {"mask": missing}, {"mask": missing.reshape(len(X), -1)}
    elif form == "weights":
        weights = rng.uniform(0.5, 2, (len(atoms), *positions))
        options, dense = {"weights": weights}, {"weights": weights.ravel()}
    alpha = 0.3 * float(np.abs(X.reshape(len(X), -1) @ rows.T).max())
    expected = sparse_encode(X.reshape(len(X), -1), rows, alpha=alpha, tol=1e-12, **dense)
    return X, atoms, rows, positions, options, alpha, expected


@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("solver", PENALISED)
@pytest.mark.parametrize("form", ["plain", "positive", "mask", "weights", "channels"])
def test_codes_are_those_of_the_big_dictionary(solver, n_axes, boundary, form):
    if solver == "lgcd" and (boundary == "valid" or form == "mask"):
        pytest.skip("lgcd needs atoms whose products do not depend on the position")
    if n_axes == 3 and form in ("positive", "weights"):
        pytest.skip("nothing in it depends on the number of axes")
    X, atoms, rows, positions, options, alpha, expected = coded_by_the_big_dictionary(form, n_axes, boundary)
    maps, info = conv_sparse_encode(
        X, atoms, alpha=alpha, boundary=boundary, solver=solver, tol=1e-9, max_iter=20000, return_info=True, **options
    )
    assert maps.shape == (len(X), len(atoms), *positions)
    assert info["converged"].all()
    assert (info["gap"] <= 1e-9).all()
    assert_allclose(maps.reshape(len(X), -1), expected, atol=2e-3 * np.abs(expected).max())
    weights = options.get("weights", np.ones(maps.shape[1:]))
    seen = ~options.get("mask", np.zeros(X.shape, bool))

    def objectives(codes):
        residuals = np.where(seen, X - (codes @ rows).reshape(X.shape), 0)
        return 0.5 * (residuals.reshape(len(X), -1) ** 2).sum(axis=1) + alpha * np.abs(codes) @ weights.ravel()

    assert_allclose(info["objective"], objectives(maps.reshape(len(X), -1)), rtol=1e-9)
    assert_allclose(objectives(maps.reshape(len(X), -1)), objectives(expected), rtol=1e-8)


@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
@pytest.mark.parametrize("n_axes", [1, 2, 3])
def test_pursuit_is_that_of_the_big_dictionary(rng, n_axes, boundary):
    X, atoms = problem(rng, n_axes)
    atoms /= np.sqrt((atoms**2).sum(axis=tuple(range(1, n_axes + 1)), keepdims=True))
    rows, _ = big_dictionary(atoms, n_axes, SIZES[n_axes][0], boundary)
    if boundary == "valid":  # pieces of atoms at the border have other norms, which sparse_encode does not divide by
        norms = np.linalg.norm(rows, axis=1)
        expected = sparse_encode(X.reshape(len(X), -1), rows / norms[:, None], algorithm="omp", n_nonzero_coefs=4)
        expected /= norms
    else:
        expected = sparse_encode(X.reshape(len(X), -1), rows, algorithm="omp", n_nonzero_coefs=4)
    maps, info = conv_sparse_encode(X, atoms, solver="omp", boundary=boundary, n_nonzero_coefs=4, return_info=True)
    assert_allclose(maps.reshape(len(X), -1), expected, atol=1e-8)
    residuals = X.reshape(len(X), -1) - expected @ rows
    assert_allclose(info["residual"], (residuals**2).sum(axis=1), rtol=1e-8)


@pytest.mark.parametrize("solver", PENALISED)
def test_channels_with_codes_of_their_own(rng, solver):
    X = rng.standard_normal((2, 11, 9, 3))
    atoms = rng.standard_normal((4, 3, 2))
    maps = conv_sparse_encode(X, atoms, alpha=2.0, solver=solver, tol=1e-10, max_iter=20000)
    assert maps.shape == (2, 4, 11, 9, 3)
    for channel in range(3):
        alone = conv_sparse_encode(X[..., channel], atoms, alpha=2.0, solver=solver, tol=1e-10, max_iter=20000)
        assert_allclose(maps[..., channel], alone, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, bool])
@pytest.mark.parametrize("solver", PENALISED)
def test_precision(rng, solver, dtype):
    X = (rng.standard_normal((1, 30, 30)) * 3).astype(dtype)
    atoms = rng.standard_normal((4, 5, 5)).astype(dtype if dtype == np.float32 else np.float64)
    maps, info = conv_sparse_encode(X, atoms, alpha=0.2, alpha_relative=True, solver=solver, return_info=True)
    assert maps.dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert info["converged"].all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_codes_and_threads(rng, solver):
    X, atoms = rng.standard_normal((3, 40, 30, 2)), rng.standard_normal((5, 4, 4))
    options = {"n_nonzero_coefs": 10} if solver == "omp" else {"alpha": 0.3, "alpha_relative": True}
    dense = conv_sparse_encode(X, atoms, solver=solver, **options)
    sparse = conv_sparse_encode(X, atoms, solver=solver, sparse_output=True, **options)
    assert issparse(sparse) and sparse.format == "csr"
    sparse.check_format()
    assert_array_equal(sparse.toarray().reshape(dense.shape), dense)
    for n_jobs in (1, 2):
        assert_array_equal(conv_sparse_encode(X, atoms, solver=solver, n_jobs=n_jobs, **options), dense)
    assert_array_equal(conv_sparse_encode(X[:1], atoms, solver=solver, n_jobs=2, **options)[0].shape, dense[0].shape)


@pytest.mark.parametrize("solver", PENALISED)
def test_codes_are_a_fixed_point(rng, solver):
    X, atoms = rng.standard_normal((2, 25, 20)), rng.standard_normal((4, 4, 3))
    options = {"alpha": 0.2, "alpha_relative": True, "solver": solver, "tol": 1e-6}
    maps, cold = conv_sparse_encode(X, atoms, return_info=True, **options)
    again, warm = conv_sparse_encode(X, atoms, init=maps, return_info=True, **options)
    assert (warm["n_iter"] <= cold["n_iter"]).all()
    assert_allclose(warm["objective"], cold["objective"], rtol=1e-5)


def test_relative_alpha_is_a_fraction_of_the_largest(rng):
    X, atoms = rng.standard_normal((2, 50)), rng.standard_normal((3, 7))
    largest = max(np.abs(np.correlate(x, d, "valid")).max() for x in X for d in atoms)
    _, info = conv_sparse_encode(X, atoms, alpha=0.25, alpha_relative=True, boundary="full", return_info=True)
    assert_allclose(info["alpha"], 0.25 * largest)


def test_alpha_above_the_maximum_gives_zeros_and_says_so(rng):
    X, atoms = rng.standard_normal((2, 50)), rng.standard_normal((3, 7))
    with pytest.warns(UserWarning, match="all codes are zero: alpha=1000 is not below"):
        assert not conv_sparse_encode(X, atoms, alpha=1000).any()


def test_too_few_iterations_are_reported(rng):
    X, atoms = rng.standard_normal((1, 20, 20)), rng.standard_normal((4, 5, 5))
    with pytest.warns(ConvergenceWarning, match="1 of 1 codes have not converged"):
        conv_sparse_encode(X, atoms, alpha=0.1, solver="fista", max_iter=2, tol=1e-12)


def test_missing_samples_do_not_count(rng):
    X, atoms = rng.standard_normal((2, 20, 18)), rng.standard_normal((3, 4, 4))
    missing = rng.random(X.shape) < 0.4
    holed = np.where(missing, np.nan, X)
    maps = conv_sparse_encode(X, atoms, alpha=1.0, mask=missing, tol=1e-8)
    assert_array_equal(conv_sparse_encode(holed, atoms, alpha=1.0, mask="nan", tol=1e-8), maps)
    assert_array_equal(conv_sparse_encode(holed, atoms, alpha=1.0, mask=missing, tol=1e-8), maps)


def test_mask_without_channels_is_that_of_all(rng):
    X, atoms = rng.standard_normal((2, 20, 18, 3)), rng.standard_normal((4, 4, 4, 3))
    missing = rng.random(X.shape[:3]) < 0.4
    assert_array_equal(
        conv_sparse_encode(X, atoms, alpha=1.0, mask=missing),
        conv_sparse_encode(X, atoms, alpha=1.0, mask=np.repeat(missing[..., None], 3, axis=-1)),
    )


def test_codes_that_are_not_sparse_are_left_to_fista(rng, monkeypatch):
    X, atoms = rng.standard_normal((1, 24, 24)), rng.standard_normal((6, 5, 5))
    options = {"alpha": 0.02, "alpha_relative": True, "mask": rng.random(X.shape) < 0.4, "tol": 1e-4}
    codes, sparse = conv_sparse_encode(X, atoms, solver="working_set", return_info=True, **options)
    assert_array_equal(conv_sparse_encode(X, atoms, **options), codes)
    monkeypatch.setattr("sparseshare.convolution.encoder._DENSEST", 0.5 * np.count_nonzero(codes) * 25 / 24**2)
    _, dense = conv_sparse_encode(X, atoms, return_info=True, **options)
    assert dense["converged"].all() and dense["n_iter"] > 5 * sparse["n_iter"]
    assert_allclose(dense["objective"], sparse["objective"], rtol=1e-3)


def test_memory_that_would_not_fit(rng, monkeypatch):
    monkeypatch.setattr("sparseshare.convolution.encoder.available_memory", lambda: 10**6)
    with pytest.raises(MemoryError, match=r"coding needs about .* GB.*Lower n_jobs, the size of the signals"):
        conv_sparse_encode(rng.standard_normal((1, 200, 200)), rng.standard_normal((10, 5, 5)), alpha=1.0)


BAD = [
    ({"atoms": np.ones((2, 30, 3))}, "larger than the signal"),
    ({"atoms": np.ones((2, 3)), "channels": True}, "channels|axes"),
    ({"atoms": np.ones((2, 3, 3, 2))}, "channels|axes"),
    ({"atoms": np.ones((0, 3, 3))}, "no atoms"),
    ({"atoms": np.full((2, 3, 3), np.nan)}, "atoms contain"),
    ({"X": np.full((1, 12, 12), np.inf)}, "NaN or infinity"),
    ({"X": np.full((1, 12, 12), np.nan)}, "NaN or infinity.*mask"),
    ({"X": np.full((1, 12, 12), np.nan), "mask": "nan"}, "every sample of signal 0"),
    ({"mask": np.ones((1, 12, 12), bool)}, "every sample of signal 0"),
    ({"mask": np.ones((1, 11, 12), bool)}, "mask must"),
    ({"mask": np.ones((1, 12, 12))}, "mask must"),
    ({"mask": "holes"}, "mask must"),
    ({"alpha": None}, "needs alpha"),
    ({"alpha": -1.0}, "'alpha' parameter"),
    ({"alpha": 1.5, "alpha_relative": True}, "'alpha' parameter"),
    ({"boundary": "reflect"}, "'boundary' parameter"),
    ({"solver": "newton"}, "'solver' parameter"),
    ({"joint": 1.5}, "'joint' parameter"),
    ({"weights": np.ones(3)}, "weights must have the shape"),
    ({"weights": -np.ones(2)}, "weights must be"),
    ({"smoothness": np.ones(3)}, "smoothness must have the shape"),
    ({"smoothness": np.full(2, np.nan)}, "smoothness must"),
    ({"init": np.zeros((1, 2, 11, 12))}, "codes must have the shape"),
    ({"n_nonzero_coefs": 3}, "belong to solver='omp'"),
    ({"solver": "omp"}, "knows no alpha"),
    ({"solver": "omp", "alpha": None}, "needs n_nonzero_coefs or max_error"),
    ({"tol": 0}, "'tol' parameter"),
    ({"max_iter": 0}, "'max_iter' parameter"),
    ({"X": np.ones((1, 12, 12), complex)}, "Complex data not supported"),
    ({"X": np.zeros((0, 12, 12))}, "0 sample"),
    ({"X": [["a"] * 12] * 12}, "numbers"),
    ({"X": [np.ones((12, 12)), np.ones(12)]}, "mixes dimensions: signal 1 has the shape"),
    ({"X": [np.ones((12, 12)), np.ones((12, 12, 3))], "channels": False}, "different dimensions"),
    ({"solver": "lgcd", "boundary": "valid"}, "lgcd"),
    ({"solver": "lgcd", "mask": np.eye(12, dtype=bool)[None]}, "lgcd"),
    ({"device": "gpu"}, "'device' parameter"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_input_is_named(changes, message):
    arguments = {"X": np.ones((1, 12, 12)), "atoms": np.ones((2, 3, 3)), "alpha": 1.0, **changes}
    with pytest.raises(ValueError, match=message):
        conv_sparse_encode(arguments.pop("X"), arguments.pop("atoms"), **arguments)
