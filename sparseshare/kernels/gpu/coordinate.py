"""The lasso by coordinate descent on a GPU, twin of `kernels.cpu.coordinate`: one signal a warp.

Sets of up to 96 atoms are solved on their Gram matrix in shared memory. Signals that need more go on by plain
coordinate descent over all atoms, and where sweeps crawl, on coherent atoms, the direct method of `active_set` does.
"""

from . import workspace
from .active_set import lasso_rows
from .module import kernel

_ROOM = 96  # atoms of a working set
_WARPS = 4  # on a multiprocessor at least, or shared memory would have too few at work
_TOO_LARGE, _CRAWLS = 3, 4  # status of signals that are to go on


def coordinate_tile(Q, norms2, G, alpha, tol, max_iter, positive, indices, values, counts, gaps, iterations, status):
    """Minimise 0.5 |x - w D|^2 + alpha |w|_1 for every signal of a tile.

    Parameters as of `kernels.cpu.coordinate.coordinate_tile`, all arrays on the device.
    """
    import cupy

    (n_signals, capacity), n_atoms = indices.shape, G.shape[0]
    given = tol, max_iter, positive
    results = indices, values, counts, gaps, iterations, status
    most = workspace.shared_memory() // _WARPS
    shared = (_ROOM * (_ROOM + 1) // 2 + 6 * _ROOM + n_atoms) * G.itemsize
    if shared <= most:
        kernel("coordinate", "working_set", G.dtype, _ROOM)(
            (n_signals,), (32,), Q, norms2, G, alpha, *given, *results, n_signals, n_atoms, capacity, shared=shared
        )
    else:
        status[...], iterations[...] = _TOO_LARGE, 0
    rows = cupy.flatnonzero(status == _TOO_LARGE) if n_atoms > _ROOM or shared > most else ()
    if len(rows):
        dense = 2 * n_atoms * G.itemsize
        n_blocks, scratch, _, shared = workspace.block_memory(len(rows), dense, G.dtype)
        diagonal = cupy.ascontiguousarray(cupy.diagonal(G))
        kernel("coordinate", "plain", G.dtype)(
            (n_blocks,), (32,), Q, norms2, G, diagonal, alpha, *given, rows, *results, scratch, len(rows), n_atoms,
            capacity, shared=shared,
        )  # fmt: skip
    rows = cupy.flatnonzero(status == _CRAWLS)
    if len(rows):
        lasso_rows(rows, Q, norms2, G, alpha, *given, *results)
