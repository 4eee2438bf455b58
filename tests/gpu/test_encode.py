"""Signals coded on a GPU, whole: every algorithm and form against the CPU, in pieces, from arrays of either home."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array, issparse

from sparseshare import SparseCoder, devices, sparse_encode

ALGORITHMS = {
    "lasso_lars": dict(alpha=0.3),
    "lasso_cd": dict(alpha=0.3),
    "ista": dict(alpha=0.3, tol=1e-2),  # slow
    "fista": dict(alpha=0.3),
    "lars": dict(n_nonzero_coefs=4),
    "omp": dict(n_nonzero_coefs=4),
    "ols": dict(n_nonzero_coefs=4),
    "mp": dict(n_nonzero_coefs=4),
    "iht": dict(n_nonzero_coefs=4),
    "threshold": dict(alpha=0.3),
}
LASSO = ("lasso_lars", "lasso_cd", "ista", "fista")


def signals_and_atoms(dtype, n=19, n_components=33, n_features=12):
    rng = np.random.default_rng(0)
    dictionary = rng.standard_normal((n_components, n_features))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    return rng.standard_normal((n, n_features)).astype(dtype), dictionary.astype(dtype)


def objective(X, dictionary, codes, alpha, weights=1.0):
    codes = codes.toarray() if issparse(codes) else codes
    rest = X.astype(float) - codes.astype(float) @ dictionary
    return 0.5 * (rest**2).sum(axis=1) + (alpha * weights * abs(codes.astype(float))).sum(axis=1)


def assert_as_good(X, dictionary, found, expected, dtype, options):
    """Lasso codes by their objective, all others entry by entry."""
    if options["algorithm"] in LASSO:
        half = 0.5 * (X.astype(float) ** 2).sum(axis=1)
        own, other = (objective(X, dictionary, codes, options["alpha"]) for codes in (found, expected))
        atol = 2e-6 if dtype == np.float32 else 1e-10
        assert_allclose(own / half, other / half, rtol=0, atol=max(atol, options["tol"]))
    else:
        assert_allclose(found, expected, rtol=0, atol=1e-4 if dtype == np.float32 else 1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm(gpu, algorithm, dtype):
    X, dictionary = signals_and_atoms(dtype, n=5 if algorithm == "iht" else 19)  # the slow one
    options = dict(algorithm=algorithm, tol=1e-7 if dtype == np.float32 else 1e-12, max_iter=20000)
    options |= ALGORITHMS[algorithm]
    expected = sparse_encode(X, dictionary, **options)
    moved = sparse_encode(X, dictionary, device="cuda", **options)
    assert isinstance(moved, np.ndarray) and moved.dtype == dtype
    assert_as_good(X, dictionary, moved, expected, dtype, options)
    there = sparse_encode(gpu.asarray(X), gpu.asarray(dictionary), **options)
    assert devices.on_gpu(there) and there.dtype == dtype
    np.testing.assert_array_equal(gpu.get(there), moved)


@pytest.mark.parametrize("algorithm", ["lasso_lars", "omp"])
def test_sparse_codes(gpu, algorithm):
    X, dictionary = signals_and_atoms(np.float64)
    options = dict(algorithm=algorithm, sparse_output=True, **ALGORITHMS[algorithm])
    expected = sparse_encode(X, dictionary, **options)
    moved = sparse_encode(X, dictionary, device="cuda", **options)
    assert isinstance(moved, csr_array) and moved.indices.dtype == moved.indptr.dtype == np.int32
    assert moved.has_sorted_indices
    assert_allclose(moved.toarray(), expected.toarray(), atol=1e-5)
    there = sparse_encode(gpu.asarray(X), gpu.asarray(dictionary), **options)
    assert devices.on_gpu(there)
    np.testing.assert_array_equal(devices.to_host(there).toarray(), moved.toarray())
    again = sparse_encode(csr_array(X), dictionary, device="cuda", **options)
    np.testing.assert_array_equal(again.toarray(), moved.toarray())


@pytest.mark.parametrize("sparse_output", [False, True])
@pytest.mark.parametrize("home", ["host", "device"])
def test_pieces_do_not_change_codes(gpu, monkeypatch, sparse_output, home):
    X, dictionary = signals_and_atoms(np.float64, n=50)
    alphas = np.linspace(0.1, 1, 50)
    options = dict(alpha=alphas, sparse_output=sparse_output, device="cuda", return_info=True)
    if home == "device":
        X = gpu.asarray(X)
    whole, info = sparse_encode(X, dictionary, **options)
    monkeypatch.setattr("sparseshare.coding.pieces.rows_that_fit", lambda device, bytes_a_row: 7)
    pieces, piece_info = sparse_encode(X, dictionary, **options)
    whole, pieces = devices.to_host(whole), devices.to_host(pieces)
    if sparse_output:
        whole, pieces = whole.toarray(), pieces.toarray()
    assert_allclose(pieces, whole, rtol=1e-12)  # matrix products of other shapes may round otherwise
    for name, values in info.items():
        assert_allclose(piece_info[name], values, rtol=1e-6, atol=1e-12)
    out = np.zeros(whole.shape)
    monkeypatch.setattr("sparseshare.sources.blocks._MOST", 32)
    _, piece_info = sparse_encode(X, dictionary, out=out, **options)
    assert_allclose(out, whole, rtol=1e-12)
    assert_allclose(piece_info["gap"], info["gap"], rtol=1e-6, atol=1e-12)


def test_out_of_memory_halves_the_piece(gpu, monkeypatch):
    from sparseshare.coding import pieces

    X, dictionary = signals_and_atoms(np.float64, n=40)
    expected = sparse_encode(X, dictionary, alpha=0.3, device="cuda")
    asked = []

    class Short(pieces.DeviceTile):
        def __init__(self, problem, n_rows):
            asked.append(n_rows)
            if n_rows > 12:
                raise gpu.xp.cuda.memory.OutOfMemoryError(2**30, 2**31)
            super().__init__(problem, n_rows)

    monkeypatch.setattr(pieces, "DeviceTile", Short)
    np.testing.assert_array_equal(sparse_encode(X, dictionary, alpha=0.3, device="cuda"), expected)
    assert asked == [40, 20, 10]


def test_a_card_too_small_for_one_signal(gpu, monkeypatch):
    X, dictionary = signals_and_atoms(np.float64)
    monkeypatch.setattr(devices, "free_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"cuda:0 has 0 MB free, too little for one row of .* use device='cpu'"):
        sparse_encode(X, dictionary, alpha=0.3, device="cuda")


@pytest.mark.parametrize("home", ["host", "device"])
def test_bad_signals_are_named(gpu, home):
    X, dictionary = signals_and_atoms(np.float64)
    X[11, 3] = np.nan
    X = gpu.asarray(X) if home == "device" else X
    with pytest.raises(ValueError, match="X contains NaN or infinity, first in row 11"):
        sparse_encode(X, dictionary, alpha=0.3, device="cuda")


def test_wrong_arrays_and_devices(gpu):
    X, dictionary = signals_and_atoms(np.float64)
    there = gpu.asarray(X)
    with pytest.raises(TypeError, match="live on cpu and cuda:0"):
        sparse_encode(there, dictionary, alpha=0.3)
    with pytest.raises(RuntimeError, match="device='cpu' was asked for, but an array lives on a GPU"):
        sparse_encode(there, dictionary, alpha=0.3, device="cpu")
    with pytest.raises(RuntimeError, match=r"there is no device number \d+, CuPy sees \d"):
        sparse_encode(X, dictionary, alpha=0.3, device="cuda:64")
    with pytest.raises(ValueError, match="Expected 2D array"):
        sparse_encode(there[0], gpu.asarray(dictionary), alpha=0.3)
    with pytest.raises(ValueError, match="different numbers of features"):
        sparse_encode(there[:, :5], gpu.asarray(dictionary), alpha=0.3)
    with pytest.raises(ValueError, match="Complex data not supported"):
        sparse_encode(there + 0j, gpu.asarray(dictionary), alpha=0.3)


def test_integers_and_columns(gpu):
    X, dictionary = signals_and_atoms(np.float64)
    whole = np.round(X * 10).astype(np.int16)
    expected = sparse_encode(whole, dictionary, alpha=1.0, tol=1e-12)
    assert_allclose(sparse_encode(whole, dictionary, alpha=1.0, tol=1e-12, device="cuda"), expected, atol=1e-6)
    there = gpu.asarray(np.asfortranarray(whole)[::-1])
    found = sparse_encode(there, gpu.asarray(dictionary), alpha=1.0, tol=1e-12)
    assert_allclose(gpu.get(found)[::-1], expected, atol=1e-6)


class TestSparseCoder:
    """The estimator with a given dictionary."""

    @pytest.mark.parametrize("split_sign", [False, True])
    @pytest.mark.parametrize("sparse_output", [False, True])
    def test_codes(self, gpu, split_sign, sparse_output):
        X, dictionary = signals_and_atoms(np.float32)
        options = dict(alpha=0.3, split_sign=split_sign, sparse_output=sparse_output)
        expected = SparseCoder(dictionary, **options).fit_transform(X)
        moved = SparseCoder(dictionary, device="cuda", **options).fit_transform(X)
        there = SparseCoder(dictionary, **options).fit_transform(gpu.asarray(X))
        assert type(moved) is type(expected) and devices.on_gpu(there)
        there = devices.to_host(there)
        if sparse_output:
            expected, moved, there = (codes.toarray() for codes in (expected, moved, there))
        assert_allclose(moved, expected, atol=1e-2)
        np.testing.assert_array_equal(moved, there)

    def test_reconstruction_and_score(self, gpu):
        X, dictionary = signals_and_atoms(np.float64)
        coder = SparseCoder(dictionary, alpha=0.3, transform_tol=1e-10).fit(X)
        there = SparseCoder(dictionary, alpha=0.3, transform_tol=1e-10).fit(gpu.asarray(X))
        codes = there.transform(gpu.asarray(X))
        assert_allclose(gpu.get(there.inverse_transform(codes)), coder.inverse_transform(coder.transform(X)), atol=1e-4)
        assert there.score(gpu.asarray(X)) == pytest.approx(coder.score(X), abs=1e-6)
        moved = SparseCoder(dictionary, alpha=0.3, device="cuda", transform_tol=1e-10).fit(X)
        assert moved.score(X) == pytest.approx(coder.score(X), abs=1e-6)

    def test_moving(self, gpu):
        import pickle

        X, dictionary = signals_and_atoms(np.float64)
        coder = SparseCoder(dictionary, alpha=0.3).fit(gpu.asarray(X))
        assert devices.on_gpu(coder.components_)
        copy = pickle.loads(pickle.dumps(coder))
        assert isinstance(copy.components_, np.ndarray)
        np.testing.assert_array_equal(copy.components_, dictionary)
        assert devices.on_gpu(coder.components_)
        assert coder.to_device("cpu") is coder and isinstance(coder.components_, np.ndarray)
        assert devices.on_gpu(coder.to_device("cuda").components_)
        with pytest.raises(ValueError, match="to_device takes 'cpu', 'cuda' or 'cuda:N'"):
            coder.to_device("auto")
