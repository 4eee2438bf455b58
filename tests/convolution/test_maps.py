"""Sparse maps against the dense ones they stand for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseshare.convolution.maps import SparseMaps


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=5), st.integers(0, 2**20), st.sampled_from([0.0, 0.3, 1.0]))
def test_there_and_back(shape, seed, density):
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal(shape) * (rng.random(shape) < density)
    maps = SparseMaps.from_dense(dense)
    assert maps.shape == tuple(shape) and maps.indices.dtype == np.int64
    assert np.all(np.diff(maps.indices) > 0) and np.all(maps.values != 0)
    np.testing.assert_array_equal(maps.dense(), dense)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_and_layout(dtype):
    dense = np.zeros((2, 3, 4), dtype)
    dense[1, 2, 0], dense[0, 1, 3] = 2, -1
    for given_maps in (dense, np.asfortranarray(dense), dense[:, :, ::1]):
        maps = SparseMaps.from_dense(given_maps)
        assert maps.indices.tolist() == [7, 20] and maps.values.tolist() == [-1, 2]
        assert maps.values.dtype == maps.dense().dtype == dtype
