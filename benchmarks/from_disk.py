"""Learning from and encoding more patches than fit in memory: resident memory and throughput against in memory.

Patches of 64 float32 features of the two photographs in scikit-learn go into a temporary .npy file, are learned from in
one epoch and encoded into a folder of sparse codes. Every run has a process of its own. In memory the same is done with
the whole array loaded; both learn the same dictionary to the last bit.

    python benchmarks/from_disk.py                      # 1 and 10 million
    python benchmarks/from_disk.py 1000000 2000000
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_FEATURES, N_ATOMS, BATCH, ALPHA = 64, 128, 1024, 0.2
MOST_RESIDENT, LEAST_SHARE, MOST_GROWTH = 600, 0.9, 40  # MB, of the throughput in memory, MB from least to most


def write_patches(file, n_patches):
    """Patches of both photographs, at random places, centred; turned and scaled at random, so that they are many."""
    from sparseshare.datasets import load_photographs

    rng = np.random.default_rng(0)
    windows = np.lib.stride_tricks.sliding_window_view(load_photographs(np.float32), (8, 8), axis=(1, 2))
    X = np.lib.format.open_memmap(file, "w+", np.float32, (n_patches, N_FEATURES))
    for start in range(0, n_patches, 100_000):
        size = min(100_000, n_patches - start)
        places = (rng.integers(0, length, size) for length in windows.shape[:3])
        patches = np.rot90(windows[tuple(places)], rng.integers(4), axes=(1, 2)).reshape(size, N_FEATURES)
        patches = patches - patches.mean(axis=1, keepdims=True)
        X[start : start + size] = patches * rng.uniform(2, 4, (size, 1)).astype(np.float32)
    X.flush()


def resident(field):
    """MB."""
    return int(re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[1]) / 1024


def measure(mode, file, folder):
    """What a process of its own prints."""
    from sparseshare import MiniBatchDictionaryLearning

    def learner():
        return MiniBatchDictionaryLearning(
            N_ATOMS, alpha=ALPHA, batch_size=BATCH, max_iter=1, tol=0, max_no_improvement=None, random_state=0,
            sparse_output=True,
        )  # fmt: skip

    X = np.load(file, mmap_mode="r" if mode == "disk" else None)
    learner().fit(X[:4096]).transform(X[:4096])  # compiles
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    fitted = learner().fit(X)
    fitting = time.perf_counter() - start
    start = time.perf_counter()
    codes = fitted.transform(X, out=folder) if mode == "disk" else fitted.transform(X)
    coding = time.perf_counter() - start
    peak = resident("VmHWM")
    sums = [float(block.rows.sum()) for block in codes.blocks()] if mode == "disk" else [float(codes.sum())]
    checks = float(fitted.components_.sum()), sum(sums)
    print(json.dumps(dict(fit=len(X) / fitting, transform=len(X) / coding, peak=peak, checks=checks)))


def run(mode, file, folder):
    command = [sys.executable, __file__, "--mode", mode, "--file", str(file), "--folder", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[1_000_000, 10_000_000])
    parser.add_argument("--temporary", help="where files go; a disk, not a part of memory")
    for name in ("--mode", "--file", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.mode:
        measure(given.mode, given.file, given.folder)
        return
    peaks, passed = [], True
    print(f"{'patches':>10} {'mode':>7} {'peak MB':>8} {'fit/s':>9} {'transform/s':>12}")
    for n_patches in given.sizes:
        with tempfile.TemporaryDirectory(dir=given.temporary) as folder:
            file = Path(folder) / "patches.npy"
            write_patches(file, n_patches)
            rows = {mode: run(mode, file, Path(folder) / "codes") for mode in ("memory", "disk")}
        for mode, row in rows.items():
            print(f"{n_patches:10} {mode:>7} {row['peak']:8.0f} {row['fit']:9.0f} {row['transform']:12.0f}", flush=True)
        shares = {what: rows["disk"][what] / rows["memory"][what] for what in ("fit", "transform")}
        print(f"{'':10} throughput from disk against in memory: fit {shares['fit']:.2f}, transform "
              f"{shares['transform']:.2f}")  # fmt: skip
        same = np.allclose(rows["disk"]["checks"], rows["memory"]["checks"], rtol=1e-5)
        peaks.append(rows["disk"]["peak"])
        passed = passed and same and min(shares.values()) >= LEAST_SHARE and peaks[-1] < MOST_RESIDENT
    growth = max(peaks) - min(peaks)
    print(f"peak from disk at most {max(peaks):.0f} MB, {growth:.0f} MB apart")
    sys.exit(0 if passed and growth < MOST_GROWTH else 1)


if __name__ == "__main__":
    main()
