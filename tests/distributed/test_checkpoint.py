"""A fit on a cluster whose client was killed and started again ends with the bits of one that was not."""

import os
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone

from sparseshare.callbacks import EarlyStopping, LossMonitor
from sparseshare.checkpoints import Checkpoint
from sparseshare.distributed import DaskConvDictionaryLearning, DaskMiniBatchDictionaryLearning
from sparseshare.distributed.order import BlockOrder

da = pytest.importorskip("dask.array")

FITTED = "components_", "loss_curve_", "n_iter_", "converged_"
ROWS = partial(DaskMiniBatchDictionaryLearning, 8, alpha=0.3, blocks_per_update=3, random_state=0)
SHARED = partial(DaskConvDictionaryLearning, 3, 4, alpha=2.0, blocks_per_update=3, random_state=0)
LEARNERS = {
    "rows": ROWS(max_iter=3, tol=0),
    "rows until it pays no more": ROWS(max_iter=20, max_no_improvement=2, shuffle=False),
    "atoms that die": ROWS(max_iter=3, tol=0, dict_init=np.vstack([np.eye(10)[:4], np.zeros((4, 10))])),
    "shared atoms": SHARED(max_iter=2, tol=0, alpha=0.1, alpha_relative=True),
    "shared atoms until it pays no more": SHARED(max_iter=20, tol=0.02, shuffle=False),
}


class Killed(Exception):
    """Stands for the end of the process."""


def fit_with_deaths(learner, X, monkeypatch, every_saves=1, before=lambda learner: learner):
    """Fit clones of a learner, each of which dies after some checkpoints, until one comes to an end."""
    save = Checkpoint.save

    for deaths in range(1000):
        left = [every_saves]

        def save_and_die(self, state, left=left):
            save(self, state)
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", save_and_die)
            try:
                return before(clone(learner)).fit(X), deaths
            except Killed:
                continue
    raise AssertionError("never came to an end")


def assert_same_bits(one, other):
    for name in FITTED:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name, strict=True)
    assert one._memory["n_steps"] == other._memory["n_steps"]
    for name, value in one._memory["statistics"].items():
        np.testing.assert_array_equal(value, other._memory["statistics"][name], err_msg=name)


@pytest.fixture
def signals(X):
    return da.from_array(X, chunks=(30, -1))


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(tmp_path / "state.npz", every=0)


@pytest.mark.parametrize("name", LEARNERS)
def test_killed_at_every_checkpoint(client, signals, name, checkpoint, monkeypatch):
    learner = LEARNERS[name]
    whole = clone(learner).fit(signals)
    resumed, deaths = fit_with_deaths(
        clone(learner).set_params(checkpoint=checkpoint), signals, monkeypatch, 1 if name == "rows" else 2
    )
    assert deaths >= 3
    assert_same_bits(resumed, whole)
    monkeypatch.setattr(BlockOrder, "take", lambda *_: pytest.fail("learned again"))
    assert_same_bits(clone(resumed).fit(signals), whole)


@pytest.mark.parametrize(
    "learner", [ROWS(max_iter=3, tol=0, max_no_improvement=None), SHARED(max_iter=3, tol=0)], ids=["rows", "shared"]
)
def test_who_does_not_wait_goes_on_with_what_is_left(client, signals, learner, checkpoint, monkeypatch):
    learner = clone(learner).set_params(mode="asynchronous", checkpoint=checkpoint)
    resumed, deaths = fit_with_deaths(learner, signals, monkeypatch, 4)
    assert deaths == (3 * 8 + 1) // 4  # a checkpoint after every block, and at the end
    assert resumed._memory["n_steps"] == 3 * 8 and resumed.n_iter_ == len(resumed.loss_curve_) == 3
    assert resumed.loss_curve_[-1] < resumed.loss_curve_[0]


