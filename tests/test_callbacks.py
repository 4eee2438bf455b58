"""A learner that follows the protocol: under scikit-learn's callbacks, ours, and the stand-in for old versions."""

import pickle
import sys
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV

from sparseshare import callbacks
from sparseshare.callbacks import EarlyStopping, LossMonitor, report_epoch

needs_protocol = pytest.mark.skipif(
    not hasattr(callbacks.CallbackSupportMixin, "set_callbacks"), reason="scikit-learn before 1.9 has no callbacks"
)


def make_learner(module):
    """Class of a learner with the given losses, as the module's docstring tells to write it."""

    class Learner(module.CallbackSupportMixin, BaseEstimator):
        def __init__(self, losses=(), shift=0.0):
            self.losses = losses
            self.shift = shift

        @module.with_callbacks
        def fit(self, X, y=None):
            fit = self._init_callback_context(max_subtasks=len(self.losses))
            fit.call_on_fit_task_begin(estimator=self, X=X, y=y)
            self.components_ = np.zeros((1, 2))
            for epoch, loss in enumerate(self.losses):
                task = fit.subcontext(task_name="epoch").call_on_fit_task_begin(estimator=self, X=X, y=y)
                self.n_iter_ = epoch + 1
                if task.call_on_fit_task_end(
                    estimator=self,
                    X=X,
                    y=y,
                    metadata={"loss": loss + self.shift},
                    reconstruction_attributes=lambda: dict(components_=self.components_, n_iter_=self.n_iter_),
                ):
                    break
            fit.call_on_fit_task_end(
                estimator=self, X=X, y=y, reconstruction_attributes=lambda: dict(components_=self.components_)
            )
            return self

        def score(self, X, y=None):
            return -self.shift

    return Learner


Learner = make_learner(callbacks)
X = np.zeros((6, 2))


@needs_protocol
def test_loss_monitor_keeps_a_curve_a_fit():
    monitor = LossMonitor()
    assert monitor.loss_curve == []
    learner = Learner([3, 2, 1.5]).set_callbacks(monitor)
    learner.fit(X)
    clone(learner).set_params(losses=[1, 0.5]).fit(X)
    assert monitor.loss_curves == [[3, 2, 1.5], [1, 0.5]] and monitor.loss_curve == [1, 0.5]


@needs_protocol
def test_clones_share_the_monitor_through_a_search():
    monitor = LossMonitor()
    search = GridSearchCV(Learner([2, 1]).set_callbacks(monitor), {"shift": [0.0, 10.0]}, cv=2).fit(X)
    assert search.best_params_ == {"shift": 0.0}
    assert sorted(monitor.loss_curves) == 3 * [[2, 1]] + 2 * [[12, 11]]  # two folds of each, and the refit


@needs_protocol
@pytest.mark.parametrize(
    ("losses", "n_iter"),
    [
        ([5, 4, 3, 2, 1], 5),
        ([5, 4, 4, 4, 1], 4),
        ([5, 6, 4, 4, 1], 5),
        ([5, 5 - 1e-9, 5 - 2e-9, 1], 3),
        ([np.nan, np.nan, 1], 2),
        ([-1, -2, -3, -3, -3, -4], 5),
    ],
)
def test_early_stopping(losses, n_iter):
    learner = Learner(losses).set_callbacks(EarlyStopping(patience=2), LossMonitor())
    assert learner.fit(X).n_iter_ == n_iter
    assert learner.fit(X).n_iter_ == n_iter  # nothing is left of the first fit


@needs_protocol
def test_a_fit_that_fails_leaves_nothing_behind():
    stopping = EarlyStopping()
    with pytest.raises(TypeError):
        Learner([1, "a"]).set_callbacks(stopping).fit(X)
    assert not stopping._running


@needs_protocol
def test_pickle_with_callbacks():
    learner = Learner([1]).set_callbacks(EarlyStopping(patience=7), LossMonitor()).fit(X)
    Learner.__qualname__ = Learner.__name__  # made in a function, which pickle could not find
    copy = pickle.loads(pickle.dumps(learner._skl_callbacks))
    assert copy[0].patience == 7 and copy[1].loss_curves == [[1]]


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"tol": -1}])
def test_bad_parameters(wrong):
    with pytest.raises(ValueError, match="EarlyStopping takes patience >= 1 and tol >= 0"):
        EarlyStopping(**wrong)


def test_stand_in_for_old_versions(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)  # what an import of a missing module meets
    spec = spec_from_file_location("callbacks_before_1_9", callbacks.__file__)
    old = module_from_spec(spec)
    spec.loader.exec_module(old)
    assert old.CallbackSupportMixin.__module__ == "callbacks_before_1_9"
    learner = make_learner(old)([3, 2, 1])
    assert clone(learner).fit(X).n_iter_ == 3


def test_report_epoch_is_one_line(capsys):
    report_epoch("MiniBatchDictionaryLearning", 1, 20, np.float32(0.125), 0.04)
    assert capsys.readouterr().out == "[MiniBatchDictionaryLearning] epoch 1/20: loss 0.125, 0.0 s\n"
