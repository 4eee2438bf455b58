"""Codes in the users' form, channels last, dense or CSR, and back in the form of this room."""

from math import prod

import numpy as np
from scipy.sparse import csr_array

from sparseshare.devices import array_module, csr_of

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
    xp = array_module(_values(solutions[0].maps))
    codes = xp.empty((len(solutions), *users), solutions[0].maps.dtype)
    for number, solution in enumerate(solutions):
        maps = solution.maps.dense() if isinstance(solution.maps, SparseMaps) else solution.maps
        codes[number] = xp.moveaxis(maps, 0, -1) if separate else maps[0]
        solution.maps = None
    return codes


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
