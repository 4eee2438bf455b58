"""The lasso of signals with a mask each on a GPU, twin of `kernels.cpu.masked`: FISTA through the residual.

A mask takes a Gram matrix of its own to every signal, but only zeros to its residual: all signals share two matrix
products an iteration, whatever their masks.
"""

import numpy as np

from .proximal import fista_tile

ITERATIONS = 20  # of FISTA for each round of the active set that the caller allows: they are many, and cost little


def masked_lasso_tile(
    Q, norms2, atoms, transposed, missing, ridge, alphas, tol, max_iter, positive, exponents, indices, values, counts,
    gaps, iterations, status,
):  # fmt: skip
    """As `active_set.lasso_path_tile`, for the error over the entries of each signal that are not missing.

    Parameters as of `kernels.cpu.masked.masked_lasso_tile`, all arrays on the device. `Q` and `exponents` stay as they
    are, and at most `ITERATIONS * max_iter` iterations are made at a penalty. `transposed` is not used.
    """
    import cupy

    steps = masked_steps(atoms, missing, ridge)
    results = indices, values, counts, gaps, iterations, status
    n_penalties = alphas.shape[1]
    for p in range(n_penalties):
        here = [cupy.ascontiguousarray(array[:, p]) for array in results]
        if p:
            for own, before in zip(here[:3], results[:3], strict=True):
                own[...] = before[:, p - 1]
        fista_tile(
            Q, norms2, None, cupy.ascontiguousarray(alphas[:, p]), steps, tol, ITERATIONS * max_iter, positive, *here,
            atoms=atoms, ridge=ridge, missing=missing,
        )  # fmt: skip
        for array, own in zip(results, here, strict=True):
            array[:, p] = own


def masked_steps(atoms, missing, ridge):
    """A step that never raises the error, for every signal of a tile with a mask each.

    Parameters
    ----------
    atoms : (K, n) array
    missing : (T, n) bool array
    ridge : (K,) array

    Returns
    -------
    (T,) array of the atoms' dtype

    Notes
    -----
    The largest eigenvalue of what a mask leaves of D'D is at most that of D'D, its own trace, and its largest row sum.
    """
    import cupy

    products = atoms.T.astype(np.float64) @ atoms.astype(np.float64)
    seen = cupy.logical_not(missing).astype(np.float64)
    trace = seen @ cupy.diagonal(products).copy()
    rows = (seen @ cupy.abs(products) * seen).max(axis=1)
    most = cupy.minimum(cupy.minimum(trace, rows), cupy.linalg.eigvalsh(products)[-1])
    most = 1.001 * (most + ridge.max())
    return cupy.where(most > 0, 1 / cupy.where(most > 0, most, 1), 1).astype(atoms.dtype)
