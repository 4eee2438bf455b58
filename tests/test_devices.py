"""The device follows the request and the arrays; what is missing is said."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from sparseshare import devices
from sparseshare.devices import resolve_device


class FakeArray:
    """Looks like an array of CuPy to whoever reads the module of its type."""

    def __init__(self, number=0):
        self.device = SimpleNamespace(id=number)


FakeArray.__module__ = "cupy._core.core"


@pytest.fixture
def fake_cupy(monkeypatch):
    """A CuPy whose driver answers as the test tells it."""

    def install(answer):
        runtime = SimpleNamespace(getDeviceCount=answer)
        module = ModuleType("cupy")
        module.cuda = SimpleNamespace(runtime=runtime, Device=lambda: SimpleNamespace(id=1))
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setattr(devices, "find_spec", lambda name: object())

    return install


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_host_arrays_stay_on_the_host(device):
    assert resolve_device(device) == "cpu"
    assert resolve_device(device, np.zeros(3), [[1.0]], None, sparse.csr_array((2, 2))) == "cpu"


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:a", "CPU", "", None, 0, "cuda:1 "])
def test_unknown_devices(device):
    with pytest.raises(ValueError, match="'device' parameter must be 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        resolve_device(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_without_cupy(monkeypatch, device):
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"CuPy is not installed, pip install 'sparseshare\[cuda12\]'"):
        resolve_device(device, np.zeros(3))


def test_without_a_driver(fake_cupy):
    def no_driver():
        raise OSError("libcuda.so.1 not found")

    fake_cupy(no_driver)
    with pytest.raises(RuntimeError, match="no usable driver or device .*libcuda.so.1 not found"):
        resolve_device("cuda")


def test_with_a_driver(fake_cupy):
    fake_cupy(lambda: 2)
    assert resolve_device("cuda", np.zeros(3)) == "cuda:1"  # CuPy's current one
    assert resolve_device("cuda:0", np.zeros(3)) == "cuda:0"
    with pytest.raises(RuntimeError, match="device='cuda:3' needs a GPU: there is no device number 3, CuPy sees 2"):
        resolve_device("cuda:3")


def test_the_device_follows_the_arrays(fake_cupy):
    fake_cupy(lambda: 2)
    assert resolve_device("auto", FakeArray(1), None, FakeArray(1)) == "cuda:1"
    assert resolve_device("cuda", FakeArray(0), np.zeros(3)) == "cuda:0"
    assert resolve_device("cuda:1", FakeArray(0)) == "cuda:1"


def test_gpu_arrays_are_not_moved_silently():
    with pytest.raises(RuntimeError, match=r"lives on a GPU: .* cupy.asnumpy"):
        resolve_device("cpu", FakeArray())
    with pytest.raises(TypeError, match="live on cpu and cuda:0: move them to one device"):
        resolve_device("auto", np.zeros(3), FakeArray())
    with pytest.raises(TypeError, match="live on cuda:0 and cuda:1"):
        resolve_device("auto", FakeArray(0), FakeArray(1))
