"""The scripts of examples/ run as a user runs them: in a process of their own, without a warning."""

import re

import pytest
from scripts.example import MARKS, assert_one_picture, run

pytestmark = MARKS


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Where the demo has run, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run("demo.py", cwd=folder)


def test_the_demo_draws_one_picture(demo):
    folder, _ = demo
    assert_one_picture(folder, "demo.png", 600, 1000)


def test_the_demo_prints_its_table(demo):
    _, printed = demo
    for what in ("kernels compiled", "256 atoms learned", "image coded", "penalties, in one pass", "digits", "picture"):
        # What, figure and seconds, in columns.
        assert re.search(rf"^.{{0,39}}{what}.* {{2,}}\S.* +\d+\.\d$", printed, flags=re.MULTILINE), what
    assert printed.count("epoch") == 4


def test_the_demo_learns_something(demo):
    _, printed = demo
    variance = float(re.search(r"explain ([\d.]+)%", printed)[1])
    pixels, codes = (float(share) for share in re.findall(r"([\d.]+)% right", printed))
    assert variance > 85
    assert codes > pixels + 2


def test_algorithms_are_compared(tmp_path):
    rows = run("compare_algorithms.py", "200", cwd=tmp_path).splitlines()
    assert rows[0] == "| request | time | non-zeros | error |"
    assert sum(row.startswith("| `algorithm=") for row in rows) == 12
