"""examples/classify_digits.py runs as a user runs it: in a process of its own, without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparseshare

SCRIPT = Path(__file__).parents[1] / "examples" / "classify_digits.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SCRIPT.exists(), reason="an installed package has no examples beside it"),
]


def test_digits_are_classified_and_drawn(tmp_path):
    from matplotlib.image import imread

    environment = os.environ | {"PYTHONPATH": str(Path(sparseshare.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["classify_digits.png"]
    picture = imread(tmp_path / "classify_digits.png")
    assert picture.shape[0] > 400 and picture.shape[1] > 1000 and picture[..., :3].std() > 0.1
    assert done.stdout.count("<- chosen") == 1
    sparse, pixels = (
        float(share) for share in re.search(r"([\d.]+)% right from .* ([\d.]+)% from", done.stdout).groups()
    )
    assert sparse > 98 and sparse > pixels + 3
