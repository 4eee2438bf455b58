"""A CuPy without a GPU: the same names, arrays in host memory behind a class, kernels built by the shim.

Whatever needs care on a GPU is refused or counted here too: NumPy arrays do not mix with device arrays, fresh memory
holds NaN or garbage, results copied without blocking arrive at the next synchronisation and not before, the pool has a
limit, and each way to the host and back is counted in `state.trips`. Names and arguments are those of a real CuPy, by
cupy_names.json.
"""

import builtins
import contextlib
import importlib
import inspect
import json
import math
import operator
import sys
import time
import weakref
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.ndimage
import scipy.signal
import scipy.sparse
import scipy.special

from .shim import ShimModule, exposed

_KNOWN = json.loads(Path(__file__).with_name("cupy_names.json").read_text())
_GARBAGE = 0xCD


class _State:
    """The pretended machine: its devices, its memory, what was copied to the host."""

    def reset(self):
        self.devices = 2
        self.total_bytes = 8 << 30
        self.limit = 0
        self.used_bytes = 0
        self.peak_bytes = 0
        self.current = 0
        self.trips = (
            Counter()
        )  # "get", "float", "int", "bool", "nonzero" ...: times that the host waited for the device
        self.uploads = 0
        self.streams = weakref.WeakSet()
        self.stream = None
        self.memories = {}


state = _State()
state.reset()


# ---- names and arguments as CuPy has them


def _bind(place, name, args, kwargs):
    """Refuse names and arguments that CuPy does not know."""
    known = _KNOWN[place]
    if name not in known:
        raise AttributeError(f"CuPy {_KNOWN['version']} has no {place}.{name}")
    parameters = known[name]
    if parameters == "ufunc":
        unknown = set(kwargs) - {"out", "dtype", "casting"}
        if unknown:
            raise TypeError(f"{place}.{name} of CuPy takes no {', '.join(sorted(unknown))}")
    elif parameters is not None:
        signature = inspect.Signature(
            [
                inspect.Parameter(word, inspect._ParameterKind(kind), default=None if optional else inspect._empty)
                for word, kind, optional in parameters
            ]
        )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{place}.{name} of CuPy: {error}") from None


# ---- memory


class OutOfMemoryError(MemoryError):
    """As `cupy.cuda.memory.OutOfMemoryError`."""

    __module__ = "cupy.cuda.memory"

    def __init__(self, size, total, limit=0):
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes, "
                         f"limit set to: {limit:,} bytes).")  # fmt: skip


