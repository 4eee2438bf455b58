"""The fixture `gpu`: an array module with kernels, by a fake CuPy and g++, and on a GPU where there is one."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from gpu import fake_cupy, shim


def pytest_configure(config):
    config.addinivalue_line("markers", "races: runs under the race detector too, for test_barriers.py")
    if hasattr(config, "cache") and "CUDA_SHIM_CACHE" not in os.environ:
        shim.settings.cache = config.cache.mkdir("cuda-shim")


def _parameters(item):
    return item.callspec.params.values() if hasattr(item, "callspec") else ()


def pytest_collection_modifyitems(config, items):
    """The race detector needs no second dtype and no second order of threads."""
    if "CUDA_SHIM_RAN" not in os.environ:
        return
    again = {np.float32, "reverse", "random"}
    left_out = [
        item for item in items if any(isinstance(value, type | str) and value in again for value in _parameters(item))
    ]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session):
    """For test_barriers.py: what this process has launched, and which barriers alone kept two accesses apart."""
    if "CUDA_SHIM_RAN" not in os.environ:
        return
    from sparseshare.kernels.gpu import module

    ran = {}
    for family in module.families():
        code = module.source(family)
        needed = [line for line, use in shim.uses_of_barriers(code).items() if use & shim.NEEDED]
        ran[family] = {"launched": sorted(shim.launched[code]), "needed": needed}
    Path(os.environ["CUDA_SHIM_RAN"]).write_text(json.dumps(ran))


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
