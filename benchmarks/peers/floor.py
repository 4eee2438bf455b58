"""What no coder can do without: the product of signals with atoms, or Fourier transforms, and moving the data."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import fft
from threadpoolctl import ThreadpoolController
from work import Work

TILE = 512


def version():
    return ""


def product(X, D, threads):
    """X @ D.T by tiles that stay in cache, each tile by one thread, the threads there before the clock runs."""
    blas, pool = ThreadpoolController().select(user_api="blas"), ThreadPoolExecutor(threads)
    scratch = [np.empty((TILE, len(D)), X.dtype) for _ in range(threads)]
    starts = range(0, len(X), TILE)

    def share(thread):
        for start in starts[thread::threads]:
            tile = X[start : start + TILE]
            np.matmul(tile, D.T, out=scratch[thread][: len(tile)])

    def run():
        with blas.limit(limits=1):
            list(pool.map(share, range(threads)))
        return {}

    return Work(run)


def bandwidth(n_bytes, threads):
    """Bytes read and written a second by copying an array that no cache holds."""
    source = np.ones(n_bytes // 8)
    target = np.empty_like(source)
    shares = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    pool = ThreadPoolExecutor(threads)

    def run():
        start = time.perf_counter()
        list(pool.map(lambda share: np.copyto(*share), shares))
        return {"rate": 2 * source.nbytes / (time.perf_counter() - start)}

    return Work(run)


def transforms(shape, n_maps, dtype, threads):
    """The real Fourier transforms of all maps, there and back: an iteration of a Fourier solver needs them."""
    maps = np.ones((n_maps, *shape), dtype)
    axes = tuple(range(1, maps.ndim))

    def run():
        spectra = fft.rfftn(maps, axes=axes, workers=threads)
        fft.irfftn(spectra, shape, axes=axes, workers=threads, overwrite_x=True)
        return {}

    return Work(run)
