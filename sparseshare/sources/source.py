"""Rows that are read when they are asked for: what all sources share."""

from contextlib import nullcontext

import numpy as np
from scipy.sparse import issparse

from ..buffering import paged_empty
from ..devices import on_gpu
from ..fingerprints import sampled
from .blocks import Block, BlockError, check_block, gathered, rows_a_block, stacked

_GAP = 64  # rows: wanted ones that lie no further apart are read at one go


class Source:
    """Rows that are read when they are asked for.

    Subclasses that can be cut anywhere write `read`; others write `blocks`, and `shape[0]` may be None: not known.

    Parameters
    ----------
    shape : (int or None, int)
    dtype : dtype
    name : str, default="X"
        What the messages call it.
    """

    ndim = 2
    in_order_only = False  # whether only `blocks` gives rows
    once = False  # whether they can be gone through only once

    def __init__(self, shape, dtype, name="X"):
        self.shape, self.dtype, self.name = tuple(shape), np.dtype(dtype), name

    def __len__(self):
        if self.shape[0] is None:
            raise TypeError(f"how many rows {self.name} has is not known before its blocks have been gone through")
        return self.shape[0]

    @property
    def in_threads(self):
        """Whether another thread than the user's may read: not where code of the user makes the blocks."""
        return not self.in_order_only

    def read(self, rows):
        """Rows of a slice with start and stop inside the whole, dense or CSR, in memory of their own or not."""
        raise NotImplementedError

    def release(self, rows):
        """The rows of a slice will not be asked for soon."""

    def scattered(self, rows):
        """A context in which these rows, an int array, are read one by one."""
        return nullcontext()

    def __getitem__(self, rows):
        """Rows of a slice or of numbers in any order, finite, in memory of their own."""
        if isinstance(rows, slice):
            return self._checked(*rows.indices(len(self))[:2])
        rows = np.asarray(rows)
        with self.scattered(rows):
            parts, back = gathered(rows, _GAP, rows_a_block(self.shape[1], self.dtype), self._checked)
        return stacked(parts)[back] if parts else np.empty((0, self.shape[1]), self.dtype)

    def blocks(self, n_rows=None, first=0, *, finite=True):
        """Rows from `first` on, block by block.

        Parameters
        ----------
        n_rows : int or None, default=None
            Rows of a block, of which the last may have fewer. None: as many as `rows_a_block` says.
        first : int, default=0
            A multiple of `n_rows`.
        finite : bool, default=True
            Refuse NaN and infinity.

        Yields
        ------
        Block

        Raises
        ------
        BlockError
            For what cannot be read and, if asked for, is not finite.
        """
        n_rows = rows_a_block(self.shape[1], self.dtype) if n_rows is None else n_rows
        for start in range(first, len(self), n_rows):
            stop = min(start + n_rows, len(self))
            yield Block(start // n_rows, start, self._checked(start, stop, n_rows, finite))

    def place(self, start, stop, n_rows=None):
        """Where rows lie, in words: "block 7 (rows 700 to 799)"."""
        n_rows = rows_a_block(self.shape[1], self.dtype) if n_rows is None else n_rows
        return f"block {start // n_rows} (rows {start} to {stop - 1}) of {self.name}"

    def sample(self):
        """A few rows, always the same, from all over the source."""
        rows = sampled(len(self))
        with self.scattered(np.array(rows)):
            return stacked([self._checked(row, row + 1, finite=False) for row in rows])

    def _checked(self, start, stop, n_rows=None, finite=True):
        where, rows = self.place(start, stop, n_rows), slice(start, stop)
        number = start // (rows_a_block(self.shape[1], self.dtype) if n_rows is None else n_rows)
        try:
            block = self.read(rows)
        except BlockError:
            raise
        except Exception as error:  # whatever a file format's library raises
            raise BlockError(f"{where} could not be read: {type(error).__name__}: {error}", number, rows) from error
        if block.shape != (stop - start, self.shape[1]):
            raise BlockError(
                f"{where} should have the shape {(stop - start, self.shape[1])}, it was read as {block.shape}",
                number, rows,
            )  # fmt: skip
        if finite:
            check_block(block, where, start, number)
        if not on_gpu(block) and not issparse(block) and not block.flags.owndata:
            mapped, block = block, paged_empty(block.shape, block.dtype)
            block[...] = mapped
        self.release(rows)
        return block
