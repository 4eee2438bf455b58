"""K-SVD: ten iterations, everybody from the same atoms."""

import numpy as np
import problems
from contest import race
from objectives import squared_residuals
from row import Line, Row

N_NONZEROS = 10
N_COMPONENTS = 256


def ksvd(settings, n_signals=20_000, n_iterations=10, at_least=10):
    """Compared by the error of OMP codes for the dictionary at the end, one coder for all."""
    X = problems.training_signals(8, settings.count(n_signals))
    D = problems.starting_dictionary(X, N_COMPONENTS)
    arrays, options = {"X": X, "D": D}, {"n_nonzero_coefs": N_NONZEROS, "n_iterations": n_iterations}
    entries = {
        "ours": ("sparseshare", "ksvd", arrays, options),
        "ours, exact": ("sparseshare", "ksvd", arrays, options | {"dict_update": "exact"}),
        "aksvd": ("dictlearn", "ksvd", arrays, options),
        "uaksvd": ("dictlearn", "ksvd", arrays, options | {"fit_algorithm": "uaksvd"}),
    }
    outcomes = race(entries, settings, repeats=2 if settings.quick else 5)
    # Minutes for one run: one is enough to see that it is not the fastest.
    outcomes |= race({"ksvd": ("ksvd", "ksvd", arrays, options)}, settings, repeats=1)

    errors = {
        key: _error(X, outcome["result"]["dictionary"], settings)
        for key, outcome in outcomes.items()
        if "failed" not in outcome
    }
    ours = outcomes["ours"]["seconds"]
    peers = [key for key in errors if not key.startswith("ours")]
    fastest = min(peers, key=lambda key: outcomes[key]["seconds"], default=None)
    work = f"K-SVD, {N_COMPONENTS} atoms, {len(X):,} patches, {n_iterations} iterations, {N_NONZEROS} non-zeros"
    row = Row("ksvd_64x256", work, "s")
    for key, outcome in outcomes.items():
        if key == "ours":
            continue
        if "failed" in outcome:
            row.lines.append(Line(key, ours, None, note=outcome["failed"]))
            continue
        name = "ours, exact atom steps" if key == "ours, exact" else outcome["peer"]
        accuracy = f"relative error {errors['ours']:.4f} against {errors[key]:.4f}"
        same = bool(errors["ours"] <= 1.005 * errors[key])
        target = at_least if key == fastest else None
        row.lines.append(Line(name, ours, outcome["seconds"], target, accuracy, same))
    return row


def _error(X, D, settings):
    """|X - W D| / |X| with W the OMP codes for unit atoms."""
    D = (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(np.float64)
    X = X.astype(np.float64)
    options = {"algorithm": "omp", "n_nonzero_coefs": N_NONZEROS}
    judged = race({"codes": ("sparseshare", "encode", {"X": X, "D": D}, options)}, settings, repeats=1)
    codes = judged["codes"]["result"]
    return np.sqrt(squared_residuals(X, D, codes).sum() / np.sum(X**2))