class _Memory:
    """Device memory behind one or more arrays; counted until the last of them is gone."""

    def __init__(self, root):
        self.bytes = -(-max(root.nbytes, 1) // 512) * 512
        limit = builtins.min(state.limit or state.total_bytes, state.total_bytes)
        if state.used_bytes + self.bytes > limit:
            raise OutOfMemoryError(self.bytes, state.used_bytes, limit)
        self.root, self.device = root, state.current
        state.used_bytes += self.bytes
        state.peak_bytes = builtins.max(state.peak_bytes, state.used_bytes)
        self.release = weakref.finalize(self, _release, self.bytes, state.memories, id(root))
        state.memories[id(root)] = weakref.ref(self)


def _release(size, memories, key):
    if memories is state.memories:  # not after a reset
        state.used_bytes -= size
    memories.pop(key, None)


def _memory_of(array):
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    known = state.memories.get(id(root))
    memory = known() if known else None
    return memory if memory is not None and memory.root is root else _Memory(root)


def _reserve(shape, dtype):
    """Refuse what does not fit before the host has to find the memory for it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    limit = builtins.min(state.limit or state.total_bytes, state.total_bytes)
    if state.used_bytes + size > limit:
        raise OutOfMemoryError(size, state.used_bytes, limit)


def _poison(array):
    if array.dtype.kind in "fc":
        array.fill(np.nan)
    elif array.size:
        array.fill(
            np.frombuffer(bytes([_GARBAGE]) * array.itemsize, array.dtype)[0] if array.dtype.kind != "b" else True
        )
    return array


# ---- arrays


def _refuse_host(value):
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")


def _unwrap(value):
    """NumPy's view of device arrays, in whatever they are packed; NumPy arrays among them are refused."""
    if isinstance(value, ndarray):
        if value._memory.device != state.current:
            raise ValueError(
                f"Array device must be same as the current device: array device = {value._memory.device} "
                f"while current = {state.current}"
            )
        return value._host
    if isinstance(value, _Sparse):
        return value._scipy()
    if type(value) in (list, tuple):
        return type(value)(_unwrap(item) for item in value)
    if type(value) is dict:
        return {key: _unwrap(item) for key, item in value.items()}
    _refuse_host(value)
    return value


def _wrap(value):
    if isinstance(value, np.ndarray | np.generic):
        return ndarray._of(np.asarray(value))
    if scipy.sparse.issparse(value):
        return _sparse_of(value)
    if isinstance(value, tuple):
        items = [_wrap(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [_wrap(item) for item in value]
    return value


def _compute(function, *args, **kwargs):
    args, kwargs = _unwrap(list(args)), _unwrap(kwargs)
    with np.errstate(all="ignore"):  # a GPU gives no warnings
        result = function(*args, **kwargs)
    return _wrap(result)


class _MemoryPointer:
    def __init__(self, array):
        self.ptr, self.device_id, self.mem = array._host.ctypes.data, array._memory.device, array._memory
        self.device = Device(self.device_id)
        exposed[self.ptr] = array._host


class ndarray:
    """A device array: everything that is not computed here fails as CuPy's would."""

    __module__ = "cupy"
    __array_priority__ = 100
    __hash__ = None

    def __new__(cls, shape, dtype=float, memptr=None, strides=None, order="C"):
        if memptr is not None:
            raise NotImplementedError("arrays over given memory")
        return empty(shape, dtype, order)

    @classmethod
    def _of(cls, host):
        if host.dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {host.dtype}")
        self = object.__new__(cls)
        self._memory = _memory_of(host)
        self._host = host
        return self

    # what an array is
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    device = property(lambda self: Device(self._memory.device))
    data = property(_MemoryPointer)
    T = property(lambda self: self._of(self._host.T))
    mT = property(lambda self: self._of(self._host.mT))
    base = property(lambda self: None if self._host.base is None else self._of(self._host.base))
    flat = property(lambda self: self.ravel())

    @property
    def shape(self):
        return self._host.shape

    @shape.setter
    def shape(self, shape):
        self._host = self._host.reshape(shape, copy=False)

    @property
    def real(self):
        return self._of(self._host.real)

    @real.setter
    def real(self, value):
        self._host.real = _unwrap(value)

    @property
    def imag(self):
        return self._of(self._host.imag)

    @imag.setter
    def imag(self, value):
        self._host.imag = _unwrap(value)

    @property
    def __cuda_array_interface__(self):
        described = self._host.__array_interface__
        return {key: described[key] for key in ("shape", "typestr", "descr", "strides")} | {
            "data": described["data"],
            "version": 3,
            "stream": 1,
        }

    # ways to the host
    def get(self, stream=None, order="C", out=None, blocking=True):
        state.trips["get" if blocking else "get without blocking"] += 1
        if out is None:
            if blocking:
                (stream or get_current_stream()).synchronize()
            out = np.empty(self.shape, self.dtype, "F" if order == "F" else "C")
        elif not isinstance(out, np.ndarray):
            raise TypeError(f"Only numpy.ndarray can be obtained from cupy.ndarray, got {type(out)}")
        elif out.dtype != self.dtype or out.shape != self.shape or not out.flags.forc:
            raise ValueError("out must be a contiguous array of the same shape and dtype")
        if blocking:
            out[...] = self._host
        else:
            kept, there = self._host.copy(), _poison(out)
            (stream or get_current_stream())._later(lambda: np.copyto(there, kept))
        return out

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray):
            raise TypeError(f"Only numpy.ndarray can be set to cupy.ndarray, got {type(arr)}")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError(f"shape and dtype mismatch: {arr.dtype} {arr.shape} into {self.dtype} {self.shape}")
        state.uploads += 1
        self._host[...] = arr
        _check_staging(arr, stream or get_current_stream())

    def _number(self, kind, convert):
        state.trips[kind] += 1
        return convert(self._host)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. "
                        "Please use `.get()` to construct a NumPy array explicitly.")  # fmt: skip

    def __float__(self):
        return self._number("float", float)

    def __int__(self):
        return self._number("int", int)

    def __bool__(self):
        return self._number("bool", bool)

    def __complex__(self):
        return self._number("complex", complex)

    def __index__(self):
        return self._number("int", operator.index)

    def item(self, *args):
        return self._number("item", lambda host: host.item(*args))

    def tolist(self):
        return self._number("get", lambda host: host.tolist())

    def tobytes(self, order="C"):
        return self._number("get", lambda host: host.tobytes(order))

    def __repr__(self):
        return repr(self._host)

    def __str__(self):
        return str(self._host)

    def __format__(self, specification):
        return self._number("get", lambda host: format(host, specification))

    def __reduce__(self):
        return array, (self.get(),)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    # items
    def __len__(self):
        return len(self._host)

    def __iter__(self):
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(len(self)))

    def __contains__(self, value):
        raise TypeError("argument of type 'cupy.ndarray' is not iterable")

    def __getitem__(self, key):
        host, basic = _key(key)
        if basic and not any(item is Ellipsis for item in host):
            host = (*host, Ellipsis)  # a view also of a single number
        return self._of(np.asarray(self._host[host]))

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        host, basic = _key(key)
        value = _unwrap(value) if not isinstance(value, np.ndarray) else value
        if not basic and np.ndim(value) and not any(np.asarray(item).dtype == bool for item in host):
            hits = np.zeros(self.shape, np.int64)
            np.add.at(hits, host, 1)
            if hits.size and hits.max() > 1:
                raise ValueError("an index is there twice: which value stays differs from run to run on a GPU")
        with np.errstate(all="ignore"):
            self._host[host] = value

    def fill(self, value):
        self._host.fill(value._host if isinstance(value, ndarray) else value)

    # methods that are functions of CuPy
    def __getattr__(self, name):
        if name.startswith("__") or name not in _KNOWN["cupy.ndarray"]:
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")
        method = getattr(self._host, name)

        def call(*args, **kwargs):
            _bind("cupy.ndarray", name, (self, *args), kwargs)
            if name in ("nonzero",):
                state.trips["nonzero"] += 1
            return _compute(method, *args, **kwargs)

        return call if callable(method) else _wrap(method)

    # NumPy's functions and operators
    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__":
            return NotImplemented
        out = kwargs.pop("out", None)
        if out is not None:
            kwargs["out"] = out[0] if len(out) == 1 else out
        return getattr(cupy, ufunc.__name__)(*inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        module = cupy
        for part in function.__module__.split(".")[1:]:
            module = getattr(module, part, None)
        if module is None or not all(issubclass(kind, ndarray) for kind in types):
            return NotImplemented
        try:
            mine = getattr(module, function.__name__)
        except AttributeError:
            return NotImplemented
        return mine(*args, **kwargs)


def _operator(ufunc, reflected=False):
    def operate(self, other):
        if isinstance(other, _Sparse) or (isinstance(other, str) or other is None):
            return NotImplemented
        return _compute(ufunc, other, self) if reflected else _compute(ufunc, self, other)

    return operate


def _in_place(ufunc):
    def operate(self, other):
        _compute(ufunc, self, other, out=self)
        return self

    return operate


_OPERATORS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "pow": np.power, "matmul": np.matmul, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
}  # fmt: skip
for _name, _ufunc in _OPERATORS.items():
    setattr(ndarray, f"__{_name}__", _operator(_ufunc))
    setattr(ndarray, f"__r{_name}__", _operator(_ufunc, reflected=True))
    setattr(ndarray, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", _operator(_ufunc))
for _name, _ufunc in {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}.items():
    setattr(ndarray, f"__{_name}__", lambda self, ufunc=_ufunc: _compute(ufunc, self))


def _key(key):
    """An index for NumPy as a tuple, and whether it makes a view; a mask makes the host wait."""
    items = key if isinstance(key, tuple) else (key,)
    found, basic = [], True
    for item in items:
        if isinstance(item, ndarray):
            item = _unwrap(item)
            if item.dtype == bool:
                state.trips["nonzero"] += 1
            basic = False
        elif isinstance(item, list | np.ndarray):
            state.uploads += 1
            basic = False
        elif isinstance(item, slice):
            item = slice(*(None if end is None else operator.index(end) for end in (item.start, item.stop, item.step)))
        found.append(item)
    return tuple(found), basic


# ---- making arrays


def _with_order(order):
    return order if order in ("C", "F") else "C"


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, ndarray):
        host = _unwrap(obj)
    elif isinstance(obj, np.ndarray | np.generic):
        state.uploads += 1
        host = np.array(obj)
    else:
        host = np.array(_lists(obj))
    wanted = host.dtype if dtype is None else np.dtype(dtype)
    if copy or not isinstance(obj, ndarray):
        return ndarray._of(np.array(host, wanted, order=order or "K", ndmin=ndmin, copy=True))
    return ndarray._of(np.asarray(host, wanted, order=order))


