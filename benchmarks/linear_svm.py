"""One-against-all linear SVM with squared hinge loss, all classes in one product: what Coates and Ng classify with.

scikit-learn's LinearSVC minimises the same for one class after the other, in float64 copies; on 60,000 signals of 3200
features that takes many times as long. L-BFGS alone needs many hundreds of iterations: pooled features are strongly
correlated. After a change of variables by the Cholesky factor of what the Hessian would be if all signals were inside
their margins, it needs a few dozen.
"""

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize


class LinearSVM:
    """Minimises 0.5 |w|^2 + C sum max(0, 1 - y (x w + b))^2 / n for every class, b free of penalty.

    Parameters
    ----------
    C : float
    max_iter : int
        Of L-BFGS.
    """

    def __init__(self, C, max_iter=100):
        self.C, self.max_iter = C, max_iter

    def fit(self, X, y, gram=None):
        """Learn from centred float32 features and labels 0, 1, ...; `gram` is X' X, if it is at hand."""
        n, d = X.shape
        if n < d:  # the weights lie in the span of the signals: solve there
            basis, coordinates = np.linalg.qr(X.T)
            inside = LinearSVM(self.C, self.max_iter).fit(np.ascontiguousarray(coordinates.T), y)
            self.weights = np.vstack([basis @ inside.weights[:-1], inside.weights[-1:]])
            self.n_iter = inside.n_iter
            return self
        signs = np.where(y[:, None] == np.arange(y.max() + 1), 1, -1).astype(X.dtype)
        shape = d + 1, signs.shape[1]
        factor = (2 * self.C / n) * (X.T @ X if gram is None else gram)
        factor[np.diag_indices(d)] += 1
        factor = cholesky(factor, lower=True, overwrite_a=True, check_finite=False)

        def weights_of(flat):
            weights = flat.reshape(shape).copy()
            weights[:-1] = solve_triangular(factor, weights[:-1], lower=True, trans=1, check_finite=False)
            return weights

        def loss(flat):
            weights = weights_of(flat)
            margins = X @ weights[:-1].astype(X.dtype)
            margins += weights[-1].astype(X.dtype)
            slack = np.maximum(1 - signs * margins, 0)
            pull = slack * signs
            gradient = np.empty(shape)
            gradient[:-1] = weights[:-1] - (2 * self.C / n) * (X.T @ pull)
            gradient[:-1] = solve_triangular(factor, gradient[:-1], lower=True, check_finite=False)
            gradient[-1] = -(2 * self.C / n) * pull.sum(axis=0, dtype=np.float64)
            value = 0.5 * (weights[:-1] ** 2).sum() + self.C / n * np.square(slack, dtype=np.float64).sum()
            return value, gradient.ravel()

        options = {"maxiter": self.max_iter, "maxcor": 20, "ftol": 1e-5}
        found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
        self.weights, self.n_iter = weights_of(found.x), found.nit
        return self

    def error(self, X, y):
        """Share of wrong labels, in per cent."""
        scores = X @ self.weights[:-1].astype(X.dtype) + self.weights[-1]
        return 100 * np.mean(scores.argmax(axis=1) != y)


def standardise(train, *others, epsilon=0.01, rows=4096):
    """Columns of mean 0 over sqrt(variance + epsilon), in place, by the first array."""
    mean = train.mean(axis=0, dtype=np.float64)
    parts = [train[i : i + rows] for i in range(0, len(train), rows)]
    variance = sum(np.square(part - mean, dtype=np.float64).sum(axis=0) for part in parts) / len(train)
    mean, scale = mean.astype(train.dtype), (1 / np.sqrt(variance + epsilon)).astype(train.dtype)
    for array in (train, *others):
        for i in range(0, len(array), rows):
            array[i : i + rows] -= mean
            array[i : i + rows] *= scale


def best_penalty(X, y, candidates, n_train):
    """The C of least error on the rows from `n_train` on, after learning from those before; and the errors."""
    gram = X[:n_train].T @ X[:n_train]
    errors = [LinearSVM(C).fit(X[:n_train], y[:n_train], gram).error(X[n_train:], y[n_train:]) for C in candidates]
    return candidates[int(np.argmin(errors))], errors
