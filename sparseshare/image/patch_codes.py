"""Codes of all patches of images, part by part: what is done to a part while it is in the cache, or on a GPU."""

from threading import Lock

import numpy as np

from sparseshare.buffering import paged_empty
from sparseshare.coding.device_rows import ArrivingRows, entries_of
from sparseshare.coding.encode import encode, warn_if_not_converged
from sparseshare.coding.problem import Problem, aligned_zeros
from sparseshare.coding.tiles import PRODUCT_ROWS, RowsInOrder, tile_run
from sparseshare.devices import (
    array_module,
    computing_on,
    device_of,
    memory_errors,
    module_of,
    rows_that_fit,
    to_device,
    to_host,
)
from sparseshare.kernels.dispatch import kernels_for, plain
from sparseshare.outputs import write_pieces
from sparseshare.sources import Stack
from sparseshare.staging import StagedRows
from sparseshare.threads import run_in_threads, single_threaded_blas, thread_count
from sparseshare.validation import check_each_finite

_TILE_ENTRIES = 2**17  # products of patches and atoms: they stay in the second-level cache
_PIECE_ENTRIES = 2**27  # the same on a GPU: enough for it to be busy
_WRITTEN_BYTES = 2**25  # of features that are written at once
_PARTS_AT_ONCE = 256  # for features that are written at once: enough for threads not to wait long for the last of them


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
    device : str, default="cpu"
        Where to compute, as `resolve_device` returns it.
    """

    def __init__(self, dictionary, encoding, options, epsilon, whitening, dtype, device="cpu"):
        dictionary, self.device, self._xp = to_host(dictionary), device, module_of(device)
        n_components, n_features = dictionary.shape
        self.n_components, self.n_features, self.dtype = n_components, n_features, np.dtype(dtype)
        self.encoding, self.n_signs = encoding, 1 if encoding == "triangle" else 2
        self.normalise, self.epsilon = epsilon is not None, self.dtype.type(epsilon or 0)
        # x -> (x - mean) @ matrix; what follows is linear too where a threshold is the only thing that is not.
        matrix, mean = (np.eye(n_features), np.zeros(n_features)) if whitening is None else (
            to_host(whitening.whitening_), to_host(whitening.mean_)
        )  # fmt: skip
        self.problem = None
        if encoding == "threshold":
            matrix = matrix @ dictionary.T.astype(np.float64)
            shift = mean @ matrix
            self._lower = self._placed((shift - options["alpha"]).astype(dtype))
            self._upper = self._placed((shift + options["alpha"]).astype(dtype))
        else:
            self._shift = self._placed((mean @ matrix).astype(dtype))
            self._atoms = self._placed(np.ascontiguousarray(dictionary.T, dtype))
            norms2 = np.einsum("kf,kf->k", dictionary, dictionary, dtype=np.float64)
            self._norms2 = self._placed(norms2.astype(dtype))
            if encoding != "triangle":
                self.problem = Problem(dictionary.astype(dtype), algorithm=encoding, **options)
        self._matrix = aligned_zeros(matrix.shape, self.dtype)
        self._matrix[:] = matrix
        self._matrix = self._placed(self._matrix)
        rows = _TILE_ENTRIES // n_components // PRODUCT_ROWS * PRODUCT_ROWS
        self.n_tile = min(max(rows, PRODUCT_ROWS), 8 * PRODUCT_ROWS)
        self._kernels, self._pooling = kernels_for(device, "features"), kernels_for(device, "pooling")
        self._scratch, self._lock, self._unsolved = {}, Lock(), []

    def _placed(self, array):
        return to_device(array, self.device)

    @property
    def part_sizes(self):
        """Patches and images that a part may have, where not those that suit a CPU: arguments of `Images.parts`."""
        if self.device == "cpu":
            return ()
        entries = 2 * self.n_features + 2 * self.n_components
        most = rows_that_fit(self.device, entries * self.dtype.itemsize, most=max(2 * _PIECE_ENTRIES // entries, 1))
        return most, most

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
        xp = self._xp
        out = xp.empty((len(pixels) * n_rows * grid.grid_shape[1], self.n_components), self.dtype)
        for first, n, products, norms2 in self._products(pixels, grid, n_rows, worker):
            if self.encoding == "threshold":
                products = products[:n]
                plus = xp.maximum(products - self._upper, 0)
                xp.subtract(plus, xp.maximum(self._lower - products, 0), out=out[first : first + n])
            else:
                self._pooling.nearness_rows(products, n, norms2, self._norms2)
                out[first : first + n] = products[:n]
        return out

    def run(self, work, images, grids, parts, n_jobs):
        """Go through parts of images.

        Parameters
        ----------
        work : callable
            ``work(number, part, pixels, worker, launched)``: the lines of the part's images that its patches lie in,
            where they are worked on; the number of the thread; and what to call when all work on a GPU is on its way.
        images : Images
        grids : list of PatchGrid
        parts : list of Part
            Of the sizes that `part_sizes` says, one after the other.
        n_jobs : int or None
        """

        def on_cpu(number, worker):
            part = parts[number]
            work(number, part, plain(pixels_of(images, part, grids[part.first])), worker, _nothing)

        if self.device == "cpu":
            with single_threaded_blas if self.problem is None else tile_run(self.problem):
                run_in_threads(on_cpu, len(parts), thread_count(n_jobs))
        else:
            with computing_on(self.device), memory_errors(self.device, "codes of patches"):
                for number, (pixels, launched) in enumerate(_staged(images, parts, grids, self.device)):
                    work(number, parts[number], pixels, 0, launched)

    def warn_if_not_converged(self):
        """Say how many codes of all runs have not converged; for functions that estimators call."""
        if self._unsolved:
            gap, converged = (np.concatenate(parts) for parts in zip(*self._unsolved, strict=True))
            warn_if_not_converged(_Unsolved(gap, converged), self.problem, stacklevel=5)

    def _products(self, pixels, grid, n_rows, worker):
        """Tiles of patches times the matrix, and their squared norms where distances are asked for."""
        for first, n, columns, scratch in self._tiles(pixels, grid, n_rows, worker):
            if self.encoding == "threshold":
                yield first, n, self._xp.matmul(columns.T, self._matrix, out=scratch.get("products")), None
            else:
                white = self._white(columns, scratch)
                norms2 = self._xp.square(white).sum(axis=1)
                yield first, n, self._xp.matmul(white, self._atoms, out=scratch.get("products")), norms2

    def _white(self, columns, scratch):
        white = self._xp.matmul(columns.T, self._matrix, out=scratch.get("white"))
        white -= self._shift
        return white

    def _sparse_codes(self, pixels, grid, n_rows, worker):
        rows = self._xp.empty((len(pixels) * n_rows * grid.grid_shape[1], self.n_features), self.dtype)
        for first, n, columns, scratch in self._tiles(pixels, grid, n_rows, worker):
            rows[first : first + n] = self._white(columns, scratch)[:n]
        codes = encode(rows, self.problem, n_jobs=1, device=self.device)
        if not codes.converged.all():
            with self._lock:
                self._unsolved.append((codes.gap, codes.converged))
        return codes.values

    def _tiles(self, pixels, grid, n_rows, worker):
        """Patches of images as columns, as many a tile: a product of another shape may have other last bits.

        A GPU takes all in one tile, and its memory from CuPy's pool.
        """
        n_patches = len(pixels) * n_rows * grid.grid_shape[1]
        if self.device != "cpu":
            columns, scratch, n_tile = self._xp.empty((self.n_features, n_patches), self.dtype), {}, n_patches
        else:
            columns, scratch, n_tile = *self._scratch_of(worker), self.n_tile
        channels = grid.n_channels or 1
        shape = np.array((n_rows, grid.grid_shape[1]))
        patch = np.array((grid.patch_shape[0], grid.patch_shape[1] * channels))
        stride = np.array((grid.stride[0], grid.stride[1] * channels))
        for first in range(0, n_patches, n_tile):
            n = min(n_tile, n_patches - first)
            self._kernels.load_patches(
                pixels, first, n, patch, stride, shape, self.epsilon, self.normalise, columns
            )  # fmt: skip
            yield first, n, columns, scratch

    def _scratch_of(self, worker):
        """Columns of a thread, and all its scratch."""
        if worker not in self._scratch:
            tile, dtype = self.n_tile, self.dtype
            self._scratch[worker] = {
                "columns": aligned_zeros((self.n_features, tile), dtype),
                "white": aligned_zeros((tile, self.n_features), dtype),
                "products": aligned_zeros((tile, self.n_components), dtype),
            }
        return self._scratch[worker]["columns"], self._scratch[worker]


def _nothing():
    """What to do when work has been launched that is done already."""


class _Between:
    """Some of the rows of a stack, which are read when they are asked for."""

    def __init__(self, stack, first, last):
        self._stack, self._first, self.shape = stack, first, (last - first, *stack.shape[1:])

    def __getitem__(self, rows):
        return self._stack[self._first + rows.start : self._first + rows.stop]


def _staged(images, parts, grids, device):
    """Pixels of every part on a GPU, and a function that sends those of the next part on their way."""
    stack, grid, one = images.arrays, grids[0], parts[0]
    whole = one.bottom == grid.grid_shape[0]
    in_rows = isinstance(stack, Stack) or (images.stacked and stack.flags.c_contiguous)
    if images.resident or not (in_rows and whole and stack.dtype.isnative):
        for part in parts:
            yield to_device(pixels_of(images, part, grids[part.first]), device), _nothing
        return
    lines = (grid.grid_shape[0] - 1) * grid.stride[0] + grid.patch_shape[0]
    rows = _Between(stack.reshape(len(stack), -1), one.first, parts[-1].last)
    staged = StagedRows(rows, stack.dtype, device, one.last - one.first)
    for rows, block in staged:
        pixels = block.reshape(len(block), images.same_shape[0], -1)[:, :lines]
        pixels = array_module(block).ascontiguousarray(pixels, dtype=images.dtype)
        check_each_finite(pixels, one.first + rows.start)
        yield pixels, staged.prefetch


class _Unsolved:
    """What `warn_if_not_converged` reads of codes."""

    def __init__(self, gap, converged):
        self.gap, self.converged = gap, converged


def pooled_features(images, grids, cell_grid, coder, split_sign, sparse_output, n_jobs, out=None):
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
    out : array to be written to, default=None
        Gets dense rows, those of some images at a time.

    Returns
    -------
    ndarray or csr_array of shape (n_images, n_cells * n_signs * n_components)
        Or `out`.
    """
    n_columns = cell_grid.n_cells * (coder.n_signs if split_sign else 1) * coder.n_components
    parts, home = images.parts(grids, *coder.part_sizes), images.home
    n_missing = np.bincount([part.block for part in parts])
    cells = {grid.grid_shape: cell_grid.on(grid.grid_shape) for grid in set(grids)}
    lock, waiting = Lock(), {}

    def pool(parts, put):
        """Hand the rows of whole images to ``put(part, rows, launched)``."""

        def work(number, part, pixels, worker, launched):
            grid = grids[part.first]
            own = cells[grid.grid_shape]
            shape = part.last - part.first, *own.shape, coder.n_signs, coder.n_components
            blocks = module_of(coder.device).zeros(shape, coder.dtype)
            coder.pool(pixels, grid, part.bottom - part.top, own, part.top, blocks, worker)
            if n_missing[part.block] > 1:
                blocks = _merged(part, blocks)
                if blocks is None:
                    return
            put(part, own.features(blocks, split_sign).reshape(len(blocks), -1), launched)

        coder.run(work, images, grids, parts, n_jobs)

    def _merged(part, blocks):
        """Blocks of a whole image once its last part has come, merged from top to bottom."""
        with lock:
            parts_of_image = waiting.setdefault(part.block, {})
            parts_of_image[part.top] = blocks
            if len(parts_of_image) < n_missing[part.block]:
                return None
            del waiting[part.block]
        total, own = None, cells[grids[part.first].grid_shape]
        for top in sorted(parts_of_image):
            more = parts_of_image[top].astype(np.float64)
            total = more if total is None else own.merge(total, more)
        return total.astype(coder.dtype)

    def fill(rows, parts):
        """Put the rows of parts into an array."""
        first, there = parts[0].first, device_of(rows)

        def put(part, features, launched):
            launched()
            rows[part.first - first : part.last - first] = to_device(features, there)

        pool(parts, put)
        return rows

    def pieces():
        for number, some in enumerate(_together(parts, _WRITTEN_BYTES // (n_columns * coder.dtype.itemsize))):
            first, last = some[0].first, some[-1].last
            yield number, first, fill(paged_empty((last - first, n_columns), coder.dtype), some)

    if out is not None:
        features = write_pieces(pieces(), out, (images.n_images, n_columns), what="features")
    elif sparse_output:
        packed = _rows_at(home, images.n_images, n_columns, coder.dtype)

        def pack(part, features, launched):
            entries = entries_of(features)
            launched()
            packed.put(part.block, *(to_device(array, home) for array in entries))

        pool(parts, pack)
        features = packed.csr()
    else:
        features = fill(module_of(home).empty((images.n_images, n_columns), coder.dtype), parts)
    coder.warn_if_not_converged()
    return features


def _together(parts, n_images):
    """Lists of some parts that follow each other: of as many images, if these are no more parts than go at once."""
    some = []
    for part in parts:
        enough = some and (part.last - some[0].first > n_images or len(some) >= _PARTS_AT_ONCE)
        if enough and part.block != some[-1].block:  # an image stays together
            yield some
            some = []
        some.append(part)
    yield some


def code_maps(images, grids, coder, split_sign, sparse_output, n_jobs):
    """Codes of every patch.

    Parameters
    ----------
    images, grids, coder, split_sign, n_jobs : as in `pooled_features`
    sparse_output : bool

    Returns
    -------
    ndarray or csr_array of shape (n_patches, n_maps)
    """
    n_components, split = coder.n_components, split_sign and coder.n_signs == 2
    n_maps = 2 * n_components if split else n_components
    starts, home = np.concatenate([[0], np.cumsum([grid.n_patches for grid in grids])]), images.home
    if sparse_output:
        packed = _rows_at(home, starts[-1], n_maps, coder.dtype)
    else:
        out = module_of(home).empty((starts[-1], n_maps), coder.dtype)

    def work(number, part, pixels, worker, launched):
        grid = grids[part.first]
        codes = coder.rows(pixels, grid, part.bottom - part.top, worker)
        xp = module_of(coder.device)
        if sparse_output:
            lengths, atoms, values = entries_of(codes)
            if split:
                order = _order_of_split(lengths, atoms, values, n_components)
                atoms, values = xp.where(values < 0, atoms + n_components, atoms)[order], xp.abs(values)[order]
            launched()
            packed.put(number, *(to_device(array, home) for array in (lengths, atoms.astype(np.int32), values)))
            return
        codes = codes.toarray() if hasattr(codes, "toarray") else codes
        if split:
            codes = xp.concatenate([xp.maximum(codes, 0), xp.maximum(-codes, 0)], axis=1)
        launched()
        first = starts[part.first] + part.top * grid.grid_shape[1]
        out[first : first + len(codes)] = to_device(codes, home)

    coder.run(work, images, grids, images.parts(grids, *coder.part_sizes), n_jobs)
    coder.warn_if_not_converged()
    return packed.csr() if sparse_output else out


def _order_of_split(lengths, atoms, values, n_components):
    """Order of entries in which rows are sorted when their negative parts have moved behind the positive ones."""
    xp = array_module(values)
    row = xp.searchsorted(xp.cumsum(lengths), xp.arange(len(values)), side="right")
    return xp.argsort(2 * n_components * row + n_components * (values < 0) + atoms, kind="stable")


def _rows_at(home, n_rows, n_columns, dtype):
    """What collects rows of a CSR array on a device: `put(number, lengths, columns, values)`, `csr()`."""
    if home == "cpu":
        return RowsInOrder(n_rows, n_columns, dtype, n_rows)
    return _RowsOnDevice((n_rows, n_columns), dtype, True, home)


class _RowsOnDevice(ArrivingRows):
    """Whose parts come in their order anyway."""

    def put(self, number, *entries):
        super().put(*entries)

    def csr(self):
        return self.array()


def pixels_of(images, part, grid):
    """The lines of a part's images that its patches lie in."""
    step, height = grid.stride[0], grid.patch_shape[0]
    return images.pixels(part.first, part.last, part.top * step, (part.bottom - 1) * step + height)
