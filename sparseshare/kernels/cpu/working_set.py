"""The convolutional lasso on a working set: few coordinates, and the overlaps of their atoms as a sparse Gram matrix.

Cyclic coordinate descent settles which coordinates are in use; steps of Newton's method by conjugate gradients then
make them accurate, where coordinate descent crawls along coherent atoms. A coordinate holds one value, or one a signal
if the l2 norm over the signals is penalised. Everything is in float64: working sets are small.
"""

from math import sqrt

import numpy as np

from .atom_windows import pair_lookup, pair_overlap, touch
from .jit import kernel, part
from .thresholding import soft_threshold

_SWEEPS = 6  # of coordinate descent between two Newton steps
_NEWTON_STEPS = 12  # steps of conjugate gradients for a Newton step: this times the square root of the set's size
_HALVINGS = 8  # of a Newton step that does not descend
_ROOT_STEPS = 60


@kernel
def count_overlaps(corners, cells, cell_starts, n_cells, support, extents, wraps, counts):
    """counts[i] = coordinates other than i whose atoms overlap that of i.

    Parameters
    ----------
    corners : (n, 3) int64 array, the samples that entries 0 of the atoms lie on; sorted by cell
    cells : (n, 4) int64 array, the cell of each: signal, and one index an axis
    cell_starts : (n_signals * n_cells[0] * n_cells[1] * n_cells[2] + 1,) int64 array, first coordinate of each cell
    n_cells : (3,) int64 array; cells are at least as long as atoms
    support, extents : (3,) int64 arrays, sizes of atoms and signals
    wraps : bool
    counts : (n,) int64 array, zeros; in and out
    """
    _visit_pairs(
        corners, cells, cell_starts, n_cells, support, extents, wraps, counts, None, None, None, None, None, None
    )


@kernel
def fill_overlaps(
    corners, cells, cell_starts, n_cells, support, extents, wraps, atoms, atom_of, weight, table, ends, neighbours,
    overlaps,
):  # fmt: skip
    """Write the Gram matrix without its diagonal, row by row; parameters beyond those of `count_overlaps`:

    atoms : (K, C, LA, LB, LC) float64 array
    atom_of : (n,) int64 array
    weight : (J, C, A, B, C) float64 array, squares of the factors of the samples, or None
    table : (K, 2 LA - 1, 2 LB - 1, 2 LC - 1, K) float64 array or None, inner products of atoms that lie wholly on the
        signal: of atom i and atom j `lag` further on at [i, lag + L - 1, j]; not with weights
    ends : (n,) int64 array; in: where each row starts, out: where it ends
    neighbours, overlaps : int32 and (., B) float64 arrays, out
    """
    _visit_pairs(
        corners, cells, cell_starts, n_cells, support, extents, wraps, ends, atoms, atom_of, weight, table,
        neighbours, overlaps,
    )  # fmt: skip


@kernel
def _visit_pairs(
    corners, cells, cell_starts, n_cells, support, extents, wraps, ends, atoms, atom_of, weight, table, neighbours,
    overlaps,
):  # fmt: skip
    shift, first, count = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    for i in range(len(corners)):
        for axis in range(3):
            cell, n = cells[i, axis + 1], n_cells[axis]
            if wraps and n >= 3:
                first[axis], count[axis] = cell + n - 1, 3
            else:
                first[axis] = 0 if wraps else max(cell - 1, 0)
                count[axis] = n if wraps else min(cell + 2, n) - first[axis]
        for a in range(first[0], first[0] + count[0]):
            for b in range(first[1], first[1] + count[1]):
                for c in range(first[2], first[2] + count[2]):
                    cell = (cells[i, 0] * n_cells[0] + a % n_cells[0]) * n_cells[1] + b % n_cells[1]
                    cell = cell * n_cells[2] + c % n_cells[2]
                    for j in range(max(i + 1, cell_starts[cell]), cell_starts[cell + 1]):
                        if touch(corners[i], corners[j], support, extents, wraps):
                            if neighbours is not None:
                                at, back = ends[i], ends[j]
                                neighbours[at], neighbours[back] = j, i
                                one, other = atom_of[i], atom_of[j]
                                for s in range(overlaps.shape[1]):
                                    if weight is not None:
                                        value = pair_overlap(
                                            atoms[one], atoms[other], weight[cells[i, 0] + s], corners[i], corners[j],
                                            shift, extents, wraps,
                                        )  # fmt: skip
                                    elif table is not None:
                                        value = pair_lookup(
                                            table[one], other, corners[i], corners[j], support, extents, wraps
                                        )
                                    else:
                                        value = pair_overlap(
                                            atoms[one], atoms[other], None, corners[i], corners[j], shift, extents,
                                            wraps,
                                        )  # fmt: skip
                                    overlaps[at, s], overlaps[back, s] = value, value
                            ends[i] += 1
                            ends[j] += 1


@kernel
def minimise(
    starts, neighbours, overlaps, curvature, lasso, group, positive, tolerance, max_rounds, correlation, values
):
    """Minimise over the working set 0.5 z'Gz - q'z + sum_i (lasso_i sum_b |z_ib| + group_i |z_i|), in place.

    Parameters
    ----------
    starts, neighbours, overlaps : (n + 1,) int64, (m,) int32, (m, B) float64 arrays, G without its diagonal
    curvature : (n, B) float64 array, the diagonal of G
    lasso, group : (n,) float64 arrays
    positive : bool, z >= 0
    tolerance : float, stop once a sweep changes no correlation of a coordinate with its own residual by more
    max_rounds : int, rounds of sweeps and a Newton step
    correlation : (n, B) float64 array, q - G z; in and out
    values : (n, B) float64 array, z; in and out

    Returns
    -------
    float, the largest such change of the last sweep, and the number of sweeps
    """
    n, width = values.shape
    step, residual, direction = np.empty((n, width)), np.empty((n, width)), np.empty((n, width))
    product, scaled = np.empty((n, width)), np.empty((n, width))
    norms, block = np.empty(n), np.empty(width)
    sweeps, moved = 0, np.inf
    for _ in range(max_rounds):
        for _ in range(_SWEEPS):
            moved = _sweep(starts, neighbours, overlaps, curvature, lasso, group, positive, correlation, values, block)
            sweeps += 1
            if moved <= tolerance:
                return moved, sweeps
        _newton_step(
            starts, neighbours, overlaps, curvature, lasso, group, positive, tolerance, correlation, values, norms,
            step, residual, direction, product, scaled,
        )  # fmt: skip
    return moved, sweeps


@part
def _sweep(starts, neighbours, overlaps, curvature, lasso, group, positive, correlation, values, block):
    """Minimise over every coordinate in turn; returns the largest change of curvature * value."""
    n, width = values.shape
    moved = 0.0
    for i in range(n):
        if width == 1:
            h, old = curvature[i, 0], values[i, 0]
            if h > 0:
                new = soft_threshold(correlation[i, 0] + h * old, lasso[i], positive) / h
                if new != old:
                    change = new - old
                    values[i, 0] = new
                    correlation[i, 0] -= h * change
                    moved = max(moved, abs(h * change))
                    for e in range(starts[i], starts[i + 1]):
                        correlation[neighbours[e], 0] -= overlaps[e, 0] * change
            else:  # no sample of its window counts
                values[i, 0] = 0.0
        else:
            for b in range(width):
                block[b] = soft_threshold(correlation[i, b] + curvature[i, b] * values[i, b], lasso[i], positive)
            _shrink(block, curvature[i], group[i])
            changed = False
            for b in range(width):
                change = block[b] - values[i, b]
                values[i, b], block[b] = block[b], change
                correlation[i, b] -= curvature[i, b] * change
                moved = max(moved, abs(curvature[i, b] * change))
                changed |= change != 0
            if changed:
                for e in range(starts[i], starts[i + 1]):
                    for b in range(width):
                        correlation[neighbours[e], b] -= overlaps[e, b] * block[b]
    return moved


