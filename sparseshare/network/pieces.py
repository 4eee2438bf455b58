"""Samples that come, and results that are made, piece by piece."""

from contextlib import closing

from sparseshare.buffering import read_ahead
from sparseshare.devices import array_module
from sparseshare.sources import Stack, check_block, stacked


def pieces_of(X, slices):
    """Samples in their order; of those on disk the next piece is read, and looked at, while this one is worked on.

    Parameters
    ----------
    X : array or Stack of shape (n_samples, ...)
    slices : list of slice, or of pairs of slices
        One after the other; the second of a pair cuts the second axis.

    Yields
    ------
    number, first : int
        Of the piece, and of its first sample.
    samples : array of shape (n, ...)

    Raises
    ------
    BlockError
        If a piece on disk cannot be read, or holds NaN or infinity.
    """
    if not isinstance(X, Stack):
        for number, key in enumerate(slices):
            yield number, _rows(key).start, X[key]
        return
    with closing(read_ahead(_read(X, slices))) as pieces:
        yield from pieces


def _read(X, slices):
    for number, key in enumerate(slices):
        samples, first = X[key], _rows(key).start
        where = f"block {number} (rows {first} to {first + len(samples) - 1}) of {X.name}"
        check_block(samples.reshape(len(samples), -1), where, first, number)
        yield number, first, samples


def _rows(key):
    return key[0] if isinstance(key, tuple) else key


def together(pieces, n_samples):
    """Results of all pieces as one array; dense ones go to their places, where it is known how many rows come.

    Parameters
    ----------
    pieces : generator of tuples (number, first, values)
        As `sparseshare.outputs.write_pieces` takes them.
    n_samples : int or None

    Returns
    -------
    array or csr_array of shape (n_samples, ...)

    Raises
    ------
    ValueError
        If there are no rows.
    """
    parts, whole = [], None
    with closing(pieces):
        for _, first, values in pieces:
            if values.shape[0] == n_samples:
                return values
            if n_samples is None or hasattr(values, "tocsr"):
                parts.append(values)
                continue
            if whole is None:
                whole = array_module(values).empty((n_samples, *values.shape[1:]), values.dtype)
            whole[first : first + len(values)] = values
    if whole is None and not parts:
        raise ValueError("Found array with 0 sample(s): none of the blocks has a row")
    return stacked(parts) if parts else whole
