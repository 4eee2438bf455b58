"""Codes of signals: `encode` for a checked problem, `sparse_encode` for users."""

from typing import NamedTuple
from warnings import warn

import numpy as np
from scipy.sparse import csr_array, issparse, vstack
from sklearn.exceptions import ConvergenceWarning

from sparseshare.devices import resolve_device
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.validation import check_bool, check_dictionary, check_signals

from .lasso import solve_lars, solve_lasso_cd, solve_lasso_lars
from .problem import Problem, check_array_beside
from .proximal import solve_fista, solve_ista
from .pursuit import solve_mp, solve_ols, solve_omp
from .thresholding import solve_iht, solve_threshold
from .tiles import RowsInOrder, Tile, product_of_rows, rows_a_tile, run_in_threads, thread_count, tile_run

SOLVERS = {
    "lasso_lars": solve_lasso_lars,
    "lasso_cd": solve_lasso_cd,
    "ista": solve_ista,
    "fista": solve_fista,
    "lars": solve_lars,
    "omp": solve_omp,
    "ols": solve_ols,
    "mp": solve_mp,
    "iht": solve_iht,
    "threshold": solve_threshold,
}
_BLOCK = 4096  # signals that are held dense at once where each needs more than its tile: masks, weights
# Relative errors of a correlation, with a margin: no gap below what they amount to is asked for or claimed.
ROUNDING = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 2e-15}


class Codes(NamedTuple):
    """Codes and, for every signal, how good they are.

    Attributes
    ----------
    values : csr_array or ndarray of shape (n_samples, n_components)
    gap : ndarray of shape (n_samples,)
        Relative duality gap of lasso codes (of 0.5 ||x||^2; never below what the dtype can certify), squared residual
        norm of pursuits, 0 for `threshold` and NaN for `lars`, which minimise nothing.
    n_iter : ndarray of shape (n_samples,)
        Rounds, sweeps, iterations or atoms, as the algorithm counts.
    converged : ndarray of shape (n_samples,), bool
    """

    values: object
    gap: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray


def encode(X, problem, *, init=None, n_jobs=None, mask=None, cov=None, dense=False):
    """Codes of signals for a problem that has been checked.

    Parameters
    ----------
    X : array or csr_array of shape (n_samples, n_features)
        As `check_signals` returns it; read tile by tile.
    problem : Problem
    init : csr_array of shape (n_samples, n_components), default=None
        Codes to start from, for the solvers of the lasso.
    n_jobs : int or None, default=None
        Threads; None means all.
    mask : bool array of shape (n_samples, n_features) or "nan", default=None
        True where an entry is missing.
    cov : array of shape (n_components, n_samples), default=None
        `dictionary @ X.T`, if it is at hand.
    dense : bool, default=False
        Return the codes as an ndarray.

    Returns
    -------
    Codes
    """
    n_samples = X.shape[0]
    problem.check_samples(n_samples)
    if n_samples > _BLOCK and (mask is not None or problem.weights is not None):
        return _encode_blocks(X, problem, init, n_jobs, mask, dense)
    if mask is not None:
        return _encode_masked(X, problem, mask, init, n_jobs, dense)
    if np.ndim(problem.weights) == 2:
        groups = [(slice(i, i + 1), problem.restricted(weights=problem.weights[i], rows=slice(i, i + 1)))
                  for i in range(n_samples)]  # fmt: skip
        return _encode_groups(X, groups, problem, init, n_jobs, dense)
    if problem.form.lasso and problem.weights is not None and (problem.weights == 0).any():
        return _encode_unpenalised(X, problem, n_jobs, dense)
    return _encode_tiles(X, problem, init, n_jobs, cov, dense)


