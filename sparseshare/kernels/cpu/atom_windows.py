"""Atoms laid on a signal at single positions: correlations, sums and overlaps over their windows, for sparse codes.

Everything has three axes, the first ones of length 1 where a signal has fewer. A coordinate is an atom and a *corner*,
the sample its entry 0 lies on, negative where it sticks out before the signal. What sticks out after the end is cut
off, or wraps around. Sums are taken in float64.
"""

from .jit import kernel, part, rare


@part
def seen(corner, length, extent, wraps):
    """Entries [low, middle) of an atom lie on the axis from its corner on, [middle, high) wrapped to its start."""
    middle = min(length, extent - corner)
    return max(0, -corner), middle, length if wraps else middle


@rare
def window_product(atom, image, corner, wraps):
    """Sum over the window of atom * image."""
    extents = image.shape
    low_a, mid_a, high_a = seen(corner[0], atom.shape[1], extents[1], wraps)
    low_b, mid_b, high_b = seen(corner[1], atom.shape[2], extents[2], wraps)
    low, mid, high = seen(corner[2], atom.shape[3], extents[3], wraps)
    total = 0.0
    for c in range(atom.shape[0]):
        for la in range(low_a, high_a):
            a = corner[0] + la - (extents[1] if la >= mid_a else 0)
            for lb in range(low_b, high_b):
                b = corner[1] + lb - (extents[2] if lb >= mid_b else 0)
                taps, start = atom[c, la, lb], image[c, a, b]
                row = image[c, a, b, corner[2] + low :]
                for e in range(low, mid):
                    total += taps[e] * row[e - low]
                for e in range(mid, high):
                    total += taps[e] * start[e - mid]
    return total


@part
def window_norm(atom, weight, corner, wraps):
    """Sum over the window of weight * atom^2."""
    extents = weight.shape
    low_a, mid_a, high_a = seen(corner[0], atom.shape[1], extents[1], wraps)
    low_b, mid_b, high_b = seen(corner[1], atom.shape[2], extents[2], wraps)
    low, mid, high = seen(corner[2], atom.shape[3], extents[3], wraps)
    total = 0.0
    for c in range(atom.shape[0]):
        for la in range(low_a, high_a):
            a = corner[0] + la - (extents[1] if la >= mid_a else 0)
            for lb in range(low_b, high_b):
                b = corner[1] + lb - (extents[2] if lb >= mid_b else 0)
                for e in range(low, high):
                    at = corner[2] + e - (extents[3] if e >= mid else 0)
                    total += atom[c, la, lb, e] ** 2 * weight[c, a, b, at]
    return total


@part
def window_add(atom, value, image, corner, wraps):
    """image += value * atom over the window."""
    extents = image.shape
    low_a, mid_a, high_a = seen(corner[0], atom.shape[1], extents[1], wraps)
    low_b, mid_b, high_b = seen(corner[1], atom.shape[2], extents[2], wraps)
    low, mid, high = seen(corner[2], atom.shape[3], extents[3], wraps)
    for c in range(atom.shape[0]):
        for la in range(low_a, high_a):
            a = corner[0] + la - (extents[1] if la >= mid_a else 0)
            for lb in range(low_b, high_b):
                b = corner[1] + lb - (extents[2] if lb >= mid_b else 0)
                taps = atom[c, la, lb]
                row, start = image[c, a, b, corner[2] + low :], image[c, a, b]
                for e in range(low, mid):
                    row[e - low] += value * taps[e]
                for e in range(mid, high):
                    start[e - mid] += value * taps[e]


@part
def shared(corner, shift, length, extent, wraps):
    """Entries [low, high) of an atom that lie on the signal and under another one, `shift` samples further on."""
    low, high = max(0, shift, -corner), min(length, length + shift)
    return low, high if wraps else min(high, extent - corner)


@part
def overlap(atom, other, weight, corner, shift, extents, wraps):
    """Inner product of an atom at a corner and another `shift` samples further on, weighted by samples if asked to."""
    low_a, high_a = shared(corner[0], shift[0], atom.shape[1], extents[0], wraps)
    low_b, high_b = shared(corner[1], shift[1], atom.shape[2], extents[1], wraps)
    low, high = shared(corner[2], shift[2], atom.shape[3], extents[2], wraps)
    total = 0.0
    for c in range(atom.shape[0]):
        for la in range(low_a, high_a):
            for lb in range(low_b, high_b):
                taps, others = atom[c, la, lb], other[c, la - shift[0], lb - shift[1], low - shift[2] :]
                if weight is None:
                    for e in range(low, high):
                        total += taps[e] * others[e - low]
                else:
                    row = weight[c, (corner[0] + la) % extents[0], (corner[1] + lb) % extents[1]]
                    for e in range(low, high):
                        total += taps[e] * others[e - low] * row[(corner[2] + e) % extents[2]]
    return total


