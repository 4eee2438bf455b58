"""The same bits for every number of threads, tile size and choice of rows: signals do not meet."""

import multiprocessing
import threading
import warnings

import numpy as np
import pytest
from coding.problems import LASSO, PURSUITS, signals_and_atoms
from scipy.sparse import csr_array, csr_matrix

from sparseshare import sparse_encode, sparse_encode_path
from sparseshare.coding import codes as codes_module
from sparseshare.coding import forms, path, tiles

ALGORITHMS = (*LASSO, "lars", *PURSUITS, "threshold")


def many_signals(dtype, n_signals=700):
    return signals_and_atoms("any_norm", dtype, n_signals=n_signals)


def options_of(algorithm):
    if algorithm in (*PURSUITS, "lars"):
        return {"algorithm": algorithm, "n_nonzero_coefs": 4}
    return {"algorithm": algorithm, "alpha": 0.2, "tol": 1e-3}


@pytest.fixture
def threads(monkeypatch):
    """Let n_jobs be taken at its word, on machines with fewer processors too."""
    for module in (codes_module, forms, path):
        monkeypatch.setattr(module, "thread_count", lambda n_jobs=None: n_jobs or 1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_threads_tiles_and_rows(algorithm, dtype, threads, monkeypatch):
    X, D = many_signals(dtype)
    options = options_of(algorithm)
    codes, info = sparse_encode(X, D, n_jobs=1, return_info=True, **options)
    for n_jobs in (2, 4):
        again, same = sparse_encode(X, D, n_jobs=n_jobs, return_info=True, **options)
        np.testing.assert_array_equal(again, codes)
        for name in info:
            np.testing.assert_array_equal(same[name], info[name])
    for rows in (slice(None, None, 3), slice(130, 131), slice(699, 700), slice(5, 300)):
        np.testing.assert_array_equal(sparse_encode(X[rows], D, **options), codes[rows])
    for entries in (1, 2**15):
        monkeypatch.setattr(tiles, "_TILE_ENTRIES", entries)
        np.testing.assert_array_equal(sparse_encode(X, D, n_jobs=3, **options), codes)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_sparse_and_memory_mapped_signals(algorithm, dtype, tmp_path):
    X, D = many_signals(dtype, 150)
    X[np.abs(X) < 0.5 * np.abs(X).mean()] = 0
    options = options_of(algorithm)
    codes = sparse_encode(X, D, **options)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for other in (csr_array(X), csr_matrix(X), mapped, np.asfortranarray(X)):
        np.testing.assert_array_equal(sparse_encode(other, D, **options), codes)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.2, "mask": np.arange(300 * 20).reshape(300, 20) % 7 == 3},
        {"algorithm": "omp", "n_nonzero_coefs": 4, "mask": np.arange(300 * 20).reshape(300, 20) % 13 > 8},
        {"algorithm": "ista", "tol": 1e-3, "alpha": 0.2, "mask": np.arange(300 * 20).reshape(300, 20) % 7 == 3},
        {"alpha": 0.2, "weights": np.random.default_rng(0).uniform(0.5, 2, (300, 70))},
        {"alpha": 0.2, "weights": np.where(np.arange(70) % 9, 1.0, 0.0)},
        {"max_l1_norm": 1.0},
        {"max_error": np.linspace(0.1, 1, 300)},
    ],
    ids=[
        "mask",
        "mask for omp",
        "masks in groups",
        "weights of signals",
        "free atoms",
        "bounded norm",
        "bounded error",
    ],
)
def test_forms(options, threads, dtype, monkeypatch):
    X, D = many_signals(dtype, 300)
    codes = sparse_encode(X, D, n_jobs=1, **options)
    np.testing.assert_array_equal(sparse_encode(X, D, n_jobs=4, **options), codes)
    rows = slice(1, None, 3)
    own = {name: a[rows] if np.shape(a)[:1] == (300,) else a for name, a in options.items()}
    np.testing.assert_array_equal(sparse_encode(X[rows], D, **own), codes[rows])
    monkeypatch.setattr(tiles, "_TILE_ENTRIES", 1)
    np.testing.assert_array_equal(sparse_encode(X, D, n_jobs=3, **options), codes)


@pytest.mark.parametrize("options", [{"alphas": [0.1, 0.5]}, {"algorithm": "ols", "n_nonzero_coefs": [5, 2]}])
def test_paths(options, threads, dtype, monkeypatch):
    X, D = many_signals(dtype, 300)
    codes = sparse_encode_path(X, D, n_jobs=1, **options)
    np.testing.assert_array_equal(sparse_encode_path(X[1::3], D, **options), codes[:, 1::3])
    monkeypatch.setattr(tiles, "_TILE_ENTRIES", 1)
    np.testing.assert_array_equal(sparse_encode_path(X, D, n_jobs=4, **options), codes)


def test_two_callers_at_once(threads):
    problems = [many_signals(np.float32), many_signals(np.float64)]
    expected = [sparse_encode(X, D, alpha=0.2) for X, D in problems]
    got = [[], []]

    def call(k):
        for n_jobs in (2, 4, 1, 3):
            got[k].append(sparse_encode(*problems[k], alpha=0.2, n_jobs=n_jobs))

    callers = [threading.Thread(target=call, args=(k,), daemon=True) for k in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
        assert not caller.is_alive()
    for codes, same in zip(got, expected, strict=True):
        assert len(codes) == 4
        for one in codes:
            np.testing.assert_array_equal(one, same)


def _encode_in_child(n_signals):
    X, D = many_signals(np.float32, n_signals)
    return sparse_encode(X, D, alpha=0.2, n_jobs=2)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_after_a_fork():
    codes = _encode_in_child(1200)  # starts the threads of this process, which the child does not have
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, about forks of processes with threads
        with multiprocessing.get_context("fork").Pool(2) as pool:
            for same in pool.map_async(_encode_in_child, [1200, 1200]).get(timeout=120):
                np.testing.assert_array_equal(same, codes)
