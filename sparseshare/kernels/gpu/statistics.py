"""Sums over coded signals on a GPU, twins of `kernels.cpu.statistics`.

Non-zeros are listed atom by atom, and each list is summed in pieces, in order: no atomic additions of floats, so
results repeat to the last bit. Where codes are so dense that a matrix product is cheaper, they are made dense instead.
"""

import numpy as np

from .module import kernel

_CHUNK = 256  # signals that a warp lists
_PIECES = 8192  # warps of sums that fill a large GPU
_SHORTEST = 256  # non-zeros a piece at least
_SHARED = 48 * 1024
_THREADS = 256
_BLOCKS = 65_536  # at most: threads go on with the next entries
_GATHERED = 20  # what a multiplication with gathered operands costs, in those of a matrix product
_DENSE_ROWS, _SUMMED = 65_536, 4096  # signals made dense at once, and summed in float32 before float64 takes over


def order_by_atom(indptr, indices, starts, signals, positions):
    """List the non-zeros atom by atom, signals in order. Arguments as of the CPU's twin; no atom twice in a row."""
    import cupy

    n_signals, n_atoms = len(indptr) - 1, len(starts) - 1
    n_chunks = -(-n_signals // _CHUNK)
    counts = cupy.empty((n_atoms, n_chunks), np.int32)
    sizes, room = (n_signals, n_atoms, n_chunks), 4 * n_atoms
    kernel("statistics", "count_by_atom", _CHUNK)((n_chunks,), (32,), indptr, indices, *sizes, counts, shared=room)
    ends = cupy.cumsum(counts.ravel(), dtype=np.int64)
    starts[0] = 0
    starts[1:] = ends[n_chunks - 1 :: n_chunks]
    kernel("statistics", "place_by_atom", _CHUNK)(
        (n_chunks,), (32,), indptr, indices, *sizes, counts, ends, signals, positions, shared=room
    )


def accumulate(indptr, indices, values, X, weight, starts, signals, positions, first, last, A, B):
    """A += weight * W'W and B += weight * W'X in the rows of some atoms. Arguments as of the CPU's twin."""
    n_signals, n_features = X.shape
    if len(indices) == 0:
        return
    a_signal = len(indices) / n_signals
    if len(A) * (len(A) + n_features) < _GATHERED * a_signal * (a_signal + n_features):
        _accumulate_dense(indptr, indices, values, X, weight, first, last, A, B)
    else:
        _accumulate_lists(indptr, indices, values, X, weight, starts, signals, positions, first, last, A, B)


def _accumulate_lists(indptr, indices, values, X, weight, starts, signals, positions, first, last, A, B):
    import cupy

    n_atoms, n_features, n_lists = len(A), X.shape[1], last - first
    width = n_atoms + n_features
    pieces = min(_PIECES, 4 * n_lists)
    length = max(_SHORTEST, -(-len(indices) // pieces))
    lists = starts[first : last + 1]
    piece_starts = cupy.zeros(n_lists + 1, np.int64)
    cupy.cumsum((lists[1:] - lists[:-1] + (length - 1)) // length, out=piece_starts[1:])
    most = len(indices) // length + n_lists
    partial = cupy.empty((most, width))
    n_columns = min(width, _SHARED // 8)
    warps = max(1, min(4, _SHARED // (8 * n_columns)))
    for column in range(0, width, n_columns):
        own = min(n_columns, width - column)
        kernel("statistics", "accumulate_pieces", X.dtype)(
            (-(-most // warps),), (32 * warps,), indptr, indices, values, X, n_atoms, n_features, n_lists, lists,
            piece_starts, length, signals, positions, column, own, partial, shared=8 * own * warps,
        )  # fmt: skip
    kernel("statistics", "add_pieces", np.float64)(
        (min(-(-n_lists * width // _THREADS), _BLOCKS),), (_THREADS,),
        partial, piece_starts, n_lists, n_atoms, n_features, weight, A[first:last], B[first:last],
    )  # fmt: skip


def _accumulate_dense(indptr, indices, values, X, weight, first, last, A, B):
    """Matrix products of dense codes; those in float32 sum few signals each, and float64 sums the products."""
    import cupy

    n_signals, n_features = X.shape
    rows = min(_DENSE_ROWS, n_signals)
    dense = cupy.empty((rows, len(A)), X.dtype)
    code_unit = signal_unit = 1.0
    if X.dtype == np.float32:
        code_unit, signal_unit = _unit(values), _unit(X)
        values = values * code_unit.astype(np.float32)
    to_A, to_B = weight / (code_unit * code_unit), weight / (code_unit * signal_unit)
    for start in range(0, n_signals, rows):
        n = min(rows, n_signals - start)
        codes, signals = dense[:n], X[start : start + n]
        codes.fill(0)
        kernel("statistics", "spread_codes", X.dtype)(
            (-(-n // (_THREADS // 32)),), (_THREADS,), indptr[start : start + n + 1], indices, values, n, len(A), codes
        )
        if X.dtype == np.float32:
            signals = signals * signal_unit.astype(np.float32)
        step = n if X.dtype == np.float64 else min(_SUMMED, n)
        whole = n // step * step
        for begin, end in ((0, whole), (whole, n)):
            if begin < end:
                shape = (end - begin) // min(step, end - begin), min(step, end - begin)
                left = codes[begin:end].reshape(*shape, len(A))
                right = signals[begin:end].reshape(*shape, n_features)
                own = left[:, :, first:last].transpose(0, 2, 1)
                A[first:last] += to_A * cupy.matmul(own, left).sum(axis=0, dtype=np.float64)
                B[first:last] += to_B * cupy.matmul(own, right).sum(axis=0, dtype=np.float64)


def _unit(array):
    """The power of two that brings the largest entry near 1: products in float32 neither under- nor overflow."""
    import cupy

    exponent = cupy.clip(cupy.frexp(cupy.abs(array).max())[1], -120, 120)
    return cupy.ldexp(cupy.ones((), np.float64), -exponent)


def atom_usage(starts, positions, values, weight, l1, counts):
    """l1[k] += weight * sum_i |w_ik| and counts[k] += number of signals that use atom k; both (K,), float64.

    Other than the CPU's twin it takes the lists of `order_by_atom`, which give the sums an order.
    """
    kernel("statistics", "atom_usage", values.dtype)(
        (len(l1),), (_THREADS,), starts, positions, values, weight, l1, counts
    )


def squared_residuals(indptr, indices, values, X, dictionary, residuals):
    """residuals[i] = |x_i - w_i D|^2 for every signal, (T,) float64."""
    _residual_rows(indptr, indices, values, X, dictionary, None, residuals)


def subtract_reconstruction(indptr, indices, values, dictionary, residual):
    """residual[i] -= w_i D for every signal, (T, n) in place."""
    _residual_rows(indptr, indices, values, residual, dictionary, residual, None)


def _residual_rows(indptr, indices, values, X, dictionary, residual, squares):
    n_signals, n_features = X.shape
    kernel("statistics", "residual_rows", X.dtype)(
        (min(-(-n_signals // (_THREADS // 32)), _BLOCKS),), (_THREADS,),
        indptr, indices, values, X, dictionary, n_signals, n_features, residual, squares,
    )  # fmt: skip
