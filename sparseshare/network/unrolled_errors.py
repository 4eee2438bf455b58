"""How far the codes of unrolled steps are from exact ones, step by step."""

import numpy as np

from sparseshare.coding.encode import encode

from .unrolled_losses import objective

_JUDGE = 1e-9  # relative duality gap of the codes that errors are measured against


def error_curve(coder, blocks, device):
    """What `LearnedSparseCoder.error_curve` returns.

    Parameters
    ----------
    coder : LearnedSparseCoder
    blocks : iterable of float64 arrays of shape (n_rows, n_features)
    device : str

    Returns
    -------
    dict
    """
    options = dict(n_jobs=coder.n_jobs, dense=True, device=device)
    dictionary, steps = coder.components_.astype(np.float64), np.arange(1, coder.n_steps + 1)
    error, reached = ({name: np.zeros(len(steps)) for name in ("learned", "ista", "fista")} for _ in range(2))
    size = least = 0.0
    for X in blocks:
        exact = encode(X, coder._problem(X.dtype, _JUDGE), **options).values
        size += float((exact**2).sum())
        least += objective(X, exact, dictionary, coder.alpha)
        for n_steps in steps:
            for name in error:
                if name == "learned":
                    codes = coder._codes(X.astype(coder.components_.dtype), int(n_steps)).astype(np.float64)
                else:
                    problem = coder._problem(X.dtype, 0.0, algorithm=name, max_iter=int(n_steps))
                    codes = encode(X, problem, **options).values
                error[name][n_steps - 1] += float(((codes - exact) ** 2).sum())
                reached[name][n_steps - 1] += objective(X, codes, dictionary, coder.alpha)
    return {
        "steps": steps,
        "code_error": {name: sums / (size or 1.0) for name, sums in error.items()},
        "objective_gap": {name: (sums - least) / (least or 1.0) for name, sums in reached.items()},
    }
