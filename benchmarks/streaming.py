"""Mini-batch learning watched on its way: how far the dictionary is after how many seconds."""

import time

import numpy as np
from work import Work


def watched_learning(make, X, batch_size, n_batches, every, max_seconds, label):
    """Work that feeds an estimator batch by batch with `partial_fit` and keeps its dictionary now and then.

    The clock runs inside `partial_fit` only. Over repeated runs the least seconds to each dictionary are kept: every
    run makes the same dictionaries.

    Parameters
    ----------
    make : callable
        Returns a fresh estimator.
    X : ndarray of shape (n_samples, n_features)
        In the order to be learned from; begun again when it ends.
    batch_size, n_batches : int
    every : int
        Batches from one kept dictionary to the next.
    max_seconds : float
        No further batch after that.
    label : str

    Returns
    -------
    Work
        Its result has `seconds` (n_kept,) and `dictionaries` (n_kept, n_components, n_features).
    """
    least = []

    def run():
        estimator, seconds, kept = make(), 0.0, []
        for batch in range(n_batches):
            rows = np.arange(batch * batch_size, (batch + 1) * batch_size) % len(X)
            signals = X[rows]
            start = time.perf_counter()
            estimator.partial_fit(signals)
            seconds += time.perf_counter() - start
            if (batch + 1) % every == 0:
                if len(kept) == len(least):
                    least.append(np.inf)
                least[len(kept)] = min(least[len(kept)], seconds)
                kept.append(estimator.components_.copy())
            if seconds > max_seconds:
                break
        return {"seconds": np.array(least[: len(kept)]), "dictionaries": np.array(kept)}

    return Work(run, label=label, warm_up=max_seconds < np.inf)