def _lists(obj):
    if isinstance(obj, ndarray):
        return _unwrap(obj)
    if isinstance(obj, list | tuple):
        return [_lists(item) for item in obj]
    return obj


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy=bool(copy), order=order or "K")


asanyarray = asarray


def ascontiguousarray(a, dtype=None):
    return array(a, dtype, copy=False, order="C")


def asfortranarray(a, dtype=None):
    return array(a, dtype, copy=False, order="F")


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    if isinstance(a, ndarray | _Sparse):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    return np.asarray(a, order=order)


def empty(shape, dtype=float, order="C"):
    shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    _reserve(shape, dtype)
    return ndarray._of(_poison(np.empty(shape, dtype, _with_order(order))))


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    host = np.empty_like(_unwrap(prototype), dtype, order, shape=shape)
    return ndarray._of(_poison(host))


def _filled(value):
    def make(shape, dtype=float, order="C"):
        made = empty(shape, dtype, order)
        made.fill(value)
        return made

    return make


def get_array_module(*args):
    return cupy if any(isinstance(arg, ndarray | _Sparse) for arg in args) else np


def is_available():
    return state.devices > 0


def copyto(dst, src, casting="same_kind", where=None):
    if isinstance(src, np.ndarray) and src.ndim:
        raise TypeError(f"Unsupported type {type(src)}")
    np.copyto(
        _unwrap(dst), src if np.isscalar(src) else _unwrap(src), casting, True if where is None else _unwrap(where)
    )


