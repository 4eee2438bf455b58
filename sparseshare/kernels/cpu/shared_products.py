"""Weights that share values: hashes of positions, gathered gradients, products that never hold the whole matrix."""

import numpy as np

from .jit import kernel, part

_ROWS = 64  # batch rows at a time: accumulators of 256 bytes, four vector registers of 64
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


@kernel
def hashed_columns(values, seed, signed, n_columns, first, tile):
    """Some columns of a hashed matrix.

    Parameters
    ----------
    values : (n_values,) array
    seed : int
    signed : bool
    n_columns : int, of the matrix
    first : int, the first column wanted
    tile : (n_in, c) array, out
    """
    key, n = mix(np.uint32(np.uint32(seed) + _GOLDEN)), np.uint64(len(values))
    n_in, c = tile.shape
    for i in range(n_in):
        start = np.uint32(i * n_columns + first)
        row = tile[i]
        for j in range(c):
            word = mix(np.uint32(start + np.uint32(j)) ^ key)
            value = values[np.int32((np.uint64(word) * n) >> _HALF)]
            row[j] = -value if signed and (word & _1) else value


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
def pruned_product(rows, values, bits, out):
    """Rows times a matrix of which few entries are kept.

    Parameters
    ----------
    rows : (n, n_in) array
    values : (nnz,) array, column after column of the matrix
    bits : (n_out, ceil(n_in / 8)) uint8 array: which entries of a column are kept, the highest bit first
    out : (n, n_out) array, out
    """
    n, n_in = rows.shape
    n_out, n_bytes = bits.shape
    zero = values.dtype.type(0)
    places = np.empty(n_in + 8, np.int32)
    turned = np.empty((n_in, min(n, _ROWS)), rows.dtype)
    sums = np.empty(_ROWS, rows.dtype)
    for first in range(0, n, _ROWS):
        size = min(_ROWS, n - first)
        for i in range(n_in):
            column = turned[i]
            for t in range(size):
                column[t] = rows[first + t, i]
        done = 0
        for j in range(n_out):
            count = 0
            for b in range(n_bytes):
                byte = bits[j, b]
                if byte:
                    for bit in range(8):  # written always, counted only where the bit is set: no branch
                        places[count] = 8 * b + bit
                        count += (byte >> np.uint8(7 - bit)) & 1
            for t in range(size):
                sums[t] = zero
            k = 0
            while k + 4 <= count:
                w0, w1, w2, w3 = values[done + k], values[done + k + 1], values[done + k + 2], values[done + k + 3]
                x0, x1, x2, x3 = turned[places[k]], turned[places[k + 1]], turned[places[k + 2]], turned[places[k + 3]]
                for t in range(size):
                    sums[t] += w0 * x0[t] + w1 * x1[t] + w2 * x2[t] + w3 * x3[t]
                k += 4
            while k < count:
                w0, x0 = values[done + k], turned[places[k]]
                for t in range(size):
                    sums[t] += w0 * x0[t]
                k += 1
            done += count
            for t in range(size):
                out[first + t, j] = sums[t]
