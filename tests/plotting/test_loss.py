"""Loss curves are drawn as they were recorded."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparseshare import MiniBatchDictionaryLearning, SparseCoder
from sparseshare.plotting import LossCurveDisplay


@pytest.fixture
def learners(rng):
    X = rng.standard_normal((60, 8))
    return [
        MiniBatchDictionaryLearning(n, alpha=0.5, max_iter=4, tol=0, max_no_improvement=None, random_state=0).fit(X)
        for n in (4, 12)
    ]


def test_one_fit(learners, title):
    display = LossCurveDisplay.from_estimator(learners[0])
    (line,) = display.lines_
    assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    assert_array_equal(line.get_ydata(), learners[0].loss_curve_)
    assert title(display.ax_) == "Loss of MiniBatchDictionaryLearning"
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("epoch", "mean objective of a signal")
    assert display.ax_.get_legend() is None


def test_several_fits(learners, rng):
    pipeline = make_pipeline(StandardScaler(), SparseCoder(n_components=3, max_iter=2, tol=0, random_state=0))
    pipeline.fit(rng.standard_normal((30, 8)))
    display = LossCurveDisplay.from_estimator([*learners, pipeline], names=["few", "many", "coder"])
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["few", "many", "coder"]
    for line, learner in zip(display.lines_, [*learners, pipeline[-1]], strict=True):
        assert_array_equal(line.get_ydata(), learner.loss_curve_)
    assert len({line.get_color() for line in display.lines_}) == 3
    names = [line.get_label() for line in LossCurveDisplay.from_estimator(learners).lines_]
    assert names == ["MiniBatchDictionaryLearning 1", "MiniBatchDictionaryLearning 2"]


def test_twenty_curves_are_told_apart():
    display = LossCurveDisplay({str(number): [number + 2, number + 1] for number in range(20)}).plot()
    assert len({(line.get_color(), line.get_linestyle()) for line in display.lines_}) == 20


def test_scales():
    assert LossCurveDisplay({"a": [100.0, 1]}).plot().ax_.get_yscale() == "log"
    assert LossCurveDisplay({"a": [100.0, 0]}).plot().ax_.get_yscale() == "linear"
    assert LossCurveDisplay({"a": [100.0, 1]}).plot(scale="linear").ax_.get_yscale() == "linear"
    assert_array_equal(LossCurveDisplay({"a": [1.0]}).plot().lines_[0].get_xdata(), [1])


def test_wrong_input(learners):
    for call, message in [
        (lambda: LossCurveDisplay.from_estimator(SparseCoder()), "SparseCoder has no loss_curve_: fit it"),
        (
            lambda: LossCurveDisplay.from_estimator(learners, names=["one"]),
            r"names must be 2 different names, got \['one",
        ),
        (lambda: LossCurveDisplay.from_estimator(learners, names=["a", "a"]), "2 different names"),
        (lambda: LossCurveDisplay.from_estimator(learners, names="ab"), "2 different names"),
        (lambda: LossCurveDisplay.from_estimator([]), "nothing to draw"),
        (lambda: LossCurveDisplay({"a": []}).plot(), "loss curve of a must be a list of at least one number"),
        (lambda: LossCurveDisplay({"a": np.ones((2, 2))}).plot(), r"at least one number, got \(2, 2\)"),
        (lambda: LossCurveDisplay({"a": [1]}).plot(scale="ln"), "'scale' parameter of LossCurveDisplay"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
