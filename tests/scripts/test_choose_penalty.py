"""examples/choose_penalty.py runs as a user runs it, and its printed claims hold."""

import re

import pytest
from scripts.example import MARKS, assert_one_picture, run

pytestmark = MARKS


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("choose_penalty")
    return folder, run("choose_penalty.py", cwd=folder)


def test_one_picture_is_drawn(example):
    folder, _ = example
    assert_one_picture(folder, "choose_penalty.png", 900, 1200)


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
