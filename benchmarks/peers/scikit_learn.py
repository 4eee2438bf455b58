"""scikit-learn, at the better of one and `threads` processes."""

import time

import numpy as np
import sklearn
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode
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


def _better(call, threads):
    """The number of jobs, 1 or `threads`, with which a call is faster once its processes have started."""
    seconds = {}
    for n_jobs in {1, threads}:
        call(n_jobs)
        start = time.perf_counter()
        call(n_jobs)
        seconds[n_jobs] = time.perf_counter() - start
    return min(seconds, key=seconds.get)
