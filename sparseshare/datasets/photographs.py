"""Real photographs, and patches of them. Both pictures come inside scikit-learn, so nothing is downloaded."""

import numpy as np
from sklearn.utils import check_random_state

from ..validation import check_bool, check_number

# ITU-R BT.601, the luma of JPEG files: what the pictures were compressed with.
LUMA = np.array([0.299, 0.587, 0.114])
GREY_LEVEL = 1 / 255


def load_photographs(dtype=np.float64):
    """Two photographs of 427 x 640 pixels in shades of grey: a Chinese temple and a flower.

    Reading them needs Pillow, which comes with ``pip install "sparseshare[plot]"``.

    Parameters
    ----------
    dtype : dtype, default=numpy.float64

    Returns
    -------
    ndarray of shape (2, 427, 640)
        Grey values from 0 (black) to 1 (white).

    Raises
    ------
    ImportError
        Without Pillow.

    Examples
    --------
    >>> from sparseshare.datasets import load_photographs
    >>> china, flower = load_photographs()
    >>> china.shape
    (427, 640)
    """
    from sklearn.datasets import load_sample_images  # only here: it costs as much as all the rest of this file

    colours = np.stack(load_sample_images().images)
    return (colours @ (LUMA / 255)).astype(dtype)


def photo_patches(
    n_patches=10_000, patch_shape=(8, 8), *, centered=True, normalized=True, random_state=None, dtype=np.float64
):
    """Random patches of the photographs as rows, no patch twice.

    Flat patches, whose grey values stand less than one of 255 levels apart (root mean square), hold rounding and
    compression noise and no picture: they are left out.

    Parameters
    ----------
    n_patches : int, default=10_000
        About 390,000 patches of 8 x 8 pixels are there to draw from.
    patch_shape : tuple of two ints, default=(8, 8)
        Height and width in pixels.
    centered : bool, default=True
        Subtract from every patch its mean.
    normalized : bool, default=True
        Divide every patch by its Euclidean norm.
    random_state : int, RandomState instance or None, default=None
        The same number, the same patches.
    dtype : dtype, default=numpy.float64

    Returns
    -------
    ndarray of shape (n_patches, height * width)

    Raises
    ------
    ValueError
        If a patch does not fit into the photographs, or fewer than `n_patches` are there.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.datasets import photo_patches
    >>> X = photo_patches(1000, (8, 8), random_state=0, dtype=np.float32)
    >>> X.shape, X.dtype
    ((1000, 64), dtype('float32'))
    >>> bool(np.abs(X.mean(axis=1)).max() < 1e-6)
    True
    """
    n_patches = check_number("n_patches", n_patches, 1, integer=True)
    centered, normalized = check_bool("centered", centered), check_bool("normalized", normalized)
    photographs = load_photographs()
    windows = _windows(photographs, patch_shape)
    places = windows.shape[:3]
    rng = check_random_state(random_state)

    patches = np.empty((n_patches, windows[0, 0, 0].size), dtype)
    found = 0
    # In blocks of 16 MB: nothing is known of a patch before it is copied, and float64 copies of all would be large.
    for block in _blocks(rng.permutation(np.prod(places)), size=max(1, 2**21 // windows[0, 0, 0].size)):
        drawn = windows[np.unravel_index(block, places)].reshape(len(block), -1)
        mean = drawn.mean(axis=1, keepdims=True)
        drawn = drawn[np.sqrt(np.mean((drawn - mean) ** 2, axis=1)) >= GREY_LEVEL][: n_patches - found]
        if centered:
            drawn = drawn - drawn.mean(axis=1, keepdims=True)
        if normalized:
            drawn = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        patches[found : found + len(drawn)] = drawn
        found += len(drawn)
        if found == n_patches:
            return patches
    height, width = patch_shape
    raise ValueError(
        f"n_patches is {n_patches}: of {height} x {width} pixels there are {found} that are not flat, ask for no more"
    )


def _windows(photographs, patch_shape):
    """View of every patch, shape (n_photographs, rows, columns, height, width)."""
    if np.shape(patch_shape) != (2,):
        raise ValueError(f"patch_shape is {patch_shape!r}: give height and width, two integers")
    limits = photographs.shape[1:]
    height, width = (
        check_number(f"patch_shape[{axis}]", size, 1, limits[axis], integer=True)
        for axis, size in enumerate(patch_shape)
    )
    return np.lib.stride_tricks.sliding_window_view(photographs, (height, width), axis=(1, 2))


def _blocks(array, size):
    for start in range(0, len(array), size):
        yield array[start : start + size]
