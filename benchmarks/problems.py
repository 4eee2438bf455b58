"""Signals, learned dictionaries and penalties that the rows share. Dictionaries are learned once and kept."""

import json
from pathlib import Path

import numpy as np

from sparseshare.datasets import photo_patches

CACHE = Path(__file__).parent / "output" / "cache"
N_TRAINING = 50_000


def training_signals(side, n_signals=N_TRAINING):
    """Patches to learn from, float32."""
    return photo_patches(n_signals, (side, side), random_state=1, dtype=np.float32)


def test_signals(side, n_signals, dtype=np.float32):
    """Patches to code: drawn with another seed, so that few of them have been learned from."""
    return photo_patches(n_signals, (side, side), random_state=2, dtype=dtype)


def starting_dictionary(X, n_components):
    """Signals as first atoms, the same for every contestant."""
    return X[np.random.default_rng(0).choice(len(X), n_components, replace=False)]


def dictionary(side, n_components, settings):
    """Atoms of unit norm, (n_components, side * side) float64, learned from patches of the photographs.

    The lasso with the penalty of Mairal et al. (2010), 1.2 / sqrt(n_features), two passes.
    """
    file = CACHE / f"dictionary_{side}x{side}_{n_components}.npy"
    if not file.exists():
        X = training_signals(side)
        with settings.contestant("sparseshare") as learner:
            options = {"alpha": 1.2 / side, "batch_size": 512, "n_batches": 200, "every": 200}
            learner.prepare("learn", {"X": X, "D": starting_dictionary(X, n_components)}, options, warm_up=False)
            learner.run()
            atoms = learner.result()["dictionaries"][-1].astype(np.float64)
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(file, atoms / np.linalg.norm(atoms, axis=1, keepdims=True))
    return np.load(file)


def penalty(side, n_components, n_nonzeros, settings):
    """The alpha at which codes of patches have `n_nonzeros` non-zeros in the mean, by bisection."""
    file = CACHE / f"penalty_{side}x{side}_{n_components}_{n_nonzeros}.json"
    if not file.exists():
        X = test_signals(side, 2000)
        D = dictionary(side, n_components, settings).astype(np.float32)
        low, high = 1e-3, 1.0
        with settings.contestant("sparseshare") as coder:
            while high / low > 1.003:
                alpha = np.sqrt(low * high)
                coder.prepare("encode", {"X": X, "D": D}, {"alpha": alpha}, warm_up=False)
                coder.run()
                low, high = (alpha, high) if coder.result().nnz > n_nonzeros * len(X) else (low, alpha)
        file.write_text(json.dumps(np.sqrt(low * high)))
    return json.loads(file.read_text())
