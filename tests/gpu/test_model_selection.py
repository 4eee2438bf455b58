"""Choices made on a GPU are those made on the CPU, for arrays of the host and of the device."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.model_selection import GridSearchCV

from sparseshare import MiniBatchDictionaryLearning, SparseCoder
from sparseshare.datasets import make_sparse_signals
from sparseshare.model_selection import (
    DictionaryLearningCV,
    SparseCoderCV,
    heldout_entries_scorer,
    reconstruction_density_scorer,
    select_n_nonzero_coefs,
)
from sparseshare.model_selection import heldout as heldout_module
from sparseshare.model_selection.choice import largest_penalty
from sparseshare.model_selection.heldout import entry_folds, heldout_errors

TOLD = ("alphas_", "mse_path_", "mean_mse_", "standard_error_", "seen_mse_", "n_nonzero_path_")


@pytest.fixture
def signals():
    X, dictionary, _ = make_sparse_signals(24, n_components=12, n_features=8, snr_db=15, random_state=0)
    return X, dictionary


def test_largest_penalty(gpu, signals):
    X, dictionary = signals
    for positive in (False, True):
        expected = largest_penalty(X, dictionary, positive)
        for source in (X, gpu.asarray(X), csr_array(X)):
            np.testing.assert_allclose(largest_penalty(source, dictionary, positive, "cuda:0"), expected, rtol=1e-12)


def test_heldout_errors(gpu, signals, monkeypatch):
    monkeypatch.setattr(heldout_module, "_BLOCK_ON_GPU", 16)
    X, dictionary = (array.astype(np.float32) for array in signals)
    folds = entry_folds(*X.shape, 2, np.random.RandomState(0))
    alphas = np.array([0.5, 0.1])
    expected = heldout_errors(X, dictionary, alphas, folds)
    for source in (X, gpu.asarray(X)):
        found = heldout_errors(source, dictionary, alphas, folds, device="cuda:0")
        for one, other in zip(found, expected, strict=True):
            assert isinstance(one, np.ndarray)
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-6)


def test_a_coder_chooses_its_penalty(gpu, signals):
    X, dictionary = signals
    parameters = dict(alphas=[0.4, 0.1, 0.02], cv=2, random_state=0, max_samples=12)
    expected = SparseCoderCV(dictionary, **parameters).fit(X)
    from_host = SparseCoderCV(dictionary, **parameters, device="cuda").fit(X)
    there = SparseCoderCV(gpu.asarray(dictionary), **parameters).fit(gpu.asarray(X))
    for found in (from_host, there):
        assert found.alpha_ == expected.alpha_
        for name in TOLD:
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3)
    assert isinstance(from_host.components_, np.ndarray) and isinstance(there.components_, gpu.xp.ndarray)
    codes = there.transform(gpu.asarray(X))
    np.testing.assert_allclose(gpu.get(codes), expected.transform(X), atol=1e-5)
    assert isinstance(pickle.loads(pickle.dumps(there)).components_, np.ndarray)
    moved = expected.to_device("cuda")
    assert isinstance(moved.components_, gpu.xp.ndarray) and isinstance(moved.mse_path_, np.ndarray)


def test_a_learner_chooses_its_penalty(gpu, signals):
    X, _ = signals
    learner = MiniBatchDictionaryLearning(batch_size=8, max_iter=1, transform_tol=1e-10)
    parameters = dict(alphas=[0.4, 0.1], cv=2, random_state=0)
    expected = DictionaryLearningCV(6, learner=learner, **parameters).fit(X)
    there = DictionaryLearningCV(6, learner=learner, **parameters).fit(gpu.asarray(X))
    assert there.alpha_ == expected.alpha_ and isinstance(there.components_, gpu.xp.ndarray)
    np.testing.assert_allclose(there.mse_path_, expected.mse_path_, rtol=1e-3)
    np.testing.assert_allclose(gpu.get(there.components_), expected.components_, atol=1e-5)


def test_scorers(gpu, signals):
    X, dictionary = signals
    here = SparseCoder(dictionary, transform_algorithm="lasso_lars", transform_alpha=0.1).fit(X)
    there = SparseCoder(gpu.asarray(dictionary), transform_algorithm="lasso_lars", transform_alpha=0.1, device="cuda")
    expected = reconstruction_density_scorer(here, X)
    for source in (X, gpu.asarray(X)):
        found = reconstruction_density_scorer(there.fit(source), source)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert isinstance(value, float)
            np.testing.assert_allclose(value, expected[name], rtol=1e-4)


def test_a_grid_search_over_arrays_of_the_host(gpu, signals):
    X, dictionary = signals
    coder = SparseCoder(dictionary, transform_algorithm="lasso_lars", device="cuda")
    search = GridSearchCV(coder, {"transform_alpha": [0.5, 0.05]}, scoring=heldout_entries_scorer, cv=2).fit(X)
    expected = GridSearchCV(
        SparseCoder(dictionary, transform_algorithm="lasso_lars"), {"transform_alpha": [0.5, 0.05]},
        scoring=heldout_entries_scorer, cv=2,
    ).fit(X)  # fmt: skip
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"], rtol=1e-4
    )


@pytest.mark.parametrize("algorithm", ["omp", "ols"])
def test_numbers_of_non_zeros(gpu, signals, algorithm):
    X, dictionary = signals
    expected = select_n_nonzero_coefs(X, dictionary, algorithm=algorithm, return_criterion=True)
    found = select_n_nonzero_coefs(gpu.asarray(X), gpu.asarray(dictionary), algorithm=algorithm, return_criterion=True)
    assert all(isinstance(one, gpu.xp.ndarray) for one in found)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(gpu.get(one), other, rtol=1e-6)
    count = select_n_nonzero_coefs(X, dictionary, [0, 1, 2], algorithm=algorithm, per_signal=False, device="cuda")
    assert count == select_n_nonzero_coefs(X, dictionary, [0, 1, 2], algorithm=algorithm, per_signal=False)


def test_bad_signals(gpu, signals):
    X, dictionary = signals
    X[3, 2] = np.inf
    with pytest.raises(ValueError, match="rows 0 to 23"):
        SparseCoderCV(dictionary).fit(gpu.asarray(X))
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        select_n_nonzero_coefs(gpu.asarray(X), dictionary)
