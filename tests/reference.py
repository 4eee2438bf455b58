"""Slow and obvious versions of every solver, in float64 NumPy: the oracle of the tests.

One signal x (n,) and a dictionary D (K, n) with atoms of any norm in, a dense code w (K,) out. Functions that end in
`_rows` take many signals X (N, n) and one parameter for all or one a signal. Nothing here is shared with the package.
"""

import numpy as np


def lasso_objective(x, D, w, alpha, l2=0.0):
    """0.5 |x - w D|^2 + sum_j alpha_j |w_j| + 0.5 l2 |w|^2."""
    x, D, w = (np.asarray(a, dtype=float) for a in (x, D, w))
    residual = x - w @ D
    return 0.5 * residual @ residual + np.sum(alpha * np.abs(w)) + 0.5 * l2 * w @ w


def lasso_gap(x, D, w, alpha, positive=False, l2=0.0):
    """Duality gap of a code, from signal, dictionary and code alone; alpha a number or one for each atom.

    The elastic net is the lasso with sqrt(l2) I beside the dictionary and zeros beside the signal. An atom of penalty 0
    asks for a dual point at a right angle to it (signed codes only), one of infinite penalty for a code of 0.
    """
    x, D, w = (np.asarray(a, dtype=float) for a in (x, D, w))
    if l2 > 0:
        D = np.hstack([D, np.sqrt(l2) * np.eye(len(D))])
        x = np.concatenate([x, np.zeros(len(D))])
    alpha = np.broadcast_to(np.asarray(alpha, dtype=float), w.shape)
    residual = point = x - w @ D
    free = alpha == 0
    if free.any() and not free.all():
        point = residual - np.linalg.pinv(D[free]) @ (D[free] @ residual)
    correlations = D @ point
    score = correlations if positive else np.abs(correlations)
    bound = (score > alpha) & ~(free & (point is not residual))
    scale = np.min(alpha[bound] / score[bound], initial=1.0)
    penalty = np.multiply(alpha, np.abs(w), out=np.zeros_like(w), where=w != 0)
    if point is residual:
        return 0.5 * (1 - scale) ** 2 * residual @ residual + np.sum(penalty - scale * w * correlations)
    return 0.5 * residual @ residual + penalty.sum() - scale * point @ x + 0.5 * scale**2 * point @ point


def bounded_norm_gap(x, D, w, max_l1_norm, positive=False):
    """How far 0.5 |x - w D|^2 is at most above its least under |w|_1 <= max_l1_norm: the Frank-Wolfe gap."""
    x, D, w = (np.asarray(a, dtype=float) for a in (x, D, w))
    correlations = D @ (x - w @ D)
    top = max((correlations if positive else np.abs(correlations)).max(), 0.0)
    return max_l1_norm * top - w @ correlations


def bounded_error_gap(x, D, w, max_error, positive=False):
    """How far |w|_1 is at most above its least under |x - w D|^2 <= max_error, from the dual point r / max|D r|."""
    x, D, w = (np.asarray(a, dtype=float) for a in (x, D, w))
    residual = x - w @ D
    correlations = D @ residual
    top = (correlations if positive else np.abs(correlations)).max()
    return np.abs(w).sum() - (residual @ x - np.linalg.norm(residual) * np.sqrt(max_error)) / top


def relative_gap(x, D, w, alpha, positive=False, l2=0.0):
    """Duality gap over 0.5 |x|^2, what `tol` bounds; 0 for a zero signal with a zero code."""
    gap, energy = lasso_gap(x, D, w, alpha, positive, l2), 0.5 * np.sum(np.square(x, dtype=float))
    return gap / energy if energy > 0 else gap


def lasso(x, D, alpha, positive=False, l2=0.0, tol=1e-12, max_sweeps=100_000):
    """Lasso or elastic net by plain coordinate descent, to a relative duality gap of `tol`.

    alpha is a number or one for each atom. Where atoms are so coherent that descent crawls, it is helped on by the
    minimum for the signs as they stand, or the way there until a coefficient reaches zero.
    """
    x, D = np.asarray(x, dtype=float), np.asarray(D, dtype=float)
    alpha = np.broadcast_to(np.asarray(alpha, dtype=float), len(D))
    gram, correlations = D @ D.T, D @ x
    norms2 = np.diag(gram) + l2
    w = np.zeros(len(D))
    for sweep in range(max_sweeps):
        for j in np.flatnonzero(np.diag(gram)):
            t = correlations[j] - gram[j] @ w + gram[j, j] * w[j]
            shrunk = max(t - alpha[j], 0.0) - (0.0 if positive else max(-t - alpha[j], 0.0))
            w[j] = shrunk / norms2[j]
        while sweep % 10 == 9 and w.any():
            on = np.flatnonzero(w)
            system = gram[np.ix_(on, on)] + l2 * np.eye(len(on))
            slope = correlations[on] - alpha[on] * np.sign(w[on]) - system @ w[on]
            step = np.linalg.lstsq(system, slope, rcond=None)[0]
            crossing = np.flatnonzero((w[on] + step) * w[on] <= 0)
            if not len(crossing):
                w[on] += step
                break
            times = -w[on][crossing] / step[crossing]
            w[on] += times.min() * step
            w[on[crossing[times.argmin()]]] = 0.0
        if relative_gap(x, D, w, alpha, positive, l2) <= tol:
            break
    return w


def nonnegative_least_squares(x, D):
    """min |x - w D| over w >= 0, by the active-set method of Lawson and Hanson (1974)."""
    x, D = np.asarray(x, dtype=float), np.asarray(D, dtype=float)
    w, on = np.zeros(len(D)), np.zeros(len(D), dtype=bool)
    level = 1e-12 * max(np.abs(D @ x).max(initial=0.0), np.finfo(float).tiny)
    for _ in range(10 * len(D) + 10):
        gradient = D @ (x - w @ D)
        gradient[on] = -np.inf
        if on.all() or gradient.max() <= level:
            break
        on[gradient.argmax()] = True
        while True:
            target = np.zeros_like(w)
            target[on] = np.linalg.lstsq(D[on].T, x, rcond=None)[0]
            falling = on & (target <= 0)
            if not falling.any():
                w = target
                break
            steps = w[falling] / np.maximum(w[falling] - target[falling], np.finfo(float).tiny)
            w = w + steps.min() * (target - w)
            on &= w > 1e-14 * np.abs(w).max()
            w[~on] = 0.0
    return w


def lars(x, D, n_nonzero=None):
    """Least angle regression, which no atom leaves; the code when one more than `n_nonzero` atoms would join.

    Efron et al. 2004, equations 2.4 to 2.13, with atoms as they are (not normalised).
    """
    x, D = np.asarray(x, dtype=float), np.asarray(D, dtype=float)
    n_nonzero = min(D.shape) if n_nonzero is None else min(n_nonzero, *D.shape)
    w = np.zeros(len(D))
    start = np.abs(D @ x).max()
    on = [int(np.abs(D @ x).argmax())] if start > 0 and n_nonzero > 0 else []
    while on:
        g = D @ (x - w @ D)
        off = np.setdiff1d(np.arange(len(D)), on)
        level = np.abs(g[on]).max()
        direction = np.linalg.lstsq(D[on] @ D[on].T, np.sign(g[on]), rcond=None)[0]
        a = D @ (direction @ D[on])
        joins = [(level, -1)]
        for j in off:
            for sign in (1.0, -1.0):
                if 1 - sign * a[j] > 1e-12:
                    joins.append(((level - sign * g[j]) / (1 - sign * a[j]), int(j)))
        gamma, j = min((max(gamma, 0.0), j) for gamma, j in joins)
        w[on] += gamma * direction
        if j < 0 or len(on) == n_nonzero:
            break
        on.append(j)
    return w


def _pursuit(x, D, n_nonzero, max_error, score, positive=False):
    """Add the atom with the best score and refit by least squares, until a count or an error is met."""
    x, D = np.asarray(x, dtype=float), np.asarray(D, dtype=float)
    n_nonzero = min(D.shape) if n_nonzero is None else min(n_nonzero, *D.shape)
    on, w = [], np.zeros(len(D))
    level = 1e-12 * np.linalg.norm(x)
    while len(on) < n_nonzero:
        residual = x - w @ D
        if residual @ residual <= max(max_error, level**2):
            break
        scores = score(residual, D, on)
        scores[on] = 0.0
        j = int(scores.argmax())
        if scores[j] <= level or np.linalg.matrix_rank(D[[*on, j]]) == len(on):
            break
        on.append(j)
        if positive:
            w = np.zeros(len(D))
            w[on] = nonnegative_least_squares(x, D[on])
            on = [a for a in on if w[a] > 0]
        else:
            w[on] = np.linalg.lstsq(D[on].T, x, rcond=None)[0]
    return w


def _by_angle(residual, D, on):
    norms = np.linalg.norm(D, axis=1)
    return np.divide(np.abs(D @ residual), norms, out=np.zeros(len(D)), where=norms > 0)


def _by_positive_angle(residual, D, on):
    norms = np.linalg.norm(D, axis=1)
    return np.divide(D @ residual, norms, out=np.zeros(len(D)), where=norms > 0).clip(min=0)


