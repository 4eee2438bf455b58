"""The training loop: mini-batches, a validation part, and stops that keep the best weights."""

import time
import warnings
from dataclasses import dataclass, field
from math import inf, isfinite

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sparseshare.callbacks import EpochReports, report_epoch
from sparseshare.checkpoints import random_bits
from sparseshare.devices import array_module, device_of, to_device

from .losses import value_of
from .optimizers import scheduled_rate
from .resumption import packed_network, restore_network

_RISEN = 10  # times the loss before training: one that training has made worse
_DIVIDE, _SMALLEST = 5.0, 1e-6  # what "adaptive" does to the rate, and below what it stops, as scikit-learn's
_TOGETHER = 256  # losses of batches that a GPU adds up at a time


@dataclass
class Plan:
    """How to train.

    Attributes
    ----------
    loss : callable
        ``loss(outputs, targets) -> value, gradient``. On a GPU the value may be an array that adds up to it.
    optimizer : object
        With ``step(parameters, rate, l1, l2, penalised)``.
    learning_rate : float
    schedule : str or callable
        See `scheduled_rate`.
    batch_size, max_iter : int
    l1, l2 : float
        Penalties on all weights, divided by the samples of a batch.
    tol : float
    n_iter_no_change : int or None
        Epochs without an improvement by `tol` before training stops; None: train for `max_iter` epochs.
    shuffle : bool
    """

    loss: object
    optimizer: object
    learning_rate: float
    schedule: object
    batch_size: int
    max_iter: int
    l1: float = 0.0
    l2: float = 0.0
    tol: float = 1e-4
    n_iter_no_change: int | None = 10
    shuffle: bool = True


@dataclass
class History:
    """What training has seen.

    Attributes
    ----------
    loss_curve : list of float
        One an epoch.
    validation_scores : list of float
    best_loss, best_score : float
    n_iter : int
    stopped : str
        "converged", "max_iter", "callback" or "diverged".
    """

    loss_curve: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)
    best_loss: float = inf
    best_score: float = -inf
    n_iter: int = 0
    stopped: str = ""


class NetworkReports(EpochReports):
    """Epochs of a network for scikit-learn's callbacks and the terminal; attributes come from the estimator."""

    def end_epoch(self, loss, attributes, **more):
        """An epoch has ended; True if a callback asks to stop.

        Parameters
        ----------
        loss : float
        attributes : callable
            Makes the fitted attributes of the estimator as they are now.
        **more : numbers
            Further things to print.
        """
        self.epoch += 1
        self.dictionary = attributes
        if self.estimator.verbose:
            report_epoch(
                type(self.estimator).__name__,
                self.epoch,
                self.estimator.max_iter,
                loss,
                time.perf_counter() - self.started,
                **more,
            )
        return self._tell(loss)

    def _attributes(self):
        return self.dictionary()


def train(
    network, read, targets, plan, random_state, *, score=None, reports=None, attributes=dict, resumption=None
):  # fmt: skip
    """Train a network until it stops getting better.

    Parameters
    ----------
    network : Network
    read : Batches or callable
        ``read(rows) -> batch`` for an int array, which lies where the targets do.
    targets : array of shape (n_samples, ...)
        For `Batches` on the host, else where the network is computed.
    plan : Plan
    random_state : RandomState
    score : callable or None, default=None
        Of the network on a validation part, larger is better. It then decides when to stop, and which weights to keep.
    reports : NetworkReports or None, default=None
    attributes : callable
        For `reports`.
    resumption : Resumption or None, default=None
        Where checkpoints go, and what to go on from.

    Returns
    -------
    History

    Warns
    -----
    ConvergenceWarning
        If the loss became NaN or infinite; the weights are then those of the last good epoch. Also if it ended ten
        times higher than it was before.
    """
    saved = None if resumption is None else resumption.saved
    if saved is None:
        history, progress, epoch = History(), _Progress(_loss_of_some(network, read, targets, plan)), None
        best, good = None, network.state()
    else:
        history, progress, epoch = History(**saved["history"]), _Progress(**saved["progress"]), saved["epoch"]
        best, good = restore_network(network, saved["network"]).values()
        if epoch is None:
            random_state.set_state(saved["random_state"])

    def save(epoch=None):
        resumption.save(
            dict(
                history=vars(history),
                progress=vars(progress),
                epoch=epoch,
                network=packed_network(network, best=best, good=good),
                random_state=random_bits(random_state),
                finished=bool(history.stopped),
            )
        )

    if reports is not None and reports.again(history.loss_curve, attributes) and not history.stopped:
        history.stopped = "callback"
    if saved is not None and saved["finished"]:
        return history
    while history.n_iter < plan.max_iter and not history.stopped:
        if saved is None and history.n_iter and resumption is not None and resumption.due():
            save()
        saved = None
        _gather_clusters(network, history.n_iter / plan.max_iter)
        rate = progress.factor * scheduled_rate(plan.schedule, plan.learning_rate, history.n_iter, plan.max_iter)
        if reports is not None:
            reports.begin()
        started = time.perf_counter()
        loss = train_epoch(
            network,
            read,
            targets,
            plan,
            rate,
            random_state,
            epoch,
            None if resumption is None else resumption.due,
            save,
        )
        epoch = None
        more = {"samples_per_second": round(len(targets) / max(time.perf_counter() - started, 1e-9))}
        if not isfinite(loss):
            network.restore(good if best is None else best)
            _warn_diverged(loss, history.n_iter, rate, plan)
            history.stopped = "diverged"
            break
        good = network.state()
        history.n_iter += 1
        history.loss_curve.append(loss)
        if score is None:
            improved = loss < history.best_loss - plan.tol
        else:
            value = float(score(network))
            history.validation_scores.append(value)
            more["validation_score"] = value
            improved = value > history.best_score + plan.tol
            if value > history.best_score:
                history.best_score, best = value, good
        history.best_loss = min(history.best_loss, loss)
        progress.waited = 0 if improved else progress.waited + 1
        if reports is not None and reports.end_epoch(loss, attributes, **more):
            history.stopped = "callback"
            break
        if plan.n_iter_no_change is None or progress.waited < plan.n_iter_no_change:
            continue
        if _gather_clusters(network, 1.0):
            # What follows is the fine-tuning; what was best before had more values.
            progress.waited, best, history.best_loss, history.best_score = 0, None, inf, -inf
            continue
        if plan.schedule == "adaptive" and progress.factor * plan.learning_rate > _SMALLEST:
            progress.factor, progress.waited = progress.factor / _DIVIDE, 0
            continue
        history.stopped = "converged"
        break
    history.stopped = history.stopped or "max_iter"
    if best is not None:
        network.restore(best)
    elif history.loss_curve and history.loss_curve[-1] > _RISEN * max(progress.untrained, 100 * plan.tol):
        _warn_risen(progress.untrained, history, plan)
        history.stopped = "diverged"
    _gather_clusters(network, 1.0)
    if resumption is not None:
        best = good = None
        save()
    return history


@dataclass
class _Progress:
    """What decides when to stop: the loss before training, epochs without improvement, the factor of the rate."""

    untrained: float
    waited: int = 0
    factor: float = 1.0


def train_epoch(network, read, targets, plan, rate, random_state, begun=None, due=None, save=None):
    """One pass over all samples.

    Parameters
    ----------
    network, read, targets, plan, random_state : see `train`
    rate : float
    begun : dict or None, default=None
        What `save` was given when this pass was broken off, to go on from; the network is then as it was.
    due, save : callables or None, default=None
        Whether, and how, to save how far the pass has come.

    Returns
    -------
    float
        Mean loss, penalties of the weights at the end included. NaN or infinite if the epoch was broken off; a GPU goes
        through with it, for the host looks at no loss before the end.
    """
    n_samples = len(targets)
    total, done = _LossSum(), 0
    if begun is not None:
        random_state.set_state(begun["before"])
    before = random_bits(random_state)
    order = random_state.permutation(n_samples) if plan.shuffle else np.arange(n_samples)
    if begun is not None:
        random_state.set_state(begun["now"])
        total, done = _LossSum.of(begun["total"], network.device), begun["done"]
    parameters, weights = network.parameters, network.weights()
    # A loss past all bounds ends the epoch and is reported; no need for NumPy to do so first.
    with np.errstate(over="ignore", invalid="ignore"):
        for batch, wanted in _epoch(read, targets, order[done:], plan.batch_size):
            n = len(batch)
            outputs, caches = network.forward(batch, True, random_state)
            loss, gradient = plan.loss(outputs, wanted)
            if not total.add(loss, n):
                return loss
            for parameter in parameters:
                parameter.reset_gradient()
            network.backward(gradient, caches)
            plan.optimizer.step(parameters, rate, plan.l1 / n, plan.l2 / n, weights)
            done += n
            if due is not None and done < n_samples and due():
                save(dict(before=before, now=random_bits(random_state), done=done, total=total.state))
        penalty = _penalty(weights, plan)
        mean = total.total() / n_samples + penalty
    return mean if _all_finite(parameters) else np.nan


