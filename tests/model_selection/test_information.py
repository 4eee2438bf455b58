"""Information criteria for pursuits: their formulas, and the counts that they find."""

from math import comb, log

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare.coding.encode import sparse_encode
from sparseshare.datasets import make_sparse_signals
from sparseshare.model_selection import select_n_nonzero_coefs


def signals(n_samples=300, snr_db=20, **shape):
    shape = dict(n_components=60, n_features=40, n_nonzero_coefs=3) | shape
    X, D, codes = make_sparse_signals(n_samples, snr_db=snr_db, random_state=0, **shape)
    return X, D, codes, np.std(X - codes @ D)


@pytest.mark.parametrize("algorithm", ["omp", "ols"])
def test_the_criteria_are_their_formulas(algorithm):
    X, D, _, sigma = signals(5)
    counts = [4, 0, 2]
    errors = np.empty((3, 5))
    errors[0] = (X**2).sum(axis=1)
    for place, k in ((1, 2), (2, 4)):
        codes = sparse_encode(X, D, algorithm=algorithm, n_nonzero_coefs=k)
        errors[place] = ((X - codes @ D) ** 2).sum(axis=1)
    used = np.array([[0], [2], [4]])
    places = np.array([[log(comb(60, k))] for k in (0, 2, 4)])
    options = dict(counts=counts, sigma=sigma, algorithm=algorithm, return_criterion=True)
    chosen, values = select_n_nonzero_coefs(X, D, criterion="bic", **options)
    np.testing.assert_allclose(values, errors / sigma**2 + used * log(40))
    np.testing.assert_array_equal(chosen, np.array([0, 2, 4])[values.argmin(axis=0)])
    _, values = select_n_nonzero_coefs(X, D, criterion="mdl", **options)
    np.testing.assert_allclose(values, errors / (2 * sigma**2) + used / 2 * log(40) + places)
    one, total = select_n_nonzero_coefs(X, D, criterion="mdl", per_signal=False, **options)
    np.testing.assert_allclose(total, values.sum(axis=1))
    assert type(one) is int


@pytest.mark.parametrize("shape", [dict(), dict(n_components=256, n_features=64, n_nonzero_coefs=5)], ids=["40", "64"])
@pytest.mark.parametrize("snr_db", [10, 20, 30])
def test_mdl_finds_the_planted_count_with_and_without_the_noise(shape, snr_db):
    X, D, codes, sigma = signals(snr_db=snr_db, **shape)
    planted = np.count_nonzero(codes[0])
    assert select_n_nonzero_coefs(X, D, per_signal=False) == planted
    assert select_n_nonzero_coefs(X, D, sigma=sigma, per_signal=False) == planted
    for known in (None, sigma):
        counts = select_n_nonzero_coefs(X, D, sigma=known)
        assert abs(np.mean(counts) - planted) < 1
        too_many = select_n_nonzero_coefs(X, D, sigma=known, criterion="bic")
        assert np.mean(too_many) > np.mean(counts)


def test_the_noise_is_estimated():
    X, D, _, sigma = signals(n_components=256, n_features=64, n_nonzero_coefs=5)
    options = dict(counts=range(12), criterion="bic", return_criterion=True)
    _, estimated = select_n_nonzero_coefs(X, D, **options)
    _, known = select_n_nonzero_coefs(X, D, sigma=sigma, **options)
    np.testing.assert_allclose(estimated[0] / known[0], 1, rtol=0.05)  # |x|^2 / sigma^2


def test_signals_of_few_atoms_without_noise_and_of_noise_without_atoms():
    X, D, codes, _ = signals(snr_db=None)
    counts = select_n_nonzero_coefs(X, D)
    np.testing.assert_array_equal(counts[:20], 3)
    noise = np.random.default_rng(0).standard_normal((200, 40))
    assert select_n_nonzero_coefs(noise, D, sigma=1.0, per_signal=False) == 0
    assert (select_n_nonzero_coefs(noise, D, sigma=1.0) == 0).mean() > 0.9
    np.testing.assert_array_equal(select_n_nonzero_coefs(np.zeros((3, 40)), D), 0)


def test_codes_take_the_counts(dtype):
    X, D, _, _ = signals(50)
    counts = select_n_nonzero_coefs(X.astype(dtype), D.astype(dtype))
    codes = sparse_encode(X, D, algorithm="omp", n_nonzero_coefs=counts)
    np.testing.assert_array_equal((codes != 0).sum(axis=1), counts)
    np.testing.assert_array_equal(select_n_nonzero_coefs(csr_array(X.astype(dtype)), D.astype(dtype)), counts)
    assert select_n_nonzero_coefs(X, D, [0], per_signal=False) == 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("counts", []),
        ("counts", [1.5]),
        ("counts", [-1, 2]),
        ("counts", [41]),
        ("counts", [[1], [2, 3]]),
        ("counts", 3),
        ("criterion", "aic"),
        ("algorithm", "mp"),
        ("sigma", 0),
        ("sigma", np.nan),
        ("per_signal", "yes"),
        ("return_criterion", 1),
    ],
)
def test_wrong_parameters_are_named(name, wrong):
    X, D, _, _ = signals(3)
    with pytest.raises(ValueError, match=f"'{name}' parameter of select_n_nonzero_coefs"):
        select_n_nonzero_coefs(X, D, **{name: wrong})


def test_wrong_data_are_refused():
    X, D, _, _ = signals(3)
    with pytest.raises(ValueError, match="different numbers of features"):
        select_n_nonzero_coefs(X[:, :9], D)
    X[1, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        select_n_nonzero_coefs(X, D)
