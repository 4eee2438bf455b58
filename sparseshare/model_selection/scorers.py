"""Scores by which `GridSearchCV` can choose a penalty, and the rule that trades some score for sparser codes."""

import re
from functools import partial

import numpy as np
from sklearn.utils import check_random_state

from sparseshare.coding.encode import encode, warn_if_not_converged
from sparseshare.coding.problem import Problem
from sparseshare.devices import array_module, device_of, to_device, to_host
from sparseshare.learning.statistics import dense_rows, squared_residuals
from sparseshare.learning.transformer import SparseTransformer
from sparseshare.validation import check_number
from sparseshare.variance import Variance, explained

_BLOCK = 4096  # signals whose predictions exist at once
_METRICS = ("score", "heldout_entries")  # what may stand for quality where nobody says


def heldout_entries_scorer(estimator, X, y=None, *, fraction=0.2, random_state=0):
    """Share of the variance of entries explained by codes that have not seen them.

    Some entries of every signal are hidden, at random; the codes are made from the others, with the estimator's own
    algorithm and parameters; their reconstruction is compared with what was hidden. Unlike the error of a
    reconstruction, which only falls with the penalty, this has its best value at a penalty in between.

    It is called as `GridSearchCV(scoring=heldout_entries_scorer)` calls it; for other values of its two parameters
    see `make_heldout_entries_scorer`.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A coder or learner of this package, or a pipeline that ends with one; the steps before it transform X first,
        and may be frozen.
    X : array-like or sparse array of shape (n_samples, n_features)
    y : object, default=None
        Ignored.
    fraction : float, default=0.2
        Share of the entries of every signal that is hidden, rounded to at least one and at most all but one entry.
    random_state : int, RandomState or None, default=0
        A number hides the same entries of equally many signals in every call, so that candidates are compared on the
        same ones.

    Returns
    -------
    float
        At most 1, greater is better: 1 - |hidden - predicted|^2 / |hidden - mean|^2 with the mean of each column of X.
        Where X is constant, 1 if the prediction is perfect and 0 otherwise.

    Raises
    ------
    TypeError
        If the estimator is no coder of this package.
    ValueError
        If `fraction` is not between 0 and 1, or signals have a single entry.

    Notes
    -----
    With a share s of the entries observed, a penalty is multiplied by sqrt(s), as the noise of an atom's correlation
    is, and a bound on the squared error by s. So parameters mean the same for the codes of whole signals.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sparseshare import SparseCoder
    >>> from sparseshare.datasets import make_sparse_signals
    >>> from sparseshare.model_selection import heldout_entries_scorer
    >>> X, dictionary, _ = make_sparse_signals(120, snr_db=10, random_state=0)
    >>> coder = SparseCoder(dictionary, transform_algorithm="lasso_lars")
    >>> grid = {"transform_alpha": [0.5, 0.1, 0.002]}
    >>> GridSearchCV(coder, grid, scoring=heldout_entries_scorer).fit(X).best_params_
    {'transform_alpha': 0.1}
    >>> GridSearchCV(coder, grid).fit(X).best_params_  # by score(X), which sees every entry
    {'transform_alpha': 0.002}
    """
    fraction = check_number("fraction", fraction, 0, 1, open_low=True, of="heldout_entries_scorer")
    coder, X, dtype = _coder_and_signals(estimator, X)
    n_samples, n_features = X.shape
    if n_features < 2:
        raise ValueError(f"held-out entries need signals of at least 2 entries, got X of shape {X.shape}")
    n_hidden = min(max(round(fraction * n_features), 1), n_features - 1)
    order = check_random_state(random_state).random_sample((n_samples, n_features)).argsort(axis=1)
    hidden = np.zeros((n_samples, n_features), bool)
    np.put_along_axis(hidden, order[:, :n_hidden], True, axis=1)

    dictionary = coder._dictionary(dtype)
    problem = Problem(to_host(dictionary), **_for_share(coder._transforming_problem(), 1 - n_hidden / n_features))
    codes = encode(X, problem, n_jobs=coder.n_jobs, mask=hidden, device=coder._device(X))
    warn_if_not_converged(codes, problem, stacklevel=3)
    xp, dictionary = array_module(X), to_device(dictionary, device_of(X))
    mean, error, variance = _column_means(X), 0.0, 0.0
    for rows in _blocks(n_samples):
        signals, unseen = dense_rows(X, rows, np.float64), xp.asarray(hidden[rows])
        error += xp.where(unseen, xp.square(signals - codes.values[rows] @ dictionary), 0).sum()
        variance += xp.where(unseen, xp.square(signals - mean), 0).sum()
    return explained(float(error), float(variance))


def make_heldout_entries_scorer(fraction=0.2, random_state=0):
    """A `heldout_entries_scorer` that hides another share of the entries, or others.

    Parameters
    ----------
    fraction : float, default=0.2
        Share of the entries of every signal that is hidden.
    random_state : int, RandomState or None, default=0
        A number hides the same entries in every call.

    Returns
    -------
    callable
        With the signature scorer(estimator, X, y=None), for `scoring=` of `GridSearchCV` and its like.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from sparseshare import SparseCoder
    >>> from sparseshare.datasets import make_sparse_signals
    >>> from sparseshare.model_selection import make_heldout_entries_scorer
    >>> X, dictionary, _ = make_sparse_signals(60, snr_db=20, random_state=0)
    >>> coder = SparseCoder(dictionary, transform_algorithm="omp", transform_n_nonzero_coefs=3)
    >>> scores = [cross_val_score(coder, X, scoring=make_heldout_entries_scorer(share)).mean() for share in (0.1, 0.5)]
    >>> bool(scores[0] > scores[1])  # the fewer entries a code sees, the worse it predicts the others
    True
    """
    check_number("fraction", fraction, 0, 1, open_low=True, of="make_heldout_entries_scorer")
    return partial(heldout_entries_scorer, fraction=fraction, random_state=random_state)


def reconstruction_density_scorer(estimator, X, y=None):
    """Error and sparsity of codes as metrics of one search, to be traded against each other.

    For `GridSearchCV(scoring=reconstruction_density_scorer, refit=sparsest_within_one_standard_error)`. A name of a
    metric as `refit` would choose an end of the grid: "reconstruction" the smallest penalty, always, and "density",
    which is no score but a share, too.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A coder or learner of this package, or a pipeline that ends with one.
    X : array-like or sparse array of shape (n_samples, n_features)
    y : object, default=None
        Ignored.

    Returns
    -------
    dict of float
        - "heldout_entries": as `heldout_entries_scorer`, greater is better
        - "reconstruction": as `score` of the estimator, the share of the variance of whole signals that is explained
        - "density": share of the non-zeros in the codes, smaller is sparser

    Raises
    ------
    TypeError
        If the estimator is no coder of this package.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sparseshare import SparseCoder
    >>> from sparseshare.datasets import make_sparse_signals
    >>> from sparseshare.model_selection import reconstruction_density_scorer, sparsest_within_one_standard_error
    >>> X, dictionary, _ = make_sparse_signals(120, snr_db=10, random_state=0)
    >>> search = GridSearchCV(
    ...     SparseCoder(dictionary, transform_algorithm="lasso_lars"), {"transform_alpha": [0.5, 0.15, 0.1, 0.002]},
    ...     scoring=reconstruction_density_scorer, refit=sparsest_within_one_standard_error,
    ... ).fit(X)
    >>> search.best_params_
    {'transform_alpha': 0.15}
    >>> search.cv_results_["mean_test_density"].round(2)
    array([0.03, 0.1 , 0.15, 0.39])
    """
    heldout = heldout_entries_scorer(estimator, X)
    coder, X, dtype = _coder_and_signals(estimator, X)
    problem = Problem(to_host(coder._dictionary(dtype)), **coder._transforming_problem())
    codes = encode(X, problem, n_jobs=coder.n_jobs, device=coder._device(X))
    warn_if_not_converged(codes, problem, stacklevel=3)
    error = float(squared_residuals(X, codes.values, to_device(problem.dictionary, device_of(X))).sum())
    variance = Variance()
    for rows in _blocks(X.shape[0]):
        variance.add(dense_rows(X, rows, np.float64))
    non_zeros = int(array_module(X).count_nonzero(codes.values.data))
    density = non_zeros / (codes.values.shape[0] * codes.values.shape[1])
    return {"heldout_entries": heldout, "reconstruction": explained(error, variance.total), "density": density}


