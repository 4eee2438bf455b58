"""Kernels are found by device and family, and only when asked for."""

import pytest

from sparseshare.kernels import cpu
from sparseshare.kernels.dispatch import kernels_for


def test_the_room_of_the_device_is_searched():
    module = kernels_for("cpu", "thresholding")
    assert module.__name__ == f"{cpu.__name__}.thresholding"
    assert kernels_for("cpu", "thresholding") is module


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_a_missing_family_says_where_it_was_looked_for(device):
    room = "cpu" if device == "cpu" else "gpu"
    with pytest.raises(ModuleNotFoundError, match=f"sparseshare.kernels.{room}"):
        kernels_for(device, "no_such_family")