@part
def _shrink(block, curvature, group):
    """block = argmin over v of sum_b (0.5 h_b v_b^2 - block_b v_b) + group |v|: v_b = block_b / (h_b + group / |v|).

    |v| = t is where the sum of (block_b / (h_b t + group))^2 is 1. It falls as t grows; Newton's method on the
    reciprocal of its root, which is concave, comes from below and cannot overshoot.
    """
    norm2, lowest, highest = 0.0, np.inf, 0.0
    for b in range(block.shape[0]):
        norm2 += block[b] * block[b]
        if block[b] != 0:
            lowest, highest = min(lowest, curvature[b]), max(highest, curvature[b])
    length = sqrt(norm2)
    if length <= group or not highest > 0:
        for b in range(block.shape[0]):
            block[b] = 0.0
        return
    t = (length - group) / highest
    if lowest < highest and group > 0:
        for _ in range(_ROOT_STEPS):
            total, slope = 0.0, 0.0
            for b in range(block.shape[0]):
                part_b = block[b] / (curvature[b] * t + group)
                total += part_b * part_b
                slope += part_b * part_b * curvature[b] / (curvature[b] * t + group)
            further = total * (1 - 1 / sqrt(total)) / slope
            t += further
            if not further > 1e-15 * t:
                break
    for b in range(block.shape[0]):
        if block[b] != 0:
            block[b] *= t / (curvature[b] * t + group)


@part
def _multiply(starts, neighbours, overlaps, curvature, only, vector, product):
    """product = G vector, in the rows where `only` is positive (all of them if None)."""
    for i in range(vector.shape[0]):
        if only is None or only[i] > 0:
            for b in range(vector.shape[1]):
                total = curvature[i, b] * vector[i, b]
                for e in range(starts[i], starts[i + 1]):
                    total += overlaps[e, b] * vector[neighbours[e], b]
                product[i, b] = total


@part
def _newton_step(
    starts, neighbours, overlaps, curvature, lasso, group, positive, tolerance, correlation, values, norms,
    step, residual, direction, product, scaled,
):  # fmt: skip
    """One step on the coordinates in use, with their signs; those that would change sign are set to zero."""
    n, width = values.shape
    in_use = 0
    for i in range(n):
        norm2 = 0.0
        for b in range(width):
            norm2 += values[i, b] * values[i, b]
            step[i, b], residual[i, b], direction[i, b] = 0.0, 0.0, 0.0
        norms[i] = sqrt(norm2)
        in_use += norms[i] > 0
        if norms[i] > 0:
            for b in range(width):
                v = values[i, b]
                if v != 0 or not (lasso[i] > 0 or positive):
                    sign = 1.0 if v > 0 else -1.0
                    residual[i, b] = correlation[i, b] - (lasso[i] * sign if v != 0 else 0.0) - group[i] * v / norms[i]
    energy = _precondition(curvature, lasso, group, positive, values, norms, residual, scaled)
    for i in range(n):
        for b in range(width):
            direction[i, b] = scaled[i, b]
    for _ in range(int(_NEWTON_STEPS * sqrt(in_use)) + _NEWTON_STEPS):
        _multiply(starts, neighbours, overlaps, curvature, norms, direction, product)
        along = 0.0
        for i in range(n):
            if norms[i] > 0:
                if group[i] > 0:
                    inner = 0.0
                    for b in range(width):
                        inner += values[i, b] * direction[i, b]
                    inner /= norms[i] * norms[i]
                    for b in range(width):
                        product[i, b] += group[i] / norms[i] * (direction[i, b] - inner * values[i, b])
                for b in range(width):
                    along += direction[i, b] * product[i, b]
        if not along > 1e-14 * energy:
            break
        length, largest = energy / along, 0.0
        for i in range(n):
            if norms[i] > 0:
                for b in range(width):
                    if values[i, b] != 0 or not (lasso[i] > 0 or positive):
                        step[i, b] += length * direction[i, b]
                        residual[i, b] -= length * product[i, b]
                        largest = max(largest, abs(residual[i, b]))
        if largest <= 0.1 * tolerance:
            break
        old = energy
        energy = _precondition(curvature, lasso, group, positive, values, norms, residual, scaled)
        for i in range(n):
            for b in range(width):
                direction[i, b] = scaled[i, b] + energy / old * direction[i, b]
    _descend(
        starts, neighbours, overlaps, curvature, lasso, group, positive, correlation, values, step, direction, product
    )


