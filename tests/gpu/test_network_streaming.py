"""Samples on disk, networks on a GPU: sent piece by piece, codes written as they come, close to those of arrays."""

import numpy as np
import pytest
from sklearn.base import clone
from stored import Watched

from sparseshare.network import (
    DeepSparseClassifier,
    DeepSparseEncoder,
    Dense,
    LearnedSparseCoder,
    SequentialSparseCoder,
    batches,
    inputs,
    learner,
    multilayer_encoder,
    operators,
    sequential,
)
from sparseshare.sources import blocks, stacks

rng = np.random.default_rng(0)
ATOMS, ROWS, SEQUENCES = (rng.standard_normal(shape) for shape in [(12, 8), (60, 8), (20, 5, 8)])
LEARN = dict(max_iter=1, n_iter_no_change=None, random_state=0, device="cuda")
ESTIMATORS = {
    "dictionaries": (DeepSparseEncoder([12, 6], n_iter=3, batch_size=13, **LEARN), ROWS),
    "unrolled steps": (LearnedSparseCoder(ATOMS, alpha=0.3, n_steps=3, batch_size=13, **LEARN), ROWS),
    "held out": (LearnedSparseCoder(ATOMS, alpha=0.3, batch_size=13, early_stopping=True, **LEARN), ROWS),
    "exact codes": (LearnedSparseCoder(ATOMS, alpha=0.3, batch_size=13, loss="codes", **LEARN), ROWS),
    "sequences": (SequentialSparseCoder(ATOMS, learn=True, batch_size=6, learning_rate=1e-3, **LEARN), SEQUENCES),
    "classes": (DeepSparseClassifier([Dense(6)], batch_size=13, **LEARN), ROWS),
}


@pytest.mark.parametrize("stays", [False, True], ids=["sent", "moved"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_piece_at_a_time(gpu, monkeypatch, name, stays):
    for module, constant, value in (
        (multilayer_encoder, "_DRAWN_FROM", 10),
        (operators, "_PIECE_BYTES", 20 * 8 * (8 + 12 + 6)),
        (operators, "_BYTES_ON_GPU", 10 * 8 * 12),
        (blocks, "_FEWEST", 16),
        (blocks, "_MOST", 16),
        (sequential, "_BYTES_THERE", 7 * 5 * 20 * 8),
        (learner, "_AT_ONCE_THERE", 16),
        (inputs, "_READ_BYTES", 16 * 64),
        (batches, "_PIECE_BYTES", 13 * 64),
        (batches, "_SHARE", 0.25 if stays else 0),
        (stacks, "_GAP", 0),
    ):
        monkeypatch.setattr(module, constant, value)
    estimator, X = clone(ESTIMATORS[name][0]), ESTIMATORS[name][1]
    y = np.arange(len(X)) % 2 if name == "classes" else X if name == "sequences" else None
    expected = estimator.fit(X, y).transform(X)
    scores = None if y is None else estimator.score(X, y)
    watched, out = Watched(X), np.zeros(expected.shape)
    estimator.fit(watched, None if name == "sequences" else y)
    np.testing.assert_allclose(estimator.transform(watched), expected, rtol=1e-9, atol=1e-10)
    assert estimator.transform(watched, out=out) is out and watched.most <= len(X) // 2
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-10)
    assert y is None or estimator.score(watched, y) == pytest.approx(scores)
    out[:] = 0
    there = gpu.asarray(X)
    estimator.set_params(device="auto").fit(there, y if name == "classes" else None).transform(there, out=out)
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-10)
