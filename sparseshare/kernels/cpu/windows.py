"""Largest values and means over windows of small images, and their gradients.

Images are (n, h, w, C); window (y, x) begins at pixel (y sy, x sx) and lies inside the image.
"""

from .jit import kernel


@kernel
def largest_in_windows(images, kh, kw, sy, sx, out, place):
    """Largest value of every window and channel; NaN where there is one.

    Parameters
    ----------
    images : (n, h, w, C) array
    kh, kw, sy, sx : int, size of a window and steps between windows
    out : (n, n_lines, n_pixels, C) array, out
    place : (n, n_lines, n_pixels, C) array of uint8 or int32, out: where in its window it was, along the lines; the
        first of equal ones
    """
    n_images, n_lines, n_pixels, n_channels = out.shape
    for i in range(n_images):
        for y in range(n_lines):
            for x in range(n_pixels):
                best, where = out[i, y, x], place[i, y, x]
                for p in range(kh * kw):
                    pixel = images[i, y * sy + p // kw, x * sx + p % kw]
                    if p == 0:
                        for c in range(n_channels):
                            best[c], where[c] = pixel[c], 0
                    else:
                        for c in range(n_channels):
                            better = (pixel[c] > best[c]) | (pixel[c] != pixel[c])
                            best[c] = pixel[c] if better else best[c]
                            where[c] = p if better else where[c]


@kernel
def largest_gradient(gradient, place, kh, kw, sy, sx, out):
    """Gradient of `largest_in_windows` by the images.

    Parameters
    ----------
    gradient, place : (n, n_lines, n_pixels, C) arrays
    kh, kw, sy, sx : as in `largest_in_windows`
    out : (n, h, w, C) array, out
    """
    n_images, n_lines, n_pixels, n_channels = gradient.shape
    zero = out.dtype.type(0)
    tiled = sy == kh and sx == kw and n_lines * kh == out.shape[1] and n_pixels * kw == out.shape[2]
    for i in range(n_images):
        if not tiled:
            out[i] = 0
        for y in range(n_lines):
            for x in range(n_pixels):
                slope, where = gradient[i, y, x], place[i, y, x]
                for p in range(kh * kw):
                    pixel = out[i, y * sy + p // kw, x * sx + p % kw]
                    if tiled:  # every pixel lies in one window: no zeros first, no reading
                        for c in range(n_channels):
                            pixel[c] = slope[c] if where[c] == p else zero
                    else:
                        for c in range(n_channels):
                            pixel[c] += slope[c] if where[c] == p else zero


@kernel
def mean_of_windows(images, kh, kw, sy, sx, out):
    """Mean of every window and channel.

    Parameters
    ----------
    images, kh, kw, sy, sx, out : as in `largest_in_windows`
    """
    n_images, n_lines, n_pixels, n_channels = out.shape
    share = out.dtype.type(1) / out.dtype.type(kh * kw)
    for i in range(n_images):
        for y in range(n_lines):
            for x in range(n_pixels):
                total = out[i, y, x]
                total[:] = 0
                for p in range(kh * kw):
                    pixel = images[i, y * sy + p // kw, x * sx + p % kw]
                    for c in range(n_channels):
                        total[c] += pixel[c] * share


@kernel
def mean_gradient(gradient, kh, kw, sy, sx, out):
    """Gradient of `mean_of_windows` by the images.

    Parameters
    ----------
    gradient : (n, n_lines, n_pixels, C) array
    kh, kw, sy, sx : as in `largest_in_windows`
    out : (n, h, w, C) array, out
    """
    n_images, n_lines, n_pixels, n_channels = gradient.shape
    share = out.dtype.type(1) / out.dtype.type(kh * kw)
    for i in range(n_images):
        out[i] = 0
        for y in range(n_lines):
            for x in range(n_pixels):
                slope = gradient[i, y, x]
                for p in range(kh * kw):
                    pixel = out[i, y * sy + p // kw, x * sx + p % kw]
                    for c in range(n_channels):
                        pixel[c] += slope[c] * share
