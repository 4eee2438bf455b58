"""The lasso by its active set on a GPU, twins of `kernels.cpu.active_set`: one signal a warp, all its state on chip.

Signals with more active atoms than a warp has room for go on in blocks that keep their state in device memory.
"""

from .module import kernel

ROOM = 96  # active atoms a warp; with 1024 atoms nine warps of float32 share a multiprocessor
WARP_BYTES = 64 * 1024  # of shared memory a warp at most, for what every GPU since 2018 has
WIDE = 128  # threads of a block beyond that
_WIDE_BLOCKS = 1024
_SCRATCH_BYTES = 2**28
TOO_LARGE = 3  # status of signals that are to go on


def lasso_tile(Q, norms2, G, alpha, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
    """Minimise 0.5 |x - w D|^2 + alpha |w|_1 for every signal of a tile.

    Parameters as of `kernels.cpu.active_set.lasso_tile`, all arrays on the device.
    """
    results = (array[:, None] for array in (indices, values, counts, gaps, iterations, status))
    lasso_path_tile(Q, norms2, G, alpha[:, None], tol, max_iter, positive, *results)


def lasso_path_tile(
    Q, norms2, G, alphas, tol, max_iter, positive, indices, values, counts, gaps, iterations, status, room=ROOM
):
    """As `lasso_tile` at several penalties a signal, each solved from the code at the one before.

    `alphas` is (T, P), best in descending order; all results have P as their second dimension. `room` is the number of
    active atoms up to which one warp does it.
    """
    import cupy

    (n_signals, n_penalties, capacity), n_atoms = indices.shape, G.shape[0]
    given, results = (
        (Q, norms2, G, alphas, tol, max_iter, positive),
        (indices, values, counts, gaps, iterations, status),
    )
    room = min(room, capacity)
    shared = state_size(room, n_atoms) * G.itemsize
    if shared <= WARP_BYTES:
        kernel("active_set", "lasso", G.dtype, 32)(
            (n_signals,), (32,), *given, None, *results, None, 0, n_signals, n_atoms, n_penalties, capacity, room,
            shared=shared,
        )  # fmt: skip
        rows = cupy.flatnonzero((status == TOO_LARGE).any(axis=1)) if room < capacity else ()
    else:
        status[...], iterations[...] = TOO_LARGE, 0
        rows = cupy.arange(n_signals)
    if len(rows):
        _lasso_in_blocks(rows, given, results)


def lasso_rows(rows, Q, norms2, G, alpha, tol, max_iter, positive, *results):
    """As `lasso_tile` for signals `rows` of a tile only, (R,) int64, from zero."""
    results = [array[:, None] for array in results]
    _, _, counts, _, iterations, status = results
    counts[rows], iterations[rows], status[rows] = 0, 0, TOO_LARGE
    _lasso_in_blocks(rows, (Q, norms2, G, alpha[:, None], tol, max_iter, positive), results)


def _lasso_in_blocks(rows, given, results):
    (_, n_penalties, capacity), G = results[0].shape, given[2]
    size = state_size(capacity, len(G))
    n_blocks, scratch = scratch_for(len(rows), size, G.dtype)
    kernel("active_set", "lasso", G.dtype, WIDE)(
        (n_blocks,), (WIDE,), *given, rows, *results, scratch, size, len(rows), len(G),
        n_penalties, capacity, capacity,
    )  # fmt: skip


def scratch_for(n_rows, size, dtype):
    """How many blocks to run for so many signals, and device memory for their state of `size` numbers each."""
    import cupy

    n_blocks = min(n_rows, _WIDE_BLOCKS, max(_SCRATCH_BYTES // (size * dtype.itemsize), 1))
    return n_blocks, cupy.empty(n_blocks * size, dtype)


def state_size(room, n_atoms):
    """Numbers that a block keeps for `room` active atoms: see `lay_out` in the source."""
    return room * (room + 1) // 2 + 8 * room + n_atoms
