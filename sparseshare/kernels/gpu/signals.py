"""Signals into a tile on a GPU and codes out of it, twins of `kernels.cpu.signals`."""

import numpy as np

from .module import kernel

_BLOCK = 256  # threads, one warp a signal
_MOST_BLOCKS = 65_536


def _grid(n_rows):
    return (min(-(-n_rows * 32 // _BLOCK), _MOST_BLOCKS),)


def scale_tile(X, bits, out, exponents, units, norms2):
    """Copy a tile scaled to out; the first row with NaN or infinity, or -1, as a function that waits for the device.

    `bits` is not used, rows of `out` beyond those of X are not touched.
    """
    import cupy

    none = np.iinfo(np.int32).max
    bad = cupy.full(1, none, np.int32)
    launch = kernel("signals", "scale_rows", X.dtype)
    launch(_grid(len(X)), (_BLOCK,), X, out, exponents, units, norms2, bad, len(X), X.shape[1])

    def first_bad_row():
        row = int(bad[0])
        return -1 if row == none else row

    return first_bad_row


def pack_tile(indices, values, counts, exponents, atom_scale):
    """Codes of a tile as consecutive sorted rows without zeros, scaled back to the user's units.

    Returns
    -------
    lengths : (T,) int64 device array
    indices, values : device arrays with the entries of all rows
    """
    import cupy

    n_rows, capacity = values.shape
    lengths = cupy.empty(n_rows, np.int64)
    kernel("signals", "count_entries", values.dtype)(
        _grid(n_rows), (_BLOCK,), values, counts, lengths, n_rows, capacity
    )
    ends = cupy.cumsum(lengths)
    room = int(ends[-1])
    atoms, codes = cupy.empty(room, np.int32), cupy.empty(room, values.dtype)
    kernel("signals", "pack_rows", values.dtype)(
        _grid(n_rows), (_BLOCK,), indices, values, counts, exponents, atom_scale, ends, lengths, atoms, codes, n_rows,
        capacity,
    )  # fmt: skip
    return lengths, atoms, codes


def spread_tile(indices, values, counts, exponents, atom_scale, out):
    """Codes of a tile into rows (T, n_components) of zeros, scaled back to the user's units."""
    n_rows, capacity = values.shape
    kernel("signals", "spread_rows", values.dtype)(
        _grid(n_rows), (_BLOCK,), indices, values, counts, exponents, atom_scale, out, n_rows, capacity, out.shape[1]
    )


def start_tile(indptr, indices, codes, exponents, atom_scale, out_indices, out_values, counts):
    """Codes to start from, rows of a CSR array in the user's units, as the solvers take them."""
    n_rows, capacity = out_values.shape
    kernel("signals", "start_rows", codes.dtype)(
        _grid(n_rows), (_BLOCK,), indptr, indices, codes, exponents, atom_scale, out_indices, out_values, counts,
        n_rows, capacity,
    )  # fmt: skip


def certify_tile(values, counts, gaps, norms2, status, tol, rounding, relative, converged):
    """Relative duality gaps of a tile of lasso codes, none below what rounding allows to claim; who has converged."""
    n_rows, capacity = values.shape
    kernel("signals", "certify_rows", values.dtype)(
        _grid(n_rows), (_BLOCK,), values, counts, gaps, norms2, status, tol, rounding, relative, converged, n_rows,
        capacity,
    )  # fmt: skip
