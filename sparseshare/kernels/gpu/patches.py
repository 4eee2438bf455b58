"""Patches of an image as rows, and rows added back, on a GPU. Sizes, steps and grids are small arrays of the host."""

from .module import kernel

_PATCHES = 64  # that a block copies
_THREADS = 256
_BLOCKS = 65_536  # at most: threads go on with the next entries


def take_patches(image, first, patch, stride, grid, rows, numbers=None):
    """Copy patches `first`, `first` + 1, ... to rows; or those of any `numbers`, a (n,) int64 array.

    Other arguments as of the CPU's twin.
    """
    n = len(rows)
    kernel("patches", "take_patches", rows.dtype, _PATCHES)(
        (-(-n // _PATCHES),), (_THREADS,), image, numbers, first, n, *patch, *stride, *grid[1:], *image.shape[1:], rows
    )  # fmt: skip


def add_patches(rows, first, patch, stride, grid, low, high, total):
    """Add rows to total, float64, where patches `first`, `first` + 1, ... lie, inside one part of it."""
    entries = int((high - low).prod())
    blocks = min(-(-entries // _THREADS), _BLOCKS)
    kernel("patches", "add_patches", rows.dtype)(
        (blocks,), (_THREADS,), rows, first, len(rows), *patch, *stride, *grid, *low, *high, *total.shape[1:], total
    )  # fmt: skip
