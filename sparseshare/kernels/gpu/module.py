"""CUDA kernels by name: compiled when first asked for, arguments checked against the source at every launch."""

import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

OPTIONS = ("-std=c++17",)
_DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "signed char": np.int8,
    "unsigned char": np.uint8,
    "bool": np.bool_,
}
_C_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_KERNEL = re.compile(
    r"template\s*<(?P<template>[^>]*)>\s*__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(?P<name>\w+)"
    r"\s*\((?P<arguments>[^)]*)\)"
)
_INSTANCE = re.compile(r"^// instance: (?P<expression>\w+<[^>]*>) registers (?P<registers>\d+)$", re.MULTILINE)
_USES = re.compile(r"^// uses: (\w+\.cu)$", re.MULTILINE)
_ARGUMENT = re.compile(r"(?P<type>.*?)(?P<pointer>\*?)\s*(?P<name>\w+)$")
_SMALL_SHARED = 48 * 1024  # more dynamic shared memory than this must be asked for


class Argument(NamedTuple):
    """One argument of a kernel: C type (perhaps a template parameter), whether it is a pointer, name."""

    type: str
    pointer: bool
    name: str


class Signature(NamedTuple):
    """Names of a kernel's template parameters, and its arguments."""

    template: tuple
    arguments: tuple


def parts(family):
    """Files of a family's source, in order: the prelude, what it asks for by `// uses: NAME.cu`, its own."""
    own = files(__package__) / f"{family}.cu"
    return ["prelude.cu", *_USES.findall(own.read_text()), own.name]


@cache
def source(family):
    """Source text of a family: all its files, one after the other."""
    return "".join((files(__package__) / name).read_text() for name in parts(family))


@cache
def signatures(family):
    """Signatures of a family's kernels by name, read from the source."""
    found = {}
    for match in _KERNEL.finditer(source(family)):
        template = tuple(parameter.split()[-1] for parameter in match["template"].split(","))
        found[match["name"]] = Signature(template, tuple(_argument(text) for text in match["arguments"].split(",")))
    return found


def _argument(text):
    words = text.replace("__restrict__", " ").replace("*", " * ").split()
    match = _ARGUMENT.match(" ".join(word for word in words if word != "const"))
    return Argument(match["type"].strip(), bool(match["pointer"]), match["name"])


@cache
def instances(family):
    """Instances that may be launched, listed in comments of the source, with the registers a thread may take."""
    return {match["expression"]: int(match["registers"]) for match in _INSTANCE.finditer(source(family))}


def families():
    """Names of all families that have a source with kernels."""
    names = [path.name[:-3] for path in files(__package__).iterdir() if path.name.endswith(".cu")]
    return sorted(name for name in names if instances(name))


def kernel(family, name, *template):
    """A kernel for launching on the current device.

    Parameters
    ----------
    family : str
        Name of the source without its ending.
    name : str
    *template : dtypes and ints
        Template arguments, in the order of the source.

    Returns
    -------
    Launch
        Called with grid and block (tuples), the kernel's arguments, and `shared`, bytes of dynamic shared memory.
    """
    import cupy

    return _launch(family, name, template, cupy.cuda.Device().id)


@cache
def _launch(family, name, template, device):
    words = [str(value) if isinstance(value, int) else _C_NAMES[np.dtype(value)] for value in template]
    return Launch(family, name, words)


def _expected(c_type, argument):
    """What is passed for an argument: a scalar's class or an array's dtype, whether it is an array, the name."""
    scalar = _DTYPES[c_type]
    return np.dtype(scalar) if argument.pointer else scalar, argument.pointer, argument.name


class Launch:
    """One instance of a kernel, compiled for one device."""

    def __init__(self, family, name, words):
        import cupy

        self._array = cupy.ndarray
        self.expression = f"{name}<{', '.join(words)}>"
        if self.expression not in instances(family):
            raise ValueError(f"{family}.cu lists no instance {self.expression}, only {', '.join(instances(family))}")
        signature = signatures(family)[name]
        types = dict(zip(signature.template, words, strict=True))
        self.arguments = [
            _expected(types.get(argument.type, argument.type), argument) for argument in signature.arguments
        ]
        module = cupy.RawModule(code=source(family), options=OPTIONS, name_expressions=(self.expression,))
        self._function = module.get_function(self.expression)
        self._shared = _SMALL_SHARED

    def __call__(self, grid, block, *arguments, shared=0):
        if len(arguments) != len(self.arguments):
            raise TypeError(f"{self.expression} takes {len(self.arguments)} arguments, got {len(arguments)}")
        if 0 in grid:
            return
        if shared > self._shared:
            self._function.max_dynamic_shared_size_bytes = shared
            self._shared = shared
        passed = tuple(map(self._convert, arguments, self.arguments))
        self._function(tuple(map(int, grid)), tuple(map(int, block)), passed, shared_mem=int(shared))

    def _convert(self, value, argument):
        dtype, pointer, name = argument
        if not pointer:
            return dtype(value)
        if value is None:
            return np.uint64(0)
        if not isinstance(value, self._array) or value.dtype != dtype or not value.flags.c_contiguous:
            given = f"{type(value).__name__} of dtype {getattr(value, 'dtype', None)}"
            raise TypeError(f"{self.expression}: {name} must be a C-contiguous device array of {dtype}, "
                            f"got a {given}")  # fmt: skip
        return value
