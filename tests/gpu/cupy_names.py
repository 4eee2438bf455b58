"""What CuPy has: names and arguments of its public functions, written to cupy_names.json for the fake to be checked by.

Run with a CuPy installed (no GPU is needed): python tests/gpu/cupy_names.py
"""

import inspect
import json
import re
from importlib import import_module
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
MODULES = (
    "cupy", "cupy.cuda", "cupy.cuda.runtime", "cupy.fft", "cupy.lib.stride_tricks", "cupy.linalg", "cupy.random",
    "cupyx", "cupyx.scipy", "cupyx.scipy.fft", "cupyx.scipy.linalg", "cupyx.scipy.ndimage", "cupyx.scipy.signal",
    "cupyx.scipy.sparse", "cupyx.scipy.special",
)  # fmt: skip
CLASSES = (
    "cupy.ndarray", "cupy.RawModule", "cupy.cuda.Device", "cupy.cuda.Event", "cupy.cuda.MemoryPool", "cupy.cuda.Stream",
    "cupy.random.Generator", "cupy.random.RandomState", "cupy.ufunc", "cupyx.scipy.sparse.csc_matrix",
    "cupyx.scipy.sparse.csr_matrix",
)  # fmt: skip
_EXPLICIT = {  # functions whose arguments only the source shows
    "cupy.RawModule.__init__": "(self, code=None, *, path=None, options=(), backend='nvrtc', "
    "translate_cucomplex=False, enable_cooperative_groups=False, name_expressions=None, jitify=False)",
}


def _arguments(thing, name):
    """[[name, kind, has a default], ...] of a function, or None where nobody knows."""
    try:
        if name in _EXPLICIT:
            signature = eval(f"lambda {_EXPLICIT[name][1:-1]}: 0")
            signature = inspect.signature(signature)
        else:
            signature = inspect.signature(thing)
    except (TypeError, ValueError):
        first = (getattr(thing, "__doc__", None) or "").partition("\n")[0]
        match = re.fullmatch(r"[\w.]+\((.*)\)(?: -> .*)?", first)
        if match is None:
            return None
        try:  # Cython writes types before the names
            words = re.sub(r"\b(?:unsigned |size_t |int |bint |tuple |Py_ssize_t |str |double )+(?=\w)", "", match[1])
            signature = inspect.signature(eval(f"lambda {words}: 0"))
        except (SyntaxError, NameError):
            return None
    return [
        [parameter.name, int(parameter.kind), parameter.default is not parameter.empty]
        for parameter in signature.parameters.values()
    ]


def collect():
    """Names of modules and classes with their arguments ("ufunc" for element-wise functions)."""
    import cupy

    found = {"version": cupy.__version__}
    for place in MODULES + CLASSES:
        try:
            thing = import_module(place)
        except ImportError:
            module, _, name = place.rpartition(".")
            thing = getattr(import_module(module), name)
        names = {}
        for name in dir(thing):
            if name.startswith("_") and (not inspect.isclass(thing) or not re.fullmatch(r"__\w+__", name)):
                continue
            value = inspect.getattr_static(thing, name) if inspect.isclass(thing) else getattr(thing, name)
            value = getattr(value, "__func__", value) if isinstance(value, classmethod | staticmethod) else value
            if isinstance(value, cupy.ufunc) or type(value).__name__ == "_GUFunc":
                names[name] = "ufunc"
            elif callable(value) and not inspect.isclass(value):
                names[name] = _arguments(value, f"{place}.{name}")
            else:
                names[name] = None
        found[place] = names
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), separators=(",", ":")).replace('"cupy', '\n"cupy') + "\n")
