"""The worst coded patches, against a search of all of them."""

import numpy as np

from sparseshare.convolution.replacement import WorstCoded, replace_atoms
from sparseshare.convolution.updates import AtomForm
from sparseshare.optimization import AtomConstraint


def test_worst_patches_are_those_of_most_energy_that_do_not_overlap(rng):
    residuals = rng.standard_normal((3, 1, 2, 9, 10))
    worst = WorstCoded((3, 2), 5)
    for residual in residuals:
        worst.look_at(residual, 1.0)
    windows = np.lib.stride_tricks.sliding_window_view(residuals, (3, 2), axis=(3, 4))
    energies = (windows**2).sum(axis=(2, -2, -1))[:, 0]
    for patch in worst.patches:
        number, row, column = np.unravel_index(energies.argmax(), energies.shape)
        np.testing.assert_array_equal(patch, residuals[number, 0, :, row : row + 3, column : column + 2])
        energies[number, max(row - 2, 0) : row + 3, max(column - 1, 0) : column + 2] = -1


def test_perfectly_coded_signals_offer_nothing():
    worst = WorstCoded((3, 2), 5)
    worst.look_at(1e-9 * np.ones((1, 1, 9, 10)), 1.0)
    assert worst.patches == []
    atoms = np.ones((2, 1, 3, 2))
    assert len(replace_atoms(atoms, [0], worst, AtomForm(AtomConstraint(), (3, 2)))) == 0
    np.testing.assert_array_equal(atoms, 1)


def test_dead_atoms_become_unit_patches_of_their_shape(rng):
    worst = WorstCoded((3, 2), 2)
    worst.look_at(rng.standard_normal((1, 1, 9, 10)), 1.0)
    form = AtomForm(AtomConstraint(), (3, 2), ((3, 2), (2, 2), (3, 2)))
    atoms = np.zeros((3, 1, 3, 2))
    np.testing.assert_array_equal(replace_atoms(atoms, [1, 2], worst, form), [1, 2])
    np.testing.assert_allclose(np.linalg.norm(atoms.reshape(3, -1), axis=1), [0, 1, 1])
    assert not atoms[1, :, 2:].any()
