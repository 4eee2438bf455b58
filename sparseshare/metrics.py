"""Measures of how like an image another one is."""

import numpy as np

from .validation import check_number


def peak_signal_noise_ratio(image, other, data_range=1.0):
    """How close two images are, in decibels: ``10 log10(data_range^2 / mean squared difference)``.

    Parameters
    ----------
    image, other : array-like of the same shape
    data_range : float, default=1.0
        From the smallest to the largest possible grey value: 255 for those of 8 bits.

    Returns
    -------
    float
        Infinity for equal images.

    Raises
    ------
    ValueError
        If the shapes differ, or `data_range` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.metrics import peak_signal_noise_ratio
    >>> round(peak_signal_noise_ratio(np.zeros((4, 4)), np.full((4, 4), 0.1)), 6)
    20.0
    """
    image, other = np.asarray(image), np.asarray(other)
    if image.shape != other.shape:
        raise ValueError(f"both images must have one shape, got {image.shape} and {other.shape}")
    data_range = check_number("data_range", data_range, 0, open_low=True)
    error = np.mean(np.subtract(image, other, dtype=np.float64) ** 2)
    return float(10 * np.log10(data_range**2 / error)) if error > 0 else np.inf
