"""Rows that are read piece by piece: memory maps, chunked stores, whatever can be cut, and blocks in their order.

A source has a shape, a dtype and `blocks`; one that can be cut anywhere also gives any rows. What is read is checked
when it is read, and what is wrong with it is said with the number of the block and of its rows.
"""

import hashlib
from itertools import chain
from threading import Lock
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, issparse, vstack

from .devices import array_module, on_gpu
from .mapping import mapped_file
from .validation import check_kind, compute_dtype, refuse_dask

_BLOCK_BYTES = 2**24  # of rows that are held at once
_FEWEST, _MOST = 512, 65_536  # rows of a block
_GAP = 64  # rows: wanted ones that lie no further apart are read at one go
_SAMPLED = 64  # rows that a fingerprint looks at


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


def rows_of(X, name="X"):
    """What a user passes as signals, as a source if it is to be read piece by piece.

    Parameters
    ----------
    X : object
    name : str, default="X"
        What the messages call it.

    Returns
    -------
    Source, or X itself
        X itself if it is in memory already, or nothing that this module knows: arrays, tables, lists of rows, sparse
        arrays. Not a byte of an array on disk is read; of blocks the first is fetched.

    Raises
    ------
    BlockError, ValueError
        If the blocks are no blocks of rows, or if there are none.
    TypeError
        For the arrays of Dask.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.sources import rows_of
    >>> source = rows_of([np.ones((3, 2)), np.zeros((1, 2))])
    >>> source.shape, [len(block.rows) for block in source.blocks(2)]
    ((4, 2), [2, 2])
    """
    if isinstance(X, Source):
        return X
    refuse_dask(X, name)
    if _is_block(X) or on_gpu(X) or hasattr(X, "iloc"):
        if mapped_file(X) is None or X.ndim != 2:
            return X
        return ArrayRows(X, name)
    if all(hasattr(X, part) for part in ("shape", "dtype", "__getitem__")):
        try:
            np.dtype(X.dtype)
        except TypeError:  # of a library with dtypes of its own
            return X
        return ArrayRows(X, name) if len(X.shape) == 2 else X
    if isinstance(X, list | tuple):
        return Blocks(X, name) if len(X) and getattr(X[0], "ndim", 0) == 2 else X
    table = any(hasattr(X, part) for part in ("__array__", "__array_interface__", "__dataframe__", "shape"))
    if hasattr(X, "__iter__") and not table and not isinstance(X, str | bytes | dict | set):
        return Blocks(X, name)
    return X


def as_source(X, name="X"):
    """As `rows_of`, but what is in memory becomes a source, too; X as `validation.check_signals` returns it."""
    return X if isinstance(X, Source) else ArrayRows(X, name)


def check_source(X, n_features=None):
    """Refuse a source without rows, without columns, of other things than numbers or of other columns than asked for.

    Parameters
    ----------
    X : Source
    n_features : int or None, default=None

    Returns
    -------
    X : Source
    dtype : numpy.dtype
        float32 or float64, what to compute in.

    Raises
    ------
    ValueError
    """
    check_kind(X, X.name)
    for axis, what in enumerate(("sample", "feature")):
        if X.shape[axis] == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required by {X.name}."
            )
    if n_features is not None and X.shape[1] != n_features:
        raise ValueError(
            f"Dictionary and {X.name} have different numbers of features: "
            f"the dictionary has {n_features}, {X.name}.shape is {X.shape}"
        )
    return X, compute_dtype(X)


def rows_a_block(n_features, dtype):
    """Rows that make a block of about 16 MB, a power of two."""
    rows = _BLOCK_BYTES // (max(n_features, 1) * np.dtype(dtype).itemsize)
    return min(max(2 ** max(int(rows).bit_length() - 1, 0), _FEWEST), _MOST)


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

    def read(self, rows):
        """Rows of a slice with start and stop inside the whole, dense or CSR, in memory of their own or not."""
        raise NotImplementedError

    def release(self, rows):
        """The rows of a slice will not be asked for soon."""

    def __getitem__(self, rows):
        """Rows of a slice or of numbers in any order, finite, in memory of their own."""
        if isinstance(rows, slice):
            return self._checked(*rows.indices(len(self))[:2])
        rows = np.asarray(rows)
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        apart = np.diff(wanted) > _GAP
        apart |= np.diff(wanted // rows_a_block(self.shape[1], self.dtype)) > 0  # however many, never more than a block
        cuts = np.flatnonzero(apart) + 1
        runs = [run for run in np.split(wanted, cuts) if len(run)]
        parts = [self._checked(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs]
        if not parts:
            return np.empty((0, self.shape[1]), self.dtype)
        together = stacked(parts)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return together[back]

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
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SAMPLED)).astype(np.int64)).tolist()
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
            block = block.copy()
        self.release(rows)
        return block


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


