"""What is done to patches before they are coded: contrast normalisation and ZCA whitening, and the ways back."""

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sparseshare.devices import (
    Movable,
    array_module,
    computing_on,
    device_of,
    on_gpu,
    resolve_device,
    rows_that_fit,
    to_device,
    to_host,
)
from sparseshare.staging import StagedRows
from sparseshare.validation import check_number, check_resident, check_signals

_ROWS = 4096  # rows worked on at a time: their temporaries stay small
_COPIES = 6  # of a row that the work on a GPU makes at most, in float64
_RANK = 1e-12  # share of the largest eigenvalue below which an eigenvalue is rounding


class _RowTransformer(OneToOneFeatureMixin, Movable, TransformerMixin, BaseEstimator):
    """Dense rows of numbers in, as many columns out, float32 kept."""

    def _check(self, X, reset):
        """Rows where they live, and the device to compute on."""
        device = resolve_device(self.device, X, None if reset else vars(self).get("mean_"))
        if not on_gpu(X):
            return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32]), device
        validate_data(self, X, reset=reset, skip_check_array=True)
        return check_resident(check_signals(X)[0]), device

    def _check_back(self, X):
        """Rows to be turned back: without the names that a transformed frame may have lost."""
        if hasattr(X, "columns"):
            X = X.to_numpy()
        return self._check(X, reset=False)

    def _by_blocks(self, X, device, function):
        """``function(rows)`` of all rows, in an array where X lives."""
        out = array_module(X).empty(X.shape, X.dtype)
        for rows, block in blocks(X, device):
            out[rows] = function(block) if on_gpu(X) == on_gpu(block) else to_host(function(block))
        return out

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def blocks(X, device):
    """Rows of X with their numbers (a slice), a few at a time, on the device where they are worked on.

    Parameters
    ----------
    X : ndarray or CuPy array of shape (n, n_features)
    device : str
        "cpu" or "cuda:N".
    """
    if device == "cpu":
        for start in range(0, len(X), _ROWS):
            rows = slice(start, start + _ROWS)
            yield rows, X[rows]
        return
    with computing_on(device):
        n_rows = rows_that_fit(device, _COPIES * 8 * X.shape[1])
        pieces = StagedRows(X, X.dtype, device, n_rows)
        for rows, block in pieces:
            yield rows, block
            pieces.prefetch()


