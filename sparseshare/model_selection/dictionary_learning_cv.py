"""DictionaryLearningCV: a dictionary and its penalty, chosen by held-out entries of signals it has not seen."""

import contextlib
import os
import time

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sparseshare.checkpoints import (
    Checkpoint,
    begin_checkpoints,
    check_checkpoint,
    random_bits,
    resumed_random_state,
)
from sparseshare.devices import on_gpu
from sparseshare.learning.learner import DictionaryLearner
from sparseshare.learning.online import MiniBatchDictionaryLearning
from sparseshare.learning.statistics import dense_rows
from sparseshare.learning.transformer import PENALISED
from sparseshare.validation import check_number

from .choice import PenaltyChooser, in_memory, some_rows
from .heldout import entry_folds, heldout_errors

_ENTRY_FOLDS = 5  # the entries of a signal that are hidden at a time: a fifth
_LARGEST = 0.5  # of the signals' root mean square norm: a unit atom explains few of them any more


class DictionaryLearningCV(PenaltyChooser):
    """Learn a dictionary at the penalty that best predicts what neither the dictionary nor the codes have seen.

    The signals are split into `cv` parts. For every penalty and part a dictionary is learned from the other parts;
    then the entries of the part's own signals are hidden, a fifth at a time, their codes are made from the rest, and
    ``w D`` is compared with what was hidden. So every entry of X is predicted once, by a dictionary learned without
    its signal and a code made without the entry. At last a dictionary is learned from all signals at the penalty
    chosen.

    The error of signals that a code has seen in full would not do: it only falls as the penalty does, with a new
    dictionary too. Learning costs ``n_alphas * cv + 1`` fits.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None leaves it to `learner`.
    alphas : array-like of shape (n_alphas,), default=None
        Penalties to choose from, in any order. None makes `n_alphas` of them, in a geometric series down from half the
        root mean square norm of the signals.
    learner : estimator, default=None
        A learner of this package, whose parameters say all else about learning and coding: batches, constraints,
        threads, sparse output. It is cloned; its `alpha` and a `random_state` of None are set here. None is
        `MiniBatchDictionaryLearning()`.
    n_alphas : int, default=8
        Number of penalties, if `alphas` is None.
    alpha_min_ratio : float, default=0.02
        The smallest of them as a fraction of the largest, if `alphas` is None.
    cv : int, default=3
        Parts of the signals, from 2 up to the number of signals.
    rule : {"best", "one_standard_error"}, default="best"
        The penalty of least error; or the largest whose error is within one standard error of the least.
    random_state : int, RandomState or None, default=None
        For the parts and the entries, and for learning if the learner has none.
    verbose : bool or int, default=False
        Print a line a fit, then the table of all penalties and the choice. Epochs are reported by `learner`.
    checkpoint : str, path, Checkpoint or None, default=None
        File that `fit` writes what it knows to after every fit; another beside it, with ".fit" and the number of the
        fit appended, gets the state of `learner` every minute, or as often as a `sparseshare.checkpoints.Checkpoint`
        says. A choice that was killed goes on from them, with the same data and parameters, and ends with the same
        bits.

    Attributes
    ----------
    alpha_ : float
        The penalty chosen.
    best_index_ : int
        Its place in `alphas_`.
    alphas_ : ndarray of shape (n_alphas,)
        All penalties, largest first.
    learner_ : estimator
        The learner, fitted to all signals at `alpha_`.
    components_ : ndarray of shape (n_components, n_features)
        Its dictionary.
    mse_path_ : ndarray of shape (n_alphas, n_folds)
        Mean squared error on the held-out entries of every part.
    mean_mse_ : ndarray of shape (n_alphas,)
        The mean over all entries.
    standard_error_ : ndarray of shape (n_alphas,)
        Of `mean_mse_`, from the spread over the signals.
    seen_mse_ : ndarray of shape (n_alphas,)
        Mean squared error on the entries that the codes were made from.
    n_nonzero_path_ : ndarray of shape (n_alphas,)
        Mean number of non-zeros of a code.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Raises
    ------
    ValueError
        In `fit`, for parameters and data that are out of range; the message names them.
    TypeError
        If `learner` is no learner of this package.

    See Also
    --------
    SparseCoderCV : For a dictionary that is given.

    References
    ----------
    A. Owen, P. Perry, Bi-cross-validation of the SVD and the nonnegative matrix factorization, Annals of Applied
    Statistics 3, 2009: rows and columns are held out together, section 3.

    Examples
    --------
    >>> from sparseshare import MiniBatchDictionaryLearning
    >>> from sparseshare.datasets import make_sparse_signals
    >>> from sparseshare.model_selection import DictionaryLearningCV
    >>> X, _, _ = make_sparse_signals(300, n_components=12, n_features=10, snr_db=20, random_state=0)
    >>> learner = MiniBatchDictionaryLearning(batch_size=64, max_iter=5)
    >>> model = DictionaryLearningCV(12, [0.3, 0.1, 0.03], learner=learner, random_state=0).fit(X)
    >>> model.mse_path_.shape, model.components_.shape, model.transform(X).shape
    ((3, 3), (12, 10), (300, 12))
    """

    def __init__(
        self,
        n_components=None,
        alphas=None,
        *,
        learner=None,
        n_alphas=8,
        alpha_min_ratio=0.02,
        cv=3,
        rule="best",
        random_state=None,
        verbose=False,
        checkpoint=None,
    ):
        self.n_components = n_components
        self.alphas = alphas
        self.learner = learner
        self.n_alphas = n_alphas
        self.alpha_min_ratio = alpha_min_ratio
        self.cv = cv
        self.rule = rule
        self.random_state = random_state
        self.verbose = verbose
        self.checkpoint = checkpoint

    def fit(self, X, y=None):
        """Choose the penalty and learn the dictionary.

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_features)
            Or a memory map or another source of rows, which is read into memory: every fold goes through it.
        y : ignored

        Returns
        -------
        self
        """
        started = time.perf_counter()
        self._check_choice_parameters()
        check_number("n_components", self.n_components, 1, integer=True, allow_none=True, of=type(self).__name__)
        check_checkpoint(self.checkpoint, of=type(self).__name__)
        learner = self._learner()
        X, dtype = self._check_training_signals(X)
        X = in_memory(X)
        n_samples, n_features = X.shape
        if n_samples < self.cv:
            raise ValueError(
                f"Found array with n_samples={n_samples}, that is {n_samples} sample(s), while cv={self.cv} parts need "
                "one each: give more signals, or a smaller cv"
            )
        checkpoint, state = begin_checkpoints(self, X=X)
        random_state = check_random_state(self.random_state)
        if state is not None:
            random_state = resumed_random_state(random_state, state["start"])
        start = random_bits(random_state)
        if learner.random_state is None:
            learner.set_params(random_state=int(random_state.randint(2**31 - 1)))
        alphas = self._penalties(lambda: _LARGEST * float(np.sqrt(_mean_square(X) * n_features)))
        parts = random_state.permutation(n_samples) % self.cv
        folds = entry_folds(n_samples, n_features, min(_ENTRY_FOLDS, n_features), random_state)
        n_alphas = len(alphas)
        if state is None:
            table = dict(
                by_part=np.zeros((n_alphas, self.cv)), by_signal=np.zeros((n_alphas, n_samples)),
                seen=np.zeros(n_alphas), n_nonzero=np.zeros(n_alphas),
            )  # fmt: skip
            state = dict(start=start, table=table, done=0, finished=False)
            checkpoint.save(state)  # the first fit goes on only if the same is drawn
        table = state["table"]
        self._forget(state["done"] - 1)
        for number in range(state["done"], n_alphas * self.cv):
            part, a = divmod(number, n_alphas)
            own, others = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
            fitted = self._fitted(learner, alphas[a], some_rows(X, others), number)
            errors = heldout_errors(
                some_rows(X, own), fitted.components_.astype(dtype, copy=False), alphas[a : a + 1], folds[own],
                positive=fitted.positive_code, tol=fitted.transform_tol, max_iter=fitted.transform_max_iter,
                n_jobs=fitted.n_jobs, device=fitted._device(X),
            )  # fmt: skip
            table["by_part"][a, part] = errors.signals[0].mean()
            table["by_signal"][a, own] = errors.signals[0]
            table["seen"][a] += errors.seen[0] * len(own) / n_samples
            table["n_nonzero"][a] += errors.n_nonzero[0] * len(own) / n_samples
            if self.verbose:
                print(
                    f"[{type(self).__name__}] fold {part + 1}/{self.cv}, penalty {alphas[a]:.4g}: error "
                    f"{table['by_part'][a, part]:.6g}, {time.perf_counter() - started:.1f} s",
                    flush=True,
                )
            state["done"] = number + 1
            checkpoint.save(state)
            self._forget(number)
        self._choose(alphas, *table.values())
        self.learner_ = self._fitted(learner, self.alpha_, X, n_alphas * self.cv)
        self.components_ = self.learner_.components_
        if not state["finished"]:
            checkpoint.save(dict(state, finished=True))
        return self

    def _fitted(self, learner, alpha, X, number):
        """A clone of the learner, fitted; a fit of this number that was killed goes on."""
        fitted = clone(learner).set_params(alpha=float(alpha))
        if self.checkpoint is not None:
            fitted.set_params(checkpoint=self._checkpoint_of(number))
        return fitted.fit(X).set_params(checkpoint=None)

    def _checkpoint_of(self, number):
        whole = check_checkpoint(self.checkpoint)
        return Checkpoint(f"{whole.path}.fit{number}", whole.every)

    def _forget(self, number):
        """Remove the checkpoint of a fit whose errors are known."""
        if self.checkpoint is not None:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._checkpoint_of(number).path)

    def _learner(self):
        """The learner to clone, with the parameters that are set here."""
        if self.learner is not None and not isinstance(self.learner, DictionaryLearner):
            raise TypeError(
                "The 'learner' parameter of DictionaryLearningCV must be None or a learner of this package, such as "
                f"DictionaryLearning() or MiniBatchDictionaryLearning(), got {self.learner!r}"
            )
        learner = MiniBatchDictionaryLearning() if self.learner is None else clone(self.learner)
        if self.n_components is not None:
            learner.set_params(n_components=self.n_components)
        if learner.checkpoint is not None:
            raise ValueError(
                "The 'learner' parameter of DictionaryLearningCV must leave checkpoint=None, many fits cannot share a "
                "file: give 'checkpoint' to DictionaryLearningCV itself"
            )
        if getattr(learner, "dictionary", None) is not None:
            raise ValueError("the learner of DictionaryLearningCV has a dictionary already: use SparseCoderCV")
        problem = learner._transforming_problem()
        if problem["algorithm"] not in PENALISED or problem["algorithm"] == "threshold" or "alpha" not in problem:
            raise ValueError(
                "The 'learner' parameter of DictionaryLearningCV must code by a lasso, which has a penalty to choose; "
                f"{type(learner).__name__} codes with algorithm={problem['algorithm']!r}"
                + (" and max_error" if "max_error" in problem else "")
            )
        if learner.l1_ratio != 1 or learner.transform_alpha is not None:
            raise ValueError(
                "The 'learner' parameter of DictionaryLearningCV must leave transform_alpha=None and l1_ratio=1: the "
                f"penalty that is chosen is alpha, got {learner!r}"
            )
        return learner

    def _check_is_ready(self):
        check_is_fitted(self)

    # What transform and its checks read is what the learner says.
    @property
    def _said(self):
        if hasattr(self, "learner_"):
            return self.learner_
        return MiniBatchDictionaryLearning() if self.learner is None else self.learner

    def _check_coding_parameters(self):
        self._said._check_coding_parameters()

    def _transforming_problem(self):
        return self._said._transforming_problem()

    @property
    def split_sign(self):
        """Whether `transform` returns positive and negative parts side by side, as `learner` says."""
        return self._said.split_sign

    @property
    def sparse_output(self):
        """Whether `transform` returns a csr_array, as `learner` says."""
        return self._said.sparse_output

    @property
    def n_jobs(self):
        """Threads, as `learner` says."""
        return self._said.n_jobs

    @property
    def device(self):
        """Where codes are computed, as `learner` says."""
        return self._said.device


def _mean_square(X):
    """Mean of the squared entries."""
    size = 65_536 if on_gpu(X) else 4096
    blocks = (dense_rows(X, slice(i, i + size), np.float64) for i in range(0, X.shape[0], size))
    total = sum(float((block * block).sum()) for block in blocks)
    return total / (X.shape[0] * X.shape[1])
