"""Files that arrays are mapped from: their pages handed back in time, their ends not run over."""

import mmap
import os

import numpy as np


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
