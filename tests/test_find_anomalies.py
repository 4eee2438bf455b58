"""The example of spots on a wall runs as a user runs it, finds them, and says where the method fails."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparseshare

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="an installed package has no examples beside it"),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where the example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("anomalies")
    environment = os.environ | {"PYTHONPATH": str(Path(sparseshare.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "find_anomalies.py"], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_one_picture(done):
    from matplotlib.image import imread

    folder, _ = done
    assert [path.name for path in folder.iterdir()] == ["find_anomalies.png"]
    picture = imread(folder / "find_anomalies.png")
    assert picture.shape[0] > 350 and picture.shape[1] > 1200 and picture[..., :3].std() > 0.1


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
