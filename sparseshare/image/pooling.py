"""Where patches' codes are gathered: cells of a grid or of a pyramid of grids, and what is made of those in a cell."""

import numpy as np

from sparseshare.validation import check_choice

from .patches import axes

POOLINGS = ("sum", "mean", "max")


class CellGrid:
    """The cells of one grid or several, on maps of patches of any size.

    Parameters
    ----------
    grid : int, (int, int) or list of these
        Rows and columns of cells; one number means as many of both. A list is a pyramid: all its grids, in its order.
    pooling : {"sum", "mean", "max"}
        Of the codes in a cell.

    Attributes
    ----------
    levels : list of (int, int)
        Rows and columns of every grid.
    n_cells : int
        In all grids.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> from sparseshare.image.pooling import CellGrid
    >>> CellGrid([1, (2, 3)], "mean").names()
    ['1x1_0_0', '2x3_0_0', '2x3_0_1', '2x3_0_2', '2x3_1_0', '2x3_1_1', '2x3_1_2']
    """

    def __init__(self, grid, pooling):
        self.pooling = check_choice("pooling", pooling, POOLINGS)
        levels = grid if isinstance(grid, list) else [grid]
        if not levels:
            raise ValueError("The 'grid' parameter must be an int, two of them or a list of such grids, got []")
        self.levels = [axes("grid", level, 2) for level in levels]
        self.n_cells = sum(rows * columns for rows, columns in self.levels)

    def names(self):
        """Names of the cells: their grid, their row, their column."""
        return [
            f"{rows}x{columns}_{row}_{column}"
            for rows, columns in self.levels
            for row in range(rows)
            for column in range(columns)
        ]

    def on(self, map_shape):
        """The cells of maps of one shape.

        Parameters
        ----------
        map_shape : (int, int)
            Patches along each axis.

        Returns
        -------
        Cells

        Raises
        ------
        ValueError
            If a grid has more rows or columns than the map.
        """
        for level in self.levels:
            if level[0] > map_shape[0] or level[1] > map_shape[1]:
                raise ValueError(
                    f"a grid of {level[0]}x{level[1]} cells is finer than the map of {map_shape[0]}x{map_shape[1]} "
                    "patches: take a coarser grid, a smaller stride or smaller patches"
                )
        return Cells(self, map_shape)


class Cells:
    """Cells of maps of one shape.

    Codes are pooled once, over the blocks that the edges of all grids together cut a map into; the cells of every grid
    are made of whole blocks.

    Attributes
    ----------
    row_block, column_block : ndarrays of int64
        Block of every row and column of the map.
    shape : (int, int)
        Rows and columns of blocks.
    """

    def __init__(self, grid, map_shape):
        self.grid, self.map_shape = grid, map_shape
        self._edges = [[_edges(length, level[axis]) for level in grid.levels] for axis, length in enumerate(map_shape)]
        blocks = [np.unique(np.concatenate(edges)) for edges in self._edges]
        self._starts = [[np.searchsorted(blocks[axis], edges[:-1]) for edges in self._edges[axis]] for axis in range(2)]
        self.row_block, self.column_block = (
            np.searchsorted(blocks[axis], np.arange(map_shape[axis]), side="right") - 1 for axis in range(2)
        )
        self.shape = len(blocks[0]) - 1, len(blocks[1]) - 1

    @property
    def maximum(self):
        """Whether blocks hold largest values, not sums."""
        return self.grid.pooling == "max"

    def merge(self, blocks, other):
        """Blocks of two parts of the same images as those of both."""
        return np.maximum(blocks, other) if self.maximum else blocks + other

    def features(self, blocks, split_sign=True):
        """Cells from blocks.

        Parameters
        ----------
        blocks : ndarray of shape (n_images, block rows, block columns, n_signs, n_components)
            Pooled codes, positive and negative parts apart where there are two signs.
        split_sign : bool, default=True
            Leave the signs apart. False: sums and means of signed codes; "max" is the code of largest magnitude.

        Returns
        -------
        ndarray of shape (n_images, n_cells, n_signs or 1, n_components)
        """
        gather = np.maximum if self.maximum else np.add
        parts = []
        for level, (rows, columns) in enumerate(self.grid.levels):
            cells = gather.reduceat(blocks, self._starts[0][level], axis=1)
            cells = gather.reduceat(cells, self._starts[1][level], axis=2)
            if self.grid.pooling == "mean":
                heights, widths = (np.diff(self._edges[axis][level]) for axis in range(2))
                cells = cells / (heights[:, None] * widths)[:, :, None, None].astype(blocks.dtype)
            parts.append(cells.reshape(len(blocks), rows * columns, *blocks.shape[3:]))
        cells = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if split_sign or cells.shape[2] == 1:
            return cells
        plus, minus = cells[:, :, :1], cells[:, :, 1:]
        return np.where(plus >= minus, plus, -minus) if self.maximum else plus - minus


def _edges(length, n_parts):
    """Where parts of nearly equal length begin, and the end."""
    return np.arange(n_parts + 1) * length // n_parts
