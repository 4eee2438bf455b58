"""Codes of all patches of images, part by part: what is done to a part while it is in the cache."""

from threading import Lock

import numpy as np
from scipy.sparse import csr_array

from sparseshare.coding.encode import encode, warn_if_not_converged
from sparseshare.coding.problem import Problem, aligned_zeros
from sparseshare.coding.tiles import PRODUCT_ROWS, RowsInOrder, tile_run
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, single_threaded_blas, thread_count

_TILE_ENTRIES = 2**17  # products of patches and atoms: they stay in the second-level cache


class PatchCoder:
    """Patches of pixels to codes, for a dictionary that lives behind contrast normalisation and whitening.

    Parameters
    ----------
    dictionary : ndarray of shape (n_components, n_features)
    encoding : str
        "threshold", "triangle" or an algorithm of `sparse_encode`.
    options : dict
        Of the coding problem: alpha or n_nonzero_coefs, owner.
    epsilon : float or None
        Of the contrast normalisation; None leaves patches as they are.
    whitening : ZCAWhitening or None
    dtype : dtype
    """

    def __init__(self, dictionary, encoding, options, epsilon, whitening, dtype):
        n_components, n_features = dictionary.shape
        self.n_components, self.n_features, self.dtype = n_components, n_features, np.dtype(dtype)
        self.encoding, self.n_signs = encoding, 1 if encoding == "triangle" else 2
        self.normalise, self.epsilon = epsilon is not None, self.dtype.type(epsilon or 0)
        # x -> (x - mean) @ matrix; what follows is linear too where a threshold is the only thing that is not.
        matrix, mean = (np.eye(n_features), np.zeros(n_features)) if whitening is None else (
            whitening.whitening_, whitening.mean_
        )  # fmt: skip
        self.problem = None
        if encoding == "threshold":
            matrix = matrix @ dictionary.T.astype(np.float64)
            shift = mean @ matrix
            self._lower = (shift - options["alpha"]).astype(dtype)
            self._upper = (shift + options["alpha"]).astype(dtype)
        else:
            self._shift = (mean @ matrix).astype(dtype)
            self._atoms = np.ascontiguousarray(dictionary.T, dtype)
            self._norms2 = np.einsum("kf,kf->k", dictionary, dictionary, dtype=np.float64).astype(dtype)
            if encoding != "triangle":
                self.problem = Problem(dictionary.astype(dtype), algorithm=encoding, **options)
        self._matrix = aligned_zeros(matrix.shape, self.dtype)
        self._matrix[:] = matrix
        rows = _TILE_ENTRIES // n_components // PRODUCT_ROWS * PRODUCT_ROWS
        self.n_tile = min(max(rows, PRODUCT_ROWS), 8 * PRODUCT_ROWS)
        self._kernels, self._pooling = kernels_for("cpu", "features"), kernels_for("cpu", "pooling")
        self._scratch, self._lock, self._unsolved = {}, Lock(), []

    def pool(self, pixels, grid, n_rows, cells, top, blocks, worker):
        """Add codes to the blocks that they lie in.

        Parameters
        ----------
        pixels : ndarray of shape (n_images, lines, width * n_channels)
        grid : PatchGrid
        n_rows : int
            Rows of patches in these lines.
        cells : Cells
        top : int
            Row of the map that they begin with.
        blocks : ndarray of shape (n_images, *cells.shape, n_signs, n_components)
            In and out.
        worker : int
            Number of the thread.
        """
        row_block, column_block = cells.block_of
        place, maximum = (row_block[top : top + n_rows], column_block), cells.maximum
        if self.problem is not None:
            codes = self._sparse_codes(pixels, grid, n_rows, worker)
            self._pooling.pool_codes(codes.indptr, codes.indices, codes.data, 0, *place, maximum, blocks)
            return
        for first, n, products, norms2 in self._products(pixels, grid, n_rows, worker):
            if self.encoding == "threshold":
                self._pooling.pool_thresholded(
                    products, n, first, *place, self._lower, self._upper, maximum, blocks
                )  # fmt: skip
            else:
                self._pooling.pool_nearness(products, n, first, *place, norms2, self._norms2, maximum, blocks)

    def rows(self, pixels, grid, n_rows, worker):
        """Signed codes of the patches of some lines of images, a row a patch: an ndarray, or a csr_array if sparse."""
        if self.problem is not None:
            return self._sparse_codes(pixels, grid, n_rows, worker)
        out = np.empty((len(pixels) * n_rows * grid.grid_shape[1], self.n_components), self.dtype)
        for first, n, products, norms2 in self._products(pixels, grid, n_rows, worker):
            if self.encoding == "threshold":
                products = products[:n]
                plus = np.maximum(products - self._upper, 0)
                np.subtract(plus, np.maximum(self._lower - products, 0), out=out[first : first + n])
            else:
                self._pooling.nearness_rows(products, n, norms2, self._norms2)
                out[first : first + n] = products[:n]
        return out

    def run(self, work, n_items, n_jobs):
        """Threads over items, BLAS on one thread; warns once about codes that have not converged."""
        with single_threaded_blas if self.problem is None else tile_run(self.problem):
            run_in_threads(work, n_items, thread_count(n_jobs))
        if self._unsolved:
            gap, converged = (np.concatenate(parts) for parts in zip(*self._unsolved, strict=True))
            warn_if_not_converged(_Unsolved(gap, converged), self.problem, stacklevel=5)

    def _products(self, pixels, grid, n_rows, worker):
        """Tiles of patches times the matrix, and their squared norms where distances are asked for."""
        for first, n, columns, scratch in self._tiles(pixels, grid, n_rows, worker):
            if self.encoding == "threshold":
                yield first, n, np.matmul(columns.T, self._matrix, out=scratch["products"]), None
            else:
                white = self._white(columns, scratch)
                norms2 = np.einsum("tf,tf->t", white, white)
                yield first, n, np.matmul(white, self._atoms, out=scratch["products"]), norms2

    def _white(self, columns, scratch):
        white = np.matmul(columns.T, self._matrix, out=scratch["white"])
        white -= self._shift
        return white

    def _sparse_codes(self, pixels, grid, n_rows, worker):
        rows = np.empty((len(pixels) * n_rows * grid.grid_shape[1], self.n_features), self.dtype)
        for first, n, columns, scratch in self._tiles(pixels, grid, n_rows, worker):
            rows[first : first + n] = self._white(columns, scratch)[:n]
        codes = encode(rows, self.problem, n_jobs=1)
        if not codes.converged.all():
            with self._lock:
                self._unsolved.append((codes.gap, codes.converged))
        return codes.values

    def _tiles(self, pixels, grid, n_rows, worker):
        """Patches of images as columns, as many a tile: a product of another shape may have other last bits."""
        if worker not in self._scratch:
            tile, dtype = self.n_tile, self.dtype
            self._scratch[worker] = {
                "columns": aligned_zeros((self.n_features, tile), dtype),
                "white": aligned_zeros((tile, self.n_features), dtype),
                "products": aligned_zeros((tile, self.n_components), dtype),
            }
        scratch, columns = self._scratch[worker], self._scratch[worker]["columns"]
        width = grid.grid_shape[1]
        channels = grid.n_channels or 1
        shape = np.array((n_rows, width))
        patch = np.array((grid.patch_shape[0], grid.patch_shape[1] * channels))
        stride = np.array((grid.stride[0], grid.stride[1] * channels))
        n_patches = len(pixels) * n_rows * width
        for first in range(0, n_patches, self.n_tile):
            n = min(self.n_tile, n_patches - first)
            self._kernels.load_patches(
                pixels, first, n, patch, stride, shape, self.epsilon, self.normalise, columns
            )  # fmt: skip
            yield first, n, columns, scratch


