"""Codes at ten penalties from one call."""

import numpy as np
import problems
from contest import race
from objectives import lasso_objectives
from row import Line, Row

from .lasso import N_NONZEROS, SAME_OBJECTIVE

N_PENALTIES = 10


def path(settings, n_signals=20_000, at_most=2.5):
    """Against the smallest penalty alone. The largest is 0.9: for signals and atoms of norm 1 all codes are 0 at 1."""
    X = problems.test_signals(8, settings.count(n_signals))
    D = problems.dictionary(8, 256, settings).astype(np.float32)
    alpha = problems.penalty(8, 256, N_NONZEROS, settings)
    alphas = np.geomspace(0.9, alpha, N_PENALTIES)
    arrays = {"X": X, "D": D}
    entries = {
        "path": ("sparseshare", "path", arrays, {"alphas": alphas.tolist()}),
        "one": ("sparseshare", "encode", arrays, {"alpha": alpha}),
        "calls": ("sparseshare", "calls", arrays, {"alphas": alphas.tolist()}),
    }
    outcomes = race(entries, settings)
    seconds = {key: outcome["seconds"] for key, outcome in outcomes.items()}

    sums = {}
    for key in ("path", "calls"):
        codes = outcomes[key]["result"]
        blocks = [codes[start : start + len(X)] for start in range(0, codes.shape[0], len(X))]
        sums[key] = np.array(
            [lasso_objectives(X, D, block, each).sum() for block, each in zip(blocks, alphas, strict=True)]
        )
    excess = np.max(sums["path"] / sums["calls"] - 1)
    unit = 1e6 / len(X)
    cost = seconds["path"] / seconds["one"]
    note = f"costs {cost:.2f} times as much, asked for at most {at_most}"
    accuracy, same = f"objective {excess:+.0e} at the worst penalty", bool(excess <= SAME_OBJECTIVE)
    ours = unit * seconds["path"]
    work = f"lasso, {N_PENALTIES} penalties down to {alpha:.3f}, 64 features, 256 atoms, {len(X):,} signals, float32"
    row = Row("path_64x256_float32", work, "µs a signal")
    row.lines = [
        Line("the smallest penalty alone", ours, unit * seconds["one"], 1 / at_most, accuracy, same, note),
        Line("ten calls of sparse_encode", ours, unit * seconds["calls"], None, accuracy, same),
    ]
    return row
