"""Steps of an unrolled sparse coder: of the codes before, only the non-zeros are kept, and only they are multiplied."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .coordinate import _descend
from .jit import kernel
from .vectors import SLOTS, _Pass, dot, lowest_bit, weighted_rows

_VECTORS = 4  # of a block: enough independent sums to hide the latency of a multiply-add
_I64 = ir.IntType(64)


@intrinsic
def thresholded_block(typingctx, row, factor, weights, idx, coef, m, thresholds, positive, first, out):
    """Codes `first` to `first` + 4 vectors of soft(factor * row + sum_{a<m} coef[a] * weights[idx[a]], thresholds).

    They are written to `out` from 0 on; returned are bits that say which of them are not 0. Sum, threshold and
    comparison stay in registers.
    """
    sig = types.int64(row, row.dtype, weights, idx, coef, types.intp, thresholds, types.boolean, types.intp, out)

    def codegen(context, builder, sig, args):
        v = _Pass(context, builder, sig.args[0].dtype)
        row_, weights_, idx_, coef_ = (v.array(sig.args[i], args[i]) for i in (0, 2, 3, 4))
        thresholds_, out_ = v.array(sig.args[6], args[6]), v.array(sig.args[9], args[9])
        factor, m, positive, first = v.splat(args[1]), args[5], args[7], args[8]
        n = cgutils.unpack_tuple(builder, row_.shape, 1)[0]
        offsets = [builder.add(first, v.size(i * v.lanes)) for i in range(_VECTORS)]
        sums = [
            cgutils.alloca_once_value(builder, builder.fmul(factor, v.load(row_.data, offset))) for offset in offsets
        ]
        with cgutils.for_range(builder, m) as a:
            number = builder.sext(builder.load(builder.gep(idx_.data, [a.index])), _I64)
            start = builder.mul(number, n)
            c = v.splat(builder.load(builder.gep(coef_.data, [a.index])))
            for total, offset in zip(sums, offsets, strict=True):
                x = v.load(weights_.data, builder.add(start, offset))
                builder.store(v.call("fma", c, x, builder.load(total)), total)
        bits, zeros = v.size(0), v.constant(0.0)
        for i, (total, offset) in enumerate(zip(sums, offsets, strict=True)):
            value, high = builder.load(total), v.load(thresholds_.data, offset)
            low = builder.fsub(zeros, high)
            # Less what lies within the thresholds; NaN stays NaN.
            inner = builder.select(builder.fcmp_ordered("<", value, high), value, high)
            above = builder.select(builder.fcmp_ordered(">", inner, low), inner, low)
            code = builder.fsub(value, builder.select(positive, inner, above))
            v.store(code, out_.data, v.size(i * v.lanes))
            some = builder.bitcast(builder.fcmp_unordered("!=", code, zeros), ir.IntType(v.lanes))
            bits = builder.or_(bits, builder.shl(builder.zext(some, _I64), v.size(i * v.lanes)))
        return bits

    return sig, codegen


@kernel
def unrolled_step(inputs, factor, weights, thresholds, positive, indices, values, counts):
    """codes = soft(factor * inputs + codes @ weights, thresholds) for every row of a tile.

    Parameters
    ----------
    inputs : (T, K) array, the signals times the input weights; K is a multiple of `vectors.PADDING`
    factor : float of inputs' dtype
    weights : (K, K) array, what the codes before are multiplied by; zeros pad it
    thresholds : (K,) array, at least 0
    positive : bool, codes >= 0
    indices, values, counts : (T, K) int32, (T, K), (T,) int32; in: the codes before (count 0: zeros), out: the codes,
        non-zeros only, in the order of the atoms; or wider, for more terms of the codes before
    """
    n_atoms = inputs.shape[1]
    width = _VECTORS * (64 // inputs.itemsize)
    block = np.empty(width, inputs.dtype)
    new_idx, new_coef = np.empty(n_atoms, np.int32), np.empty(n_atoms, inputs.dtype)
    for i in range(inputs.shape[0]):
        row, idx, coef = inputs[i], indices[i], values[i]
        n_before, n = counts[i], 0
        for first in range(0, n_atoms, width):
            bits = thresholded_block(row, factor, weights, idx, coef, n_before, thresholds, positive, first, block)
            while bits:
                k = lowest_bit(bits)
                new_idx[n], new_coef[n] = first + k, block[k]
                n += 1
                bits &= bits - 1
        for a in range(n):
            idx[a], coef[a] = new_idx[a], new_coef[a]
        counts[i] = n


@kernel
def residual_rows(signals, atoms, indices, values, counts, out):
    """What codes, given by their non-zeros, leave of signals.

    Parameters
    ----------
    signals : (T, n) array
    atoms : (K, n + padding) array: zeros make its columns a multiple of `vectors.PADDING`
    indices, values, counts : (T, K) int32, (T, K), (T,) int32, the codes
    out : (T, n) array, out: signals - codes @ atoms
    """
    total = np.empty(atoms.shape[1], signals.dtype)
    for i in range(signals.shape[0]):
        row, left = signals[i], out[i]
        weighted_rows(atoms, indices[i], values[i], counts[i], total)
        for k in range(row.shape[0]):
            left[k] = row[k] - total[k]


@kernel
def add_codes(inputs, indices, values, counts):
    """Add codes, given by their non-zeros, to rows (T, K), and forget them: their counts become 0."""
    for i in range(inputs.shape[0]):
        row, idx, coef = inputs[i], indices[i], values[i]
        for a in range(counts[i]):
            row[idx[a]] += coef[a]
        counts[i] = 0


@kernel
def extrapolate_rows(indices, values, counts, old_indices, old_values, old_counts, momentum):
    """Codes become codes + momentum * (codes - old codes), and the old ones what the codes were.

    The terms are not merged: an atom that both have is there twice, which products do not mind.

    Parameters
    ----------
    indices, values, counts : (T, 2 K) int32, (T, 2 K), (T,) int32, codes by their non-zeros
    old_indices, old_values, old_counts : (T, K) int32, (T, K), (T,) int32, the codes before
    momentum : float of values' dtype
    """
    for i in range(counts.shape[0]):
        idx, coef, old_idx, old_coef = indices[i], values[i], old_indices[i], old_values[i]
        m, old_m = counts[i], old_counts[i]
        for a in range(old_m):
            idx[m + a], coef[m + a] = old_idx[a], -momentum * old_coef[a]
        for a in range(m):
            old_idx[a], old_coef[a] = idx[a], coef[a]
            coef[a] += momentum * coef[a]
        counts[i], old_counts[i] = m + old_m, m


@kernel
def descend_rows(signals, atoms, gram, penalty, quiet, n_sweeps, positive, indices, values, counts):
    """Lower 0.5 |x - w D|^2 + penalty |w|_1 by coordinate descent over the atoms that codes w have, and no others.

    Parameters
    ----------
    signals : (T, n) array
    atoms : (K, n + padding) array: zeros make its columns a multiple of `vectors.PADDING`
    gram : (K, K) array, D D'
    penalty, quiet : float of signals' dtype; a signal is done after a sweep that changes no correlation by more
    n_sweeps : int, at most
    positive : bool, codes >= 0
    indices, values, counts : (T, K) int32, (T, K), (T,) int32, the codes
    """
    n_atoms, n_features = gram.shape[0], signals.shape[1]
    compact = np.empty((n_atoms, n_atoms + SLOTS), gram.dtype)
    w, inner = np.zeros(n_atoms + SLOTS, gram.dtype), np.zeros(n_atoms + SLOTS, gram.dtype)
    scale, inverse = np.zeros(n_atoms, gram.dtype), np.zeros(n_atoms, gram.dtype)
    idx = np.zeros(n_atoms + SLOTS, np.int32)
    left, total = np.zeros(atoms.shape[1], gram.dtype), np.empty(atoms.shape[1], gram.dtype)
    for i in range(counts.shape[0]):
        row = signals[i]
        weighted_rows(atoms, indices[i], values[i], counts[i], total)
        for k in range(n_features):
            left[k] = row[k] - total[k]
        m = 0
        for a in range(counts[i]):
            j = indices[i, a]
            if gram[j, j] > 0:
                idx[m], w[m], inner[m] = j, values[i, a], dot(atoms[j], left, n_features)
                scale[m], inverse[m] = gram[j, j], 1 / gram[j, j]
                m += 1
        width = (m + SLOTS - 1) // SLOTS * SLOTS  # steps run over full vectors
        for b in range(m, width):
            inner[b] = 0
        for a in range(m):
            from_row, to_row = gram[idx[a]], compact[a]
            for b in range(width):
                to_row[b] = from_row[idx[b]]
        _descend(m, penalty, positive, quiet, n_sweeps, w, inner, scale, inverse, compact)
        n = 0
        for a in range(m):
            if w[a] != 0:
                indices[i, n], values[i, n] = idx[a], w[a]
                n += 1
        counts[i] = n


@kernel
def spread_rows(indices, values, counts, out):
    """Non-zeros into rows (T, n_components) of zeros."""
    for i in range(out.shape[0]):
        row, idx, coef = out[i], indices[i], values[i]
        for a in range(counts[i]):
            row[idx[a]] = coef[a]


@kernel
def pack_rows(indices, values, counts, out_indices, out_values):
    """Non-zeros of the rows one after the other, (sum of counts,) each."""
    entry = 0
    for i in range(counts.shape[0]):
        idx, coef = indices[i], values[i]
        for a in range(counts[i]):
            out_indices[entry], out_values[entry] = idx[a], coef[a]
            entry += 1
