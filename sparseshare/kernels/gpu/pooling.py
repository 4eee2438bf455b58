"""Codes of patches gathered over the cells of a grid on a GPU; cells of rows and columns are arrays of the host."""

import numpy as np

from sparseshare.devices import array_module

from .module import kernel

_THREADS = 256
_SHARED = 48 * 1024  # bytes a block: two sums an atom, of as many atoms as they hold


def pool_thresholded(Q, n, first, row_cell, column_cell, lower, upper, maximum, sums):
    """Pool max(q - upper, 0) and max(lower - q, 0), as the CPU's twin; in sums the last bits are others."""
    _pool(Q, n, first, row_cell, column_cell, lower, upper, maximum, sums, 2)


def pool_nearness(Q, n, first, row_cell, column_cell, norms2, centres2, maximum, sums):
    """Pool max(mean distance - distance, 0), as the CPU's twin; Q is overwritten."""
    nearness_rows(Q, n, norms2, centres2)
    _pool(Q, n, first, row_cell, column_cell, None, None, maximum, sums, 1)


def nearness_rows(Q, n, norms2, centres2):
    """max(mean distance - distance, 0) in the place of the first n rows of products with centres."""
    warps = _THREADS // 32
    kernel("pooling", "nearness_rows", Q.dtype)(
        (-(-n // warps),), (_THREADS,), Q, n, Q.shape[1], norms2, centres2
    )  # fmt: skip


def pool_codes(starts, atoms, values, first, row_cell, column_cell, maximum, sums):
    """Pool sparse codes, as the CPU's twin."""
    n_atoms, n = sums.shape[-1], len(starts) - 1
    chunk = min(n_atoms, _SHARED // (2 * values.itemsize))
    n_images, place = _place(n, first, row_cell, column_cell, sums)
    cells = sums.shape[1] * sums.shape[2]
    kernel("pooling", "pool_codes", values.dtype)(
        (n_images * cells, -(-n_atoms // chunk)), (32,),
        starts, atoms, values, first, n, n_atoms, chunk, *place, maximum, sums,
        shared=2 * chunk * values.itemsize,
    )  # fmt: skip


def _pool(Q, n, first, row_cell, column_cell, lower, upper, maximum, sums, n_signs):
    n_images, place = _place(n, first, row_cell, column_cell, sums)
    blocks = n_images * sums.shape[1] * sums.shape[2] * -(-Q.shape[1] // 32)
    kernel("pooling", "pool_cells", Q.dtype, n_signs)(
        (blocks,), (_THREADS,), Q, first, n, Q.shape[1], *place, lower, upper, maximum, sums
    )  # fmt: skip


def _place(n, first, row_cell, column_cell, sums):
    """Images that n patches from `first` on lie in, and where cells begin: arguments of the kernels."""
    size = len(row_cell) * len(column_cell)
    first_image = first // size
    edges = [
        array_module(sums).asarray(np.searchsorted(cell, np.arange(count + 1)).astype(np.int32))
        for cell, count in zip((row_cell, column_cell), sums.shape[1:3], strict=True)
    ]
    n_images = (first + n - 1) // size - first_image + 1 if n else 0
    return n_images, (*edges, *sums.shape[1:3], len(row_cell), len(column_cell), first_image)
