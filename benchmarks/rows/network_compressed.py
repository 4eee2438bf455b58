"""Prediction with an eighth of the weights: speed and memory beside the dense network, ours and PyTorch's."""

import pickle
import tracemalloc

import numpy as np
from compressed import KINDS, N_IN, exact_outputs, network, spelled
from contest import race
from row import Line, Row

BATCH, SINGLE = 1000, 200
SAME = 1e-5
MEGABYTE = 2**20


def compressed_speed(settings):
    """A batch of rows at once, and rows one by one: no slower than dense networks."""
    row = Row("compressed_speed", "784-1024-1024-10 units, float32, an eighth of the weights", "µs a row")
    X = np.random.default_rng(0).random((BATCH, N_IN), np.float32)
    dense = spelled("dense")
    for how, x, at_once in (
        (f"{BATCH:,} rows at once", X, BATCH),
        ("rows one by one", X[: settings.count(SINGLE)], 1),
    ):
        options = {"at_once": at_once}
        entries = {
            kind: ("sparseshare", "predict_rows", {"X": x}, options | {"kind": kind}) for kind in (*KINDS, "dense")
        }
        entries["torch"] = ("pytorch", "predict_rows", {"X": x} | dense, options)
        outcomes = race(entries, settings)
        seconds = {key: outcome.get("seconds") for key, outcome in outcomes.items()}
        for kind, name in KINDS.items():
            exact = exact_outputs(x, kind)
            gap = float(np.abs(outcomes[kind]["result"]["outputs"] - exact).max() / np.abs(exact).max())
            for peer, label in (("dense", "our dense network"), ("torch", outcomes["torch"].get("peer", "PyTorch"))):
                theirs = seconds[peer] and 1e6 * seconds[peer] / len(x)
                row.lines.append(
                    Line(f"{label}; {name}, {how}", 1e6 * seconds[kind] / len(x), theirs,
                         1 if kind != "hashed" else None, f"largest difference to the whole matrix {gap:.0e}",
                         gap < SAME, outcomes[peer].get("failed", ""))
                )  # fmt: skip
    return row


def compressed_memory(settings, at_least=6):
    """Bytes of what a network holds, as a pickle of its parameters has them, and the arrays of a prediction."""
    row = Row("compressed_memory", "784-1024-1024-10 units, float32, an eighth of the weights", "MB")
    X = np.random.default_rng(0).random((BATCH, N_IN), np.float32)
    held = {kind: _held(kind, settings, X) for kind in (*KINDS, "dense")}
    dense, *passing = held.pop("dense")
    for kind, name in KINDS.items():
        bytes_held, single, batch = held[kind]
        accuracy = (
            f"while predicting {single / MEGABYTE:.2f} MB for a row, {batch / MEGABYTE:.1f} MB for {BATCH:,} "
            f"(dense {passing[0] / MEGABYTE:.2f} and {passing[1] / MEGABYTE:.1f} MB)"
        )
        row.lines.append(Line(f"dense; {name}", bytes_held / MEGABYTE, dense / MEGABYTE, at_least, accuracy))
    return row


def _held(kind, settings, X):
    made = network(kind, settings.threads)
    found = []
    for x in (X[:1], X):
        made.output(x)
        tracemalloc.start()
        made.output(x)
        found.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # After predictions: what they might leave behind counts.
    arrays = [value for parameter in made.parameters for value in vars(parameter).values()]
    kept = sum(value.nbytes for value in arrays if isinstance(value, np.ndarray))
    patterns = sum(len(pickle.dumps(parameter.pattern)) for parameter in made.parameters)
    return kept + patterns, *found
