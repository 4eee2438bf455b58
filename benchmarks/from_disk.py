"""Learning from and encoding more patches than fit in memory: resident memory and throughput against in memory.

Patches of 64 float32 features of the two photographs in scikit-learn go into a temporary .npy file, are learned from in
one epoch and encoded into a folder of sparse codes. In memory the same is done with the whole array, and the codes stay
in memory; both learn the same dictionary to the last bit. "cold" is from disk again, after the system has been told to
forget what it keeps of the file, as it has of one that is larger than its memory.

Resident memory is that of a process of its own; for the throughput all take turns in one process, and the medians
count: about half an hour.

    python benchmarks/from_disk.py                      # 1 and 10 million: results/from_disk.md
    python benchmarks/from_disk.py 200000 500000        # other sizes, nothing is kept
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from report import processor, versions

from sparseshare.threads import thread_count

N_FEATURES, N_ATOMS, BATCH, ALPHA = 64, 128, 1024, 0.2
MODES = "memory", "disk", "cold"
SIZES = 1_000_000, 10_000_000
N_TURNS = 3
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


def forget(file):
    """Take a file out of the cache of the system, so that all of it is read from the disk again."""
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(modes, n_turns, file, folder):
    """What a process of its own prints: rates of every mode, what it made, and the most memory of all."""
    from sparseshare import MiniBatchDictionaryLearning

    def learner():
        return MiniBatchDictionaryLearning(
            N_ATOMS, alpha=ALPHA, batch_size=BATCH, max_iter=1, tol=0, max_no_improvement=None, random_state=0,
            sparse_output=True,
        )  # fmt: skip

    def timed(mode, what, work):
        shutil.rmtree(folder, ignore_errors=True)  # codes that are there would not be computed again
        if mode == "cold":
            forget(file)
        start = time.perf_counter()
        result = work()
        found[mode][what].append(len(signals[mode]) / (time.perf_counter() - start))
        return result

    signals = {mode: np.load(file, mmap_mode=None if mode == "memory" else "r") for mode in modes}
    found = {mode: dict(fit=[], transform=[]) for mode in modes}
    learner().fit(signals[modes[0]][:4096]).transform(signals[modes[0]][:4096])  # compiles
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(n_turns):
        fitted = {mode: timed(mode, "fit", partial(learner().fit, X)) for mode, X in signals.items()}
        for mode, X in signals.items():
            out = {} if mode == "memory" else dict(out=folder)
            codes = timed(mode, "transform", partial(fitted[mode].transform, X, **out))
            peak = resident("VmHWM")
            blocks = [codes] if mode == "memory" else (block.rows for block in codes.blocks())
            sums = float(fitted[mode].components_.sum()), sum(float(block.sum()) for block in blocks)
            found[mode].update(peak=peak, checks=sums)
            del codes, blocks
    print(json.dumps(found))


def run(modes, n_turns, file, folder):
    command = [sys.executable, __file__, "--modes", *modes, "--turns", str(n_turns), "--file", file, "--folder", folder]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def rows_of(file, folder):
    """Of every mode the medians of its rates, and the memory of a process of its own."""
    rows = run(MODES, N_TURNS, file, folder)
    for mode, row in rows.items():
        row.update(fit=statistics.median(row["fit"]), transform=statistics.median(row["transform"]))
        row["peak"] = run([mode], 1, file, folder)[mode]["peak"]
    return rows


def keep(lines, passed):
    facts = {"processor": processor(), "threads": thread_count(None)} | versions()
    text = [
        "# More patches than memory", "",
        f"Patches of {N_FEATURES} float32 features, {N_ATOMS} atoms, by `python benchmarks/from_disk.py`: learned from",
        "in one epoch and encoded, from a memory map into a folder of sparse codes, and in memory. Peak: resident",
        f"memory of the process with all libraries. Wanted: less than {MOST_RESIDENT} MB from disk, the same for all",
        f"sizes, {LEAST_SHARE} of the throughput in memory: {'held' if passed else 'NOT HELD'}.", "",
        f"Measured: {', '.join(f'{key} {value}' for key, value in facts.items())}.",
        f"Medians of {N_TURNS} turns. disk: the file is in the system's cache, since it has just been written; cold:",
        "it has been taken out of it.",
        "",
        "| patches | from | peak, MB | learned from a second | encoded a second |", "|---|---|---|---|---|", *lines,
    ]  # fmt: skip
    (Path(__file__).parent / "results" / "from_disk.md").write_text("\n".join(text) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int)
    parser.add_argument("--temporary", help="where files go; a disk, not a part of memory")
    for name, options in (("modes", dict(nargs="+")), ("turns", dict(type=int)), ("file", {}), ("folder", {})):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS, **options)
    given = parser.parse_args()
    if given.modes:
        measure(given.modes, given.turns, given.file, given.folder)
        return
    peaks, passed, lines = [], True, []
    print(f"{'patches':>10} {'mode':>7} {'peak MB':>8} {'fit/s':>9} {'transform/s':>12}")
    for n_patches in given.sizes or SIZES:
        with tempfile.TemporaryDirectory(dir=given.temporary) as folder:
            file = Path(folder) / "patches.npy"
            write_patches(file, n_patches)
            rows = rows_of(file, Path(folder) / "codes")
        for mode, row in rows.items():
            print(f"{n_patches:10} {mode:>7} {row['peak']:8.0f} {row['fit']:9.0f} {row['transform']:12.0f}", flush=True)
            lines.append(
                f"| {n_patches:,} | {mode} | {row['peak']:.0f} | {row['fit']:,.0f} | {row['transform']:,.0f} |"
            )
        for mode in MODES[1:]:
            fit, transform = (rows[mode][what] / rows["memory"][what] for what in ("fit", "transform"))
            print(f"{'':10} throughput {mode} against in memory: fit {fit:.2f}, transform {transform:.2f}")
            lines.append(f"| | {mode} / memory | | {fit:.2f} | {transform:.2f} |")
            same = np.allclose(rows[mode]["checks"], rows["memory"]["checks"], rtol=1e-5)
            peaks.append(rows[mode]["peak"])
            passed = passed and same and min(fit, transform) >= LEAST_SHARE and peaks[-1] < MOST_RESIDENT
    growth = max(peaks) - min(peaks)
    print(f"peak from disk at most {max(peaks):.0f} MB, {growth:.0f} MB apart")
    passed = passed and growth < MOST_GROWTH
    if not given.sizes:
        keep(lines, passed)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
