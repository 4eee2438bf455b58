"""This package, as its users call it: defaults wherever the task does not ask for something."""

import time

import compressed
import numpy as np
from scipy.sparse import csr_array, vstack
from sklearn.frozen import FrozenEstimator
from streaming import watched_learning
from work import Work

import sparseshare
from sparseshare.convolution import ConvDictionaryLearning, conv_sparse_encode
from sparseshare.image import SparseImageEncoder, ZCAWhitening, denoise_image
from sparseshare.network import (
    LSTM,
    Attention,
    Conv,
    DeepSparseClassifier,
    Dense,
    Flatten,
    LearnedSparseCoder,
    MaxPool,
    Recurrent,
)


def version():
    return sparseshare.__version__


def encode(X, D, threads, **options):
    """Codes as csr_array; the options are those of `sparse_encode`."""
    return Work(lambda: sparseshare.sparse_encode(X, D, sparse_output=True, n_jobs=threads, **options))


def path(X, D, alphas, threads):
    """Codes at every penalty, stacked one penalty after the other."""
    return Work(lambda: sparseshare.sparse_encode_path(X, D, alphas, sparse_output=True, n_jobs=threads), rows=_stacked)


def calls(X, D, alphas, threads):
    """The same by a call a penalty."""
    return Work(
        lambda: [sparseshare.sparse_encode(X, D, alpha=alpha, sparse_output=True, n_jobs=threads) for alpha in alphas],
        rows=_stacked,
    )


def _stacked(codes):
    return vstack([csr_array(each) for each in codes], format="csr")


def learn(X, D, alpha, batch_size, n_batches, every, threads, max_seconds=np.inf):
    def make():
        return sparseshare.MiniBatchDictionaryLearning(
            len(D), alpha=alpha, batch_size=batch_size, dict_init=D, n_jobs=threads, random_state=0
        )

    return watched_learning(make, X, batch_size, n_batches, every, max_seconds, "sparseshare")


def ksvd(X, D, n_nonzero_coefs, n_iterations, threads, dict_update="approximate"):
    def run():
        learner = sparseshare.KSVD(
            len(D),
            n_nonzero_coefs=n_nonzero_coefs,
            dict_update=dict_update,
            max_iter=n_iterations,
            tol=0,
            dict_init=D,
            n_jobs=threads,
            random_state=0,
        )
        return {"dictionary": learner.fit(X).components_}

    return Work(run)


def features(images, D, mean, whitening, side, alpha, epsilon, threads):
    """Pooled two-sided thresholds of all patches, for atoms and whitening that are given."""
    given = ZCAWhitening()
    given.mean_, given.whitening_ = mean, whitening
    encoder = SparseImageEncoder(
        dictionary=D, whitening=FrozenEstimator(given), patch_shape=side, alpha=alpha, contrast_epsilon=epsilon,
        n_jobs=threads, random_state=0,
    ).fit(images[:100])  # fmt: skip
    return Work(lambda: encoder.transform(images), rows=lambda made: {"first": made[:100]})


def denoise(noisy, sigma, threads):
    """The whole function with its defaults, and the patches it learns from."""

    def run():
        seen = []
        image = denoise_image(noisy, sigma, n_jobs=threads, random_state=0, callback=seen.append)
        return {"image": image, "turns": sum(state["stage"] == "learn" for state in seen)}

    return Work(run)


def conv_encode(x, atoms, threads, **options):
    """Maps of one signal; the options are those of `conv_sparse_encode`."""
    return Work(
        lambda: conv_sparse_encode(x[None], atoms, n_jobs=threads, **options), rows=lambda maps: {"maps": maps[0]}
    )


def conv_arrays(x, atoms, threads, **options):
    """The same, its result left as it comes: what memory is measured of."""
    return Work(lambda: conv_sparse_encode(x[None], atoms, n_jobs=threads, **options))


def conv_fit(images, atoms, alpha, n_iterations, threads):
    """Learning from images in batches, all of it."""

    def run():
        learner = ConvDictionaryLearning(
            len(atoms),
            atoms.shape[1:],
            alpha=alpha,
            method="online",
            dict_init=atoms,
            max_iter=n_iterations,
            tol=0,
            n_jobs=threads,
        )
        return learner.fit(images).components_

    return Work(run)


def conv_learn(images, atoms, alpha, n_iterations, threads):
    """Learning, its atoms kept after every turn with the clock stopped."""
    least = []

    def run():
        clock = _StoppedClock()
        learner = ConvDictionaryLearning(
            len(atoms), atoms.shape[1:], alpha=alpha, dict_init=atoms, max_iter=n_iterations, tol=0, n_jobs=threads
        ).set_callbacks(clock)
        clock.start()
        learner.fit(images)
        for i, mark in enumerate(clock.marks):
            if i == len(least):
                least.append(np.inf)
            least[i] = min(least[i], mark)
        return {"seconds": np.array(least), "dictionaries": np.array(clock.kept)}

    return Work(run)


def train_network(images, labels, test_images, batch_size, n_epochs, threads):
    """A small convolutional network by Adam."""
    return Work(
        lambda: _network(batch_size, n_epochs, threads).fit(images, labels),
        rows=lambda fitted: {"labels": fitted.predict(test_images)},
    )


def predict_network(images, labels, test_images, batch_size, n_epochs, density, threads):
    """Labels of the test images by a network whose hard thresholds were trained to a density."""
    fitted = _network(batch_size, n_epochs, threads, activation="hard", density=density).fit(images, labels)
    return Work(lambda: {"labels": fitted.predict(test_images), "densities": fitted.densities_})


def _network(batch_size, n_epochs, threads, **options):
    layers = [Conv(32, 3), MaxPool(2), Conv(64, 3), MaxPool(2), Flatten(), Dense(128)]
    return DeepSparseClassifier(
        layers, batch_size=batch_size, max_iter=n_epochs, n_iter_no_change=None, alpha=0, n_jobs=threads,
        random_state=0, **options,
    )  # fmt: skip


class _StoppedClock:
    """A callback of scikit-learn's protocol that keeps the atoms of every turn and stands still meanwhile."""

    def __init__(self):
        self.kept, self.marks, self.spent = [], [], 0.0

    def start(self):
        self.since = time.perf_counter()

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, metadata=None, fitted_estimator=None):
        if not metadata or "loss" not in metadata:
            return
        self.spent += time.perf_counter() - self.since
        self.kept.append(fitted_estimator.components_)
        self.marks.append(self.spent)
        self.since = time.perf_counter()


def classify_sequences(X, y, X_test, y_test, kind, n_epochs, batch_size, threads):
    """Train a sequence classifier with Adam: each run with the next seed; accuracies of all so far."""
    layers = {
        "lstm": [LSTM(128)],
        "tanh": [Recurrent(128)],
        "soft": [Recurrent(128, activation="soft", threshold="learned")],
        "attention": [LSTM(64, return_sequences=True), Attention(64)],
    }[kind]
    accuracies = []

    def trained(rows, n_epochs):
        return DeepSparseClassifier(
            layers,
            alpha=0,
            batch_size=batch_size,
            max_iter=n_epochs,
            n_iter_no_change=None,
            random_state=len(accuracies),
            n_jobs=threads,
        ).fit(X[rows], y[rows])

    def run():
        network = trained(slice(None), n_epochs)
        accuracies.append(network.score(X_test, y_test))
        found = {"accuracies": np.array(accuracies)}
        return found | ({"density": network.densities_[0]} if kind == "soft" else {})

    trained(slice(0, None, max(1, len(X) // 256)), 1)  # compiles
    return Work(run, warm_up=False)


def predict_rows(X, kind, at_once, threads):
    """Outputs of a network whose weights are all there, hashed or pruned, for some rows at a time."""
    made = compressed.network(kind, threads)

    def run():
        return np.concatenate([made.output(X[start : start + at_once]) for start in range(0, len(X), at_once)])

    return Work(run, lambda outputs: {"outputs": outputs})


def learned_encode(X, D, threads, alpha, n_steps, kind, accelerate, n_sweeps, **learned):
    """Codes by steps whose weights, given by their names, have been learned elsewhere."""
    coder = LearnedSparseCoder(
        D,
        alpha=alpha,
        n_steps=n_steps,
        weights=kind,
        accelerate=accelerate,
        n_sweeps=n_sweeps,
        max_iter=0,
        sparse_output=True,
        n_jobs=threads,
    ).fit(X[:1])
    for name, parameter in coder.network_.nodes[0].parameters.items():
        parameter.values[...] = learned[name]
    return Work(lambda: coder.transform(X))
