"""Learning from a stream of batches: statistics that forget, one atom sweep a batch, and when to stop."""

import numpy as np
from sklearn.utils import check_random_state

from sparseshare.callbacks import EpochReports
from sparseshare.coding.encode import encode
from sparseshare.coding.problem import Problem
from sparseshare.threads import single_threaded_blas
from sparseshare.validation import check_bool, check_number

from .learner import DictionaryLearner
from .replacement import duplicate_atoms, replace_atoms
from .statistics import Statistics, dense_rows, squared_residuals
from .transformer import coding_options
from .updates import optimal_directions, sweep_atoms

_PATIENCE = 10  # an atom is dead when it goes unused for as many signals as this times the number of atoms


class OnlineUpdate:
    """The dictionary and what is remembered of the batches that made it.

    Parameters
    ----------
    dictionary : ndarray of shape (n_components, n_features)
        Updated in place.
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
        n_components = len(dictionary)
        if memory is None:
            self.statistics = Statistics.zeros(*dictionary.shape)
            self.unused_for = np.zeros(n_components)
            self.signals_until_check = float(_PATIENCE * n_components)
            self.n_steps = 0
        else:
            self.statistics = Statistics(**memory["statistics"])
            self.unused_for = memory["unused_for"]
            self.signals_until_check = memory["signals_until_check"]
            self.n_steps = memory["n_steps"]

    @property
    def memory(self):
        """All that going on needs beside the dictionary, as arrays and numbers."""
        return dict(
            statistics=vars(self.statistics),
            unused_for=self.unused_for,
            signals_until_check=self.signals_until_check,
            n_steps=self.n_steps,
        )

    def step(self, X):
        """Learn from one batch, dense and in the dtype of the dictionary.

        Returns
        -------
        float
            The mean objective of the batch for the dictionary before the update.
        """
        dictionary, statistics = self.dictionary, self.statistics
        size = len(X)
        codes = encode(X, Problem(dictionary, **self.options), n_jobs=self.n_jobs).values
        residuals = squared_residuals(X, codes, dictionary)
        loss = (0.5 * residuals.sum() + self._penalty(codes.data)) / size
        statistics.forget(forgetting_factor(self.n_steps, size))
        statistics.add(X, codes, weight=1 / size, n_jobs=self.n_jobs)
        if self.dict_update == "mod":
            optimal_directions(dictionary, statistics, self.constraint)
        else:
            sweep_atoms(dictionary, statistics, self.constraint)
        if self.replace:
            self._exchange_atoms(X, codes, residuals)
        self.n_steps += 1
        return float(loss)

    def _penalty(self, values):
        if self.alpha == 0:
            return 0.0
        penalty = self.l1_ratio * np.abs(values).sum(dtype=np.float64)
        if self.l1_ratio < 1:
            penalty += 0.5 * (1 - self.l1_ratio) * np.square(values, dtype=np.float64).sum()
        return self.alpha * penalty

    def _exchange_atoms(self, X, codes, residuals):
        self.unused_for += len(X)
        self.unused_for[codes.indices] = 0
        dead = np.flatnonzero(self.unused_for >= _PATIENCE * len(self.dictionary))
        self.signals_until_check -= len(X)
        duplicates = []
        if self.signals_until_check <= 0:  # the cosines of all pairs cost as much as a sweep
            self.signals_until_check = float(_PATIENCE * len(self.dictionary))
            duplicates = duplicate_atoms(self.dictionary, self.statistics)
        if len(dead) or duplicates:
            replaced = replace_atoms(self.dictionary, self.statistics, dead, duplicates, X, residuals, self.constraint)
            self.unused_for[replaced] = 0


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
    no new minimum for `max_no_improvement` steps. The first epoch, at most 100 steps, decides nothing.
    """

    def __init__(self, tol, max_no_improvement, n_samples):
        self.tol, self.max_no_improvement, self.n_samples = tol, max_no_improvement, n_samples
        self.mean = self.least = None
        self.waited = 0
        self.converged = False

    def has_converged(self, step, batch_size, loss, change):
        """After a step, counted from 1, with its loss and the change per atom that it made."""
        if step <= min(100, self.n_samples / batch_size):
            return False
        weight = min(batch_size / (self.n_samples + 1), 1)
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


