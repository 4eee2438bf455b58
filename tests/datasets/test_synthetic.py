"""The planted problem is what the paper says it is."""

import numpy as np
import pytest

from sparseshare.datasets import make_sparse_signals


def test_signals_are_the_codes_times_the_dictionary(dtype):
    X, dictionary, codes = make_sparse_signals(200, random_state=0, dtype=dtype)
    assert {array.dtype for array in (X, dictionary, codes)} == {np.dtype(dtype)}
    np.testing.assert_allclose(np.linalg.norm(dictionary, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal((codes != 0).sum(axis=1), 3)
    np.testing.assert_allclose(X, codes @ dictionary, atol=1e-6)


@pytest.mark.parametrize("snr_db", [-3, 10, 20, 30])
def test_noise_has_the_ratio_asked_for_and_changes_nothing_else(snr_db):
    clean, dictionary, codes = make_sparse_signals(300, random_state=5)
    noisy, same_dictionary, same_codes = make_sparse_signals(300, snr_db=snr_db, random_state=5)
    np.testing.assert_array_equal(dictionary, same_dictionary)
    np.testing.assert_array_equal(codes, same_codes)
    ratio = np.linalg.norm(clean) / np.linalg.norm(noisy - clean)
    assert 20 * np.log10(ratio) == pytest.approx(snr_db)


def test_atoms_and_coefficients_are_spread_evenly():
    _, dictionary, codes = make_sparse_signals(20_000, random_state=0)
    assert abs((codes != 0).sum(axis=0) - 1200).max() < 200  # five standard deviations
    values = codes[codes != 0]
    assert abs(values.mean()) < 0.01 and values.std() == pytest.approx(1 / np.sqrt(3), rel=0.01)
    assert abs(dictionary.mean()) < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, "n_samples"),
        ({"n_nonzero_coefs": 51}, "n_nonzero_coefs"),
        ({"n_features": 2.5}, "n_features"),
        ({"snr_db": np.inf}, "snr_db"),
        ({"snr_db": "20"}, "snr_db"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_sparse_signals(**arguments)
