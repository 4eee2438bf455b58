"""Patches of an image as rows, and rows added back where they came from.

Every image is a box of three axes: short ones get leading axes of length 1, and the channels are merged with the last
axis, so that one line of a patch is one run of memory in both places. Patches are numbered along the last axis first.
"""

from .jit import exact


@exact
def take_patches(image, first, patch, stride, grid, rows):
    """Copy patches `first`, `first` + 1, ... to rows.

    Parameters
    ----------
    image : (S0, S1, S2) array
    first : int, number of the first patch
    patch, stride, grid : (3,) int64 arrays: size of a patch, steps between patches, patches along each axis
    rows : (n, patch0 * patch1 * patch2) array, out
    """
    p0, p1, p2 = patch
    for i in range(rows.shape[0]):
        number = first + i
        y0 = number // (grid[1] * grid[2]) * stride[0]
        y1 = number // grid[2] % grid[1] * stride[1]
        y2 = number % grid[2] * stride[2]
        row = rows[i]
        for a in range(p0):
            for b in range(p1):
                line = image[y0 + a, y1 + b]
                start = (a * p1 + b) * p2
                for c in range(p2):
                    row[start + c] = line[y2 + c]


@exact
def add_patches(rows, first, patch, stride, grid, low, high, total):
    """Add rows to total where patches `first`, `first` + 1, ... lie, inside one part of it.

    Parameters
    ----------
    rows : (n, patch0 * patch1 * patch2) array
    first, patch, stride, grid : as in `take_patches`
    low, high : (3,) int64 arrays, the part of `total` to write to: each thread has its own
    total : (S0, S1, S2) array, in and out. Every entry sums its patches in their order, whatever the parts
    """
    p0, p1, p2 = patch
    for i in range(rows.shape[0]):
        number = first + i
        y0 = number // (grid[1] * grid[2]) * stride[0]
        y1 = number // grid[2] % grid[1] * stride[1]
        y2 = number % grid[2] * stride[2]
        row = rows[i]
        a_first, a_last = max(low[0] - y0, 0), min(high[0] - y0, p0)
        b_first, b_last = max(low[1] - y1, 0), min(high[1] - y1, p1)
        c_first, c_last = max(low[2] - y2, 0), min(high[2] - y2, p2)
        for a in range(a_first, a_last):
            for b in range(b_first, b_last):
                line = total[y0 + a, y1 + b]
                start = (a * p1 + b) * p2
                for c in range(c_first, c_last):
                    line[y2 + c] += row[start + c]
