"""Learning from a stream of batches: statistics that forget, one atom sweep a batch, and when to stop.

On a GPU nothing of a batch goes through the host but four numbers: its loss, how far it moved the dictionary, and what
tells whether atoms are to be exchanged. They are read one batch late, when the next batch has been coded and the device
is done with them anyhow. If they say stop, only the codes of that next batch are lost; if they say that atoms are to be
exchanged, it is coded again. So there are as many steps as on the CPU, and the device does not wait for the host.
"""

import warnings
from contextlib import closing
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from sparseshare.callbacks import EpochReports
from sparseshare.checkpoints import random_bits, resumed_random_state
from sparseshare.coding.encode import encode
from sparseshare.coding.problem import Problem
from sparseshare.devices import (
    array_module,
    computing_on,
    device_of,
    module_of,
    moved,
    pinned_array,
    to_device,
    to_host,
)
from sparseshare.progress import RowProgress
from sparseshare.sources import Block
from sparseshare.threads import single_threaded_blas
from sparseshare.validation import check_bool, check_number

from .batches import batches
from .learner import DictionaryLearner
from .order import BatchOrder
from .replacement import COHERENCE, duplicate_atoms, largest_cosine, replace_atoms
from .statistics import Statistics, squared_residuals
from .transformer import coding_options
from .updates import optimal_directions, sweep_atoms

_PATIENCE = 10  # an atom is dead when it goes unused for as many signals as this times the number of atoms


class _Step(NamedTuple):
    """A batch that has been learned from, until its numbers are read."""

    X: object
    residuals: object
    before: object  # the dictionary
    numbers: object  # loss, length of the update, longest time unused, largest cosine


