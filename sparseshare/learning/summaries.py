"""What one place tells another of a block of signals that it has coded, and learning from what many places tell.

A summary holds sums (`Statistics`, k x k + k x d numbers) and which rows are coded worst, so it is small whatever the
size of the block, and summaries of blocks add up to that of all of them. Nothing here knows by what engine the places
are spread; whoever merges in a fixed order gets the same bits however many places there are.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np

from sparseshare.coding.encode import encode
from sparseshare.coding.problem import Problem
from sparseshare.devices import computing_on, moved, resolve_device, to_device, to_host
from sparseshare.threads import single_threaded_blas
from sparseshare.validation import check_signals

from .replacement import n_candidates
from .statistics import Statistics, partial_statistics, squared_residuals
from .stream import OnlineUpdate, forgetting_factor


@dataclass
class BlockSummary:
    """Sums over coded signals, in the host's memory.

    Attributes
    ----------
    statistics : Statistics
        Every signal counts 1.
    squared_error : float
        |X - W D|^2 for the dictionary that the signals were coded with.
    rows : ndarray of int64
        Numbers of the signals that are coded worst, those of earlier blocks first, in a block the worst first.
    residuals : ndarray of float64
        Their squared residuals.
    """

    statistics: Statistics
    squared_error: float
    rows: np.ndarray
    residuals: np.ndarray

    @property
    def n_samples(self):
        """Signals it is of."""
        return int(self.statistics.n_seen)

    def merge(self, other):
        """Summary of the signals of both, those of `other` further down.

        Parameters
        ----------
        other : BlockSummary
            For the same dictionary.

        Returns
        -------
        BlockSummary
        """
        rows = np.concatenate([self.rows, other.rows])
        residuals = np.concatenate([self.residuals, other.residuals])
        # As many as one block tells: among them are the worst of all.
        kept = np.sort(_worst(residuals, n_candidates(len(self.statistics.A))))
        return BlockSummary(
            self.statistics.merge(other.statistics),
            self.squared_error + other.squared_error,
            rows[kept],
            residuals[kept],
        )


def summarize(X, dictionary, options, *, first_row=0, n_jobs=None, device="auto"):
    """Code a block of signals and sum up what a dictionary update has to know.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    dictionary : ndarray of shape (n_components, n_features)
    options : dict
        Of the coding problem: keyword arguments of `Problem`.
    first_row : int, default=0
        Number of the first signal among all.
    n_jobs : int or None, default=None
        Threads. The sums are the same to the last bit for any number.
    device : str, default="auto"
        Where to code.

    Returns
    -------
    BlockSummary

    Raises
    ------
    ValueError
        For signals with NaN or infinity, or of another width than the atoms.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.learning.summaries import merged, summarize
    >>> X, D = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), np.eye(2)
    >>> options = dict(algorithm="lasso_cd", alpha=1.0)
    >>> whole = summarize(X, D, options)
    >>> parts = merged(summarize(X[:2], D, options), summarize(X[2:], D, options, first_row=2))
    >>> bool(np.allclose(parts.statistics.A, whole.statistics.A)), parts.n_samples
    (True, 3)
    """
    X, _ = check_signals(X, dictionary.shape[1])
    device = resolve_device(device, X)
    with computing_on(device), single_threaded_blas:
        codes = encode(X, Problem(dictionary, **options), n_jobs=n_jobs, device=device, keep=True).values
        statistics = partial_statistics(X, codes, n_jobs=n_jobs)
        residuals = to_host(squared_residuals(X, codes, to_device(dictionary, device)))
    statistics = moved(statistics, "cpu")
    statistics.squared_norm = float(statistics.squared_norm)
    worst = _worst(residuals, n_candidates(len(dictionary)))
    return BlockSummary(statistics, float(residuals.sum()), first_row + worst, residuals[worst])


def merged(*summaries):
    """Summary of the signals of all, added up one after the other.

    Parameters
    ----------
    *summaries : BlockSummary
        In the order of their signals.

    Returns
    -------
    BlockSummary
    """
    return reduce(BlockSummary.merge, summaries)


class SummaryUpdate(OnlineUpdate):
    """The step of `OnlineUpdate` from a summary in the place of a batch: the same to rounding."""

    def learn_from(self, summary, rows_of):
        """Update the dictionary.

        Parameters
        ----------
        summary : BlockSummary
            Of a batch of signals coded with this dictionary, or with one from a few steps ago.
        rows_of : callable
            `rows_of(numbers)` are the signals with these numbers, in their order. Asked only where atoms are exchanged.

        Returns
        -------
        loss : float
            The mean objective of the batch for the dictionary it was coded with.
        change : float
            Frobenius norm of the update, divided by the number of atoms.
        """
        size, statistics = summary.n_samples, summary.statistics
        loss = (0.5 * summary.squared_error + statistics.penalty(self.alpha, self.l1_ratio)) / size
        self.statistics = self.statistics.forget(forgetting_factor(self.n_steps, size)).merge(
            statistics.weighted(1 / size)
        )
        candidates = _Candidates(summary.rows, rows_of)
        used = np.flatnonzero(statistics.usage)
        return self._settle(self._move(candidates, summary.residuals, loss, size, used))[:2]


class _Candidates:
    """Signals that may become atoms: rows that are fetched when they are asked for."""

    def __init__(self, numbers, rows_of):
        self._numbers, self._rows_of = numbers, rows_of

    def __getitem__(self, places):
        return self._rows_of(self._numbers[places])


def _worst(residuals, count):
    """Places of the largest residuals, the first of equal ones first."""
    return np.argsort(-residuals, kind="stable")[:count]
