"""Patches of images as rows of a matrix, and added back."""

from math import prod

from .module import kernel

_THREADS, _BLOCKS = 256, 1 << 16


def _grid(n_threads):
    return (min(-(-n_threads // _THREADS), _BLOCKS),)


def pad_images(images, top, left, padded):
    """See the CPU's `pad_images`."""
    launch = kernel("columns", "pad_images", images.dtype)
    launch(
        _grid(padded.size), (_THREADS,), images, *images.shape[1:], top, left, *padded.shape[1:3], padded.size, padded
    )


def take_columns(padded, kh, kw, sy, sx, n_lines, n_pixels, columns, top=0, left=0):
    """See the CPU's `take_columns`; images may do without zeros around them, of which `top` and `left` are missing."""
    n_tasks, run = len(padded) * n_lines * n_pixels * kh, kw * padded.shape[3]
    log_lanes = min(5, (run - 1).bit_length())
    launch = kernel("columns", "take_columns", padded.dtype)
    launch(
        _grid(n_tasks << log_lanes), (_THREADS,), padded, *padded.shape[1:], top, left, kh, kw, sy, sx, n_lines,
        n_pixels, n_tasks, log_lanes, columns,
    )  # fmt: skip


def add_columns(columns, kh, kw, sy, sx, n_lines, n_pixels, padded, top=0, left=0):
    """See the CPU's `add_columns`; `top` and `left` as for `take_columns`."""
    launch = kernel("columns", "add_columns", padded.dtype)
    launch(
        _grid(prod(padded.shape)), (_THREADS,), columns, *padded.shape[1:], top, left, kh, kw, sy, sx, n_lines,
        n_pixels, padded.size, padded,
    )  # fmt: skip