class _LossSum:
    """Adds up the losses of batches, each times its samples; those of a GPU there, in float64, a few hundred at a time.

    The host never waits for one.
    """

    def __init__(self):
        self.sum, self.waiting, self.sums = 0.0, [], []

    @property
    def state(self):
        """What it holds, as arrays and numbers for `of`."""
        return dict(sum=self.sum, sums=list(map(float, self.sums)), waiting=self.waiting)

    @classmethod
    def of(cls, state, device):
        """One that goes on from a `state`."""
        total = cls()
        total.sum, total.sums = state["sum"], state["sums"]
        total.waiting = [(to_device(losses, device), n_samples) for losses, n_samples in state["waiting"]]
        return total

    def add(self, loss, n_samples):
        """Whether the loss may be finite: of a loss on a GPU that is not known yet."""
        if device_of(loss) == "cpu":
            self.sum += loss * n_samples
            return isfinite(loss)
        self.waiting.append((loss.reshape(-1), n_samples))
        if len(self.waiting) == _TOGETHER:
            self._fold()
        return True

    def _fold(self):
        losses, counts = zip(*self.waiting, strict=True)
        xp = array_module(losses[0])
        weights = xp.asarray(np.repeat(np.array(counts, np.float64), [loss.size for loss in losses]))
        self.sums.append((xp.concatenate(losses) * weights).sum())
        self.waiting = []

    def total(self):
        """The sum."""
        if self.waiting:
            self._fold()
        return self.sum + sum(map(float, self.sums))


def _epoch(read, targets, order, size):
    """Batches and their targets."""
    if hasattr(read, "epoch"):
        yield from read.epoch(targets, order, size)
        return
    order = to_device(order, device_of(targets))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield read(rows), targets[rows]


def _all_finite(parameters):
    """Whether no value is NaN or infinite; a GPU is asked once for all."""
    flags = [array_module(parameter.values).isfinite(parameter.values).all() for parameter in parameters]
    return not flags or bool(array_module(flags[0]).stack(flags).all())


def _penalty(weights, plan):
    return sum(parameter.penalty(plan.l1 / plan.batch_size, plan.l2 / plan.batch_size) for parameter in weights)


def _loss_of_some(network, read, targets, plan):
    """Loss of a batch from all over the samples; infinite, so that nothing counts as a rise, if it is not finite."""
    rows = np.linspace(0, len(targets) - 1, min(len(targets), plan.batch_size)).astype(int)
    rows = to_device(rows, device_of(targets))
    with np.errstate(over="ignore", invalid="ignore"):
        batch = read(rows)
        wanted = to_device(targets[rows], device_of(batch))
        loss = value_of(plan.loss(network.output(batch), wanted)[0]) + _penalty(network.weights(), plan)
    return loss if isfinite(loss) else inf


def _gather_clusters(network, progress):
    """Cluster the weights of layers whose rule wants it now; whether any did."""
    waiting = [p for p in network.parameters if p.pending is not None and progress >= p.pending.start]
    for parameter in waiting:
        parameter.pending.gather(parameter)
    return bool(waiting)


def _warn_risen(untrained, history, plan):
    warnings.warn(
        f"The loss rose from {untrained:.3g} before training to {history.loss_curve[-1]:.3g} after epoch "
        f"{history.n_iter}. Lower learning_rate, which is {plan.learning_rate:.3g}, or bring features and targets to a "
        "smaller scale",
        ConvergenceWarning,
        stacklevel=5,
    )


def _warn_diverged(loss, n_iter, rate, plan):
    kept = f"those after epoch {n_iter}" if n_iter else "those before the first epoch"
    warnings.warn(
        f"The loss became {loss} in epoch {n_iter + 1}: training has stopped, the weights are {kept}. Lower "
        f"learning_rate, which was {rate:.3g}, or bring features and targets to a smaller scale",
        ConvergenceWarning,
        stacklevel=5,
    )
