"""What happens to signals before they meet an atom, and to codes after they have left the last one.

Signals enter the solvers scaled by a power of two to a largest entry in [1, 2), so that data of 1e-30 or 1e30 do not
under- or overflow when squared; a power of two costs no rounding. Codes leave as sorted rows of a CSR array, or spread
into a dense one.
"""

from math import frexp, ldexp

import numpy as np

from .jit import exact


@exact
def scale_tile(X, out, exponents, norms2):
    """Copy a tile scaled to out, row by row; return the first row with NaN or infinity, or -1.

    Parameters
    ----------
    X : (T, n) array of float32 or float64
    out : (T or more, n) array of the same dtype; rows beyond T become 0
    exponents : (T,) int32, out: X = out * 2**exponent
    norms2 : (T,) float64, out: squared norms of the rows of `out`
    """
    for i in range(X.shape[0]):
        largest = 0.0
        for k in range(X.shape[1]):
            value = abs(float(X[i, k]))
            if not value <= largest:  # true for NaN too
                largest = value
            if value != value:
                return i
        if largest > 1.7976931348623157e308:
            return i
        exponent = frexp(largest)[1] - 1 if largest > 0 else 0
        exponents[i] = exponent
        # in two steps, each a power of two that exists
        first = ldexp(1.0, -(exponent // 2))
        second = ldexp(1.0, -(exponent - exponent // 2))
        norm2 = 0.0
        for k in range(X.shape[1]):
            value = float(X[i, k]) * first * second
            out[i, k] = value
            norm2 += value * value
        norms2[i] = norm2
    for i in range(X.shape[0], out.shape[0]):
        for k in range(out.shape[1]):
            out[i, k] = 0
    return -1


@exact
def count_entries(values, counts):
    """How many codes of a tile are not zero."""
    total = 0
    for i in range(len(counts)):
        for a in range(counts[i]):
            total += values[i, a] != 0
    return total


@exact
def pack_tile(indices, values, counts, exponents, atom_scale, out_indices, out_values, lengths):
    """Codes of a tile as consecutive sorted rows, scaled back to the user's units.

    Parameters
    ----------
    indices, values, counts : (T, capacity), (T, capacity), (T,), as the solvers leave them, in any order
    exponents : (T,) int32, of the signals
    atom_scale : (K,) float64, units of each atom's code
    out_indices, out_values : (entries,) int32 and the codes' dtype, out
    lengths : (T,) int64, out: entries of each row
    """
    entry = 0
    for i in range(len(counts)):
        row, code, m = indices[i], values[i], counts[i]
        order = np.argsort(row[:m])
        begin = entry
        for a in order:
            if code[a] != 0:
                out_indices[entry] = row[a]
                out_values[entry] = ldexp(float(code[a]) * atom_scale[row[a]], exponents[i])
                entry += 1
        lengths[i] = entry - begin


@exact
def spread_tile(indices, values, counts, exponents, atom_scale, out):
    """Codes of a tile into rows (T, n_components) of zeros, scaled back to the user's units."""
    for i in range(len(counts)):
        for a in range(counts[i]):
            j = indices[i, a]
            out[i, j] = ldexp(float(values[i, a]) * atom_scale[j], exponents[i])


@exact
def start_tile(indptr, indices, codes, exponents, atom_scale, out_indices, out_values, counts):
    """Codes to start from, rows of a CSR array in the user's units, as the solvers take them."""
    for i in range(len(counts)):
        m = 0
        for entry in range(indptr[i], indptr[i + 1]):
            j = indices[entry]
            if m < out_indices.shape[1] and codes[entry] != 0 and atom_scale[j] > 0:
                out_indices[i, m] = j
                out_values[i, m] = ldexp(float(codes[entry]) / atom_scale[j], -exponents[i])
                m += 1
        counts[i] = m


@exact
def l1_norms(values, counts, out):
    """Sums of magnitudes of the codes of a tile, in the kernels' units, float64."""
    for i in range(len(counts)):
        total = 0.0
        for a in range(counts[i]):
            total += abs(float(values[i, a]))
        out[i] = total
