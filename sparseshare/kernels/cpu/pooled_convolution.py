"""A convolution, its thresholds and the largest values of its windows, a few lines at a time, and the gradient back.

What lies between convolution and pooling stays in the nearest caches, and back there the gradient is 0 but for one
entry a window and filter: only those are worked on. Images and patches are as in `columns`; windows tile the patches,
and patches in no window are not looked at. Filters are a whole number of the vectors of `patch_sums`.
"""

import numpy as np

from .columns import _fill
from .jit import kernel, part
from .patch_sums import (
    GRADIENT_PARTS,
    TAPS,
    both_gradients,
    both_gradients_1,
    list_nonzeros,
    listed_rows_1,
    listed_rows_2,
    listed_rows_4,
    patch_rows_1,
    patch_rows_2,
    pooled_window,
    tap_gradients,
    weight_gradients,
    weight_gradients_1,
)
from .register_sums import LANES, ROWS

LANE_BYTES = 4 * LANES


@part
def _patch_starts(n_lines, n_pixels, line, pixel, starts):
    """First entries of the patches of some lines, and again the last one until there are enough for a tile."""
    row = 0
    for y in range(n_lines):
        for x in range(n_pixels):
            starts[row] = y * line + x * pixel
            row += 1
    for more in range(row, ROWS):
        starts[more] = starts[row - 1]


@part
def _dense_rows(image, base, starts, n, n_lines, step, run, weights, bias, z):
    """z = bias + patches @ weights."""
    lanes = LANE_BYTES // z.itemsize
    column = 0
    while column < z.shape[1]:
        wide = column + 2 * lanes <= z.shape[1]
        for tile in range(0, n, ROWS):
            first = max(0, min(tile, n - ROWS))  # the last tile goes back over the one before
            if wide:
                patch_rows_2(image, base, starts, first, n_lines, step, run, weights, column, bias, z)
            else:
                patch_rows_1(image, base, starts, first, n_lines, step, run, weights, column, bias, z)
        column += 2 * lanes if wide else lanes


@part
def _list_pixels(image, n_channels, place, value, firsts):
    """Places and values of what is not 0 in an image, and how many there are before every pixel."""
    lanes = LANE_BYTES // image.itemsize
    m, whole = 0, n_channels - n_channels % lanes
    for pixel in range(firsts.shape[0] - 1):
        firsts[pixel] = m
        start = pixel * n_channels
        m = list_nonzeros(image, start, whole, place, value, m)
        for c in range(start + whole, start + n_channels):
            place[m], value[m] = c, image[c]
            m += image[c] != 0
    firsts[firsts.shape[0] - 1] = m


@part
def _sparse_rows(place, value, firsts, top, kh, kw, sy, sx, width, n_channels, n_lines, n_pixels, weights, bias, z):
    """z = bias + patches @ weights by what is not 0 in the patches, which begin with line `top` of the image."""
    lanes, run = LANE_BYTES // z.itemsize, kw * n_channels
    for row in range(n_lines * n_pixels):
        for f in range(z.shape[1]):
            z[row, f] = bias[f]
    for a in range(kh):  # line by line of the patches: the weights of one line stay in the nearest cache
        row = 0
        for y in range(n_lines):
            for x in range(n_pixels):
                pixel = (top + y * sy + a) * width + x * sx
                low, high = firsts[pixel], firsts[pixel + kw]
                shift = a * run - pixel * n_channels
                column = 0
                while column < z.shape[1]:
                    left = z.shape[1] - column
                    if left >= 4 * lanes:
                        listed_rows_4(place, value, low, high, shift, weights, column, z, row)
                        column += 4 * lanes
                    elif left >= 2 * lanes:
                        listed_rows_2(place, value, low, high, shift, weights, column, z, row)
                        column += 2 * lanes
                    else:
                        listed_rows_1(place, value, low, high, shift, weights, column, z, row)
                        column += lanes
                row += 1


