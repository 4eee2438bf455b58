"""K-SVD recovers planted dictionaries and lowers the error with either atom step."""

import numpy as np
import pytest
from learning.learners import planted, recovered

from sparseshare.learning import KSVD

STEPS = ["approximate", "exact"]


@pytest.mark.parametrize("dict_update", STEPS)
def test_a_planted_dictionary_is_recovered(dict_update, rng):
    X, dictionary = planted(rng, n_samples=1000, n_components=24, n_features=16, n_nonzero=2)
    learner = KSVD(24, n_nonzero_coefs=2, dict_update=dict_update, max_iter=60, tol=0, random_state=0).fit(X)
    assert recovered(dictionary, learner.components_) >= 0.9
    assert learner.error_[-1] < 0.1 * learner.error_[0]


@pytest.mark.parametrize("dict_update", STEPS)
def test_reported_error_is_true(dict_update, rng, dtype):
    X, _ = planted(rng, n_samples=300, n_components=20, n_features=12, noise=0.1)
    codes = []
    learner = KSVD(
        20, n_nonzero_coefs=3, dict_update=dict_update, max_iter=6, tol=0, replace_atoms=False, random_state=0,
        callback=lambda state: codes.append((state["code"].copy(), state["dictionary"].copy(), state["current_cost"])),
    ).fit(X.astype(dtype))  # fmt: skip
    for code, dictionary, cost in codes:
        assert cost == pytest.approx(0.5 * ((X - code @ dictionary) ** 2).sum(), rel=1e-4)
        assert np.diff(code.indptr).max() <= 3
    np.testing.assert_allclose(np.linalg.norm(learner.components_, axis=1), 1, rtol=1e-5)
    assert learner.components_.dtype == dtype and learner.n_iter_ == 6


def test_atom_steps_do_not_increase_the_error(rng):
    """Both steps lower the error of the codes that the pursuit found, the exact one about as far or further."""
    X, _ = planted(rng, n_samples=300, n_components=20, n_features=12, noise=0.1)
    D0 = X[:20] / np.linalg.norm(X[:20], axis=1, keepdims=True)
    coded = KSVD(20, n_nonzero_coefs=3, max_iter=0, dict_init=D0).fit(X)
    before = 0.5 * ((X - coded.inverse_transform(coded.transform(X))) ** 2).sum()
    errors = [
        KSVD(20, n_nonzero_coefs=3, max_iter=1, dict_init=D0, dict_update=u, tol=0).fit(X).error_[0] for u in STEPS
    ]
    assert max(errors) < before
    assert errors[1] <= 1.02 * errors[0]


def test_error_target(rng):
    X, _ = planted(rng, n_samples=300, n_components=20, n_features=12)
    learner = KSVD(20, max_error=0.1, max_iter=5, tol=0, random_state=0).fit(X)
    rest = X - learner.inverse_transform(learner.transform(X))
    assert (rest**2).sum(axis=1).max() <= 0.1 + 1e-9
    both = KSVD(20, max_error=0.1, n_nonzero_coefs=2, max_iter=5, tol=0, random_state=0).fit(X)
    assert (both.transform(X) != 0).sum(axis=1).max() <= 2


def test_stops_by_tol_and_goes_on_warm(rng):
    X, _ = planted(rng, n_samples=300, n_components=20, n_features=12, noise=0.3)
    learner = KSVD(20, n_nonzero_coefs=3, tol=1e-2, max_iter=200, random_state=0, warm_start=True).fit(X)
    assert learner.converged_ and learner.n_iter_ < 200
    last = learner.error_[-1]
    assert learner.fit(X).error_[0] <= 1.05 * last


def test_unused_and_equal_atoms_leave(rng):
    X, _ = planted(rng, n_samples=300, n_components=20, n_features=12)
    D0 = np.tile(X[:1], (20, 1))
    learner = KSVD(dict_init=D0, n_nonzero_coefs=3, max_iter=10, tol=0).fit(X)
    cosines = np.abs(np.tril(learner.components_ @ learner.components_.T, -1))
    assert cosines.max() <= 0.99 and (learner.transform(X) != 0).any(axis=0).all()


@pytest.mark.parametrize(("name", "value"), [("dict_update", "bcd"), ("max_error", -1), ("n_nonzero_coefs", 0)])
def test_bad_parameters(name, value, rng):
    with pytest.raises(ValueError, match=name):
        KSVD(3, **{name: value}).fit(rng.standard_normal((10, 4)))
