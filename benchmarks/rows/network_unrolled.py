"""Learned sparse coders: codes in a few steps beside the iterations of FISTA."""

import time
import warnings

import numpy as np
import problems
from contest import race
from objectives import lasso_objectives
from row import Line, Row
from scipy.sparse import csr_array

from sparseshare import sparse_encode
from sparseshare.network import LearnedSparseCoder

SIDE, N_COMPONENTS, N_NONZEROS = 8, 256, 9
N_STEPS, KIND = 12, "coupled"
TRAINING = {"learning_rate": 0.1, "max_iter": 30}
N_TRAINING = 50_000
MARKS = (1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40, 50)  # iterations of the curves
N_CURVE = 2000


def lista(settings, n_signals=100_000):
    """Time to the objective that our FISTA has after 50 iterations, on signals that no training has seen.

    Where the network does not get so far, the first line says so, and the second compares at the error it does reach.
    """
    D = problems.dictionary(SIDE, N_COMPONENTS, settings).astype(np.float32)
    alpha = problems.penalty(SIDE, N_COMPONENTS, N_NONZEROS, settings)
    seen = problems.training_signals(SIDE, settings.count(N_TRAINING))
    X = problems.test_signals(SIDE, settings.count(n_signals))
    known = {x.tobytes() for x in seen}
    new = np.array([x.tobytes() not in known for x in X])

    coder, seconds = _trained(seen, D, alpha, settings)
    curves = _curves(X[new][:N_CURVE], D, alpha, {"learned": coder} | _every_step(seen, D, alpha, settings))
    reached = curves["learned: objective"]["y"][-1]
    fista = curves["fista: objective"]
    equal = next((n for n, gap in zip(fista["x"], fista["y"], strict=True) if gap <= reached), fista["x"][-1])

    node = coder.network_.nodes[0]
    arrays = {"X": X, "D": D, "weights": node.weights.values, "thresholds": node.parameters["threshold"].values}
    entries = {
        "learned": ("sparseshare", "learned_encode", arrays, {"alpha": alpha, "n_steps": N_STEPS, "kind": KIND}),
        "exact": ("sparseshare", "encode", {"X": X, "D": D}, {"alpha": alpha}),
    }
    for n in sorted({50, equal}):
        options = {"alpha": alpha, "algorithm": "fista", "max_iter": n, "tol": 0}
        entries[n] = ("sparseshare", "encode", {"X": X, "D": D}, options)
    outcomes = race(entries, settings)

    least = lasso_objectives(X[new], D, outcomes["exact"]["result"][new], alpha).sum()
    gaps, times = {}, {}
    for key, outcome in outcomes.items():
        gaps[key] = lasso_objectives(X[new], D, outcome["result"][new], alpha).sum() / least - 1
        times[key] = 1e6 * outcome["seconds"] / len(X)
    row = Row(
        "lista",
        f"LISTA of {N_STEPS} {KIND} steps, {SIDE * SIDE} features, {N_COMPONENTS} atoms, {len(X):,} signals, float32: "
        "to the objective of FISTA after 50 iterations",
        "µs a signal",
    )
    note = f"trained for {seconds:.0f} s on {len(seen):,} patches"
    for n in sorted({50, equal}, reverse=True):
        accuracy = f"objective {gaps['learned']:.2%} above the least on {new.sum():,} new signals, theirs {gaps[n]:.2%}"
        against = f"sparseshare fista, {n} iterations"
        wanted = 8 if n == 50 else None
        row.lines.append(
            Line(against, times["learned"], times[n], wanted, accuracy, bool(gaps["learned"] <= gaps[n]), note)
        )
    exact = Line("sparseshare, exact codes", times["learned"], times["exact"], None, "theirs are the least")
    row.lines.append(exact)
    row.series = curves
    return row


def _trained(X, D, alpha, settings, **options):
    """A coder and the seconds that its training took."""
    options = TRAINING | options | ({"max_iter": 2} if settings.quick else {})
    start = time.perf_counter()
    coder = LearnedSparseCoder(
        D, alpha=alpha, n_steps=N_STEPS, weights=KIND, random_state=0, n_jobs=settings.threads, **options
    ).fit(X)
    return coder, time.perf_counter() - start


def _every_step(X, D, alpha, settings):
    """A network whose codes are of use after each of its steps."""
    return {"learned, every step": _trained(X, D, alpha, settings, discount=0.7)[0]}


def _curves(X, D, alpha, coders):
    """Relative excess of the objective, and squared error of the codes, against steps."""
    X = X.astype(np.float64)
    exact = sparse_encode(X, D.astype(np.float64), alpha=alpha, tol=1e-9)
    least, size = lasso_objectives(X, D, csr_array(exact), alpha).sum(), (exact**2).sum()
    curves = {}

    def add(name, n_steps, codes):
        gap = lasso_objectives(X, D, csr_array(codes), alpha).sum() / least - 1
        for measure, value in (("objective", gap), ("codes", ((codes - exact) ** 2).sum() / size)):
            curve = curves.setdefault(f"{name}: {measure}", {"x": [], "y": []})
            curve["x"].append(n_steps)
            curve["y"].append(float(value))

    for name in ("ista", "fista"):
        for n_steps in MARKS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of codes that have not converged
                options = {"algorithm": name, "max_iter": n_steps, "tol": 0}
                add(name, n_steps, sparse_encode(X, D.astype(np.float64), alpha=alpha, **options))
    for name, coder in coders.items():
        for n_steps in range(1 if coder.discount else N_STEPS, N_STEPS + 1):
            codes = coder.network_.nodes[0].codes(X.astype(np.float32), n_steps)
            add(name, n_steps, codes.astype(np.float64))
    return curves
