"""Denoising by sparse codes of all patches, over a dictionary learned from the noisy image itself."""

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.random import sample_without_replacement

from sparseshare.coding.encode import encode
from sparseshare.coding.problem import Problem
from sparseshare.devices import (
    array_module,
    computing_on,
    device_of,
    memory_errors,
    on_gpu,
    resolve_device,
    to_device,
    to_host,
)
from sparseshare.learning.ksvd import AtomByAtom
from sparseshare.threads import thread_count
from sparseshare.validation import check_bool, check_number

from .noise import estimate_sigma
from .patches import PatchGrid
from .restoration import DEFAULT_PATCHES, TILE, TILE_ON_GPU, Progress, check_image, first_dictionary, learn_in_turns

# Squared error allowed beyond that of the noise, in units of sigma^2: the paper's 64 (1.15 sigma)^2 for 8 x 8 pixels.
# The same number for every size of patch: the noise of larger ones varies less, and it measured best in colours.
_SLACK = 64 * (1.15**2 - 1)
_OWN_WEIGHT = 0.6 / 64  # of a noisy pixel, times spread over sigma: 30 / sigma for photographs of 256 greys
_TURNS = 20
_NAME = "denoise_image"


def denoise_image(
    noisy,
    sigma=None,
    *,
    channels="auto",
    patch_shape=None,
    n_components=256,
    dictionary=None,
    max_iter=None,
    max_patches=40_000,
    gain=None,
    weight=None,
    random_state=None,
    n_jobs=None,
    callback=None,
    verbose=False,
    return_dictionary=False,
    device="auto",
):
    """Remove white Gaussian noise from a signal, an image or a volume, by K-SVD.

    A dictionary is learned from patches of the noisy image, each minus its mean (one mean a channel), by turns of
    orthogonal matching pursuit up to the error ``n_features * (gain * sigma)^2`` and K-SVD steps of the atoms. Then all
    patches are coded so, and every pixel is the mean over the patches that cover it and, at a small weight, itself.
    Memory does not grow with the number of patches.

    Parameters
    ----------
    noisy : array-like of shape (n,), (height, width) or (depth, height, width)[, n_channels]
        In any units. float32 is computed in as it is, all else in float64.
    sigma : float or None, default=None
        Standard deviation of the noise, in units of the image. None: `estimate_sigma`. With 0 the image is returned.
    channels : "auto", True or False, default="auto"
        Whether the last axis holds channels. "auto": in arrays of three axes if the last has at most 4 entries, in
        arrays of four axes always.
    patch_shape : int or tuple of ints, default=None
        None is 64 samples, 8 x 8 pixels or 4 x 4 x 4 voxels.
    n_components : int, default=256
        Atoms, if no dictionary is given.
    dictionary : array-like of shape (n_components, n_features), default=None
        Atoms of any norm; n_features are the pixels of a patch times the channels, channels last. None starts from
        overcomplete cosines.
    max_iter : int or None, default=None
        Turns of learning. None is 20, or 0 if a dictionary is given, which is then used as it is.
    max_patches : int, default=40000
        Patches to learn from, drawn at random from those that are more than noise.
    gain : float or None, default=None
        Of the error goal. None: ``sqrt(1 + 20.64 / n_features)``, which is the paper's 1.15 for 64 entries.
    weight : float or None, default=None
        What a noisy pixel counts where a patch counts 1. The paper's is 30 / sigma for grey values from 0 to 255. None
        is the same for photographs of any range: ``0.6 * spread / sigma`` for patches of 64 pixels, with the standard
        deviation `spread` of the image without noise.
    random_state : int, RandomState or None, default=None
        For the choice of patches.
    n_jobs : int or None, default=None
        Threads; None takes all. The result does not depend on it.
    callback : callable or None, default=None
        Called with a dict after each turn of learning (stage "learn", with step, n_steps, loss, dictionary, non_zeros;
        learning ends if it returns True) and each tile of patches (stage "code", with step, n_steps).
    verbose : bool, default=False
        Print what the callback is told.
    return_dictionary : bool, default=False
    device : str, default="auto"
        "auto" computes where `noisy` lives: NumPy's on the CPU, CuPy's on its GPU. "cuda" and "cuda:N" move it over,
        and what comes out back.

    Returns
    -------
    image : ndarray of the shape of `noisy`
        In the units of `noisy`, neither clipped nor rounded. It lives where `noisy` does, and so does the dictionary.
    dictionary : ndarray of shape (n_components, n_features), if `return_dictionary`
        Atoms of unit norm.

    Raises
    ------
    ValueError
        For NaN or infinity, images smaller than a patch, colours with an alpha channel, a negative sigma and other
        parameters out of range.

    References
    ----------
    M. Elad, M. Aharon, Image denoising via sparse and redundant representations over learned dictionaries, IEEE
    Trans. Image Processing 2006: equations 4 and 8, figure 1 of section III. J. Mairal, M. Elad, G. Sapiro, Sparse
    representation for color image restoration, IEEE Trans. Image Processing 2008, for patches of all channels; in the
    place of its inner product that minds the mean, the means are kept out of the codes.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.image import denoise_image
    >>> clean = 100.0 * (np.indices((64, 64)).sum(axis=0) % 32 < 16)
    >>> noisy = clean + 20 * np.random.default_rng(0).standard_normal(clean.shape)
    >>> denoised = denoise_image(noisy, sigma=20, max_iter=5, random_state=0)
    >>> bool(np.std(denoised - clean) < 0.4 * np.std(noisy - clean))
    True
    """
    device, home = resolve_device(device, noisy, dictionary), device_of(noisy)
    noisy, n_channels = check_image("noisy", noisy, channels)
    verbose = check_bool("verbose", verbose, of=_NAME)
    return_dictionary = check_bool("return_dictionary", return_dictionary, of=_NAME)
    sigma = check_number("sigma", sigma, 0, allow_none=True, of=_NAME)
    n_components = check_number("n_components", n_components, 1, integer=True, of=_NAME)
    max_iter = check_number("max_iter", max_iter, 0, integer=True, allow_none=True, of=_NAME)
    max_patches = check_number("max_patches", max_patches, 1, integer=True, of=_NAME)
    gain = check_number("gain", gain, 0, open_low=True, allow_none=True, of=_NAME)
    weight = check_number("weight", weight, 0, allow_none=True, of=_NAME)
    thread_count(n_jobs)
    progress = Progress(_NAME, verbose, callback)
    grid = grid_of(noisy, patch_shape, n_channels)
    if max_iter is None:
        max_iter = _TURNS if dictionary is None else 0
    with computing_on(device), memory_errors(device, "denoising an image"):
        noisy = to_device(noisy, device)
        atoms = to_device(first_dictionary(dictionary, grid, n_components, noisy.dtype), device)
        if sigma is None:
            sigma = estimate_sigma(noisy, channels=n_channels is not None)
            progress.say(f"sigma is estimated at {sigma:.4g}")
        if sigma <= np.finfo(noisy.dtype).eps * float(abs(noisy).max()):  # less than rounding
            image = noisy.copy()
        else:
            options = dict(algorithm="omp", max_error=error_goal(grid.n_features, sigma, gain), owner=_NAME)
            draw = max_patches, check_random_state(random_state)
            image = _denoised(noisy, grid, atoms, options, sigma, weight, max_iter, draw, n_jobs, progress)
        image, atoms = to_device(image, home), to_device(atoms, home)
    return (image, atoms) if return_dictionary else image


