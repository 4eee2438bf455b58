"""Where to compute: decided by the argument `device` and by the type of the arrays, without importing CuPy."""

import copy
import re
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec

import numpy as np
from scipy.sparse import csr_array, hstack, issparse

from .version import VersionedPickle

_SHARE = 0.4  # of the free memory that one piece of work may take: the next piece is on its way beside it
_ROWS = 262_144  # more in a piece than this gain nothing


def resolve_device(device, *arrays):
    """Device on which to compute.

    Parameters
    ----------
    device : str
        "auto" follows the arrays: NumPy and everything that becomes NumPy means the CPU, CuPy its GPU. "cpu", "cuda"
        and "cuda:N" ask for one; "cuda" is the device of the arrays, or CuPy's current one.
    *arrays : array-likes
        Signals, dictionary, whatever takes part. None is skipped.

    Returns
    -------
    str
        "cpu" or "cuda:N".

    Raises
    ------
    ValueError
        If the name of the device is unknown.
    TypeError
        If "auto" meets arrays of the host beside arrays of a GPU, or arrays of two GPUs.
    RuntimeError
        If the arrays live on a GPU and "cpu" is asked for, or if a GPU is asked for that cannot be used; the message
        says what is missing.
    """
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(
            f"The 'device' parameter must be 'auto', 'cpu', 'cuda' or 'cuda:N' (N a number), got {device!r}"
        )
    given = [array for array in arrays if array is not None]
    homes = {device_of(array) for array in given}
    if device == "cpu" and homes - {"cpu"}:
        raise RuntimeError(
            "device='cpu' was asked for, but an array lives on a GPU: move it over with cupy.asnumpy(array) or "
            "estimator.to_device('cpu')"
        )
    if device == "cpu" or (device == "auto" and homes <= {"cpu"}):
        return "cpu"
    if device == "auto" and len(homes) > 1:
        raise TypeError(
            f"device='auto' follows the arrays, but they live on {' and '.join(sorted(homes))}: move them to one "
            "device (cupy.asarray, cupy.asnumpy, estimator.to_device), or name one with device="
        )
    homes -= {"cpu"}
    if device in ("auto", "cuda") and len(homes) == 1:
        return homes.pop()
    problem = gpu_problem(device)
    if problem is not None:
        raise RuntimeError(f"device={device!r} needs a GPU: {problem}")
    if device != "cuda":
        return device
    import cupy

    return f"cuda:{cupy.cuda.Device().id}"


def gpu_problem(device="cuda"):
    """What keeps a GPU from being used, in words; None if nothing does.

    Parameters
    ----------
    device : str, default="cuda"
        "cuda" or "cuda:N".

    Returns
    -------
    str or None
    """
    if find_spec("cupy") is None:
        return "CuPy is not installed, pip install 'sparseshare[cuda12]' or 'sparseshare[cuda13]' brings it"
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # a missing driver, a broken library, a version conflict: all the user's to hear about
        return f"CuPy is installed but finds no usable driver or device ({type(error).__name__}: {error})"
    number = int(device.partition(":")[2] or 0)
    return f"there is no device number {number}, CuPy sees {count}" if number >= count else None


def on_gpu(array):
    """Whether an array, dense or sparse, lives on a GPU."""
    return type(array).__module__.partition(".")[0] in ("cupy", "cupyx")


def device_of(array):
    """Where an array lives: "cpu" or "cuda:N"."""
    if not on_gpu(array):
        return "cpu"
    return f"cuda:{(array.data if _is_sparse(array) else array).device.id}"


def array_module(array):
    """The module whose functions work on an array: numpy or cupy."""
    return module_of("cuda" if on_gpu(array) else "cpu")


def module_of(device):
    """The module whose arrays live on a device: numpy or cupy."""
    if device == "cpu":
        return np
    import cupy

    return cupy


def csr_of(data, indices, indptr, shape):
    """A CSR array of its three arrays, on the device where they live: csr_array, or CuPy's csr_matrix."""
    if not on_gpu(data):
        return csr_array((data, indices, indptr), shape=shape)
    from cupyx.scipy.sparse import csr_matrix

    return csr_matrix((data, indices, indptr), shape=shape)


def stacked_columns(parts):
    """CSR arrays of one device, side by side."""
    if not on_gpu(parts[0]):
        return csr_array(hstack(parts, format="csr"))
    from cupyx.scipy.sparse import hstack as hstack_on_gpu

    return hstack_on_gpu(parts, format="csr")


def pinned_array(shape, dtype):
    """An array of the host that a GPU copies from and to beside its other work."""
    import cupyx

    return cupyx.empty_pinned(shape, dtype)


def _is_sparse(array):
    return type(array).__module__.partition(".")[0] == "cupyx"


def to_device(array, device):
    """An array where `device` says; the array itself if it is there already.

    Parameters
    ----------
    array : ndarray, csr_array, their CuPy twins, or None
    device : str
        "cpu" or "cuda:N".

    Returns
    -------
    ndarray or csr_array, cupy.ndarray or cupyx.scipy.sparse.csr_matrix, or None
    """
    if array is None or device_of(array) == device:
        return array
    if device == "cpu":
        return csr_array(array.get()) if _is_sparse(array) else array.get()
    import cupy

    with cupy.cuda.Device(int(device.partition(":")[2] or 0)):
        if not (issparse(array) or _is_sparse(array)):
            return cupy.asarray(array)
        parts = (cupy.asarray(part) for part in (array.data, array.indices, array.indptr))
        return csr_of(*parts, array.shape)


