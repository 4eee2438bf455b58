"""Passes over all atoms in explicit 64-byte vectors, because no compiler turns a loop with an argmax into vector code.

`sweep` refreshes every correlation and finds the largest in one pass: the sums of a block of atoms stay in registers
while the rows of the Gram matrix go by. `orthogonal_sweep` does the same for the order-recursive pursuits. Both keep,
beside the largest score of all, the largest of each of 16 lanes (atoms k, k+16, k+32, ...): a ready list of further
candidates.

All arrays are C-contiguous, of one float type, with a length that is a multiple of `PADDING`.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

PADDING = 64  # atoms: a block of four vectors of float32, two blocks of float64
SLOTS = 16  # lane maxima reported by a sweep
_PARTS = 4  # vectors a block: enough independent sums to hide the latency of a multiply-add

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class _Pass:
    """Vector instructions for one float type, written into an open Numba function."""

    def __init__(self, context, builder, float_type):
        self.context, self.builder = context, builder
        single = float_type == types.float32
        self.lanes = 16 if single else 8
        self.real, self.word = (ir.FloatType(), _I32) if single else (ir.DoubleType(), _I64)
        self.bytes = 4 if single else 8
        self.vector, self.words = ir.VectorType(self.real, self.lanes), ir.VectorType(self.word, self.lanes)
        self.groups = SLOTS // self.lanes
        self.suffix = f"v{self.lanes}f{self.bytes * 8}"

    def array(self, kind, value):
        return self.context.make_array(kind)(self.context, self.builder, value)

    def call(self, name, *operands):
        kinds = [x.type for x in operands]
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(kinds[0], kinds), f"llvm.{name}.{self.suffix}"
        )
        return self.builder.call(function, operands)

    def load(self, data, offset):
        pointer = self.builder.bitcast(self.builder.gep(data, [offset]), self.vector.as_pointer())
        value = self.builder.load(pointer)
        value.align = self.bytes
        return value

    def store(self, value, data, offset):
        pointer = self.builder.bitcast(self.builder.gep(data, [offset]), value.type.as_pointer())
        self.builder.store(value, pointer).align = self.bytes if value.type == self.vector else 4

    def splat(self, scalar):
        kind = ir.VectorType(scalar.type, self.lanes)
        none = ir.Constant(kind, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        first = self.builder.insert_element(none, scalar, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(first, none, zeros)

    def constant(self, number):
        return ir.Constant(self.vector, [number] * self.lanes)

    def size(self, number):
        return ir.Constant(_I64, number)

    def magnitude(self, value, positive):
        """|value|, or value itself where codes are to be non-negative."""
        return self.builder.select(positive, value, self.call("fabs", value))

    def largest(self):
        """Registers for the largest score of each lane and its atom, a set for each vector of a block.

        With one set the comparisons would wait for each other: a chain as long as the pass.
        """
        none = self.constant(-1.0)
        return [
            (
                cgutils.alloca_once_value(self.builder, none),
                cgutils.alloca_once_value(self.builder, ir.Constant(self.words, [0] * self.lanes)),
            )
            for _ in range(_PARTS)
        ]

    def atoms(self, start):
        """The numbers of the atoms in the vector that starts at `start`."""
        low = self.builder.trunc(start, self.word) if self.word != _I64 else start
        return self.builder.add(self.splat(low), ir.Constant(self.words, list(range(self.lanes))))

    def fold(self, value, atom):
        """The largest of a vector and its atom; the smaller atom wins a tie."""
        builder, width = self.builder, self.lanes
        while width > 1:
            half = width // 2
            low, high = (ir.Constant(ir.VectorType(_I32, half), list(r)) for r in (range(half), range(half, width)))
            none_v, none_a = ir.Constant(value.type, ir.Undefined), ir.Constant(atom.type, ir.Undefined)
            v0, v1 = builder.shuffle_vector(value, none_v, low), builder.shuffle_vector(value, none_v, high)
            a0, a1 = builder.shuffle_vector(atom, none_a, low), builder.shuffle_vector(atom, none_a, high)
            second = self.better(v1, a1, v0, a0)
            value, atom = builder.select(second, v1, v0), builder.select(second, a1, a0)
            width = half
        zero = ir.Constant(_I32, 0)
        return builder.extract_element(value, zero), builder.extract_element(atom, zero)

    def better(self, value, atom, than, than_atom):
        builder = self.builder
        tie = builder.and_(builder.fcmp_ordered("==", value, than), builder.icmp_signed("<", atom, than_atom))
        return builder.or_(builder.fcmp_ordered(">", value, than), tie)

    def larger(self, value, atom, than, than_atom):
        """The larger of two vectors of scores, lane by lane, with its atoms; the other may be None."""
        if than is None:
            return value, atom
        first = self.better(value, atom, than, than_atom)
        return self.builder.select(first, value, than), self.builder.select(first, atom, than_atom)

    def report(self, largest, top_value, top_atom):
        """Store the lane maxima and return the atom of the largest of all."""
        builder = self.builder
        best = None
        for group in range(self.groups):
            value, atom = None, None
            for value_at, atom_at in largest[group :: self.groups]:
                value, atom = self.larger(builder.load(value_at), builder.load(atom_at), value, atom)
            offset = self.size(group * self.lanes)
            self.store(value, top_value.data, offset)
            narrow = ir.VectorType(_I32, self.lanes)
            self.store(builder.trunc(atom, narrow) if self.word != _I32 else atom, top_atom.data, offset)
            best = self.larger(value, atom, *(best or (None, None)))
        _, atom = self.fold(*best)
        return builder.sext(atom, _I64) if self.word != _I64 else atom

    def keep(self, largest, part, value, start):
        """Let the scores of one vector enter its lanes' maxima."""
        builder = self.builder
        value_at, atom_at = largest[part]
        old, atoms = builder.load(value_at), builder.load(atom_at)
        larger = builder.fcmp_ordered(">", value, old)
        builder.store(builder.select(larger, value, old), value_at)
        builder.store(builder.select(larger, self.atoms(start), atoms), atom_at)

    def blocks(self, n):
        """Loop over blocks of vectors: yields the offsets of the vectors of one block."""
        return cgutils.for_range(self.builder, self.builder.udiv(n, self.size(self.lanes * _PARTS)))

    def offsets(self, block):
        start = self.builder.mul(block, self.size(self.lanes * _PARTS))
        return [self.builder.add(start, self.size(i * self.lanes)) for i in range(_PARTS)]


