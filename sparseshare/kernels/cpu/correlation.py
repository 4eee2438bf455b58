"""Correlations of a signal with atoms, directly: products are summed in registers, a vector of atoms by 16 positions.

For atoms of up to some hundred samples this takes less time than Fourier transforms, and no memory beside the result.
"""

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import kernel
from .vectors import _Pass

POSITIONS = 16  # summed together; a signal must go on that much after its end


@intrinsic
def _sum_block(typingctx, signal, base, offsets, atoms, column, n_columns, out, start, stride):
    """out[start + i * stride + lane] = sum_t signal[base + i + offsets[t]] * atoms[t * n_columns + column + lane]."""
    index = types.intp
    sig = types.void(signal, index, offsets, atoms, index, index, out, index, index)

    def codegen(context, builder, sig, args):
        v = _Pass(context, builder, sig.args[0].dtype)
        signal_, offsets_, atoms_, out_ = (v.array(sig.args[i], args[i]) for i in (0, 2, 3, 6))
        base, column, n_columns, start, stride = (args[i] for i in (1, 4, 5, 7, 8))
        n_taps = cgutils.unpack_tuple(builder, offsets_.shape, 1)[0]
        sums = [cgutils.alloca_once_value(builder, v.constant(0.0)) for _ in range(POSITIONS)]
        with cgutils.for_range(builder, n_taps) as tap:
            weights = v.load(atoms_.data, builder.add(builder.mul(tap.index, n_columns), column))
            place = builder.add(base, builder.load(builder.gep(offsets_.data, [tap.index])))
            for i, total in enumerate(sums):
                sample = builder.load(builder.gep(signal_.data, [builder.add(place, v.size(i))]))
                builder.store(v.call("fma", weights, v.splat(sample), builder.load(total)), total)
        for i, total in enumerate(sums):
            offset = builder.add(start, builder.mul(stride, v.size(i)))
            v.store(builder.load(total), out_.data, offset)
        return context.get_dummy_value()

    return sig, codegen


@kernel
def correlate(signal, bases, lengths, offsets, atoms, lanes, n_atoms, starts, out):
    """Correlations at runs of positions.

    Parameters
    ----------
    signal : (N,) array, and POSITIONS samples of anything after those that count
    bases : (R,) int64 array, the sample under entry 0 of an atom at the first position of a run
    lengths : (R,) int64 array, positions of the run
    offsets : (T,) int64 array, where the other entries lie, from entry 0
    atoms : (T * K') array, entries of the atoms, atoms fastest; K' is a multiple of `lanes`, the rest is filled with 0
    lanes : int, numbers in 64 bytes
    n_atoms : int, K
    starts : (R,) int64 array, entry of `out` at which a run starts
    out : array, out: correlations, atoms fastest
    """
    n_columns = atoms.shape[0] // offsets.shape[0]
    scratch = np.empty(POSITIONS * lanes, signal.dtype)
    for r in range(bases.shape[0]):
        for low in range(0, lengths[r], POSITIONS):
            n = min(POSITIONS, lengths[r] - low)
            start = starts[r] + low * n_atoms
            for column in range(0, n_columns, lanes):
                width = min(lanes, n_atoms - column)
                if n == POSITIONS and width == lanes:
                    _sum_block(signal, bases[r] + low, offsets, atoms, column, n_columns, out, start + column, n_atoms)
                else:
                    _sum_block(signal, bases[r] + low, offsets, atoms, column, n_columns, scratch, 0, lanes)
                    for i in range(n):
                        for lane in range(width):
                            out[start + i * n_atoms + column + lane] = scratch[i * lanes + lane]
