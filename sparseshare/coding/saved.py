"""Codes in a folder: a piece of rows a file, written as they come, gone on with after an interruption, read as rows."""

import json
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, load_npz, save_npz

from sparseshare.atomic import replaced_file
from sparseshare.sources import BlockError, Source, stacked

_FORMAT = 1
_HEADER = "codes.json"


def open_codes(folder):
    """Codes that `transform(X, out=folder)` has written, as rows to be read piece by piece.

    Parameters
    ----------
    folder : str or path

    Returns
    -------
    SavedCodes
        With `shape`, `dtype`, slices and lists of rows (a csr_array each), and `blocks`.

    Raises
    ------
    FileNotFoundError
        If the folder holds no codes.
    ValueError
        If what it holds was not written by `transform`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sparseshare.coding import open_codes
    >>> from sparseshare.learning import SparseCoder
    >>> coder = SparseCoder(np.eye(3), alpha=0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     codes = coder.transform(np.array([[2.0, 0, 0], [0, -1, 0]]), out=folder)
    ...     open_codes(folder)[1:].toarray()
    array([[ 0. , -0.5,  0. ]])
    """
    return SavedCodes(folder)


class SavedCodes(Source):
    """Codes in a folder, read piece by piece.

    Parameters
    ----------
    folder : str or path

    Attributes
    ----------
    shape : (int, int)
        Of what has been written.
    dtype : numpy.dtype
    complete : bool
        Whether the writing came to its end.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        header = read_header(self.folder)
        self._rows, self._n_pieces = header["piece_rows"], n_pieces(self.folder)
        self.complete = header["n_pieces"] == self._n_pieces
        n_samples = 0
        if self._n_pieces:
            n_samples = (self._n_pieces - 1) * self._rows + rows_in(piece_path(self.folder, self._n_pieces - 1))
        super().__init__((n_samples, header["n_columns"]), header["dtype"], f"the codes in {self.folder}")
        self._last = None, None

    def read(self, rows):
        parts = []
        for number in range(rows.start // self._rows, -(-rows.stop // self._rows)):
            start = number * self._rows
            piece = self._piece(number)
            parts.append(piece[max(rows.start - start, 0) : rows.stop - start])
        return stacked(parts)

    def blocks(self, n_rows=None, first=0, *, finite=True):
        return super().blocks(self._rows if n_rows is None else n_rows, first, finite=finite)

    def place(self, start, stop, n_rows=None):
        return super().place(start, stop, self._rows if n_rows is None else n_rows)

    def _piece(self, number):
        known, piece = self._last
        if known != number:
            path = piece_path(self.folder, number)
            try:
                with path.open("rb") as file:  # NumPy would leave a broken one open
                    piece = csr_array(load_npz(file))
            except Exception as error:  # NumPy and zipfile have many for a broken file
                rows = slice(number * self._rows, (number + 1) * self._rows)
                raise BlockError(f"{path} is no whole piece of codes: {error}", number, rows) from error
            self._last = number, piece
        return piece


class CodeWriter:
    """Pieces of codes on their way into a folder; each is whole on disk before the next begins.

    Parameters
    ----------
    folder : str or path
        Made if it is not there. What it holds already of the same codes is kept.
    n_columns : int
    dtype : dtype
    piece_rows : int
        Rows of a piece.
    made_from : dict of str to str
        What tells these codes from others.

    Attributes
    ----------
    n_written : int
        Pieces that are there.
    complete : bool
        Whether there is nothing left to write.

    Raises
    ------
    ValueError
        If the folder holds other codes.
    OSError
        If it cannot be written to.
    """

    def __init__(self, folder, n_columns, dtype, piece_rows, made_from):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._header = dict(
            format=_FORMAT, n_columns=int(n_columns), dtype=np.dtype(dtype).name, piece_rows=int(piece_rows),
            made_from=made_from, n_pieces=None,
        )  # fmt: skip
        if (self.folder / _HEADER).exists():
            found = read_header(self.folder)
            self._refuse_others(found)
            self._header["n_pieces"] = found["n_pieces"]
        else:
            if n_pieces(self.folder):
                raise ValueError(f"{self.folder} holds pieces of codes, but no {_HEADER}: give a folder of their own")
            self._write_header()
        self.n_written = n_pieces(self.folder)
        self.complete = self._header["n_pieces"] == self.n_written

    def _refuse_others(self, found):
        mine = self._header
        different = [name for name in ("n_columns", "dtype", "piece_rows") if mine[name] != found[name]]
        different += [name for name, value in mine["made_from"].items() if found["made_from"].get(name) != value]
        if different:
            raise ValueError(
                f"{self.folder} holds codes of another run, which differs in {', '.join(different)}: give another "
                "folder, or empty this one"
            )

    def write(self, codes):
        """The next piece."""
        number, path = self.n_written, piece_path(self.folder, self.n_written)
        try:
            with replaced_file(path) as file:
                save_npz(file, csr_array(codes), compressed=False)
        except OSError as error:
            reason = f"writing piece {number} of the codes failed ({error.strerror or error}); the {number} before stay"
            raise OSError(error.errno, reason, str(path)) from error
        self.n_written += 1

    def finish(self):
        """All pieces are there."""
        self._header["n_pieces"], self.complete = self.n_written, True
        self._write_header()

    def _write_header(self):
        with replaced_file(self.folder / _HEADER) as file:
            file.write(json.dumps(self._header, indent=1).encode())


def piece_path(folder, number):
    """The file of a piece."""
    return folder / f"codes-{number:06d}.npz"


def n_pieces(folder):
    """How many pieces are there, from the first on without a gap."""
    number = 0
    while piece_path(folder, number).exists():
        number += 1
    return number


def rows_in(path):
    """Rows of a piece, without reading its entries."""
    try:
        with path.open("rb") as file, np.load(file) as piece:
            return int(piece["shape"][0])
    except Exception as error:  # NumPy and zipfile have many for a broken file
        raise BlockError(f"{path} is no whole piece of codes: {error}") from error


def read_header(folder):
    """What `codes.json` says; refuses files of other origin."""
    path = folder / _HEADER
    try:
        header = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no codes: there is no {_HEADER} in it") from None
    except ValueError as error:
        raise ValueError(f"{path} was not written by transform: {error}") from error
    wanted = {"format", "n_columns", "dtype", "piece_rows", "made_from", "n_pieces"}
    if not isinstance(header, dict) or not wanted <= header.keys() or header["format"] != _FORMAT:
        raise ValueError(f"{path} was not written by transform, or by another version of it")
    return header
