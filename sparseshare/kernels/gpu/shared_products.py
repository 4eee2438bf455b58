"""Weights that share values: hashes of positions, gathered gradients."""

import numpy as np

from sparseshare.devices import to_device

from .module import kernel

_THREADS, _BLOCKS = 256, 4096
_WARP, _MANY = 32, 64  # uses of a value from which on more than a warp adds them up


def hashed_index(n_values, seed, index, signs):
    """See the CPU's `hashed_index`."""
    from sparseshare.kernels.cpu.shared_products import hash_key

    grid = (min(-(-index.size // _THREADS), _BLOCKS),)
    key = hash_key(np.uint32(seed))
    kernel("shared_products", "hashed_index", index.dtype)(grid, (_THREADS,), n_values, key, index.size, index, signs)


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
