"""The one place where kernels are compiled: flags, disk cache, and what invalidates that cache.

Numba's cache looks at the file of the function it compiles, not at the files of the functions called from it. An edited
helper would leave its callers stale, so a hash of every kernel source travels in a closure cell, which Numba does look
at.
"""

from hashlib import sha256
from pathlib import Path
from types import CellType, FunctionType

from numba import njit

# No nnan and no ninf: a kernel may not invent numbers where data has gone wrong.
FASTMATH = {"nsz", "arcp", "contract", "reassoc"}


def _hash_of_sources():
    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


STAMP = _hash_of_sources()


def _stamped(function):
    code = function.__code__
    code = code.replace(co_freevars=(*code.co_freevars, "_stamp"))
    closure = (*(function.__closure__ or ()), CellType(STAMP))
    stamped = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    stamped.__doc__, stamped.__module__, stamped.__qualname__ = (
        function.__doc__,
        function.__module__,
        function.__qualname__,
    )
    return stamped


def kernel(function):
    """Compile at first use, cache on disk, release the GIL: what Python calls."""
    return njit(nogil=True, cache=True, error_model="numpy", fastmath=FASTMATH)(_stamped(function))


def exact(function):
    """As `kernel`, but with every operation as written: for checks of finiteness and for sums whose order counts."""
    return njit(nogil=True, cache=True, error_model="numpy")(_stamped(function))


def inline(function):
    """A part of a kernel, compiled into each of its callers."""
    return njit(nogil=True, error_model="numpy", fastmath=FASTMATH, inline="always")(function)


def part(function):
    """A part of a kernel, merged into its caller: array arguments by the dozen cost more than most parts do.

    No reference counting: an atomic increment a slice took half the time of the solvers. So a part can allocate nothing.
    """
    return njit(nogil=True, error_model="numpy", fastmath=FASTMATH, _nrt=False, forceinline=True)(function)


def rare(function):
    """As `part`, but compiled once and called: for what happens seldom, to keep compilation short."""
    return njit(nogil=True, error_model="numpy", fastmath=FASTMATH, _nrt=False)(function)
