"""What takes minutes to find out about kernels, kept in record.json for sources that have not changed since.

Registers and spills of all instances, barriers that are needed, instances that ran under AddressSanitizer. Tests find
out anew what the record does not have; `PYTHONPATH=tests python -m gpu.record` does
that for all families and writes the file.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from gpu import shim

from sparseshare.kernels.gpu import module

HERE = Path(__file__).parent
FILE = HERE / "record.json"
# Tests of the tools; all others launch kernels of the package.
_TOOLS = {
    "test_barriers",
    "test_benchmark",
    "test_compile",
    "test_fake_cupy",
    "test_sanitizer",
    "test_shim",
    "test_without_cupy",
}


def fingerprint(family):
    """Changes with every change of the source."""
    return hashlib.sha256(module.source(family).encode()).hexdigest()[:20]


def files_folder():
    """Where the sources lie."""
    return Path(module.__file__).parent


def kept(family, what):
    """An entry of the record, or None if it is of another source."""
    record = json.loads(FILE.read_text()) if FILE.exists() else {}
    entry = record.get(family, {})
    return entry.get(what) if entry.get("source") == fingerprint(family) else None


def write_what_ran(path):
    """Barriers and instances that the launches of this process have used; called at the end of a run of tests."""
    ran = {}
    for family in module.families():
        code = module.source(family)
        uses = shim.uses_of_barriers(code) if shim.settings.mode == "races" else {}
        ran[family] = {
            "source": fingerprint(family),
            "needed": [line for line, use in uses.items() if use & shim.NEEDED],
            "launched": sorted(shim.launched[code]),
        }
    Path(path).write_text(json.dumps(ran))


def files_of(family):
    """Files whose tests name a family, as kernels are fetched by name or in a comment; all if none does."""
    texts = {path: path.read_text() for path in sorted(HERE.glob("test_*.py")) if path.stem not in _TOOLS}
    for pattern in (rf'"{family}"|gpu\.{family}\b|kernels\.gpu import [^\n]*\b{family}\b', rf"\b{family}\b"):
        found = [path for path, text in texts.items() if re.search(pattern, text)]
        if found:
            return found
    return list(texts)


@cache
def ran_under(mode, file):
    """Run the tests of a file with kernels built in a mode of the shim: what ran, and what went wrong if it did."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "ran.json"
        environment = shim.sanitizer_environment() if mode == "address" else dict(os.environ)
        environment |= {"CUDA_SHIM_MODE": mode, "CUDA_SHIM_RECORD": str(found)}
        environment.pop("PYTEST_XDIST_WORKER", None)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not gpu", "-p", "no:xdist", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1])
        if done.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return {}, f"{file.name}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return json.loads(found.read_text()), None


def _found(family, known, mode, what):
    """Entries of a family in the record, else what its tests show; and what went wrong with them."""
    value = kept(family, known)
    if value is not None:
        return value, None
    together = set()
    for file in files_of(family):
        ran, error = ran_under(mode, file)
        if error:
            return None, error
        together.update(ran[family][what])
    return sorted(together), None


def needed_barriers(family):
    """Lines of the barriers that alone keep two accesses apart in some test, and what went wrong if something did."""
    return _found(family, "needed", "races", "needed")


def sanitized(family):
    """Instances that ran under AddressSanitizer, and what went wrong if something did."""
    return _found(family, "sanitized", "address", "launched")


def renew():
    """Write the record for the sources as they are."""
    from gpu import test_compile

    record = {}
    for family in module.families():
        record[family] = {"source": fingerprint(family)}
        for what, find in (("needed", needed_barriers), ("sanitized", sanitized)):
            value, error = find(family)
            if error:
                raise SystemExit(error)
            record[family][what] = value
        record[family]["compiled"] = {
            architecture: test_compile.result_of(family, architecture) for architecture in test_compile.ARCHITECTURES
        }
        print(family, flush=True)
    FILE.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    renew()
