"""Sums over sparse activation maps: phi, how maps go together, and psi, how maps and signals go together.

Maps of one signal come as the sorted flat indices of (K, n0, n1, n2) and their values; fewer axes are leading axes of
length 1. Sums are in float64. One call owns some rows of phi and psi and goes through the non-zeros of each atom in
order, so the bits do not depend on how threads split the atoms.
"""

from .jit import kernel


@kernel
def order_by_position(indices, n_positions, first, places):
    """List non-zeros position by position, at each position atom by atom (a counting sort).

    Parameters
    ----------
    indices (nnz,) int64 : sorted flat indices of (K, n_positions)
    n_positions : int64
    first : (n_positions + 1,) int64 out, where the list of each position begins
    places : (nnz,) int64 out, the place in `indices` of each entry of the list
    """
    first[:] = 0
    for a in range(len(indices)):
        first[indices[a] % n_positions + 1] += 1
    for p in range(n_positions):
        first[p + 1] += first[p]
    following = first[:-1].copy()
    for a in range(len(indices)):
        p = indices[a] % n_positions
        places[following[p]] = a
        following[p] += 1


@kernel
def correlate_maps(indices, values, near_atoms, near_positions, near_values, first, shape, support, circular,
                   weight, phi):  # fmt: skip
    """phi[k, k', tau] += weight * sum_u z_k[u] z_k'[u + tau] for some k, all k' and half of the offsets.

    The offsets are those from 0 on in C order; the others follow from phi[k, k', tau] = phi[k', k, -tau]. A row phi[k]
    stays in the cache while the non-zeros of its atom go by, and for each of them its neighbours are a few runs of the
    list ordered by position.

    Parameters
    ----------
    indices, values : sorted non-zeros of the maps of some atoms
    near_atoms, near_positions, near_values (nnz,) : non-zeros of all atoms ordered by position
    first (n_positions + 1,) : from `order_by_position`
    shape, support : int64[3], positions and support along each axis
    circular : bool, whether u + tau wraps
    weight : float64
    phi : (K, K, n_offsets) float64, updated in place; n_offsets = (prod(2 * support - 1) + 1) // 2
    """
    n0, n1, n2 = shape[0], shape[1], shape[2]
    l0, l1, l2 = support[0], support[1], support[2]
    n_positions = n0 * n1 * n2
    wide1, wide2 = 2 * l1 - 1, 2 * l2 - 1
    for a in range(len(indices)):
        k, u = indices[a] // n_positions, indices[a] % n_positions
        u0, u1, u2 = u // (n1 * n2), u // n2 % n1, u % n2
        value = weight * values[a]
        row = phi[k]
        for t0 in range(l0):
            v0 = u0 + t0
            if v0 >= n0:
                if not circular:
                    break
                v0 -= n0
            for t1 in range(0 if t0 == 0 else 1 - l1, l1):
                v1 = u1 + t1
                if v1 < 0 or v1 >= n1:
                    if not circular:
                        continue
                    v1 = v1 % n1
                low = 0 if t0 == 0 and t1 == 0 else 1 - l2
                line = (v0 * n1 + v1) * n2
                offset = (t0 * wide1 + t1) * wide2
                t2 = low
                while t2 < l2:
                    v2 = u2 + t2
                    if v2 < 0 or v2 >= n2:
                        if not circular:
                            if v2 >= n2:
                                break
                            t2 = -u2
                            continue
                        v2 = v2 % n2
                    run = min(l2 - t2, n2 - v2)
                    start = line + v2
                    shift = offset + t2 - start
                    for b in range(first[start], first[start + run]):
                        row[near_atoms[b], shift + near_positions[b]] += value * near_values[b]
                    t2 += run


@kernel
def correlate_signal(indices, values, signal, shape, weight, psi):
    """psi[k, c, l] += weight * sum_u z_k[u] x_c[u + l] for some k.

    Parameters
    ----------
    indices, values : sorted non-zeros of the maps of some atoms
    signal : (C, m0, m1, m2), continued so far that every u + l lies inside
    shape : int64[3], positions along each axis
    weight : float64
    psi : (K, C, l0, l1, l2) float64, updated in place
    """
    n1, n2 = shape[1], shape[2]
    n_positions = shape[0] * n1 * n2
    n_channels, l0, l1, l2 = psi.shape[1], psi.shape[2], psi.shape[3], psi.shape[4]
    for a in range(len(indices)):
        k, u = indices[a] // n_positions, indices[a] % n_positions
        u0, u1, u2 = u // (n1 * n2), u // n2 % n1, u % n2
        value = weight * values[a]
        for c in range(n_channels):
            for i in range(l0):
                for j in range(l1):
                    line = signal[c, u0 + i, u1 + j]
                    sums = psi[k, c, i, j]
                    for m in range(l2):
                        sums[m] += value * line[u2 + m]
