"""Scripts of examples/ run without a warning: one in a process of its own as a user runs it, the others in this one."""

import os
import runpy
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

import sparseshare

EXAMPLES = Path(__file__).parents[2] / "examples"
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="an installed package has no examples beside it"),
]


def run(script, *arguments, cwd):
    """What a script prints, run as `__main__`; pytest makes its warnings errors."""
    from matplotlib import pyplot, rc_context

    path, printed = str(EXAMPLES / script), StringIO()
    before = sys.argv
    sys.argv = [path, *arguments]
    try:
        with chdir(cwd), redirect_stdout(printed), rc_context():
            runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv = before
        pyplot.close("all")
    return printed.getvalue()


def run_alone(script, *arguments, cwd):
    """What a script prints in a process of its own: imports, too, go without a warning."""
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
