"""What no coder can do without: the product of all signals with all atoms, and moving the data."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits
from work import Work

TILE = 512


def version():
    return ""


def product(X, D, threads):
    """X @ D.T by tiles that stay in cache, each tile by one thread."""
    scratch = [np.empty((TILE, len(D)), X.dtype) for _ in range(threads)]
    starts = range(0, len(X), TILE)

    def share(thread):
        for start in starts[thread::threads]:
            tile = X[start : start + TILE]
            np.matmul(tile, D.T, out=scratch[thread][: len(tile)])

    def run():
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
            list(pool.map(share, range(threads)))
        return {}

    return Work(run)


def bandwidth(n_bytes, threads):
    """Bytes read and written a second by copying an array that no cache holds."""
    source = np.ones(n_bytes // 8)
    target = np.empty_like(source)
    bounds = np.linspace(0, len(source), threads + 1).astype(int)

    def run():
        start = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda i: np.copyto(target[bounds[i] : bounds[i + 1]], source[bounds[i] : bounds[i + 1]]),
                          range(threads)))  # fmt: skip
        return {"rate": 2 * source.nbytes / (time.perf_counter() - start)}

    return Work(run)
