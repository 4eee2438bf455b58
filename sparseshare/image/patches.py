"""Patches of signals, images and volumes: where they lie, their entries as rows, and the way back."""

from math import prod

import numpy as np

from sparseshare.devices import array_module, device_of, on_gpu, to_device
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, thread_count
from sparseshare.validation import check_axes, check_number, compute_dtype

_ROWS = 4096  # patches that a thread copies at a time


class PatchGrid:
    """Where the patches of an image lie.

    Patches start at the multiples of `stride` that leave room for a whole patch. They are numbered along the last axis
    first; the entries of a patch are ordered likewise, channels last. Arrays may be NumPy's or CuPy's: all is computed
    where they live.

    Parameters
    ----------
    shape : tuple of 1 to 3 ints
        Spatial shape: ``(time,)``, ``(height, width)`` or ``(depth, height, width)``.
    patch_shape : int or tuple of ints
        Of as many numbers as `shape`; an int is meant for every axis.
    stride : int or tuple of ints, default=1
        Steps from patch to patch.
    n_channels : int or None, default=None
        Channels of the image, its last axis; None: it has no such axis.

    Attributes
    ----------
    grid_shape : tuple of ints
        Patches along each axis.
    n_patches, n_features : int
        Patches in all, and entries of one.

    Raises
    ------
    ValueError
        If a patch does not fit, or the tuples have different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.image import PatchGrid
    >>> grid = PatchGrid((3, 4), patch_shape=2)
    >>> grid.grid_shape
    (2, 3)
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> grid.extract(image)[0]
    array([0., 1., 4., 5.])
    >>> np.array_equal(grid.overlap_add(grid.extract(image)), image)
    True
    """

    def __init__(self, shape, patch_shape, stride=1, n_channels=None):
        self.shape = tuple(int(check_number("shape", length, 1, integer=True)) for length in shape)
        if not 1 <= len(self.shape) <= 3:
            raise ValueError(f"shape must have 1 to 3 axes (signal, image, volume), got {shape}")
        self.patch_shape = check_axes("patch_shape", patch_shape, len(self.shape))
        self.stride = check_axes("stride", stride, len(self.shape))
        self.n_channels = check_number("n_channels", n_channels, 1, integer=True, allow_none=True)
        if any(size > length for size, length in zip(self.patch_shape, self.shape, strict=True)):
            raise ValueError(
                f"a patch of {self.patch_shape} does not fit into an image of {self.shape}: take smaller patches, or "
                "leave out images of this size"
            )
        self.grid_shape = tuple(
            (length - size) // step + 1
            for length, size, step in zip(self.shape, self.patch_shape, self.stride, strict=True)
        )
        self.n_patches, self.n_features = prod(self.grid_shape), prod(self.patch_shape) * (n_channels or 1)
        channels, leading = n_channels or 1, (1,) * (3 - len(self.shape))
        self._box = (*leading, *self.shape[:-1], self.shape[-1] * channels)
        self._patch = np.array((*leading, *self.patch_shape[:-1], self.patch_shape[-1] * channels))
        self._stride = np.array((*leading, *self.stride[:-1], self.stride[-1] * channels))
        self._grid = np.array((*leading, *self.grid_shape))

    @property
    def image_shape(self):
        """Shape of the whole image, channels included."""
        return self.shape if self.n_channels is None else (*self.shape, self.n_channels)

    def view(self, image):
        """The patches as a view of shape ``(*grid_shape, *patch_shape[, n_channels])``, not to be written to."""
        image, xp = self._check(image), array_module(image)
        spatial = tuple(range(len(self.shape)))
        windows = xp.lib.stride_tricks.sliding_window_view(image, self.patch_shape, axis=spatial)
        windows = windows[tuple(slice(None, None, step) for step in self.stride)]
        return windows if self.n_channels is None else xp.moveaxis(windows, len(self.shape), -1)

    def take(self, image, numbers):
        """Patches of any numbers as rows.

        Parameters
        ----------
        image : ndarray of shape `image_shape`
        numbers : ndarray of int64 of shape (n,), of the host

        Returns
        -------
        ndarray of shape (n, n_features)
            Of the dtype of the image on the CPU; on a GPU float32 stays float32, all else becomes float64.
        """
        image = self._check(image)
        if not on_gpu(image):
            return self.view(image)[np.unravel_index(numbers, self.grid_shape)].reshape(len(numbers), -1)
        box, rows = self._as_box(image, len(numbers))
        take = kernels_for(device_of(image), "patches").take_patches
        take(box, 0, self._patch, self._stride, self._grid, rows, to_device(numbers, device_of(image)))
        return rows

    def extract(self, image, first=0, last=None, *, out=None, n_jobs=None):
        """Patches `first` to `last` (excluded; None: all) as rows.

        Parameters
        ----------
        image : ndarray of shape `image_shape`
            float32 stays float32, all else becomes float64.
        first, last : int
        out : ndarray of shape (last - first, n_features), default=None
            Where to write.
        n_jobs : int or None, default=None
            Threads; None means all.

        Returns
        -------
        ndarray of shape (last - first, n_features)
        """
        image, last = self._check(image), self.n_patches if last is None else last
        box, rows = self._as_box(image, last - first, out)
        device = device_of(image)
        take = kernels_for(device, "patches").take_patches
        if device != "cpu":
            take(box, first, self._patch, self._stride, self._grid, rows)
            return rows

        def work(number, _):
            start = number * _ROWS
            part = rows[start : start + _ROWS]
            take(box, first + start, self._patch, self._stride, self._grid, part)

        run_in_threads(work, -(-len(rows) // _ROWS), thread_count(n_jobs))
        return rows

    def add(self, rows, total, first=0, *, n_jobs=None):
        """Add rows to `total` where patches `first`, `first` + 1, ... lie.

        Parameters
        ----------
        rows : ndarray of shape (n, n_features)
        total : ndarray of shape `image_shape`, C-contiguous
            In and out; of float64 on a GPU.
        first : int, default=0
        n_jobs : int or None, default=None
            Threads; None means all. Each owns a part of `total`, so the sums do not depend on how many there are.
        """
        device, box = device_of(rows), total.reshape(self._box)
        add, rows = kernels_for(device, "patches").add_patches, array_module(rows).ascontiguousarray(rows)
        if device != "cpu":
            add(rows, first, self._patch, self._stride, self._grid, np.zeros(3, np.int64), np.array(box.shape), box)
            return
        axis = 3 - len(self.shape)
        n_threads = min(thread_count(n_jobs), 1 + rows.size // 2**16, box.shape[axis])
        edges = np.linspace(0, box.shape[axis], n_threads + 1).astype(np.int64)

        def work(number, _):
            low, high = np.zeros(3, np.int64), np.array(box.shape)
            low[axis], high[axis] = edges[number], edges[number + 1]
            add(rows, first, self._patch, self._stride, self._grid, low, high, box)

        run_in_threads(work, n_threads, n_threads)

    def coverage(self):
        """How many patches cover each place of the image.

        Returns
        -------
        ndarray of int64 of shape `shape`
        """
        counts = np.ones((), np.int64)
        for length, size, step in zip(self.shape, self.patch_shape, self.stride, strict=True):
            along = np.zeros(length, np.int64)
            for start in range(0, length - size + 1, step):
                along[start : start + size] += 1
            counts = counts[..., None] * along
        return counts

    def overlap_add(self, rows, *, average=True, n_jobs=None):
        """The image that patches make: where they overlap, their mean or their sum.

        Parameters
        ----------
        rows : ndarray of shape (n_patches, n_features)
        average : bool, default=True
            Divide by `coverage`; places that no patch covers stay 0.
        n_jobs : int or None, default=None

        Returns
        -------
        ndarray of shape `image_shape`
        """
        rows = rows if on_gpu(rows) else np.asarray(rows)
        if rows.shape != (self.n_patches, self.n_features):
            raise ValueError(
                f"rows must have shape {(self.n_patches, self.n_features)} for a grid of {self.grid_shape} patches, "
                f"got {rows.shape}"
            )
        dtype = compute_dtype(rows)
        rows = rows.astype(dtype, copy=False)
        total = array_module(rows).zeros(self.image_shape)
        self.add(rows, total, n_jobs=n_jobs)
        if average:
            counts = to_device(np.maximum(self.coverage(), 1), device_of(rows))
            counts = counts if self.n_channels is None else counts[..., None]
            total /= counts
            if dtype == np.float64:
                total += self._left(rows, total, n_jobs) / counts
        return total.astype(dtype, copy=False)

    def _left(self, rows, mean, n_jobs):
        """Sums of what patches differ from their mean: rounding, which float32 numbers do not have in float64 sums."""
        left = array_module(rows).zeros(self.image_shape)
        for first in range(0, len(rows), 16 * _ROWS):
            part = rows[first : first + 16 * _ROWS]
            self.add(part - self.extract(mean, first, first + len(part), n_jobs=n_jobs), left, first, n_jobs=n_jobs)
        return left

    def _as_box(self, image, n_rows, out=None):
        """An image as the kernels take it, and where they write patches."""
        xp = array_module(image)
        image = xp.ascontiguousarray(image, dtype=compute_dtype(image))
        rows = xp.empty((n_rows, self.n_features), image.dtype) if out is None else out
        return image.reshape(self._box), rows

    def _check(self, image):
        image = image if on_gpu(image) else np.asarray(image)
        if image.shape != self.image_shape:
            raise ValueError(f"this grid is for images of shape {self.image_shape}, got one of {image.shape}")
        return image
