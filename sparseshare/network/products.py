"""Products with matrices of shared or pruned weights that are never held as a whole."""

import numpy as np

from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads

from .blocks import row_blocks

_LINE = 64  # bytes of a vector, and of a cache line
_PANEL_BYTES, _TURNED_BYTES = 2 * _LINE, 8 * _LINE  # of a row of scratch
_DEPTH = 512  # rows of the matrix that are made at a time
_FEW = 4  # rows of which each costs less than making panels, or turning rows into columns
_SIDE_BY_SIDE, _STEP = 256, 64  # columns that a thread takes at a time, and what their number is a multiple of


def hashed_product(rows, values, pattern, n_threads=1):
    """Rows times a hashed matrix, some columns of which are made at a time.

    Parameters
    ----------
    rows : ndarray of shape (n, n_in)
    values : ndarray of shape (n_values,)
    pattern : Hashed
    n_threads : int, default=1
        The result does not depend on it.

    Returns
    -------
    ndarray of shape (n, n_out)
    """
    rows, out = _prepared(rows, values, pattern)
    kernels, n_in = kernels_for("cpu", "compressed_products"), pattern.shape[0]
    few = len(rows) <= _FEW
    blocks = _column_blocks(pattern.shape[1], n_threads if few else None)

    def work(i, worker):
        columns = blocks[i]
        if few and pattern.run > 1:
            kernels.hashed_rows(
                rows, values, pattern.seed, pattern.signed, pattern.run, columns.start, columns.stop, out
            )
            return
        panel = _aligned(min(n_in, _DEPTH), _PANEL_BYTES, values.dtype)
        kernels.hashed_product(
            rows, values, pattern.seed, pattern.signed, pattern.run, columns.start, columns.stop, panel, out
        )

    run_in_threads(work, len(blocks), n_threads)
    return out


def pruned_product(rows, values, pattern, n_threads=1):
    """Rows times a matrix of which few entries are kept.

    Parameters
    ----------
    rows : ndarray of shape (n, n_in)
    values : ndarray of shape (n_values,)
    pattern : Kept
    n_threads : int, default=1
        The result does not depend on it.

    Returns
    -------
    ndarray of shape (n, n_out)
    """
    rows, out = _prepared(rows, values, pattern)
    kernels, (n_in, n_out) = kernels_for("cpu", "compressed_products"), pattern.shape
    unpacked = kernels.EXPANDS and len(rows) <= _FEW
    # As many rows as are turned into columns at once; only where these are too few for all threads, blocks of columns.
    samples = row_blocks(len(rows), rows=_TURNED_BYTES // values.itemsize)
    columns = _column_blocks(n_out, n_threads) if len(samples) < n_threads else [slice(0, n_out)]
    parts = [(some, block) for some in samples for block in columns]

    def work(i, worker):
        some, block = parts[i]
        where = pattern.bits, pattern.starts[block.start], block.start, block.stop
        if unpacked:
            kernels.kept_rows(rows[some], values, *where, out[some])
            return
        narrow = (some.stop - some.start) * values.itemsize <= _LINE
        turned = _aligned(n_in, _LINE if narrow else _TURNED_BYTES, values.dtype)
        kernels.kept_product(rows[some], values, *where, turned, out[some])

    run_in_threads(work, len(parts), n_threads)
    return out


def _prepared(rows, values, pattern):
    """Rows as the kernels take them, and room for the result."""
    if rows.ndim != 2 or rows.shape[1] != pattern.shape[0]:
        raise ValueError(f"Weights of shape {pattern.shape} take rows of {pattern.shape[0]}, got shape {rows.shape}")
    rows = np.ascontiguousarray(rows, values.dtype)
    return rows, np.empty((len(rows), pattern.shape[1]), values.dtype)


def _column_blocks(n_columns, n_blocks):
    """Slices of columns: so many blocks, or for None as many as there are of `_SIDE_BY_SIDE` columns."""
    step = _SIDE_BY_SIDE if n_blocks is None else -(-n_columns // (n_blocks * _STEP)) * _STEP
    return [slice(start, min(start + step, n_columns)) for start in range(0, n_columns, step)]


def _aligned(n_rows, row_bytes, dtype):
    """Scratch that begins with a cache line: a vector across two of them takes twice as long to load."""
    memory = np.empty(n_rows * row_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + n_rows * row_bytes].view(dtype).reshape(n_rows, -1)
