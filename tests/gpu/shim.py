"""CUDA kernels on the CPU: g++ builds a `.cu` source with cuda_shim.h, the threads of a block take turns as fibers."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from weakref import WeakValueDictionary

import numpy as np

HERE = Path(__file__).parent
HEADER, RUNTIME = HERE / "cuda_shim.h", HERE / "cuda_shim.cpp"
ORDERS = ("forward", "reverse", "random")
COMPILE = ("g++", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-ffp-contract=off", "-w")
MODES = {"plain": "checked", "races": "checked", "address": "address"}  # and what the libraries are built with:
BUILDS = {
    "checked": {  # without the library of -fsanitize=thread: cuda_shim.cpp takes its reports of accesses
        "kernels": (
            "-Og",
            "-g1",
            "-fsanitize=thread,undefined",
            # What looks for races finds null pointers and other places outside of all arrays, too.
            "-fno-sanitize=vptr,null,object-size,pointer-overflow",
            "-fno-sanitize-recover=undefined",
            "--param=tsan-instrument-func-entry-exit=0",
        ),
        "runtime": ("-O2", "-DSHIM_RACES"),
        "link": ("-fsanitize=undefined", "-ldl"),
    },
    "address": {  # in a process with the `environment` for it
        "kernels": ("-Og", "-g1", "-fsanitize=address"),
        "runtime": ("-O2", "-g1", "-fsanitize=address"),
        "link": ("-fsanitize=address",),
    },
}
SMALL_SHARED, MOST_SHARED = 48 * 1024, 227 * 1024
settings = SimpleNamespace(
    order="forward",
    seed=0,
    mode=os.environ.get("CUDA_SHIM_MODE", "plain"),
    skipped_line=-1,
    cache=Path(os.environ.get("CUDA_SHIM_CACHE") or Path(tempfile.gettempdir(), "cuda-shim")),
)
exposed = WeakValueDictionary()  # arrays whose address may lie in memory that a kernel reads, by that address
launched = defaultdict(set)  # expressions that ran without an error, by source
_looked = defaultdict(set)  # libraries that looked for races, by source
RAN, NEEDED = 1, 2  # uses of a barrier
_MOST_LINES = 1 << 15
_BARRIER = re.compile(r"\b__sync(?:threads(?:_\w+)?|warp)\s*\(")
_INSTANCE = re.compile(r"^\s*// instance: (\w+<[^>]*>)", re.MULTILINE)
_BOUNDS = re.compile(
    r"template\s*<(?P<template>[^>]*)>\s*__global__\s+(?:void\s+)?__launch_bounds__\((?P<threads>[^),]+)[^)]*\)"
    r"\s*(?:void\s+)?(?P<name>\w+)"
)


class ShimError(RuntimeError):
    """A kernel broke a rule of CUDA: divergent barrier, race, written past the end of an array."""


@cache
def shim_problem():
    """Why kernels cannot be built here, or None."""
    if sys.platform != "linux":
        return "the shim for CUDA kernels runs on Linux only"
    if shutil.which("g++") is None:
        return "there is no g++ to build CUDA kernels for the CPU"
    return None


def environment(mode="plain"):
    """Environment for a process that is to build and load kernels for a mode, and to find those that are there."""
    found = {**os.environ, "CUDA_SHIM_MODE": mode, "CUDA_SHIM_CACHE": str(settings.cache)}
    if mode == "address":
        asked = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
        found["LD_PRELOAD"] = asked.stdout.strip()
        found["ASAN_OPTIONS"] = "detect_leaks=0,detect_stack_use_after_return=0,verify_asan_link_order=0"
    return found


@contextmanager
def using(**changes):
    """Other settings (order, seed, mode, skipped_line) for a while."""
    before = {name: getattr(settings, name) for name in changes}
    vars(settings).update(changes)
    try:
        yield settings
    finally:
        vars(settings).update(before)


def listed_instances(code):
    """Name expressions in the comments `// instance: name<...>` of a source."""
    return [_normal(expression) for expression in _INSTANCE.findall(code)]


def barriers(code):
    """Lines of a source that hold a barrier, with their text."""
    lines = enumerate(code.splitlines(), start=1)
    return {number: text.strip() for number, text in lines if _BARRIER.search(text.partition("//")[0])}


def uses_of_barriers(code):
    """Of each barrier whether the launches of this process ran it, and whether it alone kept two accesses apart.

    Launches under the mode "races" count.
    """
    found = dict.fromkeys(barriers(code), 0)
    for library in _looked[code]:
        uses = (ctypes.c_ubyte * _MOST_LINES).in_dll(library, "shim_uses")
        found = {line: found[line] | uses[line] for line in found}
    return found


def _normal(expression):
    return re.sub(r"\s*([<>,])\s*", r"\1", " ".join(expression.split()))


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"g++ refuses the source:\n{done.stderr[:6000]}")
    return done.stdout


@contextmanager
def _locked(path):
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _path(code, expressions, build):
    """Where the library of these instances is or will be, its text, and what all libraries of the build share."""
    parts = [f'#include "cuda_shim.h"\n#line 1 "source.cu"\n{code}\n#line 1 "launches.cpp"\n']
    for number, expression in enumerate(expressions):
        parts.append(
            f'extern "C" __attribute__((visibility("default"))) int launch_{number}(const unsigned* grid, '
            f"const unsigned* block, long bytes, void** values) "
            f"{{ return shim::launch(&{expression}, grid, block, bytes, values); }}\n"
            f'extern "C" __attribute__((visibility("default"))) void describe_{number}(char* text) '
            f"{{ shim::describe(&{expression}, text); }}\n"
        )
    text = "".join(parts)
    common = repr((COMPILE, BUILDS[build])).encode() + HEADER.read_bytes() + RUNTIME.read_bytes()
    key = hashlib.sha256(common + text.encode()).hexdigest()[:20]
    return Path(settings.cache) / f"{key}.so", text, hashlib.sha256(common).hexdigest()[:20]


@cache
def _build(code, expressions, build, cache):
    """Path of the library with these instances, built unless it is in the cache."""
    library, text, common = _path(code, expressions, build)
    if library.exists():
        return library
    flags, folder, shared = BUILDS[build], cache, cache / f"common-{common}"
    folder.mkdir(parents=True, exist_ok=True)
    _forget_old(folder)
    with _locked(folder / f"{shared.name}.lock"):
        if not shared.exists():
            made = shared.with_suffix(f".{os.getpid()}.tmp")
            made.mkdir()
            _run([*COMPILE, *flags["runtime"], "-I", HERE, "-c", RUNTIME, "-o", made / "runtime.o"])
            # g++ takes it for the header where the folder is on the path before the header's own.
            _run([*COMPILE, *flags["kernels"], "-x", "c++-header", HEADER, "-o", made / f"{HEADER.name}.gch"])
            made.rename(shared)
    with _locked(folder / f"{library.stem}.lock"):
        if not library.exists():
            source, made = library.with_suffix(".cpp"), folder / f"{library.stem}.{os.getpid()}.tmp"
            source.write_text(text)
            _run([*COMPILE, *flags["kernels"], "-I", shared, "-I", HERE, "-c", source, "-o", f"{made}.o"])
            # Each library is to call the scheduler in it, not that of the first one loaded.
            _run(["g++", "-shared", "-Wl,-Bsymbolic", *flags["link"], f"{made}.o", shared / "runtime.o", "-o", made])
            Path(f"{made}.o").unlink()
            made.replace(library)
    return library


def _forget_old(folder, days=14):
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime > days * 86400:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:  # another process was faster
            continue


@cache
def _load(path):
    library = ctypes.CDLL(str(path))
    library.shim_error.restype = ctypes.c_char_p
    library.shim_static_bytes.restype = ctypes.c_long
    return library


class ShimModule:
    """What `cupy.RawModule` is for a GPU: kernels of a source, built for the CPU.

    All instances that the source lists are built together, one run of g++ for a source.
    """

    def __init__(self, code, name_expressions=()):
        self.code = code
        asked = [_normal(expression) for expression in name_expressions or ()]
        listed = listed_instances(code)
        self.expressions = listed if set(asked) <= set(listed) else list(dict.fromkeys(listed + asked))

    def get_function(self, name):
        expression = _normal(name)
        if expression not in self.expressions:
            raise KeyError(f"no instance {name} among {self.expressions}")
        return ShimKernel(self, expression)


class ShimKernel:
    """One instance; called with grid, block, NumPy arrays and scalars of the exact types, and shared bytes."""

    def __init__(self, module, expression):
        self.module, self.expression = module, expression
        self.max_dynamic_shared_size_bytes = SMALL_SHARED
        self.most_threads = _launch_bound(module.code, expression)
        self.arguments, self.built = None, {}

    def __call__(self, grid, block, args, *, shared_mem=0):
        grid, block = _dimensions("grid", grid), _dimensions("block", block)
        threads = block[0] * block[1] * block[2]
        if threads > self.most_threads or block[2] > 64:
            raise ValueError(f"{self.expression}: blocks of {block} threads, {self.most_threads} are allowed")
        if threads % 32:
            raise ValueError(f"{self.expression}: blocks of {threads} threads are not whole warps")
        if grid[0] >= 2**31 or max(grid[1:]) >= 2**16:
            raise ValueError(f"{self.expression}: a grid of {grid} is more than CUDA takes")
        if not 0 <= shared_mem <= self.max_dynamic_shared_size_bytes:
            raise ValueError(f"{self.expression}: {shared_mem} bytes of dynamic shared memory, "
                             f"{self.max_dynamic_shared_size_bytes} were asked for")  # fmt: skip
        library, launch = self._found()
        if len(args) != len(self.arguments):
            raise TypeError(f"{self.expression} takes {len(self.arguments)} arguments, got {len(args)}")
        kept = [_passed(self.expression, k, *both) for k, both in enumerate(zip(args, self.arguments, strict=True))]
        values = (ctypes.c_void_p * len(kept))(*(item.ctypes.data for item in kept))
        with _one_launch:
            races = settings.mode == "races"
            if races:
                _tell_extents(library, args)
                _looked[self.module.code].add(library)
            library.shim_options(ORDERS.index(settings.order), settings.seed, settings.skipped_line, races)
            failed = launch((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), ctypes.c_long(shared_mem), values)
            message, static = library.shim_error().decode(), library.shim_static_bytes()
        if failed:
            raise ShimError(f"{self.expression}: {_explained(message, self.module.code, library._name)}")
        limit = MOST_SHARED if self.max_dynamic_shared_size_bytes > SMALL_SHARED else SMALL_SHARED
        if static + shared_mem > limit:
            raise ValueError(
                f"{self.expression}: {static} bytes of static and {shared_mem} of dynamic shared memory, "
                f"{limit} are there"
            )
        launched[self.module.code].add(self.expression)

    def _found(self):
        """The library for the mode, and the function in it that launches."""
        place = MODES[settings.mode], settings.cache
        if place not in self.built:
            expressions = tuple(self.module.expressions)
            library, number = _load(_build(self.module.code, expressions, *place)), expressions.index(self.expression)
            described = ctypes.create_string_buffer(4096)
            getattr(library, f"describe_{number}")(described)
            self.arguments = described.value.decode().split()
            self.built[place] = library, getattr(library, f"launch_{number}")
        return self.built[place]

    @property
    def max_dynamic_shared_size_bytes(self):
        return self._most_dynamic

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        if size > MOST_SHARED:
            raise ValueError(f"{self.expression}: {size} bytes of shared memory, a block has {MOST_SHARED} at most")
        self._most_dynamic = size


_one_launch = Lock()


def _tell_extents(library, args):
    """What a kernel may touch: arrays among its arguments, and those whose address somebody has asked for."""
    arrays = [value if isinstance(value, np.ndarray) else np.empty(0) for value in args]
    arrays += exposed.values()
    begins = (ctypes.c_size_t * len(arrays))(*(array.ctypes.data for array in arrays))
    sizes = (ctypes.c_long * len(arrays))(*(array.nbytes for array in arrays))
    library.shim_extents(len(args), len(arrays), begins, sizes)


def _dimensions(what, sizes):
    if not isinstance(sizes, tuple) or not 1 <= len(sizes) <= 3:
        raise TypeError(f"{what} must be a tuple of 1 to 3 ints, got {sizes!r}")
    sizes = tuple(int(size) for size in sizes) + (1,) * (3 - len(sizes))
    if min(sizes) < 1:
        raise ValueError(f"{what} must be positive, got {sizes}")
    return sizes


def _passed(expression, position, value, expected):
    """A 0-d array that holds what the kernel gets, an address or a number."""
    pointer, kind, size = expected.startswith("*"), expected.lstrip("*")[0], int(expected.lstrip("*")[1:])
    where = f"{expression}: argument {position}"
    if pointer:
        if isinstance(value, np.ndarray):
            if (value.dtype.kind, value.dtype.itemsize) != (kind.replace("?", "b"), size) and kind != "V":
                raise TypeError(f"{where} must be an array of {_named(kind, size)}, got one of {value.dtype}")
            return np.array(value.ctypes.data, np.uint64)
        if isinstance(value, np.uint64 | np.intp) and value == 0:
            return np.array(0, np.uint64)
        raise TypeError(f"{where} must be a device array of {_named(kind, size)}, got {type(value).__name__}")
    if not isinstance(value, np.generic) or (value.dtype.kind, value.dtype.itemsize) != (kind.replace("?", "b"), size):
        raise TypeError(f"{where} must be a NumPy scalar of {_named(kind, size)}, got {type(value).__name__}")
    return np.array(value)


def _named(kind, size):
    return {"f": "float", "i": "int", "u": "uint", "?": "bool", "V": "structs of "}[kind] + f"{8 * size}"


def _launch_bound(code, expression):
    name, arguments = expression.rstrip(">").split("<", 1) if "<" in expression else (expression, "")
    for match in _BOUNDS.finditer(code):
        if match["name"] == name:
            names = [parameter.split()[-1] for parameter in match["template"].split(",")]
            given = dict(zip(names, arguments.split(","), strict=False))
            words = " ".join(given.get(word, word) for word in re.findall(r"\w+|\S", match["threads"]))
            constants = dict(re.findall(r"^#define\s+(\w+)\s+(\d+)\s*$", code, re.MULTILINE))
            constants |= dict(re.findall(r"constexpr\s+int\s+(\w+)\s*=\s*(\d+)\s*;", code))
            return int(eval(words, {"__builtins__": {}}, {key: int(value) for key, value in constants.items()}))
    return 1024


def _explained(message, code, library):
    """The message with addresses turned into lines, and the text of the lines."""
    lines = code.splitlines()

    def line_text(number):
        text = lines[number - 1].strip() if 0 < number <= len(lines) else "?"
        return f"line {number} ({text})"

    def from_address(match):
        found = subprocess.run(["addr2line", "-e", library, match[1]], capture_output=True, text=True).stdout
        number = re.search(r"source\.cu:(\d+)", found)
        return line_text(int(number[1])) if number else "?"

    message = re.sub(r"line (\d+)", lambda match: line_text(int(match[1])), message)
    return re.sub(r"\{([0-9a-f]+)\}", from_address, message)
