"""Measure the GPU: the card's ceilings, correctness, then each work of the table: `python benchmarks/gpu.py`.

Writes results/gpu.json with the device, its driver and the versions. Beside our time stand the floor that the card's
measured ceilings allow, our own CPU, and public packages where they are installed: orthogonal-matching-pursuit-gpu and
PyTorch. Works that take the CPU or a peer too long are measured on a part of the signals, and said to be.

    python benchmarks/gpu.py                          # everything
    python benchmarks/gpu.py --rows omp lasso_1024    # some rows
    python benchmarks/gpu.py --quick                  # small sizes, to see that it runs; measures nothing
    python benchmarks/gpu.py --sanitize               # correctness under compute-sanitizer's memcheck and racecheck
    python benchmarks/gpu.py --shim                   # tiny sizes, kernels on the CPU by the tests' fake CuPy
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
from report import environment

HERE = Path(__file__).parent
GATHER = """
template <typename T>
__global__ void gather_rows(const T* __restrict__ rows, const int* __restrict__ picked, T* __restrict__ out,
                            const int n_picked, const int width) {
  T sum = T(0);
  for (int k = 0; k < n_picked; ++k) {
    const long long row = picked[blockIdx.x * (long long)n_picked + k];
    for (int j = threadIdx.x; j < width; j += blockDim.x) sum += rows[row * width + j];
  }
  out[blockIdx.x * (long long)blockDim.x + threadIdx.x] = sum;
}
"""


class Bench:
    """Sizes, clocks and signals that the rows share."""

    def __init__(self, cupy, sizes, cpu_share):
        self.cupy, self.sizes, self.cpu_share = cupy, sizes, cpu_share
        self.ceilings = {}

    @property
    def tiny(self):
        """Whether the kernels run on a CPU."""
        return self.sizes.share < 0.001

    def size(self, full):
        """A number of signals as asked for, fewer in a quick run."""
        return max(int(full * self.sizes.share), min(full, self.sizes.least))

    def atoms(self, full):
        """A number of atoms likewise."""
        return min(full, 40) if self.tiny else full

    def seconds(self, work, repeats=5):
        """Least time of several runs on the device, after one to warm up, and the last result."""
        work()
        least = np.inf
        for _ in range(repeats if self.sizes.share == 1 else 1):
            result = None  # its memory serves the next run
            self.cupy.cuda.Device().synchronize()
            start = time.perf_counter()
            result = work()
            self.cupy.cuda.Device().synchronize()
            least = min(least, time.perf_counter() - start)
        return least, result

    def host_seconds(self, work, n):
        """Time on the CPU of `work(rows)` for all signals, from a part of them."""
        part = max(1, int(n * self.cpu_share))
        work(slice(0, min(part, 256)))  # compiles
        start = time.perf_counter()
        work(slice(0, part))
        return (time.perf_counter() - start) * n / part, part

    def memory(self, work):
        """Bytes that the device's pool grew by."""
        pool = self.cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        result = work()
        grown = pool.total_bytes() - before
        del result
        return int(grown)


def signals(n, n_features, n_atoms, seed=0, noise=0.05):
    """Signals of ten atoms and noise, of unit norm, and the atoms, in float32."""
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((n_atoms, n_features)).astype(np.float32)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    X = noise * rng.standard_normal((n, n_features), dtype=np.float32)
    for _ in range(10):
        X += rng.standard_normal((n, 1), dtype=np.float32) * D[rng.integers(n_atoms, size=n)]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, D


# ---- what the card can do


