"""The convolutional lasso on a growing set of coordinates, to high accuracy."""

from math import prod

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, single_threaded_blas

from .maps import SparseMaps
from .problem import Solution
from .windows import Windows

_ROUNDS = 200
_INNER_ROUNDS = 30
_SHARE = 0.03  # of the largest excess outside: how exactly the working set is solved
_BLOCK = 0.125  # of an atom's length: a round adds at most one coordinate a block of positions
_GROWTH = 1  # times the size of the working set: coordinates that a round may add; or if that is more
_FEW = 2  # of them, for every box of positions of the size of an atom
_PAIRS = 2.5, 2**20  # entries of one Gram matrix at most: for each entry of the maps; or this if that is more
_PASSES = 3  # over the pieces of a working set that has more
_PIECE = 2**16  # samples of the windows that are copied for one matrix product
_ROUNDING = {4: 1e-6, 8: 1e-14}  # of a correlation, relative, by the size of the float


def applies(problem):
    """None if this solver can solve the problem, else what it cannot do.

    Parameters
    ----------
    problem : ConvProblem

    Returns
    -------
    str or None
    """
    if problem.smoothness is not None and np.any(problem.smoothness):
        return "smoothness, whose maps are dense"
    if problem.weights is not None and not (problem.weights > 0).all():
        return "weights of 0, whose maps are dense"
    return None


def solve(problem, *, start=None, tol=1e-9, max_iter=None, n_threads=1, densest=None):
    """Minimise over few coordinates exactly, add those that break the optimality conditions most, and again.

    A round takes one correlation of the residual with all atoms, piece by piece, which gives the duality gap and the
    coordinates to add: the most promising one of every small block of positions, if it breaks the conditions at all.
    On the working set the problem is a lasso with a sparse Gram matrix: atoms meet only where they overlap.

    Parameters
    ----------
    problem : ConvProblem
    start : ndarray or SparseMaps of the problem's maps_shape, default=None
        Codes to start from; None is zero.
    tol : float, default=1e-09
        Relative duality gap to stop at.
    max_iter : int or None, default=None
        Rounds; None is 200.
    n_threads : int, default=1
        For the correlations; the result does not depend on it.
    densest : float or None, default=None
        Give up, without convergence, when atoms in use cover an average sample more often than this: the Gram matrix
        of a working set then costs more than transforms of whole maps.

    Returns
    -------
    Solution
        With `SparseMaps`. Converged are codes within `tol`, and those whose optimality conditions hold up to the
        rounding of correlations.

    Raises
    ------
    ValueError
        For a problem that `applies` refuses.

    Notes
    -----
    Working sets ordered by what a certificate says: Johnson and Guestrin, "Blitz", ICML 2015.
    """
    reason = applies(problem)
    if reason is not None:
        raise ValueError(f"solver='working_set' cannot do {reason}")
    width = len(problem.signal) if problem.joint and len(problem.signal) > 1 else 1
    windows = Windows(problem, width)
    conditions = _Conditions(problem, windows, n_threads)
    coordinates, values = _start(start, problem, windows)
    usable = np.isfinite(conditions.of(coordinates))
    coordinates, values = coordinates[usable], values[usable]
    target, max_iter, n_iter = tol * problem.energy, _ROUNDS if max_iter is None else max_iter, 0
    geometry = problem.geometry
    most = np.inf if densest is None else densest * problem.signal[:, 0].size / prod(geometry.support)
    while True:
        residual = windows.residual(coordinates, values)
        weighted = windows.weigh(residual)
        fit2 = float((residual * weighted).sum())
        inside = windows.correlations(coordinates, weighted)
        candidates, excess, worst = conditions.violators(weighted, coordinates)
        worst = max(worst, conditions.worst(coordinates, inside))
        penalty, gap = conditions.gap(coordinates, values, inside, fit2, worst)
        breach = max(excess, conditions.breach(coordinates, values, inside))
        converged = gap <= target or breach <= conditions.floor
        if converged or n_iter >= max_iter or len(coordinates) > most:
            break
        n_iter += 1
        needed = problem.alpha * target / (4 * penalty) if penalty > 0 else 0.0
        tolerance = max(_SHARE * breach, needed, 0.3 * conditions.floor)
        coordinates = np.concatenate([coordinates, candidates])
        values = np.concatenate([values, np.zeros((len(candidates), width))])
        order = windows.in_order(coordinates)
        coordinates, values = coordinates[order], values[order]
        most_pairs = max(int(_PAIRS[0] * prod(problem.maps_shape)), _PAIRS[1])
        _minimise(windows, conditions, coordinates, values, weighted, tolerance, most_pairs)
        kept = values.any(axis=1)
        coordinates, values = coordinates[kept], values[kept]
    return Solution(_maps(coordinates, values, problem), 0.5 * fit2 + penalty, gap, n_iter, converged)


