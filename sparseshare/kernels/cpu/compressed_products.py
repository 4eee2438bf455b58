"""Products with matrices of hashed or pruned weights, of which no more than a narrow panel is ever made."""

import numpy as np

from .jit import kernel, part, rare
from .register_sums import ROWS, gathered_row, gathered_rows, lowest_bit
from .register_tiles import EXPANDS, PIECE, PIECES, kept_sum, put_runs, run_sums, tile_rows
from .shared_products import hash_key, mix

__all__ = ["EXPANDS", "PIECE", "hashed_product", "hashed_rows", "kept_product", "kept_rows"]
_TURN = 16  # columns that are turned into rows at a time, and back
_BLOCK = 512  # rows that stay at hand while panels go by
_DEPTH = 256  # words of `run_sums` that are drawn at a time
_1, _HALF = np.uint32(1), np.uint64(32)


@part
def hashed_panel(values, key, signed, n_columns, top, n, first, words, signs, panel):
    """Rows top to top + n, and columns from `first` on, of a hashed matrix.

    Words first, then values: the arithmetic goes by vectors, the look-up one by one.
    """
    n_values, width = np.uint64(np.uint32(len(values))), panel.shape[1]
    one, two = values.dtype.type(1), values.dtype.type(2)
    for begin in range(0, n, _TURN):
        n_rows = min(_TURN, n - begin)
        for i in range(n_rows):
            start = (top + begin + i) * n_columns + first
            some_words, some_signs = words[i], signs[i]
            # Past the end of the row there are other weights, which go nowhere. Loops of their own, as in `draw_runs`.
            for j in range(width):
                some_words[j] = np.uint32(start + j)
            for j in range(width):
                some_words[j] = mix(some_words[j] ^ key)
            for j in range(width):
                some_signs[j] = one - two * values.dtype.type(np.int32(some_words[j] & _1)) if signed else one
            for j in range(width):
                some_words[j] = np.uint32((np.uint64(some_words[j]) * n_values) >> _HALF)
        for i in range(n_rows):
            line, some_words, some_signs = panel[begin + i], words[i], signs[i]
            for j in range(width):
                line[j] = some_signs[j] * values[some_words[j]]


