"""Codes in the users' form, channels last, dense or CSR, and back in the form of this room."""

from contextlib import closing
from math import prod

import numpy as np
from scipy.sparse import csr_array

from sparseshare.devices import array_module, csr_of

from .maps import SparseMaps

_PIECE_BYTES = 2**20  # from which a piece is worth writing


def lay_out(solutions, signals, sparse):
    """Codes of signals in the users' form: `stack`, or a list for signals of different sizes.

    Parameters
    ----------
    solutions : list of Solution
        Emptied on the way.
    signals : ConvSignals
    sparse : bool

    Returns
    -------
    array, CSR array, or list of arrays (n_components, *positions[, n_channels]) or of CSR arrays of one row
        Where the solutions live.
    """
    if signals.same_shape is not None:
        return stack(solutions, signals.separate, sparse)
    parts = [stack([solution], signals.separate, sparse) for solution in solutions]
    return parts if sparse else [part[0] for part in parts]


def stack(solutions, separate, sparse):
    """Codes of signals of one shape in the users' form.

    Parameters
    ----------
    solutions : list of Solution
        Emptied on the way, so that the codes are not held twice.
    separate : bool
        Whether every channel has maps of its own: they become the last axis.
    sparse : bool
        A CSR array, a row a signal; else a dense one.
    """
    shape = solutions[0].maps.shape
    users = (*shape[1:], shape[0]) if separate else shape[1:]
    if sparse:
        return _stack_rows([solution.maps for solution in solutions], separate)
    codes = array_module(_values(solutions[0].maps)).empty((len(solutions), *users), solutions[0].maps.dtype)
    for number, solution in enumerate(solutions):
        codes[number] = dense_maps(solution.maps, separate)
        solution.maps = None
    return codes


def dense_maps(maps, separate):
    """Maps of one signal, `SparseMaps` or an array, as a dense array in the users' form; `separate` as in `stack`."""
    dense = maps.dense() if isinstance(maps, SparseMaps) else maps
    return array_module(dense).moveaxis(dense, 0, -1) if separate else dense[0]


def in_pieces(results, as_array):
    """Rows of an array, a signal each, gathered into pieces that are worth writing.

    Parameters
    ----------
    results : generator
        What there is of each signal, in their order; it is closed when this one is.
    as_array : callable
        Makes the row of it, an ndarray.

    Yields
    ------
    number, first : int
        Of the piece and of its first signal.
    rows : ndarray
        As many signals as make `_PIECE_BYTES`, at least one.
    """
    number, first, rows, size = 0, 0, [], 0
    with closing(results):
        for result in results:
            rows.append(as_array(result))
            size += rows[-1].nbytes
            if size >= _PIECE_BYTES:
                piece = number, first, _joined(rows)
                number, first, rows, size = number + 1, first + len(rows), [], 0
                yield piece
                piece = None  # the next one may be as large
    if rows:
        yield number, first, _joined(rows)


def _joined(rows):
    return rows[0][None] if len(rows) == 1 else np.stack(rows)


def _values(maps):
    return maps.values if isinstance(maps, SparseMaps) else maps


def _stack_rows(maps, separate):
    xp, size = array_module(maps[0].values), prod(maps[0].shape)
    columns, values = [], []
    for one in maps:
        indices, entries = one.indices, one.values
        if separate:
            channel, place = xp.divmod(indices, size // one.shape[0])
            indices = place * one.shape[0] + channel
            order = xp.argsort(indices)
            indices, entries = indices[order], entries[order]
        columns.append(indices)
        values.append(entries)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in columns])])
    parts = xp.concatenate(values), xp.concatenate(columns)
    if xp is not np:
        return _rows_on_gpu(*parts, starts, (len(maps), size))
    codes = csr_array((*parts, starts), shape=(len(maps), size))
    codes.has_canonical_format = True
    return codes


def _rows_on_gpu(values, columns, starts, shape):
    """cuSPARSE numbers columns and entries with 32 bits."""
    if max(shape[1], starts[-1]) > np.iinfo(np.int32).max:
        raise ValueError(
            f"CSR matrices of a GPU have at most {np.iinfo(np.int32).max} columns and entries; these codes have "
            f"{shape[1]} and {starts[-1]}: ask for dense codes, code fewer signals at once, or pass NumPy arrays"
        )
    starts = array_module(values).asarray(starts.astype(np.int32))
    return csr_of(values, columns.astype(np.int32), starts, shape)


def unstack(codes, n_components, positions, n_codes, dtype):
    """Users' codes, dense or CSR, as a list of maps (J, n_components, *positions).

    Parameters
    ----------
    codes : array of shape (n_samples, n_components, *positions[, n_channels]) or CSR of as many columns
        On either device; the maps stay there.
    n_components : int
    positions : tuple of int
    n_codes : int or None
        Number of channels that have maps of their own, None if none have.
    dtype : dtype

    Raises
    ------
    ValueError
        For other shapes, NaN and infinity.
    """
    users = (n_components, *positions, *(() if n_codes is None else (n_codes,)))
    sparse = hasattr(codes, "tocsr")
    expected = (codes.shape[0], prod(users)) if sparse else (len(codes), *users)
    if codes.shape != expected:
        raise ValueError(f"codes must have the shape {expected}, got {codes.shape}")
    maps = []
    for i in range(codes.shape[0]):
        one = codes[i : i + 1].toarray().reshape(users) if sparse else codes[i]
        xp = array_module(one)
        one = one[None] if n_codes is None else xp.moveaxis(one, -1, 0)
        maps.append(xp.ascontiguousarray(one, dtype))
        if not xp.isfinite(maps[-1]).all():
            raise ValueError(f"the codes of signal {i} contain NaN or infinity")
    return maps
