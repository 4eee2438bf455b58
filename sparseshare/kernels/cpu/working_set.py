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
_STEPS = 300  # of conjugate gradients in a Newton step
_FORCING = 0.1, 0.01  # what they leave of the residual: while signs change, and after a step in which none did
_HALVINGS = 8  # of a Newton step that does not descend
_ROOT_STEPS = 60


@kernel
def find_overlaps(
    corners, cells, cell_starts, n_cells, support, extents, wraps, atoms, atom_of, weight, table, ends, neighbours,
    overlaps,
):  # fmt: skip
    """Count the coordinates that each one overlaps, or write the Gram matrix without its diagonal, row by row.

    Parameters
    ----------
    corners : (n, 3) int64 array, the samples that entries 0 of the atoms lie on; sorted by cell
    cells : (n, 4) int64 array, the cell of each: signal, and one index an axis
    cell_starts : (n_signals * n_cells[0] * n_cells[1] * n_cells[2] + 1,) int64 array, first coordinate of each cell
    n_cells : (3,) int64 array; cells are at least as long as atoms
    support, extents : (3,) int64 arrays, sizes of atoms and signals
    wraps : bool
    atoms : (K, C, LA, LB, LC) float64 array
    atom_of : (n,) int64 array
    weight : (J, C, A, B, C) float64 array, squares of the factors of the samples; (0, ...): all 1
    table : (K, 2 LA - 1, 2 LB - 1, 2 LC - 1, K) float64 array, inner products of atoms that lie wholly on the signal:
        of atom i and atom j `lag` further on at [i, lag + L - 1, j]; (0, ...): not known. Not used with weights
    ends : (n,) int64 array; in: where each row starts, out: where it ends
    neighbours, overlaps : (m,) int32 and (B, m) float64 arrays, out; m = 0 to move `ends` only
    """
    shift, first, count = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    weighted, known, counts_only = len(weight) > 0, len(table) > 0, len(neighbours) == 0
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
                            if not counts_only:
                                at, back = ends[i], ends[j]
                                neighbours[at], neighbours[back] = j, i
                                one, other = atom_of[i], atom_of[j]
                                for s in range(overlaps.shape[0]):
                                    if weighted:
                                        value = pair_overlap(
                                            atoms[one], atoms[other], weight[cells[i, 0] + s], corners[i], corners[j],
                                            shift, extents, wraps,
                                        )  # fmt: skip
                                    elif known:
                                        value = pair_lookup(
                                            table[one], other, corners[i], corners[j], support, extents, wraps
                                        )
                                    else:
                                        value = pair_overlap(
                                            atoms[one], atoms[other], None, corners[i], corners[j], shift, extents,
                                            wraps,
                                        )  # fmt: skip
                                    overlaps[s, at], overlaps[s, back] = value, value
                            ends[i] += 1
                            ends[j] += 1


@kernel
def minimise(
    starts, neighbours, overlaps, curvature, lasso, group, positive, tolerance, max_rounds, correlation, values
):
    """Minimise over the working set 0.5 z'Gz - q'z + sum_i (lasso_i sum_b |z_bi| + group_i |z_i|), in place.

    Parameters
    ----------
    starts, neighbours, overlaps : (n + 1,) int64, (m,) int32, (B, m) float64 arrays, G without its diagonal
    curvature : (B, n) float64 array, the diagonal of G
    lasso, group : (n,) float64 arrays
    positive : bool, z >= 0
    tolerance : float, stop once a sweep changes no correlation of a coordinate with its own residual by more
    max_rounds : int, rounds of sweeps and a Newton step
    correlation : (B, n) float64 array, q - G z; in and out
    values : (B, n) float64 array, z; in and out

    Returns
    -------
    float, the largest such change of the last sweep, and the number of sweeps
    """
    width, n = values.shape
    step, residual, direction = np.empty((width, n)), np.empty((width, n)), np.empty((width, n))
    product, scaled = np.empty((width, n)), np.empty((width, n))
    norms, block = np.empty(n), np.empty(width)
    sweeps, moved, forcing = 0, np.inf, _FORCING[0]
    for _ in range(max_rounds):
        for _ in range(_SWEEPS):
            moved = _sweep(starts, neighbours, overlaps, curvature, lasso, group, positive, correlation, values, block)
            sweeps += 1
            if moved <= tolerance:
                return moved, sweeps
        same_signs = _newton_step(
            starts, neighbours, overlaps, curvature, lasso, group, positive, tolerance, forcing, correlation, values,
            norms, step, residual, direction, product, scaled,
        )  # fmt: skip
        forcing = _FORCING[1] if same_signs else _FORCING[0]
    return moved, sweeps


