"""Files that are whole or not there: written beside their place, and moved there when they have reached the disk."""

import contextlib
import io
import os
from pathlib import Path


@contextlib.contextmanager
def replaced_file(path):
    """A file to write to, which takes the place of `path` when the block ends; if that fails, `path` is as it was.

    Parameters
    ----------
    path : str or path
        `path` with ".partial" appended is written first.

    Yields
    ------
    binary file
        Not to be read or searched in.

    Raises
    ------
    OSError
        If the file cannot be written, because the disk is full for instance.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sparseshare.atomic import replaced_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replaced_file(f"{folder}/notes.txt") as file:
    ...         _ = file.write(b"all of it")
    ...     Path(f"{folder}/notes.txt").read_text()
    'all of it'
    """
    partial = partial_path(path)
    try:
        with open(partial, "wb", buffering=0) as file:
            sink = _Sink(file)
            yield sink
            sink.finish()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise
    _sync_folder(Path(path).parent)


def partial_path(path):
    """The file that is written before it takes the place of `path`."""
    return os.fspath(path) + ".partial"


class _Sink(io.RawIOBase):
    """A file for `zipfile`, which does not end well after an error: this one keeps the first till the end."""

    def __init__(self, file):
        self._file, self._error = file, None

    def writable(self):
        return True

    def write(self, data):
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self._error is None and len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._error = error
        return size

    def finish(self):
        """Raise the error that there was."""
        if self._error is not None:
            raise self._error


def _sync_folder(folder):
    """Let the new name of a file reach the disk; where folders cannot be opened, that is the system's business."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems know no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
