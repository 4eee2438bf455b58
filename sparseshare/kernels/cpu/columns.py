"""Patches of small images as columns of a matrix, added back, and products with them that skip zeros.

Images are (n, H, W, C), padded already. Patch (y, x) begins at pixel (y sy, x sx); patches are numbered along x first,
then y, then images. A line of a patch, kw * C entries, is one run of memory.
"""

import numpy as np

from .jit import kernel, part


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
    weights : (kh * kw * C, F) array
    out : (n * n_lines * n_pixels, F) array, out
    """
    n_images, n_all, width, n_channels = padded.shape
    flat = padded.reshape(n_images, n_all, width * n_channels)
    run, step = kw * n_channels, sx * n_channels
    place = np.empty((n_all, width * n_channels + 1), np.int64)
    value = np.empty((n_all, width * n_channels + 1), padded.dtype)
    first = np.empty((n_all, width + 1), np.int64)  # of a pixel in the list of its line
    row = 0
    for i in range(n_images):
        for y in range(n_all):
            m, line = 0, flat[i, y]
            for x in range(width):
                first[y, x] = m
                for c in range(x * n_channels, (x + 1) * n_channels):
                    place[y, m], value[y, m] = c, line[c]
                    m += line[c] != 0
            first[y, width] = m
        for y in range(n_lines):
            for x in range(n_pixels):
                total = out[row]
                total[:] = 0
                for a in range(kh):
                    source = y * sy + a
                    low, high = first[source, x * sx], first[source, x * sx + kw]
                    _add_weighted(place[source], value[source], low, high, a * run - x * step, weights, total)
                row += 1


@part
def _add_weighted(place, value, low, high, shift, weights, total):
    """total += sum of value[m] weights[place[m] + shift] over low <= m < high."""
    m = low
    while m + 4 <= high:
        p, q, r, s = value[m], value[m + 1], value[m + 2], value[m + 3]
        w0, w1 = weights[place[m] + shift], weights[place[m + 1] + shift]
        w2, w3 = weights[place[m + 2] + shift], weights[place[m + 3] + shift]
        for k in range(total.shape[0]):
            total[k] += (p * w0[k] + q * w1[k]) + (r * w2[k] + s * w3[k])
        m += 4
    while m < high:
        p, w0 = value[m], weights[place[m] + shift]
        for k in range(total.shape[0]):
            total[k] += p * w0[k]
        m += 1
