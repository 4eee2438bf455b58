"""PatchExtractor: images in, rows of patches out, as a scikit-learn transformer that can put images together again."""

from math import prod
from numbers import Integral
from zlib import crc32

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sparseshare.devices import (
    Movable,
    array_module,
    computing_on,
    device_of,
    module_of,
    on_gpu,
    resolve_device,
    rows_that_fit,
    to_device,
    to_host,
)
from sparseshare.validation import check_axes, check_number, compute_dtype

from .patches import PatchGrid

_NAMES = {1: "signals (n, time[, channels])", 2: "images (n, height, width[, channels])"}
_NAMES[3] = "volumes (n, depth, height, width[, channels])"


class PatchExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Movable, BaseEstimator):
    """Cut images into patches, a row each.

    Rows follow the images in their order, and within an image the patches in theirs: from left to right, then down.
    Which image and place a row came from is what `locate` says; `inverse_transform` puts rows back.

    Parameters
    ----------
    patch_shape : int or tuple of 1 to 3 ints, default=(8, 8)
        Entries of a patch along each axis: one number for signals, two for images, three for volumes; an int is the
        side of square patches of images.
    stride : int or tuple of ints, default=1
        Steps from patch to patch, in pixels.
    max_patches : int or float or None, default=None
        Most patches of an image, as a number or, between 0 and 1, as a share of those it has (at least one). They are
        drawn without replacement, and which ones depends on `random_state` and the image alone: not on the other
        images, and it is the same whenever the image comes again. None takes all.
    random_state : int, RandomState or None, default=None
        For the draws. None draws anew in every `fit`.
    device : str, default="auto"
        "auto" computes where images or patches live: NumPy's on the CPU, CuPy's on their GPU. "cuda" and "cuda:N" move
        NumPy's over in pieces, and what comes out back.

    Attributes
    ----------
    n_channels_ : int or None
        Channels of the images that were fitted; None if they have no such axis.
    image_shape_ : tuple of ints or None
        Shape of each image that was fitted, channels included; None if their shapes differ.
    seed_ : int
        What the draws start from.

    Raises
    ------
    ValueError
        For parameters out of range, images smaller than a patch, infinite pixels, lists that mix integers with other
        dtypes, or numbers of channels. NaN is let through: it may stand for a missing pixel.

    See Also
    --------
    PatchGrid : Patches of one image, without copies or in parts.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.image import PatchExtractor
    >>> images = np.random.default_rng(0).random((5, 12, 16))
    >>> extractor = PatchExtractor((4, 4), stride=2).fit(images)
    >>> patches = extractor.transform(images)
    >>> patches.shape
    (175, 16)
    >>> numbers, corners = extractor.locate(images)
    >>> int(numbers[40]), corners[40].tolist()
    (1, [0, 10])
    >>> np.array_equal(extractor.inverse_transform(patches), images)
    True
    """

    def __init__(self, patch_shape=(8, 8), stride=1, max_patches=None, random_state=None, device="auto"):
        self.patch_shape = patch_shape
        self.stride = stride
        self.max_patches = max_patches
        self.random_state = random_state
        self.device = device

    def fit(self, X, y=None):
        """Check the parameters, and keep the shape of the images.

        Parameters
        ----------
        X : array of shape (n, height, width[, channels]) or list of arrays (height, width[, channels])
            Signals have one axis less, volumes one more.
        y : ignored

        Returns
        -------
        self
        """
        patch_shape, _ = self._check_parameters()
        self._device(X)
        images, self.n_channels_ = _check_images(X, len(patch_shape))
        shapes = {image.shape for image in images}
        for shape in shapes:
            self._grid(shape)  # refuses images smaller than a patch
        self.image_shape_ = shapes.pop() if len(shapes) == 1 else None
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        return self

    def transform(self, X):
        """Patches as rows.

        Parameters
        ----------
        X : array or list of arrays
            As in `fit`; the sizes of the images may be others, their channels not.

        Returns
        -------
        ndarray of shape (n_patches, height * width * channels of a patch)
            float32 if all images are, else float64.
        """
        device = self._device(X)
        images, dtype = self._check_like_fitted(X)
        if device_of(images[0]) == device:
            with computing_on(device):
                return self._rows(images, dtype)
        with computing_on(device):
            return np.concatenate(
                [to_host(self._rows(some, dtype)) for some in self._moved_in_pieces(images, dtype, device)]
            )

    def _moved_in_pieces(self, images, dtype, device):
        """Images on a GPU, as many at a time as there is room for with their patches."""
        if isinstance(images, list):
            for image in images:
                yield [to_device(image, device)]
            return
        row = dtype.itemsize * self._n_features_out
        step = rows_that_fit(device, 2 * row * self._grid(images.shape[1:]).n_patches)
        for start in range(0, len(images), step):
            yield to_device(images[start : start + step], device)

    def _rows(self, images, dtype):
        """Patches of images, where they live."""
        if self.max_patches is None and not isinstance(images, list) and len(self._axes()) < 3:
            # All images as one of an axis more, along which patches are one image thick: one call, shared by threads.
            return self._stack_grid(images.shape).extract(images.astype(dtype, copy=False))
        parts = [self._grid(image.shape) for image in images]
        places = [self._drawn(grid, image) for grid, image in zip(parts, images, strict=True)]
        ends = np.cumsum(
            [grid.n_patches if drawn is None else len(drawn) for grid, drawn in zip(parts, places, strict=True)]
        )
        rows = array_module(images[0]).empty((int(ends[-1]), parts[0].n_features), dtype)
        for grid, image, drawn, end in zip(parts, images, places, ends, strict=True):
            if drawn is None:
                grid.extract(image.astype(dtype, copy=False), out=rows[end - grid.n_patches : end])
            else:
                rows[end - len(drawn) : end] = grid.take(image, drawn)
        return rows

    def locate(self, X):
        """Where the rows that `transform` returns for these images come from.

        Parameters
        ----------
        X : array or list of arrays
            What `transform` is given.

        Returns
        -------
        numbers : ndarray of int of shape (n_patches,)
            Of the image, counted from 0.
        corners : ndarray of int of shape (n_patches, n_axes)
            First pixel of the patch along each axis.
        """
        images, _ = self._check_like_fitted(X)
        numbers, corners = [], []
        for number, image in enumerate(images):
            grid = self._grid(image.shape)
            drawn = self._drawn(grid, image)
            drawn = np.arange(grid.n_patches) if drawn is None else drawn
            corners.append(np.stack(np.unravel_index(drawn, grid.grid_shape), axis=1) * np.array(grid.stride))
            numbers.append(np.full(len(drawn), number))
        return np.concatenate(numbers), np.concatenate(corners)

    def inverse_transform(self, X, image_shapes=None, *, locations=None):
        """Images that patches make: the mean of all patches that cover a pixel, 0 where there is none.

        Parameters
        ----------
        X : array-like of shape (n_patches, n_features)
            Patches in the order of `transform`.
        image_shapes : tuple of ints or list of tuples, default=None
            Shape of the array of images, ``(n, height, width[, channels])``, or of each of a list of images. None: as
            many as there are patches for, of the shape that was fitted.
        locations : tuple of two arrays, default=None
            What `locate` returned. Needed where only some patches were drawn.

        Returns
        -------
        ndarray or list of ndarray
            An array if `image_shapes` is the shape of one or None, else a list. float32 if X is, else float64.

        Raises
        ------
        ValueError
            If shapes, patches and locations do not fit together.
        """
        check_is_fitted(self)
        patch_shape, most = self._check_parameters()
        device, home = self._device(X), device_of(X)
        X = X if on_gpu(X) else np.asarray(X)
        X = X.astype(compute_dtype(X), copy=False)
        n_features = prod(patch_shape) * (self.n_channels_ or 1)
        if X.ndim != 2 or X.shape[1] != n_features:
            raise ValueError(f"patches must be rows of {n_features} entries, got an array of shape {X.shape}")
        if most is not None and locations is None:
            raise ValueError(
                f"with max_patches={self.max_patches!r} only some patches were drawn: pass locations, what locate "
                "returned for the images"
            )
        shapes, is_array = self._shapes(image_shapes, X, locations)
        grids = [self._grid(shape) for shape in shapes]
        if locations is not None:
            locations = _check_locations(locations, X, grids)
            with computing_on(device):
                images = [to_device(image, home) for image in _put(X, grids, *locations, device)]
        else:
            wanted = sum(grid.n_patches for grid in grids)
            if len(X) != wanted:
                raise ValueError(f"images of these shapes have {wanted} patches, got {len(X)}")
            ends = np.cumsum([grid.n_patches for grid in grids])
            with computing_on(device):
                if is_array and len(patch_shape) < 3 and device == home:
                    return self._stack_grid((len(shapes), *shapes[0])).overlap_add(X)
                images = [
                    to_device(grid.overlap_add(to_device(X[end - grid.n_patches : end], device)), home)
                    for grid, end in zip(grids, ends, strict=True)
                ]
        return array_module(images[0]).stack(images) if is_array else images

    def _device(self, X):
        """Where to compute for images or patches X."""
        return resolve_device(self.device, *(X if isinstance(X, list | tuple) else [X]))

    def _axes(self):
        return (self.patch_shape,) * 2 if np.ndim(self.patch_shape) == 0 else tuple(self.patch_shape)

    def _check_parameters(self):
        """Patch shape, and the number or share of patches to draw at most (None: all)."""
        shape = self._axes()
        if not 1 <= len(shape) <= 3:
            raise ValueError(
                f"The 'patch_shape' parameter must be an int or 1 to 3 of them (signals, images, volumes), got {shape}"
            )
        shape = check_axes("patch_shape", shape, len(shape))
        check_axes("stride", self.stride, len(shape))
        if self.max_patches is None or isinstance(self.max_patches, Integral):
            return shape, check_number("max_patches", self.max_patches, 1, integer=True, allow_none=True)
        return shape, check_number("max_patches", self.max_patches, 0, 1, open_low=True)

    def _check_like_fitted(self, X):
        """Images with the channels that were fitted, and the dtype to return."""
        check_is_fitted(self)
        patch_shape, _ = self._check_parameters()
        images, n_channels = _check_images(X, len(patch_shape))
        if n_channels != self.n_channels_:
            raise ValueError(
                f"fitted were images of {_channels(self.n_channels_)}, these are of {_channels(n_channels)}"
            )
        return images, compute_dtype(*(images if isinstance(images, list) else [images]))

    def _grid(self, shape):
        spatial = shape if self.n_channels_ is None else shape[:-1]
        return PatchGrid(spatial, self._axes(), self.stride, self.n_channels_)

    def _stack_grid(self, shape):
        """Grid of all images of an array at once."""
        spatial = shape if self.n_channels_ is None else shape[:-1]
        patch = self._axes()
        return PatchGrid(spatial, (1, *patch), (1, *check_axes("stride", self.stride, len(patch))), self.n_channels_)

    def _drawn(self, grid, image):
        """Numbers of the patches drawn from an image in rising order, or None for all."""
        if self.max_patches is None:
            return None
        if isinstance(self.max_patches, Integral):
            wanted = self.max_patches
        else:
            wanted = max(1, int(self.max_patches * grid.n_patches))
        if wanted >= grid.n_patches:
            return None
        # Seeded by the pixels: the same image gives the same patches in any company, which `locate` relies on.
        rng = np.random.default_rng((self.seed_, crc32(np.ascontiguousarray(to_host(image)))))
        return np.sort(rng.choice(grid.n_patches, wanted, replace=False, shuffle=False))

    def _shapes(self, image_shapes, X, locations):
        """Shape of each image, and whether they stand in one array."""
        given = self.image_shape_ if image_shapes is None else image_shapes
        if given is None:
            raise ValueError("the images that were fitted have different shapes: pass image_shapes")
        if image_shapes is None:
            if locations is not None:
                n_images = int(np.max(locations[0], initial=-1)) + 1
            else:
                n_images = -(-len(X) // self._grid(given).n_patches)
            return [given] * n_images, True
        n_axes = len(self._axes()) + (self.n_channels_ is not None)
        is_array = np.ndim(given[0]) == 0
        shapes = [tuple(given[1:])] * given[0] if is_array else [tuple(shape) for shape in given]
        for shape in shapes:
            if len(shape) != n_axes or (self.n_channels_ is not None and shape[-1] != self.n_channels_):
                raise ValueError(
                    f"image_shapes must be of {_NAMES[len(self._axes())]} of {_channels(self.n_channels_)}, or a list "
                    f"of such shapes without n, got {image_shapes}"
                )
        return shapes, is_array

    @property
    def _n_features_out(self):
        return prod(self._axes()) * (self.n_channels_ or 1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _channels(n_channels):
    return "no channel axis" if n_channels is None else f"{n_channels} channels"


def _check_images(X, n_axes):
    """Images as an array or a list of arrays of real numbers, and their number of channels (None: no such axis)."""
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError("Found a list with 0 images: at least one is needed")
    if isinstance(X, list | tuple) and np.ndim(X[0]) >= n_axes:
        images = [image if on_gpu(image) else np.asarray(image) for image in X]
        _check_alike(images, n_axes)
    else:
        images = X if on_gpu(X) else np.asarray(X)
        if images.ndim not in (n_axes + 1, n_axes + 2):
            raise ValueError(
                f"patches of {n_axes} axes are cut from {_NAMES[n_axes]}, got an array of shape {images.shape}; "
                "of one alone pass image[None]"
            )
        if images.size == 0:
            raise ValueError(f"Found images of shape {images.shape}: at least one pixel is needed")
    for number, image in enumerate(images if isinstance(images, list) else [images]):
        if image.dtype.kind not in "fiub":
            raise ValueError(f"images must hold real numbers, got dtype {image.dtype}")
        if image.dtype.kind == "f" and bool(array_module(image).isinf(image).any()):
            where = f"image {number}" if isinstance(images, list) else "the images"
            raise ValueError(f"{where} contain{'s' * isinstance(images, list)} infinite pixels")
    has_channels = images[0].ndim == n_axes + 1
    return images, images[0].shape[-1] if has_channels else None


def _check_alike(images, n_axes):
    """Of the same number of axes and channels, and no integers beside other dtypes, which seldom share a range."""
    first = images[0]
    for number, image in enumerate(images):
        if image.ndim not in (n_axes, n_axes + 1) or image.size == 0:
            raise ValueError(
                f"patches of {n_axes} axes are cut from {_NAMES[n_axes]}, a list has them without n; image {number} "
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


def _check_locations(locations, X, grids):
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


def _put(rows, grids, numbers, corners, device):
    """Means of patches at any places, image by image, on a device; on a GPU their last bits may differ between runs."""
    images, xp = [], module_of(device)
    for number, grid in enumerate(grids):
        mine = np.flatnonzero(numbers == number)
        n_channels, own = grid.n_channels or 1, to_device(rows[to_device(mine, device_of(rows))], device)
        pixels = np.arange(prod(grid.image_shape)).reshape(grid.image_shape)
        inside = to_device(pixels[tuple(slice(size) for size in grid.patch_shape)].ravel(), device)
        starts = np.ravel_multi_index(tuple(corners[mine].T), grid.shape) * n_channels
        places = to_device(starts, device)[:, None] + inside
        counts = xp.maximum(xp.bincount(places.ravel(), minlength=pixels.size), 1)
        mean = xp.bincount(places.ravel(), own.ravel(), minlength=pixels.size) / counts
        # What the mean lacks by rounding, so that patches that agree give their own values.
        mean += xp.bincount(places.ravel(), (own - mean[places]).ravel(), minlength=pixels.size) / counts
        images.append(mean.reshape(grid.image_shape).astype(rows.dtype))
    return images
