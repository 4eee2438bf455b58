"""The example of spots on a wall runs as a user runs it, finds them, and says where the method fails."""

import re

import pytest
from scripts.example import MARKS, assert_one_picture, run

pytestmark = MARKS


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("anomalies")
    return folder, run("find_anomalies.py", cwd=folder)


def test_one_picture(done):
    folder, _ = done
    assert_one_picture(folder, "find_anomalies.png", 350, 1200)


def test_spots_are_found_on_bricks_alone(done):
    _, printed = done
    areas = {name: float(area) for name, area in re.findall(r"^(\w+, [\w ]+?) +([01]\.\d+)$", printed, re.MULTILINE)}
    assert list(areas) == [
        "bricks, sparse error", "bricks, PCA error", "bricks, contrast", "gravel, spots of brick",
        "grass, spots of brick",
    ]  # fmt: skip
    assert areas["bricks, sparse error"] > 0.97
    assert areas["bricks, sparse error"] > areas["bricks, PCA error"] + 0.02 > areas["bricks, contrast"] + 0.2
    assert areas["gravel, spots of brick"] < 0.5 and areas["grass, spots of brick"] < 0.5
    found, wrong = (float(share) for share in re.search(r"([\d.]+)% of the spots, ([\d.]+)% of", printed).groups())
    assert found > 90 and wrong < 10
