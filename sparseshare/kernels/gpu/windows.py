"""Largest values and means over windows of images, and their gradients."""

from .module import kernel

_THREADS, _BLOCKS = 256, 1 << 16


def _grid(size):
    return (min(-(-size // _THREADS), _BLOCKS),)


def largest_in_windows(images, kh, kw, sy, sx, out, place):
    """See the CPU's `largest_in_windows`."""
    launch = kernel("windows", "largest_in_windows", images.dtype, place.dtype)
    launch(
        _grid(out.size), (_THREADS,), images, *images.shape[1:], kh, kw, sy, sx, *out.shape[1:3], out.size, out, place
    )


def largest_gradient(gradient, place, kh, kw, sy, sx, out):
    """See the CPU's `largest_gradient`."""
    _gradient(gradient, place, place.dtype, 1, kh, kw, sy, sx, out)


def mean_of_windows(images, kh, kw, sy, sx, out):
    """See the CPU's `mean_of_windows`."""
    launch = kernel("windows", "mean_of_windows", images.dtype)
    launch(_grid(out.size), (_THREADS,), images, *images.shape[1:], kh, kw, sy, sx, *out.shape[1:3], out.size, out)


def mean_gradient(gradient, kh, kw, sy, sx, out):
    """See the CPU's `mean_gradient`."""
    _gradient(gradient, None, "uint8", 1 / (kh * kw), kh, kw, sy, sx, out)


def _gradient(gradient, place, kind, factor, kh, kw, sy, sx, out):
    launch = kernel("windows", "largest_gradient", gradient.dtype, kind)
    launch(
        _grid(out.size), (_THREADS,), gradient, place, *out.shape[1:], kh, kw, sy, sx, *gradient.shape[1:3], factor,
        out.size, out,
    )  # fmt: skip
