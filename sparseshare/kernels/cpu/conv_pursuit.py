"""Orthogonal matching pursuit with atoms shared over all positions, at the cost of what changes.

Kept are the weighted residual, and of every block of positions the coordinate with the largest correlation per norm of
its atom; no array of all correlations exists. A change of the residual raises the bounds of the blocks that it reaches,
and a block is looked at again only when its bound is the largest of all. A new atom moves the coefficients of those it
overlaps, and through them of others, ever less with the distance: conjugate gradients start at the new atom and reach
as far as anything moves.
"""

from collections import namedtuple
from math import sqrt

import numpy as np

from .atom_windows import pair_overlap, seen, touch, window_add, window_norm, window_product
from .jit import kernel, part, rare

_REACH = 1e-8  # of the new atom's correlation: what moves others less is left for the last step
_EXACT = 1e-14  # of the largest correlation: the orthogonality after the last step
_STEPS = 200  # of conjugate gradients

# atoms (K, C, LA, LB, LC); atoms_last and squares_last (C, LA, LB, LC, K), the atoms and their squares;
# inverse_norms (K,), 1 / |d_k|, or 0 for atoms of zeros
Atoms = namedtuple("Atoms", "atoms atoms_last squares_last inverse_norms")
# (3,) int64 arrays: positions a block, sample under entry 0 at position 0, sizes of maps, cells along the axes
Grid = namedtuple("Grid", "block offset positions n_cells")
# (J, blocks, blocks, blocks): the best |correlation| / norm, or a bound of it where stale; best (..., 4), atom and
# position that have it
Blocks = namedtuple("Blocks", "bounds stale best")
# (n,), and corners (n, 3): the atoms chosen, the one chosen before in the same cell, whether still in use, squared
# norms of what is seen of them, values, the first of their edges
Chosen = namedtuple("Chosen", "signals atom_of corners following active norms2 values first_edge")
# (m,): the other atom, the inner product with it, the next edge of the same atom
Edges = namedtuple("Edges", "to value following")
_Step = namedtuple("_Step", "step residual direction product touched marked")  # (n,), of conjugate gradients


@rare
def _rescan(m, atoms, grid, weighted, weight, wraps, positive, blocks, sums, norms, corner):
    """Bring block m up to date."""
    shape = blocks.bounds.shape
    rest, c = m // shape[3], m % shape[3]
    rest, b = rest // shape[2], rest % shape[2]
    j, a = rest // shape[1], rest % shape[1]
    atoms_last, squares_last, inverse_norms = atoms.atoms_last, atoms.squares_last, atoms.inverse_norms
    n_channels, length_a, length_b, length_c, n_atoms = atoms_last.shape
    block, offset, positions, extents = grid.block, grid.offset, grid.positions, weighted.shape
    image, best, masked = weighted[j], blocks.best[j, a, b, c], len(weight) > 0
    top = 0.0
    for place_a in range(a * block[0], min((a + 1) * block[0], positions[0])):
        for place_b in range(b * block[1], min((b + 1) * block[1], positions[1])):
            for place in range(c * block[2], min((c + 1) * block[2], positions[2])):
                corner[0], corner[1], corner[2] = place_a + offset[0], place_b + offset[1], place + offset[2]
                low_a, mid_a, high_a = seen(corner[0], length_a, extents[2], wraps)
                low_b, mid_b, high_b = seen(corner[1], length_b, extents[3], wraps)
                low, mid, high = seen(corner[2], length_c, extents[4], wraps)
                cut = (high_a - low_a) * (high_b - low_b) * (high - low) < length_a * length_b * length_c
                cut |= masked
                for k in range(n_atoms):
                    sums[k], norms[k] = 0.0, 0.0
                for s in range(n_channels):
                    for la in range(low_a, high_a):
                        pixel_a = corner[0] + la - (extents[2] if la >= mid_a else 0)
                        for lb in range(low_b, high_b):
                            pixel_b = corner[1] + lb - (extents[3] if lb >= mid_b else 0)
                            for e in range(low, high):
                                pixel = corner[2] + e - (extents[4] if e >= mid else 0)
                                value, row = image[s, pixel_a, pixel_b, pixel], atoms_last[s, la, lb, e]
                                for k in range(n_atoms):
                                    sums[k] += value * row[k]
                                if cut:
                                    share, row = 1.0, squares_last[s, la, lb, e]
                                    if masked:
                                        share = weight[j, s, pixel_a, pixel_b, pixel]
                                    for k in range(n_atoms):
                                        norms[k] += share * row[k]
                for k in range(n_atoms):
                    score = sums[k] if positive else abs(sums[k])
                    if cut:
                        score = score / sqrt(norms[k]) if norms[k] > 1e-20 and inverse_norms[k] > 0 else 0.0
                    else:
                        score *= inverse_norms[k]
                    if score > top:
                        top = score
                        best[0], best[1], best[2], best[3] = k, place_a, place_b, place
    blocks.bounds[j, a, b, c], blocks.stale[j, a, b, c] = top, False


@kernel
def pursue(
    atoms, grid, weighted, weight, wraps, positive, blocks, limit, target, noise, heads, chosen, edges, counts, level
):
    """Add atoms and refit, until a count or an error is reached or the arrays are full.

    Parameters
    ----------
    atoms : Atoms
    grid : Grid
    weighted : (J, C, A, B, C) float64 array, W^2 r; in and out
    weight : (J, C, A, B, C) float64 array, W^2; (0, ...): all 1
    wraps, positive : bool
    blocks : Blocks, in and out
    limit : int, atoms at most
    target : float, squared norm of the weighted residual to stop at; negative for none
    noise : float, correlations below this part of the first one are rounding
    heads : (J, cells, cells, cells) int64 array, the last atom chosen of every cell, or -1; in and out
    chosen : Chosen, in and out
    edges : Edges, which of them overlap; in and out
    counts : (4,) int64 array, in and out: chosen, edges, of the chosen in use, steps
    level : (2,) float64 array, in and out: squared norm of the weighted residual, the first correlation

    Returns
    -------
    int, 0 done, 1 stopped at the bound on steps, 2 stopped since the best atom left depends on the chosen ones, 3 the
    arrays are full
    """
    n = len(chosen.values)
    sums, norms = np.empty(len(atoms.inverse_norms)), np.empty(len(atoms.inverse_norms))
    near, shift, place, corner = (
        np.empty(n, np.int64),
        np.empty(3, np.int64),
        np.empty(3, np.int64),
        np.empty(3, np.int64),
    )
    step = _Step(np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64), np.zeros(n, np.bool_))
    bounds, stale = blocks.bounds.reshape(-1), blocks.stale.reshape(-1)
    dependent = 1e-6 if noise > 1e-10 else 1e-10
    outcome, cleaned = 0, False
    if counts[0] == 0:
        for m in range(bounds.shape[0]):
            _rescan(m, atoms, grid, weighted, weight, wraps, positive, blocks, sums, norms, corner)
    while True:
        top = bounds.argmax()
        while stale[top]:
            _rescan(top, atoms, grid, weighted, weight, wraps, positive, blocks, sums, norms, corner)
            top = bounds.argmax()
        level[1] = max(level[1], bounds[top])
        if counts[2] >= limit or level[0] <= target or bounds[top] <= noise * level[1]:
            break
        if counts[3] >= 3 * limit + 10:
            outcome = 1
            break
        j, found, new = top // (len(bounds) // len(blocks.bounds)), blocks.best.reshape(-1, 4)[top], counts[0]
        if new >= n:
            outcome = 3
            break
        for axis in range(3):
            place[axis] = found[axis + 1] + grid.offset[axis]
        n_near, again = _neighbours(j, found[0], place, atoms.atoms, grid, weighted.shape, wraps, heads, chosen, near)
        if again:  # what earlier steps have left undone is the largest now
            if cleaned:
                break
            _refit_all(atoms.atoms, grid, weighted, weight, wraps, positive, blocks, chosen, edges, counts, level, step)
            cleaned = True
            continue
        cleaned = False
        if counts[1] + 2 * n_near > len(edges.to):
            outcome = 3
            break
        _join(j, found[0], place, atoms, weighted, weight, wraps, near, n_near, chosen, edges, counts, shift)
        correlation = window_product(atoms.atoms[found[0]], weighted[j], place, wraps)
        step.residual[new], step.touched[0] = correlation, new
        n_touched = _conjugate_gradients(chosen, edges, _REACH * abs(correlation), np.int64(1), step)
        size = abs(correlation)
        if not step.step[new] * correlation > 0 or size <= dependent * chosen.norms2[new] * abs(step.step[new]):
            outcome = 2
            break
        counts[0] += 1
        counts[2] += 1
        counts[3] += 1
        _enter_cell(j, found, new, grid, atoms.atoms.shape, heads, chosen)
        _move(
            atoms.atoms, grid, weighted, weight, wraps, positive, blocks, chosen, edges, counts, level,
            _REACH * abs(correlation), n_touched, step,
        )  # fmt: skip
    if outcome != 3:
        _refit_all(atoms.atoms, grid, weighted, weight, wraps, positive, blocks, chosen, edges, counts, level, step)
    return outcome


