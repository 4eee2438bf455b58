"""Progress of a fit: scikit-learn's callback protocol in one place, two callbacks for losses, and the verbose line.

`sklearn.callback` came with scikit-learn 1.9 and may still change; nothing else in the package imports it. Before 1.9
the names below stand for a context that does nothing, so learners are written once.

A learner makes one task an epoch (a task is kept for the whole fit: never one a sample or an inner step). The loss goes
over as metadata, the dictionary as reconstruction attributes, a lambda that costs nothing when nobody asks::

    class Learner(CallbackSupportMixin, ..., BaseEstimator):
        @with_callbacks
        def fit(self, X, y=None):
            fit = self._init_callback_context(max_subtasks=self.max_iter)
            fit.call_on_fit_task_begin(estimator=self, X=X, y=y)
            for epoch in range(self.max_iter):
                task = fit.subcontext(task_name="epoch").call_on_fit_task_begin(estimator=self, X=X, y=y)
                ...
                if task.call_on_fit_task_end(
                    estimator=self, X=X, y=y,
                    metadata={"loss": loss},
                    reconstruction_attributes=lambda: dict(components_=D.copy(), n_iter_=epoch + 1),
                ):
                    break  # a callback asked to stop
            fit.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=lambda: dict(components_=D))

Only tasks with metadata["loss"] count for `LossMonitor` and `EarlyStopping`, so the last call carries none.
"""

import math
import time

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9

    class _SilentContext:
        def subcontext(self, **task):
            return self

        def call_on_fit_task_begin(self, **state):
            return self

        def call_on_fit_task_end(self, **state):
            return False

    class CallbackSupportMixin:
        """Stand-in for scikit-learn's mixin: a fit runs as if no callback were set."""

        def _init_callback_context(self, **task):
            return _SilentContext()

    def with_callbacks(method):
        """Stand-in for scikit-learn's decorator: the method as it is."""
        return method


class LossMonitor:
    """Record the loss of every epoch of every fit.

    Set it with `estimator.set_callbacks(LossMonitor())` (scikit-learn 1.9 or newer). Clones share it, so a grid search
    in one process adds a curve a fit; other processes keep theirs to themselves.

    Attributes
    ----------
    loss_curves : list of lists of float
        One list a fit, in the order in which the fits began.

    Examples
    --------
    >>> from sparseshare.callbacks import LossMonitor
    >>> monitor = LossMonitor()
    >>> monitor.loss_curves
    []
    """

    def __init__(self):
        self.loss_curves = []
        self._running = {}

    @property
    def loss_curve(self):
        """Losses of the fit that began last, empty before the first."""
        return self.loss_curves[-1] if self.loss_curves else []

    def setup(self, estimator, context):
        """Begin a curve."""
        self._running[id(estimator)] = curve = []
        self.loss_curves.append(curve)

    def teardown(self, estimator, context):
        """Close the curve of this fit."""
        del self._running[id(estimator)]

    def on_fit_task_begin(self, estimator, context):
        """Nothing to do."""

    def on_fit_task_end(self, estimator, context, *, metadata=None):
        """Append the loss of an epoch."""
        if metadata and "loss" in metadata:
            self._running[id(estimator)].append(float(metadata["loss"]))


