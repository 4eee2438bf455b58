"""Every kernel instance compiles for three architectures: no warning, no spill, registers within the stated bound."""

import ctypes
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from sparseshare.kernels.gpu import module

ARCHITECTURES = ("sm_75", "sm_90", "sm_120")
OPTIONS = (*module.OPTIONS, "-ftz=true", "--ptxas-options=-v")  # CuPy flushes denormals too
_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@cache
def nvrtc():
    """NVIDIA's run-time compiler from the wheel nvidia-cuda-nvrtc; it needs no CuPy, no driver and no GPU."""
    spec = importlib.util.find_spec("nvidia")
    roots = spec.submodule_search_locations if spec else ()
    found = [path for root in roots for path in Path(root).rglob("libnvrtc.so*")]
    if not found:
        return None
    for builtins in max(found).parent.glob("libnvrtc-builtins.so*"):  # NVRTC looks for it by name only
        ctypes.CDLL(str(builtins))
    library = ctypes.CDLL(str(max(found)))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


needs_nvrtc = pytest.mark.skipif(nvrtc() is None, reason="NVRTC is not installed: pip install nvidia-cuda-nvrtc")


def compile_source(code, expressions, architecture):
    """Log of the compilation and the instances' names in it."""
    library, program = nvrtc(), ctypes.c_void_p()

    def call(function, *arguments):
        return getattr(library, f"nvrtc{function}")(*arguments)

    assert call("CreateProgram", ctypes.byref(program), code.encode(), b"source.cu", 0, None, None) == 0
    try:
        for expression in expressions:
            assert call("AddNameExpression", program, expression.encode()) == 0
        options = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in OPTIONS)]
        failed = call("CompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*options))
        size = ctypes.c_size_t()
        call("GetProgramLogSize", program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        call("GetProgramLog", program, log)
        text = log.value.decode()
        assert not failed, f"NVRTC for {architecture}:\n{text}"
        names = {}
        for expression in expressions:
            lowered = ctypes.c_char_p()
            assert call("GetLoweredName", program, expression.encode(), ctypes.byref(lowered)) == 0
            names[expression] = lowered.value.decode()
        return text, names
    finally:
        call("DestroyProgram", ctypes.byref(program))


def used(code, expressions, architecture):
    """Registers and bytes spilt of each instance, and the lines of the log that are warnings."""
    log, names = compile_source(code, expressions, architecture)
    found = {entry["name"]: entry for entry in _ENTRY.finditer(log)}
    instances = {
        expression: [int(found[name]["registers"]), int(found[name]["stores"]) + int(found[name]["loads"])]
        for expression, name in names.items()
    }
    return {"instances": instances, "warnings": [line for line in log.splitlines() if "warning" in line.lower()]}


@needs_nvrtc
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("family", module.families())
def test_instances_compile(family, architecture):
    bounds = module.instances(family)
    assert bounds, f"{family}.cu lists no instance"
    result = used(module.source(family), list(bounds), architecture)
    assert not result["warnings"], "\n".join(result["warnings"])
    for expression, (registers, spilt) in result["instances"].items():
        assert spilt == 0, f"{expression} spills {spilt} bytes on {architecture}"
        assert registers <= bounds[expression], f"{expression}: {registers} registers on {architecture}"


@pytest.mark.parametrize("family", module.families())
def test_registers_are_stated_for_each_kernel(family):
    """Each kernel has an instance, and each line that looks like one is read as one."""
    listed = {expression.partition("<")[0] for expression in module.instances(family)}
    assert listed == set(module.signatures(family)), f"{family}.cu: kernels and instances differ"
    assert module.source(family).count("// instance:") == len(module.instances(family))
    assert module.source(family).count("__global__") == len(module.signatures(family))


@needs_nvrtc
def test_what_is_looked_for_is_found():
    """A kernel that spills and one that warns."""
    code = """
    template <typename T, int N> __global__ void __launch_bounds__(1024, 2) spills(T* x, const int k) {
      T values[N];
      #pragma unroll
      for (int i = 0; i < N; ++i) values[i] = x[i * 1024 + threadIdx.x];
      __syncthreads();
      #pragma unroll
      for (int i = 0; i < N; ++i) x[(i * k) * 1024 + threadIdx.x] = values[i] * values[N - 1 - i];
    }
    template <typename T> __global__ void warns(T* x) { int unused = 3; unsigned k = 1; x[0] = k < 0 ? T(1) : T(2); }
    """
    result = used(code, ["spills<double, 40>", "warns<float>"], "sm_90")
    assert result["instances"]["spills<double, 40>"][1] > 0 and result["instances"]["warns<float>"][1] == 0
    assert any("never referenced" in line for line in result["warnings"])
    with pytest.raises(AssertionError, match="undefined"):
        used("template <typename T> __global__ void bad(T* x) { x[0] = nothing; }", ["bad<int>"], "sm_90")