@pytest.mark.parametrize("shuffled", [False, True])
def test_every_block_has_its_turn_in_every_epoch(shuffled):
    """Five at work at once and done in any order, begun anew now and then."""
    rng, learned = np.random.default_rng(0), []
    random_state = np.random.RandomState(1) if shuffled else None
    order, working = BlockOrder(7, 4, random_state), []
    while True:
        while len(working) < 5 and (taken := order.take(1)):
            working += taken
        if not working:
            break
        number = working.pop(rng.integers(len(working)))
        order.done([number])
        learned.append(number)
        if rng.random() < 0.3:
            state, working = order.state, []
            order = BlockOrder(7, 4, np.random.RandomState(9) if shuffled else None)
            order.restore(state)
    assert np.bincount(learned).tolist() == [4] * 7
    assert (order.take(3), order.state["todo"].tolist()) == ([], [])
    if shuffled:
        expected = np.random.RandomState(1)
        for _ in range(4):
            expected.permutation(7)
        assert order.state["random_state"]["state"]["pos"] == expected.get_state(legacy=False)["state"]["pos"]


def test_callbacks_hear_of_the_epochs_before(client, signals, checkpoint, monkeypatch):
    pytest.importorskip("sklearn.callback")
    monitor = LossMonitor()
    learner = ROWS(max_iter=30, max_no_improvement=None, tol=0, checkpoint=checkpoint)
    whole = clone(learner).set_params(checkpoint=None).set_callbacks(EarlyStopping(patience=1, tol=0.05)).fit(signals)
    assert whole.n_iter_ < 30
    resumed, _ = fit_with_deaths(
        learner, signals, monkeypatch, 2,
        lambda learner: learner.set_callbacks(EarlyStopping(patience=1, tol=0.05), monitor),
    )  # fmt: skip
    assert_same_bits(resumed, whole)
    assert monitor.loss_curve == whole.loss_curve_


@pytest.mark.parametrize("learner", [ROWS(max_iter=1), SHARED(max_iter=1)], ids=["rows", "shared"])
def test_another_fit_is_refused_by_name(client, X, signals, learner, checkpoint):
    learner = clone(learner).set_params(checkpoint=checkpoint.path).fit(signals)
    clone(learner).set_params(n_jobs=2, verbose=0).fit(signals)  # which change nothing
    X = X.copy()
    X[0, 0] += 1
    for other, message in (
        (da.from_array(X, chunks=(30, -1)), "X was .* of which some rows are"),
        (signals[30:], r"X was '\(240, 10\), .*, is '\(210, 10\)"),
        (signals.astype("f4"), "X was .*float64.* is .*float32"),
        (signals.rechunk((40, -1)), "blocks was"),
    ):
        with pytest.raises(ValueError, match=f"another fit: .*{message}"):
            clone(learner).fit(other)
    with pytest.raises(ValueError, match=r"another fit: alpha was .*, is 0.4"):
        clone(learner).set_params(alpha=0.4).fit(signals)
    with pytest.raises(ValueError, match="another fit: .*components_ was None, is"):
        learner.set_params(warm_start=True, checkpoint=checkpoint.path).fit(signals)
    with pytest.raises(ValueError, match="The 'checkpoint' parameter of Dask.* must be a path"):
        clone(learner).set_params(checkpoint=3).fit(signals)


CLIENT = """
import sys, time
import dask.array as da, numpy as np
from distributed import Client
from sparseshare.checkpoints import Checkpoint
from sparseshare.distributed import DaskMiniBatchDictionaryLearning

def slow(state):
    print(state["i"], flush=True)
    time.sleep(0.05)

with Client(sys.argv[1]):
    X = da.from_array(np.load(sys.argv[2]), chunks=(30, -1))
    DaskMiniBatchDictionaryLearning(
        8, alpha=0.3, blocks_per_update=3, max_iter=3, tol=0, random_state=0, callback=slow,
        checkpoint=Checkpoint(sys.argv[3], every=0),
    ).fit(X)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing can be killed")
def test_a_client_that_is_killed(cluster, client, X, signals, checkpoint, tmp_path):
    np.save(tmp_path / "X.npy", X)
    learner = ROWS(max_iter=3, tol=0)
    whole = clone(learner).fit(signals)
    command = [sys.executable, "-c", CLIENT, cluster.scheduler_address, str(tmp_path / "X.npy"), checkpoint.path]
    seen = []
    for moment in (2, 5):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while not seen or seen[-1] < moment:
                seen.append(int(process.stdout.readline()))
            os.kill(process.pid, signal.SIGKILL)
    assert seen[-1] == 5 and len(seen) < 8  # the second one went on
    assert_same_bits(clone(learner).set_params(checkpoint=checkpoint).fit(signals), whole)
