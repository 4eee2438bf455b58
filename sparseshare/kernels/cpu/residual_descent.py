"""Coordinate descent on the non-zeros of convolutional codes that keeps up to date nothing but the residual.

A step reads and writes the window of one atom. Rows of atoms are filled up to whole vectors, so that a window is a few
multiply-adds. Layout and lists are those of `locally_greedy.py`.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import kernel, part
from .locally_greedy import add_run
from .thresholding import soft_threshold
from .vectors import _I32, _Pass


@kernel
def add_atoms(index, value, atoms, n_atoms, shape, signal_shape, support, signal):
    """signal += sum of value * atom at its position.

    Parameters
    ----------
    index, value : (n,) arrays: entries of (positions, atoms), atoms fastest
    atoms : (K * C * l,) array
    shape, signal_shape, support : (3,) int64 arrays; atoms that reach beyond the signal's end wrap around
    signal : (C * N,) array, in and out
    """
    taps, samples = support[0] * support[1] * support[2], signal_shape[0] * signal_shape[1] * signal_shape[2]
    n_channels = signal.shape[0] // samples
    for i in range(index.shape[0]):
        atom, position = index[i] % n_atoms, index[i] // n_atoms
        u2 = position % shape[2]
        u1 = position // shape[2] % shape[1]
        u0 = position // (shape[2] * shape[1])
        for c in range(n_channels):
            for l0 in range(support[0]):
                r0 = (u0 + l0) % signal_shape[0]
                for l1 in range(support[1]):
                    r1 = (u1 + l1) % signal_shape[1]
                    source = (atom * n_channels + c) * taps + (l0 * support[1] + l1) * support[2]
                    row = c * samples + (r0 * signal_shape[1] + r1) * signal_shape[2]
                    n = min(support[2], signal_shape[2] - u2)
                    add_run(value[i], atoms, source, n, signal, row + u2)
                    if n < support[2]:
                        add_run(value[i], atoms, source + n, support[2] - n, signal, row)


def _over_window(add):
    """The intrinsic image[window] += factor * taps over rows of whole vectors, or the sum of taps * image[window]."""

    def over_window(typingctx, factor, taps, taps_start, n_rows, n_vectors, image, start, stride):
        index = types.intp
        sig = image.dtype(image.dtype, taps, index, index, index, image, index, index)

        def codegen(context, builder, sig, args):
            v = _Pass(context, builder, sig.args[5].dtype)
            taps_, image_ = v.array(sig.args[1], args[1]), v.array(sig.args[5], args[5])
            c = v.splat(args[0])
            taps_start, n_rows, n_vectors, start, stride = args[2], args[3], args[4], args[6], args[7]
            width = builder.mul(n_vectors, v.size(v.lanes))
            total = cgutils.alloca_once_value(builder, v.constant(0.0))
            with cgutils.for_range(builder, n_rows) as row:
                source = builder.add(taps_start, builder.mul(row.index, width))
                target = builder.add(start, builder.mul(row.index, stride))
                with cgutils.for_range(builder, n_vectors) as vector:
                    offset = builder.mul(vector.index, v.size(v.lanes))
                    x = v.load(taps_.data, builder.add(source, offset))
                    y = v.load(image_.data, builder.add(target, offset))
                    if add:
                        v.store(v.call("fma", c, x, y), image_.data, builder.add(target, offset))
                    else:
                        builder.store(v.call("fma", x, y, builder.load(total)), total)
            value, lanes = builder.load(total), v.lanes
            while lanes > 1:
                lanes //= 2
                none = ir.Constant(value.type, ir.Undefined)
                halves = [ir.Constant(ir.VectorType(_I32, lanes), list(range(a, a + lanes))) for a in (0, lanes)]
                low, high = (builder.shuffle_vector(value, none, half) for half in halves)
                value = builder.fadd(low, high)
            return builder.extract_element(value, ir.Constant(_I32, 0))

        return sig, codegen

    return intrinsic(over_window)


_add_window = _over_window(add=True)
_sum_window = _over_window(add=False)


@kernel
def settle(
    stripes, atoms, width, positive, shape, signal_shape, support, members, member_starts, first, count,
    corner, source, value, bar, residual, moved,
):  # fmt: skip
    """One sweep of coordinate descent over the non-zeros of some stripes; only the residual is kept up to date.

    Parameters
    ----------
    stripes : (s,) int64 array, the stripes to work on; no two of them next to each other
    atoms : (K * C * L0 * L1 * width,) array, atoms of norm 1, rows filled up with 0 to whole vectors
    width : int, a multiple of the numbers in 64 bytes
    positive, shape, support, members, member_starts, first, count, value, bar : as in `descend`
    signal_shape : (3,) int64 array
    corner : list of the segments: the sample s under entry 0 of the atom, or -1 - s where not all `width` samples
        from it on, in every row of the atom, are in the signal
    source : list of the segments: where the atom starts in `atoms`
    residual : (C * N,) array, in and out
    moved : array of length stripes, out: the largest step
    """
    n_channels = residual.shape[0] // (signal_shape[0] * signal_shape[1] * signal_shape[2])
    for i in range(stripes.shape[0]):
        stripe = stripes[i]
        largest = residual.dtype.type(0)
        for m in range(member_starts[stripe], member_starts[stripe + 1]):
            s = members[m]
            for a in range(first[s], first[s] + count[s]):
                z = value[a]
                total = _over_signal(
                    z, corner[a], source[a], True, atoms, width, shape, signal_shape, support, n_channels, residual
                )
                new = soft_threshold(total + z, bar[a], positive)
                if new != z:
                    _over_signal(
                        z - new, corner[a], source[a], False, atoms, width, shape, signal_shape, support, n_channels,
                        residual,
                    )  # fmt: skip
                    largest = max(largest, abs(new - z))
                    value[a] = new
        moved[stripe] = largest


@part
def _over_signal(factor, corner, source, look, atoms, width, shape, signal_shape, support, n_channels, residual):
    """Correlation of the residual with the atom that starts at `source`, or residual += factor * atom."""
    lanes = np.int64(64 // atoms.itemsize)
    plane, area = support[1] * width, signal_shape[1] * signal_shape[2]
    total = residual.dtype.type(0)
    if corner >= 0:
        for c in range(n_channels):
            for l0 in range(support[0]):
                start = corner + (c * signal_shape[0] + l0) * area
                if look:
                    total += _sum_window(
                        factor, atoms, source, support[1], width // lanes, residual, start, signal_shape[2]
                    )
                else:
                    _add_window(factor, atoms, source, support[1], width // lanes, residual, start, signal_shape[2])
                source += plane
        return total
    position = -1 - corner
    u2 = position % signal_shape[2]
    u1 = position // signal_shape[2] % signal_shape[1]
    u0 = position // area
    n = min(support[2], signal_shape[2] - u2)
    for c in range(n_channels):
        for l0 in range(support[0]):
            for l1 in range(support[1]):
                row = c * signal_shape[0] + (u0 + l0) % signal_shape[0]
                row = (row * signal_shape[1] + (u1 + l1) % signal_shape[1]) * signal_shape[2]
                taps = atoms[source + l1 * width : source + l1 * width + support[2]]
                here, there = residual[row + u2 : row + u2 + n], residual[row : row + support[2] - n]
                if look:
                    for e in range(n):
                        total += taps[e] * here[e]
                    for e in range(support[2] - n):
                        total += taps[n + e] * there[e]
                else:
                    for e in range(n):
                        here[e] += factor * taps[e]
                    for e in range(support[2] - n):
                        there[e] += factor * taps[n + e]
            source += plane
    return total