@rare
def draw_runs(n_values, run, key, signed, n_columns, top, n, column, starts, signs):
    """Where the values of a piece of a run begin, and its sign, in rows top to top + n."""
    n_runs, n_starts = -(-n_columns // run), np.uint64(np.uint32(n_values - run + 1))
    first, inside = top * n_runs + column // run, np.uint64(column % run)
    one, two = signs.dtype.type(1), signs.dtype.type(2)
    # Loops of their own: in one they would all be done with words of 64 bits, in four times the time.
    for i in range(n):
        starts[i] = np.uint32(first + i * n_runs)
    for i in range(n):
        starts[i] = mix(starts[i] ^ key)
    for i in range(n):
        signs[i] = one - two * signs.dtype.type(np.int32(starts[i] & _1)) if signed else one
    for i in range(n):
        starts[i] = np.uint32(((np.uint64(starts[i]) * n_starts) >> _HALF) + inside)


@rare
def run_panel(values, run, key, signed, n_columns, top, n, first, starts, signs, panel):
    """Rows top to top + n, and columns from `first` on, of a matrix of hashed runs."""
    for left in range(0, panel.shape[1], PIECE):
        if left == 0 or (first + left) % run == 0:
            draw_runs(len(values), run, key, signed, n_columns, top, n, first + left, starts, signs)
        else:
            for i in range(n):
                starts[i] += np.uint32(PIECE)
        put_runs(values, starts, signs, n, panel, left)


@kernel
def hashed_product(rows, values, seed, signed, run, begin, end, panel, out):
    """Some columns of rows times a hashed matrix.

    Parameters
    ----------
    rows : (n, n_in) array
    values : (n_values,) array
    seed : int
    signed : bool
    run : int
        1 or a multiple of `PIECE`: weights of a row that take values one after the other.
    begin, end : int
        Columns; `begin` is a multiple of the width of a panel.
    panel : (depth, PANEL vectors) array, scratch: so many rows of the matrix at a time
    out : (n, n_out) array, out
    """
    (n, n_in), n_out = rows.shape, out.shape[1]
    depth, width = panel.shape
    key, start = hash_key(seed), np.int64(0)
    words, signs = np.empty((_TURN, width), np.uint32), np.empty((_TURN, width), values.dtype)
    starts, run_signs = np.empty(depth, np.uint32), np.empty(depth, values.dtype)
    sums = np.empty((ROWS, width), rows.dtype)
    last = np.zeros((ROWS, n_in), rows.dtype)  # the rows that are left over
    whole = n - n % ROWS
    for i in range(whole, n):
        last[i - whole] = rows[i]
    for upper in range(0, n, _BLOCK):
        lower = min(upper + _BLOCK, n)
        for left in range(0, n_in, depth):
            n_deep, anew = min(depth, n_in - left), left == 0
            for first in range(begin, end, width):
                size = min(width, end - first)
                if run == 1:
                    hashed_panel(values, key, signed, n_out, left, n_deep, first, words, signs, panel)
                else:
                    run_panel(values, run, key, signed, n_out, left, n_deep, first, starts, run_signs, panel)
                for top in range(upper, lower, ROWS):
                    source, at, target, to, column, fresh = rows, top, out, top, first, anew
                    if top >= whole:
                        source, at = last, start
                    rim = top >= whole or size < width
                    if rim:
                        target, to, column, fresh = sums, start, start, True
                    tile_rows(source, at, left, n_deep, panel, target, to, column, fresh)
                    if rim:
                        for r in range(min(ROWS, n - top)):
                            for j in range(size):
                                out[top + r, first + j] = sums[r, j] if anew else out[top + r, first + j] + sums[r, j]


@kernel
def hashed_rows(rows, values, seed, signed, run, begin, end, out):
    """Some columns of very few rows times a matrix of hashed runs: no panel is made.

    Parameters
    ----------
    rows : (n, n_in) array
    values : (n_values,) array
    seed : int
    signed : bool
    run : int
        A multiple of `PIECE`.
    begin, end : int
        Columns; `begin` is a multiple of `PIECE`.
    out : (n, n_out) array, out
    """
    (n, n_in), n_out = rows.shape, out.shape[1]
    key, one = hash_key(seed), np.uint32(PIECE)
    starts, factors = np.empty((PIECES, _DEPTH), np.uint32), np.empty((PIECES, _DEPTH), rows.dtype)
    sums = np.empty(PIECES * PIECE, rows.dtype)
    for first in range(begin, end, PIECES * PIECE):
        size = min(PIECES * PIECE, end - first)
        for r in range(n):
            row = rows[r]
            sums[:] = 0
            for left in range(0, n_in, _DEPTH):
                n_deep = min(_DEPTH, n_in - left)
                for number in range(PIECES):
                    column, some, factor = first + number * PIECE, starts[number], factors[number]
                    if number == 0 or column % run == 0:
                        draw_runs(len(values), run, key, signed, n_out, left, n_deep, column, some, factor)
                        for i in range(n_deep):
                            factor[i] *= row[left + i]
                    else:
                        before, same = starts[number - 1], factors[number - 1]
                        for i in range(n_deep):
                            some[i], factor[i] = np.uint32(before[i] + one), same[i]
                run_sums(values, starts, factors, n_deep, sums)
            for j in range(size):
                out[r, first + j] = sums[j]


@kernel
def kept_product(rows, values, bits, done, begin, end, turned, out):
    """Some columns of rows times a matrix of which few entries are kept.

    Parameters
    ----------
    rows : (n, n_in) array
    values : (nnz,) array, column after column of the matrix
    bits : (n_out, ceil(n_in / 64)) uint64 array: which entries of a column are kept, the lowest bit first
    done : int
        The first value of column `begin`.
    begin, end : int
        Columns.
    turned : (n_in, one vector or PARTS) array, scratch: rows as columns
    out : (n, n_out) array, out
    """
    (n, n_in), width = rows.shape, turned.shape[1]
    n_words = bits.shape[1]
    one, narrow = np.uint64(1), width * rows.itemsize == 64
    places, sums = np.empty(n_in, np.int32), np.empty((_TURN, width), rows.dtype)
    for top in range(0, n, width):
        size, here = min(width, n - top), done
        if size < width:
            turned[:] = 0
        for left in range(0, n_in, _TURN):  # a cache line of every row at a time
            right = min(left + _TURN, n_in)
            for t in range(size):
                for i in range(left, right):
                    turned[i, t] = rows[top + t, i]
        for left in range(begin, end, _TURN):
            right = min(left + _TURN, end)
            for j in range(left, right):
                n_kept = 0
                for b in range(n_words):
                    word = bits[j, b]
                    while word:
                        places[n_kept] = 64 * b + lowest_bit(word)
                        n_kept += 1
                        word &= word - one
                if narrow:
                    gathered_row(turned, places, n_kept, values, here, sums[j - left])
                else:
                    gathered_rows(turned, places, n_kept, values, here, sums[j - left])
                here += n_kept
            for t in range(size):
                for j in range(left, right):
                    out[top + t, j] = sums[j - left, t]


@kernel
def kept_rows(rows, values, bits, done, begin, end, out):
    """The same for very few rows: values are unpacked in registers.

    Parameters
    ----------
    rows : (n, n_in) array
    values, bits, done, begin, end, out : as for `kept_product`
    """
    n, n_in = rows.shape
    row = np.zeros(64 * bits.shape[1], rows.dtype)
    for r in range(n):
        for i in range(n_in):
            row[i] = rows[r, i]
        here = done
        for j in range(begin, end):
            here = kept_sum(row, bits, j, values, here, out[r], j)
