"""Weights that share values: hashes of positions, gathered gradients."""

import numpy as np

from sparseshare.devices import to_device

from .module import kernel

_THREADS, _BLOCKS = 256, 4096
_WARP, _MANY = 32, 64  # uses of a value from which on more than a warp adds them up


def hash_key(seed):
    """What positions are mixed with; as the CPU's, which would have to be compiled for this one number."""
    word = (seed + 0x9E3779B9) & 0xFFFFFFFF
    word = ((word ^ word >> 16) * 0x7FEB352D) & 0xFFFFFFFF
    word = ((word ^ word >> 15) * 0x846CA68B) & 0xFFFFFFFF
    return word ^ word >> 16


def hashed_index(n_values, seed, index, signs):
    """See the CPU's `hashed_index`."""
    grid = (min(-(-index.size // _THREADS), _BLOCKS),)
    launch = kernel("shared_products", "hashed_index", index.dtype)
    launch(grid, (_THREADS,), n_values, hash_key(seed), index.size, index, signs)


def spell_out(values, index, signs, out):
    """See the CPU's `spell_out`."""
    grid = (min(-(-out.size // _THREADS), _BLOCKS),)
    signs = signs if signs.size else None
    kernel("shared_products", "spell_out", values.dtype)(grid, (_THREADS,), values, index, signs, out.size, out)


def segments(index, n_values, device):
    """Weights in the order of their values, for `gather_gradients`: sums then need no atomics, whose order is chance.

    Parameters
    ----------
    index : (n,) int array on the host
    n_values : int
    device : str

    Returns
    -------
    order : (n,) int32 array
        Places of weights, in the order of their values and, of one value, as they come.
    starts : (n_values + 1,) int64 array
        The first of every value, and the number of all.
    """
    counts = np.bincount(index + 1, minlength=n_values + 1)
    order = np.argsort(index, kind="stable").astype(np.int32)[counts[0] :]
    starts = np.concatenate([[0], np.cumsum(counts[1:])]).astype(np.int64)
    return to_device(order, device), to_device(starts, device)


def gather_gradients(gradient, index, signs, sums, segments):
    """See the CPU's `gather_gradients`; with what `segments` makes of `index`."""
    order, starts = segments
    block = _WARP if order.size < _MANY * sums.size else _THREADS
    launch = kernel("shared_products", "gather_gradients", gradient.dtype)
    launch((sums.size,), (block,), gradient, signs if signs.size else None, order, starts, sums)
