"""Time, sparsity and error of every algorithm on the same signals; the table of the README.

    python examples/compare_algorithms.py [n_signals]

8x8 patches of photographs, without their mean and of unit norm, 256 learned atoms, float32, one thread. Times are those
of the processor and the least of several.
"""

import sys
import time

import numpy as np

from sparseshare import MiniBatchDictionaryLearning, sparse_encode
from sparseshare.datasets import photo_patches

ALPHA, COUNT, ERROR = 0.165, 10, 0.1
REQUESTS = [
    dict(algorithm="lasso_lars", alpha=ALPHA),
    dict(algorithm="lasso_cd", alpha=ALPHA),
    dict(algorithm="fista", alpha=ALPHA, max_iter=100_000, tol=1e-4),
    dict(algorithm="ista", alpha=ALPHA, max_iter=100_000, tol=1e-4),
    dict(algorithm="lasso_lars", max_error=ERROR),
    dict(algorithm="lars", n_nonzero_coefs=COUNT),
    dict(algorithm="omp", n_nonzero_coefs=COUNT),
    dict(algorithm="omp", max_error=ERROR),
    dict(algorithm="ols", n_nonzero_coefs=COUNT),
    dict(algorithm="mp", n_nonzero_coefs=COUNT),
    dict(algorithm="iht", n_nonzero_coefs=COUNT),
    dict(algorithm="threshold", alpha=0.5),
]


def signals_and_dictionary(n_signals):
    X = photo_patches(30_000 + n_signals, random_state=0, dtype=np.float32)
    learner = MiniBatchDictionaryLearning(
        256, alpha=ALPHA, max_iter=3, batch_size=512, tol=0, max_no_improvement=None, random_state=0
    )
    return X[30_000:], learner.fit(X[:30_000]).components_


def measure(X, dictionary, request):
    """Microseconds, non-zeros and squared error, a signal each."""
    sparse_encode(X[:64], dictionary, **request)  # compiles
    times = []
    while len(times) < 2 or (len(times) < 20 and sum(times) < 2):
        start = time.process_time()
        codes = sparse_encode(X, dictionary, n_jobs=1, sparse_output=True, **request)
        times.append(time.process_time() - start)
    error = np.mean(np.sum((X - codes @ dictionary) ** 2, axis=1))
    return 1e6 * min(times) / len(X), codes.nnz / len(X), error


def main(n_signals):
    X, dictionary = signals_and_dictionary(n_signals)
    print("| request | time | non-zeros | error |\n|---|---|---|---|")
    first = None
    for request in REQUESTS:
        microseconds, count, error = measure(X, dictionary, request)
        first = microseconds if first is None else first
        name = ", ".join(f"{key}={value!r}" for key, value in request.items() if key != "max_iter")
        print(f"| `{name}` | {microseconds / first:.2g} | {count:.1f} | {error:.3g} |", flush=True)
    print(f"\nTime 1 is {first:.1f} microseconds a signal. Errors are squared, a signal of norm 1.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