# ---- streams, events, devices


class Stream:
    """What waits here is done at the next synchronisation."""

    __module__ = "cupy.cuda.stream"
    null = None

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self._waiting, self._before, self.ptr = [], [], 0 if null else id(self)
        state.streams.add(self)

    def _later(self, action):
        self._waiting.append(action)

    def synchronize(self):
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action()

    @property
    def done(self):
        return not self._waiting

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        self._later(event.synchronize)

    def use(self):
        state.stream = self
        return self

    def __enter__(self):
        self._before.append(state.stream)
        return self.use()

    def __exit__(self, *error):
        state.stream = self._before.pop()


Stream.null = Stream(null=True)


def get_current_stream(device_id=-1):
    return state.stream or Stream.null


class Event:
    __module__ = "cupy.cuda.stream"

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._actions, self.time = [], None

    def record(self, stream=None):
        stream = stream or get_current_stream()
        self._stream, self._actions, self._asked = stream, list(stream._waiting), False
        self.time = time.perf_counter()

    def synchronize(self):
        actions, self._actions = self._actions, []
        for action in actions:
            if action in self._stream._waiting:
                self._stream._waiting.remove(action)
                action()

    @property
    def done(self):
        if self._actions and not self._asked:  # not at once, so that a loop asks again
            self._asked = True
            return False
        self.synchronize()
        return True


def get_elapsed_time(start_event, end_event):
    return 1000 * (end_event.time - start_event.time)


_pinned = weakref.WeakSet()


class _Pinned(np.ndarray):
    """Marks page-locked memory."""


def _check_staging(host, stream):
    """Copies from page-locked memory go on after `set` returns: it must not change before the stream is done."""
    if _is_pinned(host):
        kept = host.copy()

        def arrived():
            if not np.array_equal(kept, host, equal_nan=kept.dtype.kind in "fc"):
                raise RuntimeError("page-locked memory was overwritten before its copy to the device was done")

        stream._later(arrived)


def _is_pinned(host):
    while host is not None:
        if isinstance(host, _PinnedMemory):
            return True
        host = host.obj if isinstance(host, memoryview) else getattr(host, "base", None)
    return False


class _PinnedMemory(bytearray):
    """Page-locked memory, by the buffer protocol."""

    __module__ = "cupy.cuda.pinned_memory"


def alloc_pinned_memory(mem_size):
    return _PinnedMemory(bytes([_GARBAGE]) * mem_size)