@intrinsic
def sweep(typingctx, q, rows, idx, coef, m, scale, positive, g, top_value, top_atom):
    """g = q - sum_{a<m} coef[a] * rows[idx[a]], times `scale` if it is an array; return the atom of the largest score.

    The score is |g|, or g if `positive`. `top_value`, `top_atom` (16,) receive the largest score of each lane and its
    atom. `idx` is int32. With m = 0 it is an argmax of q that also copies q to g.
    """
    weighted = not isinstance(scale, types.NoneType)
    sig = types.intp(q, rows, idx, coef, types.intp, scale, types.boolean, g, top_value, top_atom)

    def codegen(context, builder, sig, args):
        v = _Pass(context, builder, sig.args[0].dtype)
        q_, rows_, idx_, coef_ = (v.array(sig.args[i], args[i]) for i in range(4))
        scale_ = v.array(sig.args[5], args[5]) if weighted else None
        g_, top_value_, top_atom_ = (v.array(sig.args[i], args[i]) for i in (7, 8, 9))
        m, positive = args[4], args[6]
        n = cgutils.unpack_tuple(builder, q_.shape, 1)[0]
        largest = v.largest()
        sums = [cgutils.alloca_once(builder, v.vector) for _ in range(_PARTS)]
        with v.blocks(n) as block:
            offsets = v.offsets(block.index)
            for total, offset in zip(sums, offsets, strict=True):
                builder.store(v.load(q_.data, offset), total)
            with cgutils.for_range(builder, m) as a:
                atom = builder.sext(builder.load(builder.gep(idx_.data, [a.index])), _I64)
                row = builder.mul(atom, n)
                c = v.splat(builder.fneg(builder.load(builder.gep(coef_.data, [a.index]))))
                for total, offset in zip(sums, offsets, strict=True):
                    x = v.load(rows_.data, builder.add(row, offset))
                    builder.store(v.call("fma", c, x, builder.load(total)), total)
            for i, (total, offset) in enumerate(zip(sums, offsets, strict=True)):
                value = builder.load(total)
                if weighted:
                    value = builder.fmul(value, v.load(scale_.data, offset))
                v.store(value, g_.data, offset)
                v.keep(largest, i, v.magnitude(value, positive), offset)
        return v.report(largest, top_value_, top_atom_)

    return sig, codegen


