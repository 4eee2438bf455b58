"""A problem as single coordinates see it: an atom and the window of samples it lies on, for solvers of sparse codes."""

from math import prod

import numpy as np

from sparseshare.kernels.dispatch import kernels_for, plain

from .interactions import interactions, size_of_interactions

_TABLE = 2**27  # bytes of the overlaps of all atoms that are worth a table


class Windows:
    """Arrays of a `ConvProblem` on three axes and in float64, and what is computed of them coordinate by coordinate.

    A coordinate is an index into maps (J, K, *positions), laid out flat; with `width` above 1 it stands for the values
    of that many signals at once and is an index into (K, *positions).

    Parameters
    ----------
    problem : ConvProblem
    width : int, default=1
        1, or the number of signals J.

    Attributes
    ----------
    atoms : (K, C, LA, LB, LC) float64 array
    signal : (J, C, A, B, C) float64 array
    weight : array of the same shape or None
        W^2.
    positions, extents, support : (3,) int64 arrays
        Sizes of maps, signals and atoms.
    offset : (3,) int64 array
        Sample under entry 0 of an atom at position 0.
    n_cells : (3,) int64 array
        Cells along every axis: boxes of positions no shorter than atoms, so that atoms meet in neighbouring ones only.
    wraps : bool
    """

    def __init__(self, problem, width=1):
        geometry = problem.geometry
        fill = (1,) * (3 - geometry.n_axes)
        self.width = width
        self.atoms = _on_three_axes(problem.atoms, fill)
        self.signal = _on_three_axes(problem.signal, fill)
        self.weight = None if problem.mask is None else _on_three_axes(problem.mask, fill) ** 2
        self.positions = np.array(fill + geometry.positions, np.int64)
        self.extents = np.array(fill + geometry.signal_shape, np.int64)
        self.support = np.array(fill + geometry.support, np.int64)
        self.wraps, self._clips = geometry.boundary == "circular", geometry.boundary == "valid"
        self.offset = np.array((0,) * len(fill) + geometry.offset, np.int64)
        self.n_cells = np.maximum(self.positions // self.support, 1)
        self._norms2 = (self.atoms**2).sum(axis=(1, 2, 3, 4))
        self._kernels = kernels_for("cpu", "atom_windows")
        whole = self.weight is None and not self._clips
        self._table = interactions(self.atoms) if whole and size_of_interactions(self.atoms) <= _TABLE else None

    @property
    def shape(self):
        """Shape that coordinates are indices into."""
        shape = (len(self.atoms), *self.positions)
        return shape if self.width > 1 else (len(self.signal), *shape)

    def split(self, coordinates):
        """Signal, atom and corner (sample under entry 0) of coordinates, as (n,), (n,) and (n, 3) int64 arrays."""
        signals, rest = np.divmod(coordinates, len(self.atoms) * prod(self.positions))
        atom_of, *positions = np.unravel_index(rest, (len(self.atoms), *self.positions))
        return signals, np.ascontiguousarray(atom_of, np.int64), np.stack(positions, axis=1) + self.offset

    def join(self, signals, atom_of, corners):
        """The opposite of `split`; what is not on the maps is clipped."""
        places = signals, atom_of, *(corners - self.offset).T
        return np.ravel_multi_index(places, (len(self.signal), len(self.atoms), *self.positions), mode="clip")

    def residual(self, coordinates, values):
        """x - D z.

        Parameters
        ----------
        coordinates : (n,) int64 array
        values : (n, width) float64 array
        """
        residual = self.signal.copy()
        self.subtract(coordinates, values, residual)
        return residual

    def subtract(self, coordinates, values, image):
        """image -= D z, in place."""
        self._kernels.subtract_codes(self.atoms, *self.split(coordinates), values, self.wraps, image)

    def weigh(self, image):
        """W^2 image."""
        return image if self.weight is None else self.weight * image

    def correlations(self, coordinates, weighted):
        """<d, W^2 r> at coordinates, (n, width), for W^2 r."""
        out = np.empty((len(coordinates), self.width))
        self._kernels.correlate_at(self.atoms, *self.split(coordinates), weighted, self.wraps, out)
        return out

    def norms2(self, coordinates):
        """|W d|^2 of the parts of the atoms that lie on the signal, (n, width)."""
        signals, atom_of, corners = self.split(coordinates)
        out = np.repeat(self._norms2[atom_of][:, None], self.width, axis=1)
        if self.weight is not None:
            cut = np.full(len(coordinates), True)
        elif self._clips:
            cut = ((corners < 0) | (corners + self.support > self.extents)).any(axis=1)
        else:
            return out
        weight = np.ones_like(self.signal) if self.weight is None else self.weight
        some = np.empty((np.count_nonzero(cut), self.width))
        self._kernels.norms_at(self.atoms, signals[cut], atom_of[cut], corners[cut], weight, self.wraps, some)
        out[cut] = some
        return out

    def in_order(self, coordinates):
        """The order of coordinates by cells, boxes of positions no shorter than atoms, as (n,) indices."""
        signals, _, corners = self.split(coordinates)
        return np.argsort(self._cell_numbers(signals, self._cells(corners)), kind="stable")

    def overlap_counts(self, coordinates):
        """How many others each coordinate overlaps, (n,), for coordinates as `in_order` sorts them."""
        counts = np.zeros(len(coordinates), np.int64)
        self._find_overlaps(coordinates, counts, np.empty(0, np.int32), np.empty((self.width, 0)))
        return counts

    def overlaps(self, coordinates):
        """Inner products <W d_i, W d_j> of all pairs that overlap, as CSR arrays without the diagonal.

        Parameters
        ----------
        coordinates : (n,) int64 array, as `in_order` sorts them

        Returns
        -------
        starts : (n + 1,) int64 array
        neighbours : (m,) int32 array
        overlaps : (width, m) float64 array
        """
        starts = np.zeros(len(coordinates) + 1, np.int64)
        np.cumsum(self.overlap_counts(coordinates), out=starts[1:])
        neighbours = np.empty(starts[-1], np.int32)
        overlaps = np.empty((self.width, starts[-1]))
        self._find_overlaps(coordinates, starts[:-1].copy(), neighbours, overlaps)
        return starts, neighbours, overlaps

    def _find_overlaps(self, coordinates, ends, neighbours, overlaps):
        """Call the kernel, which takes arrays of no length for what there is not: None would be another type."""
        signals, atom_of, corners = self.split(coordinates)
        cells = self._cells(corners)
        n_groups = 1 if self.width > 1 else len(self.signal)
        cell_starts = np.searchsorted(self._cell_numbers(signals, cells), np.arange(n_groups * prod(self.n_cells) + 1))
        cells = np.column_stack([signals, cells])
        weight, table = (np.empty((0,) * 5) if array is None else array for array in (self.weight, self._table))
        kernels_for("cpu", "working_set").find_overlaps(
            corners, cells, cell_starts, self.n_cells, self.support, self.extents, self.wraps, self.atoms, atom_of,
            weight, table, ends, neighbours, overlaps,
        )  # fmt: skip

    def _cells(self, corners):
        return np.minimum((corners - self.offset) // self.support, self.n_cells - 1)

    def _cell_numbers(self, signals, cells):
        return np.ravel_multi_index((signals, *cells.T), (len(self.signal), *self.n_cells))


def _on_three_axes(array, fill):
    return plain(array.reshape(*array.shape[:2], *fill, *array.shape[2:]), np.float64)
