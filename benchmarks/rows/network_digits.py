"""MNIST by networks of the package: convolutions, sparse activations, few parameters; three seeds each."""

import time

import numpy as np
from data import mnist
from row import Line, Row

from sparseshare.network import (
    Conv,
    DeepSparseClassifier,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    cluster,
    hashed,
    prune,
)

SEEDS = (0, 1, 2)
UNITS = 1000
# Errors in per cent of Chen et al. (ICML 2015), 15 epochs: shared by hashing, and dense of equal size.
PUBLISHED = {8: "published 1.45 against 1.69 %"}
MOMENTUM = {"optimizer": "momentum", "learning_rate": 0.1, "batch_size": 100, "schedule": "cosine"}


def digits_net(settings, n_epochs=6, limit=1.0):
    """Two convolutions with poolings, a dense layer, softmax; Adam, batches of 128."""
    return _convolutional(settings, "digits_net", "ReLU", n_epochs, limit, {})


def digits_sparse(settings, n_epochs=6, limit=1.0, density=0.1):
    """The same with hard thresholds that let a tenth of the activations through."""
    options = {"activation": "hard", "density": density}
    activations = f"hard thresholds at density {density:g}"
    return _convolutional(settings, "digits_sparse", activations, n_epochs, limit, options)


def _convolutional(settings, name, activations, n_epochs, limit, options):
    X, y, X_test, y_test = _digits(settings, flat=False)
    n_epochs = 1 if settings.quick else n_epochs
    errors, densities, seconds = [], [], []
    for seed in _seeds(settings):
        learner = DeepSparseClassifier(
            [Conv(32, 3), MaxPool(2), Conv(64, 3), MaxPool(2), Flatten(), Dense(128)],
            batch_size=128, max_iter=n_epochs, n_iter_no_change=None, random_state=seed,
            n_jobs=settings.threads, **options,
        )  # fmt: skip
        started = time.perf_counter()
        learner.fit(X, y)
        seconds.append(time.perf_counter() - started)
        errors.append(_error(learner, X_test, y_test))
        densities.append(learner.densities_)
    text, mean = _listed(errors)
    shares = ", ".join(f"{share:.2f}" for share in np.mean(densities, axis=0))
    work = f"error of conv32-pool-conv64-pool-dense128 on MNIST, {len(X):,} images, {activations}, {n_epochs} epochs"
    note = f"densities {shares}; {np.mean(seconds):.0f} s a network"
    line = Line("about 1 % in 10 epochs of Adam", mean, limit, 1, text, note=note)
    return Row(name, work, "%", [line], series={"errors": errors})


def digits_compressed(settings, factor, n_epochs=6, n_tuned=3):
    """Hashed, pruned and clustered to one `factor`-th, against a dense network of as many parameters.

    Chen et al. train 15 epochs with a step that is halved every 5; here it falls along half a cosine in fewer epochs.
    Clusters are counted by bits: 32 bits of a weight, divided by the factor, are left for the number of its cluster.
    Weights are pruned in steps of one ratio, an epoch after each.
    The small dense network is given the better of two rates of dropout.
    """
    data = _digits(settings, flat=True)
    if settings.quick:
        n_epochs = n_tuned = 1
    errors, small_units = {}, _units_of_equal_size(factor)
    for seed in _seeds(settings):

        def fitted(units, share=None, rate=0.25, seed=seed):
            layers = [Dense(units, share=share), Dropout(rate)]
            return _learner(layers, share, n_epochs, seed, settings).fit(*data[:2])

        def tuned(learner, n_epochs):
            return learner.set_params(warm_start=True, max_iter=n_epochs).fit(*data[:2])

        dense = pruned = fitted(UNITS)
        for step in range(1, n_tuned + 1):
            pruned = tuned(prune(pruned, factor ** (-step / n_tuned)), 1)
        learners = {
            "dense": dense,
            "hashed": fitted(UNITS, hashed(1 / factor, seed=seed)),
            "hashed, runs of 64": fitted(UNITS, hashed(1 / factor, seed=seed, run=64)),
            "pruned": pruned,
            "clustered": tuned(cluster(dense, 2 ** (32 // factor)), n_tuned),
            "small, dropout": fitted(small_units),
            "small": fitted(small_units, rate=0),
        }
        for name, learner in learners.items():
            errors.setdefault(name, []).append(_error(learner, *data[2:]))
    n = len(data[0])
    row = Row(
        f"digits_compressed_{factor}",
        f"error of 784-{UNITS}-10 at 1/{factor} of the parameters on MNIST, {n:,} images, {n_epochs} epochs",
        "%",
        series=errors,
    )
    small, text_of_small = min(_listed(errors[name])[::-1] for name in ("small", "small, dropout"))
    text_of_dense = _listed(errors["dense"])[0]
    for name in ("hashed", "hashed, runs of 64", "pruned", "clustered"):
        text, mean = _listed(errors[name])
        published = f", {PUBLISHED[factor]}" if name == "hashed" and factor in PUBLISHED else ""
        accuracy = f"{text} against {text_of_small}; all parameters {text_of_dense}{published}"
        note = f"{n_tuned} epochs after those of all parameters" if name in ("pruned", "clustered") else ""
        note += f", {2 ** (32 // factor)} values a layer" if name == "clustered" else ""
        row.lines.append(Line(f"dense of equal size, {small_units} units; {name}", mean, small, 1, accuracy, note=note))
    return row


def _learner(layers, share, n_epochs, seed, settings):
    return DeepSparseClassifier(
        layers, share=share, max_iter=n_epochs, n_iter_no_change=None, random_state=seed, n_jobs=settings.threads,
        **MOMENTUM,
    )  # fmt: skip


def _units_of_equal_size(factor):
    """Hidden units of a dense network that stores as much as the hashed one does."""
    stored = (784 * UNITS + UNITS * 10) // factor + UNITS + 10
    return (stored - 10) // (784 + 1 + 10)


def _digits(settings, flat):
    X, y, X_test, y_test = mnist(settings)
    n = settings.count(len(X))
    X, X_test = ((images / 255).astype(np.float32) for images in (X[:n], X_test))
    if flat:
        X, X_test = X.reshape(len(X), -1), X_test.reshape(len(X_test), -1)
    return X, y[:n], X_test, y_test


def _seeds(settings):
    return SEEDS[:1] if settings.quick else SEEDS


def _error(learner, X, y):
    return float(100 * np.mean(learner.predict(X) != y))


def _listed(errors):
    """Mean and spread in words, and the mean."""
    mean = float(np.mean(errors))
    spread = f" ± {np.std(errors, ddof=1):.2f}" if len(errors) > 1 else ""
    return f"{mean:.2f}{spread} %", mean
