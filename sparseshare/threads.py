"""Threads of this process: how many to use, work shared out to them, and BLAS held to one of them meanwhile."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import count
from multiprocessing import parent_process
from threading import Lock, current_thread, main_thread

from threadpoolctl import ThreadpoolController

from .validation import check_number


def thread_count(n_jobs=None):
    """Threads to use: all that this process may, or the share of one worker among others, unless `n_jobs` says fewer.

    `NUMBA_NUM_THREADS` limits them always. `OMP_NUM_THREADS`, by which whoever starts several processes (joblib's loky,
    Dask) tells each its share, limits what "all" means. In a process of a pool that tells nothing, and in a thread of
    joblib or a task of Dask that runs beside others in one process, all is one. A positive `n_jobs` may go beyond it.

    Parameters
    ----------
    n_jobs : int or None, default=None
        None and -1 mean all, -2 all but one, as in joblib.
    """
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        available = os.cpu_count() or 1
    available = min(available, _limit("NUMBA_NUM_THREADS", available))
    share = min(available, _share(available))
    if n_jobs is None:
        return share
    n_jobs = check_number("n_jobs", n_jobs, integer=True, allow_none=True)
    if n_jobs == 0:
        raise ValueError("The 'n_jobs' parameter must be a positive or negative integer or None, got 0")
    return min(n_jobs, available) if n_jobs > 0 else max(1, share + 1 + n_jobs)


def _share(available):
    """Threads for one who does not know how many others there are."""
    child = parent_process() is not None  # of multiprocessing: joblib, Dask and process pools start their workers by it
    if _beside_other_threads(child):
        return 1
    return _limit("OMP_NUM_THREADS", 1 if child else available)


def _beside_other_threads(child):
    """Whether joblib or Dask runs this thread with others of its kind; a process that Dask starts is told its share."""
    if current_thread() is main_thread():
        return False
    if "joblib" in sys.modules:
        from joblib.parallel import get_active_backend

        if get_active_backend()[0].nesting_level:
            return True
    get_worker = getattr(sys.modules.get("distributed"), "get_worker", None)
    if child or get_worker is None:
        return False
    try:
        get_worker()
    except ValueError:  # no task
        return False
    return True


def _limit(variable, otherwise):
    """What an environment variable allows; OpenMP's may be a list, a number a level of nesting."""
    said = os.environ.get(variable, "").partition(",")[0].strip()
    return int(said) if said.isdigit() and int(said) > 0 else otherwise


class _SingleThreadedBlas:
    """BLAS on one thread while any call is at work. The setting is process-wide: the last one out restores it."""

    def __init__(self):
        self._lock, self._inside = Lock(), 0
        self._controller = self._limits = None

    def __enter__(self):
        with self._lock:
            if self._inside == 0:
                if self._controller is None:
                    self._controller = ThreadpoolController()
                self._limits = self._controller.limit(limits=1, user_api="blas")
                self._limits.__enter__()
            self._inside += 1

    def __exit__(self, *_):
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limits.__exit__(None, None, None)


single_threaded_blas = _SingleThreadedBlas()


class _Threads:
    """Threads of this process, kept: starting them costs as much as coding a hundred signals."""

    def __init__(self):
        self._lock, self._size, self._pool = Lock(), 0, None

    def at_least(self, size):
        with self._lock:
            if self._size < size:
                self._size, self._pool = size, ThreadPoolExecutor(size, thread_name_prefix="sparseshare")
            return self._pool


_threads = _Threads()


_over_a_fork = []  # Numba's lock, or None where Numba has not been imported


def _before_fork():
    """Let Numba finish what another thread compiles: in a child it would stay unfinished, and locked."""
    lock = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    if lock is not None:
        lock.acquire()
    _over_a_fork.append(lock)


def _after_fork():
    lock = _over_a_fork.pop()
    if lock is not None:
        lock.release()


def _after_fork_in_child():
    """A child has none of its parent's threads: it starts its own, and what they had locked nobody would unlock."""
    _after_fork()
    _threads.__init__()
    single_threaded_blas._lock = Lock()  # who is inside stays: the thread that forked may leave


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def run_in_threads(work, n_items, n_threads):
    """Call `work(item, worker)` for every item, the next one to whichever thread is free; the first error is raised."""
    n_threads = min(n_threads, n_items)
    if n_threads <= 1:
        for item in range(n_items):
            work(item, 0)
        return
    items, stop = count(), []

    def run(worker):
        try:
            for item in items:
                if item >= n_items or stop:
                    return
                work(item, worker)
        except BaseException:
            stop.append(True)
            raise

    pool = _threads.at_least(n_threads - 1)
    # Each in a copy of the caller's context: what `numpy.errstate` says holds in all threads.
    others = [pool.submit(copy_context().run, run, worker) for worker in range(1, n_threads)]
    try:
        run(0)
    finally:
        stop.append(True)  # after an error here; harmless when all is done
        for other in others:
            if not other.cancel():  # one that has not begun may never: a thread of the pool may be the caller here
                other.result()
