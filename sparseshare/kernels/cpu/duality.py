"""Certificates of the lasso: how far a code is from the optimum, from its correlations alone."""

from .jit import inline, part


@part
def duality_gap(q, g, idx, coef, m, norm2, alpha, top):
    """Primal minus dual objective of a code, with the dual point alpha / top times the residual.

    Parameters
    ----------
    q, g : (K,) arrays, the atoms' correlations with the signal and with the residual
    idx, coef : the code's atoms and values, of which the first m count
    norm2 : float, |x|^2
    alpha : float, the penalty
    top : float, the largest |g_j|, or the largest g_j if codes are to be non-negative

    Returns
    -------
    float, never negative: the two objectives are not subtracted, their difference is summed term by term.
    """
    scale = 1.0 if top <= alpha else float(alpha) / float(top)
    residual2, total = norm2, 0.0
    for a in range(m):
        w, gw = float(coef[a]), float(g[idx[a]])
        residual2 -= w * (float(q[idx[a]]) + gw)
        total += float(alpha) * abs(w) - scale * w * gw
    return 0.5 * (1.0 - scale) ** 2 * max(residual2, 0.0) + max(total, 0.0)


@part
def violation(g, idx, coef, m, alpha, top):
    """The largest breach of an optimality condition: g_a = alpha sign(w_a) on the support, no score above alpha."""
    worst = top - alpha
    for a in range(m):
        worst = max(worst, abs(g[idx[a]] - alpha) if coef[a] > 0 else abs(g[idx[a]] + alpha))
    return worst


@inline
def rounding_level(like):
    """The relative rounding error of a sum in the float type of an array."""
    return like.dtype.type(1e-6) if like.itemsize == 4 else like.dtype.type(1.8e-15)
