"""MNIST by unrolled multi-layer sparse coding: does going through the same layers again help?"""

import time

import numpy as np
from data import mnist
from row import Line, Row

from sparseshare.network import Conv, DeepSparseClassifier, MultilayerCoding

# Errors of the authors' code in per cent: layered thresholding (a plain CNN) and 6 unfoldings.
PUBLISHED = "published 1.26 and, with 6 steps, 0.89 %: 32, 64 and 512 filters, 100 epochs"


def ml_ista(settings, n_images=10_000, n_epochs=5, filters=(16, 32, 128), steps=(0, 2, 6)):
    """Error of layered thresholding against some steps of ML-ISTA with the same layers and number of parameters.

    The paper's three layers of convolutions with fewer filters, on a part of the training set; all of the test set.
    """
    X, y, X_test, y_test = mnist(settings)
    n = settings.count(n_images)
    X, y, X_test = X[:n].astype(np.float32) / 255, y[:n], X_test.astype(np.float32) / 255
    errors, seconds, stored = {}, {}, set()
    for n_steps in steps:
        for seed in range(1 if settings.quick else 3):
            layers = [Conv(filters[0], 6, stride=2), Conv(filters[1], 6, stride=2), Conv(filters[2], 4)]
            learner = DeepSparseClassifier(
                [MultilayerCoding(layers, n_steps=n_steps)],
                batch_size=128, max_iter=n_epochs, n_iter_no_change=None, random_state=seed, n_jobs=settings.threads,
            )  # fmt: skip
            started = time.perf_counter()
            learner.fit(X, y)
            seconds.setdefault(n_steps, []).append(time.perf_counter() - started)
            errors.setdefault(n_steps, []).append(100 * (1 - learner.score(X_test, y_test)))
            stored.add(learner.parameter_report().total.stored)
    sizes = "-".join(map(str, filters))
    work = f"error of ML-ISTA unrolled on MNIST, {n:,} images, convolutions {sizes}, {n_epochs} epochs"
    row = Row("ml_ista", work, "%", series={f"{n_steps} steps": errors[n_steps] for n_steps in steps})
    forward = float(np.mean(errors[steps[0]]))
    for n_steps in steps[1:]:
        found = errors[n_steps]
        accuracy = f"{_listed(found)} against {_listed(errors[steps[0]])}; {PUBLISHED}"
        took = [f"{np.mean(seconds[count]):.0f} s" for count in (n_steps, steps[0])]
        note = (
            f"{' or '.join(f'{count:,}' for count in sorted(stored))} parameters; training {took[0]} against {took[1]}"
        )
        row.lines.append(
            Line(f"layered thresholding; ours {n_steps} steps", float(np.mean(found)), forward, 1, accuracy, note=note)
        )
    return row


def _listed(errors):
    spread = f" ± {np.std(errors, ddof=1):.2f}" if len(errors) > 1 else ""
    return f"{np.mean(errors):.2f}{spread} %"
