"""The list of non-zeros by position, which phi is counted from."""

import numpy as np
import pytest

from sparseshare.kernels.dispatch import kernels_for


@pytest.mark.parametrize("density", [0, 0.2, 1])
def test_non_zeros_are_listed_by_position_then_atom(density, rng):
    n_atoms, n_positions = 5, 40
    indices = np.flatnonzero(rng.random(n_atoms * n_positions) < density)
    first, places = np.empty(n_positions + 1, np.int64), np.empty(len(indices), np.int64)
    kernels_for("cpu", "conv_statistics").order_by_position(indices, n_positions, first, places)
    atom, position = np.divmod(indices, n_positions)
    np.testing.assert_array_equal(places, np.lexsort((atom, position)))
    np.testing.assert_array_equal(first, np.searchsorted(position[places], np.arange(n_positions + 1)))


@pytest.mark.parametrize("circular", [False, True])
def test_two_non_zeros_meet_at_their_offset(circular):
    """Atoms 0 and 1 at positions 1 and 3 of 5: two samples apart, or three the other way around."""
    indices, values = np.array([1, 8]), np.array([2.0, 5.0])
    first, places = np.empty(6, np.int64), np.empty(2, np.int64)
    kernels = kernels_for("cpu", "conv_statistics")
    kernels.order_by_position(indices, 5, first, places)
    near = indices[places] // 5, indices[places] % 5, values[places], first
    phi = np.zeros((2, 2, 4))
    kernels.correlate_maps(indices, values, *near, np.array([1, 1, 5]), np.array([1, 1, 4]), circular, 10.0, phi)
    expected = np.zeros((2, 2, 4))
    expected[0, 0, 0], expected[1, 1, 0], expected[0, 1, 2] = 40, 250, 100
    expected[1, 0, 3] = 100 if circular else 0
    np.testing.assert_array_equal(phi, expected)
