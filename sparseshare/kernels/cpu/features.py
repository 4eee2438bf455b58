"""Patches made ready for coding, and the nearest atom of each, for vector quantisation."""

import numpy as np

from .jit import exact, kernel

_LANES = 16


@exact
def load_patches(images, first, n, patch, stride, grid, epsilon, normalise, columns):
    """Patches `first`, `first` + 1, ... as columns, of mean 0 and over their contrast if asked for.

    As columns, because then one instruction works on neighbouring patches.

    Parameters
    ----------
    images : (B, H, W) array, channels merged with the last axis
    first, n : int, patches are numbered image by image, along the last axis of each; n of them
    patch, stride, grid : (2,) int64 arrays: size of a patch, steps between patches, patches along each axis
    epsilon : float of images' dtype, added to the variances
    normalise : bool
    columns : (patch0 * patch1, T) array, T >= n, out. Patches of no variance are exact zeros where normalise
    """
    p0, p1 = patch
    width, step = grid[1], stride[1]
    zero, count = images.dtype.type(0), images.dtype.type(p0 * p1)
    base, mean, scale = np.zeros(width, images.dtype), np.empty(width, images.dtype), np.empty(width, images.dtype)
    done = 0
    while done < n:
        number = first + done
        image = images[number // (grid[0] * width)]
        y, x = number // width % grid[0] * stride[0], number % width
        length = min(width - x, n - done)
        x *= step
        if normalise:
            # Less one pixel beforehand: what is constant becomes exactly zero, and little contrast keeps its digits.
            for j in range(length):
                base[j] = image[y, x + j * step]
                mean[j] = zero
                scale[j] = zero
            for a in range(p0):
                for b in range(p1):
                    line = image[y + a, x + b :]
                    for j in range(length):
                        mean[j] += line[j * step] - base[j]
            for j in range(length):
                mean[j] /= count
        for a in range(p0):
            for b in range(p1):
                line, column = image[y + a, x + b :], columns[a * p1 + b, done:]
                if normalise:
                    for j in range(length):
                        value = line[j * step] - base[j] - mean[j]
                        scale[j] += value * value
                        column[j] = value
                else:
                    for j in range(length):
                        column[j] = line[j * step]
        if normalise:
            for j in range(length):
                contrast = scale[j] / count + epsilon
                scale[j] = contrast ** images.dtype.type(-0.5) if contrast > zero else zero
            for f in range(p0 * p1):
                column = columns[f, done:]
                for j in range(length):
                    column[j] *= scale[j]
        done += length


@kernel
def nearest_atoms(Q, n, offsets, signed, labels, values):
    """The atom of the largest product with each of n signals, or of the largest in magnitude; the first of equals.

    Parameters
    ----------
    Q : (T, K) array, the products of signals and atoms; its first n rows count
    n : int
    offsets : (K,) array of Q's dtype, subtracted: half the squared norm of centres for the nearest in distance
    signed : bool, look at magnitudes
    labels, values : (n,) int64 and of Q's dtype, out: the atoms, and their products less their offsets
    """
    n_atoms = Q.shape[1]
    whole = n_atoms // _LANES * _LANES
    sizes, top = np.empty(n_atoms, Q.dtype), np.empty(_LANES, Q.dtype)
    for i in range(n):
        q = Q[i]
        if signed:
            for k in range(n_atoms):
                sizes[k] = abs(q[k] - offsets[k])
        else:
            for k in range(n_atoms):
                sizes[k] = q[k] - offsets[k]
        # Maxima of lanes: one running maximum over all would be a chain that no compiler may cut.
        for j in range(_LANES):
            top[j] = Q.dtype.type(-np.inf)
        for start in range(0, whole, _LANES):
            for j in range(_LANES):
                top[j] = max(top[j], sizes[start + j])
        largest = top[0]
        for j in range(1, _LANES):
            largest = max(largest, top[j])
        for k in range(whole, n_atoms):
            largest = max(largest, sizes[k])
        chosen = 0
        while chosen < whole:
            here = 0
            for j in range(chosen, chosen + _LANES):
                here += sizes[j] == largest
            if here > 0:
                break
            chosen += _LANES
        while chosen < n_atoms - 1 and sizes[chosen] != largest:
            chosen += 1
        labels[i], values[i] = chosen, q[chosen] - offsets[chosen]


@exact
def add_to_atoms(X, n, labels, values, weighted, sums, counts):
    """Add each of n signals to the sum of its atom, times its value if weighted.

    Parameters
    ----------
    X : (T, F) array, its first n rows count
    n : int
    labels, values : (n,) arrays
    weighted : bool
    sums : (K, F) float64 array, in and out
    counts : (K,) float64 array, in and out: signals an atom, or their squared values
    """
    for i in range(n):
        total, value = sums[labels[i]], (float(values[i]) if weighted else 1.0)
        for j in range(X.shape[1]):
            total[j] += value * X[i, j]
        counts[labels[i]] += value * value
