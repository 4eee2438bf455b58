"""Locally greedy coordinate descent for convolutional sparse coding (Moreau, Oudre, Vayatis 2018).

Everything lives in the layout (positions, atoms): an update adds one contiguous row of the atoms' interactions for each
row of positions, and a search runs over the same rows. Atoms have norm 1 here, penalties are divided by their norms, so
that the step of an entry at zero is |correlation| - limit. Such entries are searched by explicit vectors; the few
that are not zero are listed for each segment, and looked at one by one.

Positions always have three axes; those a signal lacks have length 1.
"""

from math import sqrt

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import kernel, part
from .thresholding import soft_threshold
from .vectors import _I32, _Pass

_UNROLL = 4  # vectors at once, to hide the latency of their instructions
_NONE = -1e30  # below all scores
RUN = 512  # entries of a piece of a row whose largest step is kept


def _scores(subtract):
    """The intrinsic max_i (|values[i]| - other[i]) over a run, or max_i |values[i]| / other[i]."""

    def largest(typingctx, values, start, other, other_start, n, positive):
        sig = values.dtype(values, types.intp, other, types.intp, types.intp, types.boolean)

        def codegen(context, builder, sig, args):
            v = _Pass(context, builder, sig.args[0].dtype)
            values_, other_ = v.array(sig.args[0], args[0]), v.array(sig.args[2], args[2])
            start, other_start, n, positive = args[1], args[3], args[4], args[5]
            combine = builder.fsub if subtract else builder.fdiv
            best = [cgutils.alloca_once_value(builder, v.constant(_NONE)) for _ in range(_UNROLL)]

            def look(offset, slot):
                x = v.magnitude(v.load(values_.data, builder.add(start, offset)), positive)
                score = combine(x, v.load(other_.data, builder.add(other_start, offset)))
                old = builder.load(slot)
                builder.store(builder.select(builder.fcmp_ordered(">", score, old), score, old), slot)

            width = v.size(v.lanes * _UNROLL)
            with cgutils.for_range(builder, builder.udiv(n, width)) as block:
                offset = builder.mul(block.index, width)
                for i, slot in enumerate(best):
                    look(builder.add(offset, v.size(i * v.lanes)), slot)
            done = builder.mul(builder.udiv(n, width), width)
            with cgutils.for_range_slice(builder, done, builder.sub(n, v.size(v.lanes - 1)), v.size(v.lanes)) as (o, _):
                look(o, best[0])
            whole = builder.mul(builder.udiv(n, v.size(v.lanes)), v.size(v.lanes))
            single = cgutils.alloca_once_value(builder, ir.Constant(v.real, _NONE))
            with builder.if_then(builder.icmp_signed("<", whole, n)):
                long = builder.icmp_signed(">=", n, v.size(v.lanes))
                with builder.if_else(long) as (last_vector, one_by_one):
                    with last_vector:  # it overlaps the one before, which does no harm here
                        look(builder.sub(n, v.size(v.lanes)), best[1])
                    with one_by_one, cgutils.for_range(builder, n) as i:
                        x = builder.load(builder.gep(values_.data, [builder.add(start, i.index)]))
                        y = builder.load(builder.gep(other_.data, [builder.add(other_start, i.index)]))
                        size = builder.select(builder.fcmp_ordered("<", x, ir.Constant(v.real, 0)), builder.fneg(x), x)
                        score = combine(builder.select(positive, x, size), y)
                        old = builder.load(single)
                        builder.store(builder.select(builder.fcmp_ordered(">", score, old), score, old), single)
            value = builder.load(best[0])
            for slot in best[1:]:
                other = builder.load(slot)
                value = builder.select(builder.fcmp_ordered(">", other, value), other, value)
            width = v.lanes
            while width > 1:
                width //= 2
                none = ir.Constant(value.type, ir.Undefined)
                halves = [ir.Constant(ir.VectorType(_I32, width), list(range(a, a + width))) for a in (0, width)]
                low, high = (builder.shuffle_vector(value, none, half) for half in halves)
                value = builder.select(builder.fcmp_ordered(">", high, low), high, low)
            value = builder.extract_element(value, ir.Constant(_I32, 0))
            rest = builder.load(single)
            return builder.select(builder.fcmp_ordered(">", rest, value), rest, value)

        return sig, codegen

    return intrinsic(largest)


