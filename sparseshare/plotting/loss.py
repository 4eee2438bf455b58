"""LossCurveDisplay: how the objective fell while dictionaries were learned."""

import numpy as np

from sparseshare.validation import check_choice

from .codes import on_host
from .style import COLOURS, INK, for_curves, panels, pyplot

_STYLES = ("-", "--", ":", "-.")


class LossCurveDisplay:
    """Loss over the epochs of one or several fits.

    Make one with `from_estimator`.

    Parameters
    ----------
    curves : dict of str to array-like of shape (n_epochs,)
        Losses by name.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        In the order of the curves.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sparseshare.plotting import LossCurveDisplay
    >>> display = LossCurveDisplay({"first": [3.0, 2.0, 1.5], "second": [2.5, 1.6]}).plot()
    >>> display.ax_.get_xlabel(), len(display.lines_)
    ('epoch', 2)
    """

    def __init__(self, curves):
        self.curves = on_host(curves)

    @classmethod
    def from_estimator(cls, estimator, *, names=None, ax=None, **options):
        """Draw the `loss_curve_` of fitted estimators.

        Parameters
        ----------
        estimator : estimator, or list of estimators
            Each with `loss_curve_`, or a pipeline that ends in such a one.
        names : list of str, default=None
            None takes the names of the classes, numbered where they repeat.
        ax : matplotlib Axes, default=None
        **options
            For `plot`.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        ValueError
            If an estimator has no `loss_curve_`, or names do not fit.
        """
        estimators = list(estimator) if isinstance(estimator, list | tuple) else [estimator]
        curves = []
        for one in estimators:
            one = getattr(one, "best_estimator_", one)
            one = one.steps[-1][1] if hasattr(one, "steps") else one
            if not hasattr(one, "loss_curve_"):
                raise ValueError(f"{type(one).__name__} has no loss_curve_: fit it, so that it learns a dictionary")
            curves.append((type(one).__name__, one.loss_curve_))
        if names is None:
            names = [name for name, _ in curves]
            if len(set(names)) < len(names):
                names = [f"{name} {number}" for number, name in enumerate(names, 1)]
        if isinstance(names, str) or len(names) != len(curves) or len(set(names)) < len(names):
            raise ValueError(f"names must be {len(curves)} different names, got {names!r}")
        return cls({name: curve for name, (_, curve) in zip(names, curves, strict=True)}).plot(ax=ax, **options)

    def plot(self, ax=None, *, scale="auto", title=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
        scale : {"auto", "linear", "log"}, default="auto"
            Of the losses; "auto" is "log" where they are positive and fall to less than a tenth.
        title : str, default=None

        Returns
        -------
        LossCurveDisplay
        """
        check_choice("scale", scale, ("auto", "linear", "log"), of="LossCurveDisplay")
        pyplot()
        from matplotlib.ticker import MaxNLocator

        curves = {name: np.asarray(curve, np.float64) for name, curve in self.curves.items()}
        for name, curve in curves.items():
            if curve.ndim != 1 or not len(curve):
                raise ValueError(f"the loss curve of {name} must be a list of at least one number, got {curve.shape}")
        if not curves:
            raise ValueError("curves is empty: there is nothing to draw")
        self.figure_, axes = panels(ax, 1, 1, (6.4, 3.8), display="LossCurveDisplay")
        self.ax_ = axes[0, 0]
        title = (f"Loss of {next(iter(curves))}" if len(curves) == 1 else "Loss") if title is None else title
        for_curves(self.ax_, title, "epoch", "mean objective of a signal")
        self.lines_ = []
        for number, (name, curve) in enumerate(curves.items()):
            style = dict(
                color=COLOURS[number % len(COLOURS)], linestyle=_STYLES[number // len(COLOURS) % len(_STYLES)],
                linewidth=1.7, marker="o", markersize=3.5 if len(curve) <= 30 else 0,
            )  # fmt: skip
            self.lines_ += self.ax_.plot(np.arange(1, len(curve) + 1), curve, label=name, **style)
        everything = np.concatenate(list(curves.values()))
        if scale == "auto":
            scale = "log" if everything.min() > 0 and everything.max() > 10 * everything.min() else "linear"
        self.ax_.set_yscale(scale)
        self.ax_.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(curves) > 1:
            self.ax_.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=1 + (len(curves) > 8))
        return self
