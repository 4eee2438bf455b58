"""examples/choose_penalty.py runs as a user runs it, and its printed claims hold."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparseshare

SCRIPT = Path(__file__).parents[1] / "examples" / "choose_penalty.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SCRIPT.is_file(), reason="an installed package has no examples beside it"),
]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("choose_penalty")
    environment = os.environ | {"PYTHONPATH": str(Path(sparseshare.__file__).parents[1])}
    command = [sys.executable, "-W", "error", SCRIPT]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_one_picture_is_drawn(example):
    from matplotlib.image import imread

    folder, _ = example
    assert [path.name for path in folder.iterdir()] == ["choose_penalty.png"]
    picture = imread(folder / "choose_penalty.png")
    assert picture.shape[0] > 900 and picture.shape[1] > 1200
    assert picture[..., :3].std() > 0.1  # not a blank page


def test_lost_pixels_agree_with_held_out_ones(example):
    _, printed = example
    chosen, best = (float(error) for error in re.findall(r"error of lost pixels ([\d.]+)", printed))
    assert best <= chosen <= 1.05 * best
    quality = {name: float(value) for name, value in re.findall(r"(\w+) +penalty: filled in to ([\d.]+) dB", printed)}
    assert quality["chosen"] > quality["smallest"] + 1 and quality["chosen"] > quality["largest"] + 1


def test_the_table_shows_the_trap(example):
    _, printed = example
    rows = re.findall(
        r"^\[SparseCoderCV\] +([\d.]+) +([\d.]+) +[\d.]+ +([\d.]+) +[\d.]+( +<-)?$", printed, re.MULTILINE
    )
    alphas, unseen, seen = ([float(row[column]) for row in rows] for column in range(3))
    assert len(rows) == 16 and seen.index(min(seen)) == alphas.index(min(alphas))
    assert 0 < unseen.index(min(unseen)) < 15
