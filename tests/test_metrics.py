"""Decibels between images."""

import numpy as np
import pytest

from sparseshare.metrics import peak_signal_noise_ratio


def test_against_the_formula_for_all_kinds_of_numbers():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (2, 9, 7), dtype=np.uint8)  # whose differences would wrap
    error = np.mean((levels[0].astype(float) - levels[1]) ** 2)
    expected = 20 * np.log10(255) - 10 * np.log10(error)
    assert peak_signal_noise_ratio(*levels, data_range=255) == pytest.approx(expected)
    assert peak_signal_noise_ratio(*(levels / 255).astype(np.float32)) == pytest.approx(expected, rel=1e-5)
    assert peak_signal_noise_ratio(levels[0], levels[0]) == np.inf


def test_bad_input():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 2\) and \(2, 3\)"):
        peak_signal_noise_ratio(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="'data_range' parameter must be a finite number above 0"):
        peak_signal_noise_ratio(np.zeros(2), np.ones(2), data_range=0)
