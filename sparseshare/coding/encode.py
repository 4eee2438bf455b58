"""Codes of signals: `encode` for a checked problem, `sparse_encode` for users."""

from pathlib import Path
from warnings import warn

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.exceptions import ConvergenceWarning

from sparseshare.devices import resolve_device, to_host
from sparseshare.sources import Source, check_source, rows_of
from sparseshare.validation import check_bool, check_dictionary, check_signals

from .forms import encode_form
from .masks import check_mask
from .problem import Problem, check_array_beside
from .streams import encode_source, write_codes


def encode(X, problem, *, init=None, n_jobs=None, mask=None, cov=None, dense=False, device="cpu", keep=False):
    """Codes of signals for a problem that has been checked.

    Parameters
    ----------
    X : array, csr_array or Source of shape (n_samples, n_features)
        As `check_signals` or `check_source` returns it; read tile by tile.
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
    device : str, default="cpu"
        Where to compute, as `resolve_device` returns it.
    keep : bool, default=False
        Leave the codes on that device even if X does not live there.

    Returns
    -------
    Codes
        `values` is a CuPy array or csr_matrix if X lives on a GPU.
    """
    if isinstance(X, Source):
        return encode_source(X, problem, init=init, n_jobs=n_jobs, mask=mask, cov=cov, dense=dense, device=device)
    problem.check_samples(X.shape[0])
    mask = check_mask(mask, X.shape)
    cov = None if mask is not None else cov
    return encode_form(X, problem, init=init, n_jobs=n_jobs, mask=mask, cov=cov, dense=dense, device=device, keep=keep)


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
    out=None,
):
    """Sparse codes of signals for a given dictionary.

    For every row x of X find a code w with few non-zeros such that ``x`` is close to ``w @ dictionary``. The penalised
    algorithms minimise

        0.5 * ||x - w @ dictionary||^2 + alpha * (l1_ratio * sum_j weights_j |w_j| + 0.5 * (1 - l1_ratio) * ||w||^2)

    Parameters
    ----------
    X : array-like, sparse array or source of rows of shape (n_samples, n_features)
        Signals, one a row. float32 and float64 are computed in as they are, all else in float64. Sparse arrays are
        read tile by tile; memory maps, zarr arrays, HDF5 data sets and iterables of blocks (arrays or sparse arrays
        of some rows each) block by block.
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
        Above 0, one line about the codes is printed; with `out`, lines that say how far it is.
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
        True where an entry is missing; "nan": where X is NaN. Missing entries do not count in the error. A mask of its
        own for every signal costs little with "lasso_lars" (without bounds and weights by signal) and "omp"; the others
        build a Gram matrix for every distinct mask.
    device : str, default="auto"
        "auto" follows X: NumPy is coded on the CPU, CuPy on its GPU. "cuda" and "cuda:N" move NumPy over in pieces that
        fit there; "cpu".
    sparse_output : bool, default=False
        Return a `csr_array` (`cupyx.scipy.sparse.csr_matrix` for CuPy); no dense array of all codes is made.
    return_info : bool, default=False
        Return a dictionary about every signal as well.
    out : array or path, default=None
        Where codes go block by block, so that they are never in memory together: an array of their shape to whose rows
        can be written (memory map, zarr, HDF5), or a folder, which gets a file of codes (CSR) for every block. A folder
        that holds some of these codes already, because a run was interrupted, gets the rest.

    Returns
    -------
    codes : ndarray or csr_array of shape (n_samples, n_components)
        For CuPy signals a CuPy array. With `out` that array, or what `open_codes` returns for the folder.
    info : dict, if `return_info`
        "gap" (relative duality gap) for the lasso or "residual" (squared norm) for pursuits, "n_iter", "converged",
        each an ndarray of shape (n_samples,).

    Raises
    ------
    ValueError
        For NaN or infinity outside `mask`, shapes that do not fit, and parameters that are wrong or that the algorithm
        does not know. For rows that are read block by block a BlockError, which names the block; codes of the blocks
        before it that have been written to `out` stay there.
    OSError
        If `out` cannot be written to, because the disk is full for instance: codes before stay.
    RuntimeError
        If a GPU is asked for that cannot be used.
    TypeError
        If `device="auto"` meets arrays of the host beside arrays of a GPU.

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
    device = resolve_device(device, X, dictionary)
    check_bool("sparse_output", sparse_output, of="sparse_encode")
    check_bool("return_info", return_info, of="sparse_encode")
    dictionary, gram, cov, init, mask, alpha, weights, max_error, max_l1_norm, n_nonzero_coefs = map(
        to_host, (dictionary, gram, cov, init, mask, alpha, weights, max_error, max_l1_norm, n_nonzero_coefs)
    )
    dictionary = check_dictionary(dictionary)
    X = rows_of(X)
    X, dtype = (check_source if isinstance(X, Source) else check_signals)(X, dictionary.shape[1])
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
    options = dict(
        init=check_init(init, (X.shape[0], len(dictionary)), problem),
        n_jobs=n_jobs,
        mask=mask,
        cov=_check_cov(cov, (len(dictionary), X.shape[0]), problem, mask),
        device=device,
    )
    if out is not None:
        if return_info and isinstance(out, str | Path):
            raise ValueError(
                "return_info=True tells of the codes of this call, and some in a folder may be of a call before: leave "
                "it out, or give an array as out"
            )
        codes, stream = write_codes(
            X, problem, out, columns=len(dictionary), finish=lambda codes: codes, keep_info=return_info,
            verbose=verbose, **options,
        )  # fmt: skip
        warn_if_not_converged(stream.unsolved(), problem, n_signals=stream.n_signals)
        return (codes, info_of(stream.info(), problem)) if return_info else codes
    codes = encode(X, problem, dense=not sparse_output, **options)
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
    values = to_host(codes.values)
    entries = values.nnz if issparse(values) else np.count_nonzero(values)
    measure = "relative gap" if problem.form.lasso else "squared residual" if problem.form.pursuit else "gap"
    return (
        f"[{problem.owner}] {problem.algorithm}: {values.shape[0]} signals, {entries / values.shape[0]:.1f} non-zeros "
        f"each, {measure} at most {codes.gap.max():.2g}, {codes.n_iter.mean():.1f} iterations"
    )


def warn_if_not_converged(codes, problem, stacklevel=3, n_signals=None):
    """Say how many lasso codes missed the tolerance, of how many (None: all those passed), and what to raise."""
    left = np.count_nonzero(~codes.converged)
    if left:
        warn(
            f"{left} of {n_signals or len(codes.converged)} codes have not converged: {problem.algorithm} stopped at "
            f"max_iter={problem.max_iter} with relative duality gaps up to {codes.gap[~codes.converged].max():.2g} "
            f"(tol={problem.tol:g}). Raise max_iter or tol.",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )
