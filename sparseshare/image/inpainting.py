"""Inpainting by sparse codes: what is missing is filled in, coded with the rest, and replaced by what the codes say."""

from math import prod, sqrt

import numpy as np
from sklearn.utils import check_random_state

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
from sparseshare.threads import single_threaded_blas, thread_count
from sparseshare.validation import check_bool, check_number

from .denoising import coverage_of, error_goal, grid_of, own_weight, patches_above_noise, sum_of_coded_patches
from .restoration import Progress, check_image, first_dictionary

_NAME = "inpaint_image"
# Error goals fall from the first to the last of these shares of the known pixels' standard deviation.
_FIRST_GOAL, _LAST_GOAL = 0.4, 0.04
_COLOUR_PATCH = (6, 6)  # half a decibel above 8 x 8 with 70 % missing, in less than half the time
# A turn moves what is missing further than the codes say, since codes of patches with few known pixels mostly repeat
# what was filled in before. Measured best between 1.9 and 2.5; the last turns, which it would leave restless, take 1.
_STEP, _CALM_TURNS = 2.2, 0.1


def inpaint_image(
    image,
    mask=None,
    *,
    sigma=0,
    channels="auto",
    patch_shape=None,
    n_components=256,
    dictionary=None,
    learn=None,
    max_iter=40,
    max_patches=10_000,
    random_state=None,
    n_jobs=None,
    callback=None,
    verbose=False,
    return_dictionary=False,
    device="auto",
):
    """Fill in missing pixels of a signal, an image or a volume, by sparse codes of its patches.

    Missing pixels start from averages of the known ones around them, coarse to fine, so that holes of any size have a
    content. A turn codes all patches by orthogonal matching pursuit up to an error, adjusts the atoms by K-SVD steps,
    and puts the mean of the overlapping patches where pixels are missing. The error falls from turn to turn, so that
    coarse structures come first and details later. Known pixels stay as they are if there is no noise.

    Parameters
    ----------
    image : array-like of shape (n,), (height, width) or (depth, height, width)[, n_channels]
        In any units. float32 is computed in as it is, all else in float64. What stands at missing pixels is not used.
    mask : bool array of the shape of `image`, with or without its channels, default=None
        True where a pixel is missing. None: where `image` is NaN.
    sigma : float, default=0
        Standard deviation of noise on the known pixels. Above 0 they are denoised as well.
    channels : "auto", True or False, default="auto"
        Whether the last axis holds channels. "auto": in arrays of three axes if the last has at most 4 entries, in
        arrays of four axes always.
    patch_shape : int or tuple of ints, default=None
        None is 64 samples, 8 x 8 pixels, 6 x 6 pixels with channels, or 4 x 4 x 4 voxels.
    n_components : int, default=256
        Atoms, if no dictionary is given.
    dictionary : array-like of shape (n_components, n_features), default=None
        Atoms of any norm. None starts from overcomplete cosines.
    learn : bool or None, default=None
        Whether to adjust the atoms. None: only where no dictionary is given.
    max_iter : int, default=40
        Turns. More of them help where most pixels are missing.
    max_patches : int, default=10000
        Patches that a turn adjusts the atoms to, drawn at random.
    random_state : int, RandomState or None, default=None
        For the choice of patches.
    n_jobs : int or None, default=None
        Threads; None takes all. The result does not depend on it.
    callback : callable or None, default=None
        Called after each turn with a dict: stage "fill", step, n_steps, loss (root mean square by which the codes
        change missing pixels), dictionary, non_zeros. The turns end if it returns True.
    verbose : bool, default=False
        Print what the callback is told.
    return_dictionary : bool, default=False
    device : str, default="auto"
        "auto" computes where `image` lives: NumPy's on the CPU, CuPy's on its GPU. "cuda" and "cuda:N" move it over,
        and what comes out back.

    Returns
    -------
    image : ndarray of the shape of `image`
        In the same units, neither clipped nor rounded.
    dictionary : ndarray of shape (n_components, n_features), if `return_dictionary`
        Atoms of unit norm.

    Raises
    ------
    ValueError
        For masks of another shape or type, channels without a known pixel, known pixels that are not finite, images
        smaller than a patch, and parameters out of range.

    Notes
    -----
    Coding every patch from its known pixels alone, as in the paper, needs a factorisation a patch and measured 1 to
    5 dB worse on photographs of which 50 or 80 % is missing.

    References
    ----------
    O. Guleryuz, Nonlinear approximation based image recovery using adaptive sparse reconstructions and iterated
    denoising, IEEE Trans. Image Processing 2006. M. Elad, J.-L. Starck, P. Querre, D. Donoho, Simultaneous cartoon and
    texture image inpainting using morphological component analysis, ACHA 2005 (falling thresholds). J. Mairal, M. Elad,
    G. Sapiro, Sparse representation for color image restoration, IEEE Trans. Image Processing 2008 (learned atoms).

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.image import inpaint_image
    >>> picture = np.sin(np.indices((40, 40)).sum(axis=0) / 3)
    >>> mask = np.random.default_rng(0).random(picture.shape) < 0.5
    >>> filled = inpaint_image(np.where(mask, 0, picture), mask, max_iter=10, random_state=0)
    >>> bool(np.std(filled - picture) < 0.05)
    True
    """
    device, home = resolve_device(device, image, mask, dictionary), device_of(image)
    image, n_channels = check_image("image", image, channels, nan=True)
    missing = _check_mask(image, mask, n_channels)
    sigma = check_number("sigma", sigma, 0, of=_NAME)
    n_components = check_number("n_components", n_components, 1, integer=True, of=_NAME)
    max_iter = check_number("max_iter", max_iter, 1, integer=True, of=_NAME)
    max_patches = check_number("max_patches", max_patches, 1, integer=True, of=_NAME)
    learn = dictionary is None if learn is None else check_bool("learn", learn, of=_NAME)
    verbose = check_bool("verbose", verbose, of=_NAME)
    return_dictionary = check_bool("return_dictionary", return_dictionary, of=_NAME)
    thread_count(n_jobs)
    progress = Progress(_NAME, verbose, callback)
    if patch_shape is None and n_channels is not None and image.ndim == 3:
        patch_shape = _COLOUR_PATCH
    grid = grid_of(image, patch_shape, n_channels)
    random_state = check_random_state(random_state)
    with computing_on(device), memory_errors(device, "inpainting an image"):
        image, missing = to_device(image, device), to_device(missing, device)
        atoms = to_device(first_dictionary(dictionary, grid, n_components, image.dtype), device)
        filled = fill_by_averages(image, missing, n_channels)
        spread = float(filled[~missing].std(dtype=np.float64))
        flat = spread <= np.finfo(image.dtype).eps * float(abs(filled).max())
        if not flat and (sigma > 0 or bool(missing.any())):
            goals = np.maximum(np.geomspace(_FIRST_GOAL * spread, _LAST_GOAL * spread, max_iter), sigma).tolist()
            draw = (max_patches, random_state) if learn else None
            filled = _take_turns(filled, missing, grid, atoms, goals, draw, sigma, n_jobs, progress)
        filled, atoms = to_device(filled, home), to_device(atoms, home)
    return (filled, atoms) if return_dictionary else filled