@part
def _precondition(curvature, lasso, group, positive, values, norms, residual, scaled):
    """scaled = residual over the diagonal; returns their inner product."""
    energy = 0.0
    for i in range(values.shape[0]):
        for b in range(values.shape[1]):
            scaled[i, b] = 0.0
            if norms[i] > 0 and (values[i, b] != 0 or not (lasso[i] > 0 or positive)):
                diagonal = curvature[i, b] + group[i] / norms[i]
                if diagonal > 0:
                    scaled[i, b] = residual[i, b] / diagonal
                    energy += residual[i, b] * scaled[i, b]
    return energy


@part
def _descend(
    starts, neighbours, overlaps, curvature, lasso, group, positive, correlation, values, step, change, product
):
    """Go along the step as far as the objective falls, halving it where it does not."""
    n, width = values.shape
    share = 1.0
    for _ in range(_HALVINGS):
        for i in range(n):
            for b in range(width):
                old = values[i, b]
                new = old + share * step[i, b]
                if new * old < 0 and (lasso[i] > 0 or positive):
                    new = 0.0
                change[i, b] = new - old
        _multiply(starts, neighbours, overlaps, curvature, None, change, product)
        rise = 0.0
        for i in range(n):
            old2, new2 = 0.0, 0.0
            for b in range(width):
                old, new = values[i, b], values[i, b] + change[i, b]
                rise += change[i, b] * (0.5 * product[i, b] - correlation[i, b]) + lasso[i] * (abs(new) - abs(old))
                old2 += old * old
                new2 += new * new
            if group[i] > 0:
                rise += group[i] * (sqrt(new2) - sqrt(old2))
        if rise < 0:
            for i in range(n):
                for b in range(width):
                    if change[i, b] != 0:
                        values[i, b] += change[i, b]
                    correlation[i, b] -= product[i, b]
            return
        share *= 0.5


@kernel
def best_of_blocks(correlations, thresholds, joint, gains, positive, block, first, floor, places, atoms):
    """The coordinate of every block of positions that promises the largest fall of the objective.

    Parameters
    ----------
    correlations : (B, A, B, C, K) array, D'W^2 r at some positions; zero for coordinates in use
    thresholds : (A or 1, B or 1, C or 1, K) float64 array, alpha times the weights
    joint : float, the part of the threshold that is for the l2 norm over the B signals
    gains : (K,) float64 array, 1 / |d_k|^2
    positive : bool
    block : (3,) int64 array, positions a block
    first : (3,) int64 array, the position in `thresholds` that `correlations` start at
    floor : float, excesses up to this are rounding
    places : (blocks,) int64 array, out: position of the best coordinate, an index into (A, B, C), or -1 for none
    atoms : (blocks,) int64 array, out: its atom

    Returns
    -------
    two floats, the largest excess of a correlation over its threshold, and the largest as a part of the threshold
    """
    width, size_a, size_b, size_c, n_atoms = correlations.shape
    blocks_b, blocks_c = -(-size_b // block[1]), -(-size_c // block[2])
    scores = np.zeros(len(places))
    largest, worst = 0.0, 0.0
    for m in range(len(places)):
        places[m] = -1
    for a in range(size_a):
        for b in range(size_b):
            for c in range(size_c):
                m = ((a // block[0]) * blocks_b + b // block[1]) * blocks_c + c // block[2]
                row = correlations[:, a, b, c]
                limits = thresholds[
                    first[0] + a if thresholds.shape[0] > 1 else 0,
                    first[1] + b if thresholds.shape[1] > 1 else 0,
                    first[2] + c if thresholds.shape[2] > 1 else 0,
                ]
                for k in range(n_atoms):
                    threshold = limits[k]
                    if width == 1:
                        value = float(row[0, k])
                        excess = (value if positive else abs(value)) - threshold
                    else:
                        norm2 = 0.0
                        for s in range(width):
                            v = soft_threshold(float(row[s, k]), (1 - joint) * threshold, positive)
                            norm2 += v * v
                        excess = sqrt(norm2) - joint * threshold
                    if excess > 0:
                        largest, worst = max(largest, excess), max(worst, excess / threshold)
                        score = excess * excess * gains[k]
                        if excess > floor and score > scores[m]:
                            scores[m], atoms[m] = score, k
                            places[m] = (a * size_b + b) * size_c + c
    return largest, worst