class EarlyStopping:
    """Stop a fit whose loss has stopped falling.

    Set it with `estimator.set_callbacks(EarlyStopping())` (scikit-learn 1.9 or newer).

    Parameters
    ----------
    patience : int, default=3
        Epochs without progress before the fit stops.
    tol : float, default=1e-4
        Progress is a loss that stays below the best so far when it is raised by this fraction; NaN is none.

    Examples
    --------
    >>> from sparseshare.callbacks import EarlyStopping
    >>> EarlyStopping(patience=5).patience
    5
    """

    def __init__(self, patience=3, tol=1e-4):
        if patience < 1 or tol < 0:
            raise ValueError(f"EarlyStopping takes patience >= 1 and tol >= 0, got patience={patience!r}, tol={tol!r}")
        self.patience = patience
        self.tol = tol
        self._running = {}  # clones share a callback: what belongs to one fit is kept by its estimator

    def setup(self, estimator, context):
        """Forget former fits of this estimator."""
        self._running[id(estimator)] = (math.inf, 0)

    def teardown(self, estimator, context):
        """Drop what belongs to this fit."""
        del self._running[id(estimator)]

    def on_fit_task_begin(self, estimator, context):
        """Nothing to do."""

    def on_fit_task_end(self, estimator, context, *, metadata=None):
        """Return True when the loss has not fallen for `patience` epochs."""
        if not metadata or "loss" not in metadata:
            return False
        best, waited = self._running[id(estimator)]
        loss = float(metadata["loss"])
        if loss + self.tol * abs(loss) < best:
            best, waited = loss, 0
        else:
            waited += 1
        self._running[id(estimator)] = best, waited
        return waited >= self.patience


def report_epoch(name, epoch, max_iter, loss, seconds, **more):
    """Print the line that `verbose` promises for an epoch.

    Parameters
    ----------
    name : str
        Name of the estimator or function.
    epoch : int
        Counted from 1.
    max_iter : int
    loss : float
    seconds : float
        Since the fit began.
    **more : numbers
        Further things to show, as name=value.

    Examples
    --------
    >>> from sparseshare.callbacks import report_epoch
    >>> report_epoch("KSVD", 3, 10, 0.25, 1.52, non_zeros=9.5)
    [KSVD] epoch 3/10: loss 0.25, non_zeros 9.5, 1.5 s
    """
    shown = "".join(f", {key} {value:.6g}" for key, value in more.items())
    print(f"[{name}] epoch {epoch}/{max_iter}: loss {loss:.6g}{shown}, {seconds:.1f} s", flush=True)


class EpochReports:
    """Tell scikit-learn's callbacks, and the terminal if asked for, how a fit is going: one task an epoch.

    Parameters
    ----------
    estimator : object
        With `CallbackSupportMixin` and the parameters `max_iter` and `verbose`.
    X, y : object
        What `fit` was given.
    """

    def __init__(self, estimator, X, y):
        self.estimator = estimator
        self.state = dict(estimator=estimator, X=X, y=y)
        self.epoch = 0

    def __enter__(self):
        self.started = time.perf_counter()
        self.fit = self.estimator._init_callback_context(max_subtasks=self.estimator.max_iter)
        self.fit.call_on_fit_task_begin(**self.state)
        self.dictionary = None
        return self

    def begin(self):
        """An epoch begins."""
        self.task = self.fit.subcontext(task_name="epoch")
        self.task.call_on_fit_task_begin(**self.state)

    def end(self, loss, dictionary):
        """An epoch has ended with a mean objective per signal; True if a callback asks to stop."""
        self.epoch += 1
        self.dictionary = dictionary
        if self.estimator.verbose:
            report_epoch(
                type(self.estimator).__name__, self.epoch, self.estimator.max_iter, loss,
                time.perf_counter() - self.started,
            )  # fmt: skip
        return self._tell(loss)

    def again(self, losses, dictionary):
        """Tell callbacks, which a resumed fit finds as new, of the epochs before; True if one asks to stop."""
        self.dictionary = dictionary
        stop = False
        for loss in losses:
            self.begin()
            self.epoch += 1
            stop = self._tell(loss)
        return stop

    def _tell(self, loss):
        return bool(
            self.task.call_on_fit_task_end(
                **self.state, metadata={"loss": loss}, reconstruction_attributes=self._attributes
            )
        )

    def _attributes(self):
        return dict(components_=self.dictionary.copy(), n_iter_=self.epoch)

    def __exit__(self, kind, *error):
        if kind is None and self.dictionary is not None:
            self.fit.call_on_fit_task_end(**self.state, reconstruction_attributes=self._attributes)
