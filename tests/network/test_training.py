"""Training: when it stops, which weights it keeps, and what it says."""

import copy

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning

from sparseshare.callbacks import EarlyStopping, LossMonitor
from sparseshare.network import DeepSparseClassifier, DeepSparseRegressor, Dense, Dropout, clustered, hashed

callbacks = pytest.mark.skipif(
    not hasattr(DeepSparseClassifier, "set_callbacks"), reason="scikit-learn 1.9 brought callbacks"
)


@pytest.fixture
def samples():
    return make_classification(300, 8, n_informative=6, n_classes=3, random_state=0)


def classifier(layers=None, **options):
    options = {"max_iter": 5, "n_iter_no_change": None, "random_state": 0, "learning_rate": 0.01, **options}
    return DeepSparseClassifier([Dense(16)] if layers is None else layers, **options)


def weights_of(estimator):
    return np.concatenate([parameter.values.ravel() for parameter in estimator.network_.parameters])


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("share", [None, hashed(1 / 2)])
def test_the_loss_falls(samples, optimizer, share):
    rate = {"sgd": 0.3, "momentum": 0.1, "adam": 0.01}[optimizer]
    network = classifier(optimizer=optimizer, learning_rate=rate, max_iter=40, share=share).fit(*samples)
    assert network.loss_curve_[-1] < 0.6 * network.loss_curve_[0]
    assert len(network.loss_curve_) == network.n_iter_ == 40
    assert network.score(*samples) > 0.75


def test_the_loss_curve_ends_near_the_loss_of_the_weights(samples):
    X, y = samples
    network = classifier(max_iter=60, alpha=0.1, learning_rate=1e-3).fit(X, y)
    logarithms = network.predict_log_proba(X)
    weights = network.network_.weights()
    loss = -logarithms[np.arange(len(y)), y].mean() + sum(0.5 * 0.1 * (w.values**2).sum() / 128 for w in weights)
    assert network.loss_curve_[-1] == pytest.approx(loss, rel=0.02)


def test_the_same_random_state_gives_the_same_weights_for_every_number_of_threads(samples):
    layers = [Dense(16), Dropout(0.2), Dense(8, activation="soft", threshold="learned")]
    fits = [classifier(layers, n_jobs=n_jobs).fit(*samples) for n_jobs in (1, 2, None)]
    for other in fits[1:]:
        np.testing.assert_array_equal(weights_of(fits[0]), weights_of(other))
    assert np.abs(weights_of(fits[0]) - weights_of(classifier(layers, random_state=1).fit(*samples))).max() > 0.01


def test_max_iter_warns_unless_so_many_epochs_are_meant(samples):
    with pytest.warns(ConvergenceWarning, match=r"max_iter=3 epochs: raise max_iter"):
        classifier(max_iter=3, n_iter_no_change=5).fit(*samples)
    classifier(max_iter=3).fit(*samples)
    classifier(max_iter=3, n_iter_no_change=5, schedule="cosine").fit(*samples)


def test_training_stops_where_nothing_improves(samples):
    network = classifier(max_iter=100, n_iter_no_change=3, tol=10.0).fit(*samples)
    assert network.converged_ and network.n_iter_ == 4  # the first epoch improves on nothing


def test_adaptive_rates_are_divided_before_training_stops(samples):
    network = classifier(max_iter=100, n_iter_no_change=2, tol=10.0, schedule="adaptive").fit(*samples)
    # 0.01 / 5^6 is the first rate of at most 1e-6: six divisions, two epochs each, and two more.
    assert network.converged_ and network.n_iter_ == 1 + 7 * 2


def test_early_stopping_keeps_the_best_weights(samples):
    X, y = samples
    rng = np.random.default_rng(0)
    y = np.where(rng.random(len(y)) < 0.3, rng.integers(0, 3, len(y)), y)  # labels that cannot be learned
    network = classifier(
        [Dense(64)], max_iter=200, early_stopping=True, n_iter_no_change=8, learning_rate=0.02, validation_fraction=0.3
    ).fit(X, y)
    scores = network.validation_scores_
    assert network.converged_ and len(scores) == network.n_iter_ < 200
    assert len(scores) - 1 - int(np.argmax(scores)) <= 8
    until = classifier(
        [Dense(64)], max_iter=int(np.argmax(scores)) + 1, early_stopping=True, learning_rate=0.02,
        validation_fraction=0.3,
    ).fit(X, y)  # fmt: skip
    np.testing.assert_array_equal(weights_of(network), weights_of(until))


@pytest.mark.parametrize("estimator", [DeepSparseClassifier, DeepSparseRegressor])
def test_diverging_keeps_the_last_good_weights(samples, estimator):
    X, y = samples
    options = dict(layers=[Dense(16)], optimizer="sgd", random_state=0, n_iter_no_change=None, max_iter=10)
    with pytest.warns(ConvergenceWarning, match=r"training has stopped, the weights are those .* Lower learning_rate"):
        network = estimator(learning_rate=1e200, **options).fit(X, y.astype(float))
    assert np.isfinite(weights_of(network)).all() and np.isfinite(network.predict(X)).all()
    assert network.n_iter_ >= 1 and not network.converged_


