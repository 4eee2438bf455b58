"""scikit-learn, at the better of one and `threads` processes."""

import time

import numpy as np
import sklearn
from sklearn.decomposition import MiniBatchDictionaryLearning, SparseCoder, sparse_encode
from sklearn.feature_extraction.image import PatchExtractor
from sklearn.linear_model import orthogonal_mp_gram
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


def encode_masked(X, D, mask, algorithm, threads, **options):
    """One signal after the other, with the columns that are there: it has no masks, and its OMP wants unit atoms."""

    def call():
        rows = []
        for x, seen in zip(X, ~mask, strict=True):
            atoms = D[:, seen]
            norms = np.linalg.norm(atoms, axis=1) if algorithm == "omp" else np.ones(len(D))
            rows.append(sparse_encode(x[None, seen], atoms / norms[:, None], algorithm=algorithm, **options) / norms)
        return np.concatenate(rows)

    return Work(call, label=f"scikit-learn {algorithm}")


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


def denoise(noisy, sigma, D, side, max_error, learned, coded, threads):
    """K-SVD denoising as it is scripted on its OMP, on a share of the patches: one turn of learning, and the coding.

    The result holds the seconds a patch of either. A whole picture takes minutes.
    """
    patches = np.lib.stride_tricks.sliding_window_view(noisy, (side, side)).reshape(-1, side * side)
    patches = np.random.default_rng(0).permutation(patches)
    patches = patches - patches.mean(axis=1, keepdims=True)
    training = patches[np.sum(patches**2, axis=1) > max_error][:learned]

    def codes_of(X, D):
        found = orthogonal_mp_gram(D @ D.T, D @ X.T, tol=max_error, norms_squared=np.sum(X**2, axis=1))
        return found.T

    def learn(X, D):
        W = codes_of(X, D)
        residual = X - W @ D
        for k in range(len(D)):
            users = np.flatnonzero(W[:, k])
            if len(users):
                error = residual[users] + np.outer(W[users, k], D[k])
                atom = W[users, k] @ error
                D[k] = atom / np.linalg.norm(atom)
                W[users, k] = error @ D[k]
                residual[users] = error - np.outer(W[users, k], D[k])

    def run():
        dictionary, start = D.copy(), time.perf_counter()
        learn(training, dictionary)
        middle = time.perf_counter()
        codes_of(patches[:coded], dictionary) @ dictionary
        end = time.perf_counter()
        return {"learning": (middle - start) / max(len(training), 1), "coding": (end - middle) / coded}

    return Work(run, label="scikit-learn orthogonal_mp_gram", warm_up=False)


def _better(call, threads):
    """The number of jobs, 1 or `threads`, with which a call is faster once its processes have started."""
    seconds = {}
    for n_jobs in {1, threads}:
        call(n_jobs)
        start = time.perf_counter()
        call(n_jobs)
        seconds[n_jobs] = time.perf_counter() - start
    return min(seconds, key=seconds.get)
