"""Rows that come in blocks, in their order: from an iterator, or from what can be iterated again and again."""

from itertools import chain

import numpy as np

from ..fingerprints import SAMPLED, sampled
from ..validation import compute_dtype
from .blocks import Block, BlockError, as_block, check_block, rows_a_block, stacked
from .source import Source


class Blocks(Source):
    """Rows that come in blocks, in their order: from an iterator, or from what can be iterated again and again.

    Parameters
    ----------
    blocks : iterable of arrays or sparse arrays of shape (n_rows, n_features)
        Of any numbers of rows.
    name : str, default="X"
    """

    in_order_only = True

    def __init__(self, blocks, name="X"):
        self.once, self._blocks = hasattr(blocks, "__next__"), blocks
        iterator = iter(blocks)
        self.name = name
        first = self._next(iterator, 0, 0)
        if first is None:
            cause = "is used up: pass a new one, or a list" if self.once else "gives none"
            raise ValueError(f"Found array with 0 sample(s): {name} is to come in blocks, but its iterator {cause}")
        self._listed = isinstance(blocks, list | tuple) and all(getattr(block, "ndim", 0) == 2 for block in blocks)
        n_samples = sum(block.shape[0] for block in blocks) if self._listed else None
        super().__init__((n_samples, first.shape[1]), first.dtype, name)
        self._fetched = [first]  # of an iterator that gives nothing twice

    def raw_blocks(self, finite=True):
        """Blocks as they come, checked.

        Parameters
        ----------
        finite : bool, default=True
            Refuse NaN and infinity.

        Yields
        ------
        Block
        """
        if not self.once:
            iterator = iter(self._blocks)
        elif self._fetched is None:
            raise ValueError(
                f"the iterator of the blocks of {self.name} is used up: its rows can be gone through only once. Pass a "
                "list, or an object that makes a new iterator whenever it is iterated"
            )
        else:
            iterator, self._fetched = chain(self._fetched, self._blocks), None
        number, first = 0, 0
        while (block := self._next(iterator, number, first)) is not None:
            self._check(block, number, first, finite)
            if block.shape[0]:
                yield Block(number, first, block)
            number, first = number + 1, first + block.shape[0]
        self.shape = first, self.shape[1]

    def _next(self, iterator, number, first):
        """The next block, whose number and first row these are; None if there is none."""
        where = f"block {number} of {self.name}, whose rows begin at {first},"
        try:
            block = next(iterator, None)
        except Exception as error:  # whatever makes the blocks may raise
            raise BlockError(
                f"{where} could not be read: {type(error).__name__}: {error}", number, slice(first, None)
            ) from error
        return None if block is None else as_block(block, where, number, first)

    def _check(self, block, number, first, finite):
        rows = slice(first, first + block.shape[0])
        where = f"block {number} (rows {first} to {rows.stop - 1}) of {self.name}"
        if block.shape[1] != self.shape[1]:
            raise BlockError(
                f"{where} has {block.shape[1]} columns, those before it have {self.shape[1]}", number, rows
            )
        if compute_dtype(block) != compute_dtype(self):
            raise BlockError(f"{where} has dtype {block.dtype}, those before it have {self.dtype}", number, rows)
        if finite:
            check_block(block, where, first, number)

    def blocks(self, n_rows=None, first=0, *, finite=True):
        n_rows = rows_a_block(self.shape[1], self.dtype) if n_rows is None else n_rows
        parts, held, at = [], 0, 0
        for block in self.raw_blocks(finite):
            rows, start = block.rows, 0
            while start < rows.shape[0]:
                taken = min(n_rows - held, rows.shape[0] - start)
                if at >= first:
                    parts.append(rows[start : start + taken])
                start, held = start + taken, held + taken
                if held == n_rows:
                    if parts:
                        yield Block(at // n_rows, at, stacked(parts))
                    parts, held, at = [], 0, at + n_rows
        if parts:
            yield Block(at // n_rows, at, stacked(parts))

    def __getitem__(self, rows):
        """Rows of a slice or of numbers: all blocks are gone through for them."""
        wanted = np.arange(*rows.indices(self.count())) if isinstance(rows, slice) else np.asarray(rows)
        order = np.argsort(wanted, kind="stable")
        ordered, parts = wanted[order], []
        for block in self.raw_blocks():
            low, high = np.searchsorted(ordered, (block.first, block.first + block.rows.shape[0]))
            if high > low:
                parts.append(block.rows[ordered[low:high] - block.first])
        if not parts:
            return np.empty((0, self.shape[1]), self.dtype)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return stacked(parts)[back]

    def count(self):
        """How many rows there are: all blocks are gone through if nobody has done so yet."""
        if self.shape[0] is None:
            for _ in self.raw_blocks():
                pass
        return self.shape[0]

    def sample(self):
        """A few rows, always the same: from all over where they are counted, else the first."""
        if not self._listed:
            return self.head(SAMPLED)
        rows, parts, first = np.array(sampled(self.shape[0])), [self._fetched[0][:0]], 0
        for number, block in enumerate(self._blocks):
            if block.shape[1] == self.shape[1]:  # others are refused where they are learned from
                block = block.tocsr() if hasattr(block, "tocsr") else block
                own = rows[(rows >= first) & (rows < first + block.shape[0])] - first
                name = f"block {number} of {self.name}"
                parts += [as_block(block[row : row + 1], name, number, first) for row in own.tolist()]
            first += block.shape[0]
        return stacked(parts)

    def head(self, n_rows, finite=False):
        """The first rows, at most `n_rows`, of checked blocks; an iterator gives them once more afterwards."""
        fetched = self._fetched if self.once else []
        iterator = self._blocks if self.once else iter(self._blocks)
        number = held = 0
        while held < n_rows:
            if number == len(fetched):
                block = self._next(iterator, number, held)
                if block is None:
                    break
                fetched.append(block)
            self._check(fetched[number], number, held, finite)
            number, held = number + 1, held + fetched[number].shape[0]
        return stacked(fetched[:number])[:n_rows]