def to_host(array):
    """An array in the host's memory; what is there already, and what is no array, passes."""
    return to_device(array, "cpu") if on_gpu(array) else array


def computing_on(device):
    """Context in which CuPy allocates and launches on a device; nothing for the CPU."""
    if device == "cpu":
        return nullcontext()
    import cupy

    return cupy.cuda.Device(int(device.partition(":")[2] or 0))


def free_memory(device):
    """Bytes that can still be allocated on a GPU, those that CuPy's pool holds unused included."""
    import cupy

    with computing_on(device):
        pool = cupy.get_default_memory_pool()
        free = cupy.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
        limit = pool.get_limit()
        return min(free, limit - pool.used_bytes()) if limit else free


def rows_that_fit(device, bytes_a_row, fixed=0, most=_ROWS):
    """Rows that a piece of work on a GPU may have.

    Parameters
    ----------
    device : str
        "cuda:N".
    bytes_a_row : int
        What a row takes while it is worked on, results and scratch included.
    fixed : int, default=0
        Bytes that are needed once.
    most : int, default=262144

    Returns
    -------
    int

    Raises
    ------
    MemoryError
        If not even one row fits.
    """
    room = _SHARE * free_memory(device) - fixed
    if room < bytes_a_row:
        raise MemoryError(
            f"{device} has {free_memory(device) / 2**20:.0f} MB free, too little for one row of "
            f"{bytes_a_row / 2**20:.3g} MB beside {fixed / 2**20:.3g} MB for all: free memory there "
            "(cupy.get_default_memory_pool().free_all_blocks()), or use device='cpu'"
        )
    return int(min(room // max(bytes_a_row, 1), most))


@contextmanager
def memory_errors(device, what):
    """Say, where a GPU runs out of memory, of what and how much there is; for work that cannot be cut into pieces."""
    if device == "cpu":
        yield
        return
    import cupy

    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise MemoryError(
            f"{device} is out of memory for {what}: {error}. At most {free_memory(device) / 2**20:.0f} MB more fit "
            "there: give less at once, use float32, or device='cpu'"
        ) from error


class Movable(VersionedPickle):
    """Gives an estimator `to_device` and pickles that hold NumPy arrays wherever it was fitted; before BaseEstimator.

    Attributes named in `_stays_on_host` are not moved to a GPU.
    """

    _stays_on_host = ("classes_", "feature_names_in_")

    def to_device(self, device):
        """Move all arrays that the estimator holds, in place.

        Parameters
        ----------
        device : str
            "cpu", "cuda" or "cuda:N".

        Returns
        -------
        self

        Raises
        ------
        ValueError, RuntimeError
            If the device is unknown or cannot be used.
        """
        if device == "auto":
            raise ValueError("to_device takes 'cpu', 'cuda' or 'cuda:N', got 'auto'")
        device = resolve_device(device)
        mover = _Mover(device)
        for name, value in vars(self).items():
            if device == "cpu" or name not in self._stays_on_host:
                vars(self)[name] = mover.moved(value)
        return self

    def __getstate__(self):
        return _Mover("cpu").moved(super().__getstate__())


def moved(value, device):
    """What a value becomes where its arrays live on another device.

    Parameters
    ----------
    value : object
        An array, a container, or an object of this package, whose arrays are looked for however deep they lie. Those in
        attributes that an object names in `_stays_on_host` are not moved to a GPU.
    device : str
        "cpu" or "cuda:N".

    Returns
    -------
    object
        A copy, parts that hold no array shared with `value`; or `value` itself if nothing was to be moved.
    """
    return _Mover(device).moved(value)


class _Mover:
    """Moves the arrays in nested containers and in objects of this package; what was shared stays shared."""

    def __init__(self, device):
        self.device, self.known, self.kept = device, {}, []

    def moved(self, value):
        if id(value) not in self.known:
            self.kept.append(value)  # its id is not given to another object meanwhile
            self.known[id(value)] = value
            self.known[id(value)] = self._move(value)
        return self.known[id(value)]

    def _move(self, value):
        if on_gpu(value) or (self.device != "cpu" and self._goes(value)):
            return to_device(value, self.device)
        if isinstance(value, dict):
            return self._changed(value, {key: self.moved(item) for key, item in value.items()}, value.values())
        if isinstance(value, list | tuple):
            items = [self.moved(item) for item in value]
            again = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
            return self._changed(value, again, value)
        if type(value).__module__.partition(".")[0] == "sparseshare" and hasattr(value, "__dict__"):
            other = self.known[id(value)] = copy.copy(value)
            stays = () if self.device == "cpu" else getattr(value, "_stays_on_host", ())
            state = {name: item if name in stays else self.moved(item) for name, item in vars(value).items()}
            if all(state[name] is item for name, item in vars(value).items()):
                return value
            vars(other).update(state)
            return other
        return value

    def _changed(self, old, new, items):
        again = new.values() if isinstance(new, dict) else new
        return old if all(a is b for a, b in zip(items, again, strict=True)) else new

    def _goes(self, value):
        return (isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.ndim > 0) or issparse(value)
