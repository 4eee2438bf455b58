"""The lasso of signals with a mask each on a GPU, twin of `kernels.cpu.masked`: FISTA through the residual.

A mask takes a Gram matrix of its own to every signal, but only zeros to its residual: all signals share two matrix
products an iteration, whatever their masks.
"""

import numpy as np

from .proximal import fista_tile

_MOST = 100  # powers of two, at most, that make up for what a mask takes from the atoms
ITERATIONS = 20  # of FISTA for each round of the active set that the caller allows: they are many, and cost little


def masked_lasso_tile(
    Q, norms2, atoms, transposed, missing, ridge, alphas, tol, max_iter, positive, exponents, indices, values, counts,
    gaps, iterations, status,
):  # fmt: skip
    """As `active_set.lasso_path_tile`, for the error over the entries of each signal that are not missing.

    Parameters as of `kernels.cpu.masked.masked_lasso_tile`, all arrays on the device. At most `ITERATIONS * max_iter`
    iterations are made at a penalty. `transposed` is not used.
    """
    import cupy

    results = indices, values, counts, gaps, iterations, status
    each, alphas = observed(Q, atoms, missing, ridge, alphas, exponents, values[:, 0])
    for p in range(alphas.shape[1]):
        here = [cupy.ascontiguousarray(array[:, p]) for array in results]
        if p:
            for own, before in zip(here[:3], results[:3], strict=True):
                own[...] = before[:, p - 1]
        fista_tile(
            Q, norms2, None, cupy.ascontiguousarray(alphas[:, p]), each["step"], tol, ITERATIONS * max_iter, positive,
            *here, atoms=atoms, ridge=ridge, missing=missing, scales=each["scales"],
        )  # fmt: skip
        for array, own in zip(results, here, strict=True):
            array[:, p] = own


def observed(Q, atoms, missing, ridge, alphas, exponents, values):
    """Bring what masks leave of the atoms to the size that atoms have, by a power of two for each signal.

    Else all would be measured against atoms that are not there.

    Parameters
    ----------
    Q : (T, K) array
        Correlations; overwritten.
    atoms : (K, n) array
    missing : (T, n) bool array
    ridge : (K,) array
    alphas : (T, P) array
    exponents : (T,) int32 array
        The powers are added.
    values : (T, capacity) array
        Codes to start from; overwritten.

    Returns
    -------
    each : dict
        "step", one for each signal that never raises its error, and "scales", the factors.
    alphas : (T, P) array

    Notes
    -----
    The largest eigenvalue of what a mask leaves of D'D is at most that of D'D, its own trace, and its largest row sum.
    """
    import cupy

    exact = atoms.astype(np.float64)
    products = exact.T @ exact
    seen = cupy.logical_not(missing).astype(np.float64)
    trace = seen @ cupy.diagonal(products).copy()
    highest = ridge.max().astype(np.float64)
    longest = cupy.maximum(cupy.trace(products), len(atoms) * highest)
    left = cupy.maximum(trace, len(atoms) * highest)
    powers = cupy.floor(0.5 * cupy.log2(longest / cupy.where(left > 0, left, longest)))
    powers = cupy.clip(cupy.where(longest > 0, powers, 0), 0, _MOST)
    exact_scales = cupy.exp2(powers)
    rows = (seen @ cupy.abs(products) * seen).max(axis=1)
    most = cupy.minimum(cupy.minimum(trace, rows), cupy.linalg.eigvalsh(products)[-1])
    most = 1.001 * (most + highest) * exact_scales**2
    scales = exact_scales.astype(atoms.dtype)
    Q *= scales[:, None]
    values /= scales[:, None]
    exponents += powers.astype(np.int32)
    steps = cupy.where(most > 0, 1 / cupy.where(most > 0, most, 1), 1).astype(atoms.dtype)
    return {"step": steps, "scales": scales}, cupy.minimum(alphas * scales[:, None], alphas.dtype.type(1e30))
