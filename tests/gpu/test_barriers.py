"""No two threads race, nothing is touched out of bounds, no barrier is idle: by the shim, in tests marked `races`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gpu import shim

from sparseshare.kernels.gpu import module

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shim.shim_problem() is not None, reason=str(shim.shim_problem())),
]
KEPT = "// kept: "  # on the line of a barrier that no race shows to be needed, with the reason


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the tests marked `races` launch, and which barriers alone keep two accesses apart in one of them."""
    found = tmp_path_factory.mktemp("races") / "ran.json"
    environment = shim.environment("races") | {"CUDA_SHIM_RAN": str(found)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "races and not gpu", "-p", "no:xdist", "tests/gpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-4000:]}"
    return json.loads(found.read_text())


@pytest.mark.parametrize("family", module.families())
def test_each_kernel_is_looked_at(ran, family):
    """For races, reads of shared memory that nobody has written, overruns and undefined behaviour."""
    launched = {expression.partition("<")[0] for expression in ran[family]["launched"]}
    missing = set(module.signatures(family)) - launched
    assert not missing, f"{family}.cu: no test marked `races` launches {sorted(missing)}"


def silent_barriers(family):
    """Lines, with the file they are in, of barriers that return nothing: votes are there for what they return."""
    folder, text = Path(module.__file__).parent, module.source(family)
    owner = []
    for name in module.parts(family):
        owner += [(name, number) for number in range(1, 1 + (folder / name).read_text().count("\n"))]
    lines = text.splitlines()
    return {
        number: owner[number - 1]
        for number, line in shim.barriers(text).items()
        if KEPT not in lines[number - 1] and any(f"{name}(" in line for name in ("__syncthreads", "__syncwarp"))
    }


def test_each_barrier_keeps_something_apart(ran):
    """Without it two threads of some launch would race; of files that families share, in one family at least."""
    there, needed = set(), set()
    for family in module.families():
        barriers = silent_barriers(family)
        there.update(barriers.values())
        needed.update(barriers[number] for number in ran[family]["needed"] if number in barriers)
    idle = sorted(there - needed)
    assert not idle, f"nothing shows that these barriers are needed: {idle}"
