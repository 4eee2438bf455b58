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
    }
    for i, each in enumerate(alphas):
        entries[i] = ("sparseshare", "encode", arrays, {"alpha": each})
    outcomes = race(entries, settings)
    seconds = {key: outcome["seconds"] for key, outcome in outcomes.items()}

    codes = outcomes["path"]["result"]
    excess = max(
        lasso_objectives(X, D, codes[i * len(X) : (i + 1) * len(X)], each).sum()
        / lasso_objectives(X, D, outcomes[i]["result"], each).sum()
        - 1
        for i, each in enumerate(alphas)
    )
    unit = 1e6 / len(X)
    cost = seconds["path"] / seconds["one"]
    note = f"costs {cost:.2f} times as much, asked for at most {at_most}"
    accuracy, same = f"objective {excess:+.0e} at the worst penalty", bool(excess <= SAME_OBJECTIVE)
    ours = unit * seconds["path"]
    work = (
        f"sparse_encode_path at {N_PENALTIES} penalties down to {alpha:.3f}, 64 features, 256 atoms, {len(X):,} signals"
    )
    row = Row("path_64x256_float32", work, "µs a signal")
    row.lines = [
        Line("the smallest penalty alone", ours, unit * seconds["one"], 1 / at_most, accuracy, same, note),
        Line("ten calls", ours, unit * sum(seconds[i] for i in range(N_PENALTIES)), None, accuracy, same),
    ]
    return row
