"""Losses and their gradients; the loss stays on the device, in parts that add up to it."""

from .module import kernel

_THREADS, _WARP, _BLOCKS = 256, 32, 256


def cross_entropy(outputs, targets, class_weights):
    """See the CPU's `cross_entropy`; the loss is an array that adds up to it."""
    import cupy

    n, n_classes = outputs.shape
    grid = (-(-n * _WARP // _THREADS),)
    gradient, losses = cupy.empty_like(outputs), cupy.empty(grid, "float64")
    kernel("losses", "cross_entropy", outputs.dtype)(
        grid, (_THREADS,), outputs, targets, class_weights, n, n_classes, gradient, losses
    )
    return losses, gradient


def squared_error(outputs, targets):
    """See the CPU's `squared_error`; the loss is an array that adds up to it."""
    import cupy

    grid = (min(-(-outputs.size // _THREADS), _BLOCKS),)
    gradient, losses = cupy.empty_like(outputs), cupy.empty(grid, "float64")
    kernel("losses", "squared_error", outputs.dtype)(
        grid, (_THREADS,), outputs, targets, outputs.size, len(outputs), gradient, losses
    )
    return losses, gradient


def log_softmax(outputs):
    """See the CPU's `log_softmax`."""
    import cupy

    shifted = outputs - outputs.max(axis=-1, keepdims=True)
    shifted -= cupy.log(cupy.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