def fill_by_averages(image, missing, n_channels=None):
    """Missing pixels from averages over blocks of 2, 4, 8, ... pixels, the smallest that hold a known one.

    Parameters
    ----------
    image : ndarray
    missing : bool ndarray of its shape
        With a known pixel in every channel.
    n_channels : int or None

    Returns
    -------
    ndarray of the shape and dtype of `image`
    """
    axes = image.ndim - (n_channels is not None)
    known = (~missing).astype(np.float64)
    return _pull_and_push(array_module(image).where(missing, 0, image), known, axes).astype(image.dtype, copy=False)


def _pull_and_push(values, known, axes):
    xp = array_module(values)
    if bool(known.all()):
        return values
    weight, coarse = known, values.astype(np.float64)
    for axis in range(axes):
        weight, coarse = _sums_of_pairs(weight, axis), _sums_of_pairs(coarse, axis)
    coarse = _pull_and_push(coarse / xp.maximum(weight, 1), (weight > 0).astype(np.float64), axes)
    for axis in range(axes):  # linear between the middles of the blocks
        place = xp.clip((xp.arange(values.shape[axis]) - 0.5) / 2, 0, coarse.shape[axis] - 1)
        low = place.astype(np.int64)
        share = (place - low).reshape([-1 if other == axis else 1 for other in range(values.ndim)])
        high = xp.minimum(low + 1, coarse.shape[axis] - 1)
        coarse = (1 - share) * xp.take(coarse, low, axis) + share * xp.take(coarse, high, axis)
    return xp.where(known > 0, values, coarse)


