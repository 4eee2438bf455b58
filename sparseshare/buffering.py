"""Double buffering: the next piece is read, and the last one written, while this one is worked on."""

import mmap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from math import prod

import numpy as np

_END = object()
_LEAST = 2**20  # bytes that are worth pages of their own
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}


def paged_empty(shape, dtype):
    """As `numpy.empty`, for pieces that come and go: large ones go back to the system at once.

    The allocator keeps what it has been given back of their size, for every thread anew: several times what is in use.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype

    Returns
    -------
    ndarray
    """
    dtype, size = np.dtype(dtype), prod(shape)
    if size * dtype.itemsize < _LEAST:
        return np.empty(shape, dtype)
    pages = mmap.mmap(-1, size * dtype.itemsize, **_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does: a fault for 2 MB, not for every 4 kB
    return np.frombuffer(pages, dtype, size).reshape(shape)


def read_ahead(items):
    """The items of an iterator; a thread of its own makes the next one while the caller works on this one.

    Parameters
    ----------
    items : iterator
        It is closed, if it can be, when this one is.

    Yields
    ------
    object

    Examples
    --------
    >>> from sparseshare.buffering import read_ahead
    >>> list(read_ahead(iter("abc")))
    ['a', 'b', 'c']
    """
    context = copy_context()  # what `numpy.errstate` says here holds there
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="sparseshare-reader") as reader:
            coming = reader.submit(context.run, next, items, _END)
            while (item := coming.result()) is not _END:
                coming = reader.submit(context.run, next, items, _END)
                yield item
    finally:
        if hasattr(items, "close"):
            items.close()


class WriteBehind:
    """Calls, one after the other, in a thread of their own, while the caller makes what is to be written next.

    To be used in a `with` block, at whose end all calls are over, whatever has ended it. What a call raises is raised
    by the next `call`, or at the end.

    Examples
    --------
    >>> from sparseshare.buffering import WriteBehind
    >>> lines = []
    >>> with WriteBehind() as writer:
    ...     for number in range(3):
    ...         writer.call(lines.append, number)
    >>> lines
    [0, 1, 2]
    """

    def __enter__(self):
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sparseshare-writer")
        self._context, self._last = copy_context(), None
        return self

    def call(self, function, *arguments):
        """Wait for the call before, and begin this one."""
        self._wait()
        self._last = self._pool.submit(self._context.run, function, *arguments)

    def _wait(self):
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __exit__(self, *error):
        try:
            self._wait()
        finally:
            self._pool.shutdown()
