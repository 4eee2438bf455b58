"""Sums of products that stay in vector registers, where a compiler would keep them in memory.

`gathered_rows` adds up some rows of a matrix, each with its weight. All arrays are C-contiguous and of one float type.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # float32 of a vector; of float64 there are half as many
PARTS = 8  # vectors that `gathered_rows` sums at a time
# Rows that are summed at a time: as many as there are registers for. Without AVX-512 a vector here takes two.
ROWS = 8 if binding.get_host_cpu_features().get("avx512f") else 3

I64 = ir.IntType(64)
FUSED = ("contract",)


class RegisterCode:
    """Writes instructions for vectors of one float type."""

    def __init__(self, context, builder, float_type):
        self.context, self.builder = context, builder
        single = float_type == types.float32
        self.real, self.bytes = (ir.FloatType(), 4) if single else (ir.DoubleType(), 8)
        self.lanes = LANES if single else LANES // 2
        self.vector = ir.VectorType(self.real, self.lanes)

    def data(self, kind, value):
        return self.context.make_array(kind)(self.context, self.builder, value).data

    def zeros(self, n):
        return [cgutils.alloca_once_value(self.builder, ir.Constant(self.vector, [0.0] * self.lanes)) for _ in range(n)]

    def load(self, data, offset):
        pointer = self.builder.bitcast(self.builder.gep(data, [offset]), self.vector.as_pointer())
        value = self.builder.load(pointer)
        value.align = self.bytes
        return value

    def store(self, value, data, offset):
        pointer = self.builder.bitcast(self.builder.gep(data, [offset]), self.vector.as_pointer())
        self.builder.store(value, pointer).align = self.bytes

    def splat(self, scalar):
        none = ir.Constant(self.vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        first = self.builder.insert_element(none, scalar, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, none, zeros)

    def add(self, sums, a, b):
        product = self.builder.fmul(a, b, flags=FUSED)
        self.builder.store(self.builder.fadd(self.builder.load(sums), product, flags=FUSED), sums)

    def number(self, n):
        return ir.Constant(I64, n)


def _gathered_rows(parts):
    """`gathered_rows` for matrices of so many vectors across."""

    @intrinsic
    def gathered_rows(typingctx, matrix, places, n, weights, first, out):
        def codegen(context, builder, signature, arguments):
            kinds = signature.args
            work = RegisterCode(context, builder, kinds[0].dtype)
            rows, where, values, result = (work.data(kinds[i], arguments[i]) for i in (0, 1, 3, 5))
            sums = work.zeros(parts)
            with cgutils.for_range(builder, arguments[2]) as loop:
                row = builder.sext(builder.load(builder.gep(where, [loop.index])), I64)
                start = builder.mul(row, work.number(parts * work.lanes))
                weight = work.splat(builder.load(builder.gep(values, [builder.add(arguments[4], loop.index)])))
                for part in range(parts):
                    offset = builder.add(start, work.number(part * work.lanes))
                    work.add(sums[part], weight, work.load(rows, offset))
            for part in range(parts):
                work.store(builder.load(sums[part]), result, work.number(part * work.lanes))
            return context.get_dummy_value()

        return types.void(matrix, places, types.int64, weights, types.int64, out), codegen

    return gathered_rows


# out = sum over k < n of weights[first + k] * matrix[places[k]], for a matrix one vector across and for one of PARTS;
# places are int32, n and first int64.
gathered_row = _gathered_rows(1)
gathered_rows = _gathered_rows(PARTS)


@intrinsic
def lowest_bit(typingctx, word):
    """Place of the lowest bit of a uint64 that is set."""

    def codegen(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen
