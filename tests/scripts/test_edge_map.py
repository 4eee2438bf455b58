"""examples/edge_map.py runs as a user runs it, and prints the numbers of the book."""

import re

from scripts.example import MARKS, assert_one_picture, run_alone

pytestmark = MARKS


def test_the_numbers_of_the_book(tmp_path):
    printed = run_alone("edge_map.py", cwd=tmp_path)
    assert_one_picture(tmp_path, "edge_map.png", 250, 900)
    for number in ("267,960 operations", " 2 weights", "178,640 non-zeros", "8,003,072,000", "16,006,054,680"):
        assert number in printed
    differences = re.findall(r"28\d? x 32\d?, convolution and .* (\S+)$", printed, flags=re.MULTILINE)
    assert len(differences) == 4 and max(map(float, differences)) < 1e-6