@part
def images(first, second, length, extent, wraps):
    """How far on `second` lies from `first`, as the first of `count` shifts `extent` apart at which atoms overlap."""
    shift = second - first
    if not wraps:
        return shift, 1 if abs(shift) < length else 0
    while shift - extent > -length:
        shift -= extent
    while shift <= -length:
        shift += extent
    count = 0
    while shift + count * extent < length:
        count += 1
    return shift, count


@part
def pair_overlap(atom, other, weight, first, second, shift, extents, wraps):
    """Inner product of an atom at one corner and one at another, through all ways around; `shift` is scratch."""
    start_a, n_a = images(first[0], second[0], atom.shape[1], extents[0], wraps)
    start_b, n_b = images(first[1], second[1], atom.shape[2], extents[1], wraps)
    start_c, n_c = images(first[2], second[2], atom.shape[3], extents[2], wraps)
    total = 0.0
    for a in range(n_a):
        for b in range(n_b):
            for c in range(n_c):
                shift[0] = start_a + a * extents[0]
                shift[1] = start_b + b * extents[1]
                shift[2] = start_c + c * extents[2]
                total += overlap(atom, other, weight, first, shift, extents, wraps)
    return total


@part
def pair_lookup(table, other, first, second, support, extents, wraps):
    """As `pair_overlap` for atoms wholly on the signal, from the overlaps (2 L - 1, ..., K) of one with all others."""
    start_a, n_a = images(first[0], second[0], support[0], extents[0], wraps)
    start_b, n_b = images(first[1], second[1], support[1], extents[1], wraps)
    start_c, n_c = images(first[2], second[2], support[2], extents[2], wraps)
    total = 0.0
    for a in range(n_a):
        for b in range(n_b):
            for c in range(n_c):
                total += table[
                    start_a + a * extents[0] + support[0] - 1,
                    start_b + b * extents[1] + support[1] - 1,
                    start_c + c * extents[2] + support[2] - 1,
                    other,
                ]
    return total


@part
def touch(first, second, support, extents, wraps):
    """Whether the windows of two corners may overlap."""
    near = True
    for axis in range(3):
        near &= images(first[axis], second[axis], support[axis], extents[axis], wraps)[1] > 0
    return near


@kernel
def subtract_codes(atoms, signals, atom_of, corners, values, wraps, residual):
    """residual -= D z.

    Parameters
    ----------
    atoms : (K, C, LA, LB, LC) float64 array
    signals : (n,) int64 array, the first signal that each coordinate belongs to
    atom_of, corners : (n,) int64, (n, 3) int64 arrays, the coordinates
    values : (n, B) float64 array, of signals signals[i] to signals[i] + B - 1
    wraps : bool
    residual : (J, C, A, B, C) float64 array, in and out
    """
    for i in range(len(atom_of)):
        for b in range(values.shape[1]):
            if values[i, b] != 0:
                window_add(atoms[atom_of[i]], -values[i, b], residual[signals[i] + b], corners[i], wraps)


@kernel
def correlate_at(atoms, signals, atom_of, corners, residual, wraps, correlation):
    """correlation[i, b] = <atom of coordinate i, residual of signal signals[i] + b>; parameters as above."""
    for i in range(len(atom_of)):
        for b in range(correlation.shape[1]):
            correlation[i, b] = window_product(atoms[atom_of[i]], residual[signals[i] + b], corners[i], wraps)


@kernel
def norms_at(atoms, signals, atom_of, corners, weight, wraps, norms):
    """norms[i, b] = |atom of coordinate i|^2 weighted by `weight`, as it lies on signal signals[i] + b.

    weight : (J, C, A, B, C) float64 array, squares of the factors of the samples
    """
    for i in range(len(atom_of)):
        for b in range(norms.shape[1]):
            norms[i, b] = window_norm(atoms[atom_of[i]], weight[signals[i] + b], corners[i], wraps)
