"""Activations dropped by a hash of their place."""

from .module import kernel
from .shared_products import hash_key

_THREADS, _BLOCKS = 256, 4096


def drop(x, seed, least, scale, out):
    """See the CPU's `drop`."""
    grid = (max(1, min(-(-x.size // _THREADS), _BLOCKS)),)
    kernel("dropout", "drop", x.dtype)(grid, (_THREADS,), x, hash_key(seed), least, scale, x.size, out)