class _Unsolved:
    """What `warn_if_not_converged` reads of codes."""

    def __init__(self, gap, converged):
        self.gap, self.converged = gap, converged


def pooled_features(images, grids, cell_grid, coder, split_sign, sparse_output, n_jobs):
    """Pooled codes of images as rows.

    Parameters
    ----------
    images : Images
    grids : list of PatchGrid
        One an image.
    cell_grid : CellGrid
    coder : PatchCoder
    split_sign, sparse_output : bool
    n_jobs : int or None

    Returns
    -------
    ndarray or csr_array of shape (n_images, n_cells * n_signs * n_components)
    """
    n_signs = coder.n_signs if split_sign else 1
    n_columns = cell_grid.n_cells * n_signs * coder.n_components
    parts = images.parts(grids)
    n_missing = np.bincount([part.block for part in parts])
    cells = {grid.grid_shape: cell_grid.on(grid.grid_shape) for grid in set(grids)}
    if sparse_output:
        packed = RowsInOrder(images.n_images, n_columns, coder.dtype, images.n_images)
    else:
        out = np.empty((images.n_images, n_columns), coder.dtype)
    lock, waiting = Lock(), {}

    def work(number, worker):
        part = parts[number]
        grid = grids[part.first]
        own = cells[grid.grid_shape]
        blocks = np.zeros((part.last - part.first, *own.shape, coder.n_signs, coder.n_components), coder.dtype)
        pixels = pixels_of(images, part, grid)
        coder.pool(pixels, grid, part.bottom - part.top, own, part.top, blocks, worker)
        if n_missing[part.block] > 1:
            blocks = _merged(part, blocks)
            if blocks is None:
                return
        rows = own.features(blocks, split_sign).reshape(len(blocks), -1)
        if sparse_output:
            codes = csr_array(rows)
            packed.put(part.block, np.diff(codes.indptr), codes.indices, codes.data)
        else:
            out[part.first : part.last] = rows

    def _merged(part, blocks):
        """Blocks of a whole image once its last part has come, merged from top to bottom."""
        with lock:
            parts_of_image = waiting.setdefault(part.block, {})
            parts_of_image[part.top] = blocks
            if len(parts_of_image) < n_missing[part.block]:
                return None
            del waiting[part.block]
        total, own = 0.0, cells[grids[part.first].grid_shape]
        for top in sorted(parts_of_image):
            total = own.merge(total, parts_of_image[top].astype(np.float64))
        return total.astype(coder.dtype)

    coder.run(work, len(parts), n_jobs)
    return packed.csr() if sparse_output else out