largest_excess = _scores(subtract=True)
largest_ratio = _scores(subtract=False)


@intrinsic
def add_run(typingctx, factor, rows, row_start, n, out, start):
    """out[start + i] += factor * rows[row_start + i] for i < n."""
    sig = types.void(out.dtype, rows, types.intp, types.intp, out, types.intp)

    def codegen(context, builder, sig, args):
        v = _Pass(context, builder, sig.args[4].dtype)
        rows_, out_ = v.array(sig.args[1], args[1]), v.array(sig.args[4], args[4])
        factor, row_start, n, start = args[0], args[2], args[3], args[5]
        c = v.splat(factor)

        def add(offsets):
            sums = []
            for offset in offsets:
                x = v.load(rows_.data, builder.add(row_start, offset))
                sums.append(v.call("fma", c, x, v.load(out_.data, builder.add(start, offset))))
            for offset, total in zip(offsets, sums, strict=True):
                v.store(total, out_.data, builder.add(start, offset))

        width = v.size(v.lanes * _UNROLL)
        with cgutils.for_range(builder, builder.udiv(n, width)) as block:
            offset = builder.mul(block.index, width)
            add([builder.add(offset, v.size(i * v.lanes)) for i in range(_UNROLL)])
        done = builder.mul(builder.udiv(n, width), width)
        with cgutils.for_range_slice(builder, done, builder.sub(n, v.size(v.lanes - 1)), v.size(v.lanes)) as (o, _):
            add([o])
        whole = builder.mul(builder.udiv(n, v.size(v.lanes)), v.size(v.lanes))
        with cgutils.for_range_slice(builder, whole, n, v.size(1)) as (i, _):
            x = builder.load(builder.gep(rows_.data, [builder.add(row_start, i)]))
            at = builder.gep(out_.data, [builder.add(start, i)])
            builder.store(builder.fadd(builder.fmul(factor, x), builder.load(at)), at)
        return context.get_dummy_value()

    return sig, codegen


@kernel
def descend(
    stripes,
    bound,
    left,
    q,
    rows,
    limit,
    varied,
    positive,
    wraps,
    shape,
    support,
    piece,
    members,
    member_starts,
    bounds,
    homes,
    n_segments,
    top,
    first,
    count,
    index,
    value,
    bar,
    updates,
):
    """Step on the entries of some stripes, the largest step of a segment first, until no step exceeds a bound.

    Parameters
    ----------
    stripes : (s,) int64 array, the stripes to work on; no two of them next to each other
    bound : float, steps up to it (entries of atoms of norm 1) are left out
    left : array of length stripes, in and out: steps on entries that are not zero that a stripe may still take. It is
        left early when it may take none, and when a list is full; with none from the start, `top` is filled in only
    q : (P * K,) array, in and out: correlations of the residual, atoms fastest
    rows : (K * W0 * W1 * W2 * K,) array: interactions of an atom with all atoms at all lags, atoms fastest
    limit : array of the penalties: (P * K,) if `varied`, else (piece * K,) with period K
    varied, positive, wraps : bool; whether penalties depend on the position, codes are >= 0, positions are on a circle
    shape, support : (3,) int64 arrays: positions, and length of the atoms, along each axis
    piece : int, positions of a piece of a row whose largest step is kept
    members, member_starts : int64 arrays, the segments of every stripe
    bounds : (S, 6) int64 array, first position of a segment and the one after its last, for each axis
    homes : (P0 + P1 + P2,) int64 array, the number of the segment of a position, axis by axis
    n_segments : (3,) int64 array, segments along each axis
    top : (S,) float64 array, in and out: largest step of a segment, infinite where it is not known
    first : (S + 1,) int64 array, where the list of each segment starts
    count : (S,) int64 array, in and out: non-zeros of each segment
    index, value, bar : lists of the segments: entry of q, value and penalty
    updates : array of length stripes, in and out: steps done
    """
    n_runs = np.int64(0)
    for s in range(bounds.shape[0]):
        n_runs = max(n_runs, _count_pieces(bounds[s], piece))
    best = np.empty(n_runs, q.dtype)
    for i in range(stripes.shape[0]):
        stripe, again = stripes[i], True
        while again:
            again = False
            for m in range(member_starts[stripe], member_starts[stripe + 1]):
                s = members[m]
                if top[s] <= bound:
                    continue
                repeated = _visit(
                    s,
                    bound,
                    left[stripe],
                    q,
                    rows,
                    limit,
                    varied,
                    positive,
                    wraps,
                    shape,
                    support,
                    piece,
                    bounds[s],
                    homes,
                    n_segments,
                    best,
                    top,
                    first,
                    count,
                    index,
                    value,
                    bar,
                    updates[stripe : stripe + 1],
                )
                left[stripe] -= repeated
                full = first[s] + count[s] == first[s + 1]
                again = left[stripe] > 0 and not full
                if full or (left[stripe] <= 0 and repeated > 0):
                    break