def test_a_loss_that_rises_is_told(samples):
    """Finite, but worse than no training at all: such a network has not converged."""
    X, y = samples
    message = r"The loss rose from 1\.\d+ before training to \S+ after epoch \d+\. Lower learning_rate, which is 1e\+05"
    with pytest.warns(ConvergenceWarning, match=message):
        network = classifier(learning_rate=1e5, n_iter_no_change=3, max_iter=20).fit(X, y)
    assert not network.converged_ and np.isfinite(weights_of(network)).all()


def test_a_layer_without_activations_is_named(samples):
    layers = [Dense(8), Dense(6, activation="hard", threshold=1e3)]
    message = r"All activations behind layer 1, Dense\(.*threshold=1000\.0\), are zero, .*: lower the threshold"
    with pytest.warns(ConvergenceWarning, match=message):
        network = classifier(layers).fit(*samples)
    assert network.densities_[1] == 0


def test_the_good_weights_are_those_of_the_last_epoch(samples):
    steady = classifier(max_iter=3, optimizer="sgd").fit(*samples)
    message = r"in epoch 4: training has stopped, the weights are those after epoch 3"
    with pytest.warns(ConvergenceWarning, match=message):
        network = classifier(
            max_iter=10, optimizer="sgd", schedule=lambda epoch, max_iter: 1 if epoch < 3 else 1e300
        ).fit(*samples)
    np.testing.assert_array_equal(weights_of(network), weights_of(steady))
    assert network.n_iter_ == len(network.loss_curve_) == 3


def test_clusters_are_gathered_half_way_and_fine_tuned(samples):
    network = classifier([Dense(32)], share=clustered(6), max_iter=20).fit(*samples)
    for weights in network.network_.weights():
        assert len(np.unique(weights.full())) == weights.values.size <= 6
    assert min(network.loss_curve_[10:]) < network.loss_curve_[10]


def test_clusters_are_gathered_even_if_training_stops_before(samples):
    network = classifier([Dense(32)], share=clustered(6), max_iter=100, n_iter_no_change=2, tol=10.0).fit(*samples)
    assert network.converged_ and network.n_iter_ < 50
    assert all(weights.shared for weights in network.network_.weights())


def test_clusters_after_the_last_epoch(samples):
    network = classifier([Dense(32)], share=clustered(6, start=1.0), max_iter=5).fit(*samples)
    assert all(weights.values.size <= 6 for weights in network.network_.weights())


def test_warm_start_goes_on(samples):
    whole = classifier(max_iter=6, shuffle=False, warm_start=True).fit(*samples)
    halves = classifier(max_iter=3, shuffle=False, warm_start=True).fit(*samples).fit(*samples)
    np.testing.assert_allclose(weights_of(halves), weights_of(whole), rtol=1e-10)
    assert len(halves.loss_curve_) == 6


def test_warm_start_refuses_other_layers(samples):
    network = classifier(warm_start=True, share=hashed(1 / 2)).fit(*samples)
    network.set_params(layers=[Dense(16)]).fit(*samples)  # others that are equal
    message = r"'layers' are now \[Dense\(n_units=8, .*\)\], those of the network .* \[Dense\(n_units=16, .*\)\]"
    with pytest.raises(ValueError, match=message):
        network.set_params(layers=[Dense(8)]).fit(*samples)
    assert network.set_params(warm_start=False).fit(*samples).network_.nodes[0].output_shape == (8,)


def test_a_second_fit_starts_anew_without_warm_start(samples):
    network = classifier().fit(*samples)
    once = weights_of(network)
    np.testing.assert_array_equal(weights_of(network.fit(*samples)), once)


def test_partial_fit_is_an_epoch(samples):
    whole = classifier(max_iter=4, shuffle=False).fit(*samples)
    parts = classifier(shuffle=False)
    for _ in range(4):
        parts.partial_fit(*samples, classes=[0, 1, 2])
    np.testing.assert_allclose(weights_of(parts), weights_of(whole), rtol=1e-10)
    assert parts.n_iter_ == 4 and len(parts.loss_curve_) == 4


def test_partial_fit_goes_on_from_a_copy_as_from_the_original(samples):
    network = classifier().partial_fit(*samples, classes=[0, 1, 2])
    twin = copy.deepcopy(network)
    np.testing.assert_array_equal(weights_of(network.partial_fit(*samples)), weights_of(twin.partial_fit(*samples)))


@callbacks
def test_callbacks_see_every_epoch_and_may_stop(samples):
    monitor = LossMonitor()
    network = classifier(max_iter=4).set_callbacks(monitor).fit(*samples)
    assert monitor.loss_curve == network.loss_curve_
    stopped = classifier(max_iter=200, learning_rate=1e-12).set_callbacks(EarlyStopping(patience=2)).fit(*samples)
    assert stopped.n_iter_ < 10


def test_verbose_prints_a_line_an_epoch(samples, capsys):
    classifier(max_iter=2, verbose=True, early_stopping=True).fit(*samples)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("[DeepSparseClassifier] epoch 2/2: loss ")
    assert "validation_score" in lines[0] and "samples_per_second" in lines[0]


def test_penalties_shrink_the_weights(samples):
    sizes = {}
    for name, options in {"none": {"alpha": 0}, "l2": {"alpha": 30.0}, "l1": {"alpha": 0, "l1": 1.0}}.items():
        sizes[name] = np.abs(classifier(max_iter=30, **options).fit(*samples).network_.parameters[0].values).sum()
    assert sizes["l2"] < 0.7 * sizes["none"] and sizes["l1"] < 0.7 * sizes["none"]