def sparsest_within_one_standard_error(cv_results, metric=None):
    """The sparsest candidate whose score is within one standard error of the best: for `GridSearchCV(refit=...)`.

    The standard error is that of the best candidate's mean over the folds. Sparser means a smaller "density" where the
    search has that metric, as from `reconstruction_density_scorer`; else a larger penalty, or fewer non-zeros,
    whichever of them is searched over. Of equally sparse candidates the one with the better score is taken.

    Parameters
    ----------
    cv_results : dict
        As `cv_results_` of a search.
    metric : str or None, default=None
        The score, greater is better. None takes that of a search with one metric, or "heldout_entries"; a
        reconstruction error is never taken unasked, since the smallest penalty always has the best one. To give it
        in a search, use `functools.partial(sparsest_within_one_standard_error, metric=...)`.

    Returns
    -------
    int
        Index of the candidate.

    Raises
    ------
    ValueError
        If there is no such metric, no finite score, or nothing that tells which candidate is sparser.

    References
    ----------
    L. Breiman, J. Friedman, R. Olshen, C. Stone, Classification and regression trees, 1984, section 3.4.3.

    Examples
    --------
    >>> from sparseshare.model_selection import sparsest_within_one_standard_error
    >>> results = {
    ...     "param_alpha": [0.1, 0.2, 0.4], "mean_test_score": [0.90, 0.89, 0.7], "std_test_score": [0.02, 0.01, 0.02],
    ...     "split0_test_score": [0.92, 0.9, 0.72], "split1_test_score": [0.88, 0.88, 0.68],
    ... }
    >>> sparsest_within_one_standard_error(results)
    1
    """
    known = [key.removeprefix("mean_test_") for key in cv_results if key.startswith("mean_test_")]
    if metric is None:
        metric = next((name for name in _METRICS if name in known), None)
    if metric not in known:
        raise ValueError(
            f"sparsest_within_one_standard_error needs a metric of the search: it has {', '.join(known) or 'none'}; "
            f"give metric= one of them (by functools.partial), got {metric!r}"
        )
    scores = np.asarray(cv_results[f"mean_test_{metric}"], dtype=np.float64)
    if not np.isfinite(scores).any():
        raise ValueError(f"no candidate has a finite {metric!r}: all fits have failed")
    n_splits = sum(bool(re.fullmatch(rf"split\d+_test_{re.escape(metric)}", key)) for key in cv_results)
    best = int(np.nanargmax(scores))
    error = cv_results[f"std_test_{metric}"][best] / np.sqrt(max(n_splits - 1, 1))  # the deviation has n, not n - 1
    near = np.flatnonzero(scores >= scores[best] - error)
    density = _density(cv_results)[near]
    return int(near[np.lexsort((-scores[near], density))[0]])


def _density(cv_results):
    """A number a candidate, the smaller the sparser."""
    if "mean_test_density" in cv_results:
        return np.asarray(cv_results["mean_test_density"], dtype=np.float64)
    signs = {"alpha": -1, "transform_alpha": -1, "n_nonzero_coefs": 1, "transform_n_nonzero_coefs": 1}
    found = [key for key in cv_results if key.startswith("param_") and key[6:].rpartition("__")[2] in signs]
    if len(found) != 1:
        searched = ", ".join(key[6:] for key in cv_results if key.startswith("param_")) or "nothing"
        raise ValueError(
            "which candidate is sparser is told by the metric 'density' (scoring=reconstruction_density_scorer), or by "
            f"one parameter among {', '.join(signs)}; the search is over {searched}"
        )
    values = np.asarray(cv_results[found[0]], dtype=np.float64)
    return signs[found[0][6:].rpartition("__")[2]] * values


def _coder_and_signals(estimator, X):
    """The coder itself, the signals as they reach it, and the dtype to compute in."""
    from sklearn.frozen import FrozenEstimator  # only here: with all of sklearn.preprocessing it slows the import
    from sklearn.pipeline import Pipeline

    while isinstance(estimator, Pipeline | FrozenEstimator):
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        else:
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
    if not isinstance(estimator, SparseTransformer):
        raise TypeError(
            "held-out entries are predicted by coders and learners of this package, or pipelines that end with one; "
            f"got {type(estimator).__name__}"
        )
    estimator._check_is_ready()
    estimator._check_coding_parameters()
    X, dtype = estimator._check_signals(X, reset=False)
    return estimator, X, dtype


def _for_share(options, share):
    """A coding problem's options where only a share of the entries is observed."""
    options = dict(options)
    if options.get("alpha") is not None:
        options["alpha"] = options["alpha"] * np.sqrt(share)
    if options.get("max_error") is not None:
        options["max_error"] = options["max_error"] * share
    return options


def _blocks(n_samples):
    return [slice(start, min(start + _BLOCK, n_samples)) for start in range(0, n_samples, _BLOCK)]


def _column_means(X):
    return sum(dense_rows(X, rows, np.float64).sum(axis=0) for rows in _blocks(X.shape[0])) / X.shape[0]
