"""The lasso by its active set on a GPU, twins of `kernels.cpu.active_set`: one signal a warp, all its state on chip.

A first launch has room for 64 active atoms a signal, so that many signals run at once; those that need more go on with
room for 128, and from there in larger blocks that keep their state in device memory.
"""

from . import workspace
from .module import kernel

_ROOMS = 64, 128  # active atoms of a signal in shared memory
_WARPS = 4  # on a multiprocessor at least, or shared memory would have too few at work
_WIDE = 128  # threads of a block with its state in device memory
TOO_LARGE = 3  # status of signals that are to go on


def lasso_tile(Q, norms2, G, alpha, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
    """Minimise 0.5 |x - w D|^2 + alpha |w|_1 for every signal of a tile.

    Parameters as of `kernels.cpu.active_set.lasso_tile`, all arrays on the device.
    """
    results = (array[:, None] for array in (indices, values, counts, gaps, iterations, status))
    lasso_path_tile(Q, norms2, G, alpha[:, None], tol, max_iter, positive, *results)


def lasso_path_tile(
    Q, norms2, G, alphas, tol, max_iter, positive, indices, values, counts, gaps, iterations, status, rows=None
):
    """As `lasso_tile` at several penalties a signal, each solved from the code at the one before.

    `alphas` is (T, P), best in descending order; all results have P as their second dimension. `rows` are the signals
    to solve, (R,) int64; None is all. Those listed have a status of `TOO_LARGE` where they are to go on.
    """
    import cupy

    (n_signals, n_penalties, capacity), n_atoms = indices.shape, len(G)
    for room, launch in launches("active_set", "lasso", G.dtype, capacity, state_size, n_atoms):
        launch(
            n_signals if rows is None else len(rows), Q, norms2, G, alphas, tol, max_iter, positive, rows, indices,
            values, counts, gaps, iterations, status, n_atoms, n_penalties, capacity, room,
        )  # fmt: skip
        if room < capacity:
            rows = cupy.flatnonzero((status == TOO_LARGE).any(axis=1))
            if not len(rows):
                break


def lasso_rows(rows, Q, norms2, G, alpha, tol, max_iter, positive, *results):
    """As `lasso_tile` for signals `rows` of a tile only, (R,) int64, from zero."""
    results = [array[:, None] for array in results]
    _, _, counts, _, iterations, status = results
    counts[rows], iterations[rows], status[rows] = 0, 0, TOO_LARGE
    lasso_path_tile(Q, norms2, G, alpha[:, None], tol, max_iter, positive, *results, rows=rows)


def launches(family, name, dtype, capacity, size_of, n_atoms):
    """The forms of a kernel for active sets, from the smallest on that the device has the shared memory for.

    Yields
    ------
    room : int
        Active atoms that a signal may have in this form, in the end `capacity`.
    launch : callable
        Takes the number of signals and the kernel's arguments but for the last three.
    """
    most = workspace.shared_memory() // _WARPS
    for room in _ROOMS:
        room = min(room, capacity)
        shared = size_of(room, n_atoms) * dtype.itemsize
        if shared <= most:
            yield room, _in_warps(kernel(family, name, dtype, 32), shared)
            if room == capacity:
                return
    yield capacity, in_blocks(family, name, dtype, size_of(capacity, n_atoms))


def _in_warps(kernel, shared):
    def launch(n_rows, *arguments):
        kernel((n_rows,), (32,), *arguments, None, 0, n_rows, shared=shared)

    return launch


def in_blocks(family, name, dtype, size):
    """A launch in blocks that keep `size` numbers each in device memory."""

    def launch(n_rows, *arguments):
        import cupy

        n_blocks = workspace.blocks_of_scratch(n_rows, size * dtype.itemsize)
        kernel(family, name, dtype, _WIDE)(
            (n_blocks,), (_WIDE,), *arguments, cupy.empty(n_blocks * size, dtype), size, n_rows
        )

    return launch


def state_size(room, n_atoms):
    """Numbers that a block keeps for `room` active atoms: see `lay_out` in the source."""
    return room * (room + 1) // 2 + 8 * room + n_atoms
