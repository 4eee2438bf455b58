"""Learning from mini-batches: statistics, stopping, resuming, reports."""

import numpy as np
import pytest
from learning.learners import learners, name_of
from scipy.sparse import csr_array
from sklearn.decomposition import MiniBatchDictionaryLearning as Theirs

from sparseshare.callbacks import EarlyStopping, LossMonitor
from sparseshare.coding.encode import sparse_encode
from sparseshare.learning import MiniBatchDictionaryLearning, SparseCoder, dict_learning_online
from sparseshare.learning.stream import SmoothedLoss, forgetting_factor


@pytest.fixture
def X(rng):
    return rng.standard_normal((200, 3)) @ rng.standard_normal((3, 10)) + 0.3 * rng.standard_normal((200, 10))


def mean_objective(X, dictionary, alpha):
    codes = sparse_encode(X, dictionary, alpha=alpha)
    return (0.5 * ((X - codes @ dictionary) ** 2).sum() + alpha * np.abs(codes).sum()) / len(X)


def test_statistics_are_those_of_scikit_learn(X):
    """Full batches, one after the other, from the same dictionary: the same A and B."""
    D0 = X[:8] / np.linalg.norm(X[:8], axis=1, keepdims=True)
    parameters = dict(alpha=0.3, batch_size=50, shuffle=False, dict_init=D0, tol=0, max_no_improvement=None, max_iter=1)
    ours = MiniBatchDictionaryLearning(8, transform_tol=1e-10, replace_atoms=False, **parameters).fit(X)
    theirs = Theirs(8, **parameters).fit(X)
    np.testing.assert_allclose(ours.components_, theirs.components_, atol=1e-5)
    np.testing.assert_allclose(ours._A, theirs._A, atol=1e-4)
    np.testing.assert_allclose(ours._B, theirs._B, atol=1e-4)


def test_forgetting_factor():
    assert forgetting_factor(0, 10) == pytest.approx(1 / 11)
    assert forgetting_factor(3, 10) == pytest.approx(31 / 41)
    factors = [forgetting_factor(step, 10) for step in range(200)]
    assert (np.diff(factors) > 0).all() and factors[-1] < 1


def test_learns_as_well_as_from_all_signals(X):
    learner = MiniBatchDictionaryLearning(
        12, alpha=0.2, batch_size=20, max_iter=20, tol=0, max_no_improvement=None, random_state=0
    ).fit(X)
    theirs = Theirs(12, alpha=0.2, batch_size=20, max_iter=20, tol=0, max_no_improvement=None, random_state=0).fit(X)
    assert mean_objective(X, learner.components_, 0.2) <= 1.03 * mean_objective(X, theirs.components_, 0.2)
    assert learner.loss_curve_[-1] < learner.loss_curve_[0]
    assert learner.n_iter_ == 20 and isinstance(learner.n_iter_, int) and learner.n_steps_ == 200
    assert not learner.converged_


def test_partial_fit_is_fit_without_shuffling(X):
    parameters = dict(alpha=0.3, dict_init=X[:8], batch_size=25)
    whole = MiniBatchDictionaryLearning(8, shuffle=False, max_iter=2, tol=0, max_no_improvement=None, **parameters).fit(
        X
    )
    parts = MiniBatchDictionaryLearning(8, **parameters)
    for _ in range(2):
        for start in range(0, 200, 25):
            assert parts.partial_fit(X[start : start + 25]) is parts
    np.testing.assert_array_equal(parts.components_, whole.components_)
    assert parts.n_steps_ == whole.n_steps_ == len(parts.loss_curve_) == 16
    with pytest.raises(ValueError, match="expecting 10 features"):
        parts.partial_fit(X[:, :4])


def test_warm_start_and_partial_fit_go_on(X):
    parameters = dict(alpha=0.3, dict_init=X[:8], batch_size=25, shuffle=False, tol=0, max_no_improvement=None)
    whole = MiniBatchDictionaryLearning(8, max_iter=4, **parameters).fit(X)
    parts = MiniBatchDictionaryLearning(8, max_iter=2, warm_start=True, **parameters).fit(X).fit(X)
    np.testing.assert_array_equal(parts.components_, whole.components_)
    assert parts.n_steps_ == 32 and parts.n_iter_ == 2 and len(parts.loss_curve_) == 2
    cold = MiniBatchDictionaryLearning(8, max_iter=2, **parameters).fit(X).fit(X)
    assert cold.n_steps_ == 16
    cold.partial_fit(X[:25])
    assert cold.n_steps_ == 17


@pytest.mark.parametrize("parameters", [dict(tol=0.05, max_no_improvement=None), dict(tol=0, max_no_improvement=3)])
def test_stops_early(parameters, X):
    learner = MiniBatchDictionaryLearning(8, alpha=0.3, batch_size=50, random_state=0, **parameters).fit(X)
    assert learner.converged_ and learner.n_iter_ < 1000


def test_smoothed_loss():
    stopping = SmoothedLoss(tol=0.1, max_no_improvement=2, n_samples=10)
    assert not stopping.has_converged(1, 10, 5.0, 0.0)  # the first epoch decides nothing
    assert not stopping.has_converged(2, 10, 4.0, 1.0)
    assert not stopping.has_converged(3, 10, 5.0, 1.0)
    assert stopping.has_converged(4, 10, 6.0, 1.0) and stopping.converged
    assert SmoothedLoss(0.1, None, 10).has_converged(2, 10, 1.0, 0.05)
    assert not SmoothedLoss(0, None, 10).has_converged(2, 10, 1.0, 0.0)


