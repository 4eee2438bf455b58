"""Codes in the users' form, channels last, dense or CSR, and back in the form of this room."""

from math import prod

import numpy as np
from scipy.sparse import csr_array, issparse

from .maps import SparseMaps


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
    ndarray, csr_array, or list of ndarrays (n_components, *positions[, n_channels]) or of csr_arrays of one row
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
        A csr_array, a row a signal; else an ndarray.
    """
    shape = solutions[0].maps.shape
    users = (*shape[1:], shape[0]) if separate else shape[1:]
    if sparse:
        return _stack_rows([solution.maps for solution in solutions], separate)
    codes = np.empty((len(solutions), *users), solutions[0].maps.dtype)
    for row, solution in zip(codes, solutions, strict=True):
        maps = solution.maps.dense() if isinstance(solution.maps, SparseMaps) else solution.maps
        row[...] = np.moveaxis(maps, 0, -1) if separate else maps[0]
        solution.maps = None
    return codes


def _stack_rows(maps, separate):
    size = prod(maps[0].shape)
    columns, values = [], []
    for one in maps:
        indices, entries = one.indices, one.values
        if separate:
            channel, place = np.divmod(indices, size // one.shape[0])
            indices = place * one.shape[0] + channel
            order = np.argsort(indices)
            indices, entries = indices[order], entries[order]
        columns.append(indices)
        values.append(entries)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in columns])])
    codes = csr_array((np.concatenate(values), np.concatenate(columns), starts), shape=(len(maps), size))
    codes.has_canonical_format = True
    return codes


def unstack(codes, n_components, positions, n_codes, dtype):
    """Users' codes, dense or CSR, as a list of maps (J, n_components, *positions).

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_components, *positions[, n_channels]) or CSR of as many columns
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
    expected = (codes.shape[0], prod(users)) if issparse(codes) else (len(codes), *users)
    if codes.shape != expected:
        raise ValueError(f"codes must have the shape {expected}, got {codes.shape}")
    maps = []
    for i in range(codes.shape[0]):
        one = codes[[i]].toarray().reshape(users) if issparse(codes) else codes[i]
        one = one[None] if n_codes is None else np.moveaxis(one, -1, 0)
        maps.append(np.ascontiguousarray(one, dtype))
        if not np.isfinite(maps[-1]).all():
            raise ValueError(f"the codes of signal {i} contain NaN or infinity")
    return maps
