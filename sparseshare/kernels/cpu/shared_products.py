"""Weights that share values: hashes of positions, gathered gradients."""

import numpy as np

from .jit import kernel, part

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


@part
def hash_key(seed):
    """What positions are mixed with."""
    return mix(np.uint32(np.uint32(seed) + _GOLDEN))


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
    key, n = hash_key(seed), np.uint64(n_values)
    for p in range(len(index)):
        word = mix(np.uint32(p) ^ key)
        index[p] = np.int32((np.uint64(word) * n) >> _HALF)  # the high bits choose the value, the lowest the sign
        signs[p] = np.int8(1 - 2 * np.int32(word & _1))


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
