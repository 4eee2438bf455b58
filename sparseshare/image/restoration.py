"""What denoising and inpainting share: the image at the door, the first dictionary, learning in turns, progress."""

import time
from math import prod

import numpy as np

from sparseshare.callbacks import report_epoch
from sparseshare.devices import array_module, on_gpu, to_host
from sparseshare.threads import single_threaded_blas
from sparseshare.validation import check_choice, check_dictionary, compute_dtype

TILE = 2**14  # patches that are held at a time
TILE_ON_GPU = 2**18
DEFAULT_PATCHES = {1: (64,), 2: (8, 8), 3: (4, 4, 4)}


def check_image(name, image, channels, *, nan=False):
    """An image as an array of floats, and its number of channels.

    Parameters
    ----------
    name : str
        What the messages call it.
    image : array-like
    channels : "auto", True or False
        Whether the last axis holds channels; see `estimate_sigma`.
    nan : bool, default=False
        Allow NaN.

    Returns
    -------
    image : ndarray
        float32 stays, all else becomes float64. C-contiguous; the given array itself if nothing had to change. CuPy's
        stay on their GPU.
    n_channels : int or None

    Raises
    ------
    ValueError
    """
    check_choice("channels", channels, ("auto", True, False))
    if isinstance(image, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, whose mask would be lost: inpaint_image takes data and mask apart")
    image = image if on_gpu(image) else np.asarray(image)
    if image.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got dtype {image.dtype}")
    if channels == "auto":
        channels = image.ndim > 3 or (image.ndim == 3 and image.shape[-1] <= 4)
        if channels and image.shape[-1] == 4:
            raise ValueError(
                f"{name} of shape {image.shape} looks like colours with an alpha channel, which holds no picture: pass "
                f"{name}[..., :3], or channels=True for four channels that do"
            )
    n_axes = image.ndim - bool(channels)
    if n_axes < 1 or image.size == 0:
        raise ValueError(f"{name} must have at least one axis beside its channels and no empty one, got {image.shape}")
    xp = array_module(image)
    image = xp.ascontiguousarray(image, dtype=compute_dtype(image))
    if bool(xp.isinf(image).any() if nan else not xp.isfinite(image).all()):
        allowed = "infinity" if nan else "NaN or infinity; inpaint_image fills pixels that are not known"
        raise ValueError(f"{name} contains {allowed}")
    return image, image.shape[-1] if channels else None


def overcomplete_cosines(patch_shape, n_components):
    """Products of cosines, as many a axis as it takes: where K-SVD of images starts.

    Parameters
    ----------
    patch_shape : tuple of ints
    n_components : int
        For 8 x 8 pixels and 256, the 16 x 16 cosines of the paper. Other numbers keep those of the lowest frequencies.

    Returns
    -------
    ndarray of shape (n_components, n_pixels)
        Of unit norm; all but the first have mean zero.

    References
    ----------
    M. Elad, M. Aharon, Image denoising via sparse and redundant representations over learned dictionaries, IEEE
    Trans. Image Processing 2006, section II.D.

    Examples
    --------
    >>> from sparseshare.image.restoration import overcomplete_cosines
    >>> overcomplete_cosines((8, 8), 256).shape
    (256, 64)
    """
    counts = [1] * len(patch_shape)
    while prod(counts) < n_components:  # the axis with the fewest cosines a pixel gets the next one
        coarsest = min(range(len(counts)), key=lambda axis: counts[axis] / patch_shape[axis])
        counts[coarsest] += 1
    atoms, frequencies = np.ones((1, 1)), np.zeros(1)
    for size, count in zip(patch_shape, counts, strict=True):
        along = np.cos(np.pi / count * np.outer(np.arange(count), np.arange(size)))
        along[1:] -= along[1:].mean(axis=1, keepdims=True)
        norms = np.linalg.norm(along, axis=1, keepdims=True)
        along /= np.where(norms > 1e-9, norms, 1)  # an axis of one pixel has no waves
        atoms = np.einsum("ip,jq->ijpq", atoms, along).reshape(len(atoms) * count, -1)
        frequencies = np.add.outer(frequencies, np.arange(count) / count).ravel()
    lowest = np.sort(np.argsort(frequencies, kind="stable")[:n_components])
    return np.ascontiguousarray(atoms[lowest])


def first_dictionary(dictionary, grid, n_components, dtype):
    """A given dictionary with atoms of unit norm, or cosines that are the same in all channels; a new array.

    Parameters
    ----------
    dictionary : array-like of shape (n_components, n_features) or None
    grid : PatchGrid
    n_components : int
        Where no dictionary is given.
    dtype : dtype

    Returns
    -------
    ndarray of shape (n_components, grid.n_features)
    """
    if dictionary is None:
        atoms = np.repeat(overcomplete_cosines(grid.patch_shape, n_components), grid.n_channels or 1, axis=1)
    else:
        atoms = check_dictionary(to_host(dictionary), np.float64)
        if atoms.shape[1] != grid.n_features:
            raise ValueError(
                f"dictionary has atoms of {atoms.shape[1]} entries, but patches of {grid.patch_shape}"
                f"{f' with {grid.n_channels} channels' if grid.n_channels else ''} have {grid.n_features}"
            )
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    return np.ascontiguousarray(atoms / np.where(norms > 0, norms, 1), dtype=dtype)


class Progress:
    """Lines and calls about what a restoration is doing.

    Parameters
    ----------
    name : str
        Of the function, for the lines.
    verbose : bool
        Whether to print them.
    callback : callable or None
        Called with a dict after every turn of learning and every tile of patches.
    """

    def __init__(self, name, verbose, callback):
        if callback is not None and not callable(callback):
            raise ValueError(f"The 'callback' parameter of {name} must be a callable or None, got {callback!r}")
        self.name, self.verbose, self.callback = name, verbose, callback
        self.start = time.perf_counter()

    def say(self, text):
        """A line, if asked for."""
        if self.verbose:
            print(f"[{self.name}] {text}, {time.perf_counter() - self.start:.1f} s", flush=True)

    def turn(self, stage, step, n_steps, loss, dictionary, non_zeros):
        """A turn is done; True if the callback wants no more of them."""
        if self.verbose:
            seconds = time.perf_counter() - self.start
            report_epoch(self.name, step, n_steps, loss, seconds, non_zeros=non_zeros)
        return self.callback is not None and bool(
            self.callback(
                dict(stage=stage, step=step, n_steps=n_steps, loss=loss, dictionary=dictionary, non_zeros=non_zeros)
            )
        )

    def coded(self, step, n_steps):
        """So many of the patches are coded."""
        self.say(f"{step}/{n_steps} patches coded")
        if self.callback is not None:
            self.callback(dict(stage="code", step=step, n_steps=n_steps))


def learn_in_turns(alternation, n_signals, max_iter, progress):
    """Turns of coding and atom steps; the dictionary is changed in place.

    Parameters
    ----------
    alternation : object
        With `step()`, which returns the objective, `dictionary` and `codes`.
    n_signals, max_iter : int
    progress : Progress
    """
    with single_threaded_blas:
        for turn in range(1, max_iter + 1):
            loss = alternation.step() / n_signals
            non_zeros = alternation.codes.nnz / n_signals
            if progress.turn("learn", turn, max_iter, loss, alternation.dictionary, non_zeros):
                break