def empty_pinned(shape, dtype=float, order="C"):
    shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    memory = alloc_pinned_memory(builtins.max(count * dtype.itemsize, 1))
    return _poison(np.frombuffer(memory, dtype, count).reshape(shape, order=order))


def zeros_pinned(shape, dtype=float, order="C"):
    made = empty_pinned(shape, dtype, order)
    made.fill(0)
    return made


class Device:
    __module__ = "cupy.cuda.device"
    compute_capability = "90"

    def __init__(self, device=None):
        self.id = state.current if device is None else int(device)
        self._before = []

    @property
    def attributes(self):
        return {"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 232448, "L2CacheSize": 62914560}

    @property
    def mem_info(self):
        return memory_info()

    def use(self):
        _check_device(self.id)
        state.current = self.id

    def synchronize(self):
        for stream in list(state.streams):
            stream.synchronize()

    def __enter__(self):
        self._before.append(state.current)
        self.use()
        return self

    def __exit__(self, *error):
        state.current = self._before.pop()

    def __eq__(self, other):
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self):
        return hash(self.id)

    def __int__(self):
        return self.id

    def __repr__(self):
        return f"<CUDA Device {self.id}>"


class CUDARuntimeError(RuntimeError):
    __module__ = "cupy_backends.cuda.api.runtime"


def _check_device(number):
    if not 0 <= number < state.devices:
        raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")


def memory_info():
    return state.total_bytes - state.used_bytes, state.total_bytes


class MemoryPool:
    __module__ = "cupy.cuda.memory"

    def used_bytes(self):
        return state.used_bytes

    def total_bytes(self):
        return state.used_bytes

    def free_bytes(self):
        return 0

    def free_all_blocks(self, stream=None):
        pass

    def n_free_blocks(self):
        return 0

    def get_limit(self):
        return state.limit

    def set_limit(self, size=None, fraction=None):
        if (size is None) == (fraction is None):
            raise ValueError("Only one of size and fraction may be given")
        state.limit = int(size if fraction is None else fraction * state.total_bytes)


_pool = MemoryPool()


def _device_count():
    if state.devices == 0:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    return state.devices


# ---- kernels


class RawKernel:
    __module__ = "cupy._core.raw"

    def __init__(self, kernel):
        self._kernel = kernel

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        if any(isinstance(value, np.ndarray) for value in args):
            raise TypeError("kernels take device arrays, got a numpy.ndarray")
        self._kernel(grid, block, tuple(_unwrap(value) for value in args), shared_mem=shared_mem)

    max_dynamic_shared_size_bytes = property(
        lambda self: self._kernel.max_dynamic_shared_size_bytes,
        lambda self, size: setattr(self._kernel, "max_dynamic_shared_size_bytes", size),
    )


class RawModule:
    __module__ = "cupy._core.raw"

    def __init__(self, code=None, *, path=None, options=(), backend="nvrtc", translate_cucomplex=False,
                 enable_cooperative_groups=False, name_expressions=None, jitify=False):  # fmt: skip
        if not isinstance(options, tuple):
            raise TypeError("options must be a tuple of strings")
        if not any(option.startswith(("-std=", "--std=")) for option in options):
            raise ValueError("name_expressions need -std=c++11 or later among the options")
        self._names = tuple(name_expressions)
        self._module = ShimModule(code, self._names)

    def get_function(self, name):
        if name not in self._names:
            raise KeyError(f"{name} is none of the name_expressions")
        return RawKernel(self._module.get_function(name))


# ---- sparse matrices


