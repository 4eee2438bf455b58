"""What PatchExtractor takes: images to be cut, some at a time where they are many, and places of patches."""

from contextlib import closing
from math import prod

import numpy as np

from sparseshare.buffering import read_ahead
from sparseshare.devices import array_module, on_gpu, to_host
from sparseshare.sources import BlockError, Stack, stack_of

_PART_BYTES = 2**24  # of images that are read or cast at once
# By the number of their axes.
IMAGES = {1: "signals (n, time[, channels])", 2: "images (n, height, width[, channels])"}
IMAGES[3] = "volumes (n, depth, height, width[, channels])"


def channels_in_words(n_channels):
    return "no channel axis" if n_channels is None else f"{n_channels} channels"


def check_images_to_cut(X, n_axes):
    """Images of real numbers, of which those on disk are not read.

    Parameters
    ----------
    X : array of shape (n, ...) or list of arrays
    n_axes : int
        Of a patch.

    Returns
    -------
    images : array, list of arrays or Stack
    n_channels : int or None
        None: they have no such axis.

    Raises
    ------
    ValueError
        For anything else, and infinite pixels of what is in memory. NaN passes.
    TypeError
        For iterators.
    """
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError("Found a list with 0 images: at least one is needed")
    if isinstance(X, list | tuple) and np.ndim(X[0]) >= n_axes:
        images = [image if on_gpu(image) else np.asarray(image) for image in X]
        _check_alike(images, n_axes)
        one = images[0].shape
    else:
        images = stack_of(X)
        if not isinstance(images, Stack):
            images = X if on_gpu(X) else np.asarray(X)
        if images.ndim not in (n_axes + 1, n_axes + 2):
            raise ValueError(
                f"patches of {n_axes} axes are cut from {IMAGES[n_axes]}, got an array of shape {images.shape}; "
                "of one alone pass image[None]"
            )
        if 0 in images.shape:
            raise ValueError(f"Found images of shape {images.shape}: at least one pixel is needed")
        one = images.shape[1:]
    for number, image in enumerate(images if isinstance(images, list) else [images]):
        if image.dtype.kind not in "fiub":
            raise ValueError(f"images must hold real numbers, got dtype {image.dtype}")
        if not isinstance(image, Stack) and _is_infinite(image):
            where = f"image {number}" if isinstance(images, list) else "the images"
            raise ValueError(f"{where} contain{'s' * isinstance(images, list)} infinite pixels")
    return images, one[-1] if len(one) == n_axes + 1 else None


def shapes_of(images):
    """Shape of every image, none of which is read."""
    if isinstance(images, list):
        return [image.shape for image in images]
    return [tuple(images.shape[1:])] * len(images)


def some_at_a_time(images, dtype):
    """Images one after the other, some of them together; those on disk are read, and looked through.

    Parameters
    ----------
    images : array, list of arrays or Stack
    dtype : dtype
        What they will be cast to.

    Yields
    ------
    array or list of arrays

    Raises
    ------
    BlockError
        If images on disk cannot be read or have infinite pixels.
    """
    parts = _parts(images, np.dtype(dtype).itemsize)
    with closing(read_ahead(parts) if isinstance(images, Stack) else parts) as parts:
        yield from parts


def _parts(images, itemsize):
    shapes, first, number = shapes_of(images), 0, 0
    while first < len(shapes):
        last, room = first + 1, _PART_BYTES // itemsize - prod(shapes[first])
        while last < len(shapes) and prod(shapes[last]) <= room:
            last, room = last + 1, room - prod(shapes[last])
        some = images[first:last]
        if isinstance(images, Stack) and _is_infinite(some):
            bad = next(image for image in range(first, last) if _is_infinite(some[image - first]))
            raise BlockError(f"image {bad} of {images.name} contains infinite pixels", number, slice(first, last))
        yield some
        first, number = last, number + 1


def _is_infinite(image):
    return image.dtype.kind == "f" and bool(array_module(image).isinf(image).any())


def _check_alike(images, n_axes):
    """Of the same number of axes and channels, and no integers beside other dtypes, which seldom share a range."""
    first = images[0]
    for number, image in enumerate(images):
        if image.ndim not in (n_axes, n_axes + 1) or image.size == 0:
            raise ValueError(
                f"patches of {n_axes} axes are cut from {IMAGES[n_axes]}, a list has them without n; image {number} "
                f"has shape {image.shape}"
            )
        if image.ndim != first.ndim or (image.ndim > n_axes and image.shape[-1] != first.shape[-1]):
            raise ValueError(
                f"images must have the same channels: image 0 has shape {first.shape}, image {number} has {image.shape}"
            )
        if image.dtype != first.dtype and {image.dtype.kind, first.dtype.kind} != {"f"}:
            raise ValueError(
                f"image 0 has dtype {first.dtype}, image {number} has {image.dtype}: their values may be of different "
                "ranges, bring them to one dtype first"
            )


def check_locations(locations, X, grids):
    """Image numbers and corners of as many rows, all of them inside their images."""
    try:
        numbers, corners = (np.asarray(to_host(array)) for array in locations)
    except (TypeError, ValueError) as error:
        raise ValueError("locations must be two arrays, image numbers and corners, as locate returns them") from error
    n_axes = len(grids[0].shape) if grids else 0
    if (
        numbers.shape != (len(X),)
        or corners.shape != (len(X), n_axes)
        or numbers.dtype.kind + corners.dtype.kind != "ii"
    ):
        raise ValueError(
            f"locations of {len(X)} patches are integer arrays of shapes {(len(X),)} and {(len(X), n_axes)}, got "
            f"{numbers.shape} and {corners.shape} of dtypes {numbers.dtype} and {corners.dtype}"
        )
    if len(X) and not 0 <= numbers.min() <= numbers.max() < len(grids):
        raise ValueError(f"locations name image {numbers.max()} or {numbers.min()}, there are {len(grids)} images")
    room = np.array([np.subtract(grid.shape, grid.patch_shape) for grid in grids])
    if ((corners < 0) | (corners > room[numbers])).any():
        raise ValueError("locations hold corners of patches that reach beyond their image")
    return numbers, corners
