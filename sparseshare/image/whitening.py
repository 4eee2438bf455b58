"""What is done to patches before they are coded: contrast normalisation and ZCA whitening, and the ways back."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sparseshare.devices import array_module, device_of, on_gpu, resolve_device, to_device, to_host
from sparseshare.validation import check_number, compute_dtype

from .row_transformer import RowTransformer, blocks, in_blocks, transformed

_RANK = 1e-12  # share of the largest eigenvalue below which an eigenvalue is rounding


class ContrastNormalization(RowTransformer):
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
        """Check the parameter and the rows, and remember the number of columns.

        Parameters
        ----------
        X : array-like or source of rows of shape (n_samples, n_features)
            Memory maps, zarr arrays, HDF5 data sets, and iterables of blocks (arrays of some rows each) are read block
            by block.
        y : ignored

        Returns
        -------
        self
        """
        self._epsilon()
        X, _ = self._check(X, reset=True)
        for _ in in_blocks(X, lambda rows, first: None):
            pass  # those that come in blocks are checked where they are read
        return self

    def transform(self, X, out=None):
        """Rows of mean 0 over their contrast.

        Parameters
        ----------
        X : array-like or source of rows of shape (n_samples, n_features)
            As in `fit`.
        out : array of shape (n_samples, n_features), default=None
            Where rows go block by block, so that they are never in memory together: a memory map, zarr, HDF5, or
            anything else to whose rows can be written.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            float32 if X is float32, else float64. With `out` that array.

        Raises
        ------
        BlockError
            A ValueError: a block holds NaN, has another width or cannot be read. The message names it and its rows;
            what became of the blocks before it and has been written to `out` stays there.
        """
        epsilon, (X, device) = self._epsilon(), self._check(X, reset=False)

        def normalize(rows, first):
            centred, _, scales = _centred(rows, epsilon)
            return centred / array_module(rows).where(scales > 0, scales, 1)

        return transformed(X, device, normalize, out)

    def statistics(self, X):
        """What `transform` removes: the means of the rows, and the numbers that it divides them by.

        Parameters
        ----------
        X : array-like or source of rows of shape (n_samples, n_features)
            As in `fit`.

        Returns
        -------
        means, scales : ndarrays of float64 of shape (n_samples,)
        """
        epsilon, (X, device) = self._epsilon(), self._check(X, reset=False)
        home, xp = device_of(X), array_module(X)

        def removed(rows, first):
            means, scales = xp.empty(len(rows)), xp.empty(len(rows))
            for part, block in blocks(rows, device):
                _, mean, scale = _centred(block, epsilon)
                means[part], scales[part] = to_device(mean[:, 0], home), to_device(scale[:, 0], home)
            return means, scales

        means, scales = zip(*(made for _, _, made in in_blocks(X, removed)), strict=True)
        return xp.concatenate(means), xp.concatenate(scales)

    def inverse_transform(self, X, means=None, scales=None, out=None):
        """Rows with their contrast, and with their means if these are given.

        Parameters
        ----------
        X : array-like or source of rows of shape (n_samples, n_features)
            Rows as `transform` returns them, or something near them; read as in `fit`.
        means : array-like of shape (n_samples,), default=None
            To be added, as from `statistics`. None: the rows keep mean 0.
        scales : array-like of shape (n_samples,), default=None
            To be multiplied with, as from `statistics`. None computes them from the rows: a row of variance v had the
            scale ``sqrt(epsilon / (1 - v))``. That is exact for rows from `transform` up to rounding, which grows with
            the contrast, and only possible with an epsilon above 0 and variances below 1.
        out : array of shape (n_samples, n_features), default=None
            Where rows go block by block, so that they are never in memory together: a memory map, zarr, HDF5, or
            anything else to whose rows can be written.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            With `out` that array.

        Raises
        ------
        ValueError
            If `scales` is None and cannot be computed, or `means` or `scales` have another shape.
        BlockError
            As in `transform`.
        """
        epsilon, (X, _) = self._epsilon(), self._check_back(X)
        resolve_device(self.device, X, means, scales)
        given = {"means": means, "scales": scales}
        given = {name: _one_a_row(name, values, X) for name, values in given.items() if values is not None}
        if scales is None and epsilon == 0:
            raise ValueError("with epsilon=0 the contrast is lost: give scales, from statistics(X)")

        def restore(rows, first):
            own = slice(first, first + len(rows))
            _check_enough(given, own.stop)
            scales = given["scales"][own] if "scales" in given else _lost_scales(rows, first, epsilon)
            restored = rows * scales[:, None] + (given["means"][own, None] if "means" in given else 0.0)
            return restored.astype(rows.dtype, copy=False)

        restored = transformed(X, device_of(X), restore, out)
        for name, values in given.items():
            _check_one_a_row(name, values, restored.shape[0])
        return restored

    def _epsilon(self):
        return check_number("epsilon", self.epsilon, 0, of=type(self).__name__)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


class ZCAWhitening(RowTransformer):
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
        X : array-like or source of rows of shape (n_samples, n_features)
            Memory maps, zarr arrays, HDF5 data sets, and iterables of blocks (arrays of some rows each) are read block
            by block.
        y : ignored

        Returns
        -------
        self
        """
        X, device = self._check(X, reset=True)
        return self._learn(X, device, 0)

    def partial_fit(self, X, y=None):
        """Add rows to those that means and covariance are computed from.

        Parameters
        ----------
        X : array-like or source of rows of shape (n_samples, n_features)
            As in `fit`.
        y : ignored

        Returns
        -------
        self
        """
        count = vars(self).get("n_samples_seen_", 0)
        X, device = self._check(X, reset=count == 0)
        return self._learn(X, device, count)

    def transform(self, X, out=None):
        """Whitened rows.

        Parameters
        ----------
        X : array-like or source of rows of shape (n_samples, n_features)
            As in `fit`.
        out : array of shape (n_samples, n_features), default=None
            Where rows go block by block, so that they are never in memory together: a memory map, zarr, HDF5, or
            anything else to whose rows can be written.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            float32 if X is float32, else float64. With `out` that array.

        Raises
        ------
        BlockError
            A ValueError: a block holds NaN, has another width or cannot be read. The message names it and its rows;
            what became of the blocks before it and has been written to `out` stays there.
        """
        check_is_fitted(self)
        X, device = self._check(X, reset=False)
        mean, matrix = self._placed(self.mean_, X, device), self._placed(self.whitening_, X, device)
        return transformed(X, device, lambda rows, first: (rows - mean) @ matrix, out, products=True)

    def inverse_transform(self, X, out=None):
        """Rows whose whitening is given, mean included.

        Parameters
        ----------
        X : array-like or source of rows of shape (n_samples, n_features)
            As in `fit`.
        out : array of shape (n_samples, n_features), default=None
            As in `transform`.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            With `out` that array.
        """
        check_is_fitted(self)
        X, device = self._check_back(X)
        mean, matrix = self._placed(self.mean_, X, device), self._placed(self.coloring_, X, device)
        return transformed(X, device, lambda rows, first: rows @ matrix + mean, out, products=True)

    @staticmethod
    def _placed(array, X, device):
        return to_device(array.astype(compute_dtype(X)), device)

    def _learn(self, X, device, count):
        """Merge the moments of X with those so far, block by block (Chan, Golub, LeVeque 1983), and take roots."""
        epsilon = check_number("epsilon", self.epsilon, 0, of=type(self).__name__)
        n_features = X.shape[1]
        if count == 0:
            mean, scatter = np.zeros(n_features), np.zeros((n_features, n_features))
        else:
            mean, scatter = self.mean_, self.covariance_ * count
        mean, scatter = to_device(mean, device), to_device(scatter, device)

        def merge(some, first):
            nonlocal mean, scatter, count
            for _, rows in blocks(some, device):
                rows = rows.astype(np.float64, copy=False)
                block_mean = rows.mean(axis=0)
                rows = rows - block_mean
                step, total = block_mean - mean, count + len(rows)
                scatter = scatter + rows.T @ rows + step[:, None] * step * (count * len(rows) / total)
                mean, count = mean + step * (len(rows) / total), total

        with np.errstate(over="ignore", invalid="ignore"):
            for _ in in_blocks(X, merge, products=True):
                pass
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


