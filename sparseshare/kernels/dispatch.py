"""Fetch the kernels of a family on the device where they shall run; nothing is compiled before that."""

from functools import cache
from importlib import import_module

import numpy as np


@cache
def kernels_for(device, family):
    """Kernels of a family, for example `kernels_for("cpu", "pursuit").omp_tile`.

    Parameters
    ----------
    device : str
        "cpu", or "cuda" with or without a number, as `resolve_device` returns it.
    family : str
        File name of the kernels; both devices use the same names.

    Returns
    -------
    module
    """
    room = "cpu" if device == "cpu" else "gpu"
    return import_module(f"sparseshare.kernels.{room}.{family}")


def plain(array, dtype=None):
    """An array as kernels of the CPU are given them: in C order and writable, a copy if need be.

    They are compiled once for every type of their arguments, and an array that cannot be written to is another type.
    """
    return np.require(array, dtype, ("C", "W", "E"))
