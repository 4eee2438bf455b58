"""Results that are made piece by piece, and each piece written to where the user wants it."""

from contextlib import closing

import numpy as np
from scipy.sparse import issparse

from .buffering import WriteBehind
from .devices import on_gpu, to_host
from .mapping import mapped_file


def write_pieces(pieces, out, shape, what="codes", folder=False):
    """Write pieces of a result to rows of an array, each while the next one is made.

    Parameters
    ----------
    pieces : generator of tuples (number, first, values)
        Numbers of the piece and of its first row, and its rows: an array of shape (n, *rest), or a sparse one.
    out : array to be written to
        Anything with a shape and a dtype that takes rows, ``out[rows] = values``: a memory map, zarr, HDF5.
    shape : (int or None, *rest)
        Of the whole result; None: how many rows come is not known.
    what : str, default="codes"
        What the messages call the result.
    folder : bool, default=False
        Whether the caller takes the path of a folder, too, which a message is to name.

    Returns
    -------
    object
        `out`.

    Raises
    ------
    ValueError
        If `out` does not suit, or has other rows than come: those that it has room for are written.
    OSError
        If it cannot be written to, because the disk is full for instance: rows before the piece stay.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.outputs import write_pieces
    >>> rows = np.arange(6.0).reshape(3, 2)
    >>> pieces = ((first // 2, first, 10 * rows[first : first + 2]) for first in (0, 2))
    >>> write_pieces(pieces, np.zeros((3, 2)), (None, 2))
    array([[ 0., 10.],
           [20., 30.],
           [40., 50.]])
    """
    _check_out(out, shape, what, folder)
    file, n_written = mapped_file(out), 0
    if file is not None:
        file.reserve()
    with WriteBehind() as behind, closing(pieces):
        for number, first, values in pieces:
            rows = slice(first, first + values.shape[0])
            if rows.stop > out.shape[0]:
                raise ValueError(
                    f"out has {out.shape[0]} rows, X has more: row {out.shape[0]} is in block {number}. The {what} of "
                    f"rows 0 to {first - 1} have been written"
                )
            behind.call(_put, out, file, number, rows, to_host(values), what)
            n_written = rows.stop
    if n_written != out.shape[0]:
        raise ValueError(f"out has {out.shape[0]} rows, X has {n_written}: their {what} have been written")
    if hasattr(out, "flush"):
        out.flush()
    return out


def _check_out(out, shape, what, folder):
    missing = [name for name in ("shape", "dtype", "__setitem__") if not hasattr(out, name)]
    if missing or on_gpu(out):
        another = "the path of a folder, or " if folder else ""
        lacking = "on a GPU" if on_gpu(out) else f"without {', '.join(missing)}"
        raise ValueError(
            f"out must be {another}an array with a shape and a dtype to whose rows {what} can be written (a memory "
            f"map, zarr, HDF5), got {type(out).__name__} {lacking}"
        )
    if len(out.shape) != len(shape) or tuple(out.shape[1:]) != tuple(shape[1:]) or shape[0] not in (None, out.shape[0]):
        wanted = ", ".join(str("n_samples" if size is None else size) for size in shape)
        raise ValueError(f"out must have the shape ({wanted}), got {tuple(out.shape)}")
    if np.dtype(out.dtype).kind != "f":
        raise ValueError(f"out must hold floating-point numbers, got dtype {out.dtype}")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError("out is read-only: open it for writing (mode='r+' or 'w+')")


def _put(out, file, number, rows, values, what):
    """Write a piece to its rows of an array, of which `file` is the mapped file if it has one."""
    try:
        if file is not None:
            file.check_size()
        out[rows] = values.toarray() if issparse(values) else values
    except (OSError, RuntimeError) as error:  # h5py raises both
        reason = f"writing the {what} of block {number} (rows {rows.start} to {rows.stop - 1}) failed ({error})"
        kept = f"those of rows 0 to {rows.start - 1} have been written" if rows.start else "none have been written"
        raise OSError(getattr(error, "errno", None), f"{reason}; {kept}") from error
    if file is not None:
        file.release()