class StreamLearner(DictionaryLearner):
    """A learner that goes through its signals batch by batch.

    Subclasses have the parameters `batch_size`, `shuffle` and `max_no_improvement` beside those of `DictionaryLearner`.
    """

    def _learn(self, X, y):
        """Epochs over all signals until the stopping rule or `max_iter` ends them."""
        self._check_learning_parameters()
        constraint = self._constraint()
        X, dtype = self._check_training_signals(X)
        n_samples = X.shape[0]
        random_state = check_random_state(self.random_state)
        resuming = self.warm_start and hasattr(self, "components_")
        dictionary = self._first_dictionary(X, constraint, dtype, random_state)
        update = self._update(dictionary, constraint, self._memory if resuming else None)
        stopping = SmoothedLoss(self.tol, self.max_no_improvement, n_samples)
        losses, first_step = [], update.n_steps
        with single_threaded_blas, EpochReports(self, X, y) as reports:
            for _ in range(self.max_iter):
                reports.begin()
                total, seen = 0.0, 0
                for batch in self._batches(X, dtype, random_state):
                    before = dictionary.copy()
                    loss = update.step(batch)
                    total, seen = total + loss * len(batch), seen + len(batch)
                    change = float(np.linalg.norm(dictionary - before)) / len(dictionary)
                    if stopping.has_converged(update.n_steps - first_step, len(batch), loss, change):
                        break
                    if self.callback is not None:
                        self.callback(dict(i=update.n_steps - 1, dictionary=dictionary, batch_cost=loss))
                losses.append(total / seen)
                if reports.end(losses[-1], dictionary) or stopping.converged:
                    break
        self._keep(update)
        self.loss_curve_ = losses
        self.n_iter_ = len(losses)
        self.converged_ = stopping.converged

    def _learn_more(self, X):
        """One step with X as the batch; the first one makes the first dictionary."""
        self._check_learning_parameters()
        constraint = self._constraint()
        going_on = hasattr(self, "components_")
        X, dtype = self._check_signals(X, reset=False) if going_on else self._check_training_signals(X)
        if going_on:
            dictionary, memory = np.array(self.components_), self._memory
            if memory["n_steps"] == 0:  # from a fit of no epochs, which hands back what it was given
                dictionary = constraint.project(dictionary)
        else:
            dictionary = self._first_dictionary(X, constraint, dtype)
            memory, self.loss_curve_, self.converged_, self.n_iter_ = None, [], False, 0
        update = self._update(dictionary, constraint, memory)
        with single_threaded_blas:
            self.loss_curve_.append(update.step(dense_rows(X, slice(None), dictionary.dtype)))
        self._keep(update)

    def _batches(self, X, dtype, random_state):
        """The signals of one epoch, dense, batch by batch."""
        n_samples = X.shape[0]
        batch_size = min(self.batch_size, n_samples)
        order = random_state.permutation(n_samples) if self.shuffle else None
        for start in range(0, n_samples, batch_size):
            rows = slice(start, start + batch_size)
            # In order within a batch: kinder to files and caches.
            yield dense_rows(X, rows if order is None else np.sort(order[rows]), dtype)

    def _check_learning_parameters(self):
        super()._check_learning_parameters()
        of = type(self).__name__
        check_number("batch_size", self.batch_size, 1, integer=True, of=of)
        check_number("max_no_improvement", self.max_no_improvement, 0, integer=True, allow_none=True, of=of)
        check_bool("shuffle", self.shuffle, of=of)

    def _update(self, dictionary, constraint, memory):
        options = coding_options(**self._fitting_problem())
        return OnlineUpdate(dictionary, options, constraint, self.dict_update, self.replace_atoms, self.n_jobs, memory)

    def _keep(self, update):
        self.components_ = update.dictionary
        self._memory = update.memory
        self.n_steps_ = update.n_steps
