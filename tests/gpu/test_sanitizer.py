"""Tests of kernels once more, in a process whose kernels are built under AddressSanitizer."""

import subprocess
import sys
from pathlib import Path

import pytest
from gpu import shim

pytestmark = pytest.mark.skipif(shim.shim_problem() is not None, reason=str(shim.shim_problem()))
HERE = Path(__file__).parent
OVERRUN = """
from gpu import shim
import numpy as np
code = "// instance: over<float>\\ntemplate <typename T> __global__ void over(T* __restrict__ out, const int n) {"
code += " out[threadIdx.x + n] = T(1); }"
kernel = shim.ShimModule(code, ("over<float>",)).get_function("over<float>")
kernel((1,), (32,), (np.zeros(32, np.float32), np.int32(8)))
"""


def run(*command):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=HERE.parent.parent,
                          env=shim.environment("address") | {"PYTHONPATH": "tests"}, timeout=300)  # fmt: skip


@pytest.mark.slow
def test_kernels_stay_within_their_arrays():
    chosen = [str(HERE / f"test_{name}.py") for name in ("signals", "many_entries")]
    done = run("-m", "pytest", "-q", "-p", "no:xdist", "-m", "not gpu", *chosen)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_an_overrun_is_found():
    done = run("-c", OVERRUN)
    assert done.returncode != 0 and "AddressSanitizer: heap-buffer-overflow" in done.stderr, done.stderr[-3000:]
