"""What a contestant hands to its worker: one prepared piece of work."""

from collections.abc import Callable
from dataclasses import dataclass


def same(result):
    return result


@dataclass(frozen=True)
class Work:
    """A call to be timed, and how to read what it returns.

    Attributes
    ----------
    run : callable without arguments
        The work. Only this is timed: arrays have been read and laid out as the peer wants them before.
    rows : callable
        Turns what `run` returns into codes with signals as rows (sparse or dense), or a dict of arrays.
    label : str or None
        Name for the table where that of the peer says too little.
    warm_up : bool
        Whether to do the work once before it is timed. False for what takes minutes and compiles nothing.
    """

    run: Callable
    rows: Callable = same
    label: str | None = None
    warm_up: bool = True