def _minimise(windows, conditions, coordinates, values, weighted, tolerance, most_pairs):
    """Minimise over the working set, in place; piece by piece where its Gram matrix would have too many entries."""
    ends = [len(coordinates)]
    if len(coordinates) ** 2 > most_pairs:
        total = np.cumsum(windows.overlap_counts(coordinates))
        ends = np.searchsorted(total, np.arange(most_pairs, total[-1], most_pairs))
        ends = np.unique([*ends[ends > 0], len(coordinates)])
    n_passes = 1 if len(ends) == 1 else _PASSES
    for _ in range(n_passes):
        start = 0
        for end in ends:
            piece, old = coordinates[start:end], values[start:end]
            new, inside = old.T.copy(), windows.correlations(piece, weighted).T.copy()
            kernels_for("cpu", "working_set").minimise(
                *windows.overlaps(piece), windows.norms2(piece).T.copy(), *conditions.thresholds(piece),
                conditions.positive, tolerance, _INNER_ROUNDS, inside, new,
            )  # fmt: skip
            if len(ends) > 1:
                change = np.zeros_like(weighted)
                windows.subtract(piece, new.T - old, change)
                weighted = weighted + windows.weigh(change)
            values[start:end] = new.T
            start = end


class _Conditions:
    """Optimality conditions: thresholds of coordinates, what breaks them, and the gap."""

    def __init__(self, problem, windows, n_threads):
        self._windows, self._dtype, self._n_threads = windows, problem.dtype, n_threads
        self.positive = problem.positive
        self._joint = problem.joint if windows.width > 1 else 0.0
        self._thresholds = np.full((1, 1, 1, len(problem.atoms)), problem.alpha)
        if problem.weights is not None:
            shape = np.shape(problem.weights)
            fill = (1,) * (problem.geometry.n_axes + 1 - len(shape)) + shape
            fill = (fill[0], *(1,) * (4 - len(fill)), *fill[1:])
            weights = np.broadcast_to(problem.weights.reshape(fill), (len(problem.atoms), *fill[1:]))
            self._thresholds = problem.alpha * np.ascontiguousarray(np.moveaxis(weights, 0, -1), np.float64)
        self._block = np.maximum((windows.support * _BLOCK).astype(np.int64), 1)
        n_boxes = prod(-(-windows.positions // windows.support)) * len(windows.signal)
        self._few = 4 + _FEW * n_boxes
        self._gains = 1 / np.maximum((windows.atoms**2).sum(axis=(1, 2, 3, 4)), np.finfo(float).tiny)
        self._support = problem.geometry.support
        self._matrix = np.ascontiguousarray(problem.atoms.reshape(len(problem.atoms), -1).T)
        self._fill = (1,) * (3 - problem.geometry.n_axes)
        reach = [(length - 1) for length in self._support]
        before = reach if problem.geometry.boundary == "valid" else [0] * len(reach)
        after = [0] * len(reach) if problem.geometry.boundary == "full" else reach
        self._border = [(0, 0), (0, 0), *zip(before, after, strict=True)]
        self._mode = "wrap" if windows.wraps else "constant"
        self.floor = _ROUNDING[problem.dtype.itemsize] * problem.alpha

    def of(self, coordinates):
        """alpha times the weights, (n,)."""
        place = np.unravel_index(coordinates, self._windows.shape)[-4:]
        k, *position = place
        shape = self._thresholds.shape
        return self._thresholds[(*(p if n > 1 else 0 for p, n in zip(position, shape, strict=False)), k)]

    def thresholds(self, coordinates):
        """Its parts for the l1 norm and for the l2 norm over signals."""
        whole = self.of(coordinates)
        return (1 - self._joint) * whole, self._joint * whole

    def violators(self, weighted, members):
        """Coordinates to add, their largest excess over the threshold, and the largest relative excess of all.

        Parameters
        ----------
        weighted : (J, C, A, B, C) array
            W^2 r.
        members : (n,) int64 array
            Coordinates in use, which are passed over.
        """
        windows, width, n_axes = self._windows, self._windows.width, len(self._support)
        signal = weighted.reshape(*weighted.shape[:2], *weighted.shape[5 - n_axes :]).astype(self._dtype, copy=False)
        signal = np.pad(signal, self._border, mode=self._mode)
        axes = tuple(range(2, 2 + n_axes))
        views = np.moveaxis(sliding_window_view(signal, self._support, axis=axes), 1, 1 + n_axes)
        rows, block = views.shape[1], int(self._block[3 - n_axes])
        size = max(1, _PIECE // (len(self._matrix) * prod(views.shape[2 : 1 + n_axes]) * width * block)) * block
        starts = range(0, rows, size)
        groups = len(weighted) // width
        places = np.unravel_index(members, windows.shape)
        group_of = places[0] if len(places) == 5 else np.zeros(len(members), np.int64)
        k, *position = places[-4:]
        row = position[3 - n_axes]
        piece_of = (row // size) + len(starts) * group_of
        order = np.argsort(piece_of, kind="stable")
        ends = np.searchsorted(piece_of[order], np.arange(groups * len(starts) + 1))
        values = np.zeros((groups * len(starts), 3))
        found, gained = [None] * (groups * len(starts)), [None] * (groups * len(starts))
        search = kernels_for("cpu", "working_set").best_of_blocks
        blocks_across = prod(-(-windows.positions[axis] // self._block[axis]) for axis in range(4 - n_axes, 3))

        def work(i, _):
            group, start = i // len(starts), size * (i % len(starts))
            view = views[group * width : (group + 1) * width, start : start + size]
            some = (view.reshape(-1, len(self._matrix)) @ self._matrix).reshape(
                width, *self._fill, *view.shape[1 : 1 + n_axes], -1
            )
            own = order[ends[i] : ends[i + 1]]
            at = [p[own] for p in position]
            at[3 - n_axes] = at[3 - n_axes] - start
            values[i, 2] = np.abs(some).max(initial=0.0)
            some[(slice(None), *at, k[own])] = 0
            n_blocks = -(-view.shape[1] // block) * blocks_across
            place, atom, score = np.empty(n_blocks, np.int64), np.empty(n_blocks, np.int64), np.empty(n_blocks)
            first = np.zeros(3, np.int64)
            first[3 - n_axes] = start
            values[i, :2] = search(
                some, self._thresholds, self._joint, self._gains, self.positive, self._block, first, self.floor,
                place, atom, score,
            )  # fmt: skip
            place, atom, score = place[score > 0], atom[score > 0], score[score > 0]
            offset = start * prod(view.shape[2 : 1 + n_axes])
            n_positions = prod(windows.positions)
            found[i] = (group * len(self._gains) + atom) * n_positions + offset + place
            gained[i] = score

        with single_threaded_blas:
            run_in_threads(work, groups * len(starts), self._n_threads)
        largest, worst, level = (float(value) for value in values.max(axis=0))
        self.floor = max(self.floor, _ROUNDING[self._dtype.itemsize] * level)
        found, gained = np.concatenate(found), np.concatenate(gained)
        few = max(self._few, _GROWTH * len(members))
        return found[np.argsort(-gained, kind="stable")[:few]], largest, worst

    def breach(self, coordinates, values, inside):
        """By how much the coordinates in use miss the conditions under which the objective is stationary."""
        lasso, group = (threshold[:, None] for threshold in self.thresholds(coordinates))
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        on = (
            inside
            - lasso * np.sign(values)
            - group * np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
        )
        off = np.maximum((inside if self.positive else np.abs(inside)) - lasso, 0)
        return float(np.abs(np.where(values != 0, on, off)).max(initial=0.0))

    def worst(self, coordinates, inside):
        """The largest relative excess of coordinates in use."""
        magnitudes = np.maximum(inside, 0) if self.positive else np.abs(inside)
        lasso, group = self.thresholds(coordinates)
        if self._windows.width > 1:
            magnitudes = np.linalg.norm(np.maximum(magnitudes - lasso[:, None], 0), axis=1) - group
        else:
            magnitudes = magnitudes[:, 0] - lasso
        return max(float((magnitudes / (lasso + group)).max(initial=0.0)), 0.0)

    def gap(self, coordinates, values, inside, fit2, worst):
        """Penalty and duality gap.

        The residual over 1 + worst is dual feasible: an excess e over a threshold t needs no more than 1 + e / t, as
        the penalty is at least t times the l2 norm. Terms are summed as differences, which never cancel.
        """
        lasso, group = self.thresholds(coordinates)
        norms = lasso * np.abs(values).sum(axis=1) + group * np.linalg.norm(values, axis=1)
        scale = 1 / (1 + worst)
        rest = float((norms - scale * (values * inside).sum(axis=1)).sum())
        return float(norms.sum()), 0.5 * (1 - scale) ** 2 * fit2 + max(rest, 0.0)


def _start(start, problem, windows):
    """Coordinates and values (n, width) of maps."""
    if start is None:
        return np.empty(0, np.int64), np.empty((0, windows.width))
    if not isinstance(start, SparseMaps):
        start = SparseMaps.from_dense(start)
    indices, flat = start.indices.astype(np.int64, copy=False), start.values.astype(np.float64)
    if windows.width == 1:
        coordinates, values = indices, flat[:, None]
    else:
        signals, places = np.divmod(indices, prod(windows.shape))
        coordinates, at = np.unique(places, return_inverse=True)
        values = np.zeros((len(coordinates), windows.width))
        values[at, signals] = flat
    if problem.positive:
        values = np.maximum(values, 0)
    return coordinates, values


def _maps(coordinates, values, problem):
    size = prod(problem.maps_shape[1:])
    indices = (coordinates[:, None] + size * np.arange(values.shape[1])).ravel()
    flat = values.ravel().astype(problem.dtype)
    order = np.argsort(indices)
    order = order[flat[order] != 0]
    return SparseMaps(indices[order], flat[order], problem.maps_shape)
