"""Orthogonal matching pursuit and orthogonal least squares on a GPU, twins of `kernels.cpu.pursuit`.

Signals whose atoms fit into registers are done in a first launch. It lists those that need more, and goes back over
nothing else: they start again with shared memory beside the registers and, where that does not do either, with scratch
memory. Who is on a list is known on the device alone.
"""

import numpy as np

from .module import kernel
from .workspace import blocks_of_scratch, shared_memory

_ROWS = {4: (8, 6), 8: (6, 4)}  # orthogonalised Gram rows in registers, without and with distances beside them
_FIRST_ROOM = 10  # atoms a code in the first launch
_ATOMS = {4: 8, 8: 4}  # of a thread, by the bytes of an item
_MOST_THREADS = 512
_LISTED_BLOCKS = 2048  # for signals on a list, whose number only the device knows
_THREADS_AGAIN = 256


def omp_tile(
    Q, norms2, G, n_nonzero, max_error, weight, stops, indices, values, counts, residuals, status, path_values
):
    """Codes of a tile by orthogonal matching pursuit. Parameters as of the CPU's twin, `stops` an array of the host."""
    _pursue(
        0, Q, norms2, G, n_nonzero, max_error, weight, stops, indices, values, counts, residuals, status, path_values
    )


def ols_tile(Q, norms2, G, n_nonzero, max_error, stops, indices, values, counts, residuals, status, path_values):
    """Codes of a tile by orthogonal least squares. Parameters as of the CPU's twin, `stops` an array of the host."""
    _pursue(1, Q, norms2, G, n_nonzero, max_error, None, stops, indices, values, counts, residuals, status, path_values)


def _pursue(
    least_squares, Q, norms2, G, n_nonzero, max_error, weight, stops, indices, values, counts, residuals, status,
    path_values,
):  # fmt: skip
    import cupy

    (n_signals, n_atoms), capacity, dtype = Q.shape, indices.shape[1], Q.dtype
    diagonal = G.diagonal().copy()
    units = None
    if weight is not None:
        Q, G, units = Q * weight, G * weight, cupy.where(weight > 0, 1 / cupy.where(weight > 0, weight, 1), 0)
    problem = (
        Q, norms2, G, diagonal, n_nonzero, max_error, units, cupy.asarray(stops), len(stops), n_signals,
        n_atoms, capacity,
    )  # fmt: skip
    codes = indices, values, counts, residuals, status, path_values
    threads, rows = _threads(n_atoms, dtype.itemsize), _ROWS[dtype.itemsize][least_squares]
    rooms = _rooms(n_atoms, capacity, dtype.itemsize, rows)
    listed, n_listed = None, None
    for room in rooms:
        left, n_left = None, None
        if room < capacity:
            left, n_left = cupy.empty(n_signals, np.int32), cupy.zeros(1, np.int32)
        blocks = n_signals if listed is None else min(n_signals, _LISTED_BLOCKS)
        kernel("pursuit", "pursue", dtype, _ATOMS[dtype.itemsize], rows, least_squares)(
            (blocks,), (threads,), *problem, room, listed, n_listed, left, n_left, *codes,
            shared=_bytes(room, n_atoms, dtype.itemsize, rows),
        )  # fmt: skip
        listed, n_listed = left, n_left
    if not rooms or rooms[-1] < capacity:
        items = -(-((1 + least_squares) * n_atoms + capacity * (capacity + 3)) // 4) * 4
        blocks = blocks_of_scratch(n_signals, items * dtype.itemsize)
        kernel("pursuit", "pursue_again", dtype, least_squares)(
            (blocks,), (_THREADS_AGAIN,), *problem, listed, n_listed, cupy.empty(blocks * items, dtype), items, *codes
        )


def _threads(n_atoms, itemsize):
    """Whole warps in which every thread has its atoms."""
    return -(-n_atoms // (32 * _ATOMS[itemsize])) * 32


def _bytes(room, n_atoms, itemsize, rows):
    """Shared memory for `room` atoms: orthogonalised rows beyond the registers, a Cholesky factor and two vectors."""
    pack = 16 // itemsize
    return itemsize * (max(room - 1 - rows, 0) * n_atoms + room * (room // pack * pack + pack + 1))


def _rooms(n_atoms, capacity, itemsize, rows):
    """Atoms a code that the launches one after the other have room for; scratch memory does the rest."""
    fitting = []
    if _threads(n_atoms, itemsize) <= _MOST_THREADS:
        fitting = [room for room in range(1, capacity + 1) if _bytes(room, n_atoms, itemsize, rows) <= shared_memory()]
    return sorted({min(_FIRST_ROOM, len(fitting)), len(fitting)} - {0})
