"""Errors on entries that a code has not seen: which entries are held out, and one path a fold."""

from typing import NamedTuple

import numpy as np

from sparseshare.coding.path import sparse_encode_path
from sparseshare.devices import array_module, computing_on, to_device, to_host
from sparseshare.learning.statistics import dense_rows

_BLOCK = 2048  # signals whose masks, codes and predictions exist at once
_BLOCK_ON_GPU = 32_768


class HeldoutErrors(NamedTuple):
    """Squared errors of predictions at every penalty.

    Attributes
    ----------
    folds : ndarray of shape (n_alphas, n_folds)
        Mean over the held-out entries of a fold.
    signals : ndarray of shape (n_alphas, n_samples)
        Mean over the entries of a signal, each predicted while it was held out.
    seen : ndarray of shape (n_alphas,)
        Mean over the entries that the codes were made from.
    n_nonzero : ndarray of shape (n_alphas,)
        Mean number of non-zeros of a code.
    """

    folds: np.ndarray
    signals: np.ndarray
    seen: np.ndarray
    n_nonzero: np.ndarray


def entry_folds(n_samples, n_features, n_folds, random_state):
    """Share the entries of every signal out to folds, at random and as evenly as possible.

    Every entry is in one fold, so it is held out once. A fold holds out the same number of entries of every signal, up
    to one, and which fold gets one more is random: no signal is left without entries to code it from.

    Parameters
    ----------
    n_samples, n_features : int
    n_folds : int
        From 2 to n_features.
    random_state : RandomState

    Returns
    -------
    ndarray of shape (n_samples, n_features), int32
        The fold of every entry.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.model_selection.heldout import entry_folds
    >>> folds = entry_folds(100, 10, 5, np.random.RandomState(0))
    >>> np.unique((folds == 3).sum(axis=1))
    array([2])
    """
    folds = np.empty((n_samples, n_features), np.int32)
    for start in range(0, n_samples, _BLOCK):
        rows = folds[start : start + _BLOCK]
        order = random_state.random_sample(rows.shape).argsort(axis=1)
        first = random_state.randint(n_folds, size=(len(rows), 1))
        np.put_along_axis(rows, order, (np.arange(n_features, dtype=np.int32) + first) % n_folds, axis=1)
    return folds


def heldout_errors(
    X, dictionary, alphas, folds, *, positive=False, tol=1e-6, max_iter=1000, n_jobs=None, device="cpu", report=None
):
    """Hold out the entries of one fold after the other, code the signals from the rest, predict what was held out.

    With a share s of a signal's entries observed, its penalty is ``alpha * sqrt(s)``: as far above the noise of an
    atom's correlation with the entries observed as alpha is with whole signals.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    dictionary : array of shape (n_components, n_features)
        In the dtype to compute in.
    alphas : ndarray of shape (n_alphas,)
    folds : ndarray of int of shape (n_samples, n_features)
        As from `entry_folds`.
    positive : bool, default=False
    tol : float, default=1e-6
    max_iter : int, default=1000
    n_jobs : int or None, default=None
    device : str, default="cpu"
        Where to compute, as `resolve_device` returns it.
    report : callable or None, default=None
        Called with the number of a fold and its errors at all penalties when the fold is done.

    Returns
    -------
    HeldoutErrors
    """
    n_samples, n_features = X.shape
    n_folds, n_alphas = int(folds.max()) + 1, len(alphas)
    by_fold, seen = np.zeros((n_alphas, n_folds)), np.zeros(n_alphas)
    by_signal, n_nonzero = np.zeros((n_alphas, n_samples)), np.zeros(n_alphas)
    settings = dict(positive=positive, tol=tol, max_iter=max_iter, n_jobs=n_jobs)
    size = _BLOCK if device == "cpu" else _BLOCK_ON_GPU
    dictionary = to_device(dictionary, device)
    with computing_on(device):
        for fold in range(n_folds):
            n_held = 0
            for start in range(0, n_samples, size):
                rows = slice(start, min(start + size, n_samples))
                signals, held = to_device(dense_rows(X, rows, dictionary.dtype), device), folds[rows] == fold
                n_held += np.count_nonzero(held)
                unseen, rest, non_zeros = _errors(signals, dictionary, alphas, held, settings)
                by_fold[:, fold] += unseen.sum(axis=1)
                by_signal[:, rows] += unseen
                seen += rest
                n_nonzero += non_zeros
            by_fold[:, fold] /= n_held
            if report is not None:
                report(fold, by_fold[:, fold])
    n_seen = (n_folds - 1) * n_samples * n_features
    return HeldoutErrors(by_fold, by_signal / n_features, seen / n_seen, n_nonzero / (n_folds * n_samples))


def _errors(signals, dictionary, alphas, held, settings):
    """Of one block at every penalty: unseen errors a signal, the sum of the others, non-zeros; on the host."""
    xp = array_module(signals)
    hidden = xp.asarray(held)
    parts = [[], [], []]
    for codes in masked_path(signals, dictionary, alphas, held, **settings):
        errors = xp.square(signals - codes @ dictionary, dtype=np.float64)
        unseen = xp.where(hidden, errors, 0).sum(axis=1)
        for part, value in zip(parts, (unseen, errors.sum() - unseen.sum(), xp.count_nonzero(codes.data)), strict=True):
            part.append(value)
    return (to_host(xp.stack([xp.asarray(value) for value in part])) for part in parts)


def masked_path(X, dictionary, alphas, held, *, n_jobs=None, **settings):
    """Codes at every penalty from the entries that are not held out; penalties shrink with their share.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Where the codes are computed, and stay.
    dictionary : array of shape (n_components, n_features)
        In the dtype of X.
    alphas : ndarray of shape (n_alphas,)
    held : bool ndarray of shape (n_samples, n_features)
    n_jobs : int or None, default=None
    **settings
        `positive`, `tol` and `max_iter` of the codes.

    Returns
    -------
    list of CSR arrays of shape (n_samples, n_components)
    """
    xp = array_module(X)
    # Codes of x / r at alpha, times r, are codes of x at alpha * r: a penalty a signal from one path for all.
    shrinkage = xp.asarray(np.sqrt(1 - held.mean(axis=1)).astype(X.dtype))
    codes = sparse_encode_path(
        X / shrinkage[:, None], dictionary, alphas, mask=held, n_jobs=n_jobs, sparse_output=True, **settings
    )
    for code in codes:
        row = xp.searchsorted(code.indptr, xp.arange(len(code.data)), side="right") - 1
        code.data *= shrinkage[row]
    return codes
