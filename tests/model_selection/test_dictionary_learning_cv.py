"""DictionaryLearningCV: every entry predicted once, by a dictionary and a code that have not seen it."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sparseshare.checkpoints import Checkpoint
from sparseshare.datasets import make_sparse_signals
from sparseshare.learning import KSVD, DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder
from sparseshare.model_selection import DictionaryLearningCV
from sparseshare.model_selection.heldout import entry_folds, heldout_errors

ALPHAS = [0.4, 0.1, 0.01]


@pytest.fixture
def X():
    return make_sparse_signals(90, n_components=12, n_features=10, snr_db=10, random_state=0)[0]


@pytest.fixture
def learner():
    return MiniBatchDictionaryLearning(8, batch_size=16, max_iter=3, random_state=0)


@pytest.fixture
def fitted(X, learner):
    return DictionaryLearningCV(alphas=ALPHAS, learner=learner, random_state=0).fit(X)


def test_errors_are_those_of_dictionaries_of_the_other_signals(X, learner, fitted):
    random_state = np.random.RandomState(0)
    parts = random_state.permutation(90) % 3
    folds = entry_folds(90, 10, 5, random_state)
    for part in range(3):
        for a, alpha in enumerate(ALPHAS):
            other = clone(learner).set_params(alpha=alpha).fit(X[parts != part])
            errors = heldout_errors(X[parts == part], other.components_, np.array([alpha]), folds[parts == part])
            assert fitted.mse_path_[a, part] == pytest.approx(errors.signals.mean())
    np.testing.assert_allclose(fitted.mean_mse_, fitted.mse_path_.mean(axis=1))  # parts of 30 signals each
    assert fitted.best_index_ == fitted.mean_mse_.argmin() == 1
    assert fitted.seen_mse_.argmin() == 2  # the trap
    assert (np.diff(fitted.n_nonzero_path_) > 0).all()


def test_signals_of_a_file_or_in_blocks(X, learner, fitted, tmp_path):
    np.save(tmp_path / "X.npy", X)
    for signals in (np.load(tmp_path / "X.npy", mmap_mode="r"), iter([X[:50], X[50:]])):
        other = DictionaryLearningCV(alphas=ALPHAS, learner=learner, random_state=0).fit(signals)
        np.testing.assert_array_equal(other.mse_path_, fitted.mse_path_)


def test_the_dictionary_is_learned_from_all_signals_at_the_penalty(X, learner, fitted):
    expected = clone(learner).set_params(alpha=fitted.alpha_).fit(X)
    np.testing.assert_array_equal(fitted.components_, expected.components_)
    np.testing.assert_array_equal(fitted.transform(X), expected.transform(X))
    assert fitted.score(X) == expected.score(X)
    assert fitted.get_feature_names_out()[0] == "dictionarylearningcv0"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(X), fitted.transform(X))


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("seed", [0, None])
def test_killed_at_every_checkpoint(seed, X, tmp_path, monkeypatch):
    learner = MiniBatchDictionaryLearning(6, batch_size=32, max_iter=2)
    model = DictionaryLearningCV(alphas=[0.3, 0.05], learner=learner, cv=2, random_state=seed)
    everybodys, save, deaths, resumed = np.random.mtrand._rand, Checkpoint.save, 0, None
    everybodys.seed(3)
    whole = clone(model).fit(X)

    def save_and_die(self, state):
        save(self, state)
        raise Killed

    everybodys.seed(3)
    model.set_params(checkpoint=Checkpoint(tmp_path / "choice.npz", every=0))
    while resumed is None:
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", save_and_die)
            try:
                resumed = clone(model).fit(X)
            except Killed:
                deaths += 1
            assert len(list(tmp_path.iterdir())) <= 3  # a fit's errors are known before its own file goes
    assert deaths >= 4 * 4 + 2 and resumed.learner_.checkpoint is None
    for name in ("mse_path_", "seen_mse_", "standard_error_", "n_nonzero_path_", "components_"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name), err_msg=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["choice.npz", "choice.npz.fit4"]
    monkeypatch.setattr("sparseshare.learning.stream.encode", lambda *_, **__: pytest.fail("coded"))
    np.testing.assert_array_equal(clone(model).fit(X).components_, whole.components_)
    with pytest.raises(ValueError, match=r"another fit: alphas was \[0.3, 0.05\], is \[0.3\]"):
        clone(model).set_params(alphas=[0.3]).fit(X)


@pytest.mark.slow
def test_the_penalty_beats_both_ends_on_new_signals():
    X, _, _ = make_sparse_signals(1500, n_components=20, n_features=16, snr_db=10, random_state=0)
    train, test = X[:1000], X[1000:]
    learner = MiniBatchDictionaryLearning(batch_size=64, max_iter=10)
    model = DictionaryLearningCV(20, learner=learner, random_state=0).fit(train)
    folds = entry_folds(*test.shape, 5, np.random.RandomState(1))

    def error(alpha):
        D = clone(model.learner_).set_params(alpha=alpha).fit(train).components_
        return heldout_errors(test, D, np.array([alpha]), folds).folds.mean()

    assert error(model.alpha_) < min(error(model.alphas_[0]), error(model.alphas_[-1]))


def test_the_learner_says_how_codes_are_made(X):
    learner = DictionaryLearning(
        max_iter=2, tol=0, fit_algorithm="cd", positive_code=True, sparse_output=True, n_jobs=1
    )
    model = DictionaryLearningCV(6, [0.1], learner=learner, cv=2, random_state=0).fit(csr_array(X))
    codes = model.transform(X)
    assert isinstance(codes, csr_array) and codes.shape == (90, 6) and (codes.data > 0).all()
    assert (model.sparse_output, model.split_sign, model.n_jobs, model.device) == (True, False, 1, "auto")
    assert learner.n_components is None and learner.random_state is None  # its own parameters are left alone


def test_other_learners(X):
    for learner in (SparseCoder(max_iter=2), KSVD(fit_algorithm="lasso_lars", max_iter=2, tol=0)):
        model = DictionaryLearningCV(6, [0.3, 0.1], learner=learner, cv=2, random_state=0).fit(X)
        assert type(model.learner_) is type(learner) and model.components_.shape == (6, 10)


def test_without_a_learner_mini_batches_learn(X):
    model = DictionaryLearningCV(4, n_alphas=2, cv=2, random_state=0).fit(X)
    assert isinstance(model.learner_, MiniBatchDictionaryLearning)
    assert model.alphas_[0] == pytest.approx(0.5 * np.sqrt((X**2).sum(axis=1).mean()))
    assert model.alphas_[1] == pytest.approx(0.02 * model.alphas_[0])
    again = DictionaryLearningCV(4, n_alphas=2, cv=2, random_state=0).fit(X)
    np.testing.assert_array_equal(again.components_, model.components_)


def test_precision_is_kept(X, learner, dtype):
    model = DictionaryLearningCV(alphas=[0.1], learner=learner, random_state=0).fit(X.astype(dtype))
    assert model.components_.dtype == model.transform(X.astype(dtype)).dtype == dtype


def test_verbose_reports_every_fit(X, learner, capsys):
    DictionaryLearningCV(alphas=[0.4, 0.1], learner=learner, cv=2, verbose=True).fit(X)
    told = capsys.readouterr().out
    assert told.count("[DictionaryLearningCV] fold 2/2, penalty") == 2 and told.count("<-") == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (dict(n_components=0), "'n_components' parameter of DictionaryLearningCV"),
        (dict(alphas=[-0.1]), "'alphas' parameter"),
        (dict(n_alphas=0), "'n_alphas' parameter"),
        (dict(alpha_min_ratio=2), "'alpha_min_ratio' parameter"),
        (dict(cv=1), "'cv' parameter"),
        (dict(rule=None), "'rule' parameter"),
        (dict(verbose="much"), "'verbose' parameter"),
        (dict(learner=KSVD()), "'learner' parameter .* must code by a lasso.* KSVD codes with algorithm='omp'"),
        (dict(learner=MiniBatchDictionaryLearning(transform_algorithm="threshold")), "algorithm='threshold'"),
        (dict(learner=MiniBatchDictionaryLearning(max_error=0.1)), "and max_error"),
        (dict(learner=MiniBatchDictionaryLearning(transform_alpha=0.1)), "leave transform_alpha=None and l1_ratio=1"),
        (dict(learner=MiniBatchDictionaryLearning(l1_ratio=0.5)), "leave transform_alpha=None and l1_ratio=1"),
        (dict(learner=MiniBatchDictionaryLearning(checkpoint="atoms.npz")), "must leave checkpoint=None"),
        (dict(checkpoint=1), "'checkpoint' parameter of DictionaryLearningCV must be a path"),
        (dict(learner=SparseCoder(np.eye(10), alpha=0.1)), "has a dictionary already: use SparseCoderCV"),
    ],
)
def test_wrong_parameters_are_named(X, parameters, message):
    with pytest.raises(ValueError, match=message):
        DictionaryLearningCV(**parameters).fit(X)


def test_wrong_data_are_refused(X, learner):
    with pytest.raises(TypeError, match="'learner' parameter .* must be None or a learner of this package"):
        DictionaryLearningCV(learner=object()).fit(X)
    with pytest.raises(ValueError, match=r"2 sample\(s\), while cv=3 parts"):
        DictionaryLearningCV(learner=learner).fit(X[:2])
    with pytest.raises(NotFittedError):
        DictionaryLearningCV(learner=learner).transform(X)
