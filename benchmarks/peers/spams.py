"""SPAMS, by its wheels `spams-bin`. It is under the GPL: this file runs in a process of its own and nothing else does.

Its signals are columns, Fortran order: the transpose of our rows, without a copy. Atoms need unit norm, zero signals
crash it, and its `omp`, which selects by OLS, returns zeros in float32 unless `eps` is given.
"""

import time
from importlib import metadata

import numpy as np
import spams
from scipy.sparse import csr_array
from work import Work


def version():
    return metadata.version("spams-bin")


def lasso(X, D, alpha, threads):
    return Work(
        lambda: spams.lasso(X.T, D=D.T, lambda1=alpha, mode=2, numThreads=threads), rows=_rows, label="SPAMS lasso"
    )


def omp(X, D, n_nonzero_coefs, threads):
    return Work(
        lambda: spams.omp(X.T, D=D.T, L=n_nonzero_coefs, eps=0.0, numThreads=threads),
        rows=_rows,
        label="SPAMS omp (selects by OLS)",
    )


def learn(X, D, alpha, batch_size, n_batches, every, threads):
    """`trainDL`, stopped after `every`, `2 * every`, ... batches, each time from the beginning."""
    stops = range(every, n_batches + 1, every)
    least = np.full(len(stops), np.inf)

    def run():
        kept = []
        for i, stop in enumerate(stops):
            start = time.perf_counter()
            atoms = spams.trainDL(
                X.T, D=D.T, lambda1=alpha, batchsize=batch_size, iter=stop, mode=2, numThreads=threads, verbose=False
            )
            least[i] = min(least[i], time.perf_counter() - start)
            kept.append(np.ascontiguousarray(atoms.T))
        return {"seconds": least, "dictionaries": np.array(kept)}

    return Work(run, label="SPAMS trainDL")


def _rows(codes):
    return csr_array(codes.T)
