"""Where activations are gathered: cells of a grid or of a pyramid of grids, and what is made of those in a cell."""

from itertools import product
from math import prod

import numpy as np

from sparseshare.devices import array_module, device_of, on_gpu, to_device
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.validation import check_axes, check_choice

POOLINGS = ("sum", "mean", "max")


class CellGrid:
    """The cells of one grid or several, on maps of any size.

    Parameters
    ----------
    grid : int, tuple of ints or list of these
        Cells along every axis; one number means as many along all of them. A list is a pyramid: all its grids, in its
        order.
    pooling : {"sum", "mean", "max"}
        Of the activations in a cell.
    n_axes : int, default=2
        Axes of a map.
    name : str, default="grid"
        Parameter, as the user typed it.

    Attributes
    ----------
    levels : list of tuples of ints
        Cells of every grid along every axis.
    n_cells : int
        In all grids.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> from sparseshare.convolution.pooling import CellGrid
    >>> CellGrid([1, (2, 3)], "mean").names()
    ['1x1_0_0', '2x3_0_0', '2x3_0_1', '2x3_0_2', '2x3_1_0', '2x3_1_1', '2x3_1_2']
    >>> CellGrid(3, "max", n_axes=1).names()
    ['3_0', '3_1', '3_2']
    """

    def __init__(self, grid, pooling, n_axes=2, *, name="grid"):
        self.pooling = check_choice("pooling", pooling, POOLINGS)
        levels = grid if isinstance(grid, list) else [grid]
        if not levels:
            one = "an int" if n_axes == 1 else f"an int, {'two' if n_axes == 2 else n_axes} of them"
            raise ValueError(f"The {name!r} parameter must be {one} or a list of such grids, got []")
        self.n_axes, self.levels = n_axes, [check_axes(name, level, n_axes) for level in levels]
        self.n_cells = sum(prod(level) for level in self.levels)

    def names(self):
        """Names of the cells: their grid, and where they are in it along every axis."""
        return [
            f"{'x'.join(map(str, level))}_{'_'.join(map(str, place))}"
            for level in self.levels
            for place in product(*map(range, level))
        ]

    def on(self, map_shape):
        """The cells of maps of one shape.

        Parameters
        ----------
        map_shape : tuple of ints
            Positions along each axis.

        Returns
        -------
        Cells

        Raises
        ------
        ValueError
            If a grid has more cells along an axis than the map has positions.
        """
        for level in self.levels:
            if any(cells > length for cells, length in zip(level, map_shape, strict=True)):
                raise ValueError(
                    f"a grid of {'x'.join(map(str, level))} cells is finer than the map of "
                    f"{'x'.join(map(str, map_shape))} positions: take a coarser grid"
                )
        return Cells(self, map_shape)


class Cells:
    """Cells of maps of one shape.

    Activations are pooled once, over the blocks that the edges of all grids together cut a map into; the cells of every
    grid are made of whole blocks.

    Attributes
    ----------
    block_of : list of ndarrays of int64
        For every axis, the block of each position of the map.
    shape : tuple of ints
        Blocks along every axis.
    """

    def __init__(self, grid, map_shape):
        self.grid, self.map_shape = grid, map_shape
        self._edges = [[_edges(length, level[axis]) for level in grid.levels] for axis, length in enumerate(map_shape)]
        blocks = [np.unique(np.concatenate(edges)) for edges in self._edges]
        self._starts = [
            [np.searchsorted(starts, edges[:-1]) for edges in own]
            for starts, own in zip(blocks, self._edges, strict=True)
        ]
        self.block_of = [
            np.searchsorted(starts, np.arange(length), side="right") - 1
            for starts, length in zip(blocks, map_shape, strict=True)
        ]
        self.shape = tuple(len(starts) - 1 for starts in blocks)

    @property
    def maximum(self):
        """Whether blocks hold largest values, not sums."""
        return self.grid.pooling == "max"

    def merge(self, blocks, other):
        """Blocks of two parts of the same images as those of both."""
        return array_module(blocks).maximum(blocks, other) if self.maximum else blocks + other

    def features(self, blocks, split_sign=True):
        """Cells from blocks.

        Parameters
        ----------
        blocks : ndarray of shape (n_images, *shape, n_signs, n_components)
            Pooled activations, positive and negative parts apart where there are two signs.
        split_sign : bool, default=True
            Leave the signs apart. False: sums and means of signed codes; "max" is the code of largest magnitude.

        Returns
        -------
        ndarray of shape (n_images, n_cells, n_signs or 1, n_components)
        """
        xp, parts = array_module(blocks), []
        for number, level in enumerate(self.grid.levels):
            cells = blocks
            for axis, starts in enumerate(self._starts):
                cells = _gathered(cells, starts[number], axis + 1, self.maximum)
            if self.grid.pooling == "mean":
                lengths = [np.diff(edges[number]) for edges in self._edges]
                sizes = prod(np.meshgrid(*lengths, indexing="ij"))
                cells = cells / to_device(sizes[..., None, None].astype(blocks.dtype), device_of(blocks))
            parts.append(cells.reshape(len(blocks), prod(level), *cells.shape[-2:]))
        cells = parts[0] if len(parts) == 1 else xp.concatenate(parts, axis=1)
        if split_sign or cells.shape[2] == 1:
            return cells
        plus, minus = cells[:, :, :1], cells[:, :, 1:]
        return xp.where(plus >= minus, plus, -minus) if self.maximum else plus - minus