def _by_residual(residual, D, on):
    """Correlation with the part of each atom that is orthogonal to the chosen ones: sqrt of the fall of |r|^2."""
    rest = D
    if on:
        basis = np.linalg.qr(D[on].T)[0]
        rest = D - (D @ basis) @ basis.T
    norms, full = np.linalg.norm(rest, axis=1), np.linalg.norm(D, axis=1)
    return np.divide(np.abs(rest @ residual), norms, out=np.zeros(len(D)), where=norms > 1e-8 * full)


def omp(x, D, n_nonzero=None, max_error=-1.0, positive=False):
    """Orthogonal matching pursuit; `max_error` bounds |x - w D|^2, a negative one is none."""
    return _pursuit(x, D, n_nonzero, max_error, _by_positive_angle if positive else _by_angle, positive)


def ols(x, D, n_nonzero=None, max_error=-1.0):
    """Orthogonal least squares: every atom is the one that lowers the residual most."""
    return _pursuit(x, D, n_nonzero, max_error, _by_residual)


def mp(x, D, n_nonzero=None, max_error=-1.0, max_steps=1000, positive=False):
    """Matching pursuit; stops before a step that needs more than `n_nonzero` distinct atoms."""
    x, D = np.asarray(x, dtype=float), np.asarray(D, dtype=float)
    n_nonzero = len(D) if n_nonzero is None else n_nonzero
    w, norms2 = np.zeros(len(D)), np.sum(D * D, axis=1)
    level = 1e-13 * np.linalg.norm(x)
    chosen = set()
    for _ in range(max_steps):
        residual = x - w @ D
        scores = (_by_positive_angle if positive else _by_angle)(residual, D, [])
        j = int(scores.argmax())
        if residual @ residual <= max_error or scores[j] <= level or len(chosen | {j}) > n_nonzero:
            break
        chosen.add(j)
        w[j] += D[j] @ residual / norms2[j]
    return w


def hard_threshold(w, n_nonzero, positive=False):
    """Keep the largest entries (by magnitude, or the largest positive ones), earlier ones first where they tie."""
    score = np.maximum(w, 0.0) if positive else np.abs(w)
    order = np.argsort(-score, kind="stable")[:n_nonzero]
    kept = np.zeros_like(w)
    kept[order] = np.where(score[order] > 0, w[order], 0.0)
    return kept


def iht(x, D, n_nonzero, tol=1e-6, max_iter=1000, positive=False):
    """Normalised iterative hard thresholding with steps that never raise the residual, and a refit at the end."""
    x, D = np.asarray(x, dtype=float), np.asarray(D, dtype=float)
    w, energy = np.zeros(len(D)), x @ x
    safe = 1 / np.linalg.norm(D, 2) ** 2
    for _ in range(max_iter):
        residual = x - w @ D
        g = D @ residual
        on = np.flatnonzero(w) if w.any() else np.flatnonzero(hard_threshold(g, n_nonzero, positive))
        curvature = np.sum((g[on] @ D[on]) ** 2)
        step = max(g[on] @ g[on] / curvature, safe) if curvature > 0 else safe
        while True:
            new = hard_threshold(w + step * g, n_nonzero, positive)
            new_residual = x - new @ D
            if new_residual @ new_residual <= residual @ residual or step <= safe:
                break
            step = max(step / 2, safe)
        same = np.array_equal(np.flatnonzero(new), np.flatnonzero(w))
        w = new
        if same and residual @ residual - new_residual @ new_residual <= tol * energy:
            break
    on = np.flatnonzero(w)
    if len(on):
        fit = nonnegative_least_squares if positive else lambda x, D: np.linalg.lstsq(D.T, x, rcond=None)[0]
        w[on] = fit(x, D[on])
    return w


def soft_threshold(v, threshold, positive=False):
    """sign(v) max(|v| - threshold, 0), without the negative half if positive."""
    v = np.asarray(v, dtype=float)
    return np.maximum(v - threshold, 0.0) - (0.0 if positive else np.maximum(-v - threshold, 0.0))


def threshold(x, D, alpha, positive=False):
    """Soft-thresholded correlations."""
    return soft_threshold(np.asarray(D, dtype=float) @ np.asarray(x, dtype=float), alpha, positive)


def rows(solver, X, D, parameter, **options):
    """Codes (N, K) of many signals; `parameter`, the solver's third argument, is one for all or one for each."""
    parameters = np.broadcast_to(parameter, len(X))
    return np.stack([solver(x, D, value, **options) for x, value in zip(X, parameters.tolist(), strict=True)])
