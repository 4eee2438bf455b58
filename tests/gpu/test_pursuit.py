"""Pursuits on a GPU against those of the CPU: codes, counts, residuals and status of every signal."""

import numpy as np
import pytest
from kernels.tile import Tile, problem

from sparseshare.kernels.cpu import pursuit as on_cpu

ORDERS = ("forward", "reverse", "random")
TOL = {np.float32: 2e-5, np.float64: 1e-10}


def tile_of(name, dtype, n_signals=5, seed=0):
    """A tile with atoms of unit norm, as problems of pursuits have them."""
    X, D = problem(name, n_signals, seed)
    norms = np.linalg.norm(D, axis=1, keepdims=True)
    tile = Tile(X, np.divide(D, norms, out=np.zeros_like(D), where=norms > 0), dtype)
    diagonal = np.einsum("ii->i", tile.G)
    diagonal[diagonal > 0.5] = 1
    return tile


class Results:
    """Poisoned room for the codes of a tile."""

    def __init__(self, n, capacity, n_stops, dtype):
        self.indices = np.full((n, capacity), -1, np.int32)
        self.values = np.full((n, capacity), np.nan, dtype)
        self.counts, self.status = np.full(n, -1, np.int32), np.full(n, -1, np.int8)
        self.residuals = np.full(n, np.nan)
        self.path = np.full((n, n_stops, capacity), np.nan, dtype)

    @property
    def all(self):
        return self.indices, self.values, self.counts, self.residuals, self.status, self.path


def pursue(kernels, tile, n_nonzero, max_error=-1.0, *, gpu=None, least_squares=False, weight=None, stops=()):
    """Codes of a tile; on the GPU if it is given."""
    n, put = len(tile.Q), gpu.asarray if gpu else np.asarray
    counts = np.broadcast_to(n_nonzero, n).astype(np.int64)
    out = Results(n, max(int(counts.max()), 1), len(stops), tile.Q.dtype)
    arrays = [put(a) for a in (tile.Q, tile.norms2, tile.G, counts, np.broadcast_to(max_error, n).astype(float))]
    stops, results = np.array(stops, np.int64), [put(a) for a in out.all]
    if least_squares:
        kernels.ols_tile(*arrays, stops, *results)
    else:
        kernels.omp_tile(*arrays, None if weight is None else put(weight), stops, *results)
    if gpu:
        for own, there in zip(out.all, results, strict=True):
            own[...] = gpu.get(there)
    return out


def dense(tile, out):
    codes = np.zeros((len(tile.Q), len(tile.G)))
    for w, atoms, values, count in zip(codes, out.indices, out.values, out.counts, strict=True):
        assert len(set(atoms[:count].tolist())) == count
        w[atoms[:count]] = values[:count]
    return codes


@pytest.fixture
def on_gpu(gpu):
    from sparseshare.kernels.gpu import pursuit

    return pursuit


def assert_equal_codes(tile, found, expected):
    tol = TOL[tile.Q.dtype.type]
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.status, expected.status)
    for i, count in enumerate(expected.counts):
        np.testing.assert_array_equal(found.indices[i, :count], expected.indices[i, :count])
        np.testing.assert_allclose(found.values[i, :count], expected.values[i, :count], atol=tol)
    np.testing.assert_allclose(found.residuals, expected.residuals, atol=tol * tile.norms2.max())


@pytest.mark.parametrize("least_squares", [False, True], ids=["omp", "ols"])
@pytest.mark.parametrize("name", ["wide", "tall", "zero_atoms"])
def test_codes_are_those_of_the_cpu(gpu, on_gpu, name, least_squares, dtype):
    tile = tile_of(name, dtype)
    found, expected = (
        pursue(kernels, tile, 6, gpu=device, least_squares=least_squares)
        for kernels, device in ((on_gpu, gpu), (on_cpu, None))
    )
    assert_equal_codes(tile, found, expected)
