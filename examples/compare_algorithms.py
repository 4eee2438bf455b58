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


def measure(X, dictionary, rounds=6):
    """Microseconds, non-zeros and squared error, a signal each, for every request."""
    times, results = np.full(len(REQUESTS), np.inf), []
    for request in REQUESTS:
        sparse_encode(X[:64], dictionary, **request)  # compiles
        codes = sparse_encode(X, dictionary, sparse_output=True, **request)
        error = np.mean(np.sum((X - codes @ dictionary) ** 2, axis=1))
        results.append((codes.nnz / len(X), error))
    for _ in range(rounds):  # in turns, so that a slow moment of the machine does not fall on one algorithm
        for number, request in enumerate(REQUESTS):
            start = time.process_time()
            sparse_encode(X, dictionary, n_jobs=1, sparse_output=True, **request)
            times[number] = min(times[number], time.process_time() - start)
    return [(1e6 * seconds / len(X), *result) for seconds, result in zip(times, results, strict=True)]


def main(n_signals):
    X, dictionary = signals_and_dictionary(n_signals)
    rows = measure(X, dictionary)
    print("| request | time | non-zeros | error |\n|---|---|---|---|")
    for request, (microseconds, count, error) in zip(REQUESTS, rows, strict=True):
        name = ", ".join(f"{key}={value!r}" for key, value in request.items() if key != "max_iter")
        print(f"| `{name}` | {microseconds / rows[0][0]:.2g} | {count:.1f} | {error:.3g} |")
    print(f"\nTime 1 is {rows[0][0]:.1f} microseconds a signal. Errors are squared, a signal of norm 1.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
