"""A convolution, its thresholds and the largest values of its windows, and the gradient back.

Patches of few entries are worked on straight from the images: their columns would be many times as large, and the
matrix product too thin to pay. Others become columns for a matrix product, so many images at a time that these take no
more than 128 MB.
"""

from .columns import add_columns, take_columns
from .module import kernel

_THREADS, _WARP, _BLOCKS = 256, 32, 4096
_FEW = 32  # entries of a patch that make no columns
_TAPS = 16
_COLUMN_BYTES = 1 << 27
_PARTS, _WINDOWS = 64, 64  # parts of a sum, at most, and windows of a part, at least


def goes_without_columns(n_entries):
    """Whether patches of so many entries are worked on straight from the images."""
    return n_entries <= _FEW


def _grid(size):
    return (max(1, min(-(-size // _THREADS), _BLOCKS)),)


def _at_once(n_images, patches_an_image, entries, itemsize):
    step = max(1, _COLUMN_BYTES // max(1, patches_an_image * entries * itemsize))
    return [slice(start, min(start + step, n_images)) for start in range(0, n_images, step)]


def pooled_patches(images, top, left, kh, kw, sy, sx, ph, pw, weights, bias, thresholds, mode, out, place, every):
    """Largest thresholded products of patches and weights in every window.

    Parameters
    ----------
    images : (n, h, w, C) array
    top, left : int, zeros before the first line and pixel
    kh, kw, sy, sx : int, size of a patch and steps between patches
    ph, pw : int, size of a window
    weights : (kh * kw * C, F) array
    bias : (F,) array or None
    thresholds, mode : as for `activate`
    out : (n, n_lines, n_pixels, F) array, out
    place : uint8 array of its shape, out
    every : int or None, so many rows of what is thresholded are one of which a copy is wanted

    Returns
    -------
    counts : list of int arrays, how many thresholded values are not 0
    kept : list of (m, F) arrays
    columns : (rows, kh * kw * C) array or None, for `pooled_gradients` if they are all at hand
    """
    import cupy

    n_lines, n_pixels, n_filters = out.shape[1:]
    shape, counts, kept = images.shape[1:], [], []
    if goes_without_columns(len(weights)) and every is None:
        grid = _grid(out.size)
        counts.append(cupy.empty(grid, "int32"))
        kernel("pooled_convolution", "pooled_taps", images.dtype)(
            grid, (_THREADS,), images, *shape, top, left, kh, kw, sy, sx, ph, pw, weights, bias, thresholds, mode,
            n_lines, n_pixels, n_filters, out.size, out, place, counts[0],
        )  # fmt: skip
        return counts, kept, None
    patches = n_lines * ph * n_pixels * pw
    launch = kernel("pooled_convolution", "pool_products", images.dtype)
    parts = _at_once(len(images), patches, len(weights), images.itemsize)
    for part in parts:
        columns = _columns(images[part], top, left, kh, kw, sy, sx, n_lines * ph, n_pixels * pw)
        z = columns.dot(weights)
        some = out[part]
        grid = _grid(some.size)
        counts.append(cupy.empty(grid, "int32"))
        launch(
            grid, (_THREADS,), z, bias, thresholds, mode, ph, pw, n_lines, n_pixels, n_filters, some.size, some,
            place[part], counts[-1],
        )  # fmt: skip
        if every is not None:
            kept.append(z[::every] if bias is None else z[::every] + bias)
    return counts, kept, columns if len(parts) == 1 else None


def _columns(images, top, left, kh, kw, sy, sx, n_lines, n_pixels):
    import cupy

    columns = cupy.empty((len(images) * n_lines * n_pixels, kh * kw * images.shape[3]), images.dtype)
    take_columns(images, kh, kw, sy, sx, n_lines, n_pixels, columns, top, left)
    return columns


def pooled_tap_gradients(images, top, left, kh, kw, sy, sx, ph, pw, slopes, place):
    """Gradient of `pooled_patches` by the weights, from that before the thresholds, for patches of few entries.

    Parameters
    ----------
    images, top, left, kh, kw, sy, sx, ph, pw : as for `pooled_patches`
    slopes, place : (n, n_lines, n_pixels, F) arrays, the gradient by what was largest, and where it was

    Returns
    -------
    (parts, kh * kw * C, F) array, parts that add up to it
    """
    import cupy

    n_images, n_lines, n_pixels, n_filters = slopes.shape
    n_windows, n_entries = n_images * n_lines * n_pixels, kh * kw * images.shape[3]
    n_parts = max(1, min(n_windows // _WINDOWS, _PARTS))
    parts = cupy.empty((n_parts, n_entries, n_filters), images.dtype)
    kernel("pooled_convolution", "tap_gradients", images.dtype)(
        (-(-n_filters // _WARP), -(-n_entries // _TAPS), n_parts), (_THREADS,), images, *images.shape[1:], top, left,
        kh, kw, sy, sx, ph, pw, slopes, place, n_lines, n_pixels, n_filters, n_windows, -(-n_windows // n_parts), parts,
    )  # fmt: skip
    return parts


def pooled_gradients(images, top, left, kh, kw, sy, sx, n_lines, n_pixels, weights, dz, columns, out):
    """Gradients of `pooled_patches` by the weights and by the images, from that by all products.

    Parameters
    ----------
    images, top, left, kh, kw, sy, sx, weights : as for `pooled_patches`
    n_lines, n_pixels : int, patches in windows along each axis of an image
    dz : (n * n_lines * n_pixels, F) array
    columns : array or None, as `pooled_patches` has left them
    out : (n, h, w, C) array, out: gradient by the images; None if it is not wanted

    Returns
    -------
    (parts, kh * kw * C, F) array, parts that add up to the gradient by the weights
    """
    import cupy

    grid, patches = (kh, kw, sy, sx, n_lines, n_pixels), n_lines * n_pixels
    batches = _at_once(len(images), patches, len(weights), images.itemsize)
    parts = cupy.empty((len(batches), *weights.shape), images.dtype)
    for number, batch in enumerate(batches):
        slopes = dz[batch.start * patches : batch.stop * patches]
        taken = _columns(images[batch], top, left, *grid) if columns is None else columns
        taken.T.dot(slopes, out=parts[number])
        if out is not None:
            add_columns(slopes.dot(weights.T), *grid, out[batch], top, left)
    return parts
