"""The forms of `forms.py` on a GPU: signals with weights or masks of their own go through one solver together."""

import numpy as np

from sparseshare.devices import (
    array_module,
    computing_on,
    csr_of,
    module_of,
    on_gpu,
    rows_that_fit,
    to_device,
    to_host,
)

from .codes import ROUNDING, Codes, certify, encode_tiles
from .free_atoms import bound_problem, free_atoms, has_free_atoms
from .masks import hide_missing
from .pieces import encode_pieces
from .proximal import solve_each
from .thresholding import solve_threshold
from .tiles import product_of_rows


def encode_form_on_device(X, problem, device, *, init=None, mask=None, dense=False, keep=False):
    """Codes for a problem of any form on a GPU. Parameters and result as of `encode`.

    Lassos without bounds and `threshold` take all signals at once, whatever their weights and masks. Other algorithms
    take signals with the same mask together. Free atoms are solved out by products on the device.
    """
    by_signal, free = np.ndim(problem.weights) == 2, has_free_atoms(problem)
    if not (by_signal or free or mask is not None):
        return encode_tiles(X, problem, init=init, dense=dense, device=device, keep=keep)
    if problem.algorithm == "threshold" or (problem.form.lasso and not problem.constrained and not free):
        return _encode_together(X, problem, device, init, mask, dense, keep)
    if mask is not None or by_signal:
        return _encode_groups(X, problem, device, init, mask, dense, keep)
    return _encode_free_atoms(X, problem, device, dense, keep)


def _encode_together(X, problem, device, init, mask, dense, keep):
    weights, solver = None, solve_threshold if problem.algorithm == "threshold" else solve_each
    if np.ndim(problem.weights) == 2:
        weights, problem = problem.weights, problem.restricted()
        problem.weights = None

    def solve(there, tile, tol):
        own = None
        if weights is not None:
            own = array_module(tile.values).ones(tile.correlations.shape, tile.correlations.dtype)
            rows = np.ascontiguousarray(weights[tile.rows], own.dtype)
            own[:, : rows.shape[1]] = to_device(rows, device)
        solver(there, tile, tol, own)

    tol = max(problem.tol, ROUNDING[problem.dtype])
    run = dict(solve=solve, certify=certify, tol=tol)
    return Codes(*encode_pieces(X, problem, device, init=init, mask=mask, dense=dense, keep=keep, **run))


def _encode_groups(X, problem, device, init, mask, dense, keep):
    """Signals with the same entries missing share a problem, or each signal has its own; put together again."""
    with computing_on(device):
        missing, groups = None, [np.array([i]) for i in range(X.shape[0])]
        if mask is not None:
            xp = array_module(X)
            X = X.toarray() if _is_sparse(X) else X
            there = mask if isinstance(mask, str) or xp is np else xp.asarray(mask)
            X, missing = hide_missing(X.astype(problem.dtype, copy=False), there)
            missing = to_host(missing)
            groups = _same_rows(missing)
        parts = []
        for rows in groups:
            weights = problem.weights
            if np.ndim(weights) == 2:
                weights = weights[rows] if len(rows) > 1 else weights[rows[0]]
            own = problem.restricted(None if missing is None else ~missing[rows[0]], weights, rows)
            signals = X[array_module(X).asarray(rows)]
            start = None if init is None else init[rows]
            parts.append(encode_form_on_device(signals, own, device, init=start, keep=keep))
        order = np.argsort(np.concatenate(groups))
        return _joined(parts, order, dense)


def _is_sparse(X):
    return hasattr(X, "indptr")


def _same_rows(missing):
    """Numbers of the rows that are alike, group by group."""
    patterns, which = np.unique(np.packbits(missing, axis=1), axis=0, return_inverse=True)
    which = which.ravel()
    order = np.argsort(which, kind="stable")
    return np.split(order, np.searchsorted(which[order], np.arange(1, len(patterns))))


def _joined(parts, order, dense):
    """CSR codes of several groups of signals as one, in another order, where they live."""
    values = [part.values for part in parts]
    xp = array_module(values[0].data)
    data, indices = (xp.concatenate([getattr(rows, name) for rows in values]) for name in ("data", "indices"))
    starts, entries = [values[0].indptr[:1]], 0
    for rows in values:
        starts.append(rows.indptr[1:] + rows.indptr.dtype.type(entries))
        entries += rows.data.size
    shape = len(order), values[0].shape[1]
    whole = csr_of(data, indices, xp.concatenate(starts), shape)[xp.asarray(order)]
    gap, n_iter, converged = (np.concatenate([part[k] for part in parts])[order] for k in (1, 2, 3))
    return Codes(whole.toarray() if dense else whole, gap, n_iter, converged)


def _encode_free_atoms(X, problem, device, dense, keep):
    free, keep = free_atoms(problem), keep or on_gpu(X)
    dictionary = problem.dictionary.astype(np.float64)
    dictionary -= product_of_rows(product_of_rows(dictionary, free.removal), free.basis)
    bound = bound_problem(problem, dictionary.astype(problem.dtype), free)
    xp, parts = module_of(device), []
    with computing_on(device):
        atoms = xp.asarray(problem.dictionary)
        basis, removal, inverse, left = (xp.asarray(np.ascontiguousarray(array)) for array in free[1:])
        columns = xp.asarray(np.flatnonzero(free.atoms))
        n_rows = rows_that_fit(device, problem.dtype.itemsize * 6 * (sum(atoms.shape) + 8))
        for start in range(0, X.shape[0], n_rows):
            rows = slice(start, start + n_rows)
            signals = to_device(X[rows], device)
            signals = (signals.toarray() if _is_sparse(signals) else signals).astype(problem.dtype, copy=False)
            if not xp.isfinite(signals).all():
                raise ValueError("X contains NaN or infinity; for missing entries pass mask='nan' to sparse_encode")
            exact = signals.astype(np.float64)
            seen = (exact - (exact @ removal) @ basis).astype(problem.dtype)
            codes = encode_tiles(seen, bound.restricted(rows=rows), dense=True, device=device, keep=True)
            rest = exact - codes.values.astype(np.float64) @ atoms.astype(np.float64)
            codes.values[:, columns] = ((rest @ inverse) @ left).astype(problem.dtype)
            values = codes.values if dense else _compressed(codes.values)
            parts.append(codes._replace(values=values if keep else to_host(values)))
    if not dense:
        return _joined(parts, np.arange(X.shape[0]), dense)
    values = array_module(parts[0].values).concatenate([part.values for part in parts])
    return Codes(values, *(np.concatenate([part[k] for part in parts]) for k in (1, 2, 3)))


def _compressed(dense):
    """The non-zeros of a dense array as a CSR array on the same device."""
    xp = array_module(dense)
    rows, columns = xp.nonzero(dense)
    starts = xp.zeros(len(dense) + 1, np.int64)
    xp.cumsum((dense != 0).sum(axis=1), out=starts[1:])
    narrow = np.int32 if len(rows) < np.iinfo(np.int32).max else np.int64
    return csr_of(dense[rows, columns], columns.astype(narrow), starts.astype(narrow), dense.shape)
