"""Orthogonal matching pursuit with scikit-learn's signatures: columns are atoms, and the results are the same."""

from contextlib import contextmanager
from warnings import warn

import numpy as np

from sparseshare.devices import array_module, computing_on, memory_errors, on_gpu, resolve_device, to_device, to_host
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.validation import check_number

from .problem import ATOM_PADDING, aligned_zeros

_PREMATURE = (
    "Orthogonal matching pursuit ended prematurely due to linear dependence in the dictionary. "
    "The requested precision might not have been met."
)


def orthogonal_mp(
    X,
    y,
    *,
    n_nonzero_coefs=None,
    tol=None,
    precompute=False,
    copy_X=True,
    return_path=False,
    return_n_iter=False,
    device="auto",
):
    """Orthogonal matching pursuit of targets in the columns of a matrix.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Atoms are its columns. As in scikit-learn they are compared by their plain inner products, so they should have
        equal norms; `sparse_encode(algorithm="omp")` is right for atoms of any norm.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
    n_nonzero_coefs : int, default=None
        Number of non-zeros; None, without `tol`, is ``max(n_features / 10, 1)``.
    tol : float, default=None
        Squared norm of the residual to reach; it overrides `n_nonzero_coefs`.
    precompute : bool or "auto", default=False
        For compatibility: the Gram matrix is always computed once for all targets.
    copy_X : bool, default=True
        For compatibility: X is never written to.
    return_path : bool, default=False
        Return the coefficients after every step.
    return_n_iter : bool, default=False
        Return the largest number of steps as well.
    device : str, default="auto"
        "auto" computes where the arrays live, "cuda" and "cuda:N" on a GPU. Results of CuPy arrays are CuPy arrays.

    Returns
    -------
    coef : ndarray of shape (n_features,) or (n_features, n_targets), with one more axis for the steps if `return_path`
    n_iter : int, if `return_n_iter`

    Raises
    ------
    ValueError
        If the count is below 1 or above n_features, or `tol` is negative.

    Warns
    -----
    RuntimeWarning
        If atoms that depend on the chosen ones are all that is left.

    References
    ----------
    Mallat, Zhang, "Matching pursuits with time-frequency dictionaries", 1993. Rubinstein, Zibulevsky, Elad 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare import orthogonal_mp
    >>> orthogonal_mp(np.eye(3), np.array([3.0, -0.5, 1.5]), n_nonzero_coefs=2)
    array([3. , 0. , 1.5])
    """
    device, keep = resolve_device(device, X, y), on_gpu(X) or on_gpu(y)
    X, y = _numbers("X", X), _numbers("y", y)
    if X.ndim != 2 or y.ndim not in (1, 2) or len(X) != len(y):
        raise ValueError(
            f"X must have the shape (n_samples, n_features) and y (n_samples,) or (n_samples, n_targets), "
            f"got {X.shape} and {y.shape}"
        )
    with _pursuing_on(device):
        X, y = to_device(X, device), to_device(y, device)
        targets = y[:, None] if y.ndim == 1 else y
        X, size = _scaled(X, None)
        targets, sizes = _scaled(targets, 0)
        norms2 = array_module(X).einsum("ij,ij->j", targets, targets, dtype=np.float64)
        return _solve(
            X.T @ X, X.T @ targets, norms2, n_nonzero_coefs, tol, return_path, return_n_iter, min(X.shape), device,
            keep, sizes, size,
        )  # fmt: skip


def orthogonal_mp_gram(
    Gram,
    Xy,
    *,
    n_nonzero_coefs=None,
    tol=None,
    norms_squared=None,
    copy_Gram=True,
    copy_Xy=True,
    return_path=False,
    return_n_iter=False,
    device="auto",
):
    """Orthogonal matching pursuit from the Gram matrix and the correlations alone.

    Parameters
    ----------
    Gram : array-like of shape (n_features, n_features)
        ``X.T @ X`` of the atoms.
    Xy : array-like of shape (n_features,) or (n_features, n_targets)
        ``X.T @ y``.
    n_nonzero_coefs : int, default=None
        Number of non-zeros; None, without `tol`, is ``max(n_features / 10, 1)``.
    tol : float, default=None
        Squared norm of the residual to reach; it overrides `n_nonzero_coefs` and needs `norms_squared`.
    norms_squared : array-like of shape (n_targets,), default=None
        Squared norms of the targets.
    copy_Gram, copy_Xy : bool, default=True
        For compatibility: neither is ever written to.
    return_path : bool, default=False
        Return the coefficients after every step.
    return_n_iter : bool, default=False
        Return the largest number of steps as well.
    device : str, default="auto"
        "auto" computes where the arrays live, "cuda" and "cuda:N" on a GPU. Results of CuPy arrays are CuPy arrays.

    Returns
    -------
    coef : ndarray of shape (n_features,) or (n_features, n_targets), with one more axis for the steps if `return_path`
    n_iter : int, if `return_n_iter`

    Raises
    ------
    ValueError
        If the count is below 1 or above n_features, or `norms_squared` is missing.

    Warns
    -----
    RuntimeWarning
        If atoms that depend on the chosen ones are all that is left.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare import orthogonal_mp_gram
    >>> orthogonal_mp_gram(np.eye(3), np.array([3.0, -0.5, 1.5]), n_nonzero_coefs=2)
    array([3. , 0. , 1.5])
    """
    device, keep = resolve_device(device, Gram, Xy, norms_squared), on_gpu(Gram) or on_gpu(Xy)
    Gram, Xy = _numbers("Gram", Gram), _numbers("Xy", Xy)
    if Gram.ndim != 2 or Gram.shape[0] != Gram.shape[1] or Xy.ndim not in (1, 2) or len(Xy) != len(Gram):
        raise ValueError(
            f"Gram must have the shape (n_features, n_features) and Xy (n_features,) or (n_features, n_targets), got "
            f"{Gram.shape} and {Xy.shape}"
        )
    targets = Xy[:, None] if Xy.ndim == 1 else Xy
    if (Gram.diagonal() < 0).any():
        raise ValueError("Gram has squared norms on its diagonal, which cannot be negative")
    if tol is not None and norms_squared is None:
        raise ValueError("tol needs norms_squared, the squared norm of every target")
    norms2 = np.zeros(targets.shape[1])
    if norms_squared is not None:
        norms2 = _numbers("norms_squared", norms_squared).astype(np.float64).reshape(-1)
        if norms2.shape != (targets.shape[1],):
            raise ValueError(f"norms_squared must have the shape ({targets.shape[1]},), got {norms2.shape}")
    with _pursuing_on(device):
        arrays = (to_device(array, device) for array in (Gram, targets, norms2))
        return _solve(*arrays, n_nonzero_coefs, tol, return_path, return_n_iter, len(Gram), device, keep)


