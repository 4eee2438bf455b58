"""Codes by thresholding on a GPU: twins of `kernels.cpu.thresholding`."""

import numpy as np

from .module import kernel
from .workspace import block_memory

_THREADS, _BLOCKS = 256, 4096
_IHT_THREADS = 128


def threshold_tile(Q, alpha, positive, indices, values, counts, weights=None):
    """Soft-threshold the correlations of every signal.

    Parameters as of `kernels.cpu.thresholding.threshold_tile`, all arrays on the device; `weights`, (T, K) or None, are
    factors of alpha.
    """
    n_signals, n_atoms = Q.shape
    kernel("thresholding", "threshold", Q.dtype)(
        (min(-(-n_signals * 32 // _THREADS), _BLOCKS),), (_THREADS,), Q, alpha, weights, positive, n_signals, n_atoms,
        indices.shape[1], indices, values, counts,
    )  # fmt: skip


def iht_tile(
    Q, norms2, G, n_nonzero, step, tol, max_iter, positive, indices, values, counts, residuals, iterations, status
):
    """Approximate every signal of a tile by at most n_nonzero atoms, by normalised iterative hard thresholding.

    Parameters as of `kernels.cpu.thresholding.iht_tile`, all arrays on the device. A block has a signal from the first
    iteration to the last.
    """
    (n_signals, n_atoms), capacity = Q.shape, indices.shape[1]
    items = 3 * n_atoms + 3 * capacity + capacity * capacity
    n_bytes = items * Q.itemsize + 2 * capacity * np.dtype(np.int32).itemsize
    blocks, scratch, items, shared = block_memory(n_signals, n_bytes, Q.dtype)
    kernel("thresholding", "iht", Q.dtype)(
        (blocks,), (_IHT_THREADS,), Q, norms2, G, n_nonzero, step, tol, max_iter, positive, n_signals, n_atoms,
        capacity, scratch, items, indices, values, counts, residuals, iterations, status, shared=shared,
    )  # fmt: skip
