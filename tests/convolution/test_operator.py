"""The operator against its definition, and its adjoint."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.operator import Convolution

SHAPES = [((17,), (4,)), ((16,), (16,)), ((9, 12), (3, 4)), ((11, 7), (1, 7)), ((6, 7, 5), (2, 3, 2))]


def synthesize(maps, atoms, geometry):
    """Entry by entry: an atom's entry l at position u falls on the sample u + l + offset."""
    out = np.zeros((len(maps), atoms.shape[1], *geometry.signal_shape))
    for position in np.ndindex(geometry.positions):
        for entry in np.ndindex(geometry.support):
            place = np.add(np.add(position, entry), geometry.offset)
            if geometry.boundary == "circular":
                place %= geometry.signal_shape
            if ((place >= 0) & (place < geometry.signal_shape)).all():
                out[(..., *place)] += maps[(..., *position)] @ atoms[(..., *entry)]
    return out


@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
@pytest.mark.parametrize(("signal_shape", "support"), SHAPES)
@pytest.mark.parametrize(("n_signals", "n_channels"), [(1, 1), (3, 1), (1, 2)])
def test_convolution_is_its_definition_and_has_its_adjoint(rng, boundary, signal_shape, support, n_signals, n_channels):
    geometry = Geometry(signal_shape, support, boundary)
    atoms = rng.standard_normal((5, n_channels, *support))
    operator = Convolution(atoms, geometry)
    maps = rng.standard_normal((n_signals, 5, *geometry.positions))
    signal = rng.standard_normal((n_signals, n_channels, *signal_shape))
    made = operator.synthesize(maps)
    assert_allclose(made, synthesize(maps, atoms, geometry), atol=1e-12)
    assert_allclose(np.vdot(made, signal), np.vdot(maps, operator.correlate(signal)), rtol=1e-11)


@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
@pytest.mark.parametrize(("signal_shape", "support"), SHAPES)
@pytest.mark.parametrize(("n_signals", "n_channels"), [(2, 1), (1, 3)])
def test_direct_form_is_that_of_the_transforms(
    rng, monkeypatch, boundary, signal_shape, support, n_signals, n_channels
):
    geometry = Geometry(signal_shape, support, boundary)
    made, found = [], []
    atoms = rng.standard_normal((3, n_channels, *support))
    maps = rng.standard_normal((n_signals, 3, *geometry.positions))
    signal = rng.standard_normal((n_signals, n_channels, *signal_shape))
    for most in (-1, np.inf):
        monkeypatch.setattr("sparseshare.convolution.operator._TAPS", (most, most))
        monkeypatch.setattr("sparseshare.convolution.operator._FEW", (most, most))
        operator = Convolution(atoms, geometry)
        made.append(operator.synthesize(maps))
        found.append(operator.correlate(signal))
    assert_allclose(*made, atol=1e-12)
    assert_allclose(*found, atol=1e-12)


@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_lipschitz_constant_is_the_largest_eigenvalue(rng, boundary, n_channels):
    geometry = Geometry((7, 6), (3, 2), boundary)
    atoms = rng.standard_normal((3, n_channels, 3, 2))
    operator = Convolution(atoms, geometry)
    size = 3 * geometry.n_positions
    columns = [operator.synthesize(unit.reshape(1, 3, *geometry.positions)).ravel() for unit in np.eye(size)]
    largest = np.linalg.norm(np.array(columns), 2) ** 2
    if boundary == "circular":
        assert_allclose(operator.lipschitz, largest, rtol=1e-12)
    else:
        assert largest <= operator.lipschitz * (1 + 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_stays_and_threads_do_not_show(rng, dtype):
    atoms = rng.standard_normal((40, 1, 5, 5)).astype(dtype)
    geometry = Geometry((90, 80), (5, 5), "full")
    maps = rng.standard_normal((1, 40, *geometry.positions)).astype(dtype)
    made = [Convolution(atoms, geometry, n_threads).synthesize(maps) for n_threads in (1, 2)]
    back = [Convolution(atoms, geometry, n_threads).correlate(made[0]) for n_threads in (1, 2)]
    assert made[0].dtype == back[0].dtype == dtype
    assert_array_equal(*made)
    assert_array_equal(*back)


def test_bad_geometry():
    for arguments, message in [
        (((8,), (3,), "same"), "'boundary' parameter must be 'circular', 'full' or 'valid'"),
        (((8, 8), (3,)), "atoms with 1 spatial axes cannot lie on a signal with 2"),
        (((8, 8), (3, 9)), "are larger than the signal"),
    ]:
        with pytest.raises(ValueError, match=message):
            Geometry(*arguments)


@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
def test_positions_and_offsets(boundary):
    for signal_shape, support in itertools.islice(SHAPES, 3):
        geometry = Geometry(signal_shape, support, boundary)
        n, length = np.array(signal_shape), np.array(support)
        expected = {"circular": n, "full": n - length + 1, "valid": n + length - 1}[boundary]
        assert_array_equal(geometry.positions, expected)
        assert geometry.n_positions == np.prod(expected)
