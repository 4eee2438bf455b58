"""Steps of ADMM for convolutional coding: thresholds and multipliers, in one pass over the maps.

Maps are (J, K, P) arrays, J signals, K atoms and P grid points. Blocks of atoms start at atom `first` of the whole.
"""

from math import sqrt

from .jit import kernel

N_SUMS = 5


@kernel
def threshold_step(y, u, change, first, weights, level, joint, relaxation, positive, sums):
    """Threshold and multiplier of a block of atoms, once the x-step is known; leaves y - u for the next one.

    With v = y - u and x = v + change: x <- relaxation x + (1 - relaxation) y, y <- prox(x + u), u <- u + x - y.

    Parameters
    ----------
    y, u : (J, K, P) arrays, updated in place
    change : (J, n, P) array; in: what the x-step adds to y - u, out: the new y - u
    first : int
    weights : (K or 1, P or 1) array of the same type; infinity holds a coefficient at 0
    level : float, alpha / rho
    joint : float, 0 to 1
    relaxation : float
    positive : bool
    sums : (5,) float64 array, added to: |x - y|^2, |x|^2, |y|^2, |change of y|^2, |u|^2
    """
    n_signals, n_atoms, n_points = change.shape
    zero = change.dtype.type(0)
    height, both = change.dtype.type(level), change.dtype.type(relaxation)
    rest, single, group = both - change.dtype.type(1), change.dtype.type(1 - joint), change.dtype.type(joint)
    for k in range(n_atoms):
        w = weights[first + k if weights.shape[0] > 1 else 0]
        step = 1 if w.shape[0] > 1 else 0
        if joint == 0:
            for j in range(n_signals):
                old_y, old_u, new = y[j, first + k], u[j, first + k], change[j, k]
                apart, size_x, size_y, moved, size_u = zero, zero, zero, zero, zero
                for p in range(n_points):
                    before = old_y[p]
                    x = both * (before - old_u[p] + new[p]) - rest * before
                    total = x + old_u[p]
                    bound = height * w[p * step]
                    kept = max(total - bound, zero)
                    if not positive:
                        kept += min(total + bound, zero)
                    multiplier = total - kept
                    old_y[p], old_u[p], new[p] = kept, multiplier, kept - multiplier
                    apart += (x - kept) * (x - kept)
                    size_x += x * x
                    size_y += kept * kept
                    moved += (kept - before) * (kept - before)
                    size_u += multiplier * multiplier
                sums[0] += apart
                sums[1] += size_x
                sums[2] += size_y
                sums[3] += moved
                sums[4] += size_u
        else:
            apart, size_x, size_y, moved, size_u = zero, zero, zero, zero, zero
            for p in range(n_points):
                open_here = w[p * step] < 1e30
                bound = height * w[p * step] if open_here else zero
                norm2 = zero
                for j in range(n_signals):
                    before = y[j, first + k, p]
                    x = both * (before - u[j, first + k, p] + change[j, k, p]) - rest * before
                    change[j, k, p] = x
                    total = x + u[j, first + k, p]
                    kept = max(total - single * bound, zero)
                    if not positive:
                        kept += min(total + single * bound, zero)
                    norm2 += kept * kept
                share = zero
                if open_here and norm2 > zero:
                    share = max(change.dtype.type(1) - group * bound / change.dtype.type(sqrt(norm2)), zero)
                for j in range(n_signals):
                    x, before = change[j, k, p], y[j, first + k, p]
                    total = x + u[j, first + k, p]
                    kept = max(total - single * bound, zero)
                    if not positive:
                        kept += min(total + single * bound, zero)
                    kept *= share
                    multiplier = total - kept
                    y[j, first + k, p], u[j, first + k, p] = kept, multiplier
                    change[j, k, p] = kept - multiplier
                    apart += (x - kept) * (x - kept)
                    size_x += x * x
                    size_y += kept * kept
                    moved += (kept - before) * (kept - before)
                    size_u += multiplier * multiplier
            sums[0] += apart
            sums[1] += size_x
            sums[2] += size_y
            sums[3] += moved
            sums[4] += size_u