@part
def _clipped_norm(atom, corner, extents):
    """|d|^2 of the part of an atom that lies on the signal."""
    total = 0.0
    for c in range(atom.shape[0]):
        for a in range(max(0, -corner[0]), min(atom.shape[1], extents[0] - corner[0])):
            for b in range(max(0, -corner[1]), min(atom.shape[2], extents[1] - corner[1])):
                for e in range(max(0, -corner[2]), min(atom.shape[3], extents[2] - corner[2])):
                    total += atom[c, a, b, e] ** 2
    return total


@rare
def _neighbours(j, k, corner, atoms, grid, extents, wraps, heads, chosen, near):
    """Collect the chosen atoms in use that overlap atom k at a corner; returns their number, and whether it is one."""
    count, again, n_cells = np.int64(0), False, grid.n_cells
    low_a, high_a = _cells(corner[0] - grid.offset[0], atoms.shape[2], n_cells[0], wraps)
    low_b, high_b = _cells(corner[1] - grid.offset[1], atoms.shape[3], n_cells[1], wraps)
    low_c, high_c = _cells(corner[2] - grid.offset[2], atoms.shape[4], n_cells[2], wraps)
    for a in range(low_a, high_a):
        for b in range(low_b, high_b):
            for c in range(low_c, high_c):
                i = heads[j, a % n_cells[0], b % n_cells[1], c % n_cells[2]]
                while i >= 0:
                    if chosen.active[i] and touch(corner, chosen.corners[i], atoms.shape[2:], extents[2:], wraps):
                        near[count] = i
                        count += 1
                        same = chosen.atom_of[i] == k
                        for axis in range(3):
                            same &= chosen.corners[i, axis] == corner[axis]
                        again |= same
                    i = chosen.following[i]
    return count, again


