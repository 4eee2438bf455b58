"""Blocks of rows: how large they are, and what is wrong with them."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, issparse, vstack

from ..devices import array_module, on_gpu
from ..validation import check_kind

_BLOCK_BYTES = 2**24  # of rows that are held at once
_FEWEST, _MOST = 512, 65_536  # rows of a block


class BlockError(ValueError):
    """Something is wrong with a block of rows.

    Parameters
    ----------
    message : str
    block : int or None, default=None
        Its number, counted from 0.
    rows : slice or None, default=None
        The rows of the whole that it holds, as far as they are known.
    """

    def __init__(self, message, block=None, rows=None):
        super().__init__(message)
        self.block, self.rows = block, rows


class Block(NamedTuple):
    """Some rows, one after the other.

    Attributes
    ----------
    number : int
    first : int
        Number of the first row.
    rows : array or CSR array of shape (n_rows, n_features)
    """

    number: int
    first: int
    rows: object


def rows_a_block(n_features, dtype):
    """Rows that make a block of about 16 MB, a power of two."""
    rows = _BLOCK_BYTES // (max(n_features, 1) * np.dtype(dtype).itemsize)
    return min(max(2 ** max(int(rows).bit_length() - 1, 0), _FEWEST), _MOST)


def is_block(X):
    return isinstance(X, np.ndarray) or issparse(X)


def as_block(block, where, number, first=0):
    """A block as a real array or CSR array of two axes."""
    if on_gpu(block):
        raise BlockError(
            f"{where} lives on a GPU: hand it to partial_fit or transform itself", number, slice(first, None)
        )
    if not is_block(block):
        try:
            block = np.asarray(block)
        except ValueError as error:
            raise BlockError(f"{where} is no 2-D array of numbers: {error}", number, slice(first, None)) from error
    if block.ndim != 2:
        raise BlockError(
            f"{where} must be a 2-D array, a row a signal, got the shape {block.shape}", number, slice(first, None)
        )
    check_kind(block, where)
    return block.tocsr() if hasattr(block, "tocsr") else block


def check_block(block, where, first, number=None):
    """Refuse NaN and infinity in a block, and say in which row the first is.

    Parameters
    ----------
    block : array or CSR array
    where : str
        The block, in words.
    first : int
        Number of its first row.
    number : int or None, default=None
        Its own.

    Raises
    ------
    BlockError
    """
    entries, xp = (block.data if hasattr(block, "tocsr") else block), array_module(block)
    if entries.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite only if all its terms are, and costs half as much as looking at each.
        if np.isfinite(float(entries.sum())) or bool(xp.isfinite(entries).all()):
            return
    bad = int(xp.flatnonzero(~xp.isfinite(entries.ravel()))[0])
    row = np.searchsorted(block.indptr, bad, side="right") - 1 if hasattr(block, "tocsr") else bad // block.shape[1]
    raise BlockError(
        f"{where} contains NaN or infinity, first in row {first + int(row)}: every entry must be a finite number",
        number,
        slice(first, first + block.shape[0]),
    )


def stacked(parts):
    """Blocks one below the other: CSR if all are, else dense."""
    if len(parts) == 1:
        return parts[0]
    if all(issparse(part) for part in parts):
        return csr_array(vstack(parts, format="csr"))
    return np.concatenate([part.toarray() if issparse(part) else part for part in parts])


def gathered(rows, gap, n_rows, read):
    """Read rows of any numbers in any order, neighbours together.

    Parameters
    ----------
    rows : ndarray of int
    gap : int
        Wanted rows that lie no further apart are read at one go.
    n_rows : int
        At most as many are.
    read : callable
        ``read(start, stop)`` gives an array of these rows.

    Returns
    -------
    parts : list of arrays
        The wanted rows, rising.
    back : ndarray of int
        Where among these each of `rows` is.
    """
    order = np.argsort(rows, kind="stable")
    wanted = rows[order]
    apart = (np.diff(wanted) > max(gap, 1)) | (np.diff(wanted // n_rows) > 0)
    runs = [run for run in np.split(wanted, np.flatnonzero(apart) + 1) if len(run)]
    parts = [read(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return parts, back
