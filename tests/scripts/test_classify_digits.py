"""examples/classify_digits.py runs as a user runs it."""

import re

from scripts.example import MARKS, assert_one_picture, run

pytestmark = MARKS


def test_digits_are_classified_and_drawn(tmp_path):
    printed = run("classify_digits.py", cwd=tmp_path)
    assert_one_picture(tmp_path, "classify_digits.png", 400, 1000)
    assert printed.count("<- chosen") == 1
    sparse, pixels = (float(share) for share in re.search(r"([\d.]+)% right from .* ([\d.]+)% from", printed).groups())
    assert sparse > 98 and sparse > pixels + 3
