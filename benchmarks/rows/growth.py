"""How the time of the lasso grows with signals, atoms, features and non-zeros."""

import numpy as np
import problems
from contest import race
from row import Row

SIDE, N_COMPONENTS, N_NONZEROS = 8, 256, 9


def growth(settings):
    """Four walks from 64 features, 256 atoms, 9 non-zeros, 20,000 signals, one size changed at a time."""
    walks = {
        "signals": [(n, SIDE, N_COMPONENTS, N_NONZEROS) for n in (100, 300, 1000, 3000, 10_000, 30_000, 100_000)],
        "atoms": [(20_000, SIDE, k, N_NONZEROS) for k in (64, 128, 256, 512, 1024, 2048)],
        "features": [(5000, side, 512, N_NONZEROS) for side in (6, 8, 12, 16, 20, 28)],
        "non-zeros": [(5000, SIDE, N_COMPONENTS, m) for m in (3, 5, 9, 17, 28, 40)],
    }
    row = Row("growth", "lasso, float32, growth with signals, atoms, features and non-zeros", "µs a signal")
    for walk, places in walks.items():
        for place in places[:3] if settings.quick else places:
            at = {"signals": place[0], "atoms": place[2], "features": place[1] ** 2, "non-zeros": place[3]}[walk]
            for name, microseconds in _times(settings, *place).items():
                curve = row.series.setdefault(f"{walk}: {name}", {"x": [], "y": []})
                curve["x"].append(at)
                curve["y"].append(microseconds)
    return row


def _times(settings, n_signals, side, n_components, n_nonzeros):
    if settings.quick:
        n_signals = min(n_signals, 1000)
    X = problems.test_signals(side, n_signals)
    D = problems.dictionary(side, n_components, settings).astype(np.float32)
    alpha = problems.penalty(side, n_components, n_nonzeros, settings)
    few = X[:300].astype(np.float64)
    arrays = {"X": X, "D": D}
    entries = {
        "sparseshare": ("sparseshare", "encode", arrays, {"alpha": alpha}),
        "SPAMS": ("spams", "lasso", arrays, {"alpha": alpha}),
        "product of signals and atoms": ("floor", "product", arrays, {}),
        "scikit-learn lasso_cd": (
            "scikit_learn", "encode", {"X": few, "D": D.astype(np.float64)}, {"algorithm": "lasso_cd", "alpha": alpha}
        ),
    }  # fmt: skip
    outcomes = race(entries, settings, repeats=2 if settings.quick else 5)
    return {
        name: 1e6 * outcome["seconds"] / len(entries[name][2]["X"])
        for name, outcome in outcomes.items()
        if "failed" not in outcome
    }
