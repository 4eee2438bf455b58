"""Sums of products with weights that are unpacked on the way into vector registers.

`tile_rows` multiplies some rows by a panel of weights, `run_sums` a row by weights that are runs of a table, `kept_sum`
a row by a column of which few entries are kept. All arrays are C-contiguous and of one float type.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .register_sums import I64, ROWS, RegisterCode

PANEL = 2  # vectors across a panel
PIECE = 16  # weights that go through registers together
PIECES = 4  # of them that `run_sums` adds up at a time: sums that do not wait for each other
# Whether `kept_sum` is worth it: without AVX-512 every bit takes a branch.
EXPANDS = bool(binding.get_host_cpu_features().get("avx512f"))
_CHAINS = 4  # sums of `kept_sum`

_I1, _I32 = ir.IntType(1), ir.IntType(32)


def _call(builder, name, result, operands, **options):
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [operand.type for operand in operands]), f"llvm.{name}"
    )
    return builder.call(function, operands, **options)


@intrinsic
def tile_rows(typingctx, rows, first, left, n, panel, out, top, column, begin):
    """out[top : top + ROWS, column : column + width] += rows[first : first + ROWS, left : left + n] @ panel[:n].

    Parameters
    ----------
    rows : (N, K) array, N >= first + ROWS
    first, left, n, top, column : int64
    panel : (at least n, PANEL vectors) array; width is that of its rows
    out : 2-D array with room for the result, in and out
    begin : bool
        Whether to set `out` and not to add to it.
    """

    def codegen(context, builder, signature, arguments):
        kinds = signature.args
        work = RegisterCode(context, builder, kinds[0].dtype)
        x, tile, result = (work.data(kinds[i], arguments[i]) for i in (0, 4, 5))
        n_in, n_out = (
            builder.extract_value(context.make_array(kinds[i])(context, builder, arguments[i]).shape, 1) for i in (0, 5)
        )
        sums = work.zeros(ROWS * PANEL)
        lines, places = [], []
        for row in range(ROWS):
            start = builder.mul(builder.add(arguments[1], work.number(row)), n_in)
            lines.append(builder.gep(x, [builder.add(start, arguments[2])]))
            start = builder.add(builder.mul(builder.add(arguments[6], work.number(row)), n_out), arguments[7])
            for part in range(PANEL):
                places.append(builder.add(start, work.number(part * work.lanes)))
                # What will be added to is on its way while the sums are made.
                pointer = builder.bitcast(builder.gep(result, [places[-1]]), ir.IntType(8).as_pointer())
                options = [ir.Constant(_I32, number) for number in (1, 3, 1)]  # to write, soon, data
                _call(builder, "prefetch.p0", ir.VoidType(), [pointer, *options])
        with cgutils.for_range(builder, arguments[3]) as loop:
            start = builder.mul(loop.index, work.number(PANEL * work.lanes))
            columns = [work.load(tile, builder.add(start, work.number(part * work.lanes))) for part in range(PANEL)]
            for row in range(ROWS):
                entry = work.splat(builder.load(builder.gep(lines[row], [loop.index])))
                for part in range(PANEL):
                    work.add(sums[row * PANEL + part], entry, columns[part])
        totals = [builder.load(each) for each in sums]
        with builder.if_else(arguments[8]) as (anew, on):
            with anew:
                for total, place in zip(totals, places, strict=True):
                    work.store(total, result, place)
            with on:
                for total, place in zip(totals, places, strict=True):
                    work.store(builder.fadd(total, work.load(result, place)), result, place)
        return context.get_dummy_value()

    numbers = [types.int64] * 3
    return types.void(rows, *numbers, panel, out, types.int64, types.int64, types.boolean), codegen


@intrinsic
def run_sums(typingctx, values, starts, factors, n, sums):
    """sums[PIECE * r + l] += sum over i < n of factors[r, i] * values[starts[r, i] + l], for r < PIECES and l < PIECE.

    Parameters
    ----------
    values : 1-D array
    starts : (PIECES, at least n) uint32 array
    factors : array of its shape
    n : int64
    sums : (PIECES * PIECE,) array, in and out
    """

    def codegen(context, builder, signature, arguments):
        kinds = signature.args
        work = RegisterCode(context, builder, kinds[0].dtype)
        table, where, weights, result = (work.data(kinds[i], arguments[i]) for i in (0, 1, 2, 4))
        width = builder.extract_value(context.make_array(kinds[1])(context, builder, arguments[1]).shape, 1)
        parts = PIECE // work.lanes
        sums = work.zeros(PIECES * parts)
        with cgutils.for_range(builder, arguments[3]) as loop:
            for run in range(PIECES):
                place = builder.add(builder.mul(width, work.number(run)), loop.index)
                start = builder.zext(builder.load(builder.gep(where, [place])), I64)
                factor = work.splat(builder.load(builder.gep(weights, [place])))
                for part in range(parts):
                    offset = builder.add(start, work.number(part * work.lanes))
                    work.add(sums[run * parts + part], factor, work.load(table, offset))
        for number in range(PIECES * parts):
            offset = work.number(number * work.lanes)
            work.store(builder.fadd(builder.load(sums[number]), work.load(result, offset)), result, offset)
        return context.get_dummy_value()

    return types.void(values, starts, factors, types.int64, sums), codegen


@intrinsic
def put_runs(typingctx, values, starts, factors, n, panel, column):
    """panel[i, column + l] = factors[i] * values[starts[i] + l] for i < n and l < PIECE.

    Parameters
    ----------
    values : 1-D array
    starts : (at least n,) uint32 array
    factors : (at least n,) array
    n, column : int64
    panel : (at least n, at least column + PIECE) array, out
    """

    def codegen(context, builder, signature, arguments):
        kinds = signature.args
        work = RegisterCode(context, builder, kinds[0].dtype)
        table, where, weights, result = (work.data(kinds[i], arguments[i]) for i in (0, 1, 2, 4))
        width = builder.extract_value(context.make_array(kinds[4])(context, builder, arguments[4]).shape, 1)
        with cgutils.for_range(builder, arguments[3]) as loop:
            start = builder.zext(builder.load(builder.gep(where, [loop.index])), I64)
            factor = work.splat(builder.load(builder.gep(weights, [loop.index])))
            place = builder.add(builder.mul(loop.index, width), arguments[5])
            for part in range(PIECE // work.lanes):
                offset = work.number(part * work.lanes)
                value = builder.fmul(factor, work.load(table, builder.add(start, offset)))
                work.store(value, result, builder.add(place, offset))
        return context.get_dummy_value()

    return types.void(values, starts, factors, types.int64, panel, types.int64), codegen


@intrinsic
def kept_sum(typingctx, x, bits, column, values, first, out, place):
    """out[place] = sum over the kept entries of a column of x[entry] * value; how many there are.

    Parameters
    ----------
    x : (64 * n_words,) array
    bits : (n_columns, n_words) uint64 array: which entries of a column are kept, the lowest bit first
    column : int64
    values : 1-D array
    first : int64
        Of the values of the column.
    out : 1-D array, out
    place : int64

    Returns
    -------
    int64
        The first value of the next column.
    """

    def codegen(context, builder, signature, arguments):
        kinds = signature.args
        work = RegisterCode(context, builder, kinds[0].dtype)
        row, table, result = (work.data(kinds[i], arguments[i]) for i in (0, 3, 5))
        masks = context.make_array(kinds[1])(context, builder, arguments[1])
        n_words = builder.extract_value(masks.shape, 1)
        lanes, groups = work.lanes, 64 // work.lanes
        some, mask_type = ir.IntType(lanes), ir.VectorType(_I1, lanes)
        none = ir.Constant(work.vector, [0.0] * lanes)
        sums, done = work.zeros(_CHAINS), cgutils.alloca_once_value(builder, arguments[4])
        line = builder.gep(masks.data, [builder.mul(arguments[2], n_words)])
        suffix = f"v{lanes}f{8 * work.bytes}"
        with cgutils.for_range(builder, n_words) as loop:
            word = builder.load(builder.gep(line, [loop.index]))
            here = builder.load(done)
            for group in range(groups):
                mask = builder.trunc(builder.lshr(word, work.number(group * lanes)), some)
                place = builder.gep(table, [here])
                unpacked = _call(
                    builder, f"masked.expandload.{suffix}", work.vector, [place, builder.bitcast(mask, mask_type), none]
                )
                offset = builder.add(builder.mul(loop.index, work.number(64)), work.number(group * lanes))
                work.add(sums[group % _CHAINS], unpacked, work.load(row, offset))
                below = (1 << (lanes * (group + 1))) - 1  # counted from the start of the word: no chain of additions
                low = builder.and_(word, work.number(below - (1 << 64) if below >= 1 << 63 else below))
                counted = _call(builder, "ctpop.i64", I64, [low])
                here = builder.add(builder.load(done), counted)
            builder.store(here, done)
        total = builder.load(sums[0])
        for each in sums[1:]:
            total = builder.fadd(total, builder.load(each))
        zero = ir.Constant(work.real, -0.0)
        total = _call(builder, f"vector.reduce.fadd.{suffix}", work.real, [zero, total], fastmath=("reassoc",))
        builder.store(total, builder.gep(result, [arguments[6]]))
        return builder.load(done)

    numbers = types.int64
    return types.int64(x, bits, numbers, values, numbers, out, numbers), codegen
