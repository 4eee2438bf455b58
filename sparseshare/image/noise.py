"""How noisy an image is, from its finest wavelet details."""

import math

import numpy as np

from sparseshare.devices import array_module, computing_on, resolve_device, to_device

from .restoration import check_image

# High-pass of Daubechies' wavelet with two vanishing moments: it does not see slopes. Haar where an axis is too short.
_ROOT = math.sqrt(3)
_DAUBECHIES = np.array([1 - _ROOT, _ROOT - 3, 3 + _ROOT, -1 - _ROOT]) / (4 * math.sqrt(2))
_HAAR = np.array([1.0, -1.0]) / math.sqrt(2)
_MEDIAN_OF_NORMAL = 0.6744897501960817  # median of |z| for a standard normal z
_ROUNDING = 1e-12  # of the largest entry: details below it are those of a constant


def estimate_sigma(image, *, channels="auto", device="auto"):
    """Standard deviation of white Gaussian noise in an image.

    The median of the absolute finest diagonal wavelet details, over 0.6745: edges are few among them, so that they
    barely move the median. Details of exactly zero (borders of one colour, saturated areas) do not count. Fine texture
    is taken for noise.

    Parameters
    ----------
    image : array-like of shape (n,), (height, width), (depth, height, width) or any more axes[, n_channels]
        In any units. Axes of length 1 are left out.
    channels : "auto", True or False, default="auto"
        Whether the last axis holds channels; the mean of their estimates is returned. "auto": in arrays of three axes
        if the last has at most 4 entries, in arrays of four or more axes always.
    device : str, default="auto"
        "auto" computes where the image lives, NumPy's on the CPU and CuPy's on its GPU; "cpu", "cuda" or "cuda:N".

    Returns
    -------
    float
        In the image's units; 0 for a constant image.

    Raises
    ------
    ValueError
        For NaN or infinity, and for images without an axis of at least two entries.

    References
    ----------
    D. Donoho, I. Johnstone, Ideal spatial adaptation by wavelet shrinkage, Biometrika 1994, section 3.1.2 and appendix.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.image import estimate_sigma
    >>> ramp = np.add.outer(np.arange(200.0), np.arange(200.0))
    >>> noisy = ramp + 5 * np.random.default_rng(0).standard_normal(ramp.shape)
    >>> round(estimate_sigma(noisy))
    5
    """
    device = resolve_device(device, image)
    image, n_channels = check_image("image", image, channels)
    with computing_on(device):
        return _estimate(to_device(image, device), n_channels)


def _estimate(image, n_channels):
    details = image.astype(np.float64)
    largest = float(abs(details).max())
    if largest == 0:
        return 0.0
    details /= largest  # squares are not taken, but sums of huge entries would overflow
    axes = [axis for axis in range(details.ndim - (n_channels is not None)) if details.shape[axis] > 1]
    if not axes:
        raise ValueError(f"image must have an axis of at least 2 entries to tell noise from picture, got {image.shape}")
    for axis in axes:
        details = _high_pass(details, axis)
    details = details.reshape(-1, n_channels or 1)
    return float(largest * np.mean([_spread(channel) for channel in details.T]))


def _high_pass(array, axis):
    """Every other output of the filter, where it lies inside the array."""
    xp = array_module(array)
    array = xp.moveaxis(array, axis, 0)
    taps = (_DAUBECHIES if len(array) >= len(_DAUBECHIES) else _HAAR).tolist()
    count = (len(array) - len(taps)) // 2 + 1
    parts = (tap * array[k : k + 2 * count - 1 : 2] for k, tap in enumerate(taps))
    return xp.moveaxis(sum(parts), 0, axis)


def _spread(details):
    sizes = abs(details)
    sizes = sizes[sizes > _ROUNDING]
    return float(array_module(sizes).median(sizes)) / _MEDIAN_OF_NORMAL if len(sizes) else 0.0
