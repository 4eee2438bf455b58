"""PatchExtractor: images in, rows of patches out, as a scikit-learn transformer that can put images together again."""

from contextlib import closing
from math import prod
from numbers import Integral
from zlib import crc32

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import UNUSED
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
from sparseshare.outputs import write_pieces
from sparseshare.sources import Stack, rows_a_block
from sparseshare.validation import check_axes, check_number, compute_dtype

from .extractor_input import (
    IMAGES,
    channels_in_words,
    check_images_to_cut,
    check_locations,
    shapes_of,
    some_at_a_time,
)
from .patches import PatchGrid


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

    __metadata_request__transform = {"out": UNUSED}

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
            Signals have one axis less, volumes one more. Memory maps, zarr arrays and HDF5 data sets are read some
            images at a time.
        y : ignored

        Returns
        -------
        self
        """
        patch_shape, _ = self._check_parameters()
        self._device(X)
        images, self.n_channels_ = check_images_to_cut(X, len(patch_shape))
        shapes = set(shapes_of(images))
        for shape in shapes:
            self._grid(shape)  # refuses images smaller than a patch
        if isinstance(images, Stack):
            for _ in some_at_a_time(images, images.dtype):
                pass  # looks for infinite pixels
        self.image_shape_ = shapes.pop() if len(shapes) == 1 else None
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        return self

    def transform(self, X, out=None):
        """Patches as rows.

        Parameters
        ----------
        X : array or list of arrays
            As in `fit`; the sizes of the images may be others, their channels not.
        out : array of shape (n_patches, height * width * channels of a patch), default=None
            Where patches go some at a time, so that they are never in memory together: a memory map, zarr, HDF5, or
            anything else to whose rows can be written.

        Returns
        -------
        ndarray of shape (n_patches, height * width * channels of a patch)
            float32 if all images are, else float64. With `out` that array.

        Raises
        ------
        BlockError
            A ValueError: images on disk cannot be read, or have infinite pixels. Patches of images before these that
            have been written to `out` stay there.
        """
        device = self._device(X)
        images, dtype = self._check_like_fitted(X)
        if out is not None or isinstance(images, Stack):
            shape = sum(self._n_wanted(grid) for grid in self._grids(images)), self._n_features_out
            out = np.empty(shape, dtype) if out is None else out
            return write_pieces(self._pieces(images, dtype, device), out, shape, what="patches")
        if device_of(images[0]) == device:
            with computing_on(device):
                return self._rows(images, dtype)
        with computing_on(device):
            return np.concatenate(
                [to_host(self._rows(some, dtype)) for some in self._moved_in_pieces(images, dtype, device)]
            )

    def _pieces(self, images, dtype, device):
        """Patches some at a time, where they are cut: tuples of a number, the number of the first, and rows."""
        most, number, first = rows_a_block(self._n_features_out, dtype), 0, 0
        with computing_on(device), closing(some_at_a_time(images, dtype)) as parts:
            for part in parts:
                for rows in self._cut(_moved(part, device), dtype, most):
                    yield number, first, rows
                    number, first = number + 1, first + len(rows)

    def _cut(self, images, dtype, most):
        """Patches of images in pieces of about `most` rows: of whole images, or of a part of a large one."""
        grids = self._grids(images)
        starts, first = np.cumsum([0, *(self._n_wanted(grid) for grid in grids)]), 0
        while first < len(grids):
            last = max(first + 1, int(np.searchsorted(starts, starts[first] + most, side="right")) - 1)
            if starts[last] - starts[first] <= most:
                yield self._rows(images[first:last], dtype)
            else:
                grid, image = grids[first], images[first]
                drawn, image = self._drawn(grid, image), image.astype(dtype, copy=False)
                for start in range(0, int(starts[last] - starts[first]), most):
                    if drawn is None:
                        yield grid.extract(image, start, min(start + most, grid.n_patches))
                    else:
                        yield grid.take(image, drawn[start : start + most])
            first = last

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
        parts = self._grids(images)
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
            What `transform` is given. Pixels on disk are read only if patches are drawn.

        Returns
        -------
        numbers : ndarray of int of shape (n_patches,)
            Of the image, counted from 0.
        corners : ndarray of int of shape (n_patches, n_axes)
            First pixel of the patch along each axis.
        """
        images, dtype = self._check_like_fitted(X)
        grids, corners = self._grids(images), []
        with closing(self._places(images, grids, dtype)) as places:
            for grid, drawn in zip(grids, places, strict=True):
                corners.append(np.stack(np.unravel_index(drawn, grid.grid_shape), axis=1) * np.array(grid.stride))
        return np.repeat(np.arange(len(grids)), [len(own) for own in corners]), np.concatenate(corners)

    def _places(self, images, grids, dtype):
        """Numbers of the patches that are taken of every image, image by image."""
        if all(self._n_wanted(grid) == grid.n_patches for grid in grids):
            yield from (np.arange(grid.n_patches) for grid in grids)
            return
        coming = iter(grids)
        with closing(some_at_a_time(images, dtype)) as parts:
            for part in parts:
                for image in part:
                    grid = next(coming)
                    drawn = self._drawn(grid, image)
                    yield np.arange(grid.n_patches) if drawn is None else drawn

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
            locations = check_locations(locations, X, grids)
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
        images, n_channels = check_images_to_cut(X, len(patch_shape))
        if n_channels != self.n_channels_:
            raise ValueError(
                f"fitted were images of {channels_in_words(self.n_channels_)}, these are of "
                f"{channels_in_words(n_channels)}"
            )
        return images, compute_dtype(*(images if isinstance(images, list) else [images]))

    def _grid(self, shape):
        spatial = shape if self.n_channels_ is None else shape[:-1]
        return PatchGrid(spatial, self._axes(), self.stride, self.n_channels_)

    def _grids(self, images):
        """Grid of every image; images of one shape share theirs."""
        shapes = shapes_of(images)
        known = {shape: self._grid(shape) for shape in dict.fromkeys(shapes)}
        return [known[shape] for shape in shapes]

    def _stack_grid(self, shape):
        """Grid of all images of an array at once."""
        spatial = shape if self.n_channels_ is None else shape[:-1]
        patch = self._axes()
        return PatchGrid(spatial, (1, *patch), (1, *check_axes("stride", self.stride, len(patch))), self.n_channels_)

    def _n_wanted(self, grid):
        """How many patches of an image are taken."""
        if self.max_patches is None:
            return grid.n_patches
        if isinstance(self.max_patches, Integral):
            return min(self.max_patches, grid.n_patches)
        return min(max(1, int(self.max_patches * grid.n_patches)), grid.n_patches)

    def _drawn(self, grid, image):
        """Numbers of the patches drawn from an image in rising order, or None for all."""
        wanted = self._n_wanted(grid)
        if wanted == grid.n_patches:
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
                    f"image_shapes must be of {IMAGES[len(self._axes())]} of {channels_in_words(self.n_channels_)}, "
                    f"or a list of such shapes without n, got {image_shapes}"
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


def _moved(images, device):
    return [to_device(image, device) for image in images] if isinstance(images, list) else to_device(images, device)


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