def test_no_epoch_gives_back_the_start(X, rng):
    D0 = 3 * rng.standard_normal((7, 10))
    learner = MiniBatchDictionaryLearning(7, max_iter=0, dict_init=D0).fit(X)
    np.testing.assert_array_equal(learner.components_, D0)
    assert learner.n_iter_ == learner.n_steps_ == 0
    assert np.linalg.norm(learner.partial_fit(X).components_, axis=1).max() <= 1 + 1e-9


@pytest.mark.parametrize(
    "parameters",
    [
        dict(positive_dict=True),
        dict(zero_mean_dict=True, atom_norm="sphere"),
        dict(atom_l1_budget=1.5),
        dict(fit_algorithm="omp", n_nonzero_coefs=2, dict_update="mod"),
    ],
    ids=str,
)
def test_constraints_hold(parameters, X, dtype):
    learner = MiniBatchDictionaryLearning(12, alpha=0.3, batch_size=20, max_iter=3, random_state=0, **parameters)
    learner.fit(X.astype(dtype))
    assert learner._constraint().contains(learner.components_, 1e-5) and learner.components_.dtype == dtype


def test_dead_atoms_leave(X):
    D0 = np.vstack([X[:4], np.zeros((4, 10))])  # no signal ever uses an atom of zeros
    parameters = dict(
        alpha=0.3, dict_init=D0, batch_size=40, max_iter=10, tol=0, max_no_improvement=None, random_state=0
    )
    kept = MiniBatchDictionaryLearning(8, replace_atoms=False, **parameters).fit(X)
    replaced = MiniBatchDictionaryLearning(8, **parameters).fit(X)
    used = [(learner.transform(X) != 0).any(axis=0).sum() for learner in (kept, replaced)]
    assert used == [4, 8]
    assert mean_objective(X, replaced.components_, 0.3) < mean_objective(X, kept.components_, 0.3)


def test_the_same_random_state_gives_the_same_dictionary(X):
    fits = [MiniBatchDictionaryLearning(8, alpha=0.3, max_iter=2, random_state=seed).fit(X) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(fits[0].components_, fits[1].components_)
    assert not np.array_equal(fits[0].components_, fits[2].components_)


def test_batches_of_mapped_and_sparse_signals(X, tmp_path):
    X = np.where(np.abs(X) > 1, X, 0)
    parameters = dict(alpha=0.3, batch_size=30, max_iter=2, random_state=0, tol=0, max_no_improvement=None)
    expected = MiniBatchDictionaryLearning(8, **parameters).fit(X)
    np.save(tmp_path / "X.npy", X)
    for signals in (np.load(tmp_path / "X.npy", mmap_mode="r"), csr_array(X), np.asfortranarray(X)):
        found = MiniBatchDictionaryLearning(8, **parameters).fit(signals)
        np.testing.assert_allclose(found.components_, expected.components_, atol=1e-10)


def test_verbose_prints_a_line_an_epoch(X, capsys):
    MiniBatchDictionaryLearning(5, alpha=0.3, max_iter=3, tol=0, max_no_improvement=None, verbose=1).fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[2].startswith("[MiniBatchDictionaryLearning] epoch 3/3: loss ")


def test_old_style_callback(X):
    steps = []
    MiniBatchDictionaryLearning(
        5, alpha=0.3, batch_size=50, max_iter=2, tol=0, max_no_improvement=None, callback=lambda s: steps.append(s["i"])
    ).fit(X)
    assert steps == list(range(8))


@pytest.mark.filterwarnings("ignore:.*raise max_iter:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("learner", learners(), ids=name_of)
def test_callbacks_of_scikit_learn(learner, X):
    pytest.importorskip("sklearn.callback")
    monitor = LossMonitor()
    learner.set_params(tol=0).set_callbacks(monitor).fit(X)
    assert monitor.loss_curve == pytest.approx(learner.loss_curve_)
    learner.set_params(max_iter=100).set_callbacks(EarlyStopping(patience=1, tol=0.5)).fit(X)
    assert learner.n_iter_ < 5


def test_a_coder_learns_as_the_learner_does(X):
    parameters = dict(alpha=0.3, max_iter=3, batch_size=40, random_state=0)
    coder = SparseCoder(n_components=8, **parameters).fit(X)
    learner = MiniBatchDictionaryLearning(8, **parameters).fit(X)
    np.testing.assert_array_equal(coder.components_, learner.components_)
    np.testing.assert_array_equal(coder.transform(X), learner.transform(X))


def test_function(X):
    code, dictionary = dict_learning_online(X, 6, alpha=0.3, batch_size=40, max_iter=3, random_state=0)
    np.testing.assert_allclose(code, sparse_encode(X, dictionary, alpha=0.3), atol=1e-8)
    alone = dict_learning_online(X, 6, alpha=0.3, batch_size=40, max_iter=3, random_state=0, return_code=False)
    np.testing.assert_array_equal(alone, dictionary)
