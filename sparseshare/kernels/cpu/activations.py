"""Thresholds on the outputs of units, with the bias added, the non-zeros counted, and the gradient back.

NaN comes out as NaN: a network that has diverged must be seen to have.
"""

import numpy as np

from .jit import kernel, part
from .thresholding import soft_threshold

LINEAR, SOFT, SOFT_NONNEGATIVE, HARD = 0, 1, 2, 3


@kernel
def activate(z, bias, thresholds, mode):
    """Add the bias and threshold, in place.

    Parameters
    ----------
    z : (N, K) array, in: products with the weights, out: activations
    bias, thresholds : (K,) arrays of z's dtype, thresholds >= 0
    mode : int, LINEAR, SOFT, SOFT_NONNEGATIVE (with thresholds of 0: ReLU) or HARD

    Returns
    -------
    int
        Number of non-zero activations.
    """
    n_units = z.shape[1]
    zero, count = z.dtype.type(0), 0
    for i in range(z.shape[0]):
        row, some = z[i], 0
        if mode == LINEAR:
            for k in range(n_units):
                row[k] += bias[k]
        elif mode == HARD:
            for k in range(n_units):
                v = row[k] + bias[k]
                row[k] = zero if abs(v) < thresholds[k] else v
        elif mode == SOFT:
            for k in range(n_units):
                row[k] = soft_threshold(row[k] + bias[k], thresholds[k], False)
        else:
            for k in range(n_units):
                row[k] = soft_threshold(row[k] + bias[k], thresholds[k], True)
        for k in range(n_units):
            some += row[k] != 0
        count += some
    return count


@kernel
def activation_gradient(da, a, thresholds, mode, dz, sums, threshold_sums):
    """Gradient by what `activate` was given, from that by what it returned.

    Parameters
    ----------
    da, a : (N, K) arrays, the gradient by the activations, and the activations
    thresholds, mode : as in `activate`
    dz : (N, K) array, out; may be `da`
    sums : (K,) array, in and out: dz is added up, the gradient by the bias
    threshold_sums : (K,) array, in and out, the gradient by soft thresholds; of length 0 if it is not wanted
    """
    n_units = a.shape[1]
    zero, one = a.dtype.type(0), a.dtype.type(1)
    # A threshold of 0 is no threshold: an activation that happens to be 0 lets its gradient pass.
    signed = mode == SOFT or mode == HARD
    for i in range(a.shape[0]):
        row, gradient, out = a[i], da[i], dz[i]
        if threshold_sums.shape[0] > 0:
            for k in range(n_units):
                slope = gradient[k] if row[k] > 0 else -gradient[k]
                threshold_sums[k] -= slope * (one if row[k] != 0 else zero)
        if mode == LINEAR:
            for k in range(n_units):
                out[k] = gradient[k]
                sums[k] += gradient[k]
        else:
            for k in range(n_units):
                passes = (row[k] != 0) | (signed & (thresholds[k] == 0))
                g = gradient[k] if passes else zero
                out[k] = g
                sums[k] += g


@kernel
def keep_largest(z, count):
    """Keep the `count` largest magnitudes of every row, earlier ones first on a tie, and set the others to 0.

    Parameters
    ----------
    z : (N, K) array, in and out
    count : int, 1 to K

    Returns
    -------
    int
        Number of non-zero activations.
    """
    n_units = z.shape[1]
    zero, total = z.dtype.type(0), 0
    sizes = np.empty(n_units, z.dtype)
    for i in range(z.shape[0]):
        row = z[i]
        for k in range(n_units):
            sizes[k] = abs(row[k])
        least = _order(sizes, n_units - count)
        larger = 0
        for k in range(n_units):
            larger += abs(row[k]) > least
        ties = count - larger
        for k in range(n_units):
            size = abs(row[k])
            if size < least:
                row[k] = zero
            elif size == least:
                if ties <= 0:
                    row[k] = zero
                ties -= 1
            total += row[k] != 0
    return total


@part
def _order(values, n):
    """The value that n others come before, for n from 0; `values` are rearranged.

    Hoare's selection (1961); np.partition takes Numba twelve seconds to compile, and twice as long to run.
    """
    low, high = np.int64(0), values.shape[0] - 1
    while low < high:
        pivot, i, j = values[(low + high) // 2], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if n <= j:
            high = j
        elif n >= i:
            low = i
        else:
            break
    return values[n]
