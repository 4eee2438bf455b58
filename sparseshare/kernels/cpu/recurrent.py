"""Steps through time: the gates of an LSTM, the slope of tanh, and thresholds of what two products add up to.

Hyperbolic tangents are taken between these by NumPy, which has them in vectors.
"""

import numpy as np

from .jit import kernel
from .thresholding import soft_threshold


@kernel
def lstm_memory(gates, before, memory):
    """Memory of a step: c = f c' + i g.

    Parameters
    ----------
    gates : (N, 4 K) array; in: tanh(z / 2) for the gates i, f and o, tanh(z) for g; out: i, f, g, o
    before : (N, K) array, c'
    memory : (N, K) array, out: c
    """
    n_units = memory.shape[1]
    half = memory.dtype.type(0.5)
    for n in range(memory.shape[0]):
        row, old, new = gates[n], before[n], memory[n]
        i, f, g, o = row[:n_units], row[n_units : 2 * n_units], row[2 * n_units : 3 * n_units], row[3 * n_units :]
        for k in range(n_units):
            # sigmoid(z) = (1 + tanh(z / 2)) / 2, in which nothing overflows
            i[k] = half * i[k] + half
            f[k] = half * f[k] + half
            o[k] = half * o[k] + half
            new[k] = f[k] * old[k] + i[k] * g[k]


@kernel
def lstm_state(gates, shown, seen, first):
    """State of a step, h = o s, written into the columns of what the next step sees.

    Parameters
    ----------
    gates : (N, 4 K) array, i, f, g, o
    shown : (N, K) array, s = tanh(c)
    seen : (N, first + K) array, out: h from the column `first` on
    first : int
    """
    n_units = shown.shape[1]
    for n in range(shown.shape[0]):
        o, s, state = gates[n, 3 * n_units :], shown[n], seen[n, first:]
        for k in range(n_units):
            state[k] = o[k] * s[k]


def lstm_step(gates, before, memory, shown, seen, first):
    """A step of an LSTM from what its gates add up.

    Parameters
    ----------
    gates : (N, 4 K) array; in: z, halved for the gates i, f and o; out: i, f, g, o
    before, memory : as in `lstm_memory`
    shown : (N, K) array, out: s = tanh(c)
    seen, first : as in `lstm_state`
    """
    np.tanh(gates, out=gates)
    lstm_memory(gates, before, memory)
    np.tanh(memory, out=shown)
    lstm_state(gates, shown, seen, first)


@kernel
def lstm_gradient(dh, gates, before, shown, dc, dz):
    """Gradient by what the gates of a step are made of.

    Parameters
    ----------
    dh : (N, K) array, the gradient by the state h = o s
    gates, before : as `lstm_memory` left and took them
    shown : (N, K) array, s = tanh(c)
    dc : (N, K) array, the gradient by the memory; in: from the step after, out: for the step before
    dz : (N, 4 K) array, out: by z
    """
    n_units = dc.shape[1]
    one = dc.dtype.type(1)
    for n in range(dc.shape[0]):
        row, old, s, grad, carried, out = gates[n], before[n], shown[n], dh[n], dc[n], dz[n]
        i, f, g, o = row[:n_units], row[n_units : 2 * n_units], row[2 * n_units : 3 * n_units], row[3 * n_units :]
        di, df, dg = out[:n_units], out[n_units : 2 * n_units], out[2 * n_units : 3 * n_units]
        do = out[3 * n_units :]
        for k in range(n_units):
            total = carried[k] + grad[k] * o[k] * (one - s[k] * s[k])
            do[k] = grad[k] * s[k] * o[k] * (one - o[k])
            di[k] = total * g[k] * i[k] * (one - i[k])
            dg[k] = total * i[k] * (one - g[k] * g[k])
            df[k] = total * old[k] * f[k] * (one - f[k])
            carried[k] = total * f[k]


@kernel
def tanh_gradient(da, a, dz, sums):
    """Gradient by z of a = tanh(z).

    Parameters
    ----------
    da, a : (N, K) arrays
    dz : (N, K) array, out; may be `da`
    sums : (K,) array, in and out: dz is added up, the gradient by the bias
    """
    one = a.dtype.type(1)
    for n in range(a.shape[0]):
        row, grad, out = a[n], da[n], dz[n]
        for k in range(a.shape[1]):
            d = grad[k] * (one - row[k] * row[k])
            out[k] = d
            sums[k] += d


@kernel
def add_and_threshold(z, more, thresholds, positive):
    """Soft threshold of z + more, in place; the number of non-zeros.

    Parameters
    ----------
    z, more : (N, K) arrays, z in and out
    thresholds : (K,) array
    positive : bool
    """
    count, zero = 0, z.dtype.type(0)
    for n in range(z.shape[0]):
        row, other, some = z[n], more[n], 0
        if positive:
            for k in range(z.shape[1]):
                row[k] = soft_threshold(row[k] + other[k], thresholds[k], True)
                some += row[k] != zero
        else:
            for k in range(z.shape[1]):
                row[k] = soft_threshold(row[k] + other[k], thresholds[k], False)
                some += row[k] != zero
        count += some
    return count
