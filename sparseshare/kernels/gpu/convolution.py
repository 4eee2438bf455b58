"""Convolution of maps with atoms and its adjoint on a GPU, sample by sample, without spectra.

Signals are (J, C, *signal_shape), atoms (K, C, *support), maps (J, K, *positions).
"""

from math import prod

import numpy as np

from .module import kernel

_THREADS = 256
_ATOMS = 4  # that a thread correlates with at once, and channels that it makes at once
_ATOMS_A_BLOCK = 16
_BLOCKS = 1024  # that a signal is to make at least, so that one alone fills the device
_SHARED = 200 * 1024  # bytes that a tile may take


class Places:
    """Where atoms lie, as the kernels know it; made once for an operator, on the current device.

    Parameters
    ----------
    signal_shape, positions, support : tuples of ints, of the same length
    offset : tuple of ints
        Sample under entry 0 of an atom at position 0.
    wraps : bool
    """

    def __init__(self, signal_shape, positions, support, offset, wraps):
        import cupy

        self.signal_shape, self.positions, self.support = signal_shape, positions, support
        turned = tuple(1 - length - first for length, first in zip(support, offset, strict=True))
        sizes = _three(signal_shape), _three(positions), _three(support)
        numbers = [
            (*sizes[into], *sizes[1 - into], *sizes[2], *_three(shift, 0), wraps)
            for into, shift in ((0, turned), (1, offset))
        ]
        self.synthesis, self.correlation = (cupy.asarray(np.array(row, np.int32)) for row in numbers)


def correlate_directly(signal, atoms, places, out):
    """out[j, k] = sum_c correlation of signal[j, c] with atoms[k, c], at all positions."""
    n_atoms, n_channels = atoms.shape[:2]
    rows, tiles, tile = _tiles(places.positions, places.support)
    kernel("convolution", "correlate_directly", atoms.dtype, rows)(
        (tiles, -(-n_atoms // _ATOMS_A_BLOCK), len(signal)), (_THREADS,),
        signal, atoms, places.correlation, n_channels, n_atoms, _ATOMS_A_BLOCK, out,
        shared=(tile + _ATOMS * prod(places.support[-2:])) * atoms.itemsize,
    )  # fmt: skip


def synthesize_directly(maps, atoms, places, out):
    """out[j, c] = sum_k maps[j, k] * atoms[k, c]."""
    import cupy

    n_atoms, n_channels = atoms.shape[:2]
    channels = 1 if n_channels == 1 else _ATOMS
    rows, tiles, tile = _tiles(places.signal_shape, places.support)
    groups = -(-n_channels // channels)
    n_parts = max(1, min(n_atoms // 8, _BLOCKS // (tiles * groups)))  # not by the signals: each has its sums in one way
    parts = out if n_parts == 1 else cupy.empty((n_parts, *out.shape), out.dtype)
    taps = -(-channels * prod(places.support[-2:]) // 4) * 4
    kernel("convolution", "synthesize_directly", atoms.dtype, rows, channels)(
        (tiles, groups * n_parts, len(maps)), (_THREADS,),
        maps, atoms, places.synthesis, n_channels, n_atoms, n_parts, parts,
        shared=(tile + taps) * atoms.itemsize,
    )  # fmt: skip
    if n_parts > 1:
        cupy.sum(parts, axis=0, out=out)


def fits(support, itemsize):
    """Whether the kernels have room for atoms of this support."""
    largest = max(_tiles(shape, support)[2] for shape in ((1,) * len(support), (2,) * len(support)))
    return (largest + _ATOMS * prod(support[-2:])) * itemsize <= _SHARED


def _tiles(shape, support):
    """Rows a thread makes, tiles of a result of this shape, and entries of the tile that is read for one."""
    rows = 1 if prod(shape[:-1]) == 1 else 4
    width, height = (_THREADS, 1) if rows == 1 else (32, 32)
    _, down, across = _three(shape)
    _, tall, wide = _three(support)
    n_tiles = -(-across // width) * -(-down // height) * prod(shape[:-2])
    return rows, n_tiles, (width + wide - 1) * (height + tall - 1)


def _three(shape, fill=1):
    """Three axes, leading ones filled up."""
    return (fill,) * (3 - len(shape)) + tuple(shape)
