"""Steps through time: the gates of an LSTM, the slope of tanh, and thresholds of what two products add up to."""

from .activations import TANH, activation_gradient
from .module import kernel

_THREADS, _BLOCKS = 256, 4096


def _grid(size):
    return (max(1, min(-(-size // _THREADS), _BLOCKS)),)


def lstm_step(gates, before, memory, shown, seen, first):
    """See the CPU's `lstm_step`."""
    launch = kernel("recurrent", "lstm_step", gates.dtype)
    n_units, size = memory.shape[1], memory.size
    launch(_grid(size), (_THREADS,), gates, before, memory, shown, seen, n_units, first, size)


def lstm_gradient(dh, gates, before, shown, dc, dz):
    """See the CPU's `lstm_gradient`; None for `before` is zeros."""
    launch = kernel("recurrent", "lstm_gradient", dh.dtype)
    launch(_grid(dh.size), (_THREADS,), dh, gates, before, shown, dc, dz, dh.shape[1], dh.size)


def tanh_gradient(da, a, dz, sums):
    """See the CPU's `tanh_gradient`; `sums` as for `activation_gradient`."""
    activation_gradient(da, a, a, TANH, dz, sums, None)


def add_and_threshold(z, more, thresholds, positive):
    """See the CPU's `add_and_threshold`; the counts are left in parts."""
    import cupy

    grid = _grid(z.size)
    counts = cupy.empty(grid, "int32")
    launch = kernel("recurrent", "add_and_threshold", z.dtype)
    launch(grid, (_THREADS,), z, more, thresholds, positive, z.shape[1], z.size, counts)
    return counts
