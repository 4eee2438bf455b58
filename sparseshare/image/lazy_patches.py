"""Patches as rows that are cut from their images when they are asked for."""

from collections import OrderedDict
from threading import Lock

import numpy as np

from sparseshare.devices import on_gpu
from sparseshare.mapping import mapped_file
from sparseshare.sources import Source
from sparseshare.validation import check_axes, check_bool, check_choice, check_kind, compute_dtype

from .patches import PatchGrid

_KEPT_BYTES = 2**25  # of images that have been read


class LazyPatches(Source):
    """Patches of images as rows for the learners and coders, never stored: they are cut when they are read.

    Rows follow the images in their order, and within an image the patches in theirs, as those of `PatchExtractor` do.

    Parameters
    ----------
    images : array of shape (n, height, width[, n_channels]), or list of arrays or of whatever `reader` takes
        The array may be a memory map, a zarr array or an HDF5 data set. Images of a list may have different sizes.
    patch_shape : int or (int, int), default=8
        Height and width of a patch.
    stride : int or (int, int), default=1
        Steps from patch to patch, in pixels.
    centered : bool, default=False
        Subtract from every patch its mean.
    normalized : bool, default=False
        Divide every patch by its Euclidean norm; flat patches, of norm 0, stay zero.
    transformer : object, default=None
        A fitted transformer of rows, such as `ContrastNormalization` or `ZCAWhitening`, whose `transform` patches go
        through last.
    reader : callable, default=None
        Makes an array (height, width[, n_channels]) of an entry of a list: of a file name, say. Another thread than the
        caller's may call it, one call at a time. Images that have been read are kept up to 32 MB.
    image_shape : tuple of ints, default=None
        Shape of all images that `reader` makes. None: every image is read once to see its shape.
    dtype : numpy.float32, numpy.float64 or None, default=None
        None: float32 if the images are, else float64.

    Attributes
    ----------
    shape : (int, int)
        Patches, and entries of one.
    dtype : numpy.dtype

    Raises
    ------
    ValueError
        For parameters out of range, images smaller than a patch or of other channels than the first.
    BlockError
        When patches are read, for pixels that are NaN or infinite and images that cannot be read; it names the rows.

    See Also
    --------
    PatchExtractor : Patches as an array, in memory or on disk, and images of patches.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.image import LazyPatches
    >>> from sparseshare.learning import MiniBatchDictionaryLearning
    >>> images = np.random.default_rng(0).random((3, 20, 30))
    >>> patches = LazyPatches(images, 4, centered=True)
    >>> patches.shape
    (1377, 16)
    >>> learner = MiniBatchDictionaryLearning(8, alpha=0.2, max_iter=2, random_state=0).fit(patches)
    >>> learner.transform(patches).shape
    (1377, 8)
    """

    def __init__(
        self,
        images,
        patch_shape=8,
        *,
        stride=1,
        centered=False,
        normalized=False,
        transformer=None,
        reader=None,
        image_shape=None,
        dtype=None,
    ):
        self._centered = check_bool("centered", centered, of="LazyPatches")
        self._normalized = check_bool("normalized", normalized, of="LazyPatches")
        if reader is not None and not callable(reader):
            raise ValueError(f"The 'reader' parameter of LazyPatches must be a callable or None, got {reader!r}")
        self._patch_shape = check_axes("patch_shape", patch_shape, 2, of="LazyPatches")
        self._stride = check_axes("stride", stride, 2, of="LazyPatches")
        self._images, self._reader, self._transformer = images, reader, transformer
        self._stacked = hasattr(images, "shape")
        if on_gpu(images) or (not self._stacked and len(images) and on_gpu(images[0])):
            raise TypeError("LazyPatches cuts images of the host: use PatchExtractor for those of a GPU")
        self._kept, self._lock = OrderedDict(), Lock()
        self._mapped = mapped_file(images) if self._stacked else None
        shapes, found = self._shapes(image_shape)
        self._n_channels = shapes[0][2] if len(shapes[0]) == 3 else None
        known = {shape: self._grid(number, shape) for number, shape in reversed(list(enumerate(shapes)))}
        self._grids = [known[shape] for shape in shapes]
        self._ends = np.cumsum([grid.n_patches for grid in self._grids])
        if dtype is None:
            dtype = np.float64 if found is None else compute_dtype(found)
        dtype = np.dtype(check_choice("dtype", np.dtype(dtype).name, ("float32", "float64"), of="LazyPatches"))
        super().__init__((int(self._ends[-1]), known[shapes[0]].n_features), dtype)

    def read(self, rows):
        """Patches of a slice of rows."""
        out, first = np.empty((rows.stop - rows.start, self._grids[0].n_features), self.dtype), rows.start
        while first < rows.stop:
            number = int(np.searchsorted(self._ends, first, side="right"))
            grid, end = self._grids[number], int(self._ends[number])
            last, before = min(rows.stop, end), end - self._grids[number].n_patches
            image = self._image(number)
            grid.extract(
                image, first - before, last - before, out=out[first - rows.start : last - rows.start], n_jobs=1
            )
            first = last
        if self._centered:
            out -= out.mean(axis=1, keepdims=True)
        if self._normalized:
            norms = np.sqrt(np.einsum("ij,ij->i", out, out))[:, None]
            np.divide(out, norms, out=out, where=norms > 0)
        if self._transformer is not None:
            out = np.asarray(self._transformer.transform(out))
        return out

    def _image(self, number):
        """An image in the dtype of the patches; those read last are kept."""
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            if self._mapped is not None:
                self._mapped.check_size()
            image = self._images[number] if self._reader is None else self._reader(self._images[number])
            image = np.array(image, dtype=self.dtype, order="C")
            if self._mapped is not None:
                self._mapped.release()
            if image.shape != self._grids[number].image_shape:
                raise ValueError(
                    f"image {number} has the shape {image.shape}, {self._grids[number].image_shape} was announced"
                )
            self._kept[number] = image
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
            return image

    def _shapes(self, image_shape):
        """Shape of every image, and the dtype of the first, where it is known."""
        if self._stacked:
            shape = tuple(self._images.shape)
            if len(shape) not in (3, 4) or 0 in shape:
                raise ValueError(
                    f"images must be (n, height, width[, n_channels]), got {shape}; one alone is image[None]"
                )
            check_kind(self._images, "images")
            return [shape[1:]] * shape[0], self._images.dtype
        self._images = list(self._images)
        if not self._images:
            raise ValueError("Found a list with 0 images: at least one is needed")
        if self._reader is not None and image_shape is not None:
            return [tuple(image_shape)] * len(self._images), None
        shapes, dtypes = [], []
        for number, image in enumerate(self._images):
            image = image if self._reader is None else np.asarray(self._reader(image))
            if getattr(image, "ndim", 0) not in (2, 3):
                hint = "" if hasattr(image, "ndim") else ": give a reader that makes arrays of what the list holds"
                raise ValueError(
                    f"image {number} must be an array (height, width[, n_channels]), got "
                    f"{getattr(image, 'shape', type(image).__name__)}{hint}"
                )
            check_kind(image, f"image {number}")
            shapes.append(tuple(image.shape))
            dtypes.append(image.dtype)
            if shapes[-1][2:] != shapes[0][2:]:
                raise ValueError(f"image 0 has the shape {shapes[0]}, image {number} has {shapes[-1]}: channels differ")
        return shapes, compute_dtype(*dtypes)

    def _grid(self, number, shape):
        try:
            return PatchGrid(shape[:2], self._patch_shape, self._stride, self._n_channels)
        except ValueError as reason:
            raise ValueError(f"image {number}: {reason}") from reason
