"""Codes of patches gathered over the cells of a grid as they come, positive and negative parts apart.

Patches are numbered image by image, along the last axis of each. A patch in row r and column c of its image's map of
patches lies in cell (row_cell[r], column_cell[c]). Sums run over patches in their order, so they do not depend on how
images are shared out to threads and tiles.
"""

import numpy as np

from .jit import exact, kernel, part

_TOGETHER = 4  # patches added at a time: sums in memory are read and written once for all of them


@part
def _run_length(number, n_left, width, column_cell):
    """Patches from `number` on that lie in one row of their image and in one cell, and that cell's column."""
    column = number % width
    cell, length = column_cell[column], 1
    while length < n_left and column + length < width and column_cell[column + length] == cell:
        length += 1
    return cell, length


@exact
def pool_thresholded(Q, n, first, row_cell, column_cell, lower, upper, maximum, sums):
    """Pool max(q - upper, 0) and max(lower - q, 0): the two-sided soft threshold of correlations.

    Parameters
    ----------
    Q : (T, K) array, the products of patches `first`, `first` + 1, ... with the atoms; its first n rows count
    n, first : int
    row_cell, column_cell : (rows,), (columns,) int64 arrays
    lower, upper : (K,) arrays of Q's dtype, what the products are compared with
    maximum : bool, largest values; else sums
    sums : (B, cell rows, cell columns, 2, K) array of Q's dtype, in and out: positive parts, then negative ones
    """
    width, size = column_cell.shape[0], row_cell.shape[0] * column_cell.shape[0]
    done = np.int64(0)  # a bare 0 is a type of its own: all parts would be compiled once more
    while done < n:
        number = first + done
        cell, length = _run_length(number, n - done, width, column_cell)
        total = sums[number // size, row_cell[number % size // width], cell]
        if maximum:
            _largest_of_run(Q, done, done + length, lower, upper, total[0], total[1])
        else:
            _sum_of_run(Q, done, done + length, lower, upper, total[0], total[1])
        done += length


@exact
def _sum_of_run(Q, start, stop, lower, upper, plus, minus):
    """One patch after the other, in sums too: where a tile ends must not show in the last bits."""
    zero = Q.dtype.type(0)
    i = start
    while i + _TOGETHER <= stop:
        a, b, c, d = Q[i], Q[i + 1], Q[i + 2], Q[i + 3]
        for k in range(Q.shape[1]):
            u, v = upper[k], lower[k]
            plus[k] = plus[k] + max(a[k] - u, zero) + max(b[k] - u, zero) + max(c[k] - u, zero) + max(d[k] - u, zero)
            minus[k] = minus[k] + max(v - a[k], zero) + max(v - b[k], zero) + max(v - c[k], zero) + max(v - d[k], zero)
        i += _TOGETHER
    while i < stop:
        a = Q[i]
        for k in range(Q.shape[1]):
            plus[k] += max(a[k] - upper[k], zero)
            minus[k] += max(lower[k] - a[k], zero)
        i += 1


@part
def _largest_of_run(Q, start, stop, lower, upper, plus, minus):
    for i in range(start, stop):
        a = Q[i]
        for k in range(Q.shape[1]):
            plus[k] = max(plus[k], a[k] - upper[k])  # sums begin at 0
            minus[k] = max(minus[k], lower[k] - a[k])


@kernel
def pool_nearness(Q, n, first, row_cell, column_cell, norms2, centres2, maximum, sums):
    """Pool max(mean distance - distance, 0): k-means features, 'triangle' (Coates, Lee, Ng 2011).

    Parameters
    ----------
    Q : (T, K) array, the products of patches and centres; its first n rows count. Overwritten
    n, first, row_cell, column_cell, maximum : as in `pool_thresholded`
    norms2, centres2 : (T,), (K,) arrays, squared norms of patches and centres
    sums : (B, cell rows, cell columns, 1, K) array of Q's dtype, in and out
    """
    width, size = column_cell.shape[0], row_cell.shape[0] * column_cell.shape[0]
    for i in range(n):
        nearness(Q[i], norms2[i], centres2)
        number = first + i
        total = sums[number // size, row_cell[number % size // width], column_cell[number % width], 0]
        q = Q[i]
        if maximum:
            for k in range(q.shape[0]):
                total[k] = max(total[k], q[k])
        else:
            for k in range(q.shape[0]):
                total[k] += q[k]


@part
def nearness(q, norm2, centres2):
    """max(mean distance - distance, 0) in the place of a patch's products with the centres."""
    zero, two = q.dtype.type(0), q.dtype.type(2)
    mean = zero
    for k in range(q.shape[0]):
        distance = max(norm2 + centres2[k] - two * q[k], zero) ** q.dtype.type(0.5)
        mean += distance
        q[k] = distance
    mean /= q.dtype.type(q.shape[0])
    for k in range(q.shape[0]):
        q[k] = max(mean - q[k], zero)


@kernel
def nearness_rows(Q, n, norms2, centres2):
    """`nearness` of the first n rows, in place."""
    for i in range(n):
        nearness(Q[i], norms2[i], centres2)


@kernel
def pool_codes(starts, atoms, values, first, row_cell, column_cell, maximum, sums):
    """Pool sparse codes, positive and negative parts apart.

    Parameters
    ----------
    starts, atoms, values : the three arrays of a CSR array, its rows the codes of patches `first`, `first` + 1, ...
    first, row_cell, column_cell, maximum : as in `pool_thresholded`
    sums : (B, cell rows, cell columns, 2, K) array, in and out
    """
    width, size = column_cell.shape[0], row_cell.shape[0] * column_cell.shape[0]
    for i in range(starts.shape[0] - 1):
        number = first + i
        total = sums[number // size, row_cell[number % size // width], column_cell[number % width]]
        for at in range(starts[i], starts[i + 1]):
            value = values[at]
            if maximum:
                if value >= 0:
                    total[0, atoms[at]] = max(total[0, atoms[at]], value)
                else:
                    total[1, atoms[at]] = max(total[1, atoms[at]], -value)
            elif value >= 0:
                total[0, atoms[at]] += value
            else:
                total[1, atoms[at]] -= value
