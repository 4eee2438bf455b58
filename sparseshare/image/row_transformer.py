"""Transformers of dense rows with as many columns out: rows of memory, a GPU, a disk or blocks, some at a time."""

from contextlib import closing

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import validate_data

from sparseshare.buffering import paged_empty, read_ahead
from sparseshare.devices import Movable, array_module, computing_on, on_gpu, resolve_device, rows_that_fit, to_host
from sparseshare.outputs import write_pieces
from sparseshare.sources import BlockError, Source, as_source, check_source, rows_a_block, rows_of
from sparseshare.staging import StagedRows
from sparseshare.validation import check_resident, check_signals, compute_dtype

_ROWS = 4096  # rows worked on at a time: their temporaries stay small
_COPIES = 6  # of a row that the work on a GPU makes at most, in float64


class RowTransformer(OneToOneFeatureMixin, Movable, TransformerMixin, BaseEstimator):
    """Dense rows of numbers in, as many columns out, float32 kept. Subclasses have the parameter `device`."""

    __metadata_request__transform = {"out": UNUSED}
    __metadata_request__inverse_transform = {"out": UNUSED}

    def _check(self, X, reset):
        """Rows where they live, or a source of them, and the device to compute on."""
        device = resolve_device(self.device, X, None if reset else vars(self).get("mean_"))
        X = rows_of(X)
        if isinstance(X, Source):
            X, _ = check_source(X)
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X, device
        if not on_gpu(X):
            return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32]), device
        validate_data(self, X, reset=reset, skip_check_array=True)
        return check_resident(check_signals(X)[0]), device

    def _check_back(self, X):
        """Rows to be turned back: without the names that a transformed frame may have lost."""
        if hasattr(X, "columns"):
            X = X.to_numpy()
        return self._check(X, reset=False)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def transformed(X, device, function, out=None, products=False):
    """What becomes of rows, some at a time.

    Parameters
    ----------
    X : ndarray, CuPy array or Source of shape (n, n_features)
    device : str
        "cpu" or "cuda:N".
    function : callable
        ``function(rows, first)``: what becomes of rows that lie on the device, the number of the first given.
    out : array to be written to, default=None
    products : bool, default=False
        As of `in_blocks`.

    Returns
    -------
    array of shape (n, n_features)
        `out`, or an array where X lives.
    """

    def work(rows, first):
        # Blocks come and go, and so does what becomes of them; an array as a whole stays.
        empty = paged_empty if out is not None or isinstance(X, Source) else np.empty
        done = (array_module(rows).empty if on_gpu(rows) else empty)(rows.shape, rows.dtype)
        for part, block in blocks(rows, device):
            one = function(block, first + part.start)
            done[part] = one if on_gpu(rows) == on_gpu(block) else to_host(one)
        return done

    if out is not None:
        return write_pieces(in_blocks(as_source(X), work, products), out, X.shape, what="rows")
    if isinstance(X, Source) and X.shape[0] is not None:
        return write_pieces(in_blocks(X, work, products), np.empty(X.shape, compute_dtype(X)), X.shape, what="rows")
    parts = [done for _, _, done in in_blocks(X, work, products)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def in_blocks(X, work, products=False):
    """What is made of every block of a source; of what is in memory as a whole.

    Parameters
    ----------
    X : ndarray, CuPy array or Source of shape (n, n_features)
    work : callable
        ``work(rows, first)``, with dense rows of float32 or float64 and the number of the first.
    products : bool, default=False
        Whether rows are multiplied by a matrix or by each other: last bits then depend on how many are at once, and
        blocks of wide rows are as long as what rows in memory are cut into.

    Yields
    ------
    number, first : int
        Of the block, and of its first row.
    made : object

    Raises
    ------
    TypeError
        For sparse rows.
    BlockError
        For blocks that cannot be read or worked on; the message names them.
    ValueError
        If there are no rows.
    """
    if not isinstance(X, Source):
        yield 0, 0, work(X, 0)
        return
    n_rows, dtype, rows = rows_a_block(X.shape[1], X.dtype), compute_dtype(X), None
    source = X.blocks(max(n_rows, _ROWS) if products else n_rows)  # both are powers of two
    with closing(read_ahead(source) if X.in_threads else source) as source:
        for number, first, rows in source:
            where = f"block {number} (rows {first} to {first + rows.shape[0] - 1}) of {X.name}"
            if issparse(rows):
                raise TypeError(f"Sparse data was passed in {where}, but dense data is required: use its toarray()")
            try:
                made = work(rows.astype(dtype, copy=False), first)
            except ValueError as error:
                raise BlockError(f"{where}: {error}", number, slice(first, first + rows.shape[0])) from error
            yield number, first, made
    if rows is None:
        raise ValueError(f"Found array with 0 sample(s): the blocks of {X.name} have no rows")


def blocks(X, device):
    """Rows of X with their numbers (a slice), a few at a time, on the device where they are worked on.

    Parameters
    ----------
    X : ndarray or CuPy array of shape (n, n_features)
    device : str
        "cpu" or "cuda:N".
    """
    if device == "cpu":
        for start in range(0, len(X), _ROWS):
            rows = slice(start, start + _ROWS)
            yield rows, X[rows]
        return
    with computing_on(device):
        n_rows = rows_that_fit(device, _COPIES * 8 * X.shape[1])
        pieces = StagedRows(X, X.dtype, device, n_rows)
        for rows, block in pieces:
            yield rows, block
            pieces.prefetch()