def ceilings(bench):
    """Rates of copies, products, gathers out of the L2 cache, and transfers; seconds of a launch."""
    import cupyx

    cp, small = bench.cupy, bench.sizes.share < 1
    found = {}
    n = 1 << (16 if small else 29)
    a, b = cp.ones(n, np.float32), cp.empty(n, np.float32)
    found["copy_GB_per_s"] = 8e-9 * n / bench.seconds(lambda: cp.copyto(b, a))[0]
    for dtype in (np.float32, np.float64):
        m = 64 if small else 8192
        square = cp.ones((m, m), dtype)
        name = np.dtype(dtype).name
        found[f"product_{name}_TFLOP_per_s"] = 2e-12 * m**3 / bench.seconds(lambda square=square: square @ square)[0]
    rows, k = (64, 32) if small else (1_000_000, 1024)
    x, d = cp.ones((rows, 64), np.float32), cp.ones((64, k), np.float32)
    found["product_rows_64_1024_TFLOP_per_s"] = 2e-12 * rows * 64 * k / bench.seconds(lambda: x @ d)[0]
    module = cp.RawModule(code=GATHER, options=("-std=c++17",), name_expressions=("gather_rows<float>",))
    gather = module.get_function("gather_rows<float>")
    blocks, picks = (4, 3) if small else (100_000, 10)
    gram, out = cp.ones((k, k), np.float32), cp.empty((blocks, 128), np.float32)
    picked = cp.asarray(np.random.default_rng(0).integers(k, size=(blocks, picks), dtype=np.int32))
    arguments = (gram, picked, out, np.int32(picks), np.int32(k))
    time_of = bench.seconds(lambda: gather((blocks,), (128,), arguments))[0]
    found["gather_GB_per_s"] = 4e-9 * blocks * picks * k / time_of
    launches = 5 if small else 2000
    few = (gram, picked, out, np.int32(0), np.int32(k))
    found["launch_us"] = 1e6 / launches * bench.seconds(lambda: [gather((1,), (32,), few) for _ in range(launches)])[0]
    n = 1 << (12 if small else 28)
    pinned, pageable = cupyx.empty_pinned(n, np.float32), np.ones(n, np.float32)
    pinned.fill(1)
    device = cp.empty(n, np.float32)
    found["to_device_pinned_GB_per_s"] = 4e-9 * n / bench.seconds(lambda: device.set(pinned))[0]
    found["to_device_pageable_GB_per_s"] = 4e-9 * n / bench.seconds(lambda: device.set(pageable))[0]
    found["to_host_pinned_GB_per_s"] = 4e-9 * n / bench.seconds(lambda: device.get(out=pinned))[0]
    return found


# ---- whether it is right


