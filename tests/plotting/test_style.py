"""matplotlib is asked for when a picture is drawn, and by a sentence when it is not there."""

import subprocess
import sys
from pathlib import Path

import pytest

import sparseshare

WITHOUT = """
import sys
sys.modules["matplotlib"] = None
import numpy as np
from sparseshare.plotting import {name}
try:
    {call}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "call",
    [
        "AtomsDisplay.from_codes(np.ones((2, 4)))",
        "ReconstructionDisplay.from_codes(np.ones(4), np.ones(2), np.ones((2, 4)))",
        "SparsityPathDisplay([1, 2], [2, 1]).plot()",
        "LossCurveDisplay({'a': [1]}).plot()",
        "ActivationsDisplay.from_codes(np.ones((2, 4)))",
    ],
)
def test_without_matplotlib(call):
    code = WITHOUT.format(name=call.split(".")[0].split("(")[0], call=call)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(sparseshare.__file__).parents[1],
    )
    assert done.stdout.strip() == 'pictures are drawn by matplotlib: pip install "sparseshare[plot]"'