def _sums_of_pairs(array, axis):
    """Sums of entries 2 i and 2 i + 1 along an axis; the last entry alone where their number is odd."""
    before = (slice(None),) * axis
    sums = array[(*before, slice(0, None, 2))].copy()
    sums[(*before, slice(array.shape[axis] // 2))] += array[(*before, slice(1, None, 2))]
    return sums


def _take_turns(filled, missing, grid, atoms, goals, draw, sigma, n_jobs, progress):
    """Codes and fillings in turns; the atoms are changed in place. `draw`: patches a turn and random state, or None."""
    xp, known, counts = array_module(filled), filled.copy(), coverage_of(grid, filled)
    needed = missing if sigma == 0 else None  # where there is noise all patches count
    n_steps, n_missing = len(goals), max(int(xp.count_nonzero(missing)), 1)
    for turn, goal in enumerate(goals, 1):
        options = dict(algorithm="omp", max_error=error_goal(grid.n_features, goal), owner=_NAME)
        if draw is not None:
            _adjust_atoms(filled, grid, atoms, options, draw, n_jobs)
        problem = Problem(to_host(atoms), **options)
        total, non_zeros = sum_of_coded_patches(filled, grid, problem, n_jobs, missing=needed)
        coded = total / counts
        change = xp.where(missing, coded - filled, 0)
        loss = sqrt(float((change**2).sum()) / n_missing)
        done = progress.turn("fill", turn, n_steps, loss, atoms, non_zeros) or turn == n_steps
        step = 1 if done or turn > (1 - _CALM_TURNS) * n_steps else _STEP
        filled = (filled + step * change).astype(filled.dtype)
        if done:
            break
    if sigma > 0:
        weight = own_weight(known, sigma, grid)
        total += weight * known
        xp.copyto(filled, total / (weight + counts), where=~missing, casting="same_kind")
    return filled


def _adjust_atoms(image, grid, atoms, options, draw, n_jobs):
    signals = patches_above_noise(image, grid, draw[0], options["max_error"], draw[1])
    if len(signals):
        with single_threaded_blas:
            AtomByAtom(signals, atoms, options, False, True, n_jobs).step()


def _check_mask(image, mask, n_channels):
    """Where entries are missing, of the shape of the image."""
    xp = array_module(image)
    nan = xp.isnan(image)
    if mask is None:
        missing = nan
    else:
        missing = mask if on_gpu(mask) else np.asarray(mask)
        pixels = image.shape if n_channels is None else image.shape[:-1]
        if missing.dtype != bool or missing.shape not in (image.shape, pixels):
            shapes = f"{image.shape}" if n_channels is None else f"{pixels} or {image.shape}"
            raise ValueError(
                f"mask must be None or a boolean array of shape {shapes}, True where missing; got an array of shape "
                f"{missing.shape} and dtype {missing.dtype}"
            )
        missing = to_device(missing, device_of(image))
        missing = xp.ascontiguousarray(
            xp.broadcast_to(missing if missing.ndim == image.ndim else missing[..., None], image.shape)
        )
        if bool((nan & ~missing).any()):
            raise ValueError("image contains NaN where mask says it is known")
    known = (~missing).reshape(prod(image.shape) // (n_channels or 1), n_channels or 1)
    unknown = np.flatnonzero(to_host(~known.any(axis=0)))
    if len(unknown):
        where = "image" if n_channels is None else f"channel {unknown[0]} of image"
        raise ValueError(f"every pixel of {where} is missing: there is nothing to fill it from")
    return missing
