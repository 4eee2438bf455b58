"""Epochs that learn the dictionaries of several layers: batches, a rate that falls, stops, and checkpoints."""

import warnings
from dataclasses import dataclass, field
from math import inf, isfinite

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sparseshare.checkpoints import random_bits
from sparseshare.devices import moved
from sparseshare.threads import single_threaded_blas, thread_count

from .multilayer_learning import EpochSums

_STILL_FALLING = 0.01  # an objective that falls by more in the last epoch has not settled


@dataclass
class Progress:
    """How far learning has come.

    Attributes
    ----------
    rate : float
        Of the next epoch.
    losses : list of float
        Mean objective, one an epoch.
    best : float
        The least of them that counted as a fall.
    waited : int
        Epochs since then.
    stopped : str
        "" before the end; then "converged", which a callback may have asked for, "max_iter" or "diverged".
    broken : float or None
        The objective that made it diverge.
    """

    rate: float
    losses: list = field(default_factory=list)
    best: float = inf
    waited: int = 0
    stopped: str = ""
    broken: float | None = None


def learn_dictionaries(estimator, learner, read, n_samples, resumption, reports, so_far):
    """Learn until the objective stops falling.

    Parameters
    ----------
    estimator : DeepSparseEncoder
        Whose parameters say how.
    learner : DictionaryLearner
        If `resumption` has a state, it goes on from the weights and the memory in it.
    read : Batches
    n_samples : int
    resumption : Resumption
        Where checkpoints go, and what to go on from.
    reports : NetworkReports
    so_far : callable
        ``so_far(n_iter)`` makes the fitted attributes as they are now.

    Returns
    -------
    Progress

    Warns
    -----
    ConvergenceWarning
        See `DeepSparseEncoder`.
    """
    random_state, saved = resumption.random_state, resumption.saved
    progress, sums, kept = Progress(float(estimator.learning_rate)), EpochSums(), None
    if saved is not None:
        progress = Progress(**saved["progress"])
        sums, kept = EpochSums.there(saved["sums"], learner.device), moved(saved["kept"], learner.device)
        random_state.set_state(saved["random_state"])

    def save():
        resumption.save(
            dict(
                weights=learner.weights(),
                memory=learner.memory,
                progress=vars(progress),
                sums=vars(sums),
                kept=kept,
                random_state=before,
                finished=bool(progress.stopped),
            )
        )

    def save_within_an_epoch():
        if sums.n_samples < n_samples and resumption.due():
            save()

    def attributes():
        return so_far(len(progress.losses))

    before = random_bits(random_state)
    if reports.again(progress.losses, attributes) and not progress.stopped:
        progress.stopped = "converged"
    while not progress.stopped:
        reports.begin()
        kept = learner.weights() if kept is None else kept
        order, step = random_state.permutation(n_samples), estimator.batch_size
        batches = (read(order[i : i + step]) for i in range(sums.n_samples, n_samples, step))
        with np.errstate(over="ignore", invalid="ignore"), single_threaded_blas:
            n_threads = thread_count(estimator.n_jobs)
            loss = learner.epoch(batches, progress.rate, n_threads, sums, save_within_an_epoch) / n_samples
        if not isfinite(loss):
            learner.restore(kept)
            progress.stopped, progress.broken = "diverged", loss
            break
        _count(progress, loss, estimator)
        if reports.end_epoch(loss, attributes):
            progress.stopped = "converged"
        sums, kept, before = EpochSums(), None, random_bits(random_state)
        if not progress.stopped and resumption.due():
            save()
    if saved is None or not saved["finished"]:
        sums, kept, before = EpochSums(), None, random_bits(random_state)
        save()
    _warn(progress, estimator)
    return progress


def _count(progress, loss, estimator):
    """An epoch has ended: what follows from its mean objective."""
    progress.losses.append(loss)
    falls = loss < progress.best * (1 - estimator.tol)
    progress.best, progress.waited = min(progress.best, loss), 0 if falls else progress.waited + 1
    progress.rate = progress.rate if falls else 0.5 * progress.rate
    if estimator.n_iter_no_change is not None and progress.waited >= estimator.n_iter_no_change:
        progress.stopped = "converged"
    elif len(progress.losses) >= estimator.max_iter:
        progress.stopped = "max_iter"


def _warn(progress, estimator):
    """Say what a user should know about how learning ended."""
    curve = progress.losses
    if progress.stopped == "diverged":
        message = (
            f"The objective became {progress.broken} in epoch {len(curve) + 1}: learning has stopped. Bring X to a "
            "smaller scale"
        )
    elif (
        progress.stopped == "max_iter"
        and estimator.n_iter_no_change is not None
        and len(curve) > 1
        and curve[-1] < (1 - _STILL_FALLING) * curve[-2]
    ):
        message = (
            f"DeepSparseEncoder stopped after max_iter={estimator.max_iter} epochs, the last of which still lowered "
            f"the objective by {1 - curve[-1] / curve[-2]:.1%}: raise max_iter or tol"
        )
    else:
        return
    warnings.warn(message, ConvergenceWarning, stacklevel=6)
