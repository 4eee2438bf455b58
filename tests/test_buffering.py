"""Pieces read ahead and written behind: their order, errors on their way, and threads that are gone afterwards."""

from threading import Event, current_thread
from threading import enumerate as living

import numpy as np
import pytest

from sparseshare.buffering import WriteBehind, paged_empty, read_ahead


def helpers():
    return [thread for thread in living() if thread.name.startswith(("sparseshare-reader", "sparseshare-writer"))]


def test_the_next_item_is_made_while_this_one_is_in_use():
    asked = Event()

    def items():
        yield 0
        asked.set()
        yield 1

    ahead = read_ahead(items())
    assert next(ahead) == 0 and asked.wait(60)
    assert list(ahead) == [1] and not helpers()


def test_what_reading_raises_comes_in_its_turn():
    def items():
        yield 0
        raise OSError("gone")

    ahead = read_ahead(items())
    assert next(ahead) == 0
    with pytest.raises(OSError, match="gone"):
        next(ahead)
    assert not helpers()


def test_who_stops_early_closes_what_is_read():
    closed = []

    def items():
        try:
            yield from range(5)
        finally:
            closed.append(current_thread())

    ahead = read_ahead(items())
    assert next(ahead) == 0
    ahead.close()
    assert closed == [current_thread()] and not helpers()


def test_errors_of_floating_point_are_those_of_the_caller():
    def items():
        yield np.float64(1) / np.zeros(1)

    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        next(read_ahead(items()))
    with np.errstate(divide="ignore"):
        assert np.isinf(next(read_ahead(items())))


def test_calls_follow_one_another_beside_the_caller():
    done, go = [], Event()
    with WriteBehind() as behind:
        behind.call(lambda: done.append(go.wait(60)))
        assert not done  # the caller goes on
        go.set()
        behind.call(done.append, 2)
    assert done == [True, 2] and not helpers()


def test_what_writing_raises_is_raised_at_the_next_call_or_at_the_end():
    def full():
        raise OSError("full")

    done = []
    with pytest.raises(OSError, match="full"), WriteBehind() as behind:
        behind.call(full)
        behind.call(done.append, "after")
    with pytest.raises(OSError, match="full"), WriteBehind() as behind:
        behind.call(full)
    assert not done and not helpers()


def test_an_error_of_the_caller_waits_for_what_is_being_written():
    done = []
    with pytest.raises(KeyError), WriteBehind() as behind:
        behind.call(done.append, 1)
        raise KeyError
    assert done == [1]


def test_pages_of_large_pieces_go_back_with_them():
    for shape in ((3, 4), (1000, 300), (0, 5), (2**20,)):
        piece = paged_empty(shape, np.float32)
        assert piece.shape == shape and piece.dtype == np.float32
        piece[...] = 1
        assert piece.sum() == piece.size and piece.flags.c_contiguous and piece.flags.writeable
