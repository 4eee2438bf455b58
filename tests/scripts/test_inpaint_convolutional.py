"""The example of photographs filled in with shared atoms runs as a user runs it, and says what it reaches."""

import re

import pytest
from scripts.example import MARKS, assert_one_picture, run

pytestmark = MARKS


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("inpaint")
    return folder, run("inpaint_convolutional.py", cwd=folder)


def test_one_picture(done):
    folder, _ = done
    assert_one_picture(folder, "inpaint_convolutional.png", 600, 1200)


def test_repeated_structure_is_filled_better_than_smoothly(done):
    _, printed = done
    values = re.findall(r"^(\w+) .*mean ([\d.]+) dB, biharmonic ([\d.]+) dB, shared atoms ([\d.]+) dB", printed, re.M)
    reached = {name: tuple(map(float, decibels)) for name, *decibels in values}
    assert set(reached) == {"brick", "camera"}
    for mean, biharmonic, shared in reached.values():
        assert shared > mean + 10
        assert shared > biharmonic - 0.5
    assert reached["brick"][2] > reached["brick"][1] + 1
