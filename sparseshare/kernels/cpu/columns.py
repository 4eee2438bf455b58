"""Patches of small images as columns of a matrix, added back, and products with them that skip zeros.

Images are (n, H, W, C), padded already. Patch (y, x) begins at pixel (y sy, x sx); patches are numbered along x first,
then y, then images. A line of a patch, kw * C entries, is one run of memory.
"""

import numpy as np

from .jit import kernel, part
from .vectors import weighted_rows

_RUN = 16  # entries of a list that are copied together


@part
def _fill(source, padded, top, left):
    """Copy an image into a larger one, zeros around it."""
    n_lines, n_pixels, n_channels = padded.shape
    zero = padded.dtype.type(0)
    for y in range(n_lines):
        for x in range(n_pixels):
            inside = top <= y < top + source.shape[0] and left <= x < left + source.shape[1]
            for c in range(n_channels):
                padded[y, x, c] = source[y - top, x - left, c] if inside else zero


@kernel
def pad_images(images, top, left, padded):
    """Images inside zeros.

    Parameters
    ----------
    images : (n, h, w, C) array
    top, left : int, zeros before the first line and pixel
    padded : (n, H, W, C) array, out; what does not fit at the far ends is left out
    """
    for i in range(images.shape[0]):
        _fill(images[i], padded[i], top, left)


@kernel
def take_columns(padded, kh, kw, sy, sx, n_lines, n_pixels, columns):
    """Patches as rows.

    Parameters
    ----------
    padded : (n, H, W, C) array
    kh, kw, sy, sx : int, size of a patch and steps between patches
    n_lines, n_pixels : int, patches along each axis of an image
    columns : (n * n_lines * n_pixels, kh * kw * C) array, out
    """
    n_images, n_all, width, n_channels = padded.shape
    flat = padded.reshape(n_images, n_all, width * n_channels)
    run, step = kw * n_channels, sx * n_channels
    row = 0
    for i in range(n_images):
        for y in range(n_lines):
            for x in range(n_pixels):
                out, start = columns[row], x * step
                for a in range(kh):
                    line, place = flat[i, y * sy + a], a * run
                    for c in range(run):
                        out[place + c] = line[start + c]
                row += 1


@kernel
def take_rows(padded, kh, kw, sy, sx, n_lines, n_pixels, rows):
    """The transpose of `take_columns`, in long runs of memory where there are few channels.

    Parameters
    ----------
    padded, kh, kw, sy, sx, n_lines, n_pixels : as in `take_columns`
    rows : (kh * kw * C, n * n_lines * n_pixels) array, out
    """
    n_images, n_channels = padded.shape[0], padded.shape[3]
    for k in range(rows.shape[0]):
        c, b, a = k % n_channels, k // n_channels % kw, k // (n_channels * kw)
        for i in range(n_images):
            for y in range(n_lines):
                start = (i * n_lines + y) * n_pixels
                out, line = rows[k, start : start + n_pixels], padded[i, y * sy + a, b:, c]
                for x in range(n_pixels):
                    out[x] = line[x * sx]


@kernel
def add_columns(columns, kh, kw, sy, sx, n_lines, n_pixels, padded):
    """Add patches up where they came from: the adjoint of `take_columns`.

    Parameters
    ----------
    columns : (n * n_lines * n_pixels, kh * kw * C) array
    kh, kw, sy, sx, n_lines, n_pixels : as in `take_columns`
    padded : (n, H, W, C) array, out
    """
    n_images, n_all, width, n_channels = padded.shape
    flat = padded.reshape(n_images, n_all, width * n_channels)
    run, step = kw * n_channels, sx * n_channels
    row = 0
    for i in range(n_images):
        flat[i] = 0
        for y in range(n_lines):
            for x in range(n_pixels):
                patch, start = columns[row], x * step
                for a in range(kh):
                    line, place = flat[i, y * sy + a], a * run
                    for c in range(run):
                        line[start + c] += patch[place + c]
                row += 1


@kernel
def sparse_columns_product(padded, kh, kw, sy, sx, n_lines, n_pixels, weights, out):
    """Patches times weights, from the non-zeros of the images alone.

    Parameters
    ----------
    padded, kh, kw, sy, sx, n_lines, n_pixels : as in `take_columns`
    weights : (kh * kw * C, F + padding) array: zeros make its columns a multiple of `vectors.PADDING`
    out : (n * n_lines * n_pixels, F) array, out
    """
    n_images, n_all, width, n_channels = padded.shape
    flat = padded.reshape(n_images, n_all, width * n_channels)
    run, step = kw * n_channels, sx * n_channels
    place = np.empty((n_all, width * n_channels + _RUN), np.int32)
    value = np.empty((n_all, width * n_channels + _RUN), padded.dtype)
    first = np.empty((n_all, width + 1), np.int64)  # of a pixel in the list of its line
    room = run + _RUN
    index, factor = np.empty(room, np.int32), np.empty(room, padded.dtype)
    total = np.empty(weights.shape[1], padded.dtype)
    row = 0
    for i in range(n_images):
        for y in range(n_all):
            _list_line(flat[i, y], n_channels, place[y], value[y], first[y])
        for a in range(kh):  # line by line of the patches: the weights of one line stay in the nearest cache
            part_of_weights = weights[a * run : (a + 1) * run]
            for y in range(n_lines):
                source = y * sy + a
                for x in range(n_pixels):
                    low, high = first[source, x * sx], first[source, x * sx + kw]
                    _copy(place[source], value[source], low, high, np.int32(x * step), index, factor)
                    weighted_rows(part_of_weights, index, factor, high - low, total)
                    if a == 0:
                        _copy_row(total, out[row + y * n_pixels + x])
                    else:
                        _add_row(total, out[row + y * n_pixels + x])
        row += n_lines * n_pixels


@part
def _list_line(line, n_channels, place, value, first):
    """Places and values of what is not 0, and how many there are before every pixel."""
    m = 0
    for x in range(first.shape[0] - 1):
        first[x] = m
        for c in range(x * n_channels, (x + 1) * n_channels):
            place[m], value[m] = c, line[c]
            m += line[c] != 0
    first[first.shape[0] - 1] = m


@part
def _copy(place, value, low, high, shift, index, factor):
    """Copy part of a list, in whole vectors: what is too much is written over."""
    for start in range(0, high - low, _RUN):
        p, v = place[low + start : low + start + _RUN], value[low + start : low + start + _RUN]
        i, f = index[start : start + _RUN], factor[start : start + _RUN]
        for j in range(_RUN):
            i[j] = p[j] - shift
            f[j] = v[j]


@part
def _copy_row(source, target):
    for k in range(target.shape[0]):
        target[k] = source[k]


@part
def _add_row(source, target):
    for k in range(target.shape[0]):
        target[k] += source[k]
