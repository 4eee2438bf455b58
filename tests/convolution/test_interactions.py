"""Correlations with atoms, and of atoms with each other, against their definition."""

import numpy as np
import pytest

from sparseshare.convolution import interactions as module
from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.interactions import correlations, interactions, size_of_interactions
from sparseshare.convolution.operator import Convolution

SHAPES = [
    ((40,), (4,)),
    ((300,), (64,)),
    ((5,), (5,)),
    ((9, 40), (3, 4)),
    ((20, 7), (8, 7)),
    ((6, 7, 18), (2, 3, 2)),
    ((6, 5, 4), (3, 1, 1)),
]


@pytest.mark.parametrize(("signal_shape", "support"), SHAPES)
@pytest.mark.parametrize("boundary", ["circular", "full"])
@pytest.mark.parametrize("n_components", [1, 8, 25, 33])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_correlations_are_the_adjoint(rng, signal_shape, support, boundary, n_components, n_channels):
    geometry = Geometry(signal_shape, support, boundary)
    atoms = rng.standard_normal((n_components, n_channels, *support))
    signal = rng.standard_normal((n_channels, *signal_shape))
    found = correlations(signal, atoms, boundary == "circular")
    expected = np.moveaxis(Convolution(atoms, geometry).correlate(signal[None])[0], 0, -1)
    assert found.shape == (*geometry.positions, n_components)
    np.testing.assert_allclose(found, expected, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_stays_and_threads_do_not_show(rng, dtype):
    atoms = rng.standard_normal((20, 2, 5, 6)).astype(dtype)
    signal = rng.standard_normal((2, 70, 300)).astype(dtype)
    first = correlations(signal, atoms, True)
    assert first.dtype == interactions(atoms).dtype == dtype
    for n_threads in (2, 3):
        np.testing.assert_array_equal(correlations(signal, atoms, True, n_threads), first)
        np.testing.assert_array_equal(interactions(atoms, n_threads), interactions(atoms))


@pytest.mark.parametrize("support", [(1,), (5,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_interactions_are_what_an_activation_adds(rng, support, n_channels):
    atoms = rng.standard_normal((3, n_channels, *support))
    found = interactions(atoms)
    assert found.shape == (3, *(2 * length - 1 for length in support), 3)
    geometry = Geometry(tuple(3 * length - 2 for length in support), support, "full")
    for atom in range(3):
        maps = np.zeros((1, 3, *geometry.positions))
        maps[(0, atom, *(length - 1 for length in support))] = 1
        operator = Convolution(atoms, geometry)
        added = operator.correlate(operator.synthesize(maps))[0]
        np.testing.assert_allclose(found[atom], np.moveaxis(added, 0, -1), atol=1e-12)


def test_interactions_are_symmetric(rng):
    found = interactions(rng.standard_normal((4, 1, 3, 5)))
    np.testing.assert_allclose(found, np.moveaxis(found[:, ::-1, ::-1], (0, -1), (-1, 0)), atol=1e-12)


def test_what_would_not_fit_is_refused(rng, monkeypatch):
    atoms = rng.standard_normal((3, 1, 4, 4))
    assert size_of_interactions(atoms) == interactions(atoms).nbytes
    monkeypatch.setattr(module, "LARGEST", 3000)
    with pytest.raises(MemoryError, match=r"interactions of 3 atoms of shape \(4, 4\) take 3.53e-06 GB, more than"):
        interactions(atoms)
