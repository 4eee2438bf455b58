"""Fetch the kernels of a family on the device where they shall run; nothing is compiled before that."""

from functools import cache
from importlib import import_module


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
