"""Fixtures and settings shared by all tests."""

import functools
import gc

import numpy as np
import pytest
from hypothesis import settings

# A kernel compiles at its first call, which no per-example deadline allows for.
settings.register_profile("sparseshare", deadline=None, print_blob=True)
settings.load_profile("sparseshare")
# Compilers make objects by the million that stay, and ten thousand tests stay as well: not to be looked through as
# often as Python does by itself.
gc.set_threshold(50_000, 10, 10)


@functools.cache
def gpu_problem():
    """Why tests on a GPU cannot run, or None. Asks the device: that CuPy imports says little."""
    try:
        import cupy
    except Exception as error:  # noqa: BLE001 whatever it is, it is the reason
        return f"CuPy cannot be imported: {error!r}"
    try:
        if not cupy.cuda.is_available():
            return "CuPy is installed, but there is no usable CUDA device"
        cupy.zeros(1).sum().item()  # driver, memory and compiler work
    except Exception as error:  # noqa: BLE001
        return f"the CUDA device cannot be used: {error!r}"
    return None


def pytest_addoption(parser):
    parser.addoption("--require-gpu", action="store_true", help="fail instead of skipping when there is no GPU")


def pytest_collection_modifyitems(config, items):
    moving = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if moving:  # the processes of a run have to name tests alike
        raise pytest.UsageError(f"names that hold an address, give them ids: {', '.join(moving)}")
    marked = [item for item in items if "gpu" in item.keywords and item.get_closest_marker("gpu")]
    if not marked and not config.getoption("--require-gpu"):
        return
    problem = gpu_problem()
    if problem and config.getoption("--require-gpu"):
        raise pytest.UsageError(f"--require-gpu: {problem}")
    for item in marked:
        if problem:
            item.add_marker(pytest.mark.skip(reason=problem))


def pytest_collection_finish():
    gc.freeze()


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """Both precisions, one after the other."""
    return request.param


@pytest.fixture
def rng():
    """The same random numbers for every test."""
    return np.random.default_rng(0)
