"""Where to compute: decided by the argument `device` and by the type of the arrays, without importing CuPy."""

import re
from importlib.util import find_spec


def resolve_device(device, *arrays):
    """Device on which to compute.

    Parameters
    ----------
    device : str
        "auto" follows the arrays: NumPy and everything that becomes NumPy means the CPU, CuPy its GPU. "cpu", "cuda"
        and "cuda:N" ask for one.
    *arrays : array-likes
        Signals, dictionary, whatever takes part. None is skipped.

    Returns
    -------
    str
        "cpu": this version has no kernels for another device.

    Raises
    ------
    ValueError
        If the name of the device is unknown.
    RuntimeError
        If a GPU is asked for; the message says what is missing.
    """
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(
            f"The 'device' parameter must be 'auto', 'cpu', 'cuda' or 'cuda:N' (N a number), got {device!r}"
        )
    on_gpu = any(_lives_on_gpu(array) for array in arrays)
    if device == "cpu" and on_gpu:
        raise RuntimeError("device='cpu' was asked for, but an array lives on a GPU: move it over with its get()")
    if device in ("auto", "cpu") and not on_gpu:
        return "cpu"
    request = f"device={device!r}" + (" with CuPy arrays" if on_gpu else "")
    raise RuntimeError(f"{request} needs a GPU: {_what_is_missing(device)}")


def _lives_on_gpu(array):
    return type(array).__module__.partition(".")[0] in ("cupy", "cupyx")


def _what_is_missing(device):
    if find_spec("cupy") is None:
        return "CuPy is not installed, pip install 'sparseshare[cuda12]' or 'sparseshare[cuda13]' brings it"
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # a missing driver, a broken library, a version conflict: all the user's to hear about
        return f"CuPy is installed but finds no usable driver or device ({type(error).__name__}: {error})"
    number = int(device.partition(":")[2] or 0)
    if number >= count:
        return f"there is no device number {number}, CuPy sees {count}"
    return "this version of sparseshare has kernels for the CPU only, use device='cpu' and NumPy arrays"