class OnlineUpdate:
    """The dictionary and what is remembered of the batches that made it.

    Parameters
    ----------
    dictionary : array of shape (n_components, n_features)
        On the device that learns. Updated in place.
    options : dict
        Of the coding problem.
    constraint : AtomConstraint
    dict_update : {"bcd", "mod"}
    replace : bool
        Whether dead and duplicate atoms are replaced.
    n_jobs : int or None
    memory : dict or None
        `memory` of an earlier one, to go on from.
    """

    def __init__(self, dictionary, options, constraint, dict_update, replace, n_jobs, memory=None):
        self.dictionary, self.options, self.constraint = dictionary, options, constraint
        self.dict_update, self.replace, self.n_jobs = dict_update, replace, n_jobs
        self.alpha, self.l1_ratio = options.get("alpha", 0.0), options.get("l1_ratio", 1.0)
        self.device = device_of(dictionary)
        n_components = len(dictionary)
        if memory is None:
            self.statistics = Statistics.zeros(*dictionary.shape, self.device)
            self.unused_for = module_of(self.device).zeros(n_components)
            self.signals_until_check = float(_PATIENCE * n_components)
            self.n_steps = 0
        else:
            memory = moved(memory, self.device)
            self.statistics = Statistics(**memory["statistics"])
            self.unused_for = memory["unused_for"]
            self.signals_until_check = memory["signals_until_check"]
            self.n_steps = memory["n_steps"]

    @property
    def memory(self):
        """All that going on needs beside the dictionary, as arrays and numbers."""
        return dict(
            statistics=dict(vars(self.statistics), squared_norm=float(self.statistics.squared_norm)),
            unused_for=self.unused_for,
            signals_until_check=self.signals_until_check,
            n_steps=self.n_steps,
        )

    def steps(self, parts, late=False):
        """Learn from batches, one after the other.

        Parameters
        ----------
        parts : iterable of arrays of shape (n_samples, n_features)
            Dense, in the dtype of the dictionary and on its device.
        late : bool, default=False
            Read the numbers of a step when the next batch has been coded.

        Yields
        ------
        n_samples : int
        loss : float
            The mean objective of the batch for the dictionary before the update.
        change : float
            Frobenius norm of the update, divided by the number of atoms.
        """
        waiting = None
        for X in parts:
            codes = self._code(X)
            if waiting is not None:
                loss, change, exchanged = self._settle(waiting)
                yield len(waiting.X), loss, change
                if exchanged:
                    codes = self._code(X)
            waiting = self._learn(X, codes)
            if not late:
                yield len(X), *self._settle(waiting)[:2]
                waiting = None
        if waiting is not None:
            yield len(waiting.X), *self._settle(waiting)[:2]

    def _code(self, X):
        problem = Problem(to_host(self.dictionary), **self.options)
        return encode(X, problem, n_jobs=self.n_jobs, device=self.device, keep=True).values

    def _learn(self, X, codes):
        residuals, size = squared_residuals(X, codes, self.dictionary), len(X)
        loss = (0.5 * residuals.sum() + self._penalty(codes.data)) / size
        self.statistics.forget(forgetting_factor(self.n_steps, size))
        self.statistics.add(X, codes, weight=1 / size, n_jobs=self.n_jobs)
        return self._move(X, residuals, loss, size, codes.indices)

    def _move(self, X, residuals, loss, size, used):
        """The dictionary's part of a step, once the batch of `size` signals is in the statistics.

        `X` and `residuals` are those of signals that may become atoms, `used` are the atoms that the batch uses.
        """
        dictionary = self.dictionary
        before = dictionary.copy()
        if self.dict_update == "mod":
            optimal_directions(dictionary, self.statistics, self.constraint)
        else:
            sweep_atoms(dictionary, self.statistics, self.constraint)
        longest = cosine = 0.0
        if self.replace:
            self.unused_for += size
            self.unused_for[used] = 0
            longest = self.unused_for.max()
            self.signals_until_check -= size
            if self.signals_until_check <= 0:  # the cosines of all pairs cost as much as a sweep
                self.signals_until_check = float(_PATIENCE * len(dictionary))
                cosine = largest_cosine(dictionary)
        self.n_steps += 1
        numbers = _Numbers(loss, _length(dictionary - before), longest, cosine)
        return _Step(X, residuals, before, numbers)

    def _penalty(self, values):
        if self.alpha == 0:
            return 0.0
        xp = array_module(values)
        penalty = self.l1_ratio * xp.abs(values).sum(dtype=np.float64)
        if self.l1_ratio < 1:
            penalty = penalty + 0.5 * (1 - self.l1_ratio) * xp.square(values, dtype=np.float64).sum()
        return self.alpha * penalty

    def _settle(self, step):
        """Loss and change of a step, and whether atoms were exchanged after it."""
        loss, length, longest, cosine = step.numbers.read()
        exchanged = False
        if longest >= _PATIENCE * len(self.dictionary) or cosine > COHERENCE:
            exchanged = self._exchange_atoms(step, cosine)
            length = float(_length(self.dictionary - step.before))
        return loss, length / len(self.dictionary), exchanged

    def _exchange_atoms(self, step, cosine):
        dead = np.flatnonzero(to_host(self.unused_for) >= _PATIENCE * len(self.dictionary))
        duplicates = duplicate_atoms(self.dictionary, self.statistics) if cosine > COHERENCE else []
        replaced = replace_atoms(
            self.dictionary, self.statistics, dead, duplicates, step.X, step.residuals, self.constraint
        )
        self.unused_for[replaced] = 0
        return len(replaced) > 0


class _Numbers:
    """Numbers of a step: at hand on the CPU, on their way from a GPU without anybody waiting."""

    def __init__(self, *numbers):
        self._numbers, self._event = numbers, None
        on_device = [number for number in numbers if device_of(number) != "cpu"]
        if on_device:
            xp = array_module(on_device[0])
            together = xp.stack([xp.asarray(number, dtype=np.float64) for number in numbers])
            self._numbers = together.get(out=pinned_array(together.shape, together.dtype), blocking=False)
            self._event = xp.cuda.get_current_stream().record()

    def read(self):
        if self._event is not None:
            self._event.synchronize()
        return tuple(map(float, self._numbers))


def _length(change):
    """Frobenius norm."""
    return array_module(change).linalg.norm(change)


def forgetting_factor(step, batch_size):
    """What the statistics so far count after another batch: little at first, nearly 1 later.

    theta = (step + 1) * batch_size while step < batch_size - 1, else batch_size**2 + step + 1 - batch_size; the factor
    is (theta + 1 - batch_size) / (theta + 1), as in scikit-learn (Mairal et al. 2010, section 3.4.2).

    Parameters
    ----------
    step : int
        Batches before this one.
    batch_size : int

    Returns
    -------
    float
    """
    theta = (step + 1) * batch_size if step < batch_size - 1 else batch_size**2 + step + 1 - batch_size
    return (theta + 1 - batch_size) / (theta + 1)