@part
def _cells(position, length, n_cells, wraps):
    """The cells along an axis that may hold neighbours of a position, from the first to before the last."""
    cell = min(position // length, n_cells - 1)
    if not wraps:
        return max(cell - 1, 0), min(cell + 2, n_cells)
    if n_cells < 3:
        return 0, n_cells
    return cell + n_cells - 1, cell + n_cells + 2


@part
def _enter_cell(j, found, new, grid, shape, heads, chosen):
    """Put the newest atom in front of the others of its cell."""
    a = min(found[1] // shape[2], grid.n_cells[0] - 1)
    b = min(found[2] // shape[3], grid.n_cells[1] - 1)
    c = min(found[3] // shape[4], grid.n_cells[2] - 1)
    chosen.following[new], heads[j, a, b, c] = heads[j, a, b, c], new


@rare
def _join(j, k, corner, atoms, weighted, weight, wraps, near, n_near, chosen, edges, counts, shift):
    """Write down the next chosen atom and its overlaps."""
    new, atom, extents = counts[0], atoms.atoms[k], weighted.shape[2:]
    chosen.signals[new], chosen.atom_of[new], chosen.active[new], chosen.values[new] = j, k, True, 0.0
    cut = False
    for axis in range(3):
        chosen.corners[new, axis] = corner[axis]
        cut |= not wraps and (corner[axis] < 0 or corner[axis] + atom.shape[axis + 1] > extents[axis])
    norm2 = 1 / atoms.inverse_norms[k] ** 2
    if len(weight) > 0:
        norm2 = window_norm(atom, weight[j], corner, wraps)
    elif cut:
        norm2 = _clipped_norm(atom, corner, extents)
    chosen.norms2[new], chosen.first_edge[new] = norm2, -1
    for e in range(n_near):
        other = near[e]
        partner, place = atoms.atoms[chosen.atom_of[other]], chosen.corners[other]
        if len(weight) == 0:
            value = pair_overlap(atom, partner, None, corner, place, shift, extents, wraps)
        else:
            value = pair_overlap(atom, partner, weight[j], corner, place, shift, extents, wraps)
        if value != 0:
            for end in range(2):
                one, two = (new, other) if end == 0 else (other, new)
                edges.to[counts[1]], edges.value[counts[1]] = two, value
                edges.following[counts[1]], chosen.first_edge[one] = chosen.first_edge[one], counts[1]
                counts[1] += 1


@rare
def _conjugate_gradients(chosen, edges, cutoff, n_touched, work):
    """Solve G step = residual on the touched atoms, touching those that would move; returns how many are touched."""
    step, residual, direction, product, touched, marked = work
    norms2, energy = chosen.norms2, 0.0
    for t in range(n_touched):
        i = touched[t]
        marked[i], step[i] = True, 0.0
        direction[i] = residual[i] / norms2[i]
        energy += residual[i] * direction[i]
    for _ in range(_STEPS + n_touched):
        if not energy > 0:
            break
        for t in range(n_touched):
            product[touched[t]] = 0.0
        old_touched = n_touched
        for t in range(old_touched):
            i = touched[t]
            product[i] += norms2[i] * direction[i]
            e = chosen.first_edge[i]
            while e >= 0:
                other = edges.to[e]
                if chosen.active[other]:
                    value = edges.value[e] * direction[i]
                    if not marked[other] and abs(value) > cutoff:
                        marked[other] = True
                        step[other], residual[other], direction[other], product[other] = 0.0, 0.0, 0.0, 0.0
                        touched[n_touched] = other
                        n_touched += 1
                    if marked[other]:
                        product[other] += value
                e = edges.following[e]
        along = 0.0
        for t in range(old_touched):
            along += direction[touched[t]] * product[touched[t]]
        if not along > 1e-14 * energy:
            break
        length, largest, old = energy / along, 0.0, energy
        energy = 0.0
        for t in range(n_touched):
            i = touched[t]
            step[i] += length * direction[i]
            residual[i] -= length * product[i]
            largest = max(largest, abs(residual[i]))
            energy += residual[i] * residual[i] / norms2[i]
        if largest <= 0.1 * cutoff:
            break
        for t in range(n_touched):
            i = touched[t]
            direction[i] = residual[i] / norms2[i] + energy / old * direction[i]
    return n_touched


@rare
def _move(
    atoms, grid, weighted, weight, wraps, positive, blocks, chosen, edges, counts, level, cutoff, n_touched, work
):
    """Go the step; where a value would fall below zero and may not, only up to there, and again without that atom."""
    step, residual, touched, values = work.step, work.residual, work.touched, chosen.values
    while True:
        share, blocked = 1.0, np.int64(-1)
        if positive:
            for t in range(n_touched):
                i = touched[t]
                if values[i] + step[i] < 0 and values[i] < -share * step[i]:
                    share, blocked = -values[i] / step[i], i
        for t in range(n_touched):
            i = touched[t]
            atom, j, corner, change = atoms[chosen.atom_of[i]], chosen.signals[i], chosen.corners[i], share * step[i]
            if i == blocked:
                change = -values[i]
                chosen.active[i] = False
                counts[2] -= 1
            if change != 0:
                level[0] -= change * (2 * window_product(atom, weighted[j], corner, wraps) - change * chosen.norms2[i])
                values[i] += change
                if len(weight) == 0:
                    window_add(atom, -change, weighted[j], corner, wraps)
                else:
                    _subtract(atom, change, weighted[j], weight[j], corner, wraps)
                reach = abs(change) * sqrt(chosen.norms2[i])
                _raise(blocks.bounds[j], blocks.stale[j], reach, corner, atom, grid, wraps)
        left = np.int64(0)
        for t in range(n_touched):
            i = touched[t]
            work.marked[i] = False
            if blocked >= 0 and chosen.active[i]:
                residual[i] = window_product(
                    atoms[chosen.atom_of[i]], weighted[chosen.signals[i]], chosen.corners[i], wraps
                )
                touched[left] = i
                left += 1
        if blocked < 0 or left == 0:
            break
        n_touched = _conjugate_gradients(chosen, edges, cutoff, left, work)


@part
def _subtract(atom, value, image, weight, corner, wraps):
    """image -= value * weight * atom over the window."""
    extents = image.shape
    low_a, mid_a, high_a = seen(corner[0], atom.shape[1], extents[1], wraps)
    low_b, mid_b, high_b = seen(corner[1], atom.shape[2], extents[2], wraps)
    low, mid, high = seen(corner[2], atom.shape[3], extents[3], wraps)
    for c in range(atom.shape[0]):
        for la in range(low_a, high_a):
            a = corner[0] + la - (extents[1] if la >= mid_a else 0)
            for lb in range(low_b, high_b):
                b = corner[1] + lb - (extents[2] if lb >= mid_b else 0)
                for e in range(low, high):
                    at = corner[2] + e - (extents[3] if e >= mid else 0)
                    image[c, a, b, at] -= value * atom[c, la, lb, e] * weight[c, a, b, at]


@part
def _raise(bounds, stale, by, corner, atom, grid, wraps):
    """Raise the bounds of the blocks whose correlations a change of the residual at a window reaches."""
    block, positions = grid.block, grid.positions
    low_a, high_a = _reached(corner[0] - grid.offset[0], atom.shape[1], positions[0], wraps)
    low_b, high_b = _reached(corner[1] - grid.offset[1], atom.shape[2], positions[1], wraps)
    low_c, high_c = _reached(corner[2] - grid.offset[2], atom.shape[3], positions[2], wraps)
    a = low_a
    while a < high_a:
        b = low_b
        while b < high_b:
            c = low_c
            while c < high_c:
                first, second = (a % positions[0]) // block[0], (b % positions[1]) // block[1]
                bounds[first, second, (c % positions[2]) // block[2]] += by
                stale[first, second, (c % positions[2]) // block[2]] = True
                c += _to_next_block(c % positions[2], block[2], positions[2])
            b += _to_next_block(b % positions[1], block[1], positions[1])
        a += _to_next_block(a % positions[0], block[0], positions[0])


@part
def _reached(position, length, n_positions, wraps):
    low, high = position - length + 1, position + length
    return (low + n_positions, high + n_positions) if wraps else (max(low, 0), min(high, n_positions))


@part
def _to_next_block(position, block, n_positions):
    return min(block - position % block, n_positions - position)


@rare
def _refit_all(atoms, grid, weighted, weight, wraps, positive, blocks, chosen, edges, counts, level, work):
    """Make the residual orthogonal to all chosen atoms, up to rounding."""
    n_touched, cutoff = np.int64(0), _EXACT * level[1]
    for i in range(counts[0]):
        if chosen.active[i]:
            work.residual[i] = window_product(
                atoms[chosen.atom_of[i]], weighted[chosen.signals[i]], chosen.corners[i], wraps
            )
            work.touched[n_touched] = i
            n_touched += 1
    n_touched = _conjugate_gradients(chosen, edges, cutoff, n_touched, work)
    _move(atoms, grid, weighted, weight, wraps, positive, blocks, chosen, edges, counts, level, cutoff, n_touched, work)