@kernel
def pooled_patches(
    images, top, left, padded, kh, kw, sy, sx, ph, pw, weights, bias, limits, skip_zeros, z, out, place, kept, every
):
    """Largest thresholded products of patches and weights in every window.

    Parameters
    ----------
    images : (n, h, w, C) array
    top, left : int, zeros before the first line and pixel
    padded : (H, W, C) array, scratch for an image inside zeros; of size 0 if there are none
    kh, kw, sy, sx : int, size of a patch and steps between patches
    ph, pw : int, size of a window
    weights : (kh * kw * C, F) array
    bias : (F,) array
    limits : (4, F) array, see `patch_sums.pooled_window`
    skip_zeros : bool, whether to list what is not 0 in the images first
    z : (rows, F) array, scratch: at least one line of windows, at least `ROWS`
    out : (n, n_lines, n_pixels, F) array, out
    place : uint8 array of its shape, out
    kept : (m, F) array, out: every so many rows of what is thresholded, the first one first
    every : int

    Returns
    -------
    int
        Thresholded values that are not 0.
    """
    n_images, n_lines, n_pixels, n_filters = out.shape
    inside = padded.size > 0
    height, width, n_channels = padded.shape if inside else images.shape[1:]
    used, line, run = n_pixels * pw, width * n_channels, kw * n_channels
    strip = z.shape[0] // (ph * used)
    lanes = LANE_BYTES // z.itemsize
    starts = np.empty(z.shape[0], np.int64)
    n_listed = height * line + 2 * lanes if skip_zeros else 0
    listed, values = np.empty(n_listed, np.int32), np.empty(n_listed, z.dtype)
    firsts = np.empty(height * width + 1 if skip_zeros else 0, np.int64)
    flat_z, flat_out, flat_place = z.reshape(-1), out.reshape(-1), place.reshape(-1)
    count, done, due, m_kept, ready = 0, 0, 0, 0, 0
    for i in range(n_images):
        if inside:
            _fill(images[i], padded, top, left)
        image = padded.reshape(-1) if inside else images[i].reshape(-1)
        if skip_zeros:
            _list_pixels(image, n_channels, listed, values, firsts)
        for y in range(0, n_lines, strip):
            some = min(strip, n_lines - y)
            n = some * ph * used
            if skip_zeros:
                _sparse_rows(
                    listed, values, firsts, y * ph * sy, kh, kw, sy, sx, width, n_channels, some * ph, used, weights,
                    bias, z,
                )  # fmt: skip
            else:
                if n != ready:
                    _patch_starts(some * ph, used, sy * line, sx * n_channels, starts)
                    ready = n
                _dense_rows(image, y * ph * sy * line, starts, n, kh, line, run, weights, bias, z)
            while due < done + n and m_kept < kept.shape[0]:
                kept[m_kept] = z[due - done]
                due, m_kept = due + every, m_kept + 1
            done += n
            at = (i * n_lines + y) * n_pixels * n_filters
            for window_line in range(some):
                for x in range(n_pixels):
                    start = (window_line * ph * used + x * pw) * n_filters
                    for column in range(0, n_filters, lanes):
                        count += pooled_window(
                            flat_z, start, used * n_filters, n_filters, ph, pw, limits, column, flat_out, at, flat_place
                        )
                    at += n_filters
    return count


@part
def _window_starts(origins, steps, n_pixels, ph, pw, sy, sx, line, n_channels):
    """Where in an image windows begin, and from there their patches."""
    for window in range(origins.shape[0]):
        origins[window] = window // n_pixels * ph * sy * line + window % n_pixels * pw * sx * n_channels
    for p in range(ph * pw):
        steps[p] = p // pw * sy * line + p % pw * sx * n_channels


@part
def _list_slopes(slopes, place, f, origins, steps, places, values):
    """Patches that a filter has a gradient for, and the gradients."""
    m = 0
    for window in range(slopes.shape[0]):
        slope = slopes[window, f]
        places[m], values[m] = origins[window] + steps[place[window, f]], slope
        m += slope != 0
    return m