class _Sparse:
    """csr_matrix and csc_matrix of cupyx over arrays of this module."""

    __module__ = "cupyx.scipy.sparse._csr"
    __array_priority__ = 101
    __hash__ = None
    ndim = 2

    def __init__(self, arg1, shape=None, dtype=None, copy=False):
        kind = _HOST_SPARSE[self.format]
        if isinstance(arg1, tuple) and len(arg1) == 3:
            for part in arg1:
                if not isinstance(part, ndarray) or part.ndim != 1:
                    raise ValueError("data, indices, and indptr should be 1-D device arrays")
            data, indices, indptr = arg1
            if indices.dtype.kind != "i" or indices.dtype != indptr.dtype:
                raise ValueError(f"indices and indptr have dtypes {indices.dtype} and {indptr.dtype}")
            if data.size != indices.size:
                raise ValueError("indices and data should have the same size")
        elif isinstance(arg1, tuple) and len(arg1) == 2 and isinstance(arg1[0], ndarray):
            made = kind(_unwrap(arg1), shape=shape)
            data, indices, indptr, shape = *map(_wrap, (made.data, made.indices, made.indptr)), made.shape
        else:
            if isinstance(arg1, np.ndarray):
                raise TypeError(f"Unsupported type {type(arg1)}")
            if scipy.sparse.issparse(arg1):
                state.uploads += 1
            host = arg1.copy() if scipy.sparse.issparse(arg1) else _unwrap(arg1)
            made = kind(host)
            data, indices, indptr, shape = *map(_wrap, (made.data, made.indices, made.indptr)), made.shape
        self.data = data.astype(dtype or data.dtype, copy=copy)
        if self.data.dtype.char not in "?fdFD":
            raise ValueError(f"Only bool, float32, float64, complex64 and complex128 are supported, got {data.dtype}")
        self.indices, self.indptr = (part.copy() if copy else part for part in (indices, indptr))
        major = self.indptr.size - 1
        if shape is None:
            minor = int(self.indices.max()) + 1 if self.indices.size else 0
            shape = (major, minor) if self.format == "csr" else (minor, major)
        self.shape = tuple(map(int, shape))
        if self.shape[0 if self.format == "csr" else 1] != major:
            raise ValueError(f"index pointer size ({major + 1}) should be ({self.shape}) + 1")

    dtype = property(lambda self: self.data.dtype)
    nnz = property(lambda self: self.data.size)
    size = property(lambda self: self.data.size)
    device = property(lambda self: self.data.device)
    T = property(lambda self: self.transpose())
    has_sorted_indices = property(lambda self: self._scipy().has_sorted_indices)

    def _scipy(self):
        return _HOST_SPARSE[self.format](tuple(map(_unwrap, (self.data, self.indices, self.indptr))), shape=self.shape)

    def get(self, stream=None, order=None, out=None, blocking=True):
        parts = tuple(part.get(stream) for part in (self.data, self.indices, self.indptr))
        return _HOST_SPARSE[self.format](parts, shape=self.shape)

    def toarray(self, order=None, out=None):
        return _wrap(self._scipy().toarray(order, _unwrap(out)))

    todense = toarray

    def transpose(self, axes=None, copy=False):
        other = csc_matrix if self.format == "csr" else csr_matrix
        return other((self.data, self.indices, self.indptr), shape=self.shape[::-1], copy=copy)

    def sort_indices(self):
        host = self._scipy()
        host.sort_indices()
        self.data, self.indices = _wrap(host.data), _wrap(host.indices)

    def sum_duplicates(self):
        host = self._scipy()
        host.sum_duplicates()
        self.data, self.indices, self.indptr = map(_wrap, (host.data, host.indices, host.indptr))

    def eliminate_zeros(self):
        host = self._scipy()
        host.eliminate_zeros()
        state.trips["nonzero"] += 1
        self.data, self.indices, self.indptr = map(_wrap, (host.data, host.indices, host.indptr))

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __len__(self):
        raise TypeError("sparse matrix length is ambiguous; use getnnz() or shape[0]")

    def __getitem__(self, key):
        items = key if isinstance(key, tuple) else (key,)
        return _wrap(self._scipy()[tuple(_unwrap(item) for item in items)])

    def __repr__(self):
        return repr(self._scipy())

    def __reduce__(self):
        return type(self), (self.get(),)

    def __getattr__(self, name):
        if name.startswith("_") or name not in _KNOWN[f"cupyx.scipy.sparse.{self.format}_matrix"]:
            raise AttributeError(f"cupyx's {type(self).__name__} has no attribute {name!r}")

        def call(*args, **kwargs):
            _bind(f"cupyx.scipy.sparse.{self.format}_matrix", name, (self, *args), kwargs)
            return _compute(getattr(self._scipy(), name), *args, **kwargs)

        return call


def _sparse_operator(function, reflected=False):
    def operate(self, other):
        return _compute(function, other, self) if reflected else _compute(function, self, other)

    return operate


for _name in ("add", "sub", "mul", "truediv", "matmul"):
    setattr(_Sparse, f"__{_name}__", _sparse_operator(getattr(operator, _name)))
    setattr(_Sparse, f"__r{_name}__", _sparse_operator(getattr(operator, _name), reflected=True))
_Sparse.__neg__ = lambda self: _compute(operator.neg, self)
_Sparse.__abs__ = lambda self: _compute(abs, self)