def _sum_over_rows(squares):
    """The intrinsic out = sum_{a<m} x * rows[idx[a]], x being factor[a] or, for squares, factor[0]^2 times that row."""

    def add_rows(typingctx, rows, idx, factor, m, out):
        sig = types.void(rows, idx, factor, types.intp, out)

        def codegen(context, builder, sig, args):
            v = _Pass(context, builder, out.dtype)
            rows_, idx_, factor_ = (v.array(sig.args[i], args[i]) for i in range(3))
            out_ = v.array(sig.args[4], args[4])
            n = cgutils.unpack_tuple(builder, out_.shape, 1)[0]
            sums = [cgutils.alloca_once(builder, v.vector) for _ in range(_PARTS)]
            with v.blocks(n) as block:
                offsets = v.offsets(block.index)
                for total in sums:
                    builder.store(v.constant(0.0), total)
                with cgutils.for_range(builder, args[3]) as a:
                    number = builder.sext(builder.load(builder.gep(idx_.data, [a.index])), _I64)
                    row = builder.mul(number, n)
                    c = v.splat(builder.load(builder.gep(factor_.data, [v.size(0) if squares else a.index])))
                    for total, offset in zip(sums, offsets, strict=True):
                        x = v.load(rows_.data, builder.add(row, offset))
                        x, y = (builder.fmul(c, x),) * 2 if squares else (c, x)
                        builder.store(v.call("fma", x, y, builder.load(total)), total)
                for total, offset in zip(sums, offsets, strict=True):
                    v.store(builder.load(total), out_.data, offset)
            return context.get_dummy_value()

        return sig, codegen

    return intrinsic(add_rows)


# In the same order and rounding: where factor[a] equals an entry of every row, both give that entry the same bits.
weighted_rows = _sum_over_rows(squares=False)
squared_rows = _sum_over_rows(squares=True)


@intrinsic
def orthogonal_sweep(typingctx, row, basis, coef, m, inverse, y, weight, g, top_value, top_atom):
    """One step of orthogonal matching pursuit over all atoms; return the atom with the largest score.

    basis[m] = (row - sum_{a<m} coef[a] * basis[a]) * inverse, the new atom's Gram row made orthogonal to the earlier
    ones; g -= y * basis[m]. The score is |g|, times `weight` if that is an array.
    """
    weighted = not isinstance(weight, types.NoneType)
    real = basis.dtype
    sig = types.intp(row, basis, coef, types.intp, real, real, weight, g, top_value, top_atom)

    def codegen(context, builder, sig, args):
        v, offsets_of, arrays = _orthogonal(context, builder, sig, args)
        g_, top_value_, top_atom_ = (v.array(sig.args[i], args[i]) for i in (7, 8, 9))
        weight_ = v.array(sig.args[6], args[6]) if weighted else None
        largest = v.largest()
        y = v.splat(builder.fneg(args[5]))
        always = ir.Constant(ir.IntType(1), 0)
        with v.blocks(arrays["n"]) as block:
            offsets, new = offsets_of(block.index)
            for i, (p, offset) in enumerate(zip(new, offsets, strict=True)):
                value = v.call("fma", y, p, v.load(g_.data, offset))
                v.store(value, g_.data, offset)
                score = v.magnitude(value, always)
                if weighted:
                    score = builder.fmul(score, v.load(weight_.data, offset))
                v.keep(largest, i, score, offset)
        return v.report(largest, top_value_, top_atom_)

    return sig, codegen