def pooled_magnitudes(indices, values, maps_shape, cells, n_signs):
    """Activations of one signal over the cells: their magnitudes, or positive and negative parts apart.

    Parameters
    ----------
    indices : array of int64
        Of the activations that are not zero, in maps of shape `maps_shape` laid out flat; on a GPU ascending.
    values : array of float
        What they are.
    maps_shape : tuple of ints
        (n_channels, n_components, *positions), channels that have codes of their own.
    cells : Cells
        Of `positions`.
    n_signs : {1, 2}

    Returns
    -------
    array of shape (n_cells, n_signs, n_components, n_channels)
        Of the values' dtype and device; sums are taken in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution.pooling import CellGrid, pooled_magnitudes
    >>> cells = CellGrid([1, 2], "sum", n_axes=1).on((4,))
    >>> maps = np.array([[[1.0, -2.0, 0.0, 4.0]]])
    >>> pooled_magnitudes(np.array([0, 1, 3]), maps[maps != 0], maps.shape, cells, 1).ravel()
    array([7., 3., 4.])
    >>> pooled_magnitudes(np.array([0, 1, 3]), maps[maps != 0], maps.shape, cells, 2).ravel()
    array([5., 2., 1., 2., 4., 0.])
    """
    n_channels, n_components = maps_shape[:2]
    blocks_shape = (*cells.shape, n_signs, n_components, n_channels)
    if on_gpu(values):
        pool = kernels_for(device_of(values), "conv_pooling").pool_entries
        blocks = pool(indices, values, maps_shape, cells.block_of, cells.shape, n_signs, cells.maximum)
    else:
        blocks = _pooled_blocks(indices, values, maps_shape, cells, blocks_shape)
    features = cells.features(blocks.reshape(1, *cells.shape, n_signs, n_components * n_channels))[0]
    return features.reshape(-1, n_signs, n_components, n_channels).astype(values.dtype, copy=False)


def _pooled_blocks(indices, values, maps_shape, cells, blocks_shape):
    channel, atom, *place = np.unravel_index(indices, maps_shape)
    sign = (values < 0).astype(np.int64) if blocks_shape[-3] == 2 else np.zeros(len(values), np.int64)
    own = tuple(block[at] for block, at in zip(cells.block_of, place, strict=True))
    target = np.ravel_multi_index((*own, sign, atom, channel), blocks_shape)
    if cells.maximum:
        blocks = np.zeros(prod(blocks_shape))
        np.maximum.at(blocks, target, np.abs(values))
        return blocks
    return np.bincount(target, np.abs(values), minlength=prod(blocks_shape))


def _gathered(cells, starts, axis, maximum):
    """Largest values, or sums, over the runs along an axis that begin at `starts`."""
    if not on_gpu(cells):
        return (np.maximum if maximum else np.add).reduceat(cells, starts, axis=axis)
    xp, stops = array_module(cells), [*starts[1:], cells.shape[axis]]
    runs = [cells[(slice(None),) * axis + (slice(int(a), int(b)),)] for a, b in zip(starts, stops, strict=True)]
    return xp.stack([run.max(axis=axis) if maximum else run.sum(axis=axis) for run in runs], axis=axis)


def _edges(length, n_parts):
    """Where parts of nearly equal length begin, and the end."""
    return np.arange(n_parts + 1) * length // n_parts
