"""How far the codes of unrolled steps are from exact ones, step by step."""

import numpy as np

from sparseshare.coding.encode import encode

from .unrolled_losses import objective

_JUDGE = 1e-9  # relative duality gap of the codes that errors are measured against


def error_curve(coder, X, device):
    """What `LearnedSparseCoder.error_curve` returns.

    Parameters
    ----------
    coder : LearnedSparseCoder
    X : float64 array of shape (n_samples, n_features)
    device : str

    Returns
    -------
    dict
    """
    options = dict(n_jobs=coder.n_jobs, dense=True, device=device)
    exact = encode(X, coder._problem(X.dtype, _JUDGE), **options).values
    dictionary, size = coder.components_.astype(np.float64), float((exact**2).sum())
    least = objective(X, exact, dictionary, coder.alpha)
    steps = np.arange(1, coder.n_steps + 1)
    code_error, objective_gap = ({name: [] for name in ("learned", "ista", "fista")} for _ in range(2))
    for n_steps in steps:
        for name in code_error:
            if name == "learned":
                codes = coder._codes(X.astype(coder.components_.dtype), int(n_steps)).astype(np.float64)
            else:
                problem = coder._problem(X.dtype, 0.0, algorithm=name, max_iter=int(n_steps))
                codes = encode(X, problem, **options).values
            code_error[name].append(_ratio(float(((codes - exact) ** 2).sum()), size))
            excess = objective(X, codes, dictionary, coder.alpha) - least
            objective_gap[name].append(_ratio(excess, least))
    return {
        "steps": steps,
        "code_error": {name: np.array(curve) for name, curve in code_error.items()},
        "objective_gap": {name: np.array(curve) for name, curve in objective_gap.items()},
    }


def _ratio(value, scale):
    return value / scale if scale > 0 else value
