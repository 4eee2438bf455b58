"""Results that threads make side by side and that are taken in their order, few of them held at once."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from math import inf
from threading import Condition

from sparseshare.threads import run_in_threads


def in_turn(work, n_items, n_threads):
    """What `work(item, worker)` returns for every item, in the order of the items.

    No thread begins an item before all but the `2 * n_threads - 1` items before it have been taken.

    Parameters
    ----------
    work : callable
    n_items : int
    n_threads : int
        One: the caller's own.

    Yields
    ------
    object

    Examples
    --------
    >>> from sparseshare.convolution.turns import in_turn
    >>> list(in_turn(lambda item, worker: item**2, 5, 2))
    [0, 1, 4, 9, 16]
    """
    if min(n_items, n_threads) <= 1:
        for item in range(n_items):
            yield work(item, 0)
        return
    turns = _Turns(work, 2 * n_threads)
    with ThreadPoolExecutor(1, thread_name_prefix="sparseshare-turns") as pool:
        running = pool.submit(copy_context().run, run_in_threads, turns.do, n_items, n_threads)
        running.add_done_callback(lambda _: turns.wake())
        try:
            for item in range(n_items):
                if not turns.wait_for(item, running):
                    running.result()  # threads that could not be started
                yield turns.take(item)
        finally:
            turns.end_at(0)


class _Ended(Exception):
    """Nobody wants this item any more."""


class _Turns:
    """Results that wait for their turn, and an error that does."""

    def __init__(self, work, most):
        self._work, self._most, self._results, self._taken, self._end = work, most, {}, 0, inf
        self._error, self._changed = None, Condition()

    def do(self, item, worker):
        with self._changed:
            self._changed.wait_for(lambda: item >= self._end or item < self._taken + self._most)
            if item >= self._end:
                raise _Ended
        try:
            result = self._work(item, worker)
        except BaseException as error:
            with self._changed:
                if item < self._end:
                    self._error = error
                    self.end_at(item)  # those before it are still wanted
            raise
        with self._changed:
            self._results[item] = result
            self._changed.notify_all()

    def wait_for(self, item, running):
        """Wait for a result, an error in its place, or the end of all work; whether it is there."""
        with self._changed:
            self._changed.wait_for(lambda: item in self._results or item >= self._end or running.done())
            return item in self._results or item >= self._end

    def take(self, item):
        with self._changed:
            if item >= self._end:
                raise self._error
            self._taken = item + 1
            self._changed.notify_all()
            return self._results.pop(item)

    def end_at(self, item):
        """No item from this one on is wanted."""
        with self._changed:
            self._end = min(self._end, item)
            self._changed.notify_all()

    def wake(self):
        with self._changed:
            self._changed.notify_all()
