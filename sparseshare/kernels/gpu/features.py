"""Patches made ready for coding, and vector quantisation, on a GPU. Sizes, steps and grids are arrays of the host."""

from sparseshare.devices import array_module

from .module import kernel

_THREADS = 256
_PATCHES = 128  # that a block loads


def load_patches(images, first, n, patch, stride, grid, epsilon, normalise, columns):
    """Patches as columns, of mean 0 and over their contrast if asked for, as the CPU's twin."""
    kernel("features", "load_patches", images.dtype)(
        (-(-n // _PATCHES),), (_PATCHES,),
        images, first, n, *patch, *stride, *grid, *images.shape[1:], epsilon, normalise, columns, columns.shape[1],
    )  # fmt: skip


def nearest_atoms(Q, n, offsets, signed, labels, values):
    """The atom of the largest product with each of n signals, as the CPU's twin."""
    warps = _THREADS // 32
    kernel("features", "nearest_atoms", Q.dtype)(
        (-(-n // warps),), (_THREADS,), Q, n, Q.shape[1], offsets, signed, labels, values
    )  # fmt: skip


def add_to_atoms(X, n, labels, values, weighted, sums, counts):
    """Add each of n signals to the sum of its atom, as the CPU's twin: in an order that is the same every time."""
    xp, (n_atoms, n_features) = array_module(X), sums.shape
    order = xp.argsort(labels[:n], kind="stable")
    starts = xp.searchsorted(labels[:n][order], xp.arange(n_atoms + 1, dtype=labels.dtype))
    kernel("features", "add_to_atoms", X.dtype)(
        (n_atoms, -(-n_features // 32)), (_THREADS,), X, n_features, order, starts, values, weighted, sums, counts
    )  # fmt: skip
