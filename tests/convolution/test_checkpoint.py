"""A convolutional fit that was killed and started again ends with the bits of one that was not."""

import numpy as np
import pytest
from sklearn.base import clone

from sparseshare.checkpoints import Checkpoint
from sparseshare.convolution import ConvDictionaryLearning

FITTED = ("components_", "loss_curve_", "n_iter_", "n_steps_", "converged_", "alpha_")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def signals(rng):
    maps = rng.uniform(1, 2, (9, 2, 57)) * (rng.random((9, 2, 57)) < 0.05)
    atoms = rng.standard_normal((2, 4))
    return sum(np.stack([np.convolve(one, atom) for one in maps[:, k]]) for k, atom in enumerate(atoms))


def fit_with_deaths(learner, X, monkeypatch, **more):
    """Fit clones, each of which dies after a checkpoint, until one comes to an end."""
    save = Checkpoint.save

    def save_and_die(self, state):
        save(self, state)
        raise Killed

    for deaths in range(1000):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", save_and_die)
            try:
                return clone(learner).fit(X, **more), deaths
            except Killed:
                continue
    raise AssertionError("never came to an end")


def assert_same_bits(one, other):
    for name in FITTED:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name, strict=True)
    for name, value in one._memory["statistics"].items():
        np.testing.assert_array_equal(value, other._memory["statistics"][name], err_msg=name)


@pytest.mark.parametrize(
    ("parameters", "dtype"),
    [
        (dict(), np.float32),
        (dict(), np.float64),
        (dict(solver="fista"), np.float64),
        (dict(boundary="valid", alpha_relative=True, alpha=0.05), np.float64),
        (dict(method="online"), np.float32),
        (dict(method="online", forgetting=0.9, shuffle=False), np.float64),
        (dict(method="online", batch_size=100), np.float64),
        (dict(n_components=6, alpha=2.0, tol=0), np.float64),  # some atoms die
    ],
    ids=str,
)
def test_killed_at_every_checkpoint(parameters, dtype, signals, tmp_path, monkeypatch):
    defaults = dict(n_components=3, atom_shape=4, alpha=0.2, boundary="full", max_iter=4, batch_size=4, random_state=0)
    learner = ConvDictionaryLearning(**defaults | parameters)
    X = signals.astype(dtype)
    whole = clone(learner).fit(X)
    resumed, deaths = fit_with_deaths(
        clone(learner).set_params(checkpoint=Checkpoint(tmp_path / "state.npz", every=0)), X, monkeypatch
    )
    assert deaths >= 3
    assert_same_bits(resumed, whole)


def test_lists_of_images_with_masks(rng, tmp_path, monkeypatch):
    images = [rng.standard_normal((12 + i, 11, 2)) for i in range(4)]
    mask = [rng.random(image.shape) < 0.1 for image in images]
    learner = ConvDictionaryLearning(2, (3, 3), alpha=0.3, max_iter=3, random_state=0)
    whole = clone(learner).fit(images, mask=mask)
    learner.set_params(checkpoint=Checkpoint(tmp_path / "state.npz", every=0))
    assert_same_bits(fit_with_deaths(learner, images, monkeypatch, mask=mask)[0], whole)
    with pytest.raises(ValueError, match="another fit: X was 4 arrays of shapes with digest .*, mask was .*, is None"):
        clone(learner).fit(images)
    images[2] = images[2].copy()
    images[2][0, 0, 0] += 1
    with pytest.raises(ValueError, match="another fit: X was 4 arrays of shapes with digest"):
        clone(learner).fit(images, mask=mask)


def test_a_finished_fit_is_not_made_again(signals, tmp_path, monkeypatch):
    learner = ConvDictionaryLearning(2, 4, alpha=0.2, boundary="full", max_iter=3, random_state=0, rank1=False)
    learner.set_params(checkpoint=tmp_path / "state.npz")
    first = clone(learner).fit(signals)
    monkeypatch.setattr("sparseshare.convolution.alternation.Alternation.step", lambda *_: pytest.fail("learned"))
    assert_same_bits(clone(learner).fit(signals), first)
    with pytest.raises(ValueError, match="another fit: alpha was 0.2, is 0.3"):
        clone(learner).set_params(alpha=0.3).fit(signals)
    with pytest.raises(ValueError, match="'checkpoint' parameter of ConvDictionaryLearning must be a path"):
        clone(learner).set_params(checkpoint=7).fit(signals)
