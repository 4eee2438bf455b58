"""The points of a path lie at the non-zeros and errors of its codes."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparseshare import SparseCoder, sparse_encode, sparse_encode_path
from sparseshare.model_selection import SparseCoderCV
from sparseshare.plotting import SparsityPathDisplay

ALPHAS = [4.0, 2.0, 1.0, 0.5, 0.25]


@pytest.fixture
def X(rng):
    return rng.standard_normal((50, 12))


@pytest.fixture
def dictionary(rng):
    return rng.standard_normal((20, 12))


@pytest.fixture
def search():
    """What a search over penalties leaves behind."""
    errors = np.array([[4.0, 5, 6], [2, 3, 4], [1, 2, 3], [2, 2, 5]])
    return SimpleNamespace(alphas_=[1.0, 0.5, 0.2, 0.1], alpha_=0.2, mse_path_=errors, n_nonzero_path_=[1.0, 2, 4, 8])


def points(X, dictionary, alphas, **options):
    """Non-zeros and errors, one penalty after the other."""
    for alpha in alphas:
        codes = sparse_encode(X, dictionary, alpha=alpha, **options)
        yield np.count_nonzero(codes) / len(X), np.mean((X - codes @ dictionary) ** 2)


@pytest.mark.parametrize("sparse", [False, True])
def test_codes_of_a_path(X, dictionary, sparse, title):
    codes = sparse_encode_path(X, dictionary, ALPHAS, sparse_output=sparse)
    display = SparsityPathDisplay.from_path(X, dictionary, codes, ALPHAS, chosen=2)
    expected = list(points(X, dictionary, ALPHAS))
    assert_allclose(display.line_.get_xydata(), expected, rtol=1e-4)
    assert_allclose(display.chosen_.get_xydata()[0], expected[2], rtol=1e-4)
    assert title(display.ax_) == "Sparsity against error"
    assert display.ax_.get_xlabel() == "non-zeros a signal (of 20 atoms)"
    assert display.ax_.get_ylabel() == "mean squared error"
    written = [label.get_text() for label in display.labels_]
    assert written[0] == "penalty 1" and set(written[1:]) <= {"4", "2", "0.5", "0.25"} and len(written) > 1
    for label in display.labels_:
        at = ALPHAS.index(float(label.get_text().split()[-1]))
        assert_allclose(label.xy, expected[at], rtol=1e-4)


def test_the_order_of_penalties_does_not_matter(X, dictionary):
    turned = ALPHAS[::-1]
    codes = sparse_encode_path(X, dictionary, turned)
    display = SparsityPathDisplay.from_path(X, dictionary, codes, turned)
    assert_allclose(display.line_.get_xydata(), list(points(X, dictionary, ALPHAS)), rtol=1e-4)
    assert display.chosen_ is None


def test_paths_of_pursuits_have_no_penalties(X, dictionary):
    codes = sparse_encode_path(X, dictionary, algorithm="omp", n_nonzero_coefs=[1, 3, 5])
    display = SparsityPathDisplay.from_path(X, dictionary, codes)
    assert_allclose(display.line_.get_xdata(), [1, 3, 5])
    assert display.labels_ == []


def test_an_estimator(X, dictionary):
    coder = SparseCoder(dictionary, alpha=1.0, positive_code=True, transform_algorithm="lasso_lars").fit(X)
    display = SparsityPathDisplay.from_estimator(coder, X, alphas=ALPHAS)
    assert_allclose(display.line_.get_xydata(), list(points(X, dictionary, ALPHAS, positive=True)), rtol=1e-4)
    assert display.chosen == 2
    display = SparsityPathDisplay.from_estimator(coder, X)
    assert len(display.alphas) == 17 and display.alphas[display.chosen] == 1.0
    assert display.n_nonzero[0] < 0.5 < 8 < display.n_nonzero[-1]
    pipeline = make_pipeline(StandardScaler(), coder).fit(X)
    display = SparsityPathDisplay.from_estimator(pipeline, X, alphas=ALPHAS)
    scaled = StandardScaler().fit_transform(X)
    assert_allclose(display.line_.get_xydata(), list(points(scaled, dictionary, ALPHAS, positive=True)), rtol=1e-4)


def test_a_search(search):
    display = SparsityPathDisplay.from_estimator(search)
    assert_allclose(display.line_.get_xydata(), [(1, 5), (2, 3), (4, 2), (8, 3)])
    assert_allclose(display.chosen_.get_xydata(), [(4, 2)])
    assert display.labels_[0].get_text() == "penalty 0.2"
    bars = display.errorbar_.lines[2][0].get_segments()
    assert_allclose([bar[1, 1] - bar[0, 1] for bar in bars], 2 / np.sqrt(3) * np.array([1, 1, 1, np.sqrt(3)]))
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["mean, ± standard error"]
    search.error_path_ = search.mse_path_.mean(axis=1)
    search.n_nonzero_path_ = np.transpose([search.n_nonzero_path_] * 3)
    display = SparsityPathDisplay.from_cv(search)
    assert display.errorbar_ is None
    assert_allclose(display.line_.get_xydata(), [(1, 5), (2, 3), (4, 2), (8, 3)])


def test_errors_on_entries_that_were_seen(search):
    search.mean_mse_, search.standard_error_ = np.array([5.1, 3.1, 2.1, 3.2]), np.array([0.1, 0.2, 0.3, 0.4])
    search.seen_mse_ = [4.0, 2, 1, 0.1]
    display = SparsityPathDisplay.from_cv(search)
    assert_allclose(display.line_.get_ydata(), search.mean_mse_)
    assert_allclose(display.seen_.get_xydata(), [(1, 4), (2, 2), (4, 1), (8, 0.1)])
    bars = display.errorbar_.lines[2][0].get_segments()
    assert_allclose([bar[1, 1] - bar[0, 1] for bar in bars], 2 * search.standard_error_)
    assert {text.get_text() for text in display.ax_.get_legend().get_texts()} == {
        "held-out entries, ± standard error", "entries that codes were made from"
    }  # fmt: skip
    search.standard_error_ = np.full(4, np.nan)  # of one signal
    assert SparsityPathDisplay.from_cv(search).errorbar_ is None


def test_the_searches_of_the_package(X, dictionary):
    choice = SparseCoderCV(dictionary, alphas=ALPHAS, random_state=0).fit(X)
    display = SparsityPathDisplay.from_estimator(choice)
    assert_allclose(display.line_.get_ydata(), choice.mean_mse_[np.argsort(choice.n_nonzero_path_, kind="stable")])
    assert_allclose(display.chosen_.get_ydata(), choice.mean_mse_[choice.best_index_])
    assert display.labels_[0].get_text() == f"penalty {choice.alpha_:.3g}"
    assert display.ax_.get_xlabel() == "non-zeros a signal (of 20 atoms)"
    again = SparsityPathDisplay.from_estimator(choice, X, alphas=ALPHAS)  # codes of whole signals
    assert_allclose(again.line_.get_xydata(), list(points(X, dictionary, ALPHAS)), rtol=1e-4)


def test_scales():
    assert SparsityPathDisplay([1, 2, 3], [1.0, 0.1, 0.01]).plot().ax_.get_yscale() == "log"
    assert SparsityPathDisplay([1, 2, 3], [1.0, 0.1, 0.0]).plot().ax_.get_yscale() == "linear"
    assert SparsityPathDisplay([1, 2, 3], [1.0, 0.5, 0.3]).plot(scale="log").ax_.get_yscale() == "log"
    one = SparsityPathDisplay([2], [1.0], alphas=[0.3]).plot()
    assert [label.get_text() for label in one.labels_] == ["penalty 0.3"]


def test_labels_do_not_lie_on_each_other():
    """Fifty penalties, crowded at one end."""
    counts, errors = np.geomspace(0.01, 60, 50), np.geomspace(1, 0.5, 50)
    display = SparsityPathDisplay(counts, errors, alphas=np.geomspace(2, 0.01, 50), chosen=40).plot(n_labels=20)
    display.figure_.canvas.draw()
    boxes = [label.get_window_extent() for label in display.labels_]
    assert 4 <= len(boxes) <= 21
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_wrong_input(X, dictionary, search):
    for call, message in [
        (lambda: SparsityPathDisplay.from_path(X, dictionary, np.zeros((2, 50, 3))), r"codes\[0\] must have the shape"),
        (lambda: SparsityPathDisplay.from_path(X, dictionary, np.zeros((2, 50, 20)), [1.0]), "there are 2 points, but"),
        (lambda: SparsityPathDisplay([1, 2], [1.0, 2], seen=[1]).plot(), r"2 points, but seen of shape \(1,\)"),
        (lambda: SparsityPathDisplay([1, 2], [1.0, 2], spread=[1]).plot(), r"2 points, but spread of shape \(1,\)"),
        (lambda: SparsityPathDisplay([1, 2], [1.0]).plot(), "do not fit to non-zeros"),
        (lambda: SparsityPathDisplay([1, 2], [1.0, 2], chosen=2).plot(), "chosen must be a number from 0 to 1, got 2"),
        (lambda: SparsityPathDisplay([1, 2], [1.0, 2]).plot(scale="sqrt"), "'scale' parameter of SparsityPathDisplay"),
        (lambda: SparsityPathDisplay.from_estimator(SparseCoder(dictionary)), "holds no path of errors .* pass X"),
        (lambda: SparsityPathDisplay.from_estimator(SparseCoder(), X), "neither components_ nor atoms_"),
        (lambda: SparsityPathDisplay.from_estimator(SparseCoder(dictionary), 0 * X), "orthogonal to every atom"),
        (
            lambda: SparsityPathDisplay.from_cv(SparseCoder()),
            "SparseCoder has no alphas_, n_nonzero_path_, error_path_",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
