"""The cache of compiled kernels: used, shared, safe where it cannot be written, and stale for nobody."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sparseshare

pytestmark = pytest.mark.slow

USE = """
import numpy as np
from sparseshare.kernels.cpu.signals import spread_tile

one, out = np.ones(1, np.int32), np.zeros((1, 3))
spread_tile(np.array([[2, 0]], np.int32), np.array([[1.5, 7.0]]), one, one, np.full(3, 2.0), out)
assert out.tolist() == [[0.0, 0.0, 6.0]]
hits, misses = (sum(counter.values()) for counter in (spread_tile.stats.cache_hits, spread_tile.stats.cache_misses))
print(hits, misses)
"""


def start(program, folder, **environment):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"} | {k: str(v) for k, v in environment.items()}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.split()


def use(folder, **environment):
    """Hits and misses of the cache in a new process."""
    return tuple(map(int, finish(start(USE, folder, **environment))))


@pytest.fixture
def copy(tmp_path):
    """The kernels of the package alone, whose import takes a second less, nothing compiled; the folder to run in."""
    source, kernels = Path(sparseshare.__file__).parent / "kernels", tmp_path / "site" / "sparseshare" / "kernels"
    shutil.copytree(source / "cpu", kernels / "cpu", ignore=shutil.ignore_patterns("__pycache__"))
    for room in (kernels, kernels.parent):
        (room / "__init__.py").touch()
    return tmp_path / "site"


def test_a_folder_can_be_named_and_shared_by_processes_that_start_at_once(copy, tmp_path):
    cache = tmp_path / "cache"
    for process in [start(USE, copy, NUMBA_CACHE_DIR=cache) for _ in range(3)]:
        hits, misses = map(int, finish(process))
        assert hits + misses == 1
    assert use(copy, NUMBA_CACHE_DIR=cache) == (1, 0)


def test_an_install_that_cannot_be_written_uses_the_user_s_cache(copy, tmp_path):
    (copy / "sparseshare" / "kernels" / "cpu" / "__pycache__").write_text("in the way")  # permissions do not stop root
    home = {"HOME": tmp_path / "home", "XDG_CACHE_HOME": tmp_path / "home" / "cache"}
    assert use(copy, **home) == (0, 1)
    assert use(copy, **home) == (1, 0)


def test_without_any_place_to_write_kernels_compile_in_every_process(copy, tmp_path):
    (copy / "sparseshare" / "kernels" / "cpu" / "__pycache__").write_text("in the way")
    (tmp_path / "home").write_text("in the way")
    home = {"HOME": tmp_path / "home", "XDG_CACHE_HOME": tmp_path / "home" / "cache"}
    use(copy, **home, NUMBA_CACHE_DIR=tmp_path / "home" / "kernels")


def test_a_kernel_compiles_once_and_again_for_an_edited_helper(copy):
    kernels = copy / "sparseshare" / "kernels" / "cpu"
    (kernels / "probe.py").write_text(
        "from .duality import rounding_level\nfrom .jit import kernel\n\n\n"
        "@kernel\ndef probe(x):\n    return rounding_level(x)\n"
    )
    program = (
        "import numpy as np\nfrom sparseshare.kernels.cpu.probe import probe\n"
        "print(float(probe(np.zeros(1))))\n"
        "print(*(sum(counter.values()) for counter in (probe.stats.cache_hits, probe.stats.cache_misses)))"
    )
    assert finish(start(program, copy)) == ["1.8e-15", "0", "1"]
    assert list((kernels / "__pycache__").glob("probe.probe*.nbc"))
    assert finish(start(program, copy)) == ["1.8e-15", "1", "0"]
    helper = kernels / "duality.py"
    source = helper.read_text()
    assert "1.8e-15" in source
    helper.write_text(source.replace("1.8e-15", "2.5e-15"))
    assert finish(start(program, copy)) == ["2.5e-15", "0", "1"]
