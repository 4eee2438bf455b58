"""What users pass as signals, as a source if it is to be read piece by piece."""

import numpy as np

from ..devices import on_gpu
from ..mapping import mapped_file
from ..validation import check_kind, compute_dtype, refuse_dask
from .arrays import ArrayRows
from .blocks import is_block
from .iterables import Blocks
from .source import Source


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
    if is_block(X) or on_gpu(X) or hasattr(X, "iloc"):
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
