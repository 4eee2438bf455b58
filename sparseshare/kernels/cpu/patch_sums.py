"""Sums over patches of images that stay in vector registers: forward, back, and with the zeros of either left out.

An image is a run of memory; a patch is some lines of it, `step` entries apart, each of them a run of its own. All
arrays are C-contiguous and of one float type; places in them are int64 unless said otherwise.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .register_sums import FUSED, I64, ROWS, RegisterCode

GRADIENT_PARTS = 6  # vectors of a patch whose gradients are summed at a time: a line of 3 pixels of 32 channels
TAPS = 9  # entries of a patch that `tap_gradients` works on at a time: those of a small patch of one channel
_I8 = ir.IntType(8)


class _Masks(RegisterCode):
    """Instructions on vectors of truth values too."""

    def call(self, name, kind, *operands):
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(kind, [operand.type for operand in operands]), name
        )
        return self.builder.call(function, operands)

    def constant(self, number):
        return ir.Constant(self.vector, [number] * self.lanes)

    def count(self, mask):
        word = ir.IntType(self.lanes)
        ones = self.call(f"llvm.ctpop.i{self.lanes}", word, self.builder.bitcast(mask, word))
        return self.builder.zext(ones, I64)

    def pack(self, vector, mask, data, offset):
        """Store the entries of a vector that a mask points out, one after the other."""
        kind = f"f{8 * self.bytes}" if vector.type == self.vector else "i32"
        name = f"llvm.masked.compressstore.v{self.lanes}{kind}"
        self.call(name, ir.VoidType(), vector, self.builder.gep(data, [offset]), mask)


def _width(context, builder, kind, value):
    return builder.extract_value(context.make_array(kind)(context, builder, value).shape, 1)


def _patch_rows(parts):
    """`patch_rows` for so many vectors of filters."""

    @intrinsic
    def patch_rows(typingctx, image, base, starts, first, n_lines, step, run, weights, column, bias, out):
        def codegen(context, builder, signature, arguments):
            kinds = signature.args
            work = RegisterCode(context, builder, kinds[0].dtype)
            x, where, w, b, z = (work.data(kinds[i], arguments[i]) for i in (0, 2, 7, 9, 10))
            base, first, n_lines, step, run, column = (arguments[i] for i in (1, 3, 4, 5, 6, 8))
            width = _width(context, builder, kinds[7], arguments[7])
            rows = [builder.add(first, work.number(row)) for row in range(ROWS)]
            pointers = [builder.gep(x, [builder.add(base, builder.load(builder.gep(where, [row])))]) for row in rows]
            offsets = [builder.add(column, work.number(part * work.lanes)) for part in range(parts)]
            sums = work.zeros(ROWS * parts)
            for number, total in enumerate(sums):
                builder.store(work.load(b, offsets[number % parts]), total)
            with cgutils.for_range(builder, n_lines) as line:
                shift, row_of_weights = builder.mul(line.index, step), builder.mul(line.index, run)
                with cgutils.for_range(builder, run) as loop:
                    place = builder.add(shift, loop.index)
                    start = builder.mul(builder.add(row_of_weights, loop.index), width)
                    columns = [work.load(w, builder.add(start, offset)) for offset in offsets]
                    for row in range(ROWS):
                        entry = work.splat(builder.load(builder.gep(pointers[row], [place])))
                        for part in range(parts):
                            work.add(sums[row * parts + part], entry, columns[part])
            for row in range(ROWS):
                start = builder.mul(rows[row], width)
                for part in range(parts):
                    work.store(builder.load(sums[row * parts + part]), z, builder.add(start, offsets[part]))
            return context.get_dummy_value()

        numbers = [types.int64] * 3
        return types.void(image, types.int64, starts, types.int64, *numbers, weights, types.int64, bias, out), codegen

    return patch_rows


# out[first : first + ROWS, column : column + width] = bias[column : ...] + patches @ weights[:, column : ...], for the
# patches whose first entries lie at image[base + starts[first : first + ROWS]]; width is that of 1 or 2 vectors.
patch_rows_1 = _patch_rows(1)
patch_rows_2 = _patch_rows(2)


def _listed_rows(parts):
    """`listed_rows` for so many vectors across."""

    @intrinsic
    def listed_rows(typingctx, places, values, low, high, shift, weights, column, out, row):
        def codegen(context, builder, signature, arguments):
            kinds = signature.args
            work = RegisterCode(context, builder, kinds[1].dtype)
            where, factors, w, z = (work.data(kinds[i], arguments[i]) for i in (0, 1, 5, 7))
            low, high, shift, column, row = (arguments[i] for i in (2, 3, 4, 6, 8))
            width = _width(context, builder, kinds[5], arguments[5])
            offsets = [builder.add(column, work.number(part * work.lanes)) for part in range(parts)]
            target = [builder.add(builder.mul(row, width), offset) for offset in offsets]
            # Two sums of each: the next product need not wait for the last one.
            sums, others = work.zeros(parts), work.zeros(parts)
            for part in range(parts):
                builder.store(work.load(z, target[part]), sums[part])
            nothing = ir.Constant(work.real, 0.0)
            with cgutils.for_range_slice(builder, low, high, work.number(2)) as (index, _):
                following = builder.add(index, work.number(1))
                inside = builder.icmp_signed("<", following, high)
                for entry, totals in ((index, sums), (builder.select(inside, following, index), others)):
                    value = builder.load(builder.gep(factors, [entry]))
                    if totals is others:
                        value = builder.select(inside, value, nothing)
                    factor = work.splat(value)
                    line = builder.add(builder.sext(builder.load(builder.gep(where, [entry])), I64), shift)
                    start = builder.mul(line, width)
                    for part in range(parts):
                        work.add(totals[part], factor, work.load(w, builder.add(start, offsets[part])))
            for part in range(parts):
                total = builder.fadd(builder.load(sums[part]), builder.load(others[part]))
                work.store(total, z, target[part])
            return context.get_dummy_value()

        numbers = [types.int64] * 3
        return types.void(places, values, *numbers, weights, types.int64, out, types.int64), codegen

    return listed_rows


# out[row, column : column + width] += sum over low <= m < high of values[m] * weights[places[m] + shift, column : ...];
# width is that of 1, 2 or 4 vectors, places are int32.
listed_rows_1 = _listed_rows(1)
listed_rows_2 = _listed_rows(2)
listed_rows_4 = _listed_rows(4)


@intrinsic
def list_nonzeros(typingctx, x, start, n, places, values, m):
    """Append what is not 0 in x[start : start + n], n a number of vectors, to a list that has m entries.

    Parameters
    ----------
    x : 1-D array
    start, n, m : int64
    places : int32 array, out: places of the entries in x, counted from its beginning
    values : array, out

    Returns
    -------
    int64
        Entries of the list now.
    """

    def codegen(context, builder, signature, arguments):
        kinds = signature.args
        work = _Masks(context, builder, kinds[0].dtype)
        source, where, values = (work.data(kinds[i], arguments[i]) for i in (0, 3, 4))
        start, n, m = arguments[1], arguments[2], arguments[5]
        length = cgutils.alloca_once_value(builder, m)
        word = ir.VectorType(ir.IntType(32), work.lanes)
        counting = ir.Constant(word, list(range(work.lanes)))
        none, zeros = ir.Constant(word, ir.Undefined), ir.Constant(word, [0] * work.lanes)
        with cgutils.for_range_slice(builder, start, builder.add(start, n), work.number(work.lanes)) as (index, _):
            vector = work.load(source, index)
            mask = builder.fcmp_unordered("!=", vector, work.constant(0.0))
            first = builder.insert_element(none, builder.trunc(index, ir.IntType(32)), ir.Constant(ir.IntType(32), 0))
            numbers = builder.add(builder.shuffle_vector(first, none, zeros), counting)
            at = builder.load(length)
            work.pack(vector, mask, values, at)
            work.pack(numbers, mask, where, at)
            builder.store(builder.add(at, work.count(mask)), length)
        return builder.load(length)

    return types.int64(x, types.int64, types.int64, places, values, types.int64), codegen


@intrinsic
def pooled_window(typingctx, z, start, line, pixel, kh, kw, limits, column, out, at, place):
    """Threshold a vector of filters over a window, and keep the largest.

    Parameters
    ----------
    z : array of which z[start + y * line + x * pixel + column : ...] are the filters at (y, x) of the window
    kh, kw : int64, size of the window
    limits : (4, F) array: high, taken off, low, taken off. v becomes v - taken off above `high` (or where that or v is
        NaN) and below `low`, 0 between them.
    out : array of which out[at + column : ...] takes the largest values; NaN where there is one
    place : uint8 array, the same of where it was in its window, along the lines; the first of equal ones

    Returns
    -------
    int64
        Thresholded values that are not 0.
    """

    def codegen(context, builder, signature, arguments):
        kinds = signature.args
        work = _Masks(context, builder, kinds[0].dtype)
        source, bounds, target, places = (work.data(kinds[i], arguments[i]) for i in (0, 6, 8, 10))
        start, line, pixel, kh, kw = arguments[1:6]
        column, at = arguments[7], arguments[9]
        width = _width(context, builder, kinds[6], arguments[6])
        high, above, low, below = (
            work.load(bounds, builder.add(builder.mul(work.number(i), width), column)) for i in range(4)
        )
        small = ir.VectorType(_I8, work.lanes)
        best = cgutils.alloca_once_value(builder, work.constant(float("-inf")))
        where = cgutils.alloca_once_value(builder, ir.Constant(small, [0] * work.lanes))
        count = cgutils.alloca_once_value(builder, work.number(0))
        number = cgutils.alloca_once_value(builder, ir.Constant(_I8, 0))
        none = ir.Constant(small, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), work.lanes), [0] * work.lanes)
        start, zero = builder.add(start, column), work.constant(0.0)
        with cgutils.for_range(builder, kh) as y:
            first = builder.add(start, builder.mul(y.index, line))
            with cgutils.for_range(builder, kw) as x:
                v = work.load(source, builder.add(first, builder.mul(x.index, pixel)))
                a = builder.select(builder.fcmp_ordered("<", v, low), builder.fsub(v, below), zero)
                a = builder.select(builder.fcmp_unordered(">", v, high), builder.fsub(v, above), a)
                nonzero = builder.fcmp_unordered("!=", a, zero)
                builder.store(builder.add(builder.load(count), work.count(nonzero)), count)
                larger = builder.fcmp_ordered(">", a, builder.load(best))
                better = builder.or_(larger, builder.fcmp_unordered("uno", a, a))
                builder.store(builder.select(better, a, builder.load(best)), best)
                n = builder.insert_element(none, builder.load(number), ir.Constant(ir.IntType(32), 0))
                n = builder.shuffle_vector(n, none, zeros)
                builder.store(builder.select(better, n, builder.load(where)), where)
                builder.store(builder.add(builder.load(number), ir.Constant(_I8, 1)), number)
        offset = builder.add(at, column)
        work.store(builder.load(best), target, offset)
        pointer = builder.bitcast(builder.gep(places, [offset]), small.as_pointer())
        builder.store(builder.load(where), pointer).align = 1
        return builder.load(count)

    numbers = [types.int64] * 5
    return types.int64(z, *numbers, limits, types.int64, out, types.int64, place), codegen


def _scattered_gradients(parts, by_image):
    """`scattered_gradients` of so many vectors of a patch, with the gradient by the image or without."""

    @intrinsic
    def scattered_gradients(typingctx, image, shift, places, slopes, n, weights, at, image_gradient, weight_gradient):
        def codegen(context, builder, signature, arguments):
            kinds = signature.args
            work = RegisterCode(context, builder, kinds[0].dtype)
            x, where, factors, w, dx, dw = (work.data(kinds[i], arguments[i]) for i in (0, 2, 3, 5, 7, 8))
            shift, n, at = (arguments[i] for i in (1, 4, 6))
            steps = [work.number(part * work.lanes) for part in range(parts)]
            offsets = [builder.add(at, step) for step in steps]
            sums = work.zeros(parts)
            for total, offset in zip(sums, offsets, strict=True):
                builder.store(work.load(dw, offset), total)
            row = [work.load(w, offset) for offset in offsets] if by_image else None
            with cgutils.for_range(builder, n) as loop:
                start = builder.add(builder.load(builder.gep(where, [loop.index])), shift)
                slope = work.splat(builder.load(builder.gep(factors, [loop.index])))
                for part in range(parts):
                    place = builder.add(start, steps[part])
                    work.add(sums[part], slope, work.load(x, place))
                    if by_image:
                        product = builder.fmul(slope, row[part], flags=FUSED)
                        work.store(builder.fadd(work.load(dx, place), product, flags=FUSED), dx, place)
            for total, offset in zip(sums, offsets, strict=True):
                work.store(builder.load(total), dw, offset)
            return context.get_dummy_value()

        return types.void(
            image, types.int64, places, slopes, types.int64, weights, types.int64, image_gradient, weight_gradient
        ), codegen

    return scattered_gradients


# For m < n, with s = slopes[m] and p = places[m] + shift:  weight_gradient[at : at + width] += s * image[p : p + width]
# and image_gradient[p : p + width] += s * weights[at : at + width]; width is that of 1 or GRADIENT_PARTS vectors.
both_gradients = _scattered_gradients(GRADIENT_PARTS, True)
both_gradients_1 = _scattered_gradients(1, True)
weight_gradients = _scattered_gradients(GRADIENT_PARTS, False)
weight_gradients_1 = _scattered_gradients(1, False)


@intrinsic
def tap_gradients(typingctx, image, origins, n, steps, n_steps, taps, slopes, place, at, column, gradient, row):
    """gradient[row + t, column : ...] += sum over windows of slopes * (what tap t of the patch saw), for `TAPS` taps.

    Parameters
    ----------
    image : 1-D array
    origins : (n,) int64 array, where in the image windows begin
    steps : (n_steps,) int64 array, from there to the patches of a window
    taps : int64 array, taps[row + t] from there to the entries of a patch
    slopes, place : 1-D arrays, gradient by the largest of window w, filters at + w * F, and where in the window it was
    gradient : (at least row + TAPS, F) array, in and out
    """

    def codegen(context, builder, signature, arguments):
        kinds = signature.args
        work = RegisterCode(context, builder, kinds[0].dtype)
        x, first, step, tap, factors, places, out = (work.data(kinds[i], arguments[i]) for i in (0, 1, 3, 5, 6, 7, 10))
        n, n_steps, at, column, row = (arguments[i] for i in (2, 4, 8, 9, 11))
        width = _width(context, builder, kinds[10], arguments[10])
        small = ir.VectorType(_I8, work.lanes)
        none, zeros = (
            ir.Constant(small, ir.Undefined),
            ir.Constant(ir.VectorType(ir.IntType(32), work.lanes), [0] * work.lanes),
        )
        rows = [builder.add(row, work.number(t)) for t in range(TAPS)]
        offsets = [builder.load(builder.gep(tap, [r])) for r in rows]
        targets = [builder.add(builder.mul(r, width), column) for r in rows]
        sums = work.zeros(TAPS)
        for total, target in zip(sums, targets, strict=True):
            builder.store(work.load(out, target), total)
        with cgutils.for_range(builder, n) as window:
            start = builder.add(builder.add(at, column), builder.mul(window.index, width))
            slope = work.load(factors, start)
            where = builder.load(builder.bitcast(builder.gep(places, [start]), small.as_pointer()))
            where.align = 1
            origin = builder.load(builder.gep(first, [window.index]))
            with cgutils.for_range(builder, n_steps) as p:
                number = builder.insert_element(none, builder.trunc(p.index, _I8), ir.Constant(ir.IntType(32), 0))
                here = builder.icmp_unsigned("==", where, builder.shuffle_vector(number, none, zeros))
                some = builder.select(here, slope, ir.Constant(work.vector, [0.0] * work.lanes))
                patch = builder.gep(x, [builder.add(origin, builder.load(builder.gep(step, [p.index])))])
                for total, offset in zip(sums, offsets, strict=True):
                    work.add(total, work.splat(builder.load(builder.gep(patch, [offset]))), some)
        for total, target in zip(sums, targets, strict=True):
            work.store(builder.load(total), out, target)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(image, origins, i64, steps, i64, taps, slopes, place, i64, i64, gradient, i64), codegen
