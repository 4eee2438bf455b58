"""The package works where CuPy is missing, broken or without a driver; what was fitted on a GPU loads there."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sparseshare import MiniBatchDictionaryLearning, SparseCoder, sparse_encode

ROOT = Path(__file__).parents[2]
# What stands in for CuPy in another process.
MISSING = """
import sys
class WithoutCupy:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in ("cupy", "cupyx") else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [WithoutCupy(finder) for finder in sys.meta_path]
"""
BROKEN = """
import sys, types
cupy = types.ModuleType("cupy")
class CUDARuntimeError(RuntimeError): pass
def count(): raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=count))
cupy.__spec__ = types.SimpleNamespace()
sys.modules["cupy"] = cupy
"""
WORK = """
import json, sys
import numpy as np
import sparseshare
from sparseshare import sparse_encode
D, X = np.eye(4, 5) + 0.1, np.ones((3, 5))
def refused():
    errors = []
    for device in ("cuda", "cuda:1"):
        try:
            sparse_encode(X, D, algorithm="omp", n_nonzero_coefs=1, device=device)
        except RuntimeError as error:
            errors.append(str(error))
    return errors
"""
REPORT = """
codes = sparse_encode(X, D, algorithm="threshold", alpha=0.1)
print(json.dumps({"shape": codes.shape, "errors": refused(),
                  "imported": sorted(n for n in sys.modules if n.partition(".")[0] in ("cupy", "cupyx"))}))
"""


def run_elsewhere(code):
    """What a program prints as JSON in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_cupy_is_missing():
    result = run_elsewhere(MISSING + WORK + REPORT)
    assert result["shape"] == [3, 4] and result["imported"] == []
    assert len(result["errors"]) == 2
    for error in result["errors"]:
        assert "needs a GPU: CuPy is not installed, pip install 'sparseshare[cuda12]'" in error


def test_cupy_without_a_gpu():
    """Neither without a driver nor, later, with one that has no device."""
    both = """
without_driver = refused()
cupy.cuda.runtime.getDeviceCount = lambda: 0
print(json.dumps({"cudaErrorInsufficientDriver": without_driver, "CuPy sees 0": refused()}))
"""
    for reason, errors in run_elsewhere(BROKEN + WORK + both).items():
        assert len(errors) == 2
        for error in errors:
            assert "needs a GPU" in error and reason in error


def test_the_installed_cupy_is_not_imported_for_work_on_the_cpu():
    pytest.importorskip("cupy")
    assert run_elsewhere(WORK + REPORT.replace("refused()", "[]"))["imported"] == []


@pytest.fixture
def fitted(gpu, rng):
    """Estimators that hold device arrays."""
    X = gpu.asarray(rng.standard_normal((40, 6)).astype(np.float32))
    learner = MiniBatchDictionaryLearning(n_components=5, max_iter=2, batch_size=20, random_state=0).fit(X)
    return X, {"learner": learner, "coder": SparseCoder(dictionary=learner.components_, transform_n_nonzero_coefs=2)}


def test_what_was_fitted_on_a_gpu_loads_without_one(gpu, fitted, tmp_path):
    X, estimators = fitted
    for name, estimator in estimators.items():
        (tmp_path / name).write_bytes(pickle.dumps(estimator))
    np.save(tmp_path / "X.npy", gpu.get(X))
    code = (
        MISSING
        + f"""
import json, pickle
from pathlib import Path
import numpy as np
folder, found = Path({str(tmp_path)!r}), {{}}
for name in {list(estimators)}:
    codes = pickle.loads((folder / name).read_bytes()).transform(np.load(folder / "X.npy"))
    found[name] = type(codes).__module__, np.asarray(codes).tolist()
print(json.dumps(found))
"""
    )
    found = run_elsewhere(code)
    for name, estimator in estimators.items():
        module, codes = found[name]
        assert module == "numpy"
        np.testing.assert_allclose(codes, gpu.get(estimator.transform(X)), rtol=1e-4, atol=1e-5)


def test_mixed_arrays_are_refused(gpu, rng):
    X, D = rng.standard_normal((4, 6)), np.eye(5, 6)
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        sparse_encode(gpu.asarray(X), D, algorithm="lasso", alpha=0.1)
    with pytest.raises(RuntimeError, match="device='cpu' was asked for, but an array lives on a GPU"):
        sparse_encode(gpu.asarray(X), gpu.asarray(D), algorithm="lasso", alpha=0.1, device="cpu")


def test_a_gpu_that_is_required_is_not_skipped(request, monkeypatch):
    plugins = request.config.pluginmanager.get_plugins()
    (settings,) = (plugin for plugin in plugins if hasattr(plugin, "gpu_problem"))
    monkeypatch.setattr(settings, "gpu_problem", lambda: "no device")
    assert request.config.getoption("--require-gpu") in (False, True)
    required = SimpleNamespace(getoption={"--require-gpu": True}.get)
    with pytest.raises(pytest.UsageError, match="--require-gpu: no device"):
        settings.pytest_collection_modifyitems(required, [])
