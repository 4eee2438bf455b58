"""Files that arrays are mapped from: their pages handed back in time, their ends not run over."""

import errno
import mmap
import os
from contextlib import contextmanager

import numpy as np

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class MappedFile:
    """The file that an array on disk is mapped from.

    Parameters
    ----------
    owner : np.memmap
        The one that opened it.
    """

    def __init__(self, owner):
        self.map, self.filename = owner.base, owner.filename
        self._end = owner.offset - owner.offset % mmap.ALLOCATIONGRANULARITY + len(self.map)
        self._writable = owner.mode in ("r+", "w+") and self.filename is not None
        # Changes to a private copy ("c") are in its pages and nowhere else.
        self._releasable = owner.mode != "c" and hasattr(mmap, "MADV_DONTNEED")

    def check_size(self):
        """Refuse a file that has been cut meanwhile: to read past its end would end the process.

        Raises
        ------
        OSError
        """
        try:
            size = os.stat(self.filename).st_size
        except (OSError, TypeError):  # deleted, which its mapping survives, or without a name
            return
        if size < self._end:
            raise OSError(f"{self.filename} has been cut to {size} bytes since it was opened, it had {self._end}")

    def reserve(self):
        """Take the room on the disk that writing to all of it needs: on a full one, writing would end the process.

        Raises
        ------
        OSError
            If there is not as much.
        """
        if self._writable and hasattr(os, "posix_fallocate"):
            try:
                with open(self.filename, "rb+", buffering=0) as file:
                    os.posix_fallocate(file.fileno(), 0, self._end)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    reason = f"there is no room for the {self._end} bytes of the file ({error.strerror})"
                    raise OSError(error.errno, reason, str(self.filename)) from error

    @contextmanager
    def scattered(self):
        """For reading pages from all over the file: what lies around them, megabytes maybe, is not fetched as well."""
        if not hasattr(mmap, "MADV_RANDOM"):
            yield
            return
        self.map.madvise(mmap.MADV_RANDOM)
        try:
            yield
        finally:
            self.map.madvise(mmap.MADV_NORMAL)

    def release(self):
        """Take its pages out of the memory of this process; those written to stay in the cache of the system."""
        if self._releasable:
            self.map.madvise(mmap.MADV_DONTNEED)


def mapped_file(array):
    """The file that an array, or the array it is a view of, is mapped from; None for others."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
            return MappedFile(array)
        array = array.base
    return None
