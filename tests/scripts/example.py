"""Scripts of examples/ run as a user runs them: in a process of their own, without a warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sparseshare

EXAMPLES = Path(__file__).parents[2] / "examples"
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="an installed package has no examples beside it"),
]


def run(script, *arguments, cwd):
    """What a script prints."""
    command = [sys.executable, "-W", "error", EXAMPLES / script, *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(sparseshare.__file__).parents[1])}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_one_picture(folder, name, height, width):
    """The folder holds one file, a picture of at least this size that is no blank page."""
    from matplotlib.image import imread

    assert [path.name for path in folder.iterdir()] == [name]
    picture = imread(folder / name)
    assert picture.shape[0] > height and picture.shape[1] > width
    assert picture[..., :3].std() > 0.1
