"""The lasso by homotopy on a GPU, twin of `kernels.cpu.homotopy`: one signal a warp, all its state on chip.

Signals with more active atoms than a warp has room for are followed anew in blocks with their state in device memory.
Penalties of a list are solved one after the other instead, by `active_set.lasso_path_tile`.
"""

from . import active_set

_ROUNDS = 1000  # of the active-set method, where it has to take over
_ATTEMPTS = 20  # to meet a bound after that
_UNSETTLED, _HELD = 16, 8  # in the status of codes whose gap rounding has left too large
_GO_ON, _REPAIRED = 0, 1  # of a repair
_FAILED = 2  # the status in the end


def homotopy_tile(
    Q, norms2, G, alpha, max_l1_norm, max_error, max_nonzero, tol, drop, positive, max_iter,
    indices, values, counts, gaps, penalties, iterations, status,
):  # fmt: skip
    """Follow the path of every signal of a tile to the first of its bounds.

    Parameters as of `kernels.cpu.homotopy.homotopy_tile`, all arrays on the device.
    """
    import cupy

    (n_signals, capacity), rows = indices.shape, None
    for room, launch in active_set.launches("homotopy", "homotopy", G.dtype, capacity, _state_size, len(G)):
        launch(
            n_signals if rows is None else len(rows), Q, norms2, G, alpha, max_l1_norm, max_error, max_nonzero, tol,
            drop, positive, max_iter, rows, indices, values, counts, gaps, penalties, iterations, status, len(G),
            capacity, room,
        )  # fmt: skip
        if room < capacity:
            rows = cupy.flatnonzero(status == active_set.TOO_LARGE)
            if not len(rows):
                break
    rows = cupy.flatnonzero(status >= _UNSETTLED) if drop else ()
    if len(rows):
        _repair(rows, Q, norms2, G, alpha, max_l1_norm, max_error, tol, positive, indices, values, counts, gaps,
                penalties, status)  # fmt: skip


def _repair(
    rows, Q, norms2, G, alpha, max_l1_norm, max_error, tol, positive, indices, values, counts, gaps, penalties, status
):
    """Solve signals `rows` at the penalties that meet their bounds, or where they are if those are held.

    In turn: the active-set method at a penalty, and along the segment found there to the penalty that meets the bounds.
    """
    import cupy

    held = (status[rows] - _UNSETTLED) >= _HELD
    status[rows] -= cupy.where(held, _UNSETTLED + _HELD, _UNSETTLED).astype(status.dtype)
    work = [
        Q[rows],
        norms2[rows],
        alpha[rows],
        max_l1_norm[rows],
        max_error[rows],
        held,
        penalties[rows].astype(Q.dtype),
    ]
    codes = [indices[rows], values[rows], counts[rows], gaps[rows]]
    capacity = indices.shape[1]
    go_toward_bounds = active_set.in_blocks("homotopy", "toward_bounds", G.dtype, _state_size(capacity, len(G)))
    for attempt in range(_ATTEMPTS):
        own_Q, own_norms2, own_alpha, own_norm, own_error, held, penalty = work
        rounds = cupy.empty(len(rows), counts.dtype)
        solved, state = cupy.empty(len(rows), status.dtype), cupy.empty(len(rows), status.dtype)
        active_set.lasso_tile(own_Q, own_norms2, G, penalty, tol, _ROUNDS, positive, *codes, rounds, solved)
        go_toward_bounds(
            len(rows), own_Q, own_norms2, G, own_alpha, own_norm, own_error, tol, positive, held, solved, penalty,
            *codes, state, len(G), capacity,
        )  # fmt: skip
        goes_on = (state == _GO_ON) & (attempt < _ATTEMPTS - 1)
        over = cupy.flatnonzero(~goes_on)
        place = rows[over]
        for whole, part in zip((indices, values, counts, gaps, penalties), (*codes, penalty), strict=True):
            whole[place] = part[over]
        status[place] = cupy.where(state[over] == _REPAIRED, status[place], _FAILED)
        left = cupy.flatnonzero(goes_on)
        if not len(left):
            break
        rows, work, codes = rows[left], [array[left] for array in work], [array[left] for array in codes]


def _state_size(room, n_atoms):
    """Numbers that a block keeps for `room` active atoms: see `lay_out_path` in the source."""
    return active_set.state_size(room, n_atoms) + 2 * room + 2 * n_atoms + n_atoms // 4 + 1
