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
NETWORK = {"n_steps": 4, "accelerate": True, "n_sweeps": 3}
KIND = "coupled"
# Chosen on 4,000 patches drawn with a third seed, where 8 epochs were just enough.
TRAINING = {"learning_rate": 0.03, "max_iter": 16}
N_TRAINING = 50_000
MARKS = (1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40, 50)  # iterations of the curves
N_CURVE = 2000


def lista(settings, n_signals=100_000):
    """Time to the objective that our FISTA has after 50 iterations, on signals that no training has seen.

    So few steps alone do not get so far: they find the atoms, and coordinate descent over these brings the coefficients
    to their values. What the steps reach alone, the second line says, beside the most iterations of FISTA that are no
    better. More steps would not do: twelve without momentum ended at 1.2 %, FISTA after 50 iterations at 0.26 %, and a
    step costs no less than an iteration of FISTA, for each has weights of its own to multiply the signals by. The third
    line is there to be seen: exact codes take no longer.
    """
    D = problems.dictionary(SIDE, N_COMPONENTS, settings).astype(np.float32)
    alpha = problems.penalty(SIDE, N_COMPONENTS, N_NONZEROS, settings)
    seen = problems.training_signals(SIDE, settings.count(N_TRAINING))
    X = problems.test_signals(SIDE, settings.count(n_signals))
    known = {x.tobytes() for x in seen}
    new = np.array([x.tobytes() not in known for x in X])

    start = time.perf_counter()
    options = NETWORK | TRAINING | ({"max_iter": 2} if settings.quick else {})
    coder = LearnedSparseCoder(D, alpha=alpha, weights=KIND, random_state=0, n_jobs=settings.threads, **options).fit(
        seen
    )
    note = f"trained for {time.perf_counter() - start:.0f} s on {len(seen):,} patches"
    curves = _curves(X[new][:N_CURVE], D, alpha, coder)
    reached, fista = curves["steps: objective"]["y"][-1], curves["fista: objective"]
    equal = max((n for n, gap in zip(fista["x"], fista["y"], strict=True) if gap >= reached), default=fista["x"][0])

    arrays = {"X": X, "D": D} | {name: p.values for name, p in coder.network_.nodes[0].parameters.items()}
    entries = {"exact": ("sparseshare", "encode", {"X": X, "D": D}, {"alpha": alpha})}
    for key, n_sweeps in (("steps", 0), ("learned", NETWORK["n_sweeps"])):
        given = NETWORK | {"alpha": alpha, "kind": KIND, "n_sweeps": n_sweeps}
        entries[key] = ("sparseshare", "learned_encode", arrays, given)
    for n in sorted({50, equal}):
        options = {"alpha": alpha, "algorithm": "fista", "max_iter": n, "tol": 0}
        entries[n] = ("sparseshare", "encode", {"X": X, "D": D}, options)
    outcomes = race(entries, settings)

    exact = outcomes["exact"]["result"][new].astype(np.float64)
    least, size = lasso_objectives(X[new], D, exact, alpha).sum(), (exact**2).sum()
    gaps, errors, times = {}, {}, {}
    for key, outcome in outcomes.items():
        codes = outcome["result"][new].astype(np.float64)
        gaps[key] = lasso_objectives(X[new], D, codes, alpha).sum() / least - 1
        errors[key] = ((codes - exact) ** 2).sum() / size
        times[key] = 1e6 * outcome["seconds"] / len(X)
    row = Row(
        "lista",
        f"LISTA of {NETWORK['n_steps']} {KIND} steps with momentum, {SIDE * SIDE} features, {N_COMPONENTS} atoms, "
        f"{len(X):,} signals, float32: to the error of FISTA after 50 iterations",
        "µs a signal",
    )
    for ours, theirs, wanted, words in (
        ("learned", 50, 8, f"steps and at most {NETWORK['n_sweeps']} sweeps over their atoms"),
        ("steps", equal, None, "steps alone"),
    ):
        accuracy = (
            f"{words}: objective {gaps[ours]:.3%} above the least on {new.sum():,} new signals, theirs "
            f"{gaps[theirs]:.3%}; squared error of the codes {errors[ours]:.2%}, theirs {errors[theirs]:.2%}"
        )
        same = bool(gaps[ours] <= gaps[theirs] and (wanted is None or errors[ours] <= errors[theirs]))
        against = f"sparseshare fista, {theirs} iterations"
        row.lines.append(Line(against, times[ours], times[theirs], wanted, accuracy, same, note))
    row.lines.append(Line("sparseshare, exact codes", times["learned"], times["exact"], None, "theirs are the least"))
    row.series = curves
    return row


def _curves(X, D, alpha, coder):
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
    node = coder.network_.nodes[0]
    for name, n_sweeps in (("steps", 0), ("steps and sweeps", coder.n_sweeps)):
        for n_steps in range(1, coder.n_steps + 1):
            codes = node.codes(X.astype(np.float32), n_steps, n_sweeps=n_sweeps)
            add(name, n_steps, codes.astype(np.float64))
    return curves
