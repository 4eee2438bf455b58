"""Ten atoms a patch, by OMP and by OLS."""

import numpy as np
import problems
from contest import race
from objectives import moved_bytes, squared_residuals
from row import Line, Row

from .lasso import floor_of

N_NONZEROS = 10
# Float32 codes of the same supports; where two atoms tie to the last bit, either choice is right.
SAME_RESIDUAL = 1e-4


def pursuit(settings, algorithm, targets, n_signals=40_000, n_slow=2000):
    """`algorithm` is ours, omp or ols. SPAMS' omp selects as our ols does; the others select by OMP."""
    X = problems.test_signals(8, settings.count(n_signals))
    D = problems.dictionary(8, 256, settings).astype(np.float32)
    few = X[: settings.count(n_slow)]
    count = {"n_nonzero_coefs": N_NONZEROS}
    arrays = {"X": X, "D": D}
    entries = {
        "ours": ("sparseshare", "encode", arrays, {"algorithm": algorithm, **count}),
        "floor": ("floor", "product", arrays, {}),
        "spams": ("spams", "omp", arrays, count),
    }
    if algorithm == "omp":
        slow = {"X": few.astype(np.float64), "D": D.astype(np.float64)}
        entries["omp"] = ("scikit_learn", "encode", slow, {"algorithm": "omp", **count})
        entries["dictlearn"] = ("dictlearn", "omp", slow, count)
    outcomes = race(entries, settings)

    ours = outcomes["ours"]
    codes, microseconds = ours["result"], 1e6 * ours["seconds"] / len(X)
    residuals = squared_residuals(X, D, codes)
    row = Row(
        f"{algorithm}_64x256_float32",
        f"{algorithm.upper()}, 64 features, 256 atoms, {N_NONZEROS} non-zeros, {len(X):,} signals, float32",
        "µs a signal",
        floor=floor_of(outcomes["floor"], microseconds, len(X), moved_bytes(X, D, codes)),
    )
    for peer in [key for key in entries if key not in ("ours", "floor")]:
        outcome = outcomes[peer]
        if "failed" in outcome:
            row.lines.append(Line(peer, microseconds, None, targets.get(peer), note=outcome["failed"]))
            continue
        n = outcome["result"].shape[0]
        excess = residuals[:n].sum() / squared_residuals(X[:n], D, outcome["result"]).sum() - 1
        other_method = (algorithm == "ols") != (peer == "spams")
        row.lines.append(
            Line(
                outcome["peer"],
                microseconds,
                1e6 * outcome["seconds"] / n,
                targets.get(peer),
                f"squared residual {excess:+.1%}, another method"
                if other_method
                else f"squared residual {excess:+.0e}",
                bool(other_method or excess <= SAME_RESIDUAL),
                "" if n == len(X) else f"theirs on {n:,} signals, float64",
            )
        )
    return row
