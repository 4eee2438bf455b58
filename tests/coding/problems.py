"""Problems as users type them, and what their codes are held to: certificates from signals, atoms and codes alone."""

from typing import NamedTuple

import numpy as np
from kernels.tile import problem

from reference import relative_gap

LASSO = ("lasso_lars", "lasso_cd", "ista", "fista")
PURSUITS = ("omp", "ols", "mp", "iht")
TOL = {np.float32: 2e-6, np.float64: 1e-8}  # what is asked for
MOST = {np.float32: 1e-5, np.float64: 1.1e-8}  # what a code of the type may miss
ENOUGH = 300_000  # iterations, for proximal gradient on coherent atoms


def signals_and_atoms(name, dtype, seed=0, n_signals=6):
    """Signals, the last one zero, and atoms as in the tests of the kernels."""
    X, D = problem(name, n_signals, seed)
    return X.astype(dtype), D.astype(dtype)


def typical_alpha(X, D, share):
    """A share of the middle one of the signals' largest useful penalties."""
    largest = np.abs(np.nan_to_num(X).astype(float) @ D.T.astype(float)).max(axis=1)
    return float(share * np.median(largest[largest > 0]))


class Lasso(NamedTuple):
    """A form of the lasso: the options that ask for it, and what they mean entry by entry."""

    options: dict
    signals: np.ndarray  # as sparse_encode is given them
    observed: np.ndarray  # (N, n)
    penalties: np.ndarray  # (N, K)
    l2: float
    positive: bool

    def gaps(self, D, codes):
        """Relative duality gaps in float64, from signals, atoms and codes alone."""
        X = np.where(self.observed, self.signals, 0)
        return np.array(
            [
                relative_gap(x, D * seen, w, alpha, self.positive, self.l2)
                for x, seen, w, alpha in zip(X, self.observed, codes, self.penalties, strict=True)
            ]
        )


FORMS = (
    "plain",
    "positive",
    "elastic net",
    "penalties of signals",
    "weights",
    "weights of signals",
    "atoms kept out",
    "free atoms",
    "free atoms of an elastic net",
    "mask",
    "nan",
    "many at once",
)


def lasso_form(form, X, D, share, seed=0):
    """The lasso that a form asks for, at a share of the largest useful penalty."""
    rng = np.random.default_rng(seed)
    alpha, many = typical_alpha(X, D, share), form == "many at once"
    options, weights, observed, l1_ratio = {"alpha": alpha}, np.ones(len(D)), np.ones(X.shape, bool), 1.0
    if form == "penalties of signals":
        options["alpha"] = alpha = alpha * rng.uniform(0.5, 2, len(X))
    if "weights" in form or "atoms" in form or many:
        weights = rng.uniform(0.5, 2, (len(X), len(D)) if form == "weights of signals" else len(D))
        if form == "atoms kept out" or many:
            weights[::5] = np.inf
        if "free" in form:
            weights[[1, 4]] = 0
        options["weights"] = weights
    if "elastic" in form or many:
        options["l1_ratio"] = l1_ratio = 0.7
    if form in ("mask", "nan") or many:
        observed = rng.random(X.shape) < 0.7
        observed[:, 0] = True
        if form == "nan":
            X = np.where(observed, X, X.dtype.type(np.nan))
        options["mask"] = "nan" if form == "nan" else ~observed
    if form == "positive" or many:
        options["positive"] = True
    penalties = np.broadcast_to(np.reshape(alpha, (-1, 1)) * l1_ratio * weights, (len(X), len(D)))
    return Lasso(options, X, observed, penalties, np.max(alpha) * (1 - l1_ratio), form == "positive" or many)
