"""The part of the atom sweep that cannot be a matrix product: atoms of one block, one after the other.

The step of atom k is d_k <- P(d_k + r_k) with r_k = (B_k - A_k D) / A_kk, which is the exact minimiser over d_k of the
quadratic of A and B, for any set with projection P, since that quadratic is isotropic in d_k.
"""

import numpy as np

from .jit import called, kernel, part


@part
def _divide_by_norm(row, sphere):
    total = 0.0
    for f in range(len(row)):
        total += np.float64(row[f]) * np.float64(row[f])
    if total > 0 and (sphere or total > 1):
        inverse = 1 / np.sqrt(total)
        for f in range(len(row)):
            row[f] *= inverse
    return total


@part
def _sift(heap, place, n):
    """Let the entry at a place of a heap of n sink below all that are smaller."""
    value = heap[place]
    while 2 * place + 1 < n:
        below = 2 * place + 1
        if below + 1 < n and heap[below + 1] < heap[below]:
            below += 1
        if value <= heap[below]:
            break
        heap[place] = heap[below]
        place = below
    heap[place] = value


@called
def _height_for_budget(row, top, budget, ball):
    """The h for which max(h - depth, 0) has |.|_1 = budget, or, with `ball`, |.|_1 = budget |.|_2.

    The depth of an entry is how far its magnitude is below `top`, the largest. Depths come in ascending order from a
    heap: those that are not needed are not sorted, and np.sort takes longer to compile than all else in this file.
    """
    n = len(row)
    heap = np.empty(n)
    for f in range(n):
        heap[f] = top - abs(np.float64(row[f]))
    for place in range(n // 2 - 1, -1, -1):
        _sift(heap, place, n)
    total, squares, height = 0.0, 0.0, 0.0
    for i in range(n):
        count, depth, left = i + 1.0, heap[0], n - 1 - i
        heap[0] = heap[left]
        _sift(heap, np.int64(0), left)
        total += depth
        squares += depth * depth
        if ball:
            end = heap[0] if left > 0 else top
            l1 = count * end - total
            l2 = count * end * end - 2 * end * total + squares
            if l1 * l1 >= budget * budget * l2 or left == 0:
                free = count - budget * budget
                if free <= 1e-12 * count:
                    return end
                spread = max(count * squares - total * total, 0.0)
                return min((total + budget * np.sqrt(spread / free)) / count, end)
        elif budget + total > depth * count:
            height = (budget + total) / count
        else:
            break
    return height


@part
def _cut(given, top, height, row):
    """Entries are max(height - depth, 0) with the signs of those given; return the squared norm."""
    squares = 0.0
    for f in range(len(row)):
        size = max(height - (top - abs(np.float64(given[f]))), 0.0)
        row[f] = size if given[f] > 0 else -size
        squares += size * size
    return squares


@called
def _project(row, sphere, nonnegative, zero_mean, l1_budget):
    """The projection of `optimization/constraints.py`, in place; an l1_budget of 0 means none."""
    n_features = len(row)
    best = 0
    for f in range(n_features):
        if row[f] > row[best]:
            best = f
    if zero_mean:
        for _ in range(2):
            mean = 0.0
            for f in range(n_features):
                mean += np.float64(row[f])
            mean /= n_features
            for f in range(n_features):
                row[f] -= mean
    if nonnegative:
        for f in range(n_features):
            if row[f] < 0:
                row[f] = 0
    if l1_budget > 0:
        copy = row.copy()
        _divide_by_norm(row, False)
        total, top = 0.0, 0.0
        for f in range(n_features):
            total += abs(np.float64(row[f]))
            top = max(top, abs(np.float64(copy[f])))
        if total > l1_budget:
            for ball in (False, True):  # not written out: a bare True is a type of its own
                squares = _cut(copy, top, _height_for_budget(copy, top, l1_budget, ball), row)
                if not (ball or squares > 1):
                    return
            _divide_by_norm(row, True)
        return
    if _divide_by_norm(row, sphere) == 0 and sphere:
        row[best if nonnegative else 0] = 1
        if zero_mean:
            row[0], row[1] = np.sqrt(0.5), -np.sqrt(0.5)


@kernel
def normalise_rows(A, B, first, last, least_mass, A_rows, B_rows):
    """A_rows = A_k / A_kk and B_rows = B_k / A_kk for the atoms of a block, in the dtype of the dictionary.

    Ratios stay within the range of float32 whatever the scale of the data. Atoms with A_kk <= least_mass get rows of
    zeros, by which `sweep_block` knows that they take no step.
    """
    for k in range(first, last):
        mass = A[k, k]
        inverse = 1 / mass if mass > least_mass else 0.0
        row, cross = A_rows[k - first], B_rows[k - first]
        for j in range(A.shape[1]):
            row[j] = A[k, j] * inverse
        for f in range(B.shape[1]):
            cross[f] = B[k, f] * inverse


@kernel
def sweep_block(first, ratios, steps, sphere, nonnegative, zero_mean, l1_budget, dictionary):
    """Block coordinate descent over the atoms of a block (Mairal et al. 2010, algorithm 2).

    Parameters
    ----------
    first : number of the first atom of the block
    ratios : (b, K) array, A_kj / A_kk; a row of zeros leaves its atom alone
    steps : (b, n) array, (B_k - A_k D) / A_kk for the dictionary before the block; used as scratch
    sphere, nonnegative, zero_mean : booleans
    l1_budget : float64, 0 for none
    dictionary : (K, n) array, updated in place
    """
    n_atoms, n_features = steps.shape
    new = np.empty(n_features, dictionary.dtype)
    for i in range(n_atoms):
        k = first + i
        if ratios[i, k] == 0:
            continue
        atom, step = dictionary[k], steps[i]
        for f in range(n_features):
            new[f] = atom[f] + step[f]
        _project(new, sphere, nonnegative, zero_mean, l1_budget)
        for f in range(n_features):
            step[f] = new[f] - atom[f]
            atom[f] = new[f]
        for j in range(i + 1, n_atoms):
            ratio = ratios[j, k]
            if ratio != 0:
                later = steps[j]
                for f in range(n_features):
                    later[f] -= ratio * step[f]