@part
def _count_pieces(box, piece):
    """Number of pieces of a segment's rows."""
    return (box[1] - box[0]) * (box[3] - box[2]) * ((box[5] - box[4] + piece - 1) // piece)


@part
def _visit(
    s,
    bound,
    budget,
    q,
    rows,
    limit,
    varied,
    positive,
    wraps,
    shape,
    support,
    piece,
    box,
    homes,
    n_segments,
    best,
    top,
    first,
    count,
    index,
    value,
    bar,
    updates,
):
    """Steps in one segment; returns how many of them were on entries that had been non-zero."""
    n_atoms = _count_atoms(rows, support)
    pieces = (box[5] - box[4] + piece - 1) // piece
    n_runs = _count_pieces(box, piece)
    for r0 in range(box[0], box[1]):
        for r1 in range(box[2], box[3]):
            low, high = box[4], box[5]
            _look(r0, r1, low, high, q, limit, varied, positive, shape, piece, box, pieces, n_atoms, best)
    repeated = 0
    while True:
        run = 0
        for i in range(n_runs):
            if best[i] > best[run]:
                run = i
        largest, entry, place = best[run], -1, -1
        start, end = first[s], first[s] + count[s]
        for a in range(start, end):
            z = value[a]
            step = abs(soft_threshold(q[index[a]] + z, bar[a], positive) - z)
            if step >= largest:
                largest, place = step, a
        if largest <= bound or repeated >= budget or (place < 0 and end == first[s + 1]):
            top[s] = largest
            break
        if place < 0:
            entry = _locate(q, limit, varied, positive, shape, piece, box, n_atoms, pieces, run, largest)
            for a in range(start, end):  # in the list after all, where rounding has made its step a bit smaller
                if index[a] == entry:
                    place = a
        repeated += 1
        if place < 0:
            place = end
            repeated -= 1
            count[s] += 1
            index[place], value[place] = entry, 0
            bar[place] = limit[entry] if varied else limit[entry % n_atoms]
        entry, z = index[place], value[place]
        new = soft_threshold(q[entry] + z, bar[place], positive)
        value[place] = new
        if new == 0:
            count[s] -= 1
            last = first[s] + count[s]
            index[place], value[place], bar[place] = index[last], value[last], bar[last]
        updates[0] += 1
        atom, position = entry % n_atoms, entry // n_atoms
        u2 = position % shape[2]
        u1 = position // shape[2] % shape[1]
        u0 = position // (shape[2] * shape[1])
        _wake(s, u0, u1, u2, wraps, shape, support, homes, n_segments, top)
        _spread(
            z - new, atom, u0, u1, u2, q, rows, limit, varied, positive, wraps, shape, support, piece, box, pieces,
            n_atoms, best,
        )  # fmt: skip
    return repeated


@part
def _count_atoms(rows, support):
    """Number of atoms, from the length of their interactions."""
    lags = (2 * support[0] - 1) * (2 * support[1] - 1) * (2 * support[2] - 1)
    return np.int64(round(sqrt(rows.shape[0] / lags)))


@part
def _look(r0, r1, low, high, q, limit, varied, positive, shape, piece, box, pieces, n_atoms, best):
    """Largest steps from zero in those pieces of a segment's row that have positions from low to high."""
    if r0 < box[0] or r0 >= box[1] or r1 < box[2] or r1 >= box[3]:
        return
    row = (r0 * shape[1] + r1) * shape[2]
    i = ((r0 - box[0]) * (box[3] - box[2]) + r1 - box[2]) * pieces
    for j in range(max(low - box[4], 0) // piece, (min(high, box[5]) - box[4] + piece - 1) // piece):
        begin = box[4] + j * piece
        start, n = (row + begin) * n_atoms, (min(begin + piece, box[5]) - begin) * n_atoms
        best[i + j] = largest_excess(q, start, limit, start if varied else 0, n, positive)


@part
def _locate(q, limit, varied, positive, shape, piece, box, n_atoms, pieces, run, largest):
    """The first entry of a piece of a row that has its largest step."""
    n1 = box[3] - box[2]
    low = box[4] + run % pieces * piece
    high = min(low + piece, box[5])
    r1 = box[2] + run // pieces % n1
    r0 = box[0] + run // (pieces * n1)
    start = ((r0 * shape[1] + r1) * shape[2] + low) * n_atoms
    other = start if varied else 0
    n = (high - low) * n_atoms
    for i in range(n):
        x = q[start + i]
        if (x if positive else abs(x)) - limit[other + i] >= largest:
            return start + i
    return start


@part
def _spread(
    change, atom, u0, u1, u2, q, rows, limit, varied, positive, wraps, shape, support, piece, box, pieces, n_atoms, best
):
    """q += change * interactions of the atom, around its position; its rows are looked at while in the cache."""
    w0, w1, w2 = 2 * support[0] - 1, 2 * support[1] - 1, 2 * support[2] - 1
    for l0 in range(w0):
        r0 = u0 + l0 - support[0] + 1
        if r0 < 0 or r0 >= shape[0]:
            if not wraps:
                continue
            r0 = r0 % shape[0]
        for l1 in range(w1):
            r1 = u1 + l1 - support[1] + 1
            if r1 < 0 or r1 >= shape[1]:
                if not wraps:
                    continue
                r1 = r1 % shape[1]
            source = ((atom * w0 + l0) * w1 + l1) * w2 * n_atoms
            row = (r0 * shape[1] + r1) * shape[2]
            done = 0 if wraps else max(support[2] - 1 - u2, 0)
            while done < w2:
                low = u2 - support[2] + 1 + done
                if not wraps and low >= shape[2]:
                    break
                low = low % shape[2]
                n = min(w2 - done, shape[2] - low)
                add_run(change, rows, source + done * n_atoms, n * n_atoms, q, (row + low) * n_atoms)
                _look(r0, r1, low, low + n, q, limit, varied, positive, shape, piece, box, pieces, n_atoms, best)
                done += n


@part
def _wake(s, u0, u1, u2, wraps, shape, support, homes, n_segments, top):
    """The largest steps of the other segments around a position are no longer known."""
    known = top[s]
    a0, b0 = _reach(u0, shape[0], support[0], n_segments[0], wraps, homes, np.int64(0))
    a1, b1 = _reach(u1, shape[1], support[1], n_segments[1], wraps, homes, shape[0])
    a2, b2 = _reach(u2, shape[2], support[2], n_segments[2], wraps, homes, shape[0] + shape[1])
    for i0 in range(a0, b0):
        for i1 in range(a1, b1):
            for i2 in range(a2, b2):
                row = i0 % n_segments[0] * n_segments[1] + i1 % n_segments[1]
                top[row * n_segments[2] + i2 % n_segments[2]] = np.inf
    top[s] = known


@part
def _reach(u, n, length, n_segments, wraps, homes, offset):
    """First segment within reach of u, and the one after the last; beyond the number of segments they wrap."""
    low, high = u - length + 1, u + length - 1
    if not wraps:
        return homes[offset + max(low, 0)], homes[offset + min(high, n - 1)] + 1
    start, end = low % n, high % n
    first, last = homes[offset + start], homes[offset + end]
    if end < start:
        last += n_segments
    if high - low + 1 >= n or last - first >= n_segments:
        return np.int64(0), n_segments
    return first, last + 1


@kernel
def top_ratio(start, end, q, limit, varied, positive, n_atoms, piece):
    """The largest correlation over its penalty from one position to another; parameters as in `descend`."""
    largest = q.dtype.type(0)
    for low in range(start, end, piece):
        at, n = low * n_atoms, (min(low + piece, end) - low) * n_atoms
        largest = max(largest, largest_ratio(q, at, limit, at if varied else 0, n, positive))
    return largest
