"""What every estimator with a dictionary shares: codes of new signals, reconstruction, score, names, persistence."""

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from sparseshare.coding.encode import encode, warn_if_not_converged
from sparseshare.coding.problem import Problem
from sparseshare.coding.streams import StreamedCodes, write_codes
from sparseshare.devices import Movable, device_of, on_gpu, resolve_device, stacked_columns, to_device, to_host
from sparseshare.sources import Source, check_source, rows_of
from sparseshare.validation import check_bool, check_choice, check_number, check_signals
from sparseshare.variance import Variance, explained

from .statistics import dense_rows, squared_residuals

ALGORITHMS = ("auto", "lasso_lars", "lars", "lasso_cd", "ista", "fista", "omp", "ols", "mp", "iht", "threshold")
COUNTED = ("lars", "omp", "ols", "mp", "iht")  # a number of non-zeros is their sparsity
PENALISED = ("auto", "lasso_lars", "lasso_cd", "ista", "fista", "threshold")  # a penalty alpha is
WARM = ("auto", "lasso_lars", "lasso_cd", "ista", "fista")  # start from codes that are there
_ALIASES = {"lars": "lasso_lars", "cd": "lasso_cd"}  # scikit-learn's names while fitting
_SCORED_AT_ONCE = 4096


class SparseTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Movable, BaseEstimator):
    """Signals to codes and back, for estimators that hold a dictionary.

    Subclasses have the parameters `transform_algorithm`, `transform_n_nonzero_coefs`, `transform_alpha`,
    `transform_max_error`, `transform_max_iter`, `transform_tol`, `l1_ratio`, `positive_code`, `split_sign`,
    `sparse_output`, `n_jobs` and `device`, and what `_fitting_problem` reads.
    """

    __metadata_request__transform = {"out": UNUSED}

    def transform(self, X, out=None):
        """Codes of signals.

        Parameters
        ----------
        X : array-like, sparse array or source of rows of shape (n_samples, n_features)
            Memory maps, zarr arrays, HDF5 data sets, and iterables of blocks (arrays or sparse arrays of some rows
            each) are read block by block.
        out : array or path, default=None
            Where codes go block by block, so that they are never in memory together: an array of their shape to whose
            rows can be written (memory map, zarr, HDF5), or a folder, which gets a file of codes (CSR) for every
            block. A folder that holds some of these codes already, because a run was interrupted, gets the rest.

        Returns
        -------
        codes : ndarray or csr_array of shape (n_samples, n_components)
            A csr_array with `sparse_output=True`. Twice as wide with `split_sign`: positive parts, then negative parts.
            float32 if X is float32, else float64. With `out` that array, or what `open_codes` returns for the folder.

        Raises
        ------
        BlockError
            A ValueError: a block of signals holds NaN, has another width or cannot be read. The message names it and
            its rows; codes of the blocks before it that have been written to `out` stay there.

        Warns
        -----
        ConvergenceWarning
            If codes have not converged after `transform_max_iter` iterations.
        """
        self._check_is_ready()
        X, dtype = self._check_signals(X, reset=False)
        if out is not None:
            return self._write_codes(X, dtype, out)
        if self.split_sign:
            return self._split_signs(self._codes(X, dtype))
        return self._codes(X, dtype, dense=not self.sparse_output)

    def inverse_transform(self, X):
        """Signals that codes stand for, codes @ dictionary.

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_components)
            Codes as `transform` returns them.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        self._check_is_ready()
        self._device(X)
        if on_gpu(X):
            codes, dtype = check_signals(X, name="codes")
            codes = codes.astype(dtype, copy=False)
        else:
            codes = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32])
        dictionary = to_device(self._dictionary(codes.dtype), device_of(codes))
        n_components = len(dictionary)
        expected = 2 * n_components if self.split_sign else n_components
        if codes.shape[1] != expected:
            raise ValueError(
                "The number of components in the code is different from the number of components in the dictionary. "
                f"Expected {expected}, got {codes.shape[1]}."
            )
        if self.split_sign:
            codes = codes[:, :n_components] - codes[:, n_components:]
        return codes @ dictionary

    def score(self, X, y=None):
        """Share of the variance that the reconstruction explains, 1 - |X - X_hat|^2 / |X - mean(X)|^2.

        The smallest penalty always scores best: to choose a penalty, score something else that depends on the codes.

        Parameters
        ----------
        X : array-like, sparse array or source of rows of shape (n_samples, n_features)
            As in `transform`.
        y : ignored

        Returns
        -------
        float
            1 is perfect. Where X is constant, 1 for a perfect reconstruction and 0 otherwise.
        """
        self._check_is_ready()
        X, dtype = self._check_signals(X, reset=False)
        dictionary = to_device(self._dictionary(dtype), device_of(X))
        error, variance = 0.0, Variance()
        for block, codes in self._coded_blocks(X, dtype):
            error += float(squared_residuals(block, codes, dictionary).sum())
            for start in range(0, block.shape[0], _SCORED_AT_ONCE):
                variance.add(dense_rows(block, slice(start, start + _SCORED_AT_ONCE), np.float64))
        return explained(error, variance.total)

    def _check_is_ready(self):
        check_is_fitted(self)

    def _dictionary(self, dtype):
        """The atoms, on the device where they were learned."""
        return self.components_.astype(dtype, copy=False)

    def _device(self, X, fitted=True):
        """Where to compute for signals X."""
        return resolve_device(self.device, X, vars(self).get("components_") if fitted else None)

    def _check_signals(self, X, reset):
        resolve_device(self.device, X)
        X = rows_of(X)
        checked = check_source(X) if isinstance(X, Source) else check_signals(X)
        validate_data(self, X, reset=reset, skip_check_array=True)  # names and number of the columns
        return checked

    def _check_coding_parameters(self):
        """Refuse wrong values of the parameters that all estimators share."""
        of = type(self).__name__
        check_choice("transform_algorithm", self.transform_algorithm, (None, *ALGORITHMS), of=of)
        check_number(
            "transform_n_nonzero_coefs", self.transform_n_nonzero_coefs, 1, integer=True, allow_none=True, of=of
        )
        check_number("transform_alpha", self.transform_alpha, 0, allow_none=True, of=of)
        check_number("transform_max_error", self.transform_max_error, 0, allow_none=True, of=of)
        check_number("transform_max_iter", self.transform_max_iter, 1, integer=True, of=of)
        check_number("transform_tol", self.transform_tol, 0, of=of)
        check_number("l1_ratio", self.l1_ratio, 0, 1, open_low=True, of=of)
        check_number("n_jobs", self.n_jobs, integer=True, allow_none=True, of=of)
        for name in ("split_sign", "positive_code", "sparse_output"):
            check_bool(name, getattr(self, name), of=of)

    def _transforming_algorithm(self):
        if self.transform_algorithm is not None:
            return self.transform_algorithm
        return fitting_algorithm(self.fit_algorithm)

    def _transforming_problem(self):
        """Options of the coding problem that `transform` solves: what is None is as in `fit`."""
        fitted = self._fitting_problem()
        options = dict(fitted, algorithm=self._transforming_algorithm())
        for name in ("n_nonzero_coefs", "alpha", "max_error"):
            given = getattr(self, f"transform_{name}")
            if given is not None:
                options[name] = given
        return coding_options(**options)

    def _fitting_problem(self):
        """Options of the coding problem that `fit` solves, before `coding_options` drops what does not apply."""
        return dict(
            algorithm=fitting_algorithm(self.fit_algorithm),
            alpha=self.alpha,
            l1_ratio=self.l1_ratio,
            n_nonzero_coefs=self.transform_n_nonzero_coefs if self.n_nonzero_coefs is None else self.n_nonzero_coefs,
            max_error=self.max_error,
            positive=self.positive_code,
            tol=self.transform_tol,
            max_iter=self.transform_max_iter,
            owner=type(self).__name__,
        )

    def _codes(self, X, dtype, dense=False):
        self._check_coding_parameters()
        problem = Problem(to_host(self._dictionary(dtype)), **self._transforming_problem())
        codes = encode(X, problem, n_jobs=self.n_jobs, dense=dense, device=self._device(X))
        warn_if_not_converged(codes, problem, stacklevel=4)
        return codes.values

    def _write_codes(self, X, dtype, out):
        self._check_coding_parameters()
        problem = Problem(to_host(self._dictionary(dtype)), **self._transforming_problem())
        codes, stream = write_codes(
            X,
            problem,
            out,
            columns=problem.n_components * (2 if self.split_sign else 1),
            finish=_both_signs if self.split_sign else _as_it_is,
            n_jobs=self.n_jobs,
            device=self._device(X),
            verbose=getattr(self, "verbose", 0),
        )
        warn_if_not_converged(stream.unsolved(), problem, stacklevel=4, n_signals=stream.n_signals)
        return codes

    def _coded_blocks(self, X, dtype):
        """Pairs of some signals and their codes (CSR)."""
        if not isinstance(X, Source):
            yield X, self._codes(X, dtype)
            return
        self._check_coding_parameters()
        problem = Problem(to_host(self._dictionary(dtype)), **self._transforming_problem())
        stream = StreamedCodes(
            X, problem, n_jobs=self.n_jobs, device=self._device(X), verbose=getattr(self, "verbose", 0)
        )
        for block, codes in stream:
            yield block.rows, codes.values
        warn_if_not_converged(stream.unsolved(), problem, stacklevel=4, n_signals=stream.n_signals)

    def _split_signs(self, codes):
        both = _both_signs(codes)
        return both if self.sparse_output else both.toarray()

    @property
    def _n_features_out(self):
        n_components = len(self.components_)
        return 2 * n_components if self.split_sign else n_components

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = True
        return tags


def _both_signs(codes):
    """Positive parts, then negative parts."""
    return stacked_columns([codes.maximum(0), (-codes).maximum(0)])


def _as_it_is(codes):
    return codes


def fitting_algorithm(name):
    """The algorithm that a name stands for while fitting: scikit-learn's "lars" and "cd" are lasso solvers there."""
    return _ALIASES.get(name, name)


def coding_options(*, algorithm, alpha, l1_ratio, n_nonzero_coefs, max_error, **options):
    """Keyword arguments of `Problem` for an algorithm, without those that mean nothing to it."""
    options["algorithm"] = algorithm
    if algorithm in COUNTED:
        options["n_nonzero_coefs"] = n_nonzero_coefs
    if max_error is not None:
        options["max_error"] = max_error
    elif algorithm in PENALISED:
        options.update(alpha=1.0 if alpha is None else float(alpha), l1_ratio=float(l1_ratio))
    return options
