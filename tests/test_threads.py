"""Threads work on what they are given, in the context of whoever gave it to them."""

import threading

import numpy as np
import pytest

from sparseshare import ConvDictionaryLearning, MiniBatchDictionaryLearning
from sparseshare.threads import run_in_threads, thread_count


@pytest.mark.parametrize(
    ("numba", "openmp", "expected"),
    [
        ("", "", (8, 8, 7, 3)),
        ("2", "", (2, 2, 1, 2)),
        ("", "1", (1, 1, 1, 3)),
        ("", "2,1", (2, 2, 1, 3)),
        ("4", "6", (4, 4, 3, 3)),
        ("0", "many", (8, 8, 7, 3)),
    ],
)
def test_environment_variables_are_honoured(monkeypatch, numba, openmp, expected):
    """The cores, numba's limit for all, OpenMP's share for what `n_jobs` leaves open: n_jobs = None, -1, -2, 3."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", numba)
    monkeypatch.setenv("OMP_NUM_THREADS", openmp)
    assert tuple(map(thread_count, (None, -1, -2, 3))) == expected


def test_every_item_once():
    done = np.zeros(50, int)

    def work(item, worker):
        done[item] += 1

    run_in_threads(work, 50, 3)
    assert done.tolist() == [1] * 50


def test_errors_are_raised():
    def work(item, worker):
        if item == 7:
            raise KeyError("seven")

    with pytest.raises(KeyError, match="seven"):
        run_in_threads(work, 20, 2)


def test_numpy_reports_errors_in_threads_as_in_their_caller():
    both = threading.Barrier(2, timeout=30)
    seen = [None, None]

    def work(item, worker):
        both.wait()  # so that each thread gets one
        seen[item] = np.geterr()["over"]

    with np.errstate(over="ignore"):
        run_in_threads(work, 2, 2)
    assert seen == ["ignore", "ignore"]


def test_threads_that_share_out_work_themselves_do_not_wait_for_each_other():
    done = np.zeros((8, 20), int)

    def work(outer, _):
        def inner(item, worker):
            done[outer, item] += 1

        run_in_threads(inner, 20, 3)

    caller = threading.Thread(target=run_in_threads, args=(work, 8, 3), daemon=True)
    caller.start()
    caller.join(timeout=60)
    assert not caller.is_alive()
    assert (done == 1).all()


def test_fits_in_threads_at_once_are_those_alone(rng):
    """Four of them, two estimators of either kind: the same atoms and codes to the last bit."""
    X, signals = rng.standard_normal((1100, 6)), rng.standard_normal((4, 60))

    def learn(k):
        if k % 2:
            learner = ConvDictionaryLearning(2, 5, alpha=1.0, method="online", batch_size=2, max_iter=2, tol=0,
                                             random_state=k, n_jobs=2)  # fmt: skip
            return learner.fit(signals).components_, learner.encode(signals)
        learner = MiniBatchDictionaryLearning(4, alpha=0.3, batch_size=600, max_iter=2, random_state=k, n_jobs=2)
        return learner.fit(X).components_, learner.transform(X)

    expected, found, all_here = [learn(k) for k in range(4)], [None] * 4, threading.Barrier(4)

    def work(k):
        all_here.wait(600)
        found[k] = learn(k)

    callers = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(600)
    for one, alone in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one[0], alone[0])
        np.testing.assert_array_equal(one[1], alone[1])
