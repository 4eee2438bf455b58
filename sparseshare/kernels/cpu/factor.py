"""The inverse of the Cholesky factor of the active atoms' Gram matrix, kept up to date as atoms come and go.

With G_AA = L L', the kernels keep R = inv(L) by rows (`lower`: row a ends at column a) and by columns (`upper`: row a
starts at column a), so that R b and R' y are sums of rows: no chain of divisions as in a triangular solve, and full
vectors from the second atom on. R is as well conditioned as L; an explicit inverse of G_AA is not, and fails in
float32.

Both triangles are (capacity, capacity), capacity a multiple of 16, rows of 64-byte vectors; whatever lies outside the
first m rows and columns is finite, and 0 inside the last vector that those m reach.
"""

from math import sqrt

import numpy as np

from .jit import inline, part
from .vectors import SLOTS, combine_lower, combine_upper, dot


@inline
def capacity_for(count):
    """Room for `count` atoms in full vectors, and one vector to spare."""
    return (count + SLOTS - 1) // SLOTS * SLOTS + SLOTS


@part
def project_atom(gram_row, idx, m, upper, column, projection):
    """projection = R G_Aj for atom j with row `gram_row` of G; return |projection|^2. `column` is scratch."""
    for a in range(m):
        column[a] = gram_row[idx[a]]
    return project_column(column, m, upper, projection)


@part
def project_column(column, m, upper, projection):
    """As `project_atom`, for the atom's inner products with the active ones, G_Aj, in `column`."""
    for a in range(m, min(m + 4, column.shape[0])):
        column[a] = 0
    if m == 0:
        return column.dtype.type(0)
    combine_upper(upper, column, 0, m, projection)
    return dot(projection, projection, m)


@part
def append_atom(projection, pivot2, m, lower, upper, expansion):
    """Make room for an atom: row m of R from its projection and its squared distance from the span, pivot2 > 0.

    `expansion` receives inv(G_AA) G_Aj, the atom's coefficients on the earlier ones.
    """
    inverse = 1 / sqrt(pivot2)
    if m > 0:
        clear_tail(projection, m)
        combine_lower(lower, projection, 0, m, expansion)
    new_lower, new_upper = lower[m], upper[m]
    end = (m + SLOTS) // SLOTS * SLOTS
    for a in range(end):
        new_upper[a] = 0
    for a in range(m):
        r = -inverse * expansion[a]
        new_lower[a] = r
        upper[a, m] = r
    new_lower[m] = inverse
    new_upper[m] = inverse
    for a in range(m + 1, end):
        new_lower[a] = 0
    if m % SLOTS == 0:  # a new vector begins: the older rows have not been written there
        for a in range(m):
            old_lower, old_upper = lower[a], upper[a]
            for b in range(m + 1, end):
                old_upper[b] = 0
            for b in range(m, end):
                old_lower[b] = 0


@part
def solve(b, first, m, lower, upper, y, x):
    """x = inv(G_AA) b, where b is 0 before `first`; b must be 0 from m to the next multiple of four."""
    combine_upper(upper, b, first // 4 * 4, m, y)
    clear_tail(y, m)
    combine_lower(lower, y, 0, m, x)


@inline
def clear_tail(x, m):
    for a in range(m, min((m + 3) // 4 * 4, x.shape[0])):
        x[a] = 0


@part
def delete_atom(d, m, lower, upper):
    """Take atom d out of R: rotate its column into the last row, which then leaves."""
    end = (m + SLOTS - 1) // SLOTS * SLOTS
    for c in range(d, m - 1):
        row, below = lower[c], lower[c + 1]
        a, b = row[d], below[d]
        h = sqrt(a * a + b * b)
        if h > 0:
            cos, sin = b / h, a / h
            for k in range(end):
                x, y = row[k], below[k]
                row[k] = cos * x - sin * y
                below[k] = sin * x + cos * y
    for c in range(d, m - 1):
        row = lower[c]
        for k in range(d, c + 1):
            row[k] = row[k + 1]
        for k in range(c + 1, end):
            row[k] = 0
    for b in range(m - 1):
        for a in range(max(b, d), m - 1):
            upper[b, a] = lower[a, b]
        upper[b, m - 1] = 0
    for b in range(d, m - 1):  # the columns moved: what was row b is another atom's now
        for a in range(b):
            upper[b, a] = 0
    for a in range(m):
        lower[m - 1, a] = 0
        upper[m - 1, a] = 0


@inline
def triangles(capacity, like):
    """Two empty triangles with room for `capacity` atoms."""
    return np.zeros((capacity, capacity), like.dtype), np.zeros((capacity, capacity), like.dtype)
