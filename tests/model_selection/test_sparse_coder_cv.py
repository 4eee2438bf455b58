"""SparseCoderCV: the penalty that it finds, what it reports, and that it is a coder like any other."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from sparseshare.coding.encode import sparse_encode
from sparseshare.coding.path import sparse_encode_path
from sparseshare.datasets import make_sparse_signals, photo_patches
from sparseshare.learning import SparseCoder
from sparseshare.model_selection import SparseCoderCV
from sparseshare.model_selection.heldout import entry_folds, heldout_errors


@pytest.fixture
def data(rng):
    return rng.standard_normal((30, 8)), rng.standard_normal((12, 8))


@pytest.fixture
def fitted(data):
    X, D = data
    return SparseCoderCV(D, alphas=[0.1, 1.0, 3.0], cv=4, random_state=0).fit(X)


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [5, 10, 20])
@pytest.mark.parametrize("shape", [dict(), dict(n_components=128, n_features=64, n_nonzero_coefs=5)], ids=["20", "64"])
def test_the_best_penalty_for_known_noise_is_found(shape, snr_db):
    X, D, codes = make_sparse_signals(200, snr_db=snr_db, random_state=0, **shape)
    coder = SparseCoderCV(D, random_state=0).fit(X)
    path = sparse_encode_path(X, D, coder.alphas_, sparse_output=True)
    errors = np.array([np.mean((one @ D - codes @ D) ** 2) for one in path])  # which nobody knows who has only X
    assert errors[coder.best_index_] <= 1.05 * errors.min()
    assert 0 < coder.best_index_ < len(errors) - 1


@pytest.mark.slow
def test_on_patches_both_ends_of_the_grid_are_worse():
    X, other = np.split(photo_patches(600, (8, 8), random_state=0, dtype=np.float32), [300])
    X, other = (patches + np.random.default_rng(0).normal(0, 0.05, patches.shape) for patches in (X, other))
    D = PCA(64).fit(X).components_ + np.random.default_rng(0).normal(0, 1e-3, (64, 64))
    D = np.vstack([D, X[:64] / np.linalg.norm(X[:64], axis=1, keepdims=True)])
    coder = SparseCoderCV(D, cv=5, random_state=0).fit(X)
    ends = coder.alphas_[[0, coder.best_index_, -1]]
    new = heldout_errors(other, D, ends, entry_folds(*other.shape, 5, np.random.RandomState(1)))
    error = new.signals.mean(axis=1)
    assert error[1] < 0.9 * min(error[0], error[2])
    assert new.seen.argmin() == 2  # the trap: the codes' own entries favour the smallest penalty


@pytest.mark.parametrize("max_samples", [None, 12])
@pytest.mark.parametrize("form", ["memory map", "blocks", "iterator"])
def test_signals_of_a_file_or_in_blocks(data, tmp_path, form, max_samples):
    X, D = data
    coder = SparseCoderCV(D, alphas=[0.1, 1.0, 3.0], cv=4, random_state=0, max_samples=max_samples)
    np.save(tmp_path / "X.npy", X)
    blocks = [X[:11], X[11:]]
    given = {"memory map": np.load(tmp_path / "X.npy", mmap_mode="r"), "blocks": blocks, "iterator": iter(blocks)}
    np.testing.assert_array_equal(clone(coder).fit(given[form]).mse_path_, coder.fit(X).mse_path_)


def test_attributes_fit_together(data, fitted):
    X, D = data
    np.testing.assert_array_equal(fitted.alphas_, [3.0, 1.0, 0.1])
    errors = heldout_errors(X, D, fitted.alphas_, entry_folds(*X.shape, 4, np.random.RandomState(0)))
    np.testing.assert_array_equal(fitted.mse_path_, errors.folds)
    np.testing.assert_allclose(fitted.mean_mse_, errors.folds.mean(axis=1))  # folds of 60 entries each
    np.testing.assert_allclose(fitted.standard_error_, errors.signals.std(axis=1, ddof=1) / np.sqrt(len(X)))
    np.testing.assert_array_equal(fitted.seen_mse_, errors.seen)
    assert (np.diff(fitted.n_nonzero_path_) > 0).all() and (np.diff(fitted.seen_mse_) < 0).all()
    assert fitted.best_index_ == fitted.mean_mse_.argmin()
    assert fitted.alpha_ == fitted.alphas_[fitted.best_index_]


def test_the_rule_of_one_standard_error_takes_a_larger_penalty(data):
    X, D = data
    best = SparseCoderCV(D, random_state=0, cv=3).fit(X)
    sparser = clone(best).set_params(rule="one_standard_error").fit(X)
    limit = best.mean_mse_[best.best_index_] + best.standard_error_[best.best_index_]
    assert sparser.alpha_ > best.alpha_
    assert sparser.mean_mse_[sparser.best_index_] <= limit < sparser.mean_mse_[sparser.best_index_ - 1]


def test_the_grid_starts_where_all_codes_are_zero(data):
    X, D = data
    coder = SparseCoderCV(D, n_alphas=5, alpha_min_ratio=0.1, cv=2, random_state=0).fit(X)
    assert coder.alphas_[0] == pytest.approx(np.abs(X @ D.T).max())
    np.testing.assert_allclose(coder.alphas_ / coder.alphas_[0], np.geomspace(1, 0.1, 5))
    assert not sparse_encode(X, D, alpha=1.0001 * coder.alphas_[0]).any()


def test_transform_is_that_of_a_coder_with_the_penalty(data, fitted):
    X, D = data
    coder = SparseCoder(D, transform_algorithm="lasso_lars", transform_alpha=fitted.alpha_).fit(X)
    np.testing.assert_array_equal(fitted.transform(X), coder.transform(X))
    np.testing.assert_array_equal(fitted.components_, D)
    assert fitted.score(X) == coder.score(X)
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(X)), fitted.transform(X) @ D)
    assert fitted.get_feature_names_out()[-1] == "sparsecodercv11"
    frame = fitted.set_output(transform="pandas").transform(X)
    assert frame.columns.tolist() == fitted.get_feature_names_out().tolist()


def test_switches_of_the_codes(data):
    X, D = data
    coder = SparseCoderCV(D, alphas=[0.5], positive_code=True, sparse_output=True, random_state=0).fit(X)
    assert isinstance(coder.transform(X), csr_array) and (coder.transform(X).data > 0).all()
    assert coder.set_params(positive_code=False, split_sign=True).transform(X).shape == (30, 24)


def test_precision_is_kept(data, dtype):
    X, D = (array.astype(dtype) for array in data)
    coder = SparseCoderCV(D, alphas=[0.5, 0.1], cv=2, random_state=0).fit(X)
    assert coder.components_.dtype == coder.transform(X).dtype == dtype
    assert coder.mse_path_.dtype == np.float64


def test_the_same_random_state_gives_the_same_errors(data):
    X, D = data
    coder = SparseCoderCV(D, alphas=[0.5, 0.1], cv=3, random_state=0)
    first = coder.fit(X).mse_path_
    np.testing.assert_array_equal(coder.set_params(n_jobs=1).fit(X).mse_path_, first)
    assert (coder.set_params(random_state=1).fit(X).mse_path_ != first).any()


def test_some_of_the_signals_are_enough(data):
    X, D = data
    coder = SparseCoderCV(D, alphas=[0.5, 0.1], cv=2, max_samples=10, random_state=0).fit(csr_array(X))
    rows = np.sort(np.random.RandomState(0).choice(30, 10, replace=False))
    random_state = np.random.RandomState(0)
    random_state.choice(30, 10, replace=False)
    expected = heldout_errors(X[rows], D, coder.alphas_, entry_folds(10, 8, 2, random_state))
    np.testing.assert_allclose(coder.mse_path_, expected.folds)


def test_few_entries_few_signals_and_zeros(data):
    X, D = data
    coder = SparseCoderCV(D[:, :2], alphas=[0.5, 0.1], cv=5, random_state=0).fit(X[:, :2])
    assert coder.mse_path_.shape == (2, 2)  # a fold an entry at most
    one = SparseCoderCV(D, alphas=[0.5, 0.1], rule="one_standard_error", random_state=0).fit(X[:1])
    assert np.isnan(one.standard_error_).all() and one.best_index_ == one.mean_mse_.argmin()
    zeros = SparseCoderCV(D, n_alphas=3, random_state=0).fit(np.zeros((4, 8)))
    assert zeros.alpha_ == zeros.alphas_[0] == 1 and not zeros.transform(X[:1] * 0).any()


def test_verbose_explains_the_choice(data, capsys):
    X, D = data
    SparseCoderCV(D, alphas=[2.0, 0.5, 0.1], cv=2, verbose=True, random_state=0).fit(X)
    told = capsys.readouterr().out
    assert "[SparseCoderCV] fold 2/2: least error" in told and told.count("<-") == 1
    assert "on entries they have seen, the smallest penalty always wins" in told
    SparseCoderCV(D, alphas=[1e5, 1e4], cv=2, verbose=1, random_state=0).fit(X)
    assert "at the largest penalty of the grid: a wider grid may have a better one" in capsys.readouterr().out
    SparseCoderCV(D, alphas=[1.0, 2.0], cv=2, random_state=0).fit(X)
    assert capsys.readouterr().out == ""


def test_pickled_and_unfitted(data, fitted):
    X, D = data
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(X), fitted.transform(X))
    with pytest.raises(NotFittedError):
        SparseCoderCV(D).transform(X)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("alphas", [0.1, -1]),
        ("alphas", "many"),
        ("n_alphas", 0),
        ("alpha_min_ratio", 0),
        ("alpha_min_ratio", 1.5),
        ("cv", 1),
        ("cv", 2.5),
        ("rule", "worst"),
        ("max_samples", 0),
        ("positive_code", "yes"),
        ("split_sign", 1),
        ("sparse_output", None),
        ("transform_max_iter", 0),
        ("transform_tol", -1),
        ("n_jobs", "all"),
        ("random_state", "a"),
        ("verbose", -1),
        ("device", "gpu"),
    ],
)
def test_wrong_parameters_are_named(data, name, wrong):
    X, D = data
    named = "cannot be used to seed" if name == "random_state" else rf"\b{name}\b"
    with pytest.raises(ValueError, match=named):
        SparseCoderCV(D, **{name: wrong}).fit(X)


def test_wrong_data_are_refused(data):
    X, D = data
    with pytest.raises(ValueError, match="different numbers of features"):
        SparseCoderCV(D[:, :5]).fit(X)
    with pytest.raises(ValueError, match="1 feature.* one entry to hold out and one to code from"):
        SparseCoderCV(D[:, :1]).fit(X[:, :1])
    with pytest.raises(ValueError, match="dictionary contains NaN"):
        SparseCoderCV(D * np.nan).fit(X)
    X[17, 3] = np.nan
    with pytest.raises(ValueError, match="X contains NaN or infinity in rows 0 to 29"):
        SparseCoderCV(D).fit(X)