def _encode_tiles(X, problem, init, n_jobs, cov, dense):
    solve = SOLVERS[problem.algorithm]
    n_samples = X.shape[0]
    tol = max(problem.tol, ROUNDING[problem.dtype])
    n_rows = rows_a_tile(problem)
    n_tiles = -(-n_samples // n_rows)
    gap, n_iter, converged = np.zeros(n_samples), np.zeros(n_samples, np.int32), np.ones(n_samples, bool)
    n_threads = thread_count(n_jobs)
    if dense:
        values = np.zeros((n_samples, problem.n_components), problem.dtype)
    else:
        guess = n_samples * min(problem.capacity, 32)
        packed = RowsInOrder(n_samples, problem.n_components, problem.dtype, guess)
    tiles = {}

    def work(number, worker):
        rows = slice(number * n_rows, min((number + 1) * n_rows, n_samples))
        if worker not in tiles:
            tiles[worker] = Tile(problem, min(n_rows, -(-n_samples // 128) * 128))
        tile = tiles[worker]
        tile.load(X, rows, cov, init)
        solve(problem, tile, tol)
        gap[rows], converged[rows] = certify(problem, tile, tol)
        n_iter[rows] = tile.iterations
        if dense:
            tile.spread(values[rows])
        else:
            packed.put(number, *tile.pack())

    with tile_run(problem):
        run_in_threads(work, n_tiles, n_threads)
    return Codes(values if dense else packed.csr(), gap, n_iter, converged)


def certify(problem, tile, tol):
    """The gap or residual of each signal in the user's units, and whether the solver has done what it was asked."""
    if problem.form.pursuit:
        return tile.gaps / tile.units**2, tile.status != 1
    if not problem.form.lasso:
        return 0.0 if problem.algorithm == "threshold" else np.nan, tile.status != 1
    relative, converged = np.empty(len(tile.gaps)), np.empty(len(tile.gaps), bool)
    kernels_for("cpu", "signals").certify_tile(
        tile.values, tile.counts, tile.gaps, tile.norms2, tile.status, tol, ROUNDING[problem.dtype], relative, converged
    )
    return relative, converged


def _encode_blocks(X, problem, init, n_jobs, mask, dense):
    """A block of signals after the other, for the forms that need a dense copy of their signals."""
    parts = []
    for start in range(0, X.shape[0], _BLOCK):
        rows = slice(start, min(start + _BLOCK, X.shape[0]))
        weights = problem.weights[rows] if np.ndim(problem.weights) == 2 else None
        own_mask = mask if mask is None or isinstance(mask, str) else np.asarray(mask)[rows]
        own_init = None if init is None else init[rows]
        own = problem.restricted(weights=weights, rows=rows)
        parts.append(encode(X[rows], own, init=own_init, n_jobs=n_jobs, mask=own_mask))
    return _joined(parts, slice(None), dense)


def _joined(parts, order, dense):
    """Codes of several blocks of signals as one, in another order."""
    values = csr_array(vstack([part.values for part in parts], format="csr"))[order]
    gap, n_iter, converged = (np.concatenate([part[k] for part in parts])[order] for k in (1, 2, 3))
    return Codes(values.toarray() if dense else values, gap, n_iter, converged)


def _encode_groups(X, groups, problem, init, n_jobs, dense):
    """Problems of their own for groups of rows (a slice or an array of row numbers each), put together again."""
    parts = [None] * len(groups)

    def work(number, _):
        rows, own = groups[number]
        groups[number] = rows, None  # a problem of its own has a Gram matrix of its own: do not keep them all
        start = None if init is None else init[rows]
        parts[number] = encode(X[rows], own, init=start, n_jobs=1)

    run_in_threads(work, len(groups), thread_count(n_jobs))
    order = np.concatenate(
        [np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows for rows, _ in groups]
    )
    return _joined(parts, np.argsort(order), dense)


def _encode_masked(X, problem, mask, init, n_jobs, dense):
    """Signals with the same entries missing share a problem: the dictionary without those features."""
    X = X.toarray() if issparse(X) else np.asarray(X)
    X = X.astype(problem.dtype, copy=False)
    missing = _check_mask(X, mask)
    X = np.where(missing, problem.dtype.type(0), X)
    patterns, which = np.unique(np.packbits(missing, axis=1), axis=0, return_inverse=True)
    which = which.ravel()
    order = np.argsort(which, kind="stable")
    edges = np.searchsorted(which[order], np.arange(len(patterns) + 1))
    groups = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        rows = order[start:stop]
        own_weights = problem.weights[rows] if np.ndim(problem.weights) == 2 else None
        groups.append((rows, problem.restricted(~missing[rows[0]], own_weights, rows)))
    return _encode_groups(X, groups, problem, init, n_jobs, dense)


def _check_mask(X, mask):
    if isinstance(mask, str):
        if mask != "nan":
            raise ValueError(f"mask must be 'nan' or a boolean array of X's shape, True where missing; got {mask!r}")
        missing = np.isnan(X)
    else:
        missing = np.asarray(mask)
        if missing.shape != X.shape or missing.dtype != bool:
            raise ValueError(
                f"mask must be 'nan' or a boolean array of X's shape {X.shape}, True where missing; got an array of "
                f"shape {missing.shape} and dtype {missing.dtype}"
            )
    bad = np.flatnonzero((~np.isfinite(X) & ~missing).any(axis=1))
    if len(bad):
        raise ValueError(f"X contains NaN or infinity where mask says it is observed, first in row {bad[0]}")
    empty = np.flatnonzero(missing.all(axis=1))
    if len(empty):
        raise ValueError(f"every entry of row {empty[0]} of X is missing: nothing to code; leave such rows out")
    return missing


def _encode_unpenalised(X, problem, n_jobs, dense):
    """Atoms of weight 0 are solved out: the lasso sees what they leave of signals and atoms.

    With loose atoms F and quadratic penalty l2, their best codes leave |M^(1/2) (x - w D)|^2 of the error, where
    M = I - F' inv(F F' + l2 I) F: for l2 = 0 the projection away from F.
    """
    free = problem.weights == 0
    X = (X.toarray() if issparse(X) else np.asarray(X)).astype(problem.dtype, copy=False)
    if not np.isfinite(X).all():
        raise ValueError("X contains NaN or infinity; for missing entries pass mask='nan' to sparse_encode")
    l2 = problem.alpha * (1 - problem.l1_ratio) if problem.l1_ratio != 1 else 0.0
    left, sizes, basis = np.linalg.svd(problem.dictionary[free].astype(np.float64), full_matrices=False)
    kept = sizes > 1e-10 * sizes.max()
    left, sizes, basis = left[:, kept], sizes[kept], basis[kept]
    removed = 1 - np.sqrt(l2 / (sizes**2 + l2))

    def remove(rows):
        rows = rows.astype(np.float64)
        return (rows - product_of_rows(product_of_rows(rows, basis.T * removed), basis)).astype(problem.dtype)

    bound = problem.restricted(weights=np.where(free, np.inf, problem.weights))
    bound.dictionary, bound._given_gram = remove(problem.dictionary), None
    codes = encode(remove(X), bound, n_jobs=n_jobs)
    rest = X - codes.values @ problem.dictionary
    loose = product_of_rows(product_of_rows(rest, basis.T * (sizes / (sizes**2 + l2))), left.T)
    exact = csr_array(loose.astype(problem.dtype))
    exact = csr_array(
        (exact.data, np.flatnonzero(free).astype(np.int32)[exact.indices], exact.indptr), codes.values.shape
    )
    values = csr_array(codes.values + exact)
    values.sort_indices()
    return codes._replace(values=values.toarray() if dense else values)


def sparse_encode(
    X,
    dictionary,
    *,
    gram=None,
    cov=None,
    algorithm="lasso_lars",
    n_nonzero_coefs=None,
    alpha=None,
    copy_cov=True,
    init=None,
    max_iter=1000,
    n_jobs=None,
    check_input=True,
    verbose=0,
    positive=False,
    tol=1e-6,
    l1_ratio=1.0,
    weights=None,
    max_error=None,
    max_l1_norm=None,
    mask=None,
    device="auto",
    sparse_output=False,
    return_info=False,
):
    """Sparse codes of signals for a given dictionary.

    For every row x of X find a code w with few non-zeros such that ``x`` is close to ``w @ dictionary``. The penalised
    algorithms minimise

        0.5 * ||x - w @ dictionary||^2 + alpha * (l1_ratio * sum_j weights_j |w_j| + 0.5 * (1 - l1_ratio) * ||w||^2)

    Parameters
    ----------
    X : array-like, sparse array or memory map of shape (n_samples, n_features)
        Signals, one a row. float32 and float64 are computed in as they are, all else in float64. Sparse and
        memory-mapped arrays are read tile by tile.
    dictionary : array-like of shape (n_components, n_features)
        Atoms, one a row, of any norm.
    gram : array-like of shape (n_components, n_components), default=None
        `dictionary @ dictionary.T`, if it is at hand.
    cov : array-like of shape (n_components, n_samples), default=None
        `dictionary @ X.T`, if it is at hand.
    algorithm : str, default="lasso_lars"
        - "auto": a pursuit if a count or only an error is given, else the lasso
        - "lasso_lars": the lasso by a direct active-set method, exact and fast; its constrained forms by homotopy
        - "lasso_cd", "ista", "fista": the lasso by coordinate descent or proximal gradient
        - "lars": least angle regression, stopped after `n_nonzero_coefs` atoms
        - "omp", "ols", "mp": orthogonal matching pursuit, orthogonal least squares, matching pursuit
        - "iht": normalised iterative hard thresholding
        - "threshold": the correlations of signals and atoms, soft-thresholded
    n_nonzero_coefs : int or array of shape (n_samples,), default=None
        Largest number of non-zeros, for "lars" and the pursuits; what exceeds the possible is cut. None is
        ``max(n_features / 10, 1)``, or no limit if `max_error` is given.
    alpha : float or array of shape (n_samples,), default=None
        Penalty, or the threshold of "threshold". None is 1.
    copy_cov : bool, default=True
        For compatibility: `cov` is never written to.
    init : array-like or csr_array of shape (n_samples, n_components), default=None
        Codes to start from, for the algorithms of the lasso.
    max_iter : int, default=1000
        Rounds (lasso_lars), sweeps (lasso_cd) or iterations a signal at most.
    n_jobs : int or None, default=None
        Threads; None and -1 mean all that this process may use. The codes do not depend on it, to the last bit.
    check_input : bool, default=True
        For compatibility: checks cost next to nothing here and are always made.
    verbose : int, default=0
        Above 0, one line about the codes is printed.
    positive : bool, default=False
        Codes >= 0; not with "lars" and "ols".
    tol : float, default=1e-06
        Relative duality gap of lasso codes: at most this share of ``0.5 * ||x||^2`` above the optimum. float32 cannot
        certify less than about 1e-6. For "iht" the relative fall of the squared residual at which it stops.
    l1_ratio : float, default=1.0
        Share of the l1 norm in the penalty, above 0; below 1 it is an elastic net.
    weights : array-like of shape (n_components,) or (n_samples, n_components), default=None
        Factors of alpha; 0 leaves an atom without penalty, infinity keeps it out.
    max_error : float or array of shape (n_samples,), default=None
        Bound on the squared norm of the residual. Pursuits stop there, or at the count, whichever comes first;
        "lasso_lars" finds the code of least l1 norm within it.
    max_l1_norm : float or array of shape (n_samples,), default=None
        Bound on the l1 norm of the code, for "lasso_lars": the least squared error within it.
    mask : bool array of shape (n_samples, n_features) or "nan", default=None
        True where an entry is missing; "nan": where X is NaN. Missing entries do not count in the error.
    device : str, default="auto"
        "auto" or "cpu".
    sparse_output : bool, default=False
        Return a `csr_array`; no dense array of all codes is made.
    return_info : bool, default=False
        Return a dictionary about every signal as well.

    Returns
    -------
    codes : ndarray or csr_array of shape (n_samples, n_components)
    info : dict, if `return_info`
        "gap" (relative duality gap) for the lasso or "residual" (squared norm) for pursuits, "n_iter", "converged",
        each of shape (n_samples,).

    Raises
    ------
    ValueError
        For NaN or infinity outside `mask`, shapes that do not fit, and parameters that are wrong or that the algorithm
        does not know.

    Warns
    -----
    ConvergenceWarning
        If a lasso code is not within `tol` after `max_iter`.

    References
    ----------
    Lee, Battle, Raina, Ng, "Efficient sparse coding algorithms", NIPS 2006. Efron, Hastie, Johnstone, Tibshirani,
    "Least angle regression", 2004. Rubinstein, Zibulevsky, Elad, "Efficient implementation of the K-SVD algorithm using
    batch orthogonal matching pursuit", 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare import sparse_encode
    >>> dictionary = np.eye(3)
    >>> sparse_encode([[3.0, -0.5, 1.5]], dictionary, alpha=1.0)
    array([[2. , 0. , 0.5]])
    >>> X = [[3.0, -0.5, 1.5]]
    >>> codes, info = sparse_encode(X, dictionary, algorithm="omp", n_nonzero_coefs=2, return_info=True)
    >>> codes
    array([[3. , 0. , 1.5]])
    >>> info["residual"]
    array([0.25])
    """
    resolve_device(device, X, dictionary)
    check_bool("sparse_output", sparse_output, of="sparse_encode")
    check_bool("return_info", return_info, of="sparse_encode")
    dictionary = check_dictionary(dictionary)
    X, dtype = check_signals(X, dictionary.shape[1])
    problem = Problem(
        check_dictionary(dictionary, dtype),
        algorithm=algorithm,
        alpha=alpha,
        l1_ratio=l1_ratio,
        n_nonzero_coefs=n_nonzero_coefs,
        max_error=max_error,
        max_l1_norm=max_l1_norm,
        weights=weights,
        positive=positive,
        tol=tol,
        max_iter=max_iter,
        gram=gram,
    )
    codes = encode(
        X,
        problem,
        init=check_init(init, (X.shape[0], len(dictionary)), problem),
        n_jobs=n_jobs,
        mask=mask,
        cov=_check_cov(cov, (len(dictionary), X.shape[0]), problem, mask),
        dense=not sparse_output,
    )
    warn_if_not_converged(codes, problem)
    if verbose:
        print(summary(codes, problem))
    return (codes.values, info_of(codes, problem)) if return_info else codes.values


def check_init(init, shape, problem):
    """Codes to start from as a CSR array of the problem's dtype; None stays None."""
    if init is None:
        return None
    init = csr_array(init, dtype=problem.dtype)
    if not init.has_canonical_format:
        init = init.copy()
        init.sum_duplicates()
    if init.shape != shape:
        raise ValueError(f"init must have the shape (n_samples, n_components) = {shape}, got {init.shape}")
    if not np.isfinite(init.data).all():
        raise ValueError("init contains NaN or infinity")
    return init


def _check_cov(cov, shape, problem, mask):
    if cov is None or mask is not None or problem.weights is not None:
        return None
    cov = check_array_beside("cov", cov)
    if cov.shape != shape:
        raise ValueError(f"cov must have the shape (n_components, n_samples) = {shape}, got {cov.shape}")
    return cov


def info_of(codes, problem):
    """What `return_info` returns."""
    measure = "residual" if problem.form.pursuit else "gap"
    return {measure: codes.gap, "n_iter": codes.n_iter, "converged": codes.converged}


def summary(codes, problem):
    """One line about codes, for `verbose`."""
    values = codes.values
    entries = values.nnz if issparse(values) else np.count_nonzero(values)
    measure = "relative gap" if problem.form.lasso else "squared residual" if problem.form.pursuit else "gap"
    return (
        f"[{problem.owner}] {problem.algorithm}: {values.shape[0]} signals, {entries / values.shape[0]:.1f} non-zeros "
        f"each, {measure} at most {codes.gap.max():.2g}, {codes.n_iter.mean():.1f} iterations"
    )


def warn_if_not_converged(codes, problem, stacklevel=3):
    """Say how many lasso codes missed the tolerance, and what to raise."""
    left = np.count_nonzero(~codes.converged)
    if left:
        warn(
            f"{left} of {len(codes.converged)} codes have not converged: {problem.algorithm} stopped at "
            f"max_iter={problem.max_iter} with relative duality gaps up to {codes.gap[~codes.converged].max():.2g} "
            f"(tol={problem.tol:g}). Raise max_iter or tol.",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )
