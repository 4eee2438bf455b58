"""A convolutional network on MNIST, float32: training, and prediction with a tenth of the activations non-zero."""

import numpy as np
from contest import race
from data import mnist
from row import Line, Row

NETWORK = "conv32-pool-conv64-pool-dense128"
BATCH = 128


def net_training(settings, n_images=20_000, at_least=1):
    """One epoch of Adam from first weights, fully: the network is made, and in ours its densities are measured."""
    arrays = _images(settings, n_images)
    outcomes = _race("train_network", arrays, settings, {"n_epochs": 1})
    work = f"training of {NETWORK} on {len(arrays['images']):,} MNIST images, an epoch of Adam, batches of {BATCH}"
    return _row("net_training", work, outcomes, len(arrays["images"]), at_least, settings)


def net_sparse(settings, n_images=60_000, density=0.1, at_least=1.5):
    """Labels of the test images: ours by hard thresholds of such a density, theirs by the dense network with ReLU."""
    arrays = _images(settings, n_images)
    outcomes = _race("predict_network", arrays, settings, {"n_epochs": 1}, {"density": density})
    work = (
        f"labels of {len(arrays['test_images']):,} MNIST images by {NETWORK}, {density:g} of the activations non-zero"
    )
    row = _row("net_sparse", work, outcomes, len(arrays["test_images"]), at_least, settings)
    measured = ", ".join(f"{100 * share:.0f}" for share in outcomes["ours"]["result"]["densities"])
    row.lines[0].accuracy += f"; non-zero, layer by layer: {measured} %"
    return row


def _images(settings, n_images):
    X, y, X_test, _ = mnist(settings)
    n = settings.count(n_images)
    arrays = {"images": X[:n], "test_images": X_test[: settings.count(len(X_test))]}
    return {name: images.astype(np.float32) / 255 for name, images in arrays.items()} | {"labels": y[:n]}


def _race(task, arrays, settings, options, own=None):
    options = {"batch_size": BATCH, **options}
    entries = {
        "ours": ("sparseshare", task, arrays, options | (own or {})),
        "theirs": ("pytorch", task, arrays, options),
    }
    return race(entries, settings)


def _row(name, work, outcomes, n_images, at_least, settings):
    ours, theirs = outcomes["ours"], outcomes["theirs"]
    row, mine = Row(name, work, "µs an image"), 1e6 * ours["seconds"] / n_images
    known = mnist(settings)[3]
    right = _accuracy(ours, known)
    if "failed" in theirs:
        row.lines.append(Line("PyTorch", mine, None, at_least, f"right: ours {right:.2f} %", note=theirs["failed"]))
        return row
    accuracy = f"right: ours {right:.2f} %, theirs {_accuracy(theirs, known):.2f} %"
    row.lines.append(Line(theirs["peer"], mine, 1e6 * theirs["seconds"] / n_images, at_least, accuracy))
    return row


def _accuracy(outcome, known):
    labels = outcome["result"]["labels"]
    return 100 * float(np.mean(labels == known[: len(labels)]))
