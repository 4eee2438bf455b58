"""Is a known dictionary found again? The synthetic test of the K-SVD paper: `python benchmarks/recovery.py`.

Aharon, Elad, Bruckstein, IEEE TSP 2006, section V: 50 atoms of 20 entries, 1500 signals of 3 atoms each, 80 iterations
of OMP with 3 atoms and a dictionary update, begun with signals. An atom d counts as found if some learned atom d' has
1 - |d d'| < 0.01.
"""

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from report import versions

from sparseshare import KSVD, DictionaryLearning
from sparseshare.datasets import make_sparse_signals

HERE = Path(__file__).parent
NOISE = (None, 30, 20, 10)
N_COMPONENTS, N_NONZEROS, N_ITERATIONS = 50, 3, 80
# Mean number of atoms found in 50 trials, as the paper gives it.
PAPER = {"K-SVD": {None: 47.8, 30: 47.9, 20: 47.7, 10: 45.1}, "MOD": {None: 44.5, 30: 44.8, 20: 44.6, 10: 43.4}}
METHODS = {
    "K-SVD, exact": (KSVD, {"dict_update": "exact"}),
    "K-SVD, approximate": (KSVD, {"dict_update": "approximate"}),
    "MOD": (DictionaryLearning, {"dict_update": "mod", "fit_algorithm": "omp", "atom_norm": "sphere"}),
}


def n_found(dictionary, learned):
    """Number of atoms (rows of norm 1) that some learned atom equals up to its sign."""
    return int(np.sum(1 - np.abs(dictionary @ learned.T).max(axis=1) < 0.01))


def trial(seed, snr_db, method):
    """Atoms found of one planted dictionary."""
    X, dictionary, _ = make_sparse_signals(
        1500, n_components=N_COMPONENTS, n_features=20, n_nonzero_coefs=N_NONZEROS, snr_db=snr_db, random_state=seed
    )
    estimator, options = METHODS[method]
    learner = estimator(
        N_COMPONENTS, n_nonzero_coefs=N_NONZEROS, max_iter=N_ITERATIONS, tol=0, random_state=seed, n_jobs=1, **options
    )
    return n_found(dictionary, learner.fit(X).components_)


def main():
    parser = argparse.ArgumentParser(description="The K-SVD paper's synthetic test.")
    parser.add_argument("--trials", type=int, default=50, help="the paper makes 50; 10 are quick")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()

    cases = [(seed, snr, method) for method in METHODS for snr in NOISE for seed in range(arguments.trials)]
    start = time.perf_counter()
    with get_context("spawn").Pool(arguments.processes) as pool:
        found = np.reshape(pool.starmap(trial, cases, chunksize=1), (len(METHODS), len(NOISE), arguments.trials))
    seconds = time.perf_counter() - start

    names = ["none" if snr is None else f"{snr} dB" for snr in NOISE]
    text = ["# Recovery of a known dictionary", ""]
    text += [f"Mean atoms found of {N_COMPONENTS}, by `python benchmarks/recovery.py --trials {arguments.trials}`.", ""]
    text += ["| noise | " + " | ".join(names) + " |", "|---|" + "---|" * len(NOISE)]
    for method, counts in PAPER.items():
        text += [f"| {method}, paper | " + " | ".join(f"{counts[snr]:.1f}" for snr in NOISE) + " |"]
    for method, counts in zip(METHODS, found, strict=True):
        cells = [f"{each.mean():.1f} ± {each.std() / np.sqrt(arguments.trials):.1f}" for each in counts]
        text += [f"| {method} | " + " | ".join(cells) + " |"]
    text += ["", f"The ± are standard errors. {len(cases)} fits took {seconds:.0f} s."]
    print("\n".join(text))
    # Only the paper's number of trials makes a result worth keeping.
    folder = HERE / ("results" if arguments.trials >= 50 else "output")
    folder.mkdir(exist_ok=True)
    (folder / "recovery.md").write_text("\n".join(text) + "\n")
    counts = {method: dict(zip(names, each.tolist(), strict=True)) for method, each in zip(METHODS, found, strict=True)}
    (folder / "recovery.json").write_text(json.dumps({"environment": versions(), "found": counts}) + "\n")


if __name__ == "__main__":
    main()
