"""Orthogonal matching pursuit of signals with a mask each on a GPU, twin of `kernels.cpu.masked_pursuit`."""

from .module import kernel
from .workspace import blocks_of_scratch

_SIGNALS = {4: 8, 8: 4}  # that a block takes at once, a warp each; by the bytes of an item


def masked_omp_tile(
    Q, norms2, atoms, transposed, missing, n_nonzero, max_error, stops, indices, values, counts, residuals, status,
    path_values,
):  # fmt: skip
    """Codes of a tile for the error over what is not missing. Parameters as of the CPU's twin, `stops` of the host."""
    import cupy

    (n_signals, n_atoms), n_features, capacity, dtype = Q.shape, atoms.shape[1], indices.shape[1], Q.dtype
    pack, together = 16 // dtype.itemsize, _SIGNALS[dtype.itemsize]
    share = 2 * n_atoms + capacity * (n_features + capacity + 3)
    items = together * (-(-share // pack) * pack + n_features)
    blocks = blocks_of_scratch(-(-n_signals // together), items * dtype.itemsize)
    kernel("masked_pursuit", "pursue_masked", dtype, together)(
        (blocks,), (32 * together,), Q, norms2, atoms, transposed, missing, n_nonzero, max_error, cupy.asarray(stops),
        len(stops), n_signals, n_atoms, n_features, capacity, cupy.empty(blocks * items, dtype), items, indices,
        values, counts, residuals, status, path_values,
    )  # fmt: skip
