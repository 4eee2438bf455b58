"""The example of two stains runs as a user runs it, and finds colours like those in the literature."""

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
    folder = tmp_path_factory.mktemp("stains")
    environment = os.environ | {"PYTHONPATH": str(Path(sparseshare.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "separate_stains.py"], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_one_picture(done):
    from matplotlib.image import imread

    folder, _ = done
    assert [path.name for path in folder.iterdir()] == ["separate_stains.png"]
    picture = imread(folder / "separate_stains.png")
    assert picture.shape[0] > 600 and picture.shape[1] > 1000 and picture[..., :3].std() > 0.1


def test_the_colours_are_those_of_the_stains(done):
    _, printed = done
    rows = {
        float(penalty): [float(angle) for angle in angles.split()]
        for penalty, angles in re.findall(r"^penalty ([\d.]+) +((?:[\d.]+ *){3})$", printed, flags=re.MULTILINE)
    }
    assert list(rows) == [0.005, 0.02, 0.1]
    nuclei, protein = (float(angle) for angle in re.search(r"no separation +([\d.]+) +([\d.]+)", printed).groups())
    assert rows[0.005][0] < 10 and rows[0.005][1] < 7 and rows[0.02][0] < 12 and rows[0.02][1] < 7
    assert rows[0.02][0] < nuclei / 2 and rows[0.02][1] < protein
    assert rows[0.005][2] > rows[0.02][2] > rows[0.1][2]  # a penalty draws the colours together


def test_the_stains_are_apart(done):
    _, printed = done
    assert float(re.search(r"leave ([\d.]+)% of the squared density", printed)[1]) < 1
    assert abs(float(re.search(r"correlation of the two concentrations: (-?[\d.]+)", printed)[1])) < 0.3
