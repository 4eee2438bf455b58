"""The duality gap of least squares with a sparse penalty: how far above the least an objective can be.

For 0.5 |A z - b|^2 + Omega(z) every theta with Omega*(A' theta) <= 1 gives the lower bound <b, theta> - 0.5 |theta|^2.
A residual theta = b - A z becomes feasible when it is scaled down, and at the optimum it need not be.
"""

from math import inf

import numpy as np

from sparseshare.devices import array_module

from .reductions import highest


def scaled_dual_value(product, norm2, most):
    """Largest dual value among the multiples s * theta, 0 <= s <= most, of a point theta.

    Parameters
    ----------
    product : float
        <b, theta>.
    norm2 : float
        |theta|^2.
    most : float
        The largest feasible multiple: alpha over the least alpha at which theta is feasible; may be infinite.

    Returns
    -------
    float
        At least 0, the value of theta = 0.

    Notes
    -----
    The largest feasible multiple is not always the best one (El Ghaoui et al. 2012, section 3.3).

    Examples
    --------
    >>> from sparseshare.optimization.duality import scaled_dual_value
    >>> scaled_dual_value(product=2.0, norm2=1.0, most=1.0)
    1.5
    """
    if product <= 0 or norm2 <= 0 or not most > 0:
        return 0.0
    scale = min(product / norm2, most)
    return scale * product - 0.5 * scale * scale * norm2


def multiple_within(alpha, needed):
    """The largest multiple of a point that is feasible at `alpha`, when the point itself needs `needed`.

    Parameters
    ----------
    alpha : float
    needed : float
        `SparsePenalty.largest_alpha` of the point's correlations.

    Returns
    -------
    float
    """
    return alpha / needed if needed > 0 else inf


def without(directions, residual):
    """Part of each residual that is orthogonal to some directions, which may depend on each other.

    Parameters
    ----------
    directions : array of shape (n_directions, n_signals, n)
    residual : array of shape (n_signals, n)

    Returns
    -------
    array of shape (n_signals, n), float64
    """
    xp = array_module(residual)
    residual = residual.astype(np.float64)
    directions = directions.astype(np.float64)
    for j, row in enumerate(residual):
        basis, scales, _ = xp.linalg.svd(directions[:, j].T, full_matrices=False)
        basis = basis[:, scales > 1e-7 * xp.maximum(highest(scales), 1e-300)]
        for _ in range(2):  # once more for the rounding of the first
            row -= basis @ (basis.T @ row)
    return residual
