"""Weights that share values: hashes of positions, gathered gradients, products that never hold the whole matrix."""

import numpy as np

from .jit import kernel, part
from .register_sums import ROWS, gathered_row, gathered_rows, lowest_bit, panel_rows

_TURN = 16  # columns that are turned into rows at a time, and back
_FIRST, _SECOND, _GOLDEN = np.uint32(0x7FEB352D), np.uint32(0x846CA68B), np.uint32(0x9E3779B9)
_16, _15, _1 = np.uint32(16), np.uint32(15), np.uint32(1)
_HALF = np.uint64(32)


@part
def mix(word):
    """A bijection of 32 bits in which every bit of the input moves about half of the output's."""
    word = np.uint32(word ^ (word >> _16))
    word = np.uint32(word * _FIRST)
    word = np.uint32(word ^ (word >> _15))
    word = np.uint32(word * _SECOND)
    return np.uint32(word ^ (word >> _16))


@kernel
def hashed_index(n_values, seed, index, signs):
    """The value and the sign of every position 0, 1, ...

    Parameters
    ----------
    n_values : int
    seed : int
    index : (n,) int32 array, out
    signs : (n,) int8 array, out: +1 or -1
    """
    key, n = mix(np.uint32(np.uint32(seed) + _GOLDEN)), np.uint64(n_values)
    for p in range(len(index)):
        word = mix(np.uint32(p) ^ key)
        index[p] = np.int32((np.uint64(word) * n) >> _HALF)  # the high bits choose the value, the lowest the sign
        signs[p] = np.int8(1 - 2 * np.int32(word & _1))


@part
def hashed_panel(values, key, signed, n_columns, top, n, first, words, signs, panel):
    """Rows top to top + n, and columns from `first` on, of a hashed matrix.

    Words first, then values: the arithmetic goes by vectors, the look-up one by one.
    """
    n_values, width = np.uint64(len(values)), panel.shape[1]
    one, two = values.dtype.type(1), values.dtype.type(2)
    for begin in range(0, n, _TURN):
        n_rows = min(_TURN, n - begin)
        for i in range(n_rows):
            start = np.uint32((top + begin + i) * n_columns + first)
            some_words, some_signs = words[i], signs[i]
            for j in range(width):  # past the end of the row there are other weights, which go nowhere
                word = mix(np.uint32(start + np.uint32(j)) ^ key)
                some_words[j] = np.uint32((np.uint64(word) * n_values) >> _HALF)
                some_signs[j] = one - two * values.dtype.type(np.int32(word & _1)) if signed else one
        for i in range(n_rows):
            line, some_words, some_signs = panel[begin + i], words[i], signs[i]
            for j in range(width):
                line[j] = some_signs[j] * values[some_words[j]]


@kernel
def hashed_product(rows, values, seed, signed, panel, out):
    """Rows times a hashed matrix, of which a narrow panel is made at a time.

    Parameters
    ----------
    rows : (n, n_in) array
    values : (n_values,) array
    seed : int
    signed : bool
    panel : (depth, PANEL vectors) array, scratch: so many rows of the matrix at a time
    out : (n, n_out) array, out
    """
    (n, n_in), n_out = rows.shape, out.shape[1]
    depth, width = panel.shape
    key, start = mix(np.uint32(np.uint32(seed) + _GOLDEN)), np.int64(0)
    words, signs = np.empty((_TURN, width), np.uint32), np.empty((_TURN, width), values.dtype)
    sums = np.empty((ROWS, width), rows.dtype)
    last = np.zeros((ROWS, n_in), rows.dtype)  # the rows that are left over
    whole = n - n % ROWS
    for i in range(whole, n):
        last[i - whole] = rows[i]
    out[:] = 0
    for left in range(0, n_in, depth):
        n_deep = min(depth, n_in - left)
        for first in range(0, n_out, width):
            size = min(width, n_out - first)
            hashed_panel(values, key, signed, n_out, left, n_deep, first, words, signs, panel)
            for top in range(0, n, ROWS):
                if top < whole and size == width:
                    panel_rows(rows, top, left, n_deep, panel, out, top, first)
                    continue
                sums[:] = 0
                if top < whole:
                    panel_rows(rows, top, left, n_deep, panel, sums, start, start)
                else:
                    panel_rows(last, start, left, n_deep, panel, sums, start, start)
                for r in range(min(ROWS, n - top)):
                    for j in range(size):
                        out[top + r, first + j] += sums[r, j]


@kernel
def spell_out(values, index, signs, out):
    """The weights that values stand for.

    Parameters
    ----------
    values : (n_values,) array
    index : (n,) int32 array, -1 for a weight that is 0
    signs : (n,) int8 array, or empty for +1
    out : (n,) array of values' dtype, out
    """
    zero = values.dtype.type(0)
    if len(signs) > 0:
        for p in range(len(out)):
            i = index[p]
            out[p] = values[i] * values.dtype.type(signs[p]) if i >= 0 else zero
    else:
        for p in range(len(out)):
            i = index[p]
            out[p] = values[i] if i >= 0 else zero


@kernel
def gather_gradients(gradient, index, signs, sums):
    """Add the gradient by every weight to that by its value.

    Parameters
    ----------
    gradient : (n,) array
    index : (n,) int32 array, -1 for none
    signs : (n,) int8 array, or empty for +1
    sums : (n_values,) array of gradient's dtype, in and out; summed in float64
    """
    total = np.zeros(len(sums))
    if len(signs) > 0:
        for p in range(len(gradient)):
            if index[p] >= 0:
                total[index[p]] += gradient[p] * signs[p]
    else:
        for p in range(len(gradient)):
            if index[p] >= 0:
                total[index[p]] += gradient[p]
    for v in range(len(sums)):
        sums[v] += total[v]


@kernel
def pruned_product(rows, values, bits, turned, out):
    """Rows times a matrix of which few entries are kept.

    Parameters
    ----------
    rows : (n, n_in) array
    values : (nnz,) array, column after column of the matrix
    bits : (n_out, ceil(n_in / 64)) uint64 array: which entries of a column are kept, the lowest bit first
    turned : (n_in, one vector or PARTS) array, scratch: rows as columns
    out : (n, n_out) array, out
    """
    (n, n_in), width = rows.shape, turned.shape[1]
    n_out, n_words = bits.shape
    one, narrow = np.uint64(1), width * rows.itemsize == 64
    places, sums = np.empty(n_in, np.int32), np.empty((_TURN, width), rows.dtype)
    for top in range(0, n, width):
        size = min(width, n - top)
        if size < width:
            turned[:] = 0
        for left in range(0, n_in, _TURN):  # a cache line of every row at a time
            right = min(left + _TURN, n_in)
            for t in range(size):
                for i in range(left, right):
                    turned[i, t] = rows[top + t, i]
        done = 0
        for left in range(0, n_out, _TURN):
            right = min(left + _TURN, n_out)
            for j in range(left, right):
                n_kept = 0
                for b in range(n_words):
                    word = bits[j, b]
                    while word:
                        places[n_kept] = 64 * b + lowest_bit(word)
                        n_kept += 1
                        word &= word - one
                if narrow:
                    gathered_row(turned, places, n_kept, values, done, sums[j - left])
                else:
                    gathered_rows(turned, places, n_kept, values, done, sums[j - left])
                done += n_kept
            for t in range(size):
                for j in range(left, right):
                    out[top + t, j] = sums[j - left, t]