def fingerprint(rows):
    """Hexadecimal digest of some rows: of shape, dtype and all entries.

    Parameters
    ----------
    rows : array or CSR array

    Returns
    -------
    str
    """
    dense = np.ascontiguousarray(rows.toarray() if hasattr(rows, "toarray") else rows)
    digest = hashlib.sha256(f"{dense.shape} {dense.dtype.str}".encode())
    digest.update(dense.tobytes())
    return digest.hexdigest()


class ArrayRows(Source):
    """Rows of anything with a shape, a dtype and row slices: memory maps, zarr arrays, HDF5 data sets, arrays, CSR.

    Of a memory map only the pages of a block stay in this process: they are handed back once the block has been copied.

    Parameters
    ----------
    array : object of shape (n_samples, n_features)
    name : str, default="X"
    """

    def __init__(self, array, name="X"):
        super().__init__(array.shape, array.dtype, name)
        self.array, self._mapped = array, mapped_file(array)
        self._lock = None if _is_block(array) or on_gpu(array) else Lock()  # not every library reads in threads

    def read(self, rows):
        if self._lock is None:
            if self._mapped is not None:
                self._mapped.check_size()
            return self.array[rows]
        with self._lock:
            block = self.array[rows]
        return block if issparse(block) else np.asarray(block)

    def release(self, rows):
        if self._mapped is None:
            return
        # Pages come in by the dozen around the one that was asked for, up to megabytes: so all go, not these rows'.
        # Those still in the cache of the system are back without a read.
        self._mapped.release()


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
        first = next(iterator, None)
        if first is None:
            cause = "is used up: pass a new one, or a list" if self.once else "gives none"
            raise ValueError(f"Found array with 0 sample(s): {name} is to come in blocks, but its iterator {cause}")
        first = _as_block(first, f"block 0 of {name}", 0)
        n_samples = None
        if isinstance(blocks, list | tuple) and all(getattr(block, "ndim", 0) == 2 for block in blocks):
            n_samples = sum(block.shape[0] for block in blocks)
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
        while True:
            where = f"block {number} of {self.name}, whose rows begin at {first},"
            try:
                block = next(iterator)
            except StopIteration:
                break
            except Exception as error:  # whatever makes the blocks may raise
                raise BlockError(
                    f"{where} could not be read: {type(error).__name__}: {error}", number, slice(first, None)
                ) from error
            block = _as_block(block, where, number, first)
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
            if block.shape[0]:
                yield Block(number, first, block)
            number, first = number + 1, rows.stop
        self.shape = first, self.shape[1]

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
        return self.head(_SAMPLED)

    def head(self, n_rows):
        """The first rows, at most `n_rows`; an iterator gives them once more afterwards."""
        fetched = self._fetched if self.once else []
        iterator = self._blocks if self.once else iter(self._blocks)
        held = sum(block.shape[0] for block in fetched)
        while held < n_rows:
            block = next(iterator, None)
            if block is None:
                break
            fetched.append(_as_block(block, f"block {len(fetched)} of {self.name}", len(fetched), held))
            held += fetched[-1].shape[0]
        return stacked(fetched)[:n_rows]


def _is_block(X):
    return isinstance(X, np.ndarray) or issparse(X)


def _as_block(block, where, number, first=0):
    """A block as a real array or CSR array of two axes."""
    if on_gpu(block):
        raise BlockError(
            f"{where} lives on a GPU: hand it to partial_fit or transform itself", number, slice(first, None)
        )
    if not _is_block(block):
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
