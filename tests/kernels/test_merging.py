"""Parts of kernels: compiled into their callers, refused to Python; in the ordinary way where Numba has changed."""

import re
import sys
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
from kernels.tile import Tile, problem
from numba import njit

from sparseshare.kernels import cpu
from sparseshare.kernels.cpu.jit import called, kernel, part, rare
from sparseshare.kernels.cpu.merging import COMPILER
from sparseshare.kernels.cpu.thresholding import threshold_tile


@part
def _square(x):
    return x * x


@rare
def _sum_of_squares(x):
    total = 0.0
    for i in range(x.shape[0]):
        total += _square(x[i])
    return total


@called
def _running_sums(x):
    sums = np.empty(x.shape[0])
    for i in range(x.shape[0]):
        sums[i] = _sum_of_squares(x[: i + 1])
    return sums


@kernel
def running_sums(x, out):
    sums = _running_sums(x)
    for i in range(x.shape[0]):
        out[i] = sums[i]


@pytest.mark.parametrize("function", [_square, _sum_of_squares, _running_sums])
def test_parts_work_in_kernels_and_refuse_python(function):
    x, out = np.arange(5.0), np.zeros(5)
    running_sums(x, out)
    np.testing.assert_array_equal(out, np.cumsum(x**2))
    with pytest.raises(TypeError, match=rf"{function.__name__} is a part of kernels"):
        function(x)


@pytest.mark.skipif(COMPILER is None, reason="this Numba compiles parts in the ordinary way")
def test_parts_are_copied_and_rare_ones_called():
    @part
    def both(x):
        return _sum_of_squares(x) + _sum_of_squares(x[1:])

    compiled = njit(lambda x: both(x))
    assert compiled(np.arange(4.0)) == 28
    defined = re.findall(r"^define .*", compiled.inspect_llvm(compiled.signatures[0]), re.MULTILINE)
    assert sum("_sum_of_squares" in line for line in defined) == 1
    assert not any(name in line for line in defined for name in ("7_square", "both"))


@pytest.fixture
def ordinary(monkeypatch):
    """The kernels, imported once more under another name while Numba lacks what merging them takes."""
    room = ModuleType("ordinary_kernels")
    room.__path__ = cpu.__path__
    monkeypatch.setitem(sys.modules, room.__name__, room)
    with monkeypatch.context() as patch:
        patch.delattr("numba.core.codegen.JITCodeLibrary")
        import_module(f"{room.__name__}.merging")
    yield room.__name__
    for name in [name for name in sys.modules if name.startswith(f"{room.__name__}.")]:
        del sys.modules[name]


def test_without_what_merging_takes_kernels_compile_in_the_ordinary_way(ordinary):
    thresholding = import_module(f"{ordinary}.thresholding")
    assert import_module(f"{ordinary}.merging").COMPILER is None
    assert thresholding.nonzeros(np.arange(16.0) % 3, np.zeros(16, np.int32), np.zeros(16)) == 10
    tiles = [Tile(*problem("wide"), np.float64) for _ in range(2)]
    for tile, solve in zip(tiles, (threshold_tile, thresholding.threshold_tile), strict=True):
        solve(tile.Q, 0.3 * tile.largest, False, *tile.codes)
    assert tiles[0].counts.any() and thresholding.threshold_tile.signatures
    for one, other in zip(tiles[0].codes, tiles[1].codes, strict=True):
        np.testing.assert_array_equal(one, other)
