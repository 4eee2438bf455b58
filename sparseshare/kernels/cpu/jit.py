"""The one place where kernels are compiled: flags, disk cache, and what invalidates that cache.

Numba's cache looks at the file of the function it compiles, not at the files of the functions called from it. An edited
helper would leave its callers stale, so a hash of a kernel's own file and of all that it imports from this folder
travels in a closure cell, which Numba does look at.
"""

import re
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import CellType, FunctionType

from numba import njit

from .merging import COMPILER, known, merged

# No nnan and no ninf: a kernel may not invent numbers where data has gone wrong.
FASTMATH = {"nsz", "arcp", "contract", "reassoc"}


@cache
def stamp(path):
    """Hash of a kernel file, of the files of its folder that it imports, directly or not, and of how it is compiled."""
    sources, waiting = {}, [Path(path)]
    while waiting:
        file = waiting.pop()
        if file not in sources:
            sources[file] = file.read_bytes()
            waiting += [
                file.parent / f"{name}.py" for name in re.findall(r"^from \.(\w+)", sources[file].decode(), re.M)
            ]
    way = b"" if COMPILER else b"in the ordinary way"
    return sha256(b"".join([*(sources[file] for file in sorted(sources)), way])).hexdigest()


def _stamped(function):
    code = function.__code__
    code = code.replace(co_freevars=(*code.co_freevars, "_stamp"))
    closure = (*(function.__closure__ or ()), CellType(stamp(function.__globals__["__file__"])))
    stamped = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    stamped.__doc__, stamped.__module__, stamped.__qualname__ = (
        function.__doc__,
        function.__module__,
        function.__qualname__,
    )
    return stamped


def _cached(function, **options):
    function = _stamped(function)
    options = known({"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True} | options)
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written: compile in every process
        return njit(**options)(function)


def kernel(function):
    """Compile at first use, cache on disk, release the GIL: what Python calls."""
    return _cached(function, fastmath=FASTMATH)


def exact(function):
    """As `kernel`, but with every operation as written: for checks of finiteness and for sums whose order counts."""
    return _cached(function)


def inline(function):
    """A part of a kernel, compiled into each of its callers."""
    return njit(nogil=True, error_model="numpy", fastmath=FASTMATH, inline="always")(function)


def part(function):
    """A part of a kernel, merged into its caller: array arguments by the dozen cost more than most parts do.

    No reference counting: an atomic increment a slice took half the time of the solvers. So a part cannot allocate.
    """
    return merged(function, nogil=True, error_model="numpy", fastmath=FASTMATH, _nrt=False, forceinline=True)


def rare(function):
    """As `part`, but compiled once and called, to keep compilation short: for what happens seldom in slow kernels.

    In fast ones even a call that never comes costs: the lasso of 64 features took a tenth longer with one.
    """
    return merged(function, nogil=True, error_model="numpy", fastmath=FASTMATH, _nrt=False, forceinline=False)


def called(function):
    """As `rare`, but it may allocate: what kernels share that is almost a kernel itself."""
    return merged(function, nogil=True, error_model="numpy", fastmath=FASTMATH, forceinline=False)
