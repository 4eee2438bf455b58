"""`import sparseshare` is light: heavy libraries wait for their first use."""

import os
import subprocess
import sys

import pytest

HEAVY = ("numba", "llvmlite", "cupy", "dask", "distributed", "matplotlib")


def fresh(code, **environment):
    """What a new interpreter prints."""
    environment = os.environ | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_heavy_is_loaded():
    loaded = fresh("import sys, sparseshare; print(*sys.modules)").split()
    assert "sparseshare" in loaded
    assert not set(HEAVY) & set(loaded)


@pytest.mark.slow
def test_cost_beyond_the_parts_of_scikit_learn(tmp_path):
    # With bytecode on disk, as an installed package has it, whatever the environment says.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    needed = fresh("import sys, sparseshare; print(*(name for name in sys.modules if name.startswith('sklearn')))")
    code = f"""
import importlib, time
for name in {needed.split()!r}:
    importlib.import_module(name)
start = time.process_time()  # another process beside this one counts for nothing
import sparseshare
print(time.process_time() - start)
"""
    assert min(float(fresh(code, **bytecode)) for _ in range(5)) <= 0.1
