"""SparsityPathDisplay: error against non-zeros over penalties."""

import numpy as np
from scipy.sparse import issparse

from sparseshare.coding.path import sparse_encode_path
from sparseshare.validation import check_choice, check_dictionary, check_signals

from .codes import atoms_of, on_host
from .style import ACCENT, COLOURS, INK, QUIET, for_curves, panels, pyplot

_PENALTIES = 16  # where none are given
_AT_ONCE = 4096  # signals whose reconstruction is made at a time


class SparsityPathDisplay:
    """Error against the number of non-zeros, a point for each penalty.

    Make one with `from_estimator`, `from_path` or `from_cv`.

    Parameters
    ----------
    n_nonzero : array of shape (n_points,)
        Mean number of non-zeros of a signal.
    errors : array of shape (n_points,) or (n_points, n_folds)
    alphas : array of shape (n_points,), default=None
        Penalties, the labels of the points.
    chosen : int, default=None
        Number of the point to mark.
    spread : array of shape (n_points,), default=None
        Standard errors of the mean errors. None: over folds, if the errors are those of folds.
    seen : array of shape (n_points,), default=None
        Errors on the entries that codes were made from, drawn beside those on entries held out.
    error_name : str, default="mean squared error"
        What the errors are, with their unit.
    n_atoms : int, default=None

    Attributes
    ----------
    line_ : matplotlib Line2D
        From the fewest non-zeros to the most.
    errorbar_ : matplotlib ErrorbarContainer or None
        Standard errors of the mean.
    seen_ : matplotlib Line2D or None
    chosen_ : matplotlib Line2D or None
        The ring round the chosen point.
    labels_ : list of matplotlib Annotation
        Penalties; where points are close together, of some of them.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from sparseshare import sparse_encode_path
    >>> from sparseshare.plotting import SparsityPathDisplay
    >>> rng = np.random.default_rng(0)
    >>> X, dictionary, alphas = rng.standard_normal((40, 16)), rng.standard_normal((24, 16)), [8.0, 4.0, 2.0, 1.0]
    >>> codes = sparse_encode_path(X, dictionary, alphas)
    >>> display = SparsityPathDisplay.from_path(X, dictionary, codes, alphas)
    >>> display.ax_.get_xlabel()
    'non-zeros a signal (of 24 atoms)'
    """

    def __init__(
        self, n_nonzero, errors, *, alphas=None, chosen=None, spread=None, seen=None,
        error_name="mean squared error", n_atoms=None,
    ):  # fmt: skip
        self.n_nonzero = on_host(n_nonzero)
        self.errors = on_host(errors)
        self.alphas = on_host(alphas)
        self.chosen = chosen
        self.spread = on_host(spread)
        self.seen = on_host(seen)
        self.error_name = error_name
        self.n_atoms = n_atoms

    @classmethod
    def from_estimator(cls, estimator, X=None, *, alphas=None, ax=None, **options):
        """Draw the path of a dictionary over penalties; of a fitted search over penalties, what it found.

        Parameters
        ----------
        estimator : estimator with `components_`, or one that `from_cv` takes
        X : array-like of shape (n_samples, n_features), default=None
            Signals to code. Not used with a search.
        alphas : array-like of shape (n_alphas,), default=None
            None: 16 from the largest that leaves a non-zero down to a thousandth of it.
        ax : matplotlib Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        SparsityPathDisplay

        Raises
        ------
        ValueError
            If there is neither a dictionary with X nor a path.
        """
        estimator, X, alphas = on_host(estimator), on_host(X), on_host(alphas)
        if _path_of(estimator) is not None and X is None:
            return cls.from_cv(estimator, ax=ax, **options)
        if X is None:
            raise ValueError(f"{type(estimator).__name__} holds no path of errors (error_path_, mse_path_): pass X")
        estimator = getattr(estimator, "best_estimator_", estimator)
        if hasattr(estimator, "steps"):
            X = estimator[:-1].transform(X) if len(estimator.steps) > 1 else X
            estimator = estimator.steps[-1][1]
        dictionary = check_dictionary(atoms_of(estimator))
        X, dtype = check_signals(X, dictionary.shape[1])
        own = _penalty_of(estimator)
        if alphas is None:
            largest = max(
                float(np.abs(_rows(X, start) @ dictionary.T).max()) for start in range(0, X.shape[0], _AT_ONCE)
            )
            if not largest:
                raise ValueError("X is orthogonal to every atom: no penalty makes a difference")
            alphas = np.geomspace(0.8 * largest, largest / 1000, _PENALTIES)
            if own is not None and own > 0:
                alphas = np.sort(np.append(alphas, own))[::-1]
        alphas = np.asarray(alphas, np.float64)
        codes = sparse_encode_path(
            X, dictionary, alphas, positive=bool(getattr(estimator, "positive_code", False)),
            l1_ratio=getattr(estimator, "l1_ratio", 1.0), sparse_output=True,
        )  # fmt: skip
        where = np.flatnonzero(alphas == own)
        chosen = int(where[0]) if len(where) else None
        return cls.from_path(X, dictionary, codes, alphas, chosen=chosen, ax=ax, **options)

    @classmethod
    def from_path(cls, X, dictionary, codes, alphas=None, *, chosen=None, ax=None, **options):
        """Draw what `sparse_encode_path` returned.

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_features)
        dictionary : array-like of shape (n_atoms, n_features)
        codes : array of shape (n_points, n_samples, n_atoms), or list of sparse arrays
        alphas : array-like of shape (n_points,), default=None
            Penalties. None, as for the path of a pursuit: points have no labels.
        chosen : int, default=None
            Number of the point to mark.
        ax : matplotlib Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        SparsityPathDisplay

        Raises
        ------
        ValueError
            If the shapes do not fit together.
        """
        X, dictionary, codes, alphas = map(on_host, (X, dictionary, codes, alphas))
        dictionary = check_dictionary(dictionary)
        X, _ = check_signals(X, dictionary.shape[1])
        wanted = X.shape[0], len(dictionary)
        counts, errors = [], []
        for number, one in enumerate(codes):
            one = one.tocsr() if issparse(one) else np.asarray(one)
            if one.shape != wanted:
                raise ValueError(f"codes[{number}] must have the shape {wanted}, got {one.shape}")
            counts.append((one.count_nonzero() if issparse(one) else np.count_nonzero(one)) / wanted[0])
            squares = 0.0
            for start in range(0, wanted[0], _AT_ONCE):
                left = _rows(X, start) - one[start : start + _AT_ONCE] @ dictionary
                squares += float(np.sum(left**2, dtype=np.float64))
            errors.append(squares / (wanted[0] * dictionary.shape[1]))
        display = cls(np.array(counts), np.array(errors), alphas=alphas, chosen=chosen, n_atoms=len(dictionary))
        return display.plot(ax=ax, **options)

    @classmethod
    def from_cv(cls, search, *, ax=None, **options):
        """Draw what a search over penalties found.

        Parameters
        ----------
        search : fitted estimator
            With `alphas_`, `n_nonzero_path_`, and `error_path_` or `mse_path_` of shape (n_alphas, n_folds); its
            `alpha_` is marked. `mean_mse_`, `standard_error_` and `seen_mse_` are drawn if it has them.
        ax : matplotlib Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        SparsityPathDisplay

        Raises
        ------
        ValueError
            If an attribute is missing.
        """
        search = on_host(search)
        errors = _path_of(search)
        missing = [name for name in ("alphas_", "n_nonzero_path_") if not hasattr(search, name)]
        if errors is None or missing:
            missing += ["error_path_"] * (errors is None)
            raise ValueError(f"{type(search).__name__} has no {', '.join(missing)}: fit a search over penalties")
        alphas = np.asarray(search.alphas_)
        counts = np.asarray(search.n_nonzero_path_, np.float64)
        counts = counts.mean(axis=1) if counts.ndim == 2 else counts
        chosen = None
        if hasattr(search, "alpha_"):
            chosen = int(np.argmin(np.abs(alphas - search.alpha_)))
        n_atoms = len(search.components_) if hasattr(search, "components_") else None
        spread = getattr(search, "standard_error_", None)
        if spread is not None and hasattr(search, "mean_mse_"):
            errors = np.asarray(search.mean_mse_, np.float64)
        display = cls(
            counts, errors, alphas=alphas, chosen=chosen, spread=spread, seen=getattr(search, "seen_mse_", None),
            n_atoms=n_atoms, error_name="mean squared error",
        )  # fmt: skip
        return display.plot(ax=ax, **options)

    def plot(self, ax=None, *, scale="auto", n_labels=6, title=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
        scale : {"auto", "linear", "log"}, default="auto"
            Of the errors; "auto" is "log" where they fall to less than a twentieth.
        n_labels : int, default=6
            Penalties to write at the points, at most; the chosen one comes on top.
        title : str, default=None

        Returns
        -------
        SparsityPathDisplay
        """
        check_choice("scale", scale, ("auto", "linear", "log"), of="SparsityPathDisplay")
        pyplot()
        counts, errors = np.asarray(self.n_nonzero, np.float64), np.asarray(self.errors, np.float64)
        alphas = None if self.alphas is None else np.asarray(self.alphas, np.float64)
        if counts.ndim != 1 or not len(counts) or errors.shape[:1] != counts.shape or errors.ndim > 2:
            raise ValueError(f"errors of shape {errors.shape} do not fit to non-zeros of shape {counts.shape}")
        if alphas is not None and alphas.shape != counts.shape:
            raise ValueError(f"there are {len(counts)} points, but alphas of shape {alphas.shape}")
        if self.chosen is not None and not 0 <= self.chosen < len(counts):
            raise ValueError(f"chosen must be a number from 0 to {len(counts) - 1}, got {self.chosen}")
        spread = None if self.spread is None else np.asarray(self.spread, np.float64)
        if errors.ndim == 2:
            if errors.shape[1] > 1 and spread is None:
                spread = errors.std(axis=1, ddof=1) / np.sqrt(errors.shape[1])
            errors = errors.mean(axis=1)
        seen = None if self.seen is None else np.asarray(self.seen, np.float64)
        for name, more in (("spread", spread), ("seen", seen)):
            if more is not None and more.shape != counts.shape:
                raise ValueError(f"there are {len(counts)} points, but {name} of shape {more.shape}")
        if spread is not None and not np.isfinite(spread).all():
            spread = None  # one signal or fold has none

        self.figure_, axes = panels(ax, 1, 1, (6.4, 4.2), display="SparsityPathDisplay")
        self.ax_ = axes[0, 0]
        of_all = "" if self.n_atoms is None else f" (of {self.n_atoms} atoms)"
        for_curves(
            self.ax_, "Sparsity against error" if title is None else title, f"non-zeros a signal{of_all}",
            self.error_name,
        )  # fmt: skip
        order = np.lexsort((errors, counts))
        style = dict(color=COLOURS[0], linewidth=1.5, marker="o", markersize=4.5)
        self.errorbar_ = self.seen_ = None
        kind = None if seen is None else "held-out entries"
        if seen is not None:
            (self.seen_,) = self.ax_.plot(
                counts[order], seen[order], color=QUIET, linewidth=1.2, linestyle="--",
                label="entries that codes were made from",
            )  # fmt: skip
        if spread is None:
            (self.line_,) = self.ax_.plot(counts[order], errors[order], label=kind, **style)
        else:
            self.errorbar_ = self.ax_.errorbar(
                counts[order], errors[order], spread[order], ecolor=QUIET, elinewidth=1, capsize=2.5,
                label=f"{kind or 'mean'}, \N{PLUS-MINUS SIGN} standard error", **style,
            )  # fmt: skip
            self.line_ = self.errorbar_.lines[0]
        if spread is not None or seen is not None:
            self.ax_.legend(frameon=False, fontsize=9, labelcolor=INK)
        least = errors.min() if seen is None else min(errors.min(), seen.min())
        if scale == "auto":
            scale = "log" if errors.min() > 0 and errors.max() > 20 * errors.min() else "linear"
        self.ax_.set_yscale(scale)
        if scale == "linear" and errors.max() > 3 * least:
            self.ax_.set_ylim(bottom=0)
        self.ax_.margins(x=0.08)
        self.ax_.set_xlim(left=min(0, self.ax_.get_xlim()[0]) if counts.min() < 0.3 * counts.max() else None)
        self.chosen_, self.labels_ = None, []
        if self.chosen is not None:
            (self.chosen_,) = self.ax_.plot(
                counts[self.chosen], errors[self.chosen], "o", color=ACCENT, markersize=11, fillstyle="none",
                markeredgewidth=2,
            )  # fmt: skip
        if alphas is not None:
            self._label(counts, errors, alphas, n_labels)
        return self

    def _label(self, counts, errors, alphas, n_labels):
        """Penalties beside points that are far enough from those that have one."""
        place = self.ax_.transLimits.transform(
            self.ax_.transScale.transform(np.column_stack([counts, errors]))
        )  # in shares of the axes
        order = np.lexsort((errors, counts))
        rank = np.argsort(order)
        wanted = [] if self.chosen is None else [self.chosen]
        ends = [order[0], order[-1]] if n_labels else []
        between = order[np.linspace(0, len(order) - 1, n_labels).astype(int)] if n_labels else []
        taken = []
        for number in dict.fromkeys([*wanted, *ends, *between]):
            apart = [np.abs(place[number] - place[other]) / (0.15, 0.08) for other in taken]
            if any((gap < 1).all() for gap in apart):
                continue
            taken.append(number)
            is_chosen = number == self.chosen
            text = f"penalty {alphas[number]:.3g}" if is_chosen or len(taken) == 1 else f"{alphas[number]:.3g}"
            # Beside the curve: under its left arm and its lowest point, or above the arm that falls or rises.
            rises = rank[number] > 0 and place[order[rank[number] - 1], 1] < place[number, 1] - 1e-9
            offset, side, vertical = ((-7, 5), "right", "bottom") if rises else ((8, 4), "left", "bottom")
            if is_chosen and self.seen is not None:  # whose curve lies below
                offset, side, vertical = (0, 12), "center", "bottom"
            elif is_chosen and place[number, 0] > 0.25:
                offset, side, vertical = (-7, -9), "right", "top"
            self.labels_.append(
                self.ax_.annotate(
                    text, (counts[number], errors[number]), offset, textcoords="offset points", fontsize=9, ha=side,
                    va=vertical, color=ACCENT if is_chosen else QUIET, annotation_clip=False,
                )
            )  # fmt: skip


def _path_of(search):
    """Errors over penalties (and folds) of a search, None if it has none."""
    for name in ("error_path_", "mse_path_"):
        if hasattr(search, name):
            return np.asarray(getattr(search, name), np.float64)
    return None


def _penalty_of(estimator):
    """The penalty that an estimator codes with, None if it counts."""
    for name in ("transform_alpha", "alpha"):
        value = getattr(estimator, name, None)
        if value is not None and np.ndim(value) == 0:
            return float(value)
    return None


def _rows(X, start):
    rows = X[start : start + _AT_ONCE]
    return rows.toarray() if issparse(rows) else rows
