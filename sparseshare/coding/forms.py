"""Forms in which signals, or groups of them, have a problem of their own: masks, weights by signal, free atoms."""

import numpy as np
from scipy.sparse import csr_array, issparse, vstack

from sparseshare.threads import run_in_threads, thread_count

from .codes import Codes, encode_tiles
from .forms_on_device import encode_form_on_device
from .free_atoms import bound_problem, free_atoms, has_free_atoms
from .masks import hide_missing, mask_of_rows
from .tiles import product_of_rows

_BLOCK = 4096  # signals that are held dense at once


def encode_form(
    X, problem, *, init=None, n_jobs=None, mask=None, cov=None, dense=False, device="cpu", keep=False, first=0
):
    """Codes for a problem of any form. Parameters as of `encode`; `first` is the first row's number, for messages."""
    by_signal, free = np.ndim(problem.weights) == 2, has_free_atoms(problem)
    by_mask = mask is not None and not problem.takes_masks
    if not (by_signal or free or by_mask):
        return encode_tiles(
            X, problem, init=init, n_jobs=n_jobs, mask=mask, cov=cov, dense=dense, device=device, keep=keep
        )
    if device != "cpu":
        return encode_form_on_device(X, problem, device, init=init, mask=mask, dense=dense, keep=keep)
    if X.shape[0] > _BLOCK:
        return _encode_blocks(X, problem, init, n_jobs, mask, dense)
    if mask is not None:
        return _encode_by_mask(X, problem, mask, init, n_jobs, dense, first)
    if by_signal:
        groups = [(slice(i, i + 1), problem.restricted(weights=problem.weights[i], rows=slice(i, i + 1)))
                  for i in range(X.shape[0])]  # fmt: skip
        return _encode_groups(X, groups, init, n_jobs, dense)
    return _encode_free_atoms(X, problem, n_jobs, dense)


def _encode_blocks(X, problem, init, n_jobs, mask, dense):
    """A block of signals after the other, for the forms that need a dense copy of their signals."""
    parts = []
    for start in range(0, X.shape[0], _BLOCK):
        rows = slice(start, min(start + _BLOCK, X.shape[0]))
        weights = problem.weights[rows] if np.ndim(problem.weights) == 2 else None
        own_init = None if init is None else init[rows]
        own = problem.restricted(weights=weights, rows=rows)
        parts.append(
            encode_form(X[rows], own, init=own_init, n_jobs=n_jobs, mask=mask_of_rows(mask, rows), first=start)
        )
    return _joined(parts, slice(None), dense)


def _joined(parts, order, dense):
    """Codes of several blocks of signals as one, in another order."""
    values = csr_array(vstack([part.values for part in parts], format="csr"))[order]
    gap, n_iter, converged = (np.concatenate([part[k] for part in parts])[order] for k in (1, 2, 3))
    return Codes(values.toarray() if dense else values, gap, n_iter, converged)


def _encode_groups(X, groups, init, n_jobs, dense):
    """Problems of their own for groups of rows (a slice or an array of row numbers each), put together again."""
    parts = [None] * len(groups)

    def work(number, _):
        rows, own = groups[number]
        groups[number] = rows, None  # a problem of its own has a Gram matrix of its own: do not keep them all
        start = None if init is None else init[rows]
        parts[number] = encode_form(X[rows], own, init=start, n_jobs=1)

    run_in_threads(work, len(groups), thread_count(n_jobs))
    order = np.concatenate(
        [np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows for rows, _ in groups]
    )
    return _joined(parts, np.argsort(order), dense)


def _encode_by_mask(X, problem, mask, init, n_jobs, dense, first):
    """Signals with the same entries missing share a problem: the dictionary without those features."""
    X = X.toarray() if issparse(X) else np.asarray(X)
    X, missing = hide_missing(X.astype(problem.dtype, copy=False), mask, first)
    patterns, which = np.unique(np.packbits(missing, axis=1), axis=0, return_inverse=True)
    which = which.ravel()
    order = np.argsort(which, kind="stable")
    edges = np.searchsorted(which[order], np.arange(len(patterns) + 1))
    groups = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        rows = order[start:stop]
        own_weights = problem.weights[rows] if np.ndim(problem.weights) == 2 else None
        groups.append((rows, problem.restricted(~missing[rows[0]], own_weights, rows)))
    return _encode_groups(X, groups, init, n_jobs, dense)


def _encode_free_atoms(X, problem, n_jobs, dense):
    """Atoms of weight 0 are solved out: the lasso sees what they leave of signals and atoms."""
    free = free_atoms(problem)
    X = (X.toarray() if issparse(X) else np.asarray(X)).astype(problem.dtype, copy=False)
    if not np.isfinite(X).all():
        raise ValueError("X contains NaN or infinity; for missing entries pass mask='nan' to sparse_encode")

    def remove(rows):
        rows = rows.astype(np.float64)
        return (rows - product_of_rows(product_of_rows(rows, free.removal), free.basis)).astype(problem.dtype)

    codes = encode_tiles(remove(X), bound_problem(problem, remove(problem.dictionary), free), n_jobs=n_jobs)
    rest = X - codes.values @ problem.dictionary
    loose = product_of_rows(product_of_rows(rest, free.inverse), free.left)
    exact = csr_array(loose.astype(problem.dtype))
    exact = csr_array(
        (exact.data, np.flatnonzero(free.atoms).astype(np.int32)[exact.indices], exact.indptr), codes.values.shape
    )
    values = csr_array(codes.values + exact)
    values.sort_indices()
    return codes._replace(values=values.toarray() if dense else values)
