"""Peak of the memory that this process holds, between two moments (Linux)."""

import re
from pathlib import Path

from scipy.sparse import issparse


class PeakMemory:
    """Resident memory from now on; `grown()` says by how many bytes its peak lies above the level at the start."""

    def __init__(self):
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present level
        self._before = _status("VmRSS")

    def grown(self):
        return _status("VmHWM") - self._before


def _status(field):
    return 1024 * int(re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[1])


def stored_bytes(result):
    """Bytes of an array or of the three arrays of a sparse matrix."""
    parts = (result.data, result.indices, result.indptr) if issparse(result) else (result,)
    return sum(part.nbytes for part in parts)