class csr_matrix(_Sparse):
    __module__ = "cupyx.scipy.sparse._csr"
    format = "csr"


class csc_matrix(_Sparse):
    __module__ = "cupyx.scipy.sparse._csc"
    format = "csc"


_HOST_SPARSE = {"csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix}


def _sparse_of(host):
    kind = csc_matrix if host.format == "csc" else csr_matrix
    host = _HOST_SPARSE[kind.format](host)
    return kind(tuple(ndarray._of(part) for part in (host.data, host.indices, host.indptr)), shape=host.shape)


# ---- random numbers


class _Random:
    """Generator or RandomState of cupy.random over NumPy's."""

    def __init__(self, host, place):
        self._host_generator, self._place = host, place

    def __getattr__(self, name):
        method = getattr(self._host_generator, name)

        def call(*args, **kwargs):
            _bind(self._place, name, (self, *args), kwargs)
            dtype = kwargs.pop("dtype", None) if self._place.endswith("RandomState") else None
            made = _compute(method, *args, **kwargs)
            return made.astype(dtype) if dtype is not None and made is not None else made

        return call


# ---- modules

_WAITING = {"nonzero", "flatnonzero", "argwhere", "unique", "array_equal", "allclose", "extract", "compress"}


class _Module(ModuleType):
    """A module of CuPy: names that it lacks are refused, the others are NumPy's or SciPy's on device arrays."""

    def __init__(self, name, host=None, **own):
        super().__init__(name)
        self.__dict__["_host_module"] = host
        for key, value in own.items():
            self.__dict__[key] = value
        self.__path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        place = self.__name__
        if name not in _KNOWN.get(place, ()):
            raise AttributeError(f"CuPy {_KNOWN['version']} has no {place}.{name}")
        host = getattr(self._host_module, name, None)
        if host is None:
            raise NotImplementedError(f"the fake CuPy does not have {place}.{name} yet")
        if isinstance(host, type) or not callable(host):
            return host

        return _Function(place, name, host)


class _Function:
    """One function of CuPy, computed by NumPy or SciPy."""

    def __init__(self, place, name, host):
        self._place, self._host, self.__name__ = place, host, name

    def __call__(self, *args, **kwargs):
        _bind(self._place, self.__name__, args, kwargs)
        if self.__name__ in _WAITING:
            state.trips["nonzero"] += 1
        kwargs.pop("plan", None)
        return _compute(self._host, *args, **kwargs)

    def __getattr__(self, name):  # methods of ufuncs
        if name not in _KNOWN["cupy.ufunc"]:
            raise AttributeError(f"CuPy's {self.__name__} has no {name}")
        method = getattr(self._host, name)
        return (lambda *args, **kwargs: _compute(method, *args, **kwargs)) if callable(method) else method


def _own(place, functions):
    """Functions of this file that check their arguments against CuPy's."""

    def checked(name, function):
        def call(*args, **kwargs):
            _bind(place, name, args, kwargs)
            return function(*args, **kwargs)

        call.__name__ = name
        return call

    return {name: checked(name, function) for name, function in functions.items()}


def _by_position(host, *names):
    """A function of SciPy whose arguments have other names."""

    def call(*args, **kwargs):
        return host(*args, *(kwargs.pop(name, default) for name, default in names[len(args) :]), **kwargs)

    return call


class _FFT(SimpleNamespace):
    """numpy.fft as CuPy has it: single precision stays single."""

    def __getattr__(self, name):
        host = getattr(scipy.fft, name)
        first = "axis" if "axis" in inspect.signature(host).parameters else "axes"
        if not callable(host) or "norm" not in inspect.signature(host).parameters:
            return host
        size = "n" if first == "axis" else "s"
        default = {"axis": -1, "axes": (-2, -1) if name.endswith("2") else None}[first]
        return _by_position(host, ("a", None), (size, None), (first, default), ("norm", None))


def _scatter_add(a, slices, value):
    key, _ = _key(slices)
    np.add.at(_unwrap(a), key, _unwrap(value))


def _stub_plan(*args, **kwargs):
    return contextlib.nullcontext()


_fft_module = _Module("cupy.fft", _FFT())
_linalg = _Module("cupy.linalg", np.linalg)
_random = _Module("cupy.random", np.random)
_random.default_rng = lambda seed=None: _Random(np.random.default_rng(seed), "cupy.random.Generator")
_random.RandomState = lambda seed=None: _Random(np.random.RandomState(seed), "cupy.random.RandomState")
_runtime = _Module(
    "cupy.cuda.runtime",
    getDeviceCount=_device_count,
    getDevice=lambda: state.current,
    setDevice=lambda device: Device(device).use(),
    deviceSynchronize=lambda: Device().synchronize(),
    memGetInfo=memory_info,
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 13000,
    getDeviceProperties=lambda device: {"name": b"fake device", "multiProcessorCount": 132, "sharedMemPerBlock": 49152},
    CUDARuntimeError=CUDARuntimeError,
)
_memory_module = _Module(
    "cupy.cuda.memory",
    OutOfMemoryError=OutOfMemoryError,
    MemoryPool=MemoryPool,
    alloc_pinned_memory=alloc_pinned_memory,
)
_cuda = _Module(
    "cupy.cuda",
    Device=Device,
    Stream=Stream,
    Event=Event,
    MemoryPool=MemoryPool,
    runtime=_runtime,
    memory=_memory_module,
    get_current_stream=get_current_stream,
    get_device_id=lambda: state.current,
    get_elapsed_time=get_elapsed_time,
    alloc_pinned_memory=alloc_pinned_memory,
    is_available=is_available,
)
cupy = _Module(
    "cupy",
    np,
    __version__=_KNOWN["version"],
    ndarray=ndarray,
    RawModule=RawModule,
    cuda=_cuda,
    fft=_fft_module,
    linalg=_linalg,
    random=_random,
    **_own(
        "cupy",
        {
            "array": array, "asarray": asarray, "asanyarray": asanyarray, "ascontiguousarray": ascontiguousarray,
            "asfortranarray": asfortranarray, "asnumpy": asnumpy, "empty": empty, "empty_like": empty_like,
            "zeros": _filled(0), "ones": _filled(1), "get_array_module": get_array_module, "is_available": is_available,
            "copyto": copyto, "get_default_memory_pool": lambda: _pool,
            "get_default_pinned_memory_pool": lambda: SimpleNamespace(free_all_blocks=lambda: None),
        },
    ),
)  # fmt: skip
cupy.lib = _Module("cupy.lib", stride_tricks=_Module("cupy.lib.stride_tricks", np.lib.stride_tricks))
_sparse = _Module(
    "cupyx.scipy.sparse",
    scipy.sparse,
    csr_matrix=csr_matrix,
    csc_matrix=csc_matrix,
    spmatrix=_Sparse,
    issparse=lambda x: isinstance(x, _Sparse),
    isspmatrix_csr=lambda x: isinstance(x, csr_matrix),
)
_scipy_parts = {
    name: _Module(f"cupyx.scipy.{name}", getattr(scipy, name))
    for name in ("fft", "linalg", "ndimage", "signal", "special")
}
_scipy_parts["fft"].get_fft_plan = _stub_plan
_scipy_module = _Module("cupyx.scipy", sparse=_sparse, get_array_module=get_array_module, **_scipy_parts)
cupyx = _Module(
    "cupyx",
    scipy=_scipy_module,
    **_own(
        "cupyx",
        {
            "empty_pinned": empty_pinned, "zeros_pinned": zeros_pinned, "scatter_add": _scatter_add,
            "empty_like_pinned": lambda a: empty_pinned(a.shape, a.dtype),
            "rsqrt": lambda a: _compute(lambda x: 1 / np.sqrt(x), a),
        },
    ),
)  # fmt: skip
MODULES = {
    "cupy": cupy, "cupy.cuda": _cuda, "cupy.cuda.runtime": _runtime, "cupy.cuda.memory": _memory_module,
    "cupy.fft": _fft_module, "cupy.linalg": _linalg, "cupy.random": _random, "cupy.lib": cupy.lib,
    "cupy.lib.stride_tricks": cupy.lib.stride_tricks, "cupyx": cupyx, "cupyx.scipy": _scipy_module,
    "cupyx.scipy.sparse": _sparse, **{f"cupyx.scipy.{name}": part for name, part in _scipy_parts.items()},
}  # fmt: skip


def install(monkeypatch):
    """Put the fake where `import cupy` finds it, with a fresh machine behind it."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("cupy", "cupyx")]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in MODULES.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    state.reset()
    return cupy
