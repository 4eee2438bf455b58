"""Parts of kernels: compiled into their callers, refused to Python."""

import numpy as np
import pytest

from sparseshare.kernels.cpu.jit import called, kernel, part, rare


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
    out[:] = _running_sums(x)


@pytest.mark.parametrize("function", [_square, _sum_of_squares, _running_sums])
def test_parts_work_in_kernels_and_refuse_python(function):
    x, out = np.arange(5.0), np.zeros(5)
    running_sums(x, out)
    np.testing.assert_array_equal(out, np.cumsum(x**2))
    with pytest.raises(TypeError, match=rf"{function.__name__} is a part of kernels"):
        function(x)