class SmoothedLoss:
    """Whether learning from batches still pays, by scikit-learn's two criteria.

    The dictionary moves less than `tol` per atom in a step, or an exponentially weighted mean of the losses has found
    no new minimum for `max_no_improvement` steps. The first epoch, at most 100 steps, decides nothing. Where it is not
    known how many signals there are (None), those seen so far count.
    """

    def __init__(self, tol, max_no_improvement, n_samples):
        self.tol, self.max_no_improvement, self.n_samples = tol, max_no_improvement, n_samples
        self.mean = self.least = None
        self.waited = self.seen = 0
        self.converged = False

    def has_converged(self, step, batch_size, loss, change):
        """After a step, counted from 1, with its loss and the change per atom that it made."""
        self.seen += batch_size
        n_samples = self.seen if self.n_samples is None else self.n_samples
        if step <= min(100, n_samples / batch_size):
            return False
        weight = min(batch_size / (n_samples + 1), 1)
        self.mean = loss if self.mean is None else self.mean * (1 - weight) + loss * weight
        if self.least is None or self.mean < self.least:
            self.waited, self.least = 0, self.mean
        else:
            self.waited += 1
        moved_little = self.tol > 0 and change <= self.tol
        self.converged = moved_little or (
            self.max_no_improvement is not None and self.waited >= self.max_no_improvement
        )
        return self.converged


class _Epochs:
    """How far a fit has come: what the dictionary, its statistics and the signals do not tell.

    Parameters
    ----------
    first_step : int
        Batches before the fit.
    stopping : SmoothedLoss
    """

    def __init__(self, first_step, stopping):
        self.first_step, self.stopping = first_step, stopping
        self.losses, self.finished = [], False  # the mean loss of every epoch
        self.batches, self.total, self.seen = 0, 0.0, 0  # of the epoch that is under way
        self.random_state = None  # before its order was drawn

    def count(self, size, loss):
        """A batch has been learned from."""
        self.batches, self.total, self.seen = self.batches + 1, self.total + loss * size, self.seen + size

    def end(self):
        """An epoch has been gone through."""
        self.losses.append(self.total / self.seen)
        self.batches, self.total, self.seen = 0, 0.0, 0

    def so_far(self, update):
        """A state to go on from, with the dictionary and the memory of an `OnlineUpdate`."""
        epochs = dict(vars(self), stopping=vars(self.stopping))
        return dict(dictionary=update.dictionary, memory=update.memory, epochs=epochs)

    def restore(self, state):
        """Go on from the part "epochs" of such a state."""
        vars(self.stopping).update(state["stopping"])
        vars(self).update(state, stopping=self.stopping)


