"""Maps with more entries than the kernels of conv_pooling and conv_statistics look at together: several rounds."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sparseshare.kernels.gpu import conv_pooling, conv_statistics

SHAPE = (20, 33)

pytestmark = pytest.mark.races


@pytest.fixture(params=["races", "reverse", "random"])
def dense_maps(gpu, request, dtype, rng):
    """Maps without zeros, their places and their values on the device."""
    maps = rng.standard_normal((2, *SHAPE)).astype(dtype)
    with gpu.races() if request.param == "races" else gpu.order(request.param):
        yield maps, gpu.asarray(np.arange(maps.size)), gpu.asarray(maps.ravel())


@pytest.mark.parametrize("maximum", [False, True])
@pytest.mark.parametrize("n_signs", [1, 2])
def test_pooling(gpu, dense_maps, n_signs, maximum):
    maps, indices, values = dense_maps
    homes = [np.arange(20) // 10, np.arange(33) // 11]
    pooled = conv_pooling.pool_entries(indices, values, (1, 2, *SHAPE), homes, (2, 3), n_signs, maximum)
    sized = np.stack([np.abs(maps)] if n_signs == 1 else [maps.clip(0), (-maps).clip(0)]).astype(float)
    cells = sized.reshape(n_signs, 2, 2, 10, 3, 11)
    expected = cells.max(axis=(3, 5)) if maximum else cells.sum(axis=(3, 5))
    assert_allclose(gpu.get(pooled)[..., 0], expected.transpose(2, 3, 0, 1).reshape(6, n_signs, 2), rtol=1e-12)


def test_correlation_with_a_signal(gpu, dense_maps, rng):
    maps, indices, values = dense_maps
    signal = rng.standard_normal((1, 22, 35)).astype(maps.dtype)
    psi = gpu.asarray(np.ones((2, 1, 3, 3)))
    conv_statistics.correlate_signal(indices, values, gpu.asarray(signal), SHAPE, 2.0, psi)
    windows = np.lib.stride_tricks.sliding_window_view(signal.astype(float), SHAPE, axis=(1, 2))
    expected = 1 + 2 * np.einsum("kuv,cabuv->kcab", maps.astype(float), windows)
    assert_allclose(gpu.get(psi), expected, rtol=1e-11, atol=1e-11)
