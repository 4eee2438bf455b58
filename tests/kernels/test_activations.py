"""The largest activations of a row, against a sort."""

import numpy as np
import pytest

from sparseshare.kernels.cpu.activations import keep_largest


@pytest.mark.parametrize("values", ["random", "ties", "zeros", "rising", "falling"])
def test_keep_largest(values, dtype):
    rng = np.random.default_rng(0)
    z = {
        "random": rng.standard_normal((20, 37)),
        "ties": rng.integers(-3, 4, (20, 37)),
        "zeros": np.zeros((2, 9)),
        "rising": np.arange(1, 26.0)[None],
        "falling": -np.arange(25.0, 0, -1)[None],
    }[values].astype(dtype)
    for count in (1, 2, z.shape[1] // 2, z.shape[1]):
        kept, expected = z.copy(), np.zeros_like(z)
        for row, out in zip(z, expected, strict=True):
            largest = np.argsort(-np.abs(row), kind="stable")[:count]
            out[largest] = row[largest]
        assert keep_largest(kept, count) == np.count_nonzero(expected)
        np.testing.assert_array_equal(kept, expected)