def correctness(bench):
    """Largest relative differences to the CPU: objectives and residuals, in both precisions."""
    from sparseshare import MiniBatchDictionaryLearning, conv_sparse_encode, sparse_encode

    cp, found = bench.cupy, {}
    n = 20 if bench.tiny else 300
    X, D = signals(n, 24, 40)
    rng = np.random.default_rng(1)
    image, atoms, penalty = rng.standard_normal((1, 20, 22)), rng.standard_normal((3, 5, 5)), 0.5
    if bench.tiny:
        image, atoms, penalty = image[:, :9, :10], atoms[:2, :3, :3], 1.0  # so that it converges soon
    for dtype in (np.float32, np.float64):
        x, d = X.astype(dtype), D.astype(dtype)
        for name, options in {
            "omp": {"algorithm": "omp", "n_nonzero_coefs": 5},
            "omp to an error": {"algorithm": "omp", "max_error": 0.1},
            "lasso": {"algorithm": "lasso_cd", "alpha": 0.05, "tol": 1e-9 if dtype is np.float64 else 1e-6},
            "fista": {"algorithm": "fista", "alpha": 0.05, "tol": 1e-9 if dtype is np.float64 else 1e-6},
        }.items():
            both = [sparse_encode(x, d, **options), sparse_encode(cp.asarray(x), cp.asarray(d), **options).get()]
            values = [_value(X, D, Z, options.get("alpha", 0)) for Z in both]
            differences = np.abs(values[1] - values[0]) / values[0].clip(1e-3)
            found[f"{name}, {np.dtype(dtype).name}"] = float(differences.max())
        options = {"alpha": penalty, "solver": "fista", "tol": 1e-10 if dtype is np.float64 else 1e-6}
        maps = conv_sparse_encode(image.astype(dtype), atoms.astype(dtype), **options)
        there = conv_sparse_encode(cp.asarray(image.astype(dtype)), cp.asarray(atoms.astype(dtype)), **options)
        values = [_map_value(image[0], atoms, np.asarray(z, float)[0], penalty) for z in (maps, there.get())]
        found[f"convolution, {np.dtype(dtype).name}"] = abs(values[1] - values[0]) / values[0]
        learner = MiniBatchDictionaryLearning(10, max_iter=1, batch_size=n // 2, random_state=0, shuffle=False)
        learnt = [learner.fit(x).components_, learner.fit(cp.asarray(x)).components_.get()]
        found[f"learning, {np.dtype(dtype).name}"] = float(np.max(np.abs(learnt[1] - learnt[0])))
    limits = {name: 1e-5 if "float32" in name else 1e-10 for name in found}
    limits |= {f"learning, {name}": limit for name, limit in {"float32": 1e-3, "float64": 1e-8}.items()}
    return {
        name: {"difference": found[name], "at_most": limits[name], "met": found[name] <= limits[name]} for name in found
    }


def _value(X, D, codes, alpha):
    Z = np.asarray(codes, float)
    return 0.5 * ((X - Z @ D.astype(float)) ** 2).sum(axis=1) + alpha * np.abs(Z).sum(axis=1)


def _map_value(image, atoms, maps, alpha):
    def spectrum(x):
        return np.fft.rfft2(x, s=image.shape)

    rest = np.fft.irfft2((spectrum(atoms) * spectrum(maps)).sum(axis=0), s=image.shape) - image
    return 0.5 * float((rest**2).sum()) + alpha * float(np.abs(maps).sum())


# ---- the table


def omp(bench, n=1_000_000, n_features=64, n_atoms=1024, n_nonzero=10):
    """Orthogonal matching pursuit, signals and codes on the device."""
    from sparseshare import sparse_encode

    n, n_atoms, cp = bench.size(n), bench.atoms(n_atoms), bench.cupy
    X, D = signals(n, n_features, n_atoms)
    x, d = cp.asarray(X), cp.asarray(D)
    options = {"algorithm": "omp", "n_nonzero_coefs": n_nonzero, "sparse_output": True}

    def work():
        return sparse_encode(x, d, **options)

    ours, _ = bench.seconds(work)
    row = {"seconds": ours, "bytes": bench.memory(work)}
    row |= _floor(bench, ours, 2.5, product=2 * n * n_features * n_atoms, copied=8 * n * n_atoms,
                  gathered=4 * n * n_nonzero * n_atoms, flops=n * n_atoms * n_nonzero * (n_nonzero + 1))  # fmt: skip
    row |= _cpu(bench, ours, lambda rows: sparse_encode(X[rows], D, n_jobs=-1, **options), n)
    return row | _peer(ours, row["bytes"], lambda: _torch_omp(X, D, n_nonzero, bench), 5)


def _torch_omp(X, D, n_nonzero, bench):
    """Seconds and bytes of orthogonal-matching-pursuit-gpu for all signals, as many at once as its arrays allow."""
    import torch
    from orthogonal_matching_pursuit_gpu.omp import run_omp

    x, atoms = torch.as_tensor(X, device="cuda"), torch.as_tensor(D.T.copy(), device="cuda")
    at_once = min(len(X), 200_000)

    def work():
        for first in range(0, len(X), at_once):
            run_omp(atoms, x[first : first + at_once], n_nonzero, normalize=False, fit_intercept=False)

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    least, _ = bench.seconds(lambda: (work(), torch.cuda.synchronize()), repeats=3)
    used = (torch.cuda.max_memory_allocated() - before) * len(X) / at_once
    torch.cuda.empty_cache()
    return {"peer": "orthogonal-matching-pursuit-gpu", "seconds": least, "bytes": int(used), "at_once": at_once}


def lasso(bench, n_atoms, n=1_000_000, n_features=64, tol=1e-4):
    """Lasso to a duality gap of 1e-4 against FISTA here and our CPU."""
    from sparseshare import sparse_encode

    n, n_atoms, cp = bench.size(n), bench.atoms(n_atoms), bench.cupy
    X, D = signals(n, n_features, n_atoms)
    alpha = 0.1 * float(np.median(np.abs(X[:1000] @ D.T).max(axis=1)))
    x, d = cp.asarray(X), cp.asarray(D)
    options = {"alpha": alpha, "tol": tol, "sparse_output": True}
    ours, _ = bench.seconds(lambda: sparse_encode(x, d, algorithm="lasso_cd", **options), repeats=3)
    fista, _ = bench.seconds(lambda: sparse_encode(x, d, algorithm="fista", **options), repeats=1)
    row = {"seconds": ours, "fista_seconds": fista, "fista_ratio": fista / ours, "fista_at_least": 3}
    row["fista_met"] = row["fista_ratio"] >= 3
    return row | _cpu(
        bench, ours, lambda rows: sparse_encode(X[rows], D, algorithm="lasso_cd", n_jobs=-1, **options), n, at_least=20
    )


def fista_iteration(bench, n=1_000_000, n_features=64, n_atoms=1024):
    """One iteration of FISTA, from the difference of two numbers of them."""
    from sparseshare import sparse_encode

    n, n_atoms, cp = bench.size(n), bench.atoms(n_atoms), bench.cupy
    X, D = signals(n, n_features, n_atoms)
    x, d = cp.asarray(X), cp.asarray(D)
    few, many = (10, 60) if bench.sizes.share == 1 else (2, 12)

    def seconds(max_iter):
        options = {"alpha": 0.02, "tol": 0.0, "max_iter": max_iter, "sparse_output": True}
        return bench.seconds(lambda: sparse_encode(x, d, algorithm="fista", **options), repeats=3)[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is not to converge
        ours = max((seconds(many) - seconds(few)) / (many - few), 1e-9)
    items = 7 * n * n_atoms + 4 * n * n_features
    product = 4 * n * n_features * n_atoms
    return {"seconds": ours} | _floor(bench, ours, 1.5, copied=4 * items, product=product, overlap=True)


def convolution(bench, side=512, n_atoms=64, support=11):
    """One iteration of convolutional FISTA on one image."""
    from sparseshare import conv_sparse_encode

    if bench.sizes.share < 1:
        side, n_atoms, support = (24, 3, 5) if bench.tiny else (128, 16, 7)
    cp, rng = bench.cupy, np.random.default_rng(0)
    atoms = rng.standard_normal((n_atoms, support, support)).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=(1, 2), keepdims=True)
    image = rng.standard_normal((1, side, side)).astype(np.float32)
    x, d = cp.asarray(image), cp.asarray(atoms)
    few, many = (10, 60) if bench.sizes.share == 1 else (2, 12)
    options = {"alpha": 0.1, "alpha_relative": True, "solver": "fista", "tol": 1e-12, "sparse_output": True}

    def iteration(x, d):
        def seconds(max_iter):
            return bench.seconds(lambda: conv_sparse_encode(x, d, max_iter=max_iter, **options), repeats=3)[0]

        return max((seconds(many) - seconds(few)) / (many - few), 1e-9)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, host = iteration(x, d), iteration(image, atoms)
    pixels = side * side
    # Two real transforms of all maps, read and written once each way a dimension; products; the step's five passes.
    transforms, products, step = 8 * 4 * n_atoms * pixels, 3 * 4 * n_atoms * pixels, 5 * 4 * n_atoms * pixels
    row = {"seconds": ours, "cpu_seconds": host, "cpu_ratio": host / ours}
    return row | _floor(bench, ours, 2, copied=transforms + products + step)


def learning(bench, n=10_000_000, n_features=64, n_atoms=256):
    """Mini-batches of patches that come from the host's memory."""
    from sparseshare import MiniBatchDictionaryLearning

    n, n_atoms = bench.size(n), bench.atoms(n_atoms)
    X, _ = signals(n, n_features, n_atoms)
    batch = min(n // 2, 16_384)

    def fit(rows, device, **options):
        learner = MiniBatchDictionaryLearning(
            n_atoms, alpha=0.1, batch_size=batch, max_iter=1, tol=0.0, max_no_improvement=None, random_state=0,
            device=device, **options,
        )  # fmt: skip
        return learner.fit(X[rows])

    ours, _ = bench.seconds(lambda: fit(slice(None), "cuda"), repeats=1)
    row = {"seconds": ours, "signals_per_s": n / ours, "host_bytes": int(X.nbytes)}
    return row | _cpu(bench, ours, lambda rows: fit(rows, "cpu", n_jobs=-1), n, at_least=15)


def network(bench, n=60_000):
    """An epoch of Adam through images of 28 x 28: conv32-pool-conv64-pool-dense128."""
    from sparseshare import DeepSparseClassifier
    from sparseshare.network import Conv, Dense, Flatten, MaxPool

    n, rng = bench.size(n), np.random.default_rng(0)
    images, labels = rng.random((n, 28, 28), dtype=np.float32), np.arange(n) % 10
    sizes = (2, 3, 4) if bench.tiny else (32, 64, 128)

    def fit(images, rows=slice(None), **options):
        layers = [Conv(sizes[0], 3), MaxPool(2), Conv(sizes[1], 3), MaxPool(2), Flatten(), Dense(sizes[2])]
        classifier = DeepSparseClassifier(
            layers, batch_size=128, max_iter=1, n_iter_no_change=None, alpha=0, random_state=0, **options
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an epoch is not all it takes
            return classifier.fit(images[rows], labels[rows])

    there = bench.cupy.asarray(images)  # beforehand, as for PyTorch
    ours, _ = bench.seconds(lambda: fit(there), repeats=3)
    row = {"seconds": ours, "images_per_s": n / ours} | _cpu(bench, ours, lambda rows: fit(images, rows, n_jobs=-1), n)
    return row | _peer(ours, None, lambda: _torch_network(images, labels, sizes, bench), 1)


def _torch_network(images, labels, sizes, bench):
    """Seconds of the same epoch in PyTorch, eager, images on the device beforehand."""
    import torch
    from torch import nn

    x = torch.as_tensor(images[:, None], device="cuda")
    y = torch.as_tensor(labels.astype(np.int64), device="cuda")
    first, second, units = sizes

    def fit():
        model = nn.Sequential(
            nn.Conv2d(1, first, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(first, second, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(25 * second, units), nn.ReLU(), nn.Linear(units, 10),
        ).to("cuda")  # fmt: skip
        optimizer, loss = torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
        for rows in torch.randperm(len(x), device="cuda").split(128):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
        torch.cuda.synchronize()

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return {"peer": f"PyTorch {torch.__version__}, eager", "seconds": bench.seconds(fit, repeats=3)[0]}


def _floor(bench, ours, at_most, copied=0, product=0, gathered=0, flops=0, overlap=False):
    """What the measured ceilings allow: memory, products, gathers and other arithmetic one after the other."""
    rates = bench.ceilings
    peak = 1e12 * rates["product_float32_TFLOP_per_s"]
    memory, multiply = copied / (1e9 * rates["copy_GB_per_s"]), product / peak
    rest = max(gathered / (1e9 * rates["gather_GB_per_s"]), flops / peak)
    floor = max(memory, multiply) + rest if overlap else memory + multiply + rest
    ratio = ours / floor
    return {"floor_seconds": floor, "floor_ratio": ratio, "floor_at_most": at_most, "floor_met": ratio <= at_most}


def _cpu(bench, ours, work, n, at_least=None):
    seconds, part = bench.host_seconds(work, n)
    row = {"cpu_seconds": seconds, "cpu_measured_on": part, "cpu_ratio": seconds / ours}
    return row if at_least is None else row | {"cpu_at_least": at_least, "cpu_met": seconds / ours >= at_least}


def _peer(ours, our_bytes, measure, at_least):
    """Figures of a public package, or why there are none."""
    try:
        peer = measure()
    except Exception as error:  # it is not ours: missing, no device, out of memory
        return {"peer_left_out": f"{type(error).__name__}: {error}"[:200]}
    row = {f"peer_{name}" if name != "peer" else name: value for name, value in peer.items()}
    row |= {"peer_ratio": peer["seconds"] / ours, "peer_at_least": at_least}
    row["peer_met"] = row["peer_ratio"] >= at_least
    if our_bytes and "bytes" in peer:
        row |= {"peer_bytes_ratio": peer["bytes"] / our_bytes, "peer_bytes_met": our_bytes <= peer["bytes"] / 10}
    return row


ROWS = {
    "omp": omp,
    "lasso_256": lambda bench: lasso(bench, 256),
    "lasso_1024": lambda bench: lasso(bench, 1024),
    "fista_iteration": fista_iteration,
    "convolution": convolution,
    "learning": learning,
    "network": network,
}


# ---- running it


def device_facts(cupy):
    """The card, its driver and the versions that the results depend on."""
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    name = properties["name"]
    return {
        "device": name.decode() if isinstance(name, bytes) else name,
        "multiprocessors": int(properties["multiProcessorCount"]),
        "memory_GB": round(cupy.cuda.runtime.memGetInfo()[1] / 1e9, 1),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


@contextmanager
def shim():
    """The fake CuPy of the tests, its kernels built by g++."""
    package = ModuleType("gpu")  # tests/gpu, not this file
    package.__path__ = [str(HERE.parent / "tests" / "gpu")]
    sys.modules["gpu"] = package
    from gpu import fake_cupy

    set_item = SimpleNamespace(setitem=dict.__setitem__, delitem=dict.__delitem__)
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("cupy", "cupyx")}
    yield fake_cupy.install(set_item)
    for name in fake_cupy.MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


def sanitize():
    """Correctness under compute-sanitizer; errors of each tool, or why there are none."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return {"left_out": "compute-sanitizer is not on the path"}
    found = {}
    for tool in ("memcheck", "racecheck"):
        command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, __file__, "--quick", "--rows"]
        done = subprocess.run([*command, "correctness"], capture_output=True, text=True)
        summaries = [line for line in done.stdout.splitlines() if "SUMMARY" in line]
        found[tool] = {"clean": done.returncode == 0, "summary": " ".join(summaries)[:500]}
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measure sparseshare on a GPU.")
    parser.add_argument(
        "--rows", nargs="*", default=list(ROWS), metavar="row", help=f"some of {', '.join(ROWS)}, correctness"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--shim", action="store_true", help="tiny sizes on the tests' fake CuPy, without a GPU")
    parser.add_argument("--sanitize", action="store_true", help="also correctness under compute-sanitizer")
    parser.add_argument("--cpu-share", type=float, default=0.02, help="share of the signals that the CPU gets (0.02)")
    parser.add_argument(
        "--output", type=Path, help="file to write (default: results/gpu.json; output/gpu.json if quick)"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.rows) - set(ROWS) - {"correctness"}
    if unknown:
        parser.error(f"unknown rows {sorted(unknown)}: choose from {', '.join(ROWS)}, correctness")
    if options.shim:
        with shim() as cupy:
            return measure(cupy, options, SimpleNamespace(share=1e-6, least=40))
    from sparseshare.devices import gpu_problem

    problem = gpu_problem()
    if problem is not None:
        raise SystemExit(f"no GPU to measure: {problem}")
    import cupy

    return measure(cupy, options, SimpleNamespace(share=0.01 if options.quick else 1, least=2000))


def measure(cupy, options, sizes):
    """Run what was asked for, print it, and write the file, after each row anew."""
    bench = Bench(cupy, sizes, 0.5 if sizes.share < 1 else options.cpu_share)
    folder = HERE / ("results" if sizes.share == 1 else "output")
    path = options.output or folder / "gpu.json"
    path.parent.mkdir(exist_ok=True)
    content = {"command": "gpu", "environment": None, "ceilings": None, "correctness": None, "rows": {}}
    if path.exists():
        content["rows"] = json.loads(path.read_text()).get("rows", {})

    def keep(**parts):
        content.update(parts)
        path.write_text(json.dumps(content, indent=1, default=float) + "\n")

    bench.ceilings = ceilings(bench)
    copy = np.ones(1 << 24)
    start = time.perf_counter()
    copy.copy()
    bandwidth = 2 * copy.nbytes / (time.perf_counter() - start)
    keep(environment=environment(os.cpu_count(), bandwidth) | device_facts(cupy), ceilings=bench.ceilings)
    for name, value in bench.ceilings.items():
        print(f"{name:36} {value:12.4g}", flush=True)
    keep(correctness=correctness(bench))
    for name, check in content["correctness"].items():
        print(f"{name:36} {check['difference']:12.2e}  {'met' if check['met'] else 'MISSED'}", flush=True)
    if options.sanitize:
        keep(sanitizer=sanitize())
        print(content["sanitizer"], flush=True)
    for name in options.rows:
        if name == "correctness":
            continue
        row = ROWS[name](bench)
        keep(rows=content["rows"] | {name: row})
        print(f"{name:18} {row['seconds']:10.4g} s", *_verdicts(row), sep="  ", flush=True)
        cupy.get_default_memory_pool().free_all_blocks()
    print(path)
    return content


def _verdicts(row):
    for kind in ("floor", "cpu", "fista", "peer"):
        if f"{kind}_ratio" in row:
            met = row.get(f"{kind}_met")
            verdict = "" if met is None else " met" if met else " MISSED"
            yield f"{row.get(kind, kind)} x {row[f'{kind}_ratio']:.3g}{verdict}"
    if "peer_left_out" in row:
        yield f"peer left out: {row['peer_left_out']}"


if __name__ == "__main__":
    main()