@kernel
def pooled_gradients(images, top, left, padded, kh, kw, sy, sx, ph, pw, weights, slopes, place, gradient, back, out):
    """Gradients of `pooled_patches` by the weights and by the images, from that before the thresholds.

    Parameters
    ----------
    images, top, left, padded, kh, kw, sy, sx, ph, pw : as in `pooled_patches`; a line of a patch, kw * C, is a whole
        number of vectors
    weights : (F, kh * kw * C) array, transposed
    slopes, place : (n, n_lines, n_pixels, F) arrays, the gradient by what was largest, and where it was
    gradient : (F, kh * kw * C) array, in and out: the gradient by the weights is added
    back : array of the shape of `padded` or, without it, of one image; scratch, of size 0 if `out` is
    out : (n, h, w, C) array, out: gradient by the images; of size 0 if it is not wanted
    """
    n_images, n_lines, n_pixels, n_filters = slopes.shape
    inside, by_image = padded.size > 0, out.size > 0
    height, width, n_channels = padded.shape if inside else images.shape[1:]
    line, run = width * n_channels, kw * n_channels
    lanes, n_windows = LANE_BYTES // images.itemsize, n_lines * n_pixels
    part_size = GRADIENT_PARTS * lanes
    origins, steps = np.empty(n_windows, np.int64), np.empty(ph * pw, np.int64)
    _window_starts(origins, steps, n_pixels, ph, pw, sy, sx, line, n_channels)
    places, values = np.empty(n_windows + 1, np.int64), np.empty(n_windows + 1, slopes.dtype)
    flat_weights, sums = weights.reshape(-1), gradient.reshape(-1)
    for i in range(n_images):
        if inside:
            _fill(images[i], padded, top, left)
        image = padded.reshape(-1) if inside else images[i].reshape(-1)
        target = back.reshape(-1) if inside or not by_image else out[i].reshape(-1)
        target[:] = 0
        of_image, where = slopes[i].reshape(n_windows, n_filters), place[i].reshape(n_windows, n_filters)
        for f in range(n_filters):
            n = _list_slopes(of_image, where, f, origins, steps, places, values)
            for a in range(kh):
                c, at = 0, (f * kh + a) * run
                while c < run:
                    shift, whole = a * line + c, run - c >= part_size
                    if by_image and whole:
                        both_gradients(image, shift, places, values, n, flat_weights, at + c, target, sums)
                    elif by_image:
                        both_gradients_1(image, shift, places, values, n, flat_weights, at + c, target, sums)
                    elif whole:
                        weight_gradients(image, shift, places, values, n, flat_weights, at + c, target, sums)
                    else:
                        weight_gradients_1(image, shift, places, values, n, flat_weights, at + c, target, sums)
                    c += part_size if whole else lanes
        if inside and by_image:
            result = out[i]
            result[:] = 0
            for y in range(max(0, -top), min(result.shape[0], height - top)):
                for x in range(min(result.shape[1], width - left)):
                    for c in range(n_channels):
                        result[y, x, c] = back[y + top, x + left, c]


@kernel
def pooled_tap_gradients(images, top, left, padded, kh, kw, sy, sx, ph, pw, slopes, place, gradient):
    """The gradient of `pooled_patches` by the weights alone, for patches of few entries.

    Parameters
    ----------
    images, top, left, padded, kh, kw, sy, sx, ph, pw, slopes, place : as in `pooled_gradients`, lines of any length
    gradient : (at least kh * kw * C, F) array, in and out, rows a multiple of `TAPS`; those in excess are of no use
    """
    n_images, n_lines, n_pixels, n_filters = slopes.shape
    inside = padded.size > 0
    width, n_channels = padded.shape[1:] if inside else images.shape[2:]
    line, run = width * n_channels, kw * n_channels
    lanes, n_windows = LANE_BYTES // images.itemsize, n_lines * n_pixels
    origins, steps = np.empty(n_windows, np.int64), np.empty(ph * pw, np.int64)
    _window_starts(origins, steps, n_pixels, ph, pw, sy, sx, line, n_channels)
    taps = np.zeros(gradient.shape[0], np.int64)
    for k in range(kh * run):
        taps[k] = k // run * line + k % run
    flat_slopes, flat_place = slopes.reshape(-1), place.reshape(-1)
    for i in range(n_images):
        if inside:
            _fill(images[i], padded, top, left)
        image = padded.reshape(-1) if inside else images[i].reshape(-1)
        at = i * n_windows * n_filters
        for row in range(0, gradient.shape[0], TAPS):
            for column in range(0, n_filters, lanes):
                tap_gradients(
                    image, origins, n_windows, steps, ph * pw, taps, flat_slopes, flat_place, at, column, gradient, row
                )
