"""Kill a fit at random moments, start it again each time, and compare the end with a fit that was left alone.

    python benchmarks/kill_resume.py                        # every learner at 20 moments: results/kill_resume.md
    python benchmarks/kill_resume.py --moments 5 network    # one learner at 5, which is only printed

Tells for every learner how often it was killed before it came to an end, and whether all bits are the same. Processes
are forked, so this needs a system that has `fork`.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from sparseshare import KSVD, DictionaryLearning, MiniBatchDictionaryLearning
from sparseshare.checkpoints import Checkpoint
from sparseshare.convolution import ConvDictionaryLearning
from sparseshare.model_selection import DictionaryLearningCV
from sparseshare.network import DeepSparseClassifier, DeepSparseEncoder, Dense

MOMENTS = 20
X = np.random.default_rng(0).standard_normal((6000, 24))
NEVER = dict(tol=0, random_state=0, n_jobs=1)  # stops before max_iter
FITS = {
    "mini batches": (
        MiniBatchDictionaryLearning(48, alpha=0.3, max_iter=6, batch_size=64, max_no_improvement=None, **NEVER),
        (X,),
    ),
    "all signals": (DictionaryLearning(32, alpha=0.5, max_iter=12, **NEVER), (X,)),
    "K-SVD": (KSVD(32, n_nonzero_coefs=3, max_iter=12, **NEVER), (X,)),
    "shared atoms": (ConvDictionaryLearning(4, 5, alpha=0.3, max_iter=12, **NEVER), (X[:200],)),
    "shared atoms, online": (
        ConvDictionaryLearning(4, 5, alpha=0.3, max_iter=6, method="online", **NEVER), (X[:200],),
    ),
    "network": (
        DeepSparseClassifier([Dense(64)], max_iter=12, n_iter_no_change=None, random_state=0, n_jobs=1),
        (X, (X[:, 0] > 0).astype(int)),
    ),
    "several layers": (
        DeepSparseEncoder(
            [32, 16], alpha=0.1, n_iter=10, max_iter=6, n_iter_no_change=None, random_state=0, n_jobs=1
        ),
        (X,),
    ),
    "choice of a penalty": (
        DictionaryLearningCV(
            24, [0.8, 0.4], cv=2, random_state=0,
            learner=MiniBatchDictionaryLearning(max_iter=3, batch_size=64, max_no_improvement=None, **NEVER),
        ),
        (X[:2000],),
    ),
}  # fmt: skip


def result(learner):
    """What a fit has learned, as a list of arrays."""
    if hasattr(learner, "network_"):
        return [parameter.values for parameter in learner.network_.parameters]
    if hasattr(learner, "dictionaries_"):
        return [*learner.dictionaries_, np.array(learner.loss_curve_)]
    told = learner.loss_curve_ if hasattr(learner, "loss_curve_") else learner.mse_path_
    return [learner.components_, np.array(told)]


def killed_and_resumed(learner, data, moments, seconds, rng):
    """Kill processes that fit, at random moments of a fit of so many seconds; then fit to the end."""
    killed = 0
    for _ in range(moments):
        child = os.fork()
        if child == 0:
            learner.fit(*data)
            os._exit(0)
        time.sleep(rng.uniform(0, 2 * seconds / moments))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    return learner.fit(*data), killed


def main():
    """Print a line a learner; keep the table of all at 20 moments."""
    parser = argparse.ArgumentParser(description="Fits that are killed and started again.")
    parser.add_argument("learners", nargs="*", help=f"some of: {', '.join(FITS)}")
    parser.add_argument("--moments", type=int, default=MOMENTS)
    arguments = parser.parse_args()
    unknown = set(arguments.learners) - set(FITS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")
    rng, rows, failed = np.random.default_rng(0), [], False
    for name in arguments.learners or FITS:
        learner, data = FITS[name]
        learner.fit(*data)  # compiles
        started = time.perf_counter()
        whole = [array.copy() for array in result(learner.fit(*data))]
        seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            learner.set_params(checkpoint=Checkpoint(f"{folder}/state.npz", every=0))
            resumed, killed = killed_and_resumed(learner, data, arguments.moments, seconds, rng)
            torn = [file for file in os.listdir(folder) if file.endswith(".partial")]
        same = all(map(np.array_equal, result(resumed), whole)) and not torn
        failed |= not same
        rows.append(f"| {name} | `{type(learner).__name__}` | {killed} | {'yes' if same else 'NO'} |")
        print(rows[-1], flush=True)
    if not arguments.learners and arguments.moments == MOMENTS:
        text = [
            "# Fits that were killed", "",
            f"`kill -9` at {MOMENTS} random moments of a fit, which is then left to end, by",
            "`python benchmarks/kill_resume.py`. A checkpoint is written after every step.", "",
            "| fit | estimator | killed | same bits |", "|---|---|---|---|", *rows,
        ]  # fmt: skip
        (Path(__file__).parent / "results" / "kill_resume.md").write_text("\n".join(text) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
