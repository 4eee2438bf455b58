"""Learning from all signals: the objective falls, constraints hold, starts are honoured."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from sparseshare.coding.encode import sparse_encode
from sparseshare.learning import DictionaryLearning, dict_learning


@pytest.fixture
def X(rng):
    return rng.standard_normal((80, 3)) @ rng.standard_normal((3, 10)) + 0.3 * rng.standard_normal((80, 10))


def objective(X, codes, dictionary, alpha, l1_ratio=1.0):
    penalty = alpha * (l1_ratio * np.abs(codes).sum() + 0.5 * (1 - l1_ratio) * (codes**2).sum())
    return 0.5 * ((X - codes @ dictionary) ** 2).sum() + penalty


@pytest.mark.parametrize(
    "parameters",
    [
        dict(),
        dict(l1_ratio=0.6),
        dict(positive_code=True, fit_algorithm="lasso_lars"),
        dict(positive_dict=True),
        dict(atom_norm="sphere"),
        dict(zero_mean_dict=True),
        dict(atom_l1_budget=1.5),
        dict(fit_algorithm="fista"),
    ],
    ids=str,
)
def test_the_objective_never_increases(parameters, X):
    """Recomputed from the dictionary of every turn with codes of our own, not taken from the learner."""
    dictionaries = []
    for max_iter in range(8):
        learner = DictionaryLearning(
            14, alpha=0.2, max_iter=max_iter, tol=0, replace_atoms=False, random_state=0, **parameters
        ).fit(X)
        dictionaries.append(learner._constraint().project(learner.components_))
    options = dict(alpha=0.2, l1_ratio=parameters.get("l1_ratio", 1.0))
    values = [
        objective(X, sparse_encode(X, D, positive="positive_code" in parameters, tol=1e-10, **options), D, **options)
        for D in dictionaries
    ]
    assert (np.diff(values) <= 1e-5 * values[0]).all() and values[-1] < values[0]
    assert learner._constraint().contains(learner.components_)


def test_reported_errors_are_true(X):
    """error_ counts the codes before the last update of the dictionary: new codes can only be better."""
    learner = DictionaryLearning(14, alpha=0.2, max_iter=10, tol=0, random_state=0).fit(X)
    final = objective(X, learner.transform(X), learner.components_, 0.2)
    assert final <= learner.error_[-1] * (1 + 1e-6)
    assert final >= learner.error_[-1] * 0.97
    np.testing.assert_allclose(learner.loss_curve_, np.array(learner.error_) / 80)
    assert learner.n_iter_ == len(learner.error_) == 10 and learner.converged_ is False


def test_stops_by_tol(X):
    learner = DictionaryLearning(6, alpha=0.5, tol=1e-4, random_state=0).fit(X)
    assert learner.converged_ and 1 < learner.n_iter_ < 1000
    drops = -np.diff(learner.error_)
    assert drops[-1] <= 1e-4 * learner.error_[-1]


@pytest.mark.filterwarnings("ignore:Objective did not converge")
def test_as_good_as_scikit_learn(X):
    from sklearn.decomposition import DictionaryLearning as Theirs

    theirs = Theirs(14, alpha=0.2, max_iter=60, fit_algorithm="cd", random_state=0).fit(X)
    ours = DictionaryLearning(14, alpha=0.2, max_iter=60, tol=0, random_state=0).fit(X)
    theirs = objective(X, sparse_encode(X, theirs.components_, alpha=0.2), theirs.components_, 0.2)
    assert ours.error_[-1] <= 1.02 * theirs


def test_warns_when_it_was_far_from_done(X):
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        DictionaryLearning(14, alpha=0.2, max_iter=2, random_state=0).fit(X)


def test_starts_are_honoured(X, rng):
    D0 = rng.standard_normal((7, 10))
    learner = DictionaryLearning(7, alpha=0.2, max_iter=0, dict_init=D0).fit(X)
    np.testing.assert_array_equal(learner.components_, D0)
    assert learner.n_iter_ == 0 and learner.error_ == []
    D0 /= np.linalg.norm(D0, axis=1, keepdims=True)
    one, other = (
        DictionaryLearning(alpha=0.2, max_iter=2, tol=0, dict_init=D0, random_state=seed).fit(X) for seed in (0, 1)
    )
    np.testing.assert_array_equal(one.components_, other.components_)
    assert one.components_.shape == (7, 10)
    codes = sparse_encode(X, D0, alpha=0.2)
    for code_init in (codes, csr_array(codes)):
        warm = DictionaryLearning(alpha=0.2, max_iter=2, tol=0, dict_init=D0, code_init=code_init).fit(X)
        np.testing.assert_allclose(warm.components_, one.components_, atol=1e-5)
    with pytest.raises(ValueError, match=r"code_init must have the shape \(80, 7\)"):
        DictionaryLearning(alpha=0.2, dict_init=D0, code_init=codes[:5]).fit(X)


def test_warm_start_goes_on(X):
    whole = DictionaryLearning(8, alpha=0.2, max_iter=6, tol=0, replace_atoms=False, random_state=0).fit(X)
    parts = DictionaryLearning(
        8, alpha=0.2, max_iter=3, tol=0, replace_atoms=False, random_state=0, warm_start=True
    ).fit(X)
    parts.fit(X)
    np.testing.assert_allclose(parts.components_, whole.components_, atol=1e-4)
    assert parts.n_iter_ == 3
    with pytest.raises(ValueError, match="warm_start"):
        parts.set_params(n_components=9).fit(X)


@pytest.mark.parametrize("replace", [True, False])
def test_equal_and_unused_atoms_leave(replace, X):
    D0 = np.tile(X[:1] / np.linalg.norm(X[:1]), (8, 1))
    learner = DictionaryLearning(alpha=0.2, max_iter=1, tol=0, dict_init=D0, replace_atoms=replace).fit(X)
    cosines = np.abs(np.tril(learner.components_ @ learner.components_.T, -1))
    assert (cosines.max() <= 0.99) == replace


def test_more_atoms_than_signals_ends(rng):
    X = rng.standard_normal((5, 4))
    learner = DictionaryLearning(12, alpha=0.1, random_state=0).fit(X)
    assert learner.converged_ and np.isfinite(learner.components_).all()


def test_mod_learns(rng):
    X = np.where(rng.random((200, 12)) < 0.2, rng.standard_normal((200, 12)), 0) @ rng.standard_normal((12, 8))
    learner = DictionaryLearning(
        12, fit_algorithm="omp", n_nonzero_coefs=2, dict_update="mod", max_iter=20, tol=0, random_state=0
    ).fit(X)
    np.testing.assert_allclose(np.linalg.norm(learner.components_, axis=1), 1, rtol=1e-6)
    assert min(learner.error_) < 0.6 * learner.error_[0]
    with pytest.raises(ValueError, match="mod"):
        learner.set_params(positive_dict=True).fit(X)


def test_bounded_error(X):
    learner = DictionaryLearning(14, fit_algorithm="omp", max_error=0.5, max_iter=5, tol=0, random_state=0).fit(X)
    rest = X - learner.inverse_transform(learner.transform(X))
    assert (rest**2).sum(axis=1).max() <= 0.5 + 1e-9


def test_old_style_callback_and_verbose(X, capsys):
    seen = []
    DictionaryLearning(
        5, alpha=0.2, max_iter=11, tol=0, callback=lambda state: seen.append(state["ii"]), verbose=True, random_state=0
    ).fit(X)
    assert seen == [0, 5, 10]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and lines[0].startswith("[DictionaryLearning] epoch 1/11: loss ")


def test_function(X):
    code, dictionary, errors, n_iter = dict_learning(
        X, 6, alpha=0.3, max_iter=5, tol=0, random_state=0, return_n_iter=True
    )
    assert n_iter == len(errors) == 5
    np.testing.assert_allclose(code, sparse_encode(X, dictionary, alpha=0.3), atol=1e-8)
    with pytest.raises(ValueError, match="Positive constraint not supported for 'lars' coding method."):
        dict_learning(X, 6, alpha=0.3, positive_code=True)
