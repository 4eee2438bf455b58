"""Activations of a signal gathered over cells of positions, on a GPU."""

from math import prod

import numpy as np

from .module import kernel

_THREADS = 128


def pool_entries(indices, values, maps_shape, block_of, cells_shape, n_signs, maximum):
    """Sums, or largest values, of the magnitudes of a signal's codes over cells.

    Parameters
    ----------
    indices, values : device arrays, the non-zeros of maps (J, K, *positions), ascending
    maps_shape : tuple of int
    block_of : list of int64 arrays of the host, for every axis the cell of each position
    cells_shape : tuple of int
    n_signs : {1, 2}, 2 keeps positive and negative ones apart
    maximum : bool

    Returns
    -------
    (prod(cells_shape), n_signs, K, J) float64 device array
    """
    import cupy

    n_channels, n_atoms, *positions = maps_shape
    fill = 3 - len(positions)
    positions, cells = (1,) * fill + tuple(positions), (1,) * fill + tuple(cells_shape)
    homes = cupy.asarray(np.concatenate([np.zeros(fill, np.int64), *block_of]).astype(np.int32))
    starts = cupy.searchsorted(indices, cupy.arange(n_channels * n_atoms + 1) * prod(positions)).astype(np.int64)
    out = cupy.empty((prod(cells), n_signs, n_atoms, n_channels))
    kernel("conv_pooling", "pool_entries", values.dtype)(
        (n_channels * n_atoms,), (_THREADS,), indices, values, starts, homes, *positions, *cells[1:], prod(cells),
        n_signs, n_atoms, n_channels, maximum, out,
    )  # fmt: skip
    return out