def _numbers(name, value):
    array = value if on_gpu(value) else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    array = array if array.dtype == np.float32 else array.astype(np.float64, copy=False)
    if not array.size:
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    if not array_module(array).isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinity")
    return array


@contextmanager
def _pursuing_on(device):
    with computing_on(device), memory_errors(device, "the correlations of all targets"):
        yield


def _scaled(array, axis):
    """The array over a power of two, so that its squares neither over- nor underflow, and the exponents of that."""
    xp = array_module(array)
    sizes = xp.frexp(abs(array).max(axis=axis))[1]
    return xp.ldexp(array, -sizes), sizes


def _solve(gram, correlations, norms2, count, tol, return_path, return_n_iter, most, device, keep, sizes=0, size=0):
    """All targets in one tile of the pursuit kernel, which wants atoms of unit norm.

    Targets are 2**sizes, and atoms 2**size, times what the arrays say. Results leave the device unless `keep`.
    """
    xp = array_module(gram)
    n_atoms, n_targets = correlations.shape
    check_number("tol", tol, 0, allow_none=True, of="orthogonal_mp")
    if tol is None:
        count = max(int(0.1 * n_atoms), 1) if count is None else count
        count = check_number("n_nonzero_coefs", count, 1, n_atoms, integer=True, of="orthogonal_mp")
    else:
        count = n_atoms
    capacity = min(count, most)
    dtype = np.result_type(gram.dtype, correlations.dtype)
    norms = xp.sqrt(gram.diagonal().astype(np.float64))
    scale = xp.where(norms > 0, 1 / xp.where(norms > 0, norms, 1), 0)
    exponents = xp.frexp(abs(correlations * scale[:, None]).max(axis=0))[1]
    padded = -(-n_atoms // ATOM_PADDING) * ATOM_PADDING
    zeros = aligned_zeros if xp is np else xp.zeros
    Q, G, weight = (zeros(shape, dtype) for shape in ((n_targets, padded), (padded, padded), (padded,)))
    Q[:, :n_atoms] = xp.ldexp(correlations * scale[:, None], -exponents).T
    G[:n_atoms, :n_atoms] = gram * scale * scale[:, None]
    every = xp.arange(padded)
    diagonal = G[every, every]
    G[every, every] = xp.where(diagonal > 0.5, 1, diagonal).astype(dtype)
    weight[:n_atoms] = norms / xp.where(norms.max() > 0, norms.max(), 1)
    shifts = exponents + sizes - size  # of the codes
    targets = xp.ldexp(xp.full(n_targets, -1.0 if tol is None else tol), -2 * (exponents + sizes))
    stops = np.arange(1, capacity + 1) if return_path else np.zeros(0, np.int64)
    indices, values = xp.zeros((n_targets, capacity), np.int32), xp.zeros((n_targets, capacity), dtype)
    path = xp.zeros((n_targets, len(stops), capacity), dtype)
    counts, status = xp.zeros(n_targets, np.int32), xp.zeros(n_targets, np.int8)
    residuals = xp.zeros(n_targets)
    kernels_for(device, "pursuit").omp_tile(
        Q, xp.ldexp(norms2, -2 * exponents), G, xp.full(n_targets, capacity), targets, weight, stops, indices, values,
        counts, residuals, status, path,
    )  # fmt: skip
    if (counts < count).any() if tol is None else (residuals > targets).any():
        warn(_PREMATURE, RuntimeWarning, stacklevel=3)
    steps = int(counts.max()) if return_path else 1
    coef = xp.zeros((n_atoms, n_targets, steps), dtype)
    target, place = xp.nonzero(xp.arange(capacity) < counts[:, None])
    chosen = indices[target, place]
    units = xp.ldexp(scale[chosen], shifts[target])
    for step in range(steps):
        code = path[target, xp.minimum(step, counts[target] - 1), place] if return_path else values[target, place]
        coef[chosen, target, step] = code * units
    coef = xp.squeeze(coef if return_path else coef[:, :, 0])
    coef, steps = coef if keep else to_host(coef), to_host(counts).tolist()
    return (coef, steps if n_targets > 1 else steps[0]) if return_n_iter else coef
