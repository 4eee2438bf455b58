"""Sequences: recurrent and attention networks as classifiers beside PyTorch, and sparse codes that follow a signal."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import problems
from contest import race
from data import mnist
from row import Line, Row
from sklearn.datasets import load_sample_images
from sklearn.exceptions import ConvergenceWarning

from sparseshare.coding import sparse_encode
from sparseshare.network import LSTM, Dense, Network, SequentialSparseCoder
from sparseshare.network.losses import SquaredError
from sparseshare.network.optimizers import Adam
from sparseshare.network.training import Plan, train

KINDS = {
    "lstm": "LSTM of 128 units",
    "tanh": "recurrent, 128 tanh units",
    "soft": "recurrent, 128 units with learned soft thresholds",
    "attention": "LSTM of 64 units, attention over its steps",
}
SPEAKERS = 94.1  # per cent, Kudo, Toyama, Shimbo 1999 ("Multidimensional curve classification using passing-through")
SIDE, N_ATOMS, N_STEPS, REDUCED = 8, 256, 32, 4
ALPHA, NOISE, ITERATIONS = 0.15, 0.3, 3


def sequences(settings):
    """Digits read row by row, and speakers told by two vowels: three seeds, seconds an epoch, accuracies.

    The second set comes inside the package aeon; without it its lines are left out.
    """
    row = Row("sequences", "sequence classifiers, Adam, float32, seeds 0 to 2", "s an epoch")
    _compare(row, settings, "digits row by row", _digits(settings), 1 if settings.quick else 2, 128)
    speakers = _speakers()
    if speakers is not None:
        _compare(row, settings, "speakers", speakers, 2 if settings.quick else 50, 32, SPEAKERS)
    return row


def _compare(row, settings, task, data, n_epochs, batch_size, published=None):
    arrays = dict(zip(("X", "y", "X_test", "y_test"), data, strict=True))
    for kind, name in KINDS.items():
        options = {"kind": kind, "n_epochs": n_epochs, "batch_size": batch_size}
        entries = {"ours": ("sparseshare", "classify_sequences", arrays, options)}
        if kind != "soft":
            entries["theirs"] = ("pytorch", "classify_sequences", arrays, options)
        outcomes = race(entries, settings, repeats=1 if settings.quick else 3)
        ours, theirs = outcomes["ours"], outcomes.get("theirs", {"failed": ""})
        mean, spread, text = _percent(ours)
        if "density" in ours["result"]:
            text += f", {100 * float(ours['result']['density']):.0f} % of the activations are not 0"
        same, seconds = True, None
        if "failed" not in theirs:
            their_mean, their_spread, their_text = _percent(theirs)
            text += f", theirs {their_text}"
            same, seconds = bool(mean >= their_mean - spread - their_spread), theirs["seconds"] / n_epochs
        if published is not None:
            text += f", published {published} %"
        against = f"{task}, {name}: {theirs.get('peer', 'alone')}"
        row.lines.append(Line(against, ours["seconds"] / n_epochs, seconds, None, text, same, theirs.get("failed", "")))


def _percent(outcome):
    """Mean and spread (standard deviation) of the accuracies of all seeds, and both in words."""
    found = 100 * np.asarray(outcome["result"]["accuracies"])
    spread = found.std(ddof=1) if len(found) > 1 else 0.0
    return found.mean(), spread, f"{found.mean():.2f} ± {spread:.2f} %"


def _digits(settings):
    X, y, X_test, y_test = mnist(settings)
    few, some = (2000, 1000) if settings.quick else (len(X), len(X_test))
    X, X_test = ((images / 255).astype(np.float32) for images in (X[:few], X_test[:some]))
    return X, y[:few], X_test, y_test[:some]


def _speakers():
    """Japanese vowels of nine men: 12 coefficients a time step, up to 29 steps, zeros put before shorter ones."""
    package = importlib.util.find_spec("aeon")
    if package is None:
        return None
    folder = Path(package.origin).parent / "datasets" / "data" / "JapaneseVowels"
    found = []
    for part in ("TRAIN", "TEST"):
        lines = (folder / f"JapaneseVowels_{part}.ts").read_text().splitlines()
        lines = [line.split(":") for line in lines if line and line[0] not in "#@"]
        X = np.zeros((len(lines), 29, 12), np.float32)
        for place, line in zip(X, lines, strict=True):
            values = np.array([[float(value) for value in channel.split(",")] for channel in line[:-1]])
            place[-values.shape[1] :] = values.T
        found += [X, np.array([int(line[-1]) for line in lines])]
    return found


def sequential_coding(settings):
    """A window that moves over a photograph by a quarter of a pixel a frame: codes that begin at the one before.

    Iterations a frame until the objective is so near its least, from the code before and from zero; then the noise
    that trained iterations remove beside untrained ones and beside an LSTM.
    """
    X = pans(settings.count(1000), 0)
    D = problems.dictionary(SIDE, N_ATOMS, settings).astype(np.float32)
    row = Row(
        "sequential_coding",
        f"{len(X):,} sequences of {N_STEPS} patches {SIDE} x {SIDE}, {N_ATOMS} atoms, a quarter of a pixel a frame",
        "iterations a frame",
    )
    some = X[: settings.count(300)]
    curves = _excess(some, D, (1, 2, 3, 5, 8) if settings.quick else (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 80, 120))
    row.series = {name: {"x": x, "y": y} for name, (x, y) in curves.items()}
    for goal in (0.1, 0.03, 0.01):
        needed = {name: _reached(x, y, goal) for name, (x, y) in curves.items()}
        warm = needed.pop("from the code before")
        for name, cold in needed.items():
            if warm is not None:
                note = "" if cold else "not reached"
                row.lines.append(Line(f"{name}, objective within {100 * goal:g} %", warm, cold, note=note))
    row.lines += _denoised(X, D, settings)
    return row


def pans(n, seed):
    """Sequences (n, N_STEPS, SIDE * SIDE), float32, of norm 1 in the mean; every frame has the mean 0."""
    random = np.random.default_rng(seed)
    photographs = [photo.mean(axis=2) / 255 for photo in load_sample_images().images]
    found = np.empty((n, N_STEPS, SIDE * SIDE), np.float32)
    for place in found:
        photo = photographs[random.integers(len(photographs))]
        photo = photo.T if random.integers(2) else photo
        size = SIDE * REDUCED
        top, left = (random.integers(length - size - N_STEPS + 1) for length in photo.shape)
        for t, frame in enumerate(place):
            window = photo[top : top + size, left + t : left + t + size]
            frame[:] = window.reshape(SIDE, REDUCED, SIDE, REDUCED).mean(axis=(1, 3)).ravel()
    found -= found.mean(axis=2, keepdims=True)
    norms = np.linalg.norm(found, axis=2).mean(axis=1)
    found = found[norms > 0.05]  # not the sky
    return found / np.linalg.norm(found, axis=2).mean(axis=1)[:, None, None]


def _excess(X, D, counts):
    """Mean objective over its least, minus 1, of all frames but the first, by the iterations a frame."""
    frames = X.reshape(-1, X.shape[2])

    def objective(codes):
        codes = codes.reshape(*X.shape[:2], -1)
        values = 0.5 * ((X - codes @ D) ** 2).sum(axis=2) + ALPHA * np.abs(codes).sum(axis=2)
        return values[:, 1:]

    least = objective(sparse_encode(frames, D, alpha=ALPHA))
    curves = {"from the code before": [], "ISTA from zero": [], "FISTA from zero": []}
    for count in counts:
        coder = SequentialSparseCoder(D, alpha=ALPHA, smoothness=0, n_iter=count).fit(X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fista = sparse_encode(frames, D, alpha=ALPHA, algorithm="fista", max_iter=count)
        codes = {
            "from the code before": coder.transform(X),
            "ISTA from zero": coder.transform(frames[:, None]),
            "FISTA from zero": fista,
        }
        for name, each in codes.items():
            curves[name].append(float((objective(each) / least).mean() - 1))
    return {name: (list(counts), curve) for name, curve in curves.items()}


def _reached(counts, curve, goal):
    return next((count for count, value in zip(counts, curve, strict=True) if value <= goal), None)


def _denoised(X, D, settings):
    """Mean squared errors of new sequences by what has been trained on others, of three seeds; 1 is the noise left in.

    'ours' is the trained network, 'theirs' the other way, so that a ratio above 1 says that training wins.
    """
    held = pans(settings.count(1000), 1)
    n_epochs, found = 1 if settings.quick else 15, {"trained": [], "untrained": [], "LSTM": []}
    for seed in range(1 if settings.quick else 3):
        random = np.random.default_rng(seed)
        noisy, held_noisy = (
            each + np.float32(NOISE / SIDE) * random.standard_normal(each.shape, np.float32) for each in (X, held)
        )
        noise = float(((held_noisy - held) ** 2).mean())
        options = {"alpha": NOISE / SIDE, "smoothness": 1.0, "n_iter": ITERATIONS, "random_state": seed}
        training = {"learn": True, "max_iter": n_epochs, "n_iter_no_change": None, "learning_rate": 2e-4}
        for name, more in {"untrained": {}, "trained": training}.items():
            coder = SequentialSparseCoder(D, **options, **more).fit(noisy, X)
            made = coder.inverse_transform(coder.transform(held_noisy))
            found[name].append(float(((made - held) ** 2).mean()) / noise)
        network = Network([LSTM(N_ATOMS, return_sequences=True), Dense(SIDE * SIDE, activation="linear")], X.shape[1:],
                          np.float32, seed, n_threads=settings.threads)  # fmt: skip
        plan = Plan(SquaredError(), Adam(), 1e-3, "cosine", 32, n_epochs, n_iter_no_change=None)
        train(network, lambda rows, X=noisy: X[rows], X, plan, np.random.RandomState(seed))
        found["LSTM"].append(float(((network.output(held_noisy) - held) ** 2).mean()) / noise)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    spread = {name: float(np.ptp(values)) for name, values in found.items()}
    ours = f"{means['trained']:.3f} (spread {spread['trained']:.3f})"
    return [
        Line(
            f"noise left by {name}, trained {ITERATIONS} iterations a frame as ours",
            means["trained"],
            means[other],
            accuracy=f"share of the noise left: {ours}, theirs {means[other]:.3f} (spread {spread[other]:.3f})",
        )
        for other, name in (("untrained", "the same iterations untrained"), ("LSTM", f"an LSTM of {N_ATOMS} units"))
    ]
