"""scikit-learn, at the better of one and `threads` processes."""

import time

import numpy as np
import sklearn
from sklearn.decomposition import MiniBatchDictionaryLearning, SparseCoder, sparse_encode
from sklearn.feature_extraction.image import PatchExtractor
from streaming import watched_learning
from work import Work


def version():
    return sklearn.__version__


def encode(X, D, algorithm, threads, **options):
    """Dense codes; the options are those of its `sparse_encode`."""

    def call(n_jobs):
        return sparse_encode(X, D, algorithm=algorithm, n_jobs=n_jobs, **options)

    n_jobs = _better(call, threads)
    return Work(lambda: call(n_jobs), label=f"scikit-learn {algorithm}")


def learn(X, D, alpha, batch_size, n_batches, every, fit_algorithm, threads, max_seconds=np.inf):
    def make(n_jobs):
        return MiniBatchDictionaryLearning(
            len(D),
            alpha=alpha,
            batch_size=batch_size,
            dict_init=D,
            fit_algorithm=fit_algorithm,
            n_jobs=n_jobs,
            random_state=0,
        )

    n_jobs = _better(lambda n_jobs: make(n_jobs).partial_fit(X[:batch_size]), threads)
    label = f"scikit-learn {fit_algorithm}"
    return watched_learning(lambda: make(n_jobs), X, batch_size, n_batches, every, max_seconds, label)


def features(images, D, mean, whitening, side, alpha, epsilon, threads):
    """Pooled two-sided thresholds of all patches, written with its pieces: as many images at once as are fastest."""
    extractor = PatchExtractor(patch_size=(side, side))
    coder = SparseCoder(D, transform_algorithm="threshold", transform_alpha=alpha, split_sign=True)
    mean, whitening = mean.astype(images.dtype), whitening.astype(images.dtype)
    grid = images.shape[1] - side + 1
    edges = [0, grid // 2, grid]

    def some(batch):
        patches = extractor.transform(batch).astype(batch.dtype, copy=False).reshape(len(batch) * grid**2, -1)
        patches = patches - patches.mean(axis=1, keepdims=True)
        patches /= np.sqrt((patches**2).mean(axis=1, keepdims=True) + epsilon)
        codes = coder.transform((patches - mean) @ whitening).reshape(len(batch), grid, grid, -1)
        cells = [
            codes[:, edges[i] : edges[i + 1], edges[j] : edges[j + 1]].sum(axis=(1, 2)) for i in (0, 1) for j in (0, 1)
        ]
        return np.concatenate(cells, axis=1)

    def call(n):
        return np.concatenate([some(images[i : i + n]) for i in range(0, len(images), n)])

    seconds = {}
    for n in (5, 20, 80):
        start = time.perf_counter()
        some(images[:n])
        seconds[n] = (time.perf_counter() - start) / n
    n = min(seconds, key=seconds.get)
    return Work(lambda: call(n), rows=lambda made: {"first": made[:100]}, label="scikit-learn's pieces", warm_up=False)


def _better(call, threads):
    """The number of jobs, 1 or `threads`, with which a call is faster once its processes have started."""
    seconds = {}
    for n_jobs in {1, threads}:
        call(n_jobs)
        start = time.perf_counter()
        call(n_jobs)
        seconds[n_jobs] = time.perf_counter() - start
    return min(seconds, key=seconds.get)
