"""Numbers that a loop on the host reads off a device without waiting for it."""

from sparseshare.devices import array_module, pinned_array


class Readback:
    """Copies of a small device array, each read while the device has gone on working.

    Parameters
    ----------
    like : cupy.ndarray
        What will be read, or an array of its shape and dtype.

    Notes
    -----
    A copy into pinned memory and an event behind it are put into the stream; the next call finds the event past, as a
    rule, and so does not stop the device. There are two copies, so that one can be read while the other is written.
    """

    def __init__(self, like):
        cuda = array_module(like).cuda
        self._copies = [pinned_array(like.shape, like.dtype) for _ in range(2)]
        self._events = [cuda.Event(block=False, disable_timing=True) for _ in range(2)]
        self._asked = 0

    def next(self, array):
        """Ask for a copy of `array`; returns that which was asked for before, or None the first time."""
        here = self._asked % 2
        array.get(out=self._copies[here], blocking=False)
        self._events[here].record()
        self._asked += 1
        return self._wait(1 - here) if self._asked > 1 else None

    def last(self):
        """The copy asked for last."""
        return self._wait(1 - self._asked % 2)

    def _wait(self, which):
        self._events[which].synchronize()
        return self._copies[which]