def code_maps(images, grids, coder, split_sign, sparse_output, n_jobs):
    """Codes of every patch.

    Parameters
    ----------
    images, grids, coder, split_sign, n_jobs : as in `pooled_features`
    sparse_output : bool

    Returns
    -------
    csr_array of shape (n_patches, n_maps), or a list of ndarrays of shape (rows, columns, n_maps), one an image
    """
    n_components, split = coder.n_components, split_sign and coder.n_signs == 2
    n_maps = 2 * n_components if split else n_components
    parts = images.parts(grids)
    starts = np.concatenate([[0], np.cumsum([grid.n_patches for grid in grids])])
    if sparse_output:
        packed = RowsInOrder(starts[-1], n_maps, coder.dtype, starts[-1])
    else:
        out = np.empty((starts[-1], n_maps), coder.dtype)

    def work(number, worker):
        part = parts[number]
        grid = grids[part.first]
        codes = coder.rows(pixels_of(images, part, grid), grid, part.bottom - part.top, worker)
        if sparse_output:
            codes = csr_array(codes)
            atoms, values = codes.indices, codes.data
            if split:
                atoms, values = np.where(values < 0, atoms + n_components, atoms), abs(values)
            packed.put(number, np.diff(codes.indptr), atoms.astype(np.int32), values)
            return
        codes = codes if isinstance(codes, np.ndarray) else codes.toarray()
        first = starts[part.first] + part.top * grid.grid_shape[1]
        rows = out[first : first + len(codes)]
        if split:
            np.maximum(codes, 0, out=rows[:, :n_components])
            np.maximum(-codes, 0, out=rows[:, n_components:])
        else:
            rows[:] = codes

    coder.run(work, len(parts), n_jobs)
    if sparse_output:
        codes = packed.csr()
        if split:
            codes.has_sorted_indices = False
            codes.sort_indices()
        return codes
    return [out[starts[i] : starts[i + 1]].reshape(*grid.grid_shape, n_maps) for i, grid in enumerate(grids)]


def pixels_of(images, part, grid):
    """The lines of a part's images that its patches lie in."""
    step, height = grid.stride[0], grid.patch_shape[0]
    return images.pixels(part.first, part.last, part.top * step, (part.bottom - 1) * step + height)
