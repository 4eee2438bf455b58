"""The example of a photograph with noise runs as a user runs it, and says what it reaches."""

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
    folder = tmp_path_factory.mktemp("denoise")
    environment = os.environ | {"PYTHONPATH": str(Path(sparseshare.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "denoise_photo.py"], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_one_picture(done):
    from matplotlib.image import imread

    folder, _ = done
    assert [path.name for path in folder.iterdir()] == ["denoise_photo.png"]
    picture = imread(folder / "denoise_photo.png")
    assert picture.shape[0] > 400 and picture.shape[1] > 1400
    assert picture[..., :3].std() > 0.1  # not a blank page


def test_noise_is_estimated_and_removed(done):
    _, printed = done
    estimate = float(re.search(r"estimated as ([\d.]+)", printed)[1])
    noisy, cosines, learned = (float(value) for value in re.findall(r"([\d.]+) dB", printed))
    assert 24 < estimate < 27
    assert noisy + 10 < cosines < learned - 0.5
