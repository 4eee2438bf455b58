"""Atom steps of K-SVD on a GPU, twins of `kernels.cpu.ksvd`: atom after atom, each over all signals that use it."""

import numpy as np

from .module import kernel

_THREADS = 256
_WARPS = _THREADS // 32
_PARTS = 64  # partial sums of a direction at most: every block of the next launch adds them up
_BLOCKS = 1024  # of that launch, at most


def approximate_steps(indptr, signals, values, residual, dictionary):
    """One alternation an atom. Arguments as of the CPU's twin."""
    import cupy

    (n_atoms, n_features), dtype = dictionary.shape, dictionary.dtype
    a_warp = -(-len(signals) // (n_atoms * _WARPS))  # signals that a warp would have in one block
    n_parts = min(max(a_warp // 8, 1), _PARTS)
    old, partial = cupy.empty(n_features, dtype), cupy.empty((n_parts, n_features + 1))
    gather, replace = kernel("ksvd", "gather_direction", dtype), _replace(signals, dictionary)
    for atom in range(n_atoms):
        gather((n_parts,), (_THREADS,), indptr, signals, values, residual, atom, n_features, dictionary, old, partial)
        replace(indptr, signals, values, residual, atom, n_features, n_parts, partial, old, dictionary)


def exact_steps(indptr, signals, values, residual, dictionary, tol, max_iter):
    """The leading singular pair of E_k = R + w_k d_k, an atom at a time. Arguments as of the CPU's twin.

    Always from E'E; where power iteration takes more than `max_iter`, the matrix is squared instead of decomposed.
    """
    import cupy

    n_features, dtype = dictionary.shape[1], dictionary.dtype
    counts = np.diff(indptr.get())  # sizes of the matrix products
    largest = cupy.abs(residual).max().astype(np.float64)
    # Squares of tiny or huge data would leave the range of the numbers.
    scale = cupy.where(largest > 0, 1 / cupy.where(largest > 0, largest, 1.0), 1.0).reshape(1)
    errors = cupy.empty((int(counts.max(initial=0)), n_features))
    squared, old = cupy.empty((2, n_features, n_features)), cupy.empty(n_features, dtype)
    direction = cupy.empty((1, n_features + 1))
    gather, leading = kernel("ksvd", "gather_errors", dtype), kernel("ksvd", "leading_vector", dtype)
    replace = _replace(signals, dictionary)
    threads = 32 * min(-(-n_features // 4), 16)  # a warp takes a row of the matrix after the other
    for atom in np.flatnonzero(counts).tolist():
        own = errors[: counts[atom]]
        blocks = min(-(-own.size // _THREADS), _BLOCKS)
        gather(
            (blocks,), (_THREADS,), indptr, signals, values, residual, atom, n_features, dictionary, scale, old, errors
        )
        leading(
            (1,), (threads,), cupy.matmul(own.T, own), old, n_features, tol, max_iter, squared, direction,
            shared=16 * n_features,
        )  # fmt: skip
        replace(indptr, signals, values, residual, atom, n_features, 1, direction, old, dictionary)


def _replace(signals, dictionary):
    """The launch that gives an atom its direction and its signals their coefficients."""
    n_atoms, n_features = dictionary.shape
    blocks = min(max(-(-len(signals) // (n_atoms * _WARPS)), 1), _BLOCKS)
    launch, shared = kernel("ksvd", "replace_atom", dictionary.dtype), n_features * (8 + 2 * dictionary.itemsize)
    return lambda *arguments: launch((blocks,), (_THREADS,), *arguments, shared=shared)
