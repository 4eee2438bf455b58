"""Classifier and regressor: data of all shapes, real digits, searches, and what they refuse."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sparseshare.network import Conv, DeepSparseClassifier, DeepSparseRegressor, Dense, Flatten, MaxPool, hashed
from sparseshare.network.recurrent import LSTM


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split((X / 16).astype(np.float32), y, random_state=0, stratify=y)


def quick(layers=None, **options):
    return DeepSparseClassifier(layers, **{"max_iter": 3, "n_iter_no_change": None, "random_state": 0, **options})


def test_real_digits(digits):
    X, held, y, labels = digits
    network = DeepSparseClassifier(
        image_shape=(8, 8), max_iter=25, n_iter_no_change=None, schedule="cosine", learning_rate=2e-3, random_state=0
    ).fit(X, y)
    assert network.score(held, labels) > 0.97
    assert network.predict_proba(held).dtype == np.float32


@pytest.mark.parametrize(
    ("fraction", "n_units", "stored", "margin"), [(1 / 8, 17, 1322, -0.01), (1 / 32, 6, 434, 0.03)]
)
def test_hashed_weights_beat_a_dense_network_of_equal_size(digits, fraction, n_units, stored, margin):
    """Clearly where there are few values; on digits of 64 pixels 1,300 of them are enough for both."""
    X, held, y, labels = digits
    options = dict(
        max_iter=60, n_iter_no_change=None, optimizer="momentum", learning_rate=0.1, schedule="cosine", n_jobs=1,
        random_state=0,
    )  # fmt: skip
    hashed_network = DeepSparseClassifier([Dense(128)], share=hashed(fraction), **options).fit(X, y)
    small = DeepSparseClassifier([Dense(n_units)], **options).fit(X, y)
    assert hashed_network.parameter_report().total.stored == stored
    assert abs(small.parameter_report().total.stored / stored - 1) < 0.07
    assert hashed_network.score(held, labels) > small.score(held, labels) + margin


def test_a_wanted_density_is_reached(digits):
    X, held, y, labels = digits
    network = quick([Dense(128)], activation="hard", density=0.1, max_iter=40).fit(X, y)
    assert network.densities_.shape == (1,) and 0.08 < network.densities_[0] < 0.12
    assert np.mean(network.transform(held) != 0) == pytest.approx(0.1, abs=0.03)
    assert network.score(held, labels) > 0.88


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("channels", [True, False])
def test_rows_and_images_are_one(digits, flat, channels):
    X, held, y, _ = digits
    images = X.reshape(-1, 8, 8, 1) if channels else X.reshape(-1, 8, 8)
    layers = [Conv(4, 3), MaxPool(2), Dense(8)]
    network = quick(layers).fit(images, y)
    shape = (8, 8, 1) if channels else (8, 8)
    same = quick(layers, image_shape=shape).fit(X if flat else images, y)
    assert network.input_shape_ == same.input_shape_ == (8, 8, 1)
    expected = network.predict_log_proba(held.reshape(-1, 8, 8))
    for samples in (held, held.reshape(-1, 8, 8), held.reshape(-1, 8, 8, 1)):
        np.testing.assert_array_equal(same.predict_log_proba(samples), expected)
    assert network.transform(held).shape == (len(held), 3 * 3 * 8)


def test_default_layers_follow_the_data(digits):
    X, _, y, _ = digits
    names = lambda network: [type(node.layer).__name__ for node in network.network_.nodes]  # noqa: E731
    assert names(quick(max_iter=1).fit(X, y)) == ["Dense", "Flatten", "Dense"]
    small = ["Conv", "MaxPool", "Conv", "Flatten", "Dense", "Flatten", "Dense"]
    assert names(quick(max_iter=1).fit(X.reshape(-1, 8, 8), y)) == small
    large = np.repeat(np.repeat(X[:20].reshape(-1, 8, 8), 2, axis=1), 2, axis=2)
    assert names(quick(max_iter=1).fit(large, y[:20])) == [*small[:3], "MaxPool", *small[3:]]
    tiny = quick(max_iter=1).fit(X[:20].reshape(-1, 4, 4, 4), y[:20])
    assert names(tiny) == ["Flatten", "Dense", "Flatten", "Dense"]


def test_sequences(digits):
    X, held, y, labels = digits
    network = quick([LSTM(16)], max_iter=20, learning_rate=0.01).fit(X.reshape(-1, 8, 8), y)
    assert network.input_shape_ == (8, 8)
    assert network.score(held.reshape(-1, 8, 8), labels) > 0.8


def test_integers_and_precision(digits):
    X, held, y, _ = digits
    pixels = (16 * X).astype(np.uint8)
    network = quick([Dense(8)]).fit(pixels, y)
    same = quick([Dense(8)]).fit(pixels.astype(float), y)
    np.testing.assert_array_equal(network.predict_proba(pixels), same.predict_proba(pixels))
    assert network.network_.dtype == np.float64 and network.predict_proba(held).dtype == np.float64
    assert quick([Dense(8)]).fit(X, y).transform(held).dtype == np.float32


def test_probabilities(digits):
    X, held, y, labels = digits
    network = quick(max_iter=10).fit(X, y)
    probabilities = network.predict_proba(held)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(network.predict(held), probabilities.argmax(axis=1))
    np.testing.assert_allclose(np.exp(network.predict_log_proba(held)), probabilities)
    assert network.score(held, labels) == np.mean(network.predict(held) == labels)


def test_labels_may_be_strings(digits):
    X, _, y, _ = digits
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    network, same = quick().fit(X, names[y]), quick().fit(X, np.argsort(np.argsort(names))[y])
    assert network.classes_.tolist() == sorted(names)
    np.testing.assert_array_equal(network.predict(X), np.sort(names)[same.predict(X)])


def test_class_weights(digits):
    X, held, y, labels = digits
    heavy = quick(max_iter=10, class_weight={8: 50.0}).fit(X, y)
    plain = quick(max_iter=10).fit(X, y)
    assert np.mean(heavy.predict(held) == 8) > np.mean(plain.predict(held) == 8)
    few = np.r_[np.flatnonzero(y == 1), np.flatnonzero(y == 8)[:8]]
    balanced = quick(max_iter=15, class_weight="balanced").fit(X[few], y[few])
    assert np.mean(balanced.predict(held[labels == 8]) == 8) > 0.6


def test_codes_serve_other_estimators(digits):
    X, held, y, labels = digits
    network = quick([Dense(64), Dense(32)], max_iter=10).fit(X, y)
    assert network.get_feature_names_out().tolist()[::31] == ["deepsparseclassifier0", "deepsparseclassifier31"]
    frame = clone(network).set_output(transform="pandas").fit(X, y).transform(held)
    np.testing.assert_array_equal(frame.to_numpy(), network.transform(held))
    chain = make_pipeline(clone(network), LogisticRegression(max_iter=500)).fit(X, y)
    assert chain.score(held, labels) > 0.9


def test_search_by_plain_names(digits):
    X, _, y, _ = digits
    grid = {
        "network__density": [0.05, 0.3], "network__alpha": [1e-4, 1.0], "network__share": [None, hashed(1 / 4)]
    }  # fmt: skip
    pipeline = make_pipeline(MinMaxScaler(), quick([Dense(16)], activation="soft", max_iter=2))
    pipeline.steps[1] = ("network", pipeline.steps[1][1])
    search = GridSearchCV(pipeline, grid, cv=2).fit(X[:400], y[:400])
    assert len(search.cv_results_["params"]) == 8 and not np.isnan(search.cv_results_["mean_test_score"]).any()
    nested = GridSearchCV(quick([Dense(16)], share=hashed(0.5)), {"share__n_values": [0.1, 0.9]}, cv=2)
    assert nested.fit(X[:200], y[:200]).best_params_["share__n_values"] in (0.1, 0.9)


def test_fitting_leaves_the_layers_as_they_are(digits):
    X, _, y, _ = digits
    layers = [Dense(8), Dense(4, activation="tanh")]
    network = quick(layers, share=hashed(1 / 2)).fit(X, y)
    assert network.layers is layers and layers[0].share is None and layers[0].activation is None
    assert [p.shared for p in network.network_.weights()] == [True, True, True]


def test_pickles_give_the_same_predictions(digits):
    X, held, y, _ = digits
    network = quick([Dense(32)], share=hashed(1 / 4), activation="soft", threshold="learned").fit(X, y)
    text = pickle.dumps(network)
    np.testing.assert_array_equal(pickle.loads(text).predict_proba(held), network.predict_proba(held))
    assert len(text) < 4 * (64 * 32 + 320) / 4 + 12_000  # values are kept, index arrays are not


def test_regression_of_several_outputs(rng):
    X = rng.uniform(-1, 1, (400, 3))
    y = np.column_stack([np.abs(X[:, 0]), X[:, 1] * X[:, 2], X.sum(axis=1)])
    network = DeepSparseRegressor(
        [Dense(64)], max_iter=150, learning_rate=0.01, n_iter_no_change=None, schedule="cosine", random_state=0
    ).fit(X, y)
    assert network.predict(X).shape == y.shape and network.score(X, y) > 0.97
    first = DeepSparseRegressor([Dense(8)], max_iter=3, n_iter_no_change=None, random_state=0)
    assert first.fit(X, y[:, 0]).predict(X).shape == (400,)
    assert first.partial_fit(X, y[:, 0]).n_iter_ == 4
    with pytest.raises(ValueError, match="y has 3 outputs, the network that goes on has 1"):
        first.partial_fit(X, y)


def test_early_stopping_of_a_regression(rng):
    X = rng.uniform(-1, 1, (300, 2))
    network = DeepSparseRegressor([Dense(32)], early_stopping=True, max_iter=500, learning_rate=0.01, random_state=0)
    network.fit(X, np.abs(X).sum(axis=1))
    assert network.n_iter_ < 500 and max(network.validation_scores_) > 0.9


class TestRefusals:
    X = np.random.default_rng(0).random((30, 12))
    y = np.arange(30) % 3

    def refused(self, message, X=None, y=None, **options):
        with pytest.raises(ValueError, match=message):
            quick(**options).fit(self.X if X is None else X, self.y if y is None else y)

    def test_one_class(self):
        self.refused(r"y has one class, \[1\]: a classifier needs at least 2 classes", y=np.ones(30, int))

    def test_labels_not_seen(self):
        network = quick().partial_fit(self.X, self.y, classes=[0, 1, 2])
        with pytest.raises(ValueError, match=r"labels that are not among the classes \[0, 1, 2\]: \[7\]"):
            network.partial_fit(self.X, np.where(self.y == 1, 7, 0))
        with pytest.raises(ValueError, match=r"not among the classes \[0, 1, 2\]: \[5\]"):
            network.set_params(warm_start=True).fit(self.X, np.where(self.y == 1, 5, 0))
        with pytest.raises(ValueError, match="not the same as in the call before"):
            network.partial_fit(self.X, self.y, classes=[0, 1])
        with pytest.raises(ValueError, match=r"not among the classes \[0, 1\]: \[2\]"):
            quick().partial_fit(self.X, self.y, classes=[0, 1])
        with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
            quick().partial_fit(self.X, self.y)

    def test_empty_batches(self):
        self.refused(r"Found array with 0 sample\(s\)", X=self.X[:0], y=self.y[:0])
        network = quick().fit(self.X, self.y)
        for method in (network.predict, lambda X: network.partial_fit(X, self.y[:0])):
            with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
                method(self.X[:0])
        images = quick().fit(self.X.reshape(30, 4, 3), self.y)
        with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
            images.predict(self.X.reshape(30, 4, 3)[:0])

    def test_wrong_image_shape(self):
        self.refused("X has 12 columns, images of image_shape=\\(4, 4\\) have 16 pixels", image_shape=(4, 4))
        self.refused(
            r"samples of shape \(4, 3\), image_shape asks for \(3, 4\)", X=self.X.reshape(30, 4, 3), image_shape=(3, 4)
        )
        self.refused(r"'image_shape' parameter must be \(height, width\)", image_shape=12)
        self.refused(r"Found array with dim 5", X=np.zeros((30, 2, 2, 2, 2)))

    def test_other_shapes_than_fitted(self):
        network = quick().fit(self.X.reshape(30, 4, 3), self.y)
        with pytest.raises(ValueError, match=r"samples of shape \(3, 4\), the network was fitted to \(4, 3\)"):
            network.predict(self.X.reshape(30, 3, 4))
        with pytest.raises(ValueError, match=r"samples of shape \(11,\), the network was fitted to \(4, 3\)"):
            network.predict(self.X[:, 1:])
        with pytest.raises(ValueError, match="the network that goes on was fitted to"):
            network.set_params(warm_start=True).fit(self.X.reshape(30, 3, 4), self.y)

    def test_layers(self):
        self.refused(
            r"layer 1, Conv\(.*\), after layer 0, Dense\(n_units=8\), whose .* \(8,\)", layers=[Dense(8), Conv(4, 3)]
        )
        self.refused("images .* or signals", layers=[Conv(4, 3)])
        self.refused("'layers' parameter must be a list of layers", layers=[4])
        self.refused("'layers' parameter of DeepSparseClassifier must be a list of layers or None", layers=Dense(3))

    def test_not_a_number(self):
        X = self.X.copy()
        X[3, 4] = np.nan
        self.refused("NaN", X=X)
        self.refused("NaN", X=X.reshape(30, 4, 3))

    def test_balanced_weights_of_a_batch(self):
        with pytest.raises(ValueError, match="class_weight='balanced' cannot be worked out from a batch"):
            quick(class_weight="balanced").partial_fit(self.X, self.y, classes=[0, 1, 2])

    def test_early_stopping_of_a_batch(self):
        with pytest.raises(ValueError, match="early_stopping must be False"):
            quick(early_stopping=True).partial_fit(self.X, self.y, classes=[0, 1, 2])

    def test_no_layers_is_a_linear_model(self):
        network = quick([]).fit(self.X, self.y)
        np.testing.assert_array_equal(network.transform(self.X), self.X)
        assert network.densities_.shape == (0,)
        assert isinstance(network.network_.nodes[0].layer, Flatten)
