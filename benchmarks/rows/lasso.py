"""Lasso codes of photograph patches."""

import numpy as np
import problems
from contest import race
from objectives import lasso_gaps, lasso_objectives, moved_bytes
from row import Line, Row

N_NONZEROS = 9
SAME_OBJECTIVE = 1e-6
UNSOLVED = 1e-4


def lasso(settings, side, n_components, dtype, n_signals, n_slow, targets):
    """Codes with about nine non-zeros, everybody to the same objective.

    `n_slow` gives the signals for scikit-learn's (`lasso_lars`, `lasso_cd`): times are compared a signal. It gets them
    in float64, for its float32 coordinate descent never meets its own tolerance.
    """
    X = problems.test_signals(side, settings.count(n_signals), dtype)
    D = problems.dictionary(side, n_components, settings).astype(dtype)
    alpha = problems.penalty(side, n_components, N_NONZEROS, settings)
    few = {peer: X[: settings.count(n)].astype(np.float64) for peer, n in n_slow.items()}
    entries = {
        "ours": ("sparseshare", "encode", {"X": X, "D": D}, {"alpha": alpha}),
        "floor": ("floor", "product", {"X": X, "D": D}, {}),
        "spams": ("spams", "lasso", {"X": X, "D": D}, {"alpha": alpha}),
    }
    for peer, signals in few.items():
        arrays = {"X": signals, "D": D.astype(np.float64)}
        entries[peer] = ("scikit_learn", "encode", arrays, {"algorithm": peer, "alpha": alpha})
    outcomes = race(entries, settings)

    ours = outcomes["ours"]
    codes, microseconds = ours["result"], 1e6 * ours["seconds"] / len(X)
    objectives = lasso_objectives(X, D, codes, alpha)
    gap = lasso_gaps(X, D, codes, alpha).max()
    size = f"{side * side} features, {n_components} atoms"
    row = Row(
        f"lasso_{side * side}x{n_components}_{np.dtype(dtype)}",
        f"lasso, {size}, {codes.nnz / len(X):.1f} non-zeros, {len(X):,} signals, {np.dtype(dtype)}",
        "µs a signal",
        floor=floor_of(outcomes["floor"], microseconds, len(X), moved_bytes(X, D, codes)),
    )
    for peer in ("spams", *few):
        outcome = outcomes[peer]
        if "failed" in outcome:
            row.lines.append(Line(peer, microseconds, None, targets.get(peer), note=outcome["failed"]))
            continue
        n = outcome["result"].shape[0]
        theirs = lasso_objectives(X[:n], D, outcome["result"], alpha).sum()
        excess = objectives[:n].sum() / theirs - 1
        notes = [f"theirs on {n:,} signals, float64"] if n < len(X) else []
        unsolved = int((lasso_gaps(X[:n], D, outcome["result"], alpha) > UNSOLVED).sum())
        notes += [f"theirs leaves {unsolved} signals with gaps above {UNSOLVED:.0e}"] if unsolved else []
        row.lines.append(
            Line(
                outcome["peer"],
                microseconds,
                1e6 * outcome["seconds"] / n,
                targets.get(peer),
                f"objective {excess:+.0e}, largest gap {gap:.0e}",
                bool(excess <= SAME_OBJECTIVE),
                "; ".join(notes),
            )
        )
    return row


def floor_of(product, ours, n_signals, n_bytes):
    """The floor of a row in microseconds a signal: the product X @ D.T, and the bytes that have to move."""
    return {"gemm": 1e6 * product["seconds"] / n_signals, "ours": ours, "bytes": n_bytes / n_signals}