@part
def _sweep(starts, neighbours, overlaps, curvature, lasso, group, positive, correlation, values, block):
    """Minimise over every coordinate in turn; returns the largest change of curvature * value."""
    width, n = values.shape
    moved = 0.0
    for i in range(n):
        if width == 1:
            h, old = curvature[0, i], values[0, i]
            if h > 0:
                new = soft_threshold(correlation[0, i] + h * old, lasso[i], positive) / h
                if new != old:
                    change = new - old
                    values[0, i] = new
                    correlation[0, i] -= h * change
                    moved = max(moved, abs(h * change))
                    row, others, c = overlaps[0, starts[i] : starts[i + 1]], neighbours[starts[i] :], correlation[0]
                    for e in range(len(row)):
                        c[others[e]] -= row[e] * change
            else:  # no sample of its window counts
                values[0, i] = 0.0
        else:
            for b in range(width):
                block[b] = soft_threshold(correlation[b, i] + curvature[b, i] * values[b, i], lasso[i], positive)
            _shrink(block, curvature[:, i], group[i])
            changed = False
            for b in range(width):
                change = block[b] - values[b, i]
                values[b, i], block[b] = block[b], change
                correlation[b, i] -= curvature[b, i] * change
                moved = max(moved, abs(curvature[b, i] * change))
                changed |= change != 0
            if changed:
                for e in range(starts[i], starts[i + 1]):
                    for b in range(width):
                        correlation[b, neighbours[e]] -= overlaps[b, e] * block[b]
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
    for b in range(vector.shape[0]):
        v = vector[b]
        for i in range(len(v)):
            if only is None or only[i] > 0:
                row, others = overlaps[b, starts[i] : starts[i + 1]], neighbours[starts[i] : starts[i + 1]]
                total = curvature[b, i] * v[i]
                for e in range(len(row)):
                    total += row[e] * v[others[e]]
                product[b, i] = total


@part
def _newton_step(
    starts, neighbours, overlaps, curvature, lasso, group, positive, tolerance, forcing, correlation, values, norms,
    step, residual, direction, product, scaled,
):  # fmt: skip
    """One step on the coordinates in use, with their signs; those that would change sign are set to zero.

    Returns whether none would.
    """
    width, n = values.shape
    enough = 0.0
    for i in range(n):
        norm2 = 0.0
        for b in range(width):
            norm2 += values[b, i] * values[b, i]
            step[b, i], residual[b, i], direction[b, i] = 0.0, 0.0, 0.0
        norms[i] = sqrt(norm2)
        if norms[i] > 0:
            for b in range(width):
                v = values[b, i]
                if v != 0 or not (lasso[i] > 0 or positive):
                    sign = 1.0 if v > 0 else -1.0
                    residual[b, i] = correlation[b, i] - (lasso[i] * sign if v != 0 else 0.0) - group[i] * v / norms[i]
                    enough = max(enough, abs(residual[b, i]))
    energy = _precondition(curvature, lasso, group, positive, values, norms, residual, scaled)
    for i in range(n):
        for b in range(width):
            direction[b, i] = scaled[b, i]
    enough = max(forcing * enough, 0.1 * tolerance)
    for _ in range(_STEPS):
        _multiply(starts, neighbours, overlaps, curvature, norms, direction, product)
        along = 0.0
        for i in range(n):
            if norms[i] > 0:
                if group[i] > 0:
                    inner = 0.0
                    for b in range(width):
                        inner += values[b, i] * direction[b, i]
                    inner /= norms[i] * norms[i]
                    for b in range(width):
                        product[b, i] += group[i] / norms[i] * (direction[b, i] - inner * values[b, i])
                for b in range(width):
                    along += direction[b, i] * product[b, i]
        if not along > 1e-14 * energy:
            break
        length, largest = energy / along, 0.0
        for i in range(n):
            if norms[i] > 0:
                for b in range(width):
                    if values[b, i] != 0 or not (lasso[i] > 0 or positive):
                        step[b, i] += length * direction[b, i]
                        residual[b, i] -= length * product[b, i]
                        largest = max(largest, abs(residual[b, i]))
        if largest <= enough:
            break
        old = energy
        energy = _precondition(curvature, lasso, group, positive, values, norms, residual, scaled)
        for i in range(n):
            for b in range(width):
                direction[b, i] = scaled[b, i] + energy / old * direction[b, i]
    return _descend(
        starts, neighbours, overlaps, curvature, lasso, group, positive, correlation, values, step, direction, product
    )


@part
def _precondition(curvature, lasso, group, positive, values, norms, residual, scaled):
    """scaled = residual over the diagonal; returns their inner product."""
    energy = 0.0
    for i in range(values.shape[1]):
        for b in range(values.shape[0]):
            scaled[b, i] = 0.0
            if norms[i] > 0 and (values[b, i] != 0 or not (lasso[i] > 0 or positive)):
                diagonal = curvature[b, i] + group[i] / norms[i]
                if diagonal > 0:
                    scaled[b, i] = residual[b, i] / diagonal
                    energy += residual[b, i] * scaled[b, i]
    return energy


@part
def _descend(
    starts, neighbours, overlaps, curvature, lasso, group, positive, correlation, values, step, change, product
):
    """Go along the step as far as the objective falls, halving it where it does not; True if all of it was gone."""
    width, n = values.shape
    share = 1.0
    for _ in range(_HALVINGS):
        whole = share == 1.0
        for i in range(n):
            for b in range(width):
                old = values[b, i]
                new = old + share * step[b, i]
                if new * old < 0 and (lasso[i] > 0 or positive):
                    new, whole = 0.0, False
                change[b, i] = new - old
        _multiply(starts, neighbours, overlaps, curvature, None, change, product)
        rise = 0.0
        for i in range(n):
            old2, new2 = 0.0, 0.0
            for b in range(width):
                old, new = values[b, i], values[b, i] + change[b, i]
                rise += change[b, i] * (0.5 * product[b, i] - correlation[b, i]) + lasso[i] * (abs(new) - abs(old))
                old2 += old * old
                new2 += new * new
            if group[i] > 0:
                rise += group[i] * (sqrt(new2) - sqrt(old2))
        if rise < 0:
            for i in range(n):
                for b in range(width):
                    if change[b, i] != 0:
                        values[b, i] += change[b, i]
                    correlation[b, i] -= product[b, i]
            return whole
        share *= 0.5
    return False


@kernel
def best_of_blocks(correlations, thresholds, joint, gains, positive, block, first, floor, places, atoms, scores):
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
    scores : (blocks,) float64 array, out: twice the fall of the objective that it promises

    Returns
    -------
    two floats, the largest excess of a correlation over its threshold, and the largest as a part of the threshold
    """
    width, size_a, size_b, size_c, n_atoms = correlations.shape
    blocks_b, blocks_c = -(-size_b // block[1]), -(-size_c // block[2])
    largest, worst = 0.0, 0.0
    for m in range(len(places)):
        places[m], scores[m] = -1, 0.0
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