@intrinsic
def least_squares_sweep(typingctx, row, basis, coef, m, inverse, y, least, g, b, top_value, top_atom):
    """One step of orthogonal least squares over all atoms; return the atom that lowers the residual most.

    As `orthogonal_sweep`, and b -= basis[m]**2 keeps the squared norm of every atom off the span of the chosen ones.
    The score is g**2 / b where b > least, and 0 elsewhere: those atoms depend on the chosen ones.
    """
    real = basis.dtype
    sig = types.intp(row, basis, coef, types.intp, real, real, real, g, b, top_value, top_atom)

    def codegen(context, builder, sig, args):
        v, offsets_of, arrays = _orthogonal(context, builder, sig, args)
        g_, b_, top_value_, top_atom_ = (v.array(sig.args[i], args[i]) for i in (7, 8, 9, 10))
        largest = v.largest()
        divisors = [cgutils.alloca_once_value(builder, v.constant(1.0)) for _ in range(_PARTS)]
        y, least = v.splat(builder.fneg(args[5])), v.splat(args[6])
        with v.blocks(arrays["n"]) as block:
            offsets, new = offsets_of(block.index)
            for i, (p, offset) in enumerate(zip(new, offsets, strict=True)):
                value = v.call("fma", y, p, v.load(g_.data, offset))
                norm = v.call("fma", builder.fneg(p), p, v.load(b_.data, offset))
                v.store(value, g_.data, offset)
                v.store(norm, b_.data, offset)
                free = builder.fcmp_ordered(">", norm, least)
                gain = builder.select(free, builder.fmul(value, value), v.constant(0.0))
                norm = builder.select(free, norm, v.constant(1.0))
                # gain / norm compared cross-multiplied: a vector division costs more than the whole rest of the step
                value_at, atom_at = largest[i]
                divisor_at = divisors[i]
                old, divisor = builder.load(value_at), builder.load(divisor_at)
                larger = builder.fcmp_ordered(">", builder.fmul(gain, divisor), builder.fmul(old, norm))
                builder.store(builder.select(larger, gain, old), value_at)
                builder.store(builder.select(larger, norm, divisor), divisor_at)
                builder.store(builder.select(larger, v.atoms(offset), builder.load(atom_at)), atom_at)
        for (value_at, _), divisor_at in zip(largest, divisors, strict=True):
            builder.store(builder.fdiv(builder.load(value_at), builder.load(divisor_at)), value_at)
        return v.report(largest, top_value_, top_atom_)

    return sig, codegen


def _orthogonal(context, builder, sig, args):
    """What the two pursuits share: the new basis row, block by block, stored and handed on in registers."""
    v = _Pass(context, builder, sig.args[1].dtype)
    row_, basis_, coef_ = (v.array(sig.args[i], args[i]) for i in range(3))
    m, inverse = args[3], v.splat(args[4])
    n = cgutils.unpack_tuple(builder, row_.shape, 1)[0]
    sums = [cgutils.alloca_once(builder, v.vector) for _ in range(_PARTS)]
    new_row = builder.mul(m, n)

    def offsets_of(block):
        offsets = v.offsets(block)
        for total, offset in zip(sums, offsets, strict=True):
            builder.store(v.load(row_.data, offset), total)
        with cgutils.for_range(builder, m) as a:
            old_row = builder.mul(a.index, n)
            c = v.splat(builder.fneg(builder.load(builder.gep(coef_.data, [a.index]))))
            for total, offset in zip(sums, offsets, strict=True):
                x = v.load(basis_.data, builder.add(old_row, offset))
                builder.store(v.call("fma", c, x, builder.load(total)), total)
        new = [builder.fmul(builder.load(total), inverse) for total in sums]
        for p, offset in zip(new, offsets, strict=True):
            v.store(p, basis_.data, builder.add(new_row, offset))
        return offsets, new

    return v, offsets_of, {"n": n}


