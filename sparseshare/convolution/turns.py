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
    turns = _Turns(work, n_items, 2 * n_threads)
    with ThreadPoolExecutor(1, thread_name_prefix="sparseshare-turns") as pool:
        running = pool.submit(copy_context().run, run_in_threads, turns.run, n_threads, n_threads)
        running.add_done_callback(lambda _: turns.wake())
        try:
            for item in range(n_items):
                yield turns.take(item, running)
        finally:
            turns.end()


class _Turns:
    """Results, and errors, that wait for their turn.

    Items are begun in their order, so that all those before one that fails are done.
    """

    def __init__(self, work, n_items, most):
        self._work, self._most, self._changed = work, most, Condition()
        self._outcomes, self._begun, self._taken, self._wanted = {}, 0, 0, n_items

    def run(self, _, worker):
        """What each thread does."""
        while (item := self._begin()) is not None:
            self._do(item, worker)  # and keeps nothing of it while it waits for the next

    def _do(self, item, worker):
        result = error = None
        try:
            result = self._work(item, worker)
        except BaseException as raised:
            error = raised
        with self._changed:
            self._outcomes[item] = result, error
            if error is not None:
                self._wanted = min(self._wanted, item + 1)
            self._changed.notify_all()

    def _begin(self):
        """The next item, as soon as there is room for it; None if no more are wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._begun >= self._wanted or self._begun < self._taken + self._most)
            if self._begun >= self._wanted:
                return None
            self._begun += 1
            return self._begun - 1

    def take(self, item, running):
        """The result of an item, or its error; `running` is the future of all threads."""
        with self._changed:
            self._changed.wait_for(lambda: item in self._outcomes or running.done())
            if item not in self._outcomes:
                running.result()  # threads that could not be started
            result, error = self._outcomes.pop(item)
            self._taken = item + 1
            self._changed.notify_all()
        if error is not None:
            raise error
        return result

    def end(self):
        """No more are wanted."""
        with self._changed:
            self._wanted = 0
            self._changed.notify_all()

    def wake(self):
        with self._changed:
            self._changed.notify_all()