class StreamLearner(DictionaryLearner):
    """A learner that goes through its signals batch by batch.

    Subclasses have the parameters `batch_size`, `shuffle` and `max_no_improvement` beside those of `DictionaryLearner`.
    """

    def _learn(self, X, y):
        """Epochs over all signals until the stopping rule or `max_iter` ends them."""
        self._check_learning_parameters()
        constraint = self._constraint()
        X, dtype = self._check_training_signals(X)
        home = device_of(X)
        random_state = check_random_state(self.random_state)
        resuming = self.warm_start and hasattr(self, "components_")
        device = self._device(X, fitted=resuming)
        checkpoint, saved = self._begin_checkpoints(X)
        with computing_on(device):
            if saved is None:
                dictionary = self._first_dictionary(X, constraint, dtype, device, random_state)
                memory = self._memory if resuming else None
            else:
                dictionary, memory = to_device(saved["dictionary"], device), saved["memory"]
                random_state = resumed_random_state(random_state, saved["epochs"]["random_state"])
            update = self._update(dictionary, constraint, memory)
            epochs = _Epochs(update.n_steps, SmoothedLoss(self.tol, self.max_no_improvement, X.shape[0]))
            if saved is not None:
                epochs.restore(saved["epochs"])
            with single_threaded_blas, EpochReports(self, X, y) as reports:
                self._go_through(X, update, epochs, reports, random_state, checkpoint)
            self._keep(update, home)
        self.loss_curve_ = epochs.losses
        self.n_iter_ = len(epochs.losses)
        self.converged_ = epochs.stopping.converged
        if saved is None or not saved.get("finished"):
            checkpoint.save(dict(epochs.so_far(update), finished=True))

    def _go_through(self, X, update, epochs, reports, random_state, checkpoint):
        """Epochs from where they stand."""
        dictionary, device, home = update.dictionary, update.device, device_of(X)
        stopping = epochs.stopping
        late = device != "cpu" and self.callback is None  # a callback is given the dictionary after its own step
        stop = reports.again(epochs.losses, to_device(dictionary, home)) or epochs.finished
        while not stop and len(epochs.losses) < self.max_iter:
            reports.begin()
            epochs.random_state = random_bits(random_state)
            rows = self._order(X, dictionary.dtype, random_state)
            parts = batches(X, rows[epochs.batches :], dictionary.dtype, device, self.n_jobs)
            progress = RowProgress(type(self).__name__, X.shape[0], self.verbose, epochs.seen)
            with closing(parts), closing(update.steps(parts, late)) as steps:
                for size, loss, change in steps:
                    epochs.count(size, loss)
                    progress.add(size)
                    if stopping.has_converged(update.n_steps - epochs.first_step, size, loss, change):
                        break
                    if self.callback is not None:
                        shown = to_device(dictionary, home)
                        self.callback(dict(i=update.n_steps - 1, dictionary=shown, batch_cost=loss))
                    if epochs.batches < len(rows) and checkpoint.due():
                        checkpoint.save(epochs.so_far(update))
            epochs.end()
            stop = reports.end(epochs.losses[-1], to_device(dictionary, home)) or stopping.converged
            if getattr(X, "once", False) and not stop:
                self._say_that_rows_come_once(epochs)
                break
            if not stop and checkpoint.due():
                epochs.random_state = random_bits(random_state)
                checkpoint.save(epochs.so_far(update))
        epochs.random_state = random_bits(random_state)
        epochs.finished = True

    def _say_that_rows_come_once(self, epochs):
        if len(epochs.losses) < self.max_iter:
            warnings.warn(
                f"{type(self).__name__} has used up the iterator of blocks after {len(epochs.losses)} of at most "
                f"max_iter={self.max_iter} epochs: pass what can be iterated again, or max_iter=1",
                ConvergenceWarning,
                stacklevel=6,
            )

    def _learn_more(self, X):
        """One step with X as the batch; the first one makes the first dictionary."""
        self._check_learning_parameters()
        constraint = self._constraint()
        going_on = hasattr(self, "components_")
        X, dtype = self._check_signals(X, reset=False) if going_on else self._check_training_signals(X)
        device, memory = self._device(X, fitted=going_on), None
        with computing_on(device), single_threaded_blas:
            if going_on:
                dictionary, memory = self.components_.copy(), self._memory
                if memory["n_steps"] == 0:  # from a fit of no epochs, which hands back what it was given
                    dictionary = constraint.project(dictionary)
                dictionary = to_device(dictionary, device)
            else:
                dictionary = self._first_dictionary(X, constraint, dtype, device)
                self.loss_curve_, self.converged_, self.n_iter_ = [], False, 0
            update = self._update(dictionary, constraint, memory)
            for part in X.raw_blocks() if getattr(X, "in_order_only", False) else [Block(0, 0, X)]:
                n_samples = part.rows.shape[0]
                whole = BatchOrder(n_samples, n_samples, bytes_a_row=1)
                batch = batches(part.rows, whole, dictionary.dtype, device, self.n_jobs)
                ((_, loss, _),) = update.steps(batch)
                self.loss_curve_.append(loss)
            self._keep(update, device_of(self.components_) if going_on else device_of(X))

    def _order(self, X, dtype, random_state):
        """The rows of every batch of an epoch."""
        in_order = getattr(X, "in_order_only", False)
        bytes_a_row = X.shape[1] * np.dtype(dtype).itemsize
        shuffled = random_state if self.shuffle and not in_order else None
        return BatchOrder(None if in_order else X.shape[0], self.batch_size, bytes_a_row, shuffled)

    def _check_learning_parameters(self):
        super()._check_learning_parameters()
        of = type(self).__name__
        check_number("batch_size", self.batch_size, 1, integer=True, of=of)
        check_number("max_no_improvement", self.max_no_improvement, 0, integer=True, allow_none=True, of=of)
        check_bool("shuffle", self.shuffle, of=of)

    def _update(self, dictionary, constraint, memory):
        options = coding_options(**self._fitting_problem())
        return OnlineUpdate(dictionary, options, constraint, self.dict_update, self.replace_atoms, self.n_jobs, memory)

    def _keep(self, update, home):
        self.components_ = to_device(update.dictionary, home)
        self._memory = moved(update.memory, home)
        self.n_steps_ = update.n_steps
