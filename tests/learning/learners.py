"""What the tests of all learners share."""

import numpy as np

from sparseshare.learning import KSVD, DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder


def learners(**parameters):
    """One small learner of each class."""
    return [
        DictionaryLearning(6, alpha=0.3, max_iter=8, tol=1e-3, random_state=0, **parameters),
        MiniBatchDictionaryLearning(6, alpha=0.3, max_iter=4, batch_size=16, random_state=0, **parameters),
        KSVD(6, n_nonzero_coefs=2, max_iter=5, tol=0, random_state=0, **parameters),
        SparseCoder(n_components=6, alpha=0.3, max_iter=4, batch_size=16, random_state=0, **parameters),
    ]


def name_of(value):
    """Name of a learner's class, for the names of test cases."""
    return type(value).__name__


def planted(rng, n_samples=1500, n_components=50, n_features=20, n_nonzero=3, noise=0.0):
    """The synthetic test of Aharon, Elad and Bruckstein 2006, section V: signals of few random unit atoms."""
    dictionary = rng.standard_normal((n_components, n_features))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    codes = np.zeros((n_samples, n_components))
    for code in codes:
        code[rng.permutation(n_components)[:n_nonzero]] = rng.standard_normal(n_nonzero)
    return codes @ dictionary + noise * rng.standard_normal((n_samples, n_features)), dictionary


def recovered(dictionary, found):
    """Share of the atoms that are found up to sign: 1 - |cosine| < 0.01, as in the paper."""
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    return float((1 - np.abs(dictionary @ found.T).max(axis=1) < 0.01).mean())