def _denoised(noisy, grid, atoms, options, sigma, weight, max_iter, draw, n_jobs, progress):
    """The image without noise; the atoms are changed in place. `draw`: patches to learn from, and random state."""
    if max_iter:
        signals = patches_above_noise(noisy, grid, draw[0], options["max_error"], draw[1])
        if len(signals):
            turns = AtomByAtom(signals, atoms, options, False, True, n_jobs)
            learn_in_turns(turns, len(signals), max_iter, progress)
    total = sum_of_coded_patches(noisy, grid, Problem(to_host(atoms), **options), n_jobs, progress.coded)[0]
    if weight is None:
        weight = own_weight(noisy, sigma, grid)
    total += weight * noisy
    total /= weight + coverage_of(grid, noisy)
    return total.astype(noisy.dtype, copy=False)


def coverage_of(grid, image):
    """How many patches cover each entry of an image, where that lives, to be broadcast along channels."""
    counts = grid.coverage() if grid.n_channels is None else grid.coverage()[..., None]
    return to_device(counts, device_of(image))


def grid_of(image, patch_shape, n_channels):
    """All patches of an image, of the default size if None is asked for."""
    shape = image.shape if n_channels is None else image.shape[:-1]
    if len(shape) > 3:
        raise ValueError(
            f"an image must have 1 to 3 axes beside its channels (signal, image, volume), got {image.shape}"
        )
    return PatchGrid(shape, DEFAULT_PATCHES[len(shape)] if patch_shape is None else patch_shape, 1, n_channels)


