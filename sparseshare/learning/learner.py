"""What the learners share while they fit: checked parameters, the first dictionary, epochs with their reports."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from sparseshare.callbacks import CallbackSupportMixin, EpochReports
from sparseshare.checkpoints import begin_checkpoints, check_checkpoint
from sparseshare.devices import array_module, device_of, on_gpu, to_device
from sparseshare.optimization.constraints import AtomConstraint
from sparseshare.sources import Source
from sparseshare.threads import run_in_threads, single_threaded_blas, thread_count
from sparseshare.validation import check_bool, check_choice, check_number

from .initialization import initial_dictionary
from .transformer import ALGORITHMS, SparseTransformer

_FINITE_AT_ONCE = 4096  # signals
_FINITE_ON_GPU = 4_194_304
_HEAD, _HEAD_AN_ATOM = 2000, 10  # signals at least, and for an atom, that the first dictionary is made of in a stream
_STILL_FALLING = (
    1e-3  # relative decrease in the last iteration from which it is worth saying that max_iter was too small
)


class DictionaryLearner(CallbackSupportMixin, SparseTransformer):
    """A transformer whose dictionary is learned.

    Subclasses name the updates they know in `_dict_updates` and have the parameters `n_components`, `alpha`,
    `max_iter`, `tol`, `fit_algorithm`, `n_nonzero_coefs`, `max_error`, `dict_init`, `dict_update`, `positive_dict`,
    `zero_mean_dict`, `atom_norm`, `atom_l1_budget`, `replace_atoms`, `warm_start`, `random_state`, `callback`,
    `verbose` and `checkpoint` beside those of `SparseTransformer`.
    """

    _dict_updates = ("bcd", "mod")
    _alpha_may_be_none = False

    def _check_learning_parameters(self):
        of = type(self).__name__
        self._check_coding_parameters()
        check_choice("fit_algorithm", self.fit_algorithm, ("cd", *ALGORITHMS), of=of)
        if self.fit_algorithm == "lars" and self.positive_code:
            raise ValueError(
                "Positive constraint not supported for 'lars' coding method. Use fit_algorithm='lasso_lars' or 'cd'."
            )
        check_choice("dict_update", self.dict_update, self._dict_updates, of=of)
        check_number("n_components", self.n_components, 1, integer=True, allow_none=True, of=of)
        check_number("alpha", self.alpha, 0, allow_none=self._alpha_may_be_none, of=of)
        check_number("max_iter", self.max_iter, 0, integer=True, of=of)
        check_number("tol", self.tol, 0, of=of)
        check_number("n_nonzero_coefs", self.n_nonzero_coefs, 1, integer=True, allow_none=True, of=of)
        check_number("max_error", self.max_error, 0, allow_none=True, of=of)
        if not isinstance(self.verbose, bool | np.bool_):
            check_number("verbose", self.verbose, 0, integer=True, of=of)
        for name in ("replace_atoms", "warm_start"):
            check_bool(name, getattr(self, name), of=of)
        if self.callback is not None and not callable(self.callback):
            raise ValueError(f"The 'callback' parameter of {of} must be a callable or None, got {self.callback!r}")
        check_checkpoint(self.checkpoint, of=of)

    def _check_training_signals(self, X):
        """As `_check_signals`, and finite: initialisation reads signals before the first coding does."""
        X, dtype = self._check_signals(X, reset=True)
        if isinstance(X, Source):  # which looks at what it reads
            return X, dtype
        blocks = range(0, X.shape[0], _FINITE_ON_GPU if on_gpu(X) else _FINITE_AT_ONCE)
        bad = []

        def look(number, worker):
            start = blocks[number]
            block = X[start : start + blocks.step]
            block = block.data if hasattr(block, "tocsr") else block
            # A sum is finite only if all its terms are, and costs half as much as looking at each.
            with np.errstate(over="ignore", invalid="ignore"):
                suspicious = not np.isfinite(float(block.sum(dtype=np.float64)))
            if suspicious and not bool(array_module(X).isfinite(block).all()):
                bad.append(start)

        run_in_threads(look, len(blocks), 1 if on_gpu(X) else thread_count(self.n_jobs))
        if bad:
            start = min(bad)
            raise ValueError(
                f"X contains NaN or infinity in rows {start} to {min(start + blocks.step, X.shape[0]) - 1}: every "
                "entry must be a finite number"
            )
        return X, dtype

    def _refuse_a_single_pass(self, X):
        if getattr(X, "once", False):
            raise ValueError(
                f"{type(self).__name__} goes through its signals again and again, an iterator gives its blocks only "
                "once: pass a list, an array on disk or an object that can be iterated again, or learn with "
                "MiniBatchDictionaryLearning"
            )
        if getattr(X, "in_order_only", False):
            X.count()

    def _constraint(self):
        return AtomConstraint(
            norm=self.atom_norm,
            nonnegative=self.positive_dict,
            zero_mean=self.zero_mean_dict,
            l1_budget=self.atom_l1_budget,
        )

    def _begin_checkpoints(self, X):
        """The checkpoint that a fit writes, and the state that it goes on from."""
        data = dict(X=X, components_=vars(self).get("components_") if self.warm_start else None)
        if getattr(X, "in_order_only", False):
            data.update(X=X.sample(), n_samples=str(X.shape[0]))
        return begin_checkpoints(self, **data)

    def _first_dictionary(self, X, constraint, dtype, device, random_state=None):
        """The dictionary that a fit starts from: a copy of its own, feasible if it is going to be changed."""
        if self.warm_start and hasattr(self, "components_"):
            dictionary = self.components_.astype(dtype, copy=True)
            wanted = (len(dictionary) if self.n_components is None else self.n_components, X.shape[1])
            if dictionary.shape != wanted:
                raise ValueError(
                    f"warm_start=True goes on from components_ of shape {dictionary.shape}, but the parameters and X "
                    f"ask for {wanted}: fit a clone, or with warm_start=False"
                )
            return to_device(dictionary, device)
        random_state = check_random_state(self.random_state) if random_state is None else random_state
        if getattr(X, "in_order_only", False):
            n_components = X.shape[1] if self.n_components is None else self.n_components
            X = X.head(max(_HEAD_AN_ATOM * n_components, _HEAD), finite=True)
        dictionary = initial_dictionary(X, self.n_components, self.dict_init, constraint, random_state, dtype)
        return to_device(constraint.project(dictionary) if self.max_iter > 0 else dictionary, device)

    def _iterate(self, alternation, X, y, checkpoint, saved, patience=1):
        """Steps of an alternation until the objective stops falling; sets what a batch learner reports.

        Converged means that for `patience` iterations the objective has not fallen by `tol` times its value below the
        lowest so far. An iteration that exchanged atoms in use starts the comparison afresh.
        """
        home = device_of(X)
        progress = dict(errors=[], lowest=np.inf, decrease=np.inf, waited=0, converged=False, finished=False)
        if saved is not None:
            progress = saved["progress"]
            alternation.restore(saved["alternation"])
        errors = progress["errors"]
        with single_threaded_blas, EpochReports(self, X, y) as reports:
            before = [error / X.shape[0] for error in errors]
            stop = reports.again(before, to_device(alternation.dictionary, home)) or progress["finished"]
            while not stop and len(errors) < self.max_iter:
                reports.begin()
                error = alternation.step()
                errors.append(error)
                decrease = progress["lowest"] - error
                waited = 0 if decrease > self.tol * error else progress["waited"] + 1
                converged = self.tol > 0 and waited >= patience and not alternation.restarted
                lowest = error if alternation.restarted else min(progress["lowest"], error)
                progress.update(lowest=lowest, decrease=decrease, waited=waited, converged=converged)
                if self.callback is not None and (len(errors) - 1) % 5 == 0:
                    self.callback(
                        dict(
                            ii=len(errors) - 1,
                            dictionary=to_device(alternation.dictionary, home),
                            code=to_device(alternation.codes, home),
                            errors=errors,
                            current_cost=error,
                        )  # fmt: skip
                    )
                stop = reports.end(error / X.shape[0], to_device(alternation.dictionary, home)) or converged
                if not stop and checkpoint.due():
                    checkpoint.save(dict(progress=progress, alternation=alternation.state))
        decrease, converged = progress["decrease"], progress["converged"]
        was_last = len(errors) == self.max_iter > 1
        if self.tol > 0 and not converged and was_last and decrease > _STILL_FALLING * errors[-1]:
            warnings.warn(
                f"{type(self).__name__} stopped after max_iter={self.max_iter} iterations, the last of which still "
                f"lowered the objective by {decrease / errors[-1]:.1%}: raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=4,
            )
        self.components_ = to_device(alternation.dictionary, home)
        self.error_ = errors
        self.loss_curve_ = [error / X.shape[0] for error in errors]
        self.n_iter_ = len(errors)
        self.converged_ = converged
        if not progress["finished"]:
            progress["finished"] = True
            checkpoint.save(dict(progress=progress, alternation=alternation.state, finished=True))
