"""`import sparseshare` is light: heavy libraries, and networks, wait for their first use."""

import os
import subprocess
import sys

import pytest

HEAVY = ("numba", "llvmlite", "cupy", "dask", "distributed", "matplotlib")


def fresh(code):
    """What a new interpreter prints, with bytecode on disk, as an installed package has it."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def loaded():
    """Modules that the import loads."""
    return fresh("import sys, sparseshare; print(*sys.modules)").split()


def test_nothing_heavy_is_loaded(loaded):
    assert "sparseshare" in loaded
    assert not set(HEAVY) & set(loaded)


def test_networks_come_when_asked_for(loaded):
    assert "sparseshare.network" not in loaded
    import sparseshare

    assert sparseshare.DeepSparseClassifier is sparseshare.network.DeepSparseClassifier
    assert {"network", *sparseshare.__all__} <= set(dir(sparseshare))
    assert all(hasattr(sparseshare, name) for name in sparseshare.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Dense'"):
        sparseshare.Dense  # noqa: B018


@pytest.mark.slow
def test_cost_beyond_the_parts_of_scikit_learn(loaded):
    code = f"""
import importlib, time
for name in {[name for name in loaded if name.startswith("sklearn")]!r}:
    importlib.import_module(name)
start = time.process_time()  # another process beside this one counts for nothing
import sparseshare
print(time.process_time() - start)
"""
    assert any(float(fresh(code)) <= 0.1 for _ in range(5))  # once at rest says that it can be done
