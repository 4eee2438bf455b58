"""Fits on a GPU that were killed go on to the same bits; their checkpoints hold NumPy arrays."""

import numpy as np
import pytest
from sklearn.base import clone

from sparseshare import KSVD, DictionaryLearning, MiniBatchDictionaryLearning
from sparseshare.checkpoints import Checkpoint
from sparseshare.convolution import ConvDictionaryLearning
from sparseshare.network import DeepSparseClassifier, DeepSparseEncoder, Dense

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def X():
    return np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)


def fit_with_deaths(learner, *data, monkeypatch):
    save = Checkpoint.save

    def save_and_die(self, state):
        save(self, state)
        raise Killed

    for deaths in range(200):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", save_and_die)
            try:
                return clone(learner).fit(*data), deaths
            except Killed:
                continue
    raise AssertionError("never came to an end")


@pytest.mark.parametrize(
    "learner",
    [
        MiniBatchDictionaryLearning(6, alpha=0.3, max_iter=2, batch_size=16, tol=0, random_state=0),
        DictionaryLearning(6, alpha=0.3, max_iter=3, tol=0, random_state=0),
        KSVD(6, n_nonzero_coefs=2, max_iter=2, tol=0, random_state=0),
        ConvDictionaryLearning(2, 3, alpha=0.3, max_iter=2, tol=0, transform_tol=0.01, random_state=0),
        ConvDictionaryLearning(
            2, 3, alpha=0.3, max_iter=2, tol=0, transform_tol=0.01, method="online", batch_size=2, random_state=0
        ),
    ],
    ids=lambda learner: f"{type(learner).__name__}-{getattr(learner, 'method', '')}",
)
def test_dictionaries(gpu, X, learner, tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    X = X[:4] if isinstance(learner, ConvDictionaryLearning) else X  # slow on the CPU
    for signals in (X, gpu.asarray(X)):
        learner = clone(learner).set_params(checkpoint=None, device="cuda")
        whole = clone(learner).fit(signals)
        learner.set_params(checkpoint=Checkpoint(path, every=0))
        resumed, deaths = fit_with_deaths(learner, signals, monkeypatch=monkeypatch)
        assert deaths >= 2 and type(resumed.components_) is type(signals)
        np.testing.assert_array_equal(gpu.get(resumed.components_), gpu.get(whole.components_))
        assert resumed.loss_curve_ == whole.loss_curve_ and resumed.n_iter_ == whole.n_iter_
        again = clone(learner).fit(signals)
        np.testing.assert_array_equal(gpu.get(again.components_), gpu.get(whole.components_))
        path.unlink()


def test_networks(gpu, X, tmp_path, monkeypatch):
    y = (X[:, 0] > 0).astype(int)
    learner = DeepSparseClassifier(
        [Dense(6)], batch_size=16, max_iter=2, n_iter_no_change=None, random_state=0, device="cuda"
    )
    whole = clone(learner).fit(X, y)
    learner.set_params(checkpoint=Checkpoint(tmp_path / "state.npz", every=0))
    resumed, deaths = fit_with_deaths(learner, X, y, monkeypatch=monkeypatch)
    assert deaths > 4 and resumed.loss_curve_ == whole.loss_curve_
    for first, second in zip(resumed.network_.parameters, whole.network_.parameters, strict=True):
        np.testing.assert_array_equal(first.values, second.values)


def test_dictionaries_of_several_layers(gpu, X, tmp_path, monkeypatch):
    """What a GPU adds up within an epoch is in the checkpoint, too."""
    options = dict(alpha=0.05, n_iter=2, batch_size=24, max_iter=2, n_iter_no_change=None, random_state=0)
    encoder = DeepSparseEncoder([4, 3], **options, device="cuda")
    whole = clone(encoder).fit(X)
    encoder.set_params(checkpoint=Checkpoint(tmp_path / "state.npz", every=0))
    for device, samples in (("cuda", X), ("auto", gpu.asarray(X))):
        resumed, deaths = fit_with_deaths(encoder.set_params(device=device), samples, monkeypatch=monkeypatch)
        assert deaths == (6 if device == "cuda" else 0)  # the same fit, which has come to its end
        assert resumed.loss_curve_ == whole.loss_curve_
        for atoms, other in zip(resumed.dictionaries_, whole.dictionaries_, strict=True):
            assert type(atoms) is type(samples)
            np.testing.assert_array_equal(gpu.get(atoms), other)
        np.testing.assert_array_equal(resumed.densities_, whole.densities_)
