"""Results that threads make side by side and that are taken in their order, few of them held at once."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
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
                    running.result()  # raises what has ended it
                yield turns.take(item)
        finally:
            turns.close()


class _Closed(Exception):
    """Nobody takes results any more."""


class _Turns:
    """Results that wait for their turn."""

    def __init__(self, work, most):
        self._work, self._most, self._results, self._taken, self._closed = work, most, {}, 0, False
        self._changed = Condition()

    def do(self, item, worker):
        with self._changed:
            self._changed.wait_for(lambda: self._closed or item < self._taken + self._most)
            if self._closed:
                raise _Closed
        result = self._work(item, worker)
        with self._changed:
            self._results[item] = result
            self._changed.notify_all()

    def wait_for(self, item, running):
        """Wait for a result, or for the end of all work; whether it is there."""
        with self._changed:
            self._changed.wait_for(lambda: item in self._results or running.done())
            return item in self._results

    def take(self, item):
        with self._changed:
            self._taken = item + 1
            self._changed.notify_all()
            return self._results.pop(item)

    def wake(self):
        with self._changed:
            self._changed.notify_all()

    def close(self):
        with self._changed:
            self._closed = True
            self._changed.notify_all()
