"""Kill a fit at random moments, start it again each time, and compare the end with a fit that was left alone.

    python benchmarks/kill_resume.py [moments]

Prints for every learner how often it was killed before it came to an end, and whether all bits are the same. Processes
are forked, so this needs a system that has `fork`.
"""

import os
import signal
import sys
import tempfile
import time
import warnings

import numpy as np

from sparseshare import KSVD, DictionaryLearning, MiniBatchDictionaryLearning
from sparseshare.checkpoints import Checkpoint
from sparseshare.convolution import ConvDictionaryLearning
from sparseshare.network import DeepSparseClassifier, Dense

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
}  # fmt: skip


def result(learner):
    """What a fit has learned, as a list of arrays."""
    if hasattr(learner, "network_"):
        return [parameter.values for parameter in learner.network_.parameters]
    return [learner.components_, np.array(learner.loss_curve_)]


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


def main(moments):
    """Print a line a learner."""
    warnings.simplefilter("ignore")
    rng, failed = np.random.default_rng(0), False
    for name, (learner, data) in FITS.items():
        learner.fit(*data)  # compiles
        started = time.perf_counter()
        whole = [array.copy() for array in result(learner.fit(*data))]
        seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            learner.set_params(checkpoint=Checkpoint(f"{folder}/state.npz", every=0))
            resumed, killed = killed_and_resumed(learner, data, moments, seconds, rng)
            files = os.listdir(folder)
        same = all(map(np.array_equal, result(resumed), whole)) and files == ["state.npz"]
        failed |= not same
        print(f"{name}: killed {killed} of {moments} times, {'same bits' if same else 'NOT THE SAME'}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
