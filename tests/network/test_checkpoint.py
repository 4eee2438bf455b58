"""Training that was killed and started again ends with the bits of training that was not."""

import numpy as np
import pytest
from sklearn.base import clone

from sparseshare.callbacks import LossMonitor
from sparseshare.checkpoints import Checkpoint
from sparseshare.network import (
    Conv,
    DeepSparseClassifier,
    DeepSparseEncoder,
    DeepSparseRegressor,
    Dense,
    Dropout,
    MaxPool,
    SequentialSparseCoder,
    clustered,
    hashed,
    load,
    save,
)
from sparseshare.network.unrolled import LearnedSparseCoder

FITTED = ("loss_curve_", "validation_scores_", "n_iter_", "converged_", "densities_", "components_")
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:.*max_iter.*:UserWarning"),
]


class Killed(Exception):
    """Stands for the end of the process."""


def fit_with_deaths(learner, *data, monkeypatch):
    """Fit clones, each of which dies after a checkpoint, until one comes to an end."""
    save = Checkpoint.save

    def save_and_die(self, state):
        save(self, state)
        raise Killed

    for deaths in range(1000):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", save_and_die)
            try:
                return clone(learner).fit(*data), deaths
            except Killed:
                continue
    raise AssertionError("never came to an end")


def assert_same_bits(one, other):
    for name in FITTED:
        assert hasattr(one, name) == hasattr(other, name)
        if hasattr(one, name):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name, strict=True)
    for first, second in zip(one.network_.parameters, other.network_.parameters, strict=True):
        np.testing.assert_array_equal(first.values, second.values, strict=True)
        np.testing.assert_array_equal(first.full(), second.full(), strict=True)
        assert first.step == second.step and type(first.pattern) is type(second.pattern)
        assert first.state.keys() == second.state.keys()


@pytest.fixture
def data(rng):
    X = rng.standard_normal((50, 16)).astype(np.float32)
    return X, (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)


@pytest.mark.parametrize(
    "parameters",
    [
        dict(),
        dict(layers=[Dense(8, activation="hard", density=0.3), Dropout(0.3), Dense(6, share=hashed(1 / 2))]),
        dict(layers=[Dense(8, share=clustered(4, start=0.5))], optimizer="momentum", max_iter=6),
        dict(early_stopping=True, n_iter_no_change=2, max_iter=8),
        dict(schedule="adaptive", optimizer="sgd", n_iter_no_change=1, tol=0.01, shuffle=False, max_iter=8),
        dict(layers=[Conv(3, 3), MaxPool(2)], image_shape=(4, 4)),
        dict(learning_rate=1e30, optimizer="sgd"),  # diverges
        dict(random_state=np.random.RandomState(5)),
        dict(warm_start=True),
    ],
    ids=lambda parameters: ", ".join(parameters) or "as they are",
)
def test_killed_at_every_checkpoint(parameters, data, tmp_path, monkeypatch):
    defaults = dict(layers=[Dense(8)], batch_size=16, max_iter=4, n_iter_no_change=None, random_state=0)
    learner = DeepSparseClassifier(**defaults | parameters)
    whole = clone(learner).fit(*data)
    learner.set_params(checkpoint=Checkpoint(tmp_path / "state.npz", every=0))
    resumed, deaths = fit_with_deaths(learner, *data, monkeypatch=monkeypatch)
    assert deaths > 1
    assert_same_bits(resumed, whole)
    np.testing.assert_array_equal(resumed.predict_proba(data[0]), whole.predict_proba(data[0]))


def test_the_others(rng, data, tmp_path, monkeypatch):
    X, _ = data
    path = Checkpoint(tmp_path / "state.npz", every=0)
    dictionary = rng.standard_normal((6, 16))
    sequences = rng.standard_normal((12, 5, 16))
    options = dict(max_iter=3, batch_size=8, random_state=0)
    for learner, given in (
        (DeepSparseRegressor([Dense(4)], n_iter_no_change=None, **options), (X, X[:, :2])),
        (LearnedSparseCoder(dictionary, alpha=0.2, n_steps=2, **options), (X,)),
        (LearnedSparseCoder(dictionary, alpha=0.2, n_steps=2, early_stopping=True, **options), (X.astype(float),)),
        (SequentialSparseCoder(dictionary, alpha=0.2, n_iter=2, learn=True, **options), (sequences,)),
    ):
        whole = clone(learner).fit(*given)
        learner.set_params(checkpoint=path)
        resumed, deaths = fit_with_deaths(learner, *given, monkeypatch=monkeypatch)
        assert deaths > 3
        assert_same_bits(resumed, whole)
        (tmp_path / "state.npz").unlink()


def assert_same_dictionaries(one, other):
    for first, second in zip(one.dictionaries_, other.dictionaries_, strict=True):
        np.testing.assert_array_equal(first, second, strict=True)
    np.testing.assert_array_equal(one.densities_, other.densities_, strict=True)
    told = [(fitted.loss_curve_, fitted.n_iter_, fitted.converged_) for fitted in (one, other)]
    assert told[0] == told[1]


ENCODER = dict(layers=[6, 4], alpha=0.05, n_iter=3, batch_size=20, max_iter=3, n_iter_no_change=None, random_state=0)


