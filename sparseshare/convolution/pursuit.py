"""Convolutional orthogonal matching pursuit: atoms one by one until a count or an error is reached."""

import numpy as np

from sparseshare.kernels.dispatch import kernels_for

from .maps import SparseMaps
from .problem import Solution
from .windows import Windows

_ROOM = 256  # atoms that arrays are made for at first; doubled when they are full
_ROUNDING = {4: 1e-6, 8: 1e-12}  # of a correlation, relative, by the size of the float
_FULL = 3  # outcome of the kernel


def solve(problem, *, n_nonzero_coefs=None, max_error=None, n_threads=1):
    """Choose the atom and position that the residual looks most like, refit all chosen ones, and again.

    "Most like" is the largest correlation over the norm of the atom, or of the part of it that is seen: that lies on
    the signal and counts in the error. Only the problem's signal, operator, mask and `positive` are used.

    Parameters
    ----------
    problem : ConvProblem
    n_nonzero_coefs : int or None, default=None
        Non-zeros of all maps together at most.
    max_error : float or None, default=None
        Squared norm of the weighted residual of the whole signal at which to stop.
    n_threads : int, default=1
        Of no use here: one choice waits for the other.

    Returns
    -------
    Solution
        With `SparseMaps`; `gap` is the squared norm of the weighted residual and `objective` half of it, `n_iter` are
        the choices made. Converged are codes that reached the count or the error, or a residual that no atom explains.

    Notes
    -----
    Pati, Rezaiifar, Krishnaprasad 1993. A refit changes the residual near the new atom only, so that correlations are
    taken anew there only, and the least-squares problem is solved by conjugate gradients that reach as far as
    coefficients move. With `positive` the chosen coefficients are kept non-negative as in Lawson and Hanson 1974: those
    that would fall below zero leave.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution.geometry import Geometry
    >>> from sparseshare.convolution.operator import Convolution
    >>> from sparseshare.convolution.problem import ConvProblem
    >>> from sparseshare.convolution.pursuit import solve
    >>> operator = Convolution(np.array([[[1.0, 2.0, 1.0]]]), Geometry((6,), (3,), "full"))
    >>> problem = ConvProblem(np.array([[[0.0, 1.0, 2.0, 1.0, 0.0, 0.0]]]), operator, None)
    >>> solve(problem, n_nonzero_coefs=1).maps.dense()
    array([[[0., 1., 0., 0.]]])
    """
    windows = Windows(problem)
    kernels = kernels_for("cpu", "conv_pursuit")
    limit = windows.signal.size if n_nonzero_coefs is None else min(n_nonzero_coefs, windows.signal.size)
    target = -1.0 if max_error is None else float(max_error)
    weighted = windows.weigh(windows.signal.copy())
    block = np.maximum(windows.support // 2, 1)
    shape = (len(windows.signal), *-(-windows.positions // block))
    blocks = kernels.Blocks(np.zeros(shape), np.zeros(shape, bool), np.zeros((*shape, 4), np.int64))
    grid = kernels.Grid(block, windows.offset, windows.positions, windows.n_cells)
    place = (
        _atoms(kernels, windows.atoms),
        grid,
        weighted,
        np.empty((0,) * 5) if windows.weight is None else windows.weight,  # None would be another type
        windows.wraps,
        bool(problem.positive),
        blocks,
    )
    heads = np.full((len(windows.signal), *windows.n_cells), -1, np.int64)
    counts, level = np.zeros(4, np.int64), np.array([2 * problem.energy, 0.0])
    chosen, edges = kernels.Chosen(*_chosen(_ROOM)), kernels.Edges(*_edges(16 * _ROOM))
    while True:
        outcome = kernels.pursue(
            *place, limit, target, _ROUNDING[problem.dtype.itemsize], heads, chosen, edges, counts, level
        )
        if outcome != _FULL:
            break
        if counts[0] == len(chosen.values):
            chosen = kernels.Chosen(*map(_doubled, chosen))
        else:
            edges = kernels.Edges(*map(_doubled, edges))
    indices = windows.join(chosen.signals, chosen.atom_of, chosen.corners)
    used = np.flatnonzero(chosen.active & (chosen.values != 0))
    used = used[np.argsort(indices[used])]
    indices, values = indices[used], chosen.values[used]
    residual = windows.residual(indices, values[:, None])
    error = float((residual * windows.weigh(residual)).sum())
    maps = SparseMaps(indices, values.astype(problem.dtype), problem.maps_shape)
    return Solution(maps, 0.5 * error, error, int(counts[3]), outcome == 0)


def _atoms(kernels, atoms):
    """Atoms in the forms of the kernels."""
    norms2 = (atoms**2).sum(axis=(1, 2, 3, 4))
    inverse_norms = np.divide(1, np.sqrt(norms2), out=np.zeros_like(norms2), where=norms2 > 0)
    atoms_last = np.ascontiguousarray(np.moveaxis(atoms, 0, -1))
    return kernels.Atoms(atoms, atoms_last, atoms_last**2, inverse_norms)


def _chosen(size):
    """Arrays of chosen atoms: signal, atom, corner, next one of its cell, in use, squared norm, value, first edge."""
    return [
        np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros((size, 3), np.int64), np.zeros(size, np.int64),
        np.zeros(size, bool), np.zeros(size), np.zeros(size), np.zeros(size, np.int64),
    ]  # fmt: skip


def _edges(size):
    """Arrays of overlaps: the other atom, inner product, next edge of the same atom."""
    return [np.zeros(size, np.int64), np.zeros(size), np.zeros(size, np.int64)]


def _doubled(array):
    return np.concatenate([array, np.zeros_like(array)])
