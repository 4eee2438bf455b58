"""Sums over sparse activation maps on a GPU: phi, how maps go together, and psi, how maps and signals go together."""

from itertools import product
from math import prod

import numpy as np

from .module import kernel

_THREADS = 256


def correlate_maps(indices, values, maps, shape, support, circular, weight, phi):
    """phi[k, k', tau] += weight * sum_u z_k[u] z_k'[u + tau], for half of the offsets.

    Parameters
    ----------
    indices, values : device arrays, the non-zeros of the maps of one signal, ascending
    maps : device array of shape (K, *shape), the maps of this signal
    shape, support : tuples of int, positions and support along each axis
    circular : bool, whether u + tau wraps
    weight : float
    phi : (K, K, n_offsets) float64 device array, updated in place; offsets from 0 on in C order
    """
    import cupy

    border = [(0, 0), *((length - 1, length - 1) for length in support)]
    planes = cupy.pad(maps, border, mode="wrap") if circular else cupy.pad(maps, border)
    lags = list(product(*(range(1 - length, length) for length in support)))
    lags = lags[len(lags) // 2 :]
    origin = [length - 1 for length in support]
    _correlate(indices, values, planes, shape, np.array(lags) + origin, weight, phi)


def correlate_signal(indices, values, signal, shape, weight, psi):
    """psi[k, c, l] += weight * sum_u z_k[u] x_c[u + l].

    Parameters
    ----------
    indices, values : device arrays, the non-zeros of the maps of one signal, ascending
    signal : device array of shape (C, *samples), continued so far that every u + l lies inside; of the values' dtype
    shape : tuple of int, positions along each axis
    weight : float
    psi : (K, C, *support) float64 device array, updated in place
    """
    lags = np.array(list(product(*map(range, psi.shape[2:]))))
    _correlate(indices, values, signal, shape, lags, weight, psi)


def _correlate(indices, values, planes, shape, lags, weight, out):
    import cupy

    fill = (1,) * (3 - len(shape))
    wide = (*fill, *planes.shape[1:])
    strides = np.array([wide[1] * wide[2], wide[2], 1])[len(fill) :]
    offsets = cupy.asarray((lags * strides).sum(axis=1).astype(np.int64))
    starts = cupy.searchsorted(indices, cupy.arange(len(out) + 1) * prod(shape)).astype(np.int64)
    kernel("conv_statistics", "correlate_entries", values.dtype)(
        (-(-len(planes) * len(lags) // _THREADS), len(out)), (_THREADS,),
        indices, values, starts, planes, offsets, len(planes), len(lags), *fill, *shape, *wide[1:], planes[0].size,
        weight, out,
    )  # fmt: skip