@pytest.mark.parametrize(
    ("parameters", "n_checkpoints"),
    [
        (dict(), 8),  # after all batches but the last of each epoch, and after all epochs but the last
        (dict(atoms_alpha=0.5, learning_rate=0.3, n_iter_no_change=2, tol=0.1, max_iter=20), 8),
        (dict(layers=[Conv(3, 3), 4], image_shape=(4, 4), algorithm="threshold", positive=True), 8),
        (dict(learning_rate=1e39), 2),  # after the first batch, and the last
        (dict(random_state=np.random.RandomState(5)), 8),
    ],
    ids=["dense", "falling rate", "shared", "diverging", "RandomState"],
)
def test_encoders_killed_at_every_checkpoint(parameters, n_checkpoints, data, tmp_path, monkeypatch):
    encoder = DeepSparseEncoder(**ENCODER | parameters)
    whole = clone(encoder).fit(data[0])
    encoder.set_params(checkpoint=Checkpoint(tmp_path / "state.npz", every=0))
    resumed, deaths = fit_with_deaths(encoder, data[0], monkeypatch=monkeypatch)
    assert deaths >= n_checkpoints
    assert_same_dictionaries(resumed, whole)
    np.testing.assert_array_equal(resumed.transform(data[0]), whole.transform(data[0]))


def test_encoders_go_on_where_they_can(data, tmp_path, monkeypatch):
    """A finished fit is not made again, another fit is refused, and callbacks hear of the epochs before."""
    path, (X, _), monitor = tmp_path / "state.npz", data, LossMonitor()
    encoder = DeepSparseEncoder(**ENCODER, checkpoint=path)
    first = clone(encoder).fit(X)
    for name in ("multilayer_encoder.first_weights", "multilayer_learning.gradients"):
        monkeypatch.setattr(f"sparseshare.network.{name}", lambda *_: pytest.fail("learned"))
    again = clone(encoder).set_params(n_jobs=1, verbose=False).set_callbacks(monitor)
    assert_same_dictionaries(again.fit(X), first)
    assert monitor.loss_curve == first.loss_curve_
    with pytest.raises(ValueError, match="another fit: alpha was 0.05, is 0.06"):
        clone(encoder).set_params(alpha=0.06).fit(X)
    with pytest.raises(ValueError, match=r"another fit: layers was .*is \[6, 5\]"):
        clone(encoder).set_params(layers=[6, 5]).fit(X)
    with pytest.raises(ValueError, match="another fit: X was float32.*, is float64"):
        clone(encoder).fit(X.astype(float))
    with pytest.raises(ValueError, match="'checkpoint' parameter of DeepSparseEncoder must be a path"):
        clone(encoder).set_params(checkpoint=3).fit(X)


def test_fine_tuning_of_an_encoder(data, tmp_path, monkeypatch):
    encoder = DeepSparseEncoder(**ENCODER, checkpoint=tmp_path / "encoder.npz").fit(data[0])
    classifier = encoder.to_classifier(1, batch_size=20, max_iter=2, n_iter_no_change=None, random_state=0)
    assert classifier.checkpoint is None  # the file of the encoder is its own
    whole = clone(classifier).fit(*data)
    classifier.set_params(checkpoint=Checkpoint(tmp_path / "classifier.npz", every=0))
    resumed, deaths = fit_with_deaths(classifier, *data, monkeypatch=monkeypatch)
    assert deaths > 4
    assert_same_bits(resumed, whole)


def test_random_draws_without_a_seed(data, tmp_path, monkeypatch):
    """The held-out part and the first weights are drawn again as they were."""
    learner = DeepSparseClassifier([Dense(8)], batch_size=16, max_iter=3, early_stopping=True, n_iter_no_change=None)
    everybodys = np.random.mtrand._rand
    everybodys.seed(3)
    whole = clone(learner).fit(*data)
    everybodys.seed(3)
    learner.set_params(checkpoint=Checkpoint(tmp_path / "state.npz", every=0))
    resumed, _ = fit_with_deaths(learner, *data, monkeypatch=monkeypatch)
    assert_same_bits(resumed, whole)


def test_a_finished_fit_is_not_made_again(data, tmp_path, monkeypatch):
    learner = DeepSparseClassifier([Dense(8)], max_iter=2, random_state=0, checkpoint=tmp_path / "state.npz")
    first = clone(learner).fit(*data)
    monkeypatch.setattr("sparseshare.network.training.train_epoch", lambda *_: pytest.fail("trained"))
    assert_same_bits(clone(learner).fit(*data), first)
    with pytest.raises(ValueError, match="another fit: layers was .*n_units=8.*, is .*n_units=9"):
        clone(learner).set_params(layers=[Dense(9)]).fit(*data)
    X, y = data
    with pytest.raises(ValueError, match="another fit: y was"):
        clone(learner).fit(X, 1 - y)


def test_warm_starts_are_fits_of_their_own(data, tmp_path):
    learner = DeepSparseClassifier([Dense(8)], max_iter=2, random_state=0, warm_start=True).fit(*data)
    learner.set_params(checkpoint=tmp_path / "state.npz").fit(*data)
    with pytest.raises(ValueError, match="another fit: network_ was 4 arrays"):
        learner.fit(*data)


def test_a_stored_network_knows_no_checkpoint(data, tmp_path):
    learner = DeepSparseClassifier([Dense(8)], max_iter=1, checkpoint=Checkpoint(tmp_path / "state.npz")).fit(*data)
    save(learner, tmp_path / "network.npz")
    assert load(tmp_path / "network.npz").checkpoint is None
