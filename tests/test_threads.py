"""Threads work on what they are given, in the context of whoever gave it to them."""

import threading

import numpy as np
import pytest

from sparseshare.threads import run_in_threads


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
