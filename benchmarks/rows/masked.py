"""Codes of patches of which half is missing, every patch with a mask of its own."""

import numpy as np
import problems
from contest import race
from objectives import lasso_objectives, squared_residuals
from row import Line, Row

from .lasso import N_NONZEROS, SAME_OBJECTIVE
from .pursuit import N_NONZEROS as N_ATOMS
from .pursuit import SAME_RESIDUAL

SHARE = 0.5  # of entries that are missing


def masked(settings, n_signals=20_000, n_slow=200):
    """Lasso and OMP against the same call without a mask, and against scikit-learn's on one cut patch at a time."""
    X = problems.test_signals(8, settings.count(n_signals))
    D = problems.dictionary(8, 256, settings).astype(np.float32)
    mask = np.random.default_rng(0).random(X.shape) < SHARE
    mask[:, 0] &= ~mask.all(axis=1)
    n = settings.count(n_slow)
    alpha = problems.penalty(8, 256, N_NONZEROS, settings)
    options = {"lasso_lars": {"alpha": alpha}, "omp": {"n_nonzero_coefs": N_ATOMS}}
    arrays = {"X": X, "D": D}
    few = {"X": X[:n].astype(np.float64), "D": D.astype(np.float64), "mask": mask[:n]}
    entries = {}
    for algorithm, own in options.items():
        own = {"algorithm": algorithm, **own}
        entries[algorithm] = ("sparseshare", "encode", {**arrays, "mask": mask}, own)
        entries[f"{algorithm} complete"] = ("sparseshare", "encode", arrays, own)
        entries[f"{algorithm} scikit-learn"] = ("scikit_learn", "encode_masked", few, own)
    outcomes = race(entries, settings)

    work = f"{SHARE:.0%} of the entries missing, 64 features, 256 atoms, {len(X):,} signals, float32"
    row = Row("masked_64x256_float32", f"lasso and OMP, {work}", "µs a signal")
    for algorithm in options:
        codes, seconds = outcomes[algorithm]["result"], outcomes[algorithm]["seconds"]
        ours = 1e6 * seconds / len(X)
        complete = outcomes[f"{algorithm} complete"]
        row.lines.append(
            Line(
                f"{algorithm}, nothing missing",
                ours,
                1e6 * complete["seconds"] / len(X),
                note=f"{codes.nnz / len(X):.1f} non-zeros, {complete['result'].nnz / len(X):.1f} where nothing misses",
            )
        )
        slow = outcomes[f"{algorithm} scikit-learn"]
        if "failed" in slow:
            row.lines.append(Line(f"{algorithm}, scikit-learn", ours, None, note=slow["failed"]))
            continue
        excess = _loss(X[:n], D, codes[:n], ~mask[:n], alpha, algorithm)
        excess = excess / _loss(X[:n], D, slow["result"], ~mask[:n], alpha, algorithm) - 1
        measure, most = ("objective", SAME_OBJECTIVE) if algorithm != "omp" else ("squared residual", SAME_RESIDUAL)
        row.lines.append(
            Line(
                slow["peer"],
                ours,
                1e6 * slow["seconds"] / n,
                accuracy=f"{measure} {excess:+.0e}",
                same=bool(excess <= most),
                note=f"theirs a signal at a time in one process, {n:,} of them, float64",
            )
        )
    return row


def _loss(X, D, codes, seen, alpha, algorithm):
    """What the codes of all signals amount to, over the entries that are there."""
    if algorithm == "omp":
        return squared_residuals(X, D, codes, seen).sum()
    return lasso_objectives(X, D, codes, alpha, seen).sum()
