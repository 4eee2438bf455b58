"""Activations dropped by a hash of their place: no mask is kept, and every device drops the same ones."""

import numpy as np

from .jit import kernel
from .shared_products import hash_key, mix


@kernel
def drop(x, seed, least, scale, out):
    """Set entries to 0 where the hash of their place lies below `least`, and scale up the others.

    Parameters
    ----------
    x : (n,) array
    seed : int
    least : int, the share to drop times 2^32
    scale : float of x's type
    out : (n,) array, out
    """
    key, zero, bound = hash_key(seed), x.dtype.type(0), np.uint64(least)
    for p in range(x.shape[0]):
        word = mix(np.uint32(p) ^ key)
        out[p] = scale * x[p] if np.uint64(word) >= bound else zero
