"""The fixture `gpu`: an array module with kernels, by a fake CuPy and g++, and on a GPU where there is one."""

import os
import sys

import numpy as np
import pytest
from gpu import fake_cupy, record, shim


def pytest_configure(config):
    if hasattr(config, "cache"):
        shim.settings.cache = config.cache.mkdir("cuda-shim")


def pytest_sessionfinish(session):
    if os.environ.get("CUDA_SHIM_RECORD"):
        record.write_what_ran(os.environ["CUDA_SHIM_RECORD"])


class Gpu:
    """What a test of kernels needs of a device.

    Attributes
    ----------
    kind : "shim" or "device"
    xp : CuPy or the fake
    state : counters and limits of the fake, None on a device
    """

    def __init__(self, kind, xp, state=None):
        self.kind, self.xp, self.state = kind, xp, state

    def asarray(self, array, dtype=None):
        """On the device."""
        return self.xp.asarray(array, dtype)

    def get(self, array):
        """On the host; what is there already passes."""
        return array.get() if hasattr(array, "get") else np.asarray(array)

    def poisoned(self, shape, dtype=float):
        """Device memory that holds NaN, or the lowest number of an integer type: a kernel must write all of it."""
        return self.xp.full(shape, np.nan if np.dtype(dtype).kind in "fc" else np.iinfo(dtype).min, dtype)

    def order(self, kind, seed=0):
        """Context in which threads run forward, in reverse or at random; on a device they run as they do."""
        if kind not in shim.ORDERS:
            raise ValueError(f"order must be one of {shim.ORDERS}, got {kind!r}")
        return shim.using(order=kind, seed=seed)

    def races(self):
        """Context in which two threads that touch an address with no barrier between them raise an error."""
        return shim.using(mode="races")


def _forget_kernels():
    """Kernels belong to the CuPy that built them."""
    module = sys.modules.get("sparseshare.kernels.gpu.module")
    for value in list(vars(module).values()) if module else ():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


@pytest.fixture(params=["shim", pytest.param("device", marks=pytest.mark.gpu)])
def gpu(request, monkeypatch):
    """A device to test on; with the marker `gpu` a real one."""
    if request.param == "device":
        import cupy

        _forget_kernels()
        yield Gpu("device", cupy)
    else:
        problem = shim.shim_problem()
        if problem:
            pytest.skip(problem)
        cupy = fake_cupy.install(monkeypatch)
        _forget_kernels()
        with shim.using(order="forward", seed=0):
            yield Gpu("shim", cupy, fake_cupy.state)
    _forget_kernels()
