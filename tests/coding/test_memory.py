"""Memory beyond input and output does not grow with the number of signals."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux to reset the peak"),
]

MOST = 64  # MB beyond input and output
PROGRAM = """
import sys
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from sparseshare import sparse_encode

kind, algorithm, (n_signals, n_features), folder = sys.argv[1], sys.argv[2], map(int, sys.argv[3:5]), Path(sys.argv[5])


def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


rng = np.random.default_rng(0)
D = rng.standard_normal((256, n_features)).astype(np.float32)
D /= np.linalg.norm(D, axis=1, keepdims=True)
options = {"alpha": 1.0} if algorithm == "lasso_lars" else {"n_nonzero_coefs": 8}
options |= {"algorithm": algorithm, "sparse_output": True}
file = folder / "X.npy"
X = np.lib.format.open_memmap(file, "w+", np.float32, (n_signals, n_features))
for start in range(0, n_signals, 10000):
    block = X[start : start + 10000]
    block[:] = rng.standard_normal((len(block), 3)).astype(np.float32) @ D[:3] + 0.1
X.flush()
del X, block
if kind == "mapped":
    X = np.load(file, mmap_mode="r")
    read = X.nbytes / 2**20  # pages of the file count once they have been read
else:
    X = np.load(file)
    X = csr_array(X) if kind == "csr" else X
    read = 0
sparse_encode(X[:3000], D, **options)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
codes = sparse_encode(X, D, **options)
peak = status("VmHWM")
output = sum(a.nbytes for a in (codes.data, codes.indices, codes.indptr)) / 2**20
dense = codes.shape[0] * codes.shape[1] * 4 / 2**20
print(peak - before - output - read, output, dense)
"""


def extra(kind, algorithm, n_signals, n_features, tmp_path):
    """MB beyond input and output at the peak, in a process of its own."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM, kind, algorithm, str(n_signals), str(n_features), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=root)
    assert result.returncode == 0, result.stderr
    beyond, output, dense = map(float, result.stdout.split())
    assert dense > MOST + output  # else an array of all codes would not be noticed
    return beyond


@pytest.mark.parametrize("algorithm", ["lasso_lars", "omp"])
def test_it_is_small_and_the_same_for_four_times_as_many(algorithm, tmp_path):
    few, many = (extra("array", algorithm, n_signals, 64, tmp_path) for n_signals in (80_000, 320_000))
    assert few < MOST and many < MOST
    assert many - few < 12


@pytest.mark.parametrize("kind", ["csr", "mapped"])
def test_no_dense_or_second_copy_of_the_signals(kind, tmp_path):
    assert extra(kind, "lasso_lars", 200_000, 128, tmp_path) < MOST  # a copy is 98 MB
