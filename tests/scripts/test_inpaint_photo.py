"""The example of a photograph with holes runs as a user runs it, and says what it reaches."""

import re

import pytest
from scripts.example import MARKS, assert_one_picture, run

pytestmark = MARKS


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("inpaint")
    return folder, run("inpaint_photo.py", cwd=folder)


def test_one_picture(done):
    folder, _ = done
    assert_one_picture(folder, "inpaint_photo.png", 600, 1200)


def test_holes_are_filled_no_worse_than_smoothly(done):
    _, printed = done
    pairs = re.findall(r"biharmonic ([\d.]+) dB, sparse codes ([\d.]+) dB", printed)
    assert len(pairs) == 2
    for smooth, sparse in pairs:
        assert float(sparse) > float(smooth)
