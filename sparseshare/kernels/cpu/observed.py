"""The Gram matrix of the atoms over the observed entries of one signal, row by row and only where a solver asks.

A mask gives every signal a Gram matrix of its own. Of its K rows a code of m atoms needs m, and each is a sum of as
many rows of the transposed dictionary as entries are observed.
"""

from typing import NamedTuple

import numpy as np

from .jit import inline, part
from .vectors import SLOTS, squared_rows, sweep, weighted_rows

_FAINT = 1e-30  # of a squared norm: below, float32 loses it
_BOOST = 2.0**60  # what brings entries back whose squares are lost


class Observed(NamedTuple):
    """What a mask leaves of the atoms.

    Attributes
    ----------
    atoms, transposed : (K, n) and (n, K) arrays, D and D'
    features : (n,) int32 array, the entries that are observed first
    size : (1,) int64 array, how many these are
    scale : (K,) array, s: the Gram matrix is that of the atoms s_k d_k
    ridge : (K,) array, what the diagonal has more, in units of d_k
    diagonal : (K,) array, of that Gram matrix
    factor : (n,) array, scratch
    top_value, top_atom : (16,) arrays, scratch
    """

    atoms: np.ndarray
    transposed: np.ndarray
    features: np.ndarray
    size: np.ndarray
    scale: np.ndarray
    ridge: np.ndarray
    diagonal: np.ndarray
    factor: np.ndarray
    top_value: np.ndarray
    top_atom: np.ndarray


@inline
def observed_atoms(atoms, transposed, ridge):
    """Room for the masks of a tile's signals, one after the other; no entry is observed yet."""
    n_atoms, n_features = atoms.shape
    return Observed(
        atoms, transposed, np.zeros(n_features, np.int32), np.zeros(1, np.int64), np.zeros(n_atoms, atoms.dtype),
        ridge, np.zeros(n_atoms, atoms.dtype), np.zeros(n_features, atoms.dtype), np.zeros(SLOTS, atoms.dtype),
        np.zeros(SLOTS, np.int32),
    )  # fmt: skip


@part
def observe(observed, missing):
    """List the observed features, for `missing` (n,) bool; returns how many."""
    n = np.int64(0)
    for f in range(missing.shape[0]):
        observed.features[n] = f
        n += not missing[f]
    observed.size[0] = n
    return n


@part
def observed_norms(observed):
    """Squared norms over the observed features, in `diagonal`; returns the largest, and the square of their unit.

    The unit is 1 unless all norms are so small that their squares would be lost.
    """
    boost2 = 1.0
    observed.factor[0] = 1
    squared_rows(observed.transposed, observed.features, observed.factor, observed.size[0], observed.diagonal)
    largest = _largest(observed)
    if largest < _FAINT:
        boost2 = _BOOST**2
        observed.factor[0] = _BOOST
        squared_rows(observed.transposed, observed.features, observed.factor, observed.size[0], observed.diagonal)
        largest = _largest(observed)
    return float(largest), boost2


@part
def _largest(observed):
    diagonal = observed.diagonal
    return diagonal[
        sweep(
            diagonal, observed.transposed, observed.features, observed.factor, 0, None, True, diagonal,
            observed.top_value, observed.top_atom,
        )
    ]  # fmt: skip


@part
def gram_row(observed, j, out):
    """out = row j of the Gram matrix."""
    scale, factor, n = observed.scale, observed.factor, observed.size[0]
    for a in range(n):
        factor[a] = scale[j] * observed.atoms[j, observed.features[a]]
    weighted_rows(observed.transposed, observed.features, factor, n, out)
    for k in range(out.shape[0]):
        out[k] *= scale[k]
    out[j] = observed.diagonal[j]


@part
def squared_norm(G, observed, j):
    """G_jj, with or without a mask."""
    if observed is not None:
        return observed.diagonal[j]
    return G[j, j]


@part
def correlate_code(observed, q, idx, coef, m, positive, g, top_value, top_atom):
    """The correlations g = q - G w of all atoms with the residual of any code w, and the largest score.

    By way of the signal that the code stands for, so that no row of G is needed.
    """
    scale, factor, n = observed.scale, observed.factor, observed.size[0]
    for a in range(n):
        total = factor[a] - factor[a]
        for b in range(m):
            total += coef[b] * scale[idx[b]] * observed.atoms[idx[b], observed.features[a]]
        factor[a] = total
    weighted_rows(observed.transposed, observed.features, factor, n, g)
    for k in range(g.shape[0]):
        g[k] = q[k] - scale[k] * g[k]
    for b in range(m):
        j = idx[b]
        g[j] -= observed.ridge[j] * scale[j] * scale[j] * coef[b]
    j = sweep(g, observed.atoms, idx, coef, 0, None, positive, g, top_value, top_atom)
    return g[j] if positive else abs(g[j])
