"""The example of a photograph with holes runs as a user runs it, and says what it reaches."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparseshare

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="an installed package has no examples beside it"),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("inpaint")
    environment = os.environ | {"PYTHONPATH": str(Path(sparseshare.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "inpaint_photo.py"], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_one_picture(done):
    from matplotlib.image import imread

    folder, _ = done
    assert [path.name for path in folder.iterdir()] == ["inpaint_photo.png"]
    picture = imread(folder / "inpaint_photo.png")
    assert picture.shape[0] > 600 and picture.shape[1] > 1200
    assert picture[..., :3].std() > 0.1  # not a blank page


def test_holes_are_filled_no_worse_than_smoothly(done):
    _, printed = done
    pairs = re.findall(r"biharmonic ([\d.]+) dB, sparse codes ([\d.]+) dB", printed)
    assert len(pairs) == 2
    for smooth, sparse in pairs:
        assert float(sparse) > float(smooth)
