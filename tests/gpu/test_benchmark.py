"""The benchmark of the GPU runs through on the fake CuPy, so that it is ready when there is a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gpu import shim

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shim.shim_problem() is not None, reason=str(shim.shim_problem())),
]


def run(*arguments):
    environment = shim.environment() | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_every_row_runs(tmp_path):
    path = tmp_path / "gpu.json"
    done = run("--shim", "--output", str(path))
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert set(result["rows"]) == {
        "omp", "lasso_256", "lasso_1024", "fista_iteration", "convolution", "learning", "network"
    }  # fmt: skip
    assert all(row["seconds"] > 0 for row in result["rows"].values())
    assert all(rate > 0 for rate in result["ceilings"].values()) and result["environment"]["cupy"]
    missed = {name: check for name, check in result["correctness"].items() if not check["met"]}
    assert not missed


def test_what_is_missing_is_said():
    done = run("--rows", "nothing")
    assert done.returncode == 2 and "unknown rows ['nothing']" in done.stderr
