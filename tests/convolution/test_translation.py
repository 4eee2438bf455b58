"""Where signals wrap around, a translation by whole samples moves the maps with it and changes nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sparseshare.convolution import ConvSparseCoder
from sparseshare.convolution.encoder import SOLVERS

SHAPES = {1: ((24,), (5,)), 2: ((8, 9), (3, 2)), 3: ((4, 5, 6), (2, 3, 2))}


@st.composite
def translated_signals(draw):
    """A signal, atoms, and by how much the signal is moved along every axis."""
    n_axes = draw(st.integers(1, 3))
    shape, support = SHAPES[n_axes]
    channels = draw(st.sampled_from([(), (2,)]))
    of_atoms = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 50)))
    signal = rng.standard_normal((1, *shape, *channels))
    atoms = rng.standard_normal((3, *support, *(channels if of_atoms else ())))
    shift = tuple(draw(st.integers(-length, 2 * length)) for length in shape)
    return signal, atoms, shift


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=8)
@given(translated_signals(), st.booleans())
def test_maps_move_with_the_signal(solver, case, positive):
    signal, atoms, shift = case
    sparsity = {"n_nonzero_coefs": 6} if solver == "omp" else {"alpha": 0.3, "alpha_relative": True, "tol": 1e-10}
    coder = ConvSparseCoder(
        atoms,
        solver=solver,
        positive_code=positive,
        max_iter=50_000 if solver != "omp" else None,
        pool_grid=1,
        **sparsity,
    ).fit(signal)
    axes = tuple(range(1, 1 + len(shift)))
    moved = np.roll(signal, shift, axes)
    maps = coder.encode(signal)
    expected = np.roll(maps, shift, tuple(axis + 1 for axis in axes))
    assert_allclose(coder.encode(moved), expected, atol=1e-4 * np.abs(maps).max())
    assert_allclose(coder.transform(moved), coder.transform(signal), atol=1e-4 * np.abs(maps).max())
