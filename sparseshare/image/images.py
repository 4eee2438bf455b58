"""Images as users give them: a stack, a list of different sizes, or flat rows; checked once, read part by part."""

from dataclasses import dataclass
from math import isqrt, prod

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.utils.random import sample_without_replacement

from sparseshare.devices import array_module, device_of, module_of, on_gpu
from sparseshare.sources import Stack, stack_of
from sparseshare.validation import check_each_finite, check_image_shape, check_kind, check_stack, compute_dtype

from .patches import PatchGrid

_PATCHES = 4096  # of a part: enough for threads to be worth their start, little enough for memory not to matter
_IMAGES = 64  # of a part: their pooled codes are held at once
_READ = 2**22  # pixels looked at at once
_READ_ON_GPU = 2**26
_GREY = 255.0


@dataclass(frozen=True)
class Part:
    """Whole images of one shape, or some rows of patches of one image.

    Attributes
    ----------
    first, last : int
        Images, `last` excluded.
    top, bottom : int
        Rows of patches, `bottom` excluded.
    block : int
        Number of the images' rows in the output: the parts of one image share it.
    """

    first: int
    last: int
    top: int
    bottom: int
    block: int


class Images:
    """Images with as many channels each, and the patches in them.

    Attributes
    ----------
    n_images, n_channels : int
    resident : bool
        Whether they live on a GPU.
    home : str
        Where they live: "cpu" or "cuda:N".
    dtype : numpy.dtype
        float32 or float64, what to compute in.
    same_shape : (int, int) or None
        Height and width, if all images share them.
    """

    def __init__(self, arrays, n_channels, stacked):
        self.arrays, self.n_channels, self.stacked = arrays, n_channels, stacked
        some = arrays if stacked else arrays[0]
        self.n_images, self.resident, self.home = len(arrays), on_gpu(some), device_of(some)
        self.dtype = compute_dtype(arrays) if stacked else compute_dtype(*arrays)
        shapes = {arrays.shape[1:3]} if stacked else {array.shape[:2] for array in arrays}
        self.same_shape = tuple(shapes.pop()) if len(shapes) == 1 else None

    def shape(self, number):
        """Height and width of an image."""
        return self.same_shape or self.arrays[number].shape[:2]

    def pixels(self, first, last, top=0, bottom=None):
        """Some lines of images of one shape.

        Returns
        -------
        ndarray of shape (last - first, bottom - top, width * n_channels)
            C-contiguous, of `dtype`, where the images live.

        Raises
        ------
        ValueError
            For NaN and infinity; the message says in which image.
        """
        if self.stacked:
            images, xp = self.arrays[first:last, top:bottom], array_module(self.arrays)
        else:
            xp = array_module(self.arrays[first])
            images = xp.stack([array[top:bottom] for array in self.arrays[first:last]])
        images = xp.ascontiguousarray(images, dtype=self.dtype).reshape(*images.shape[:2], -1)
        check_each_finite(images, first)
        return images

    def check_finite(self):
        """Look at every pixel once.

        Returns
        -------
        low, high : float
            The least and the largest.
        """
        low, high, first, most = np.inf, -np.inf, 0, _READ_ON_GPU if self.resident else _READ
        while first < self.n_images:
            last = first + 1
            size = prod(self.shape(first)) * self.n_channels
            while last < self.n_images and (last + 1 - first) * size <= most and self.shape(last) == self.shape(first):
                last += 1
            pixels = self.pixels(first, last)
            low, high, first = min(low, float(pixels.min())), max(high, float(pixels.max())), last
        return low, high

    def epsilon(self, low, high):
        """What to add to the variances of patches: 10 for grey values of 0 to 255, in proportion for other ranges."""
        dtype = self.arrays.dtype if self.stacked else self.arrays[0].dtype
        span = {"uint8": _GREY, "uint16": 65535.0, "bool": 1.0}.get(dtype.name, high - low)
        return 10 * ((span or _GREY) / _GREY) ** 2

    def grid(self, number, patch_shape, stride):
        """Where the patches of an image lie; one that is too small is named in the error."""
        try:
            return PatchGrid(self.shape(number), patch_shape, stride, self.n_channels)
        except ValueError as reason:
            raise ValueError(f"image {number}: {reason}") from reason

    def grids(self, patch_shape, stride):
        """`grid` of every image; images of one shape share theirs."""
        known = {}
        for number in range(1 if self.same_shape else self.n_images):
            shape = self.shape(number)
            if shape not in known:
                known[shape] = self.grid(number, patch_shape, stride)
        return [known[self.shape(number)] for number in range(self.n_images)]

    def parts(self, grids, n_patches=_PATCHES, n_images=_IMAGES):
        """Work to share out: images of one shape up to a number of patches, or rows of patches of a large one."""
        parts, block, first = [], 0, 0
        while first < self.n_images:
            grid, last = grids[first], first + 1
            rows, columns = grid.grid_shape
            if grid.n_patches > n_patches:
                step = max(1, n_patches // columns)
                parts += [Part(first, last, top, min(top + step, rows), block) for top in range(0, rows, step)]
            else:
                most = min(self.n_images, first + min(n_images, n_patches // grid.n_patches))
                while last < most and grids[last] is grid:
                    last += 1
                parts.append(Part(first, last, 0, rows, block))
            block, first = block + 1, last
        return parts

    def random_patches(self, grids, n_patches, random_state):
        """Patches from anywhere in the images, or all if there are no more, as rows in the order of the images."""
        ends = np.cumsum([grid.n_patches for grid in grids])
        chosen = np.arange(ends[-1])
        if n_patches < ends[-1]:
            chosen = np.sort(sample_without_replacement(int(ends[-1]), n_patches, random_state=random_state))
        rows = module_of(self.home).empty((len(chosen), grids[0].n_features), self.dtype)
        if isinstance(self.arrays, np.ndarray):
            number, place = np.divmod(chosen, grids[0].n_patches)
            y, x = np.divmod(place, grids[0].grid_shape[1])
            stride = grids[0].stride
            windows = sliding_window_view(self.arrays, grids[0].patch_shape, axis=(1, 2))
            for start in range(0, len(chosen), _PATCHES):
                part = slice(start, start + _PATCHES)
                patches = windows[number[part], y[part] * stride[0], x[part] * stride[1]]
                if self.arrays.ndim == 4:
                    patches = np.moveaxis(patches, 1, -1)
                rows[part] = patches.reshape(len(patches), -1)
            return rows
        starts = np.concatenate([[0], ends])
        edges = np.searchsorted(chosen, starts)
        for first, last in self._together(grids):
            own = slice(edges[first], edges[last])
            if own.start == own.stop:
                continue
            height, width = self.shape(first)
            one = grids[first]
            grid = PatchGrid((last - first, height, width), (1, *one.patch_shape), (1, *one.stride), self.n_channels)
            images = self.pixels(first, last).reshape(grid.image_shape)
            rows[own] = grid.take(images, chosen[own] - starts[first])
        return rows

    def _together(self, grids):
        """Images of a stack that are few enough to be cast at once; else one at a time."""
        if not self.stacked:
            return [(number, number + 1) for number in range(self.n_images)]
        step = max(1, (_READ_ON_GPU if self.resident else _READ) // (prod(self.same_shape) * self.n_channels))
        return [(first, min(first + step, self.n_images)) for first in range(0, self.n_images, step)]


def check_images(X, image_shape=None, *, fitted_shape=None, name="X"):
    """Accept images without copying them.

    Parameters
    ----------
    X : array of shape (n, height, width[, n_channels]), (n, height * width * n_channels), or list of images
        NumPy's, or CuPy's, which stay where they are; memory maps, zarr arrays and HDF5 data sets are read part by
        part.
    image_shape : tuple of 2 or 3 ints or None, default=None
        Height, width and channels of images given as flat rows. None: square images of one channel.
    fitted_shape : tuple or None, default=None
        What flat rows are taken for if `image_shape` is None.
    name : str, default="X"
        What the messages call it.

    Returns
    -------
    Images

    Raises
    ------
    ValueError, TypeError
        For anything else, images without pixels, channels that differ, and integers beside floats.
    """
    if image_shape is not None:
        image_shape = check_image_shape(image_shape)
    array = stack_of(X, name)
    if isinstance(array, Stack):
        check_kind(array, name)
    else:
        array = check_stack(X, name=name)
    if isinstance(array, list):
        return _check_list(array, image_shape, name)
    if array.ndim == 2:
        return _images_of_rows(array, image_shape or fitted_shape, name)
    if array.ndim > 4:
        raise ValueError(
            f"Found array with dim {array.ndim}: {name} must have the shape (n_images, height, width[, n_channels]) or "
            f"hold flat rows; got shape {array.shape}"
        )
    if 0 in array.shape:
        raise ValueError(f"{name} has no images, or images without pixels: its shape is {array.shape}")
    if image_shape is not None and _with_channels(array.shape[1:]) != _with_channels(image_shape):
        raise ValueError(f"{name} has images of shape {array.shape[1:]}, image_shape asks for {image_shape}")
    return Images(array, _with_channels(array.shape[1:])[2], stacked=True)


def _images_of_rows(rows, image_shape, name):
    n_features = rows.shape[1]
    if image_shape is None:
        side = isqrt(n_features)
        if side**2 != n_features:
            raise ValueError(
                f"{name} has flat rows of {n_features} pixels, which make no square image: give image_shape=(height, "
                "width) or (height, width, n_channels), or images of shape (n_images, height, width[, n_channels]); "
                "one image is image[None]"
            )
        image_shape = (side, side)
    if prod(image_shape) != n_features:
        raise ValueError(
            f"{name} has {n_features} columns, images of shape {tuple(image_shape)} have {prod(image_shape)} pixels "
            "and channels"
        )
    return Images(rows.reshape(len(rows), *image_shape), _with_channels(image_shape)[2], stacked=True)


def _check_list(arrays, image_shape, name):
    for number, array in enumerate(arrays):
        if array.ndim > 3 or 0 in array.shape:
            raise ValueError(
                f"image {number} of {name} must have the shape (height, width[, n_channels]), got {array.shape}"
            )
        if image_shape is not None and _with_channels(array.shape) != _with_channels(image_shape):
            raise ValueError(f"image {number} of {name} has shape {array.shape}, image_shape asks for {image_shape}")
    channels = [_with_channels(array.shape)[2] for array in arrays]
    other = next((number for number, count in enumerate(channels) if count != channels[0]), None)
    if other is not None:
        raise ValueError(
            f"image 0 of {name} has {channels[0]} channel(s), image {other} has {channels[other]}: all must have as "
            "many"
        )
    kinds = ["a float" if array.dtype.kind == "f" else array.dtype.name for array in arrays]
    other = next((number for number, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is not None:
        raise ValueError(
            f"image 0 of {name} has dtype {arrays[0].dtype}, image {other} has {arrays[other].dtype}: their grey "
            "values may be of different ranges. Convert all to one dtype and one range"
        )
    arrays = [array.reshape(_with_channels(array.shape)) for array in arrays]
    return Images(arrays, channels[0], stacked=False)


def _with_channels(shape):
    return tuple(shape) if len(shape) == 3 else (*shape, 1)
