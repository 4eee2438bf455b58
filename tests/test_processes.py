"""Beside others: a worker takes its share of the processors, and a forked process works on."""

import multiprocessing
import os
import signal
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import joblib
import numpy as np
import pytest
from numba import njit
from numba.core.compiler_lock import global_compiler_lock

from sparseshare import MiniBatchDictionaryLearning, sparse_encode, threads
from sparseshare.threads import run_in_threads, single_threaded_blas, thread_count

METHODS = multiprocessing.get_all_start_methods()
FORKS = pytest.mark.skipif("fork" not in METHODS, reason="this system cannot fork")


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch):
    """For this process and its forks, whatever the machine has; nobody has said what a process's share is."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def new_threads(monkeypatch):
    """None that an earlier test has started."""
    monkeypatch.setattr(threads, "_threads", threads._Threads())


def threads_of_an_encode(_=None):
    """How many take part where `n_jobs` is left open."""
    X = np.random.default_rng(0).standard_normal((4200, 3))  # nine tiles
    sparse_encode(X, np.eye(3), alpha=0.5)
    return 1 + threads._threads._size


def test_alone_all_processors_are_used(new_threads):
    assert threads_of_an_encode() == 8
    assert joblib.Parallel(1)([joblib.delayed(thread_count)()]) == [8]  # no worker, though joblib calls


def test_threads_of_joblib_take_one_each(new_threads):
    with joblib.parallel_config("threading", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(threads_of_an_encode)() for _ in range(4)) == [1] * 4
        assert joblib.Parallel()(joblib.delayed(thread_count)(n_jobs) for n_jobs in (-1, 3)) == [1, 3]


def test_processes_of_joblib_take_what_they_are_told():
    """Its own way, loky, shares the processors out; what a worker starts in turn gets one."""
    here = max(1, joblib.cpu_count() // 2)

    def in_turn():
        from joblib import Parallel, delayed

        from sparseshare.threads import thread_count

        return thread_count(), *Parallel(2, backend="threading")(delayed(thread_count)() for _ in range(2))

    try:
        told = joblib.Parallel(2, backend="loky")(joblib.delayed(in_turn)() for _ in range(2))
    finally:
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    assert told == [(here, 1, 1)] * 2


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python's own, about forks beside threads
@FORKS
def test_a_pool_of_processes_takes_one_thread_each(monkeypatch, new_threads):
    run_in_threads(lambda item, worker: None, 8, 8)  # what the parent has started is no worker's
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(threads_of_an_encode, range(2))) == [1, 1]
        assert pool.submit(thread_count, 3).result() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # who starts it says how many
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(threads_of_an_encode).result() == 2


def test_a_pool_of_new_processes_takes_one_thread_each():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(thread_count).result() == 1


def succeeds_in_a_fork(work, seconds=300):
    """Whether `work()` is true in a fork of this process, which is killed if it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


@FORKS
def test_a_fork_after_use_fits_and_encodes_the_same(rng, new_threads):
    X = rng.standard_normal((1100, 6))
    learner = MiniBatchDictionaryLearning(4, alpha=0.3, batch_size=1100, max_iter=2, random_state=0, n_jobs=3).fit(X)
    atoms, codes = learner.components_.copy(), learner.transform(X)

    def work():
        before = threads._threads._size
        same = (learner.transform(X) == codes).all() and (learner.fit(X).components_ == atoms).all()
        return before == 0 and same and threads._threads._size == 2

    assert threads._threads._size == 2
    assert succeeds_in_a_fork(work)
    np.testing.assert_array_equal(learner.transform(X), codes)


@FORKS
def test_a_fork_does_not_wait_for_threads_that_it_does_not_have(new_threads):
    """One of them was about to start others, and to hold BLAS to one thread, when its process was forked."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with threads._threads._lock, single_threaded_blas._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait()
    try:
        assert succeeds_in_a_fork(lambda: threads_of_an_encode() == 8)
    finally:
        done.set()
        thread.join()


@FORKS
def test_a_fork_beside_a_thread_that_compiles_can_compile():
    begun, released = threading.Event(), []

    def compile_slowly():
        with global_compiler_lock:
            begun.set()
            time.sleep(0.2)
            released.append(True)

    thread = threading.Thread(target=compile_slowly)
    thread.start()
    begun.wait()
    assert succeeds_in_a_fork(lambda: bool(released) and njit(lambda x: x + 1)(1) == 2, seconds=60)
    thread.join()
    assert not global_compiler_lock.is_locked()
