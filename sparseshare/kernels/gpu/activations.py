"""Thresholds on the outputs of units, with the bias added, the non-zeros counted, and the gradient back.

What is counted stays on the device: an array of the counts of all blocks.
"""

from .module import kernel

LINEAR, SOFT, SOFT_NONNEGATIVE, HARD, TANH = range(5)
_THREADS, _WARP, _BLOCKS = 256, 32, 1024
_EACH = 4  # entries a thread works on, at least
_ROWS, _PARTS = 64, 128  # rows of a part of a sum, at least, and parts, at most


def activate(z, bias, thresholds, mode):
    """See the CPU's `activate`; no bias is None. The counts are left in parts."""
    import cupy

    grid = (max(1, min(-(-z.size // (_THREADS * _EACH)), _BLOCKS)),)
    counts = cupy.empty(grid, "int32")
    launch = kernel("activations", "activate", z.dtype)
    launch(grid, (_THREADS,), z, bias, thresholds, mode, z.size, z.shape[1], counts)
    return counts


def tanh_activate(z, bias):
    """Add the bias, then take tanh, in place. The counts of non-zeros are left in parts."""
    return activate(z, bias, z, TANH)  # it reads thresholds, and makes nothing of them


def sum_parts(n_rows, n_units):
    """Parts in which `activation_gradient` leaves the sums over so many rows."""
    return max(1, min(n_rows // _ROWS, _PARTS))


def activation_gradient(da, a, thresholds, mode, dz, sums, threshold_sums, place=None, window=(1, 1, 1)):
    """See the CPU's `activation_gradient`.

    `sums` and `threshold_sums` are of shape (parts, K), out, or None; None for `dz` writes sums alone.

    Parameters
    ----------
    place : uint8 array of the shape of a, or None, default=None
        Where in a window each activation was the largest. Then `dz` has a row for every entry of the windows.
    window : tuple of 3 ints
        Lines and pixels of a window, windows on a line.
    """
    n_rows, n_units = a.shape
    n_parts = sum_parts(n_rows, n_units)
    launch = kernel("activations", "activation_gradient", a.dtype)
    launch(
        (-(-n_units // _WARP), n_parts), (_THREADS,), da, a, thresholds, mode, n_rows, n_units, -(-n_rows // n_parts),
        place, *window, dz, sums, threshold_sums,
    )  # fmt: skip


def keep_largest(z, bias, n_units, count):
    """Add the bias, then as the CPU's `keep_largest`; the counts are left in parts."""
    import cupy

    counts = cupy.empty(len(z), "int32")
    launch = kernel("activations", "keep_largest", z.dtype)
    launch((len(z),), (_THREADS,), z, bias, n_units, z.shape[1], count, counts)
    return counts


def move_thresholds(z, nonnegative, density, rate, thresholds):
    """Move thresholds towards those with which so many of some magnitudes pass.

    Parameters
    ----------
    z : (N, K) array, what is compared with them
    nonnegative : bool, whether z itself is compared, not its magnitude
    density : float
    rate : float
    thresholds : (1,) or (K,) array, in and out
    """
    by_unit = thresholds.size > 1
    launch = kernel("activations", "move_thresholds", z.dtype)
    launch(
        (thresholds.size,), (_THREADS if by_unit else 4 * _THREADS,), z, *z.shape, by_unit, nonnegative, 1 - density,
        rate, thresholds,
    )  # fmt: skip
