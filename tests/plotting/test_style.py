"""matplotlib is asked for by a sentence when it is not there; that importing needs none, tests/test_import.py says."""

import sys

import numpy as np
import pytest

from sparseshare.plotting import (
    ActivationsDisplay,
    AtomsDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    SparsityPathDisplay,
)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: AtomsDisplay.from_codes(np.ones((2, 4))),
        lambda: ReconstructionDisplay.from_codes(np.ones(4), np.ones(2), np.ones((2, 4))),
        lambda: SparsityPathDisplay([1, 2], [2, 1]).plot(),
        lambda: LossCurveDisplay({"a": [1]}).plot(),
        lambda: ActivationsDisplay.from_codes(np.ones((2, 4))),
    ],
    ids=["atoms", "reconstruction", "path", "loss", "activations"],
)
def test_without_matplotlib(draw, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as caught:
        draw()
    assert str(caught.value) == 'pictures are drawn by matplotlib: pip install "sparseshare[plot]"'
