"""The example of two stains runs as a user runs it, and finds colours like those in the literature."""

import re

import pytest
from scripts.example import MARKS, assert_one_picture, run

pytestmark = MARKS


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("stains")
    return folder, run("separate_stains.py", cwd=folder)


def test_one_picture(done):
    folder, _ = done
    assert_one_picture(folder, "separate_stains.png", 600, 1000)


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