class ContrastNormalization(_RowTransformer):
    """Give every row mean 0 and, where there is contrast, variance near 1.

    A row x becomes ``(x - mean(x)) / sqrt(var(x) + epsilon)``. Constant rows become exact zeros.

    Parameters
    ----------
    epsilon : float, default=10.0
        Added to the variances, in squared units of the data: 10 is meant for grey values of 0 to 255 and tells flat
        patches from noise; for values of 0 to 1 it is ``10 / 255**2``. 0 gives all rows that are not constant
        variance 1.
    device : str, default="auto"
        "auto" computes where X lives: NumPy on the CPU, CuPy on its GPU. "cuda" and "cuda:N" move NumPy over in pieces,
        and return NumPy.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        For NaN, infinity, an epsilon below 0, and rows whose squares overflow.

    Notes
    -----
    Nothing is learned: `transform` needs no `fit`.

    References
    ----------
    A. Coates, H. Lee, A. Ng, An analysis of single-layer networks in unsupervised feature learning, AISTATS 2011,
    section 3.1.1.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.image import ContrastNormalization
    >>> patches = np.array([[0.0, 100, 0, 100], [7, 7, 7, 7]])
    >>> normalization = ContrastNormalization()
    >>> rows = normalization.transform(patches)
    >>> rows.round(3)
    array([[-0.998,  0.998, -0.998,  0.998],
           [ 0.   ,  0.   ,  0.   ,  0.   ]])
    >>> means, scales = normalization.statistics(patches)
    >>> normalization.inverse_transform(rows, means, scales).round(6)
    array([[  0., 100.,   0., 100.],
           [  7.,   7.,   7.,   7.]])
    """

    def __init__(self, epsilon=10.0, device="auto"):
        self.epsilon = epsilon
        self.device = device

    def fit(self, X, y=None):
        """Check the parameter and remember the number of columns.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        self._epsilon()
        self._check(X, reset=True)
        return self

    def transform(self, X):
        """Rows of mean 0 over their contrast.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            float32 if X is float32, else float64.
        """
        epsilon, (X, device) = self._epsilon(), self._check(X, reset=False)

        def normalize(rows):
            centred, _, scales = _centred(rows, epsilon)
            return centred / array_module(rows).where(scales > 0, scales, 1)

        return self._by_blocks(X, device, normalize)

    def statistics(self, X):
        """What `transform` removes: the means of the rows, and the numbers that it divides them by.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        means, scales : ndarrays of float64 of shape (n_samples,)
        """
        epsilon, (X, device) = self._epsilon(), self._check(X, reset=False)
        home, xp = device_of(X), array_module(X)
        means, scales = xp.empty(len(X)), xp.empty(len(X))
        for rows, block in blocks(X, device):
            _, mean, scale = _centred(block, epsilon)
            means[rows], scales[rows] = to_device(mean[:, 0], home), to_device(scale[:, 0], home)
        return means, scales

    def inverse_transform(self, X, means=None, scales=None):
        """Rows with their contrast, and with their means if these are given.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows as `transform` returns them, or something near them.
        means : array-like of shape (n_samples,), default=None
            To be added, as from `statistics`. None: the rows keep mean 0.
        scales : array-like of shape (n_samples,), default=None
            To be multiplied with, as from `statistics`. None computes them from the rows: a row of variance v had the
            scale ``sqrt(epsilon / (1 - v))``. That is exact for rows from `transform` up to rounding, which grows with
            the contrast, and only possible with an epsilon above 0 and variances below 1.

        Returns
        -------
        ndarray of shape (n_samples, n_features)

        Raises
        ------
        ValueError
            If `scales` is None and cannot be computed, or `means` or `scales` have another shape.
        """
        epsilon, (X, _) = self._epsilon(), self._check_back(X)
        resolve_device(self.device, X, means, scales)
        xp = array_module(X)
        means = xp.zeros(len(X)) if means is None else _one_a_row("means", means, X)
        if scales is not None:
            scales = _one_a_row("scales", scales, X)
        else:
            variances = xp.var(X, axis=1, dtype=np.float64)
            if epsilon == 0:
                raise ValueError("with epsilon=0 the contrast is lost: give scales, from statistics(X)")
            if bool((variances >= 1).any()):
                row = int((variances >= 1).argmax())
                raise ValueError(
                    f"row {row} of X has variance {float(variances[row]):g}; rows from transform have less than 1. "
                    "Give scales, from statistics(X)"
                )
            scales = xp.sqrt(epsilon / (1 - variances))
        return (X * scales[:, None] + means[:, None]).astype(X.dtype, copy=False)

    def _epsilon(self):
        return check_number("epsilon", self.epsilon, 0, of=type(self).__name__)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


class ZCAWhitening(_RowTransformer):
    """Take the correlations out of the columns and change the rows as little as that allows.

    A row x becomes ``(x - mean_) @ V diag(1 / sqrt(d + epsilon)) V'``, where ``V diag(d) V'`` is the covariance of the
    rows that `fit` saw (divided by their number).

    Parameters
    ----------
    epsilon : float, default=0.1
        Added to the eigenvalues d, in squared units of the data: directions of less variance are damped rather than
        blown up. 0.1 is meant for patches after `ContrastNormalization`. With 0, directions without variance are left
        out.
    device : str, default="auto"
        "auto" computes where X lives: NumPy on the CPU, CuPy on its GPU. "cuda" and "cuda:N" move NumPy over in pieces,
        and return NumPy. Fitted to CuPy arrays, the attributes are CuPy arrays.

    Attributes
    ----------
    mean_ : ndarray of float64 of shape (n_features,)
    covariance_ : ndarray of float64 of shape (n_features, n_features)
    whitening_ : ndarray of float64 of shape (n_features, n_features)
        ``V diag(1 / sqrt(d + epsilon)) V'``, symmetric.
    coloring_ : ndarray of float64 of shape (n_features, n_features)
        ``V diag(sqrt(d + epsilon)) V'``, its inverse (its pseudo-inverse where directions are left out).
    n_samples_seen_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        For NaN, infinity, an epsilon below 0, and columns whose squares overflow.

    References
    ----------
    A. Bell, T. Sejnowski, The "independent components" of natural scenes are edge filters, Vision Research 1997. With
    epsilon: A. Coates, A. Ng, The importance of encoding versus training with sparse coding and vector quantization,
    ICML 2011, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.image import ZCAWhitening
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1000, 2)) @ np.array([[2.0, 0], [1, 0.5]])
    >>> whitening = ZCAWhitening(epsilon=0).fit(X)
    >>> rows = whitening.transform(X)
    >>> np.allclose(np.cov(rows.T, bias=True), np.eye(2))
    True
    >>> np.allclose(whitening.inverse_transform(rows), X)
    True
    """

    def __init__(self, epsilon=0.1, device="auto"):
        self.epsilon = epsilon
        self.device = device

    def fit(self, X, y=None):
        """Compute means, covariance and the whitening matrix.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        X, device = self._check(X, reset=True)
        self.n_samples_seen_ = 0
        return self._learn(X, device)

    def partial_fit(self, X, y=None):
        """Add rows to those that means and covariance are computed from.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        first = not hasattr(self, "n_samples_seen_")
        X, device = self._check(X, reset=first)
        if first:
            self.n_samples_seen_ = 0
        return self._learn(X, device)

    def transform(self, X):
        """Whitened rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            float32 if X is float32, else float64.
        """
        check_is_fitted(self)
        X, device = self._check(X, reset=False)
        mean, matrix = (to_device(array.astype(X.dtype), device) for array in (self.mean_, self.whitening_))
        return self._by_blocks(X, device, lambda rows: (rows - mean) @ matrix)

    def inverse_transform(self, X):
        """Rows whose whitening is given, mean included.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        X, device = self._check_back(X)
        mean, matrix = (to_device(array.astype(X.dtype), device) for array in (self.mean_, self.coloring_))
        return self._by_blocks(X, device, lambda rows: rows @ matrix + mean)

    def _learn(self, X, device):
        """Merge the moments of X with those so far, block by block (Chan, Golub, LeVeque 1983), and take roots."""
        epsilon = check_number("epsilon", self.epsilon, 0, of=type(self).__name__)
        n_features = X.shape[1]
        if self.n_samples_seen_ == 0:
            mean, scatter, count = np.zeros(n_features), np.zeros((n_features, n_features)), 0
        else:
            count = self.n_samples_seen_
            mean, scatter = self.mean_, self.covariance_ * count
        mean, scatter = to_device(mean, device), to_device(scatter, device)
        with np.errstate(over="ignore", invalid="ignore"):
            for _, rows in blocks(X, device):
                rows = rows.astype(np.float64, copy=False)
                block_mean = rows.mean(axis=0)
                rows = rows - block_mean
                step, total = block_mean - mean, count + len(rows)
                scatter = scatter + rows.T @ rows + step[:, None] * step * (count * len(rows) / total)
                mean, count = mean + step * (len(rows) / total), total
        mean, scatter = to_host(mean), to_host(scatter)
        if not np.isfinite(scatter).all():
            raise ValueError("X has values whose squares overflow: scale it down")
        values, vectors = np.linalg.eigh(scatter / count)
        values = np.maximum(values, 0)
        kept = values > _RANK * values[-1] if epsilon == 0 else np.ones(n_features, bool)
        roots = np.sqrt(values[kept] + epsilon)
        vectors = vectors[:, kept]
        self.n_samples_seen_, home = count, device_of(X)
        self.mean_, self.covariance_ = to_device(mean, home), to_device(scatter / count, home)
        self.whitening_ = to_device((vectors / roots) @ vectors.T, home)
        self.coloring_ = to_device((vectors * roots) @ vectors.T, home)
        return self


def _centred(rows, epsilon):
    """Rows without their means, and means and contrasts as columns of float64."""
    xp, first = array_module(rows), rows[:, :1]
    with np.errstate(over="ignore", invalid="ignore"):
        # Less the first entry beforehand: what is constant becomes exactly zero, and little contrast keeps its digits.
        rows = rows - first
        means = rows.mean(axis=1, dtype=np.float64, keepdims=True)
        rows = rows - means.astype(rows.dtype)
        variances = xp.square(rows, dtype=np.float64).mean(axis=1, keepdims=True)
    if not bool(xp.isfinite(variances).all()):
        raise ValueError("X has values whose squares overflow: scale it down")
    return rows, means + first, xp.sqrt(variances + epsilon)


def _one_a_row(name, values, X):
    if not on_gpu(values):
        values = np.asarray(values, dtype=np.float64)
    if values.shape != X.shape[:1]:
        raise ValueError(f"{name} must have one number a row, shape ({len(X)},), got shape {values.shape}")
    return to_device(values.astype(np.float64, copy=False), device_of(X))
