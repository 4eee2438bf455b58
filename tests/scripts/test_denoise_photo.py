"""The example of a photograph with noise runs as a user runs it, and says what it reaches."""

import re

import pytest
from scripts.example import MARKS, assert_one_picture, run

pytestmark = MARKS


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("denoise")
    return folder, run("denoise_photo.py", cwd=folder)


def test_one_picture(done):
    folder, _ = done
    assert_one_picture(folder, "denoise_photo.png", 400, 1400)


def test_noise_is_estimated_and_removed(done):
    _, printed = done
    estimate = float(re.search(r"estimated as ([\d.]+)", printed)[1])
    noisy, cosines, learned = (float(value) for value in re.findall(r"([\d.]+) dB", printed))
    assert 24 < estimate < 27
    assert noisy + 10 < cosines < learned - 0.5