@intrinsic
def lanes_above(typingctx, top_value, threshold):
    """Bits of the slots (16,) whose value is above the threshold."""
    sig = types.int64(top_value, top_value.dtype)

    def codegen(context, builder, sig, args):
        v = _Pass(context, builder, sig.args[0].dtype)
        values = v.array(sig.args[0], args[0])
        limit = v.splat(args[1])
        bits = ir.Constant(_I64, 0)
        for group in range(v.groups):
            above = builder.fcmp_ordered(">", v.load(values.data, v.size(group * v.lanes)), limit)
            mask = builder.zext(builder.bitcast(above, ir.IntType(v.lanes)), _I64)
            bits = builder.or_(bits, builder.shl(mask, v.size(group * v.lanes)))
        return bits

    return sig, codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """The number of the lowest bit that is set; `bits` is not 0."""
    sig = types.int64(types.int64)

    def codegen(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return sig, codegen


def _combination(lower):
    """The intrinsic out = sum_a coef[a] * rows[a] over the rows of one triangle, in vectors of 64 bytes.

    `coef` must be 0 from m up to the next multiple of four, and `rows` finite there. `out` is written up to the next
    full vector after m.
    """

    def combine(typingctx, rows, coef, first, m, out):
        sig = types.void(rows, coef, types.intp, types.intp, out)

        def codegen(context, builder, sig, args):
            v = _Pass(context, builder, sig.args[1].dtype)
            rows_, coef_, out_ = (v.array(sig.args[i], args[i]) for i in (0, 1, 4))
            first, m = args[2], args[3]
            stride = cgutils.unpack_tuple(builder, rows_.shape, 2)[1]
            four = v.size(4)
            sums = [cgutils.alloca_once(builder, v.vector) for _ in range(4)]
            blocks = builder.udiv(builder.add(m, v.size(v.lanes - 1)), v.size(v.lanes))
            with cgutils.for_range(builder, blocks) as block:
                offset = builder.mul(block.index, v.size(v.lanes))
                for total in sums:
                    builder.store(v.constant(0.0), total)
                if lower:  # row a ends at column a: earlier rows do not reach this block
                    later = builder.icmp_signed(">", offset, first)
                    start, stop = builder.select(later, offset, first), m
                else:  # row a starts at column a: later rows are 0 in this block
                    end = builder.add(offset, v.size(v.lanes))
                    start, stop = first, builder.select(builder.icmp_signed("<", end, m), end, m)
                start = builder.mul(builder.udiv(start, four), four)
                with cgutils.for_range_slice(builder, start, stop, four) as (a, _):
                    for i, total in enumerate(sums):
                        row = builder.add(a, v.size(i))
                        c = v.splat(builder.load(builder.gep(coef_.data, [row])))
                        x = v.load(rows_.data, builder.add(builder.mul(row, stride), offset))
                        builder.store(v.call("fma", c, x, builder.load(total)), total)
                low, high = (builder.fadd(builder.load(sums[i]), builder.load(sums[i + 1])) for i in (0, 2))
                v.store(builder.fadd(low, high), out_.data, offset)
            return context.get_dummy_value()

        return sig, codegen

    return intrinsic(combine)


combine_lower = _combination(lower=True)
combine_upper = _combination(lower=False)


@intrinsic
def dot(typingctx, x, y, m):
    """sum_{a<m} x[a] * y[a]; both are 0 from m up to the next full vector."""
    sig = x.dtype(x, y, types.intp)

    def codegen(context, builder, sig, args):
        v = _Pass(context, builder, sig.args[0].dtype)
        x_, y_ = (v.array(sig.args[i], args[i]) for i in range(2))
        total = cgutils.alloca_once_value(builder, v.constant(0.0))
        blocks = builder.udiv(builder.add(args[2], v.size(v.lanes - 1)), v.size(v.lanes))
        with cgutils.for_range(builder, blocks) as block:
            offset = builder.mul(block.index, v.size(v.lanes))
            builder.store(v.call("fma", v.load(x_.data, offset), v.load(y_.data, offset), builder.load(total)), total)
        value, width = builder.load(total), v.lanes
        while width > 1:
            half = width // 2
            none = ir.Constant(value.type, ir.Undefined)
            low, high = (ir.Constant(ir.VectorType(_I32, half), list(r)) for r in (range(half), range(half, width)))
            value = builder.fadd(builder.shuffle_vector(value, none, low), builder.shuffle_vector(value, none, high))
            width = half
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return sig, codegen
