"""Vector quantisation against plain loops."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sparseshare.image.quantization import VectorQuantizer, signals_as_atoms


def slow_quantization(X, atoms, gain_shape, n_passes):
    losses = []
    for _ in range(n_passes):
        if gain_shape:
            products = X @ atoms.T
            labels = abs(products).argmax(axis=1)
            gains = products[np.arange(len(X)), labels]
            losses.append(((X - gains[:, None] * atoms[labels]) ** 2).sum() / 2 / len(X))
            sums = np.array([gains[labels == k] @ X[labels == k] for k in range(len(atoms))])
            atoms = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        else:
            labels = ((X[:, None] - atoms) ** 2).sum(axis=2).argmin(axis=1)
            losses.append(((X - atoms[labels]) ** 2).sum() / 2 / len(X))
            atoms = np.array([X[labels == k].mean(axis=0) for k in range(len(atoms))])
    return atoms, losses


@pytest.mark.parametrize("gain_shape", [True, False])
def test_quantization_is_that_of_the_slow_loop(rng, dtype, gain_shape):
    X = rng.normal(size=(3000, 5)).astype(dtype)
    start = signals_as_atoms(X, 21, np.random.RandomState(0), gain_shape)
    expected, expected_losses = slow_quantization(X.astype(np.float64), start.astype(np.float64), gain_shape, 4)
    results = []
    for n_jobs in (1, 4):
        quantizer = VectorQuantizer(start.copy(), gain_shape)
        losses = quantizer.fit(X, 4, np.random.RandomState(0), n_jobs)
        assert_allclose(losses, expected_losses, rtol=1e-4 if dtype == np.float32 else 1e-10)
        assert (np.diff(losses) < 0).all()
        results.append(quantizer.atoms)
    assert_array_equal(*results)
    assert_allclose(results[0], expected, atol=0.05 if dtype == np.float32 else 1e-10)


def test_atoms_without_signals_are_drawn_anew(rng):
    X = rng.normal(size=(200, 4)) + [5, 0, 0, 0]
    start = np.vstack([X[:3], [[-100.0, 0, 0, 0]]])
    quantizer = VectorQuantizer(start, gain_shape=False)
    quantizer.fit(X, 10, np.random.RandomState(0))
    assert (quantizer.counts > 0).all() and quantizer.counts.sum() == 200


def test_signals_as_atoms_run_out_gracefully():
    X = np.array([[0.0, 0], [3, 4], [0, 0]])
    atoms = signals_as_atoms(X, 3, np.random.RandomState(0))
    assert_allclose(atoms[0], [0.6, 0.8])
    assert_allclose(np.linalg.norm(atoms, axis=1), 1)
    assert_allclose(np.linalg.norm(signals_as_atoms(np.zeros((2, 3)), 4, np.random.RandomState(0)), axis=1), 1)