def _lost_scales(rows, first, epsilon):
    """What rows were divided by, from what is left of their variances; `first` is the number of the first."""
    xp = array_module(rows)
    variances = xp.var(rows, axis=1, dtype=np.float64)
    if bool((variances >= 1).any()):
        row = int((variances >= 1).argmax())
        raise ValueError(
            f"row {first + row} of X has variance {float(variances[row]):g}; rows from transform have less than 1. "
            "Give scales, from statistics(X)"
        )
    return xp.sqrt(epsilon / (1 - variances))


def _one_a_row(name, values, X):
    if not on_gpu(values):
        values = np.asarray(values, dtype=np.float64)
    _check_one_a_row(name, values, X.shape[0])
    return to_device(values.astype(np.float64, copy=False), device_of(X))


def _check_one_a_row(name, values, n_rows):
    """Refuse another number of values than of rows; None: how many come is not known."""
    if values.ndim != 1 or n_rows not in (None, len(values)):
        wanted = "n_samples" if n_rows is None else n_rows
        raise ValueError(f"{name} must have one number a row, shape ({wanted},), got shape {values.shape}")


def _check_enough(given, n_rows):
    """Refuse fewer values than rows that have come."""
    for name, values in given.items():
        if len(values) < n_rows:
            raise ValueError(f"{name} must have one number a row, got {len(values)} of them for {n_rows} rows or more")
