"""Passes along a straight piece of the lasso path, in the explicit vectors of `vectors.py`.

While the penalty falls from c to c', the code moves by (c - c') u and the correlations by -(c - c') a, a = G u. Atom j
meets the falling bound |g_j| = c' at c' = |h_j| / (1 - s a_j), where h = g - c a are the correlations at penalty 0 and
s is the sign of h_j: one quotient an atom, no case of its own for either sign.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import _I64, _PARTS, _Pass


@intrinsic
def segment_sweep(typingctx, rows, idx, u, m, fall, c, bar, positive, g, a):
    """Start the segment at penalty c: g -= fall * a, then a = sum_{k<m} u[k] * rows[idx[k]]; return the next to join.

    `fall` is the length of the segment before. The atom returned has the largest (|h_j| - bar_j) / (1 - s a_j), or with
    h_j in the place of |h_j| and s = 1 if `positive`. `bar` is to be larger than a rounding error of h, and huge for
    atoms that may not join. The caller has to look whether |h_j| > bar_j: without such an atom it is any.
    """
    real = g.dtype
    sig = types.intp(rows, idx, u, types.intp, real, real, bar, types.boolean, g, a)

    def codegen(context, builder, sig, args):
        v = _Pass(context, builder, real)
        rows_, idx_, u_ = (v.array(sig.args[i], args[i]) for i in range(3))
        bar_, g_, a_ = (v.array(sig.args[i], args[i]) for i in (6, 8, 9))
        m = args[3]
        minus_fall, minus_c = (v.splat(builder.fneg(args[i])) for i in (4, 5))
        n = cgutils.unpack_tuple(builder, g_.shape, 1)[0]
        none, one, tiny = v.constant(0.0), v.constant(1.0), v.constant(1e-30)
        top_bit = ir.Constant(v.word, 1 << (v.bytes * 8 - 1))
        sign_bits = v.splat(builder.select(args[7], ir.Constant(v.word, 0), top_bit))  # of h, where it counts
        best = [
            (
                cgutils.alloca_once_value(builder, none),
                cgutils.alloca_once_value(builder, one),
                cgutils.alloca_once_value(builder, ir.Constant(v.words, [0] * v.lanes)),
            )
            for _ in range(_PARTS)
        ]
        sums = [cgutils.alloca_once(builder, v.vector) for _ in range(_PARTS)]
        with v.blocks(n) as block:
            offsets = v.offsets(block.index)
            for total in sums:
                builder.store(none, total)
            with cgutils.for_range(builder, m) as k:
                atom = builder.sext(builder.load(builder.gep(idx_.data, [k.index])), _I64)
                row = builder.mul(atom, n)
                rate = v.splat(builder.load(builder.gep(u_.data, [k.index])))
                for total, offset in zip(sums, offsets, strict=True):
                    x = v.load(rows_.data, builder.add(row, offset))
                    builder.store(v.call("fma", rate, x, builder.load(total)), total)
            number = v.splat(builder.trunc(block.index, v.word) if v.word != _I64 else block.index)
            for total, offset, (size_at, divisor_at, block_at) in zip(sums, offsets, best, strict=True):
                slope = builder.load(total)
                here = v.call("fma", minus_fall, v.load(a_.data, offset), v.load(g_.data, offset))
                v.store(here, g_.data, offset)
                v.store(slope, a_.data, offset)
                h = v.call("fma", minus_c, slope, here)
                sign = builder.and_(builder.bitcast(h, v.words), sign_bits)
                size = builder.bitcast(builder.xor(builder.bitcast(h, v.words), sign), v.vector)
                size = builder.fsub(size, v.load(bar_.data, offset))
                divisor = builder.bitcast(builder.xor(builder.bitcast(slope, v.words), sign), v.vector)
                divisor = builder.fsub(one, divisor)  # above 0 but for atoms that exceed c: those join at once
                divisor = builder.select(builder.fcmp_ordered(">", divisor, tiny), divisor, tiny)
                # quotients compared cross-multiplied: a vector division costs more than the rest
                old_size, old_divisor = builder.load(size_at), builder.load(divisor_at)
                larger = builder.fcmp_ordered(">", builder.fmul(size, old_divisor), builder.fmul(old_size, divisor))
                builder.store(builder.select(larger, size, old_size), size_at)
                builder.store(builder.select(larger, divisor, old_divisor), divisor_at)
                builder.store(builder.select(larger, number, builder.load(block_at)), block_at)
        quotient, atom = None, None
        for part, (size_at, divisor_at, block_at) in enumerate(best):
            value = builder.fdiv(builder.load(size_at), builder.load(divisor_at))
            first = builder.mul(builder.load(block_at), v.splat(ir.Constant(v.word, v.lanes * _PARTS)))
            number = builder.add(first, ir.Constant(v.words, [part * v.lanes + lane for lane in range(v.lanes)]))
            if quotient is not None:
                second = v.better(value, number, quotient, atom)
                value, number = builder.select(second, value, quotient), builder.select(second, number, atom)
            quotient, atom = value, number
        _, atom = v.fold(quotient, atom)
        return builder.sext(atom, _I64) if v.word != _I64 else atom

    return sig, codegen


@intrinsic
def move(typingctx, start, direction, length, m, out):
    """out[k] = start[k] + length * direction[k] for k < m, and on to the end of the last vector."""
    real = out.dtype
    sig = types.void(start, direction, real, types.intp, out)

    def codegen(context, builder, sig, args):
        v = _Pass(context, builder, real)
        start_, direction_, out_ = (v.array(sig.args[i], args[i]) for i in (0, 1, 4))
        length = v.splat(args[2])
        blocks = builder.udiv(builder.add(args[3], v.size(v.lanes - 1)), v.size(v.lanes))
        with cgutils.for_range(builder, blocks) as block:
            offset = builder.mul(block.index, v.size(v.lanes))
            x, d = v.load(start_.data, offset), v.load(direction_.data, offset)
            v.store(v.call("fma", length, d, x), out_.data, offset)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def loses_sign(typingctx, start, direction, length, sign, m):
    """Whether sign[k] * (start[k] + length * direction[k]) < 0 for a k < m; sign is 0 from m on."""
    real = start.dtype
    sig = types.boolean(start, direction, real, sign, types.intp)

    def codegen(context, builder, sig, args):
        v = _Pass(context, builder, real)
        start_, direction_, sign_ = (v.array(sig.args[i], args[i]) for i in (0, 1, 3))
        length, none = v.splat(args[2]), v.constant(0.0)
        bits = ir.IntType(v.lanes)
        found = cgutils.alloca_once_value(builder, ir.Constant(bits, 0))
        blocks = builder.udiv(builder.add(args[4], v.size(v.lanes - 1)), v.size(v.lanes))
        with cgutils.for_range(builder, blocks) as block:
            offset = builder.mul(block.index, v.size(v.lanes))
            x, d = v.load(start_.data, offset), v.load(direction_.data, offset)
            end = builder.fmul(v.call("fma", length, d, x), v.load(sign_.data, offset))
            lost = builder.bitcast(builder.fcmp_ordered("<", end, none), bits)
            builder.store(builder.or_(builder.load(found), lost), found)
        return builder.icmp_unsigned("!=", builder.load(found), ir.Constant(bits, 0))

    return sig, codegen