def remove_means(rows, n_channels):
    """Subtract from every patch its mean, channel by channel, in place.

    Parameters
    ----------
    rows : ndarray of shape (n, n_features)
    n_channels : int or None

    Returns
    -------
    ndarray of shape (n, 1, n_channels)
    """
    pixels = rows.reshape(len(rows), -1, n_channels or 1)
    means = pixels.mean(axis=1, keepdims=True)
    pixels -= means
    return means


def error_goal(n_features, sigma, gain=None):
    """Squared error up to which a patch is coded: ``n_features * (gain * sigma)^2``."""
    return float((n_features * gain**2 if gain is not None else n_features + _SLACK) * sigma**2)


def own_weight(image, sigma, grid):
    """What a noisy pixel counts where a patch counts 1."""
    spread = np.sqrt(max(float(array_module(image).var(image, dtype=np.float64)) - sigma**2, 0))
    return float(_OWN_WEIGHT * np.prod(grid.patch_shape) * spread / sigma)


def _energy(rows):
    return array_module(rows).square(rows, dtype=np.float64).sum(axis=1)


def patches_above_noise(image, grid, count, max_error, random_state):
    """Random patches without their means, as many as `count`, of those that noise alone does not explain."""
    candidates = sample_without_replacement(grid.n_patches, min(8 * count, grid.n_patches), random_state=random_state)
    random_state.shuffle(candidates)  # the order of a sample is not random by itself
    xp = array_module(image)
    kept, found = [xp.empty((0, grid.n_features), image.dtype)], 0
    for start in range(0, len(candidates), TILE):
        rows = grid.take(image, np.sort(candidates[start : start + TILE]))
        remove_means(rows, grid.n_channels)
        rows = rows[_energy(rows) > max_error]
        kept.append(rows)
        found += len(rows)
        if found >= count:
            break
    rows = xp.concatenate(kept)
    if found <= count:
        return rows
    return rows[to_device(np.sort(random_state.permutation(found)[:count]), device_of(image))]


def sum_of_coded_patches(image, grid, problem, n_jobs, told=None, missing=None):
    """Every patch coded, without its means, and added up where it lies.

    Parameters
    ----------
    image : ndarray
    grid : PatchGrid
    problem : Problem
        With an error goal; patches that are below it have codes of zeros.
    n_jobs : int or None
    told : callable, default=None
        Called with the patches done and all of them, tile by tile.
    missing : bool ndarray of shape `grid.image_shape`, default=None
        Code only patches that touch such entries: the sums are those of all patches there, and of no use elsewhere.

    Returns
    -------
    total : ndarray of shape `grid.image_shape`, float64
    non_zeros : float
        Of a code, on average.
    """
    total, entries, device = array_module(image).zeros(grid.image_shape), 0, device_of(image)
    dictionary, step = to_device(problem.dictionary, device), TILE_ON_GPU if on_gpu(image) else TILE
    touched = None if missing is None else grid.view(missing).any(axis=tuple(range(-missing.ndim, 0))).ravel()
    for first in range(0, grid.n_patches, step):
        last = min(first + step, grid.n_patches)
        rows = grid.extract(image, first, last, n_jobs=n_jobs)
        means = remove_means(rows, grid.n_channels)
        busy = _energy(rows) > problem.max_error
        if touched is not None:
            busy &= touched[first:last]
        some = rows[busy]
        rows[~busy] = 0
        if len(some):
            codes = encode(some, problem, n_jobs=n_jobs, device=device).values
            rows[busy] = codes @ dictionary
            entries += codes.nnz
        rows.reshape(last - first, -1, grid.n_channels or 1)[:] += means
        grid.add(rows, total, first, n_jobs=n_jobs)
        if told is not None:
            told(last, grid.n_patches)
    return total, entries / grid.n_patches
