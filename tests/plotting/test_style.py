"""matplotlib is asked for when a picture is drawn, and by a sentence when it is not there."""

import subprocess
import sys
from pathlib import Path

import sparseshare

WITHOUT = """
import sys
sys.modules["matplotlib"] = None
import numpy as np
from sparseshare.plotting import (
    ActivationsDisplay, AtomsDisplay, LossCurveDisplay, ReconstructionDisplay, SparsityPathDisplay
)
for draw in [
    lambda: AtomsDisplay.from_codes(np.ones((2, 4))),
    lambda: ReconstructionDisplay.from_codes(np.ones(4), np.ones(2), np.ones((2, 4))),
    lambda: SparsityPathDisplay([1, 2], [2, 1]).plot(),
    lambda: LossCurveDisplay({"a": [1]}).plot(),
    lambda: ActivationsDisplay.from_codes(np.ones((2, 4))),
]:
    try:
        draw()
    except ImportError as error:
        print(error)
"""


def test_without_matplotlib():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True,
        cwd=Path(sparseshare.__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.splitlines() == ['pictures are drawn by matplotlib: pip install "sparseshare[plot]"'] * 5
