"""Mini-batch learning: seconds until the dictionary is as good as that of SPAMS after one pass over the data."""

import numpy as np
import problems
from contest import PeerFailed, race
from objectives import lasso_objectives
from row import Line, Row

N_COMPONENTS = 256
ALPHA = 0.15  # 1.2 / sqrt(64), as in Mairal et al. (2010)
BATCH, BATCH_OF_SCIKIT_LEARN = 512, 256
N_HELD_OUT = 5000
NAMES = {"ours": "sparseshare", "spams": "SPAMS", "lars": "scikit-learn, default", "cd": "scikit-learn, lasso_cd"}
TARGETS = {"spams": 3, "lars": 100}


def learning(settings, n_signals=100_000, max_seconds=300):
    """Everybody learns from the same patches and begins with the same atoms; one judge codes held-out patches.

    scikit-learn takes minutes: it runs once, for two passes at most and no longer than `max_seconds`.
    """
    n_signals = settings.count(n_signals)
    X = problems.training_signals(8, n_signals)
    arrays = {"X": X, "D": problems.starting_dictionary(X, N_COMPONENTS)}
    n_batches = n_signals // BATCH
    every = max(1, n_batches // 40)
    epoch = {"alpha": ALPHA, "batch_size": BATCH, "n_batches": n_batches}
    outcomes = race(
        {
            "ours": ("sparseshare", "learn", arrays, epoch | {"n_batches": 3 * n_batches, "every": every}),
            "spams": ("spams", "learn", arrays, epoch | {"every": n_batches}),
        },
        settings,
        repeats=2 if settings.quick else 5,
    )
    if "failed" in outcomes["spams"]:
        raise PeerFailed(f"SPAMS sets the mark of this row and failed: {outcomes['spams']['failed']}")
    batches = n_signals // BATCH_OF_SCIKIT_LEARN
    slow = {
        "alpha": ALPHA,
        "batch_size": BATCH_OF_SCIKIT_LEARN,
        "n_batches": 2 * batches,
        "every": max(1, batches // 20),
        "max_seconds": 20 if settings.quick else max_seconds,
    }
    for method in ("lars", "cd"):
        entry = ("scikit_learn", "learn", arrays, slow | {"fit_algorithm": method})
        outcomes |= race({method: entry}, settings, repeats=1)
    steps = {"curve": ("spams", "learn", arrays, epoch | {"every": max(1, n_batches // 8)})}
    outcomes |= race(steps, settings, repeats=1 if settings.quick else 3)

    curves = _curves(outcomes, settings)
    mark = curves["spams"]["y"][-1]
    ours = _reaching(curves["ours"], mark)
    if ours is None:
        raise PeerFailed(f"three passes did not reach the mark {mark:.6f}, the last is {curves['ours']['y'][-1]:.6f}")
    work = f"mini-batch learning, {N_COMPONENTS} atoms, {n_signals:,} patches: time to SPAMS' objective after one pass"
    row = Row("learning_64x256", work, "s")
    for key in ("spams", "lars", "cd"):
        curve, note = curves[key], ""
        theirs = _reaching(curve, mark)
        if theirs is None:
            theirs = curve["x"][-1]
            note = f"theirs not there after {theirs:.0f} s, at {curve['y'][-1]:.5f}: the ratio is larger"
        accuracy = f"mean objective of {N_HELD_OUT:,} held-out patches {mark:.5f}"
        row.lines.append(Line(outcomes[key]["peer"], ours, theirs, TARGETS.get(key), accuracy, note=note))
    row.series = {name: curves["curve" if key == "spams" else key] for key, name in NAMES.items()}
    return row


def _curves(outcomes, settings):
    """Mean objective of held-out patches against seconds: the same coder, in float64, for every dictionary."""
    X = problems.test_signals(8, N_HELD_OUT, np.float64)
    curves = {}
    with settings.contestant("sparseshare") as judge:
        for key, outcome in outcomes.items():
            losses = []
            for D in outcome["result"]["dictionaries"].astype(np.float64):
                judge.prepare("encode", {"X": X, "D": D}, {"alpha": ALPHA, "tol": 1e-8}, warm_up=False)
                judge.run()
                losses.append(float(lasso_objectives(X, D, judge.result(), ALPHA).mean()))
            curves[key] = {"x": outcome["result"]["seconds"].tolist(), "y": losses}
    return curves


def _reaching(curve, mark):
    """Seconds at which a curve reaches the mark, or None."""
    return next((x for x, y in zip(curve["x"], curve["y"], strict=True) if y <= mark), None)
