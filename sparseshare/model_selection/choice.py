"""Penalties to choose from, the rule that chooses, and what an estimator tells about its choice."""

import numpy as np

from sparseshare.coding.tiles import product_of_rows
from sparseshare.devices import array_module, computing_on, on_gpu, to_device
from sparseshare.learning.statistics import dense_rows
from sparseshare.learning.transformer import SparseTransformer
from sparseshare.sources import Source, stacked
from sparseshare.validation import check_choice, check_number

RULES = ("best", "one_standard_error")
_BLOCK = 4096  # signals that are held dense at once
_BLOCK_ON_GPU = 65_536


class PenaltyChooser(SparseTransformer):
    """A transformer that chooses its penalty while it fits.

    Subclasses have the parameters `alphas`, `n_alphas`, `alpha_min_ratio`, `cv`, `rule`, `random_state` and `verbose`
    beside those of `SparseTransformer`. What they tell about the choice stays in the memory of the host.
    """

    _stays_on_host = (
        *SparseTransformer._stays_on_host, "alphas_", "mse_path_", "mean_mse_", "standard_error_", "seen_mse_",
        "n_nonzero_path_",
    )  # fmt: skip

    def _check_choice_parameters(self):
        of = type(self).__name__
        check_number("n_alphas", self.n_alphas, 1, integer=True, of=of)
        check_number("alpha_min_ratio", self.alpha_min_ratio, 0, 1, open_low=True, of=of)
        check_number("cv", self.cv, 2, integer=True, of=of)
        check_choice("rule", self.rule, RULES, of=of)
        if not isinstance(self.verbose, bool | np.bool_):
            check_number("verbose", self.verbose, 0, integer=True, of=of)
        if self.alphas is not None:
            check_penalties(self.alphas, of)

    def _check_training_signals(self, X):
        """As `_check_signals`, finite, and with two entries at least, one to hold out and one to see."""
        X, dtype = self._check_signals(X, reset=True)
        if X.shape[1] < 2:
            raise ValueError(
                f"Found array with {X.shape[1]} feature(s) (shape={X.shape}) while a minimum of 2 is required by "
                f"{type(self).__name__}: one entry to hold out and one to code from"
            )
        if isinstance(X, Source):  # which looks at what it reads
            return X if X.shape[0] is not None else stacked([block.rows for block in X.blocks()]), dtype
        size = _BLOCK_ON_GPU if on_gpu(X) else _BLOCK
        for start in range(0, X.shape[0], size):
            block = X[start : start + size]
            block = block.data if hasattr(block, "tocsr") else block
            if not bool(array_module(X).isfinite(block).all()):
                raise ValueError(
                    f"X contains NaN or infinity in rows {start} to {min(start + size, X.shape[0]) - 1}: every entry "
                    "must be a finite number"
                )
        return X, dtype

    def _penalties(self, largest):
        """The penalties to choose from, largest first."""
        if self.alphas is not None:
            return check_penalties(self.alphas, type(self).__name__)
        largest = largest() or 1.0  # signals of zeros: any penalty will do
        return np.geomspace(largest, largest * self.alpha_min_ratio, self.n_alphas)

    def _choose(self, alphas, fold_errors, signal_errors, seen, n_nonzero):
        """Set what the errors say, and the penalty that the rule takes."""
        n_samples = signal_errors.shape[1]
        self.alphas_ = alphas
        self.mse_path_ = fold_errors
        self.mean_mse_ = signal_errors.mean(axis=1)
        # Entries of a signal are coded together: signals are what is independent, so their spread counts.
        spread = signal_errors.std(axis=1, ddof=1) if n_samples > 1 else np.full(len(alphas), np.nan)
        self.standard_error_ = spread / np.sqrt(n_samples)
        self.seen_mse_ = seen
        self.n_nonzero_path_ = n_nonzero
        self.best_index_ = chosen_index(self.mean_mse_, self.standard_error_, self.rule)
        self.alpha_ = float(alphas[self.best_index_])
        if self.verbose:
            self._report_choice()

    def _report_fold(self, fold, n_folds, alphas, errors, seconds):
        if self.verbose:
            best = int(np.argmin(errors))
            print(
                f"[{type(self).__name__}] fold {fold + 1}/{n_folds}: least error {errors[best]:.6g} at penalty "
                f"{alphas[best]:.4g}, {seconds:.1f} s",
                flush=True,
            )

    def _report_choice(self):
        name, last = type(self).__name__, len(self.alphas_) - 1
        print(f"[{name}] {'penalty':>10} {'unseen error':>12} {'+-':>9} {'seen error':>11} {'non-zeros':>9}")
        for a, alpha in enumerate(self.alphas_):
            print(
                f"[{name}] {alpha:10.4g} {self.mean_mse_[a]:12.5g} {self.standard_error_[a]:9.2g} "
                f"{self.seen_mse_[a]:11.5g} {self.n_nonzero_path_[a]:9.1f}{'  <-' if a == self.best_index_ else ''}"
            )
        print(
            f"[{name}] penalty {self.alpha_:.4g} by the error on entries that the codes have not seen; on entries they "
            "have seen, the smallest penalty always wins"
        )
        end = {0: "largest", last: "smallest"}.get(int(np.argmin(self.mean_mse_))) if last else None
        if end:
            print(f"[{name}] the least error is at the {end} penalty of the grid: a wider grid may have a better one")


def check_penalties(alphas, of):
    """Penalties in float64, each once, largest first."""
    try:
        array = np.asarray(alphas, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all() or (array < 0).any():
        given = repr(alphas)
        raise ValueError(
            f"The 'alphas' parameter of {of} must be None or a list of finite numbers of at least 0, one at least, got "
            f"{given if len(given) <= 60 else given[:57] + '...'}"
        )
    return np.unique(array)[::-1].copy()


def largest_penalty(X, dictionary, positive=False, device="cpu"):
    """The least penalty at which every code is zero: the largest correlation of a signal and an atom.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    dictionary : ndarray of shape (n_components, n_features)
    positive : bool, default=False
        For codes without negative entries, by which only positive correlations count.
    device : str, default="cpu"
        Where to compute, as `resolve_device` returns it.

    Returns
    -------
    float
    """
    largest, size = 0.0, _BLOCK if device == "cpu" else _BLOCK_ON_GPU
    atoms = dictionary.T.astype(np.float64)
    with computing_on(device):
        for start in range(0, X.shape[0], size):
            rows = to_device(dense_rows(X, slice(start, start + size), dictionary.dtype), device)
            if device == "cpu":
                correlations = product_of_rows(rows, atoms)
            else:
                atoms = to_device(atoms, device)
                correlations = rows.astype(np.float64) @ atoms
            largest = max(largest, float((correlations if positive else abs(correlations)).max()))
    return largest


def in_memory(X):
    """Signals that are gone through for every penalty and fold: those of a file or of blocks are read once."""
    return X[:] if isinstance(X, Source) else X


def some_rows(X, rows):
    """Rows of an array, dense or sparse, by a NumPy array of their numbers; where X lives."""
    return X[array_module(X).asarray(rows)]


def chosen_index(mean, standard_error, rule):
    """Place of the penalty that a rule takes, penalties from large to small.

    Parameters
    ----------
    mean, standard_error : ndarray of shape (n_alphas,)
        Errors; a standard error of NaN is none.
    rule : {"best", "one_standard_error"}
        The least error, or the largest penalty whose error is within one standard error of the least (Breiman,
        Friedman, Olshen, Stone, "Classification and regression trees", 1984, section 3.4.3). Of equal errors both take
        the larger penalty.

    Returns
    -------
    int

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.model_selection.choice import chosen_index
    >>> mean, error = np.array([3.0, 1.2, 1.0, 2.0]), np.array([0.3, 0.3, 0.3, 0.3])
    >>> chosen_index(mean, error, "best"), chosen_index(mean, error, "one_standard_error")
    (2, 1)
    """
    best = int(np.argmin(mean))
    if rule == "best" or not np.isfinite(standard_error[best]):
        return best
    return int(np.flatnonzero(mean <= mean[best] + standard_error[best])[0])
