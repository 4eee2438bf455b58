"""What happens to signals before they meet an atom, and to codes after they have left the last one.

Signals enter the solvers scaled by a power of two to a largest entry in [1, 2), so that data of 1e-30 or 1e30 do not
under- or overflow when squared; a power of two costs no rounding. Codes leave as sorted rows of a CSR array, or spread
into a dense one.
"""

from math import ldexp, sqrt

from .jit import exact, kernel


@kernel
def scale_tile(X, bits, out, exponents, units, norms2):
    """Copy a tile scaled to out, row by row; return the first row with NaN or infinity, or -1.

    Parameters
    ----------
    X : (T, n) array of float32 or float64
    bits : (T, n) array, the same memory as int32 or int64: its largest magnitude is found by whole numbers, which
        vectorises, and tells NaN and infinity under any compiler flags
    out : (T or more, n) array of X's dtype; rows beyond T become 0
    exponents, units : (T,) int32 and float64, out: X = out * 2**exponent = out / unit
    norms2 : (T,) float64, out: squared norms of the rows of `out`
    """
    mantissa = 23 if X.itemsize == 4 else 52
    bias = 127 if X.itemsize == 4 else 1023
    magnitude = bits.dtype.type(0x7FFFFFFF) if X.itemsize == 4 else bits.dtype.type(0x7FFFFFFFFFFFFFFF)
    for i in range(X.shape[0]):
        row, scaled, row_bits = X[i], out[i], bits[i]
        largest = bits.dtype.type(0)
        for k in range(row.shape[0]):
            largest = max(largest, row_bits[k] & magnitude)
        power = largest >> mantissa
        if power > 2 * bias:
            return i
        # 2**-exponent is to be a normal number, so the very largest entries are left between 2 and 4.
        exponent = min(max(power - bias, 2 - bias), bias - 1) if largest > 0 else 0
        exponents[i] = exponent
        units[i] = ldexp(1.0, -exponent)
        factor = X.dtype.type(units[i])
        norm2 = 0.0
        for k in range(row.shape[0]):
            value = row[k] * factor
            scaled[k] = value
            norm2 += float(value) * float(value)
        norms2[i] = norm2
    for i in range(X.shape[0], out.shape[0]):
        for k in range(out.shape[1]):
            out[i, k] = 0
    return -1


@exact
def pack_tile(indices, values, counts, exponents, atom_scale, out_indices, out_values, lengths):
    """Codes of a tile as consecutive sorted rows without zeros, scaled back to the user's units.

    Parameters
    ----------
    indices, values, counts : (T, capacity), (T, capacity), (T,), as the solvers leave them; rows are sorted here
    exponents : (T,) int32, of the signals
    atom_scale : (K,) float64, units of each atom's code
    out_indices, out_values : (sum of counts or more,) int32 and the codes' dtype, out
    lengths : (T,) int64, out: entries of each row

    Returns
    -------
    int, entries written
    """
    entry = 0
    for i in range(len(counts)):
        row, code = indices[i], values[i]
        for a in range(1, counts[i]):  # short, and sorted already from some solvers
            j, value, b = row[a], code[a], a - 1
            while b >= 0 and row[b] > j:
                row[b + 1], code[b + 1] = row[b], code[b]
                b -= 1
            row[b + 1], code[b + 1] = j, value
        begin, unit = entry, ldexp(1.0, exponents[i])
        for a in range(counts[i]):
            if code[a] != 0:
                out_indices[entry] = row[a]
                out_values[entry] = float(code[a]) * unit * atom_scale[row[a]]
                entry += 1
        lengths[i] = entry - begin
    return entry


@exact
def spread_tile(indices, values, counts, exponents, atom_scale, out):
    """Codes of a tile into rows (T, n_components) of zeros, scaled back to the user's units."""
    for i in range(len(counts)):
        unit = ldexp(1.0, exponents[i])
        for a in range(counts[i]):
            j = indices[i, a]
            out[i, j] = float(values[i, a]) * unit * atom_scale[j]


@exact
def start_tile(indptr, indices, codes, exponents, atom_scale, out_indices, out_values, counts):
    """Codes to start from, rows of a CSR array in the user's units, as the solvers take them."""
    for i in range(len(counts)):
        m, unit = 0, ldexp(1.0, -exponents[i])
        for entry in range(indptr[i], indptr[i + 1]):
            j = indices[entry]
            if m < out_indices.shape[1] and codes[entry] != 0 and atom_scale[j] > 0:
                out_indices[i, m] = j
                out_values[i, m] = float(codes[entry]) / atom_scale[j] * unit
                m += 1
        counts[i] = m


@kernel
def certify_tile(values, counts, gaps, norms2, status, tol, rounding, relative, converged):
    """Relative duality gaps of a tile of lasso codes, none below what rounding allows to claim, and who has converged.

    `rounding` is the relative error of a correlation: the gap is uncertain by that times |x| |w|_1.
    """
    for i in range(len(counts)):
        norm1 = 0.0
        for a in range(counts[i]):
            norm1 += abs(float(values[i, a]))
        half = 0.5 * norms2[i] if norms2[i] > 0 else 1.0
        floor = rounding * sqrt(norms2[i]) * norm1 / half
        relative[i] = max(gaps[i] / half, floor)
        converged[i] = status[i] == 0 or relative[i] <= max(tol, floor)
