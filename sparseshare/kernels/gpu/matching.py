"""Matching pursuit and non-negative orthogonal matching pursuit on a GPU, twins of `kernels.cpu.matching`."""

from .module import kernel
from .workspace import block_memory

_MOST_THREADS = 256


def mp_tile(
    Q, norms2, G, n_nonzero, max_error, max_iter, positive, indices, values, counts, residuals, iterations, status
):
    """Codes of a tile by matching pursuit. Parameters as of the CPU's twin."""
    (n_signals, n_atoms), capacity = Q.shape, indices.shape[1]
    diagonal, inverse_norms = _norms(G)
    n_bytes = (n_atoms + capacity) * (Q.dtype.itemsize + 4)
    blocks, scratch, items, shared = block_memory(n_signals, n_bytes, Q.dtype)
    kernel("matching", "match", Q.dtype)(
        (blocks,), (_threads(n_atoms, Q.dtype),), Q, norms2, G, diagonal, inverse_norms, n_nonzero, max_error,
        max_iter, positive, n_signals, n_atoms, capacity, scratch, items, indices, values, counts, residuals,
        iterations, status, shared=shared,
    )  # fmt: skip


def positive_omp_tile(Q, norms2, G, n_nonzero, max_error, indices, values, counts, residuals, iterations, status):
    """Codes of a tile by non-negative orthogonal matching pursuit. Parameters as of the CPU's twin."""
    (n_signals, n_atoms), capacity = Q.shape, indices.shape[1]
    diagonal, inverse_norms = _norms(G)
    n_bytes = (n_atoms + capacity * (capacity + 4)) * Q.dtype.itemsize + capacity * 4
    blocks, scratch, items, shared = block_memory(n_signals, n_bytes, Q.dtype)
    kernel("matching", "match_positively", Q.dtype)(
        (blocks,), (_threads(n_atoms, Q.dtype),), Q, norms2, G, diagonal, inverse_norms, n_nonzero, max_error,
        n_signals, n_atoms, capacity, scratch, items, indices, values, counts, residuals, iterations, status,
        shared=shared,
    )  # fmt: skip


def _norms(G):
    """Squared norms of the atoms, and the inverse of their norms or 0."""
    import cupy

    diagonal = G.diagonal().copy()
    return diagonal, cupy.where(diagonal > 0, 1 / cupy.sqrt(cupy.where(diagonal > 0, diagonal, 1)), 0).astype(G.dtype)


def _threads(n_atoms, dtype):
    """Whole warps in which most threads have atoms."""
    return min(-(-n_atoms * dtype.itemsize // 512) * 32, _MOST_THREADS)
