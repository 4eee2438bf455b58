"""Convolutional sparse coding by locally greedy coordinate descent.

The positions are cut into segments; in each the entry with the largest step moves, as long as that step is above a
bound. The bound falls until the duality gap is small enough. Such a step keeps the correlations of all atoms near by
up to date, and so finds the entries that are needed. Where too many steps go to entries that are in use already, a few
sweeps over these alone, which keep up to date nothing but the residual, are far cheaper.

T. Moreau, L. Oudre, N. Vayatis, "DICOD: distributed convolutional coordinate descent for convolutional sparse coding",
ICML 2018; Q. Bertrand, M. Massias, "Anderson acceleration of coordinate descent", AISTATS 2021.
"""

from math import prod

import numpy as np

from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, single_threaded_blas

from .interactions import Dictionary, correlations, size_of_interactions
from .maps import SparseMaps
from .problem import Solution
from .segments import Lists, Segments

_ROUNDS = 200
_FALL = 0.3  # the bound of a round over that of the round before
_SHARE = 0.4  # of the bound: steps up to which sweeps over the non-zeros go
_PASSES = 8  # of sweeps and an extrapolation
_MEMORY = 5  # sweeps that an extrapolation looks back on
_ROUNDING = {4: 2e-6, 8: 4e-15}  # of a step, relative, by the size of the float
_LARGEST = 2**28  # bytes of interactions up to which this solver is a good choice


def applies(problem):
    """None if this solver can solve the problem, else what it cannot do.

    Parameters
    ----------
    problem : ConvProblem

    Returns
    -------
    str or None
    """
    if problem.mask is not None:
        return "masks"
    if problem.joint and len(problem.signal) > 1:
        return "joint penalties"
    if problem.smoothness is not None and problem.smoothness.any():
        return "smoothness, whose maps are dense"
    if problem.geometry.boundary == "valid":
        return "boundary='valid'"
    if problem.weights is not None and not (problem.weights > 0).all():
        return "weights of 0, whose maps are dense"
    size = size_of_interactions(problem.atoms)
    if size > _LARGEST:
        return f"so many or so large atoms: their interactions would take {size / 1e9:.3g} GB"
    return None


def solve(problem, *, start=None, tol=1e-4, max_iter=None, n_threads=1):
    """Take the largest steps of every segment of positions first, until the duality gap is small.

    Parameters
    ----------
    problem : ConvProblem
    start : ndarray or SparseMaps of the problem's maps_shape, default=None
        Codes to start from; None is zero.
    tol : float, default=0.0001
        Relative duality gap to stop at.
    max_iter : int or None, default=None
        Rounds, each with a lower bound on the steps that are taken; None is 200.
    n_threads : int, default=1
        The codes do not depend on it.

    Returns
    -------
    Solution
        With `SparseMaps`; `n_iter` counts rounds. Converged are codes within `tol`, and those of which no entry has a
        step above rounding.

    Raises
    ------
    ValueError
        For a problem that `applies` refuses.

    Notes
    -----
    Memory is that of one array of the codes' size (two if weights depend on the position) and of the interactions of
    the atoms.
    """
    reason = applies(problem)
    if reason is not None:
        raise ValueError(f"solver='lgcd' cannot do {reason}")
    dictionary = Dictionary.of(problem)
    n_positions, n_components = prod(problem.geometry.positions), len(problem.atoms)
    indices, values, total = [], [], Solution(None, 0.0, 0.0, 0, True)
    for j, signal in enumerate(problem.signal):
        with single_threaded_blas:
            coder = Coder(problem, dictionary, signal, _entries(start, j, problem), n_threads)
            coder.run(tol, _ROUNDS if max_iter is None else max_iter)
        total.objective += coder.objective
        total.gap += coder.gap
        total.n_iter = max(total.n_iter, coder.n_rounds)
        total.converged &= coder.converged
        place = coder.lists.places()
        position, atom = np.divmod(coder.lists.index[place], n_components)
        index = (j * n_components + atom) * n_positions + position
        order = np.argsort(index)
        indices.append(index[order])
        values.append((coder.lists.value[place] / dictionary.norms[atom])[order])
    total.maps = SparseMaps(np.concatenate(indices), np.concatenate(values), problem.maps_shape)
    return total


def _entries(start, j, problem):
    """Non-zeros of a start for signal j: entries of (positions, atoms), and values."""
    if start is None:
        return np.empty(0, np.int64), np.empty(0, problem.dtype)
    if not isinstance(start, SparseMaps):
        start = SparseMaps.from_dense(start)
    n_positions, n_components = prod(problem.geometry.positions), len(problem.atoms)
    index = start.indices - j * n_components * n_positions
    mine = (index >= 0) & (index < n_components * n_positions)
    if problem.positive:
        mine &= start.values > 0
    atom, position = np.divmod(index[mine], n_positions)
    return position * n_components + atom, start.values[mine].astype(problem.dtype)


class Coder:
    """The state of one signal: the correlations of its residual with all atoms, and the non-zeros of every segment.

    Values are those for atoms of norm 1, penalties are divided by the norms accordingly.

    Parameters
    ----------
    problem : ConvProblem
    dictionary : Dictionary
    signal : ndarray of shape (C, *signal_shape)
    start : entries of (positions, atoms), and values
    n_threads : int

    Attributes
    ----------
    objective, gap : float
    n_rounds : int
    converged : bool
    updates : int64 array, steps taken in each stripe that kept the correlations up to date
    """

    def __init__(self, problem, dictionary, signal, start, n_threads):
        geometry = problem.geometry
        self.problem, self.dictionary, self.signal, self.n_threads = problem, dictionary, signal, n_threads
        self.kernels, self.sweeps = (kernels_for("cpu", name) for name in ("locally_greedy", "residual_descent"))
        self.wraps = geometry.boundary == "circular"
        self.n_atoms = len(problem.atoms)
        self.segments = Segments(geometry.positions, geometry.support, self.wraps, self.n_atoms, dictionary.width + 1)
        self.signal_shape = np.array((1,) * (3 - geometry.n_axes) + geometry.signal_shape, np.int64)
        self.piece = max(1, self.kernels.RUN // self.n_atoms)
        self.limit, self.varied = self._limits()
        entries, values = start
        atom = entries % self.n_atoms
        self.lists = Lists(
            self.segments.of(entries // self.n_atoms),
            len(self.segments),
            entries,
            values * dictionary.norms[atom],
            self.limit[entries if self.varied else atom],
        )
        self.top = np.full(len(self.segments), np.inf)
        self.updates = np.zeros(len(self.segments.starts) - 1, np.int64)
        self.n_rounds, self.best_dual, self.q = 0, -np.inf, None
        self.refresh()

    def _limits(self):
        """Penalties of all entries, or of as many positions as a piece of a row has."""
        problem = self.problem
        weights = np.ones(1, problem.dtype) if problem.weights is None else problem.weights
        varied = weights.size > self.n_atoms
        if varied:
            weights = np.broadcast_to(weights, (self.n_atoms, *problem.geometry.positions))
            limit = np.ascontiguousarray(np.moveaxis(weights, 0, -1)).reshape(-1, self.n_atoms)
        else:
            limit = np.broadcast_to(weights.reshape(-1), (self.piece, self.n_atoms))
        limit = limit * (problem.dtype.type(problem.alpha) / self.dictionary.norms)
        limit[:, self.dictionary.zero] = np.inf
        return limit.reshape(-1), varied

    def run(self, tol, max_rounds):
        """Lower the bound until the gap is at most `tol` times the energy of the signal."""
        target = tol * 0.5 * float(np.vdot(self.signal, self.signal))
        self.descend(0.0, 0)
        bound = float(self.top.max())
        scale = max(
            float(np.abs(self.lists.value).max()), float(self.limit[np.isfinite(self.limit)].min(initial=np.inf))
        )
        least = _ROUNDING[self.q.itemsize] * max(bound, scale if np.isfinite(scale) else 0.0)
        # As many steps as take the time of new correlations: a step reads and writes what a product only sums up.
        support = self.segments.support
        patience = self.signal.size * prod(support) / (4 * prod(2 * support - 1))
        patience = max(int(patience / len(self.updates)), 8)
        self.certify()
        settled = bound <= least
        if self.gap > target and self.lists.count.any():
            self.settle(_SHARE * bound)
        while self.gap > target and not settled and self.n_rounds < max_rounds:
            # The gap falls about as the bound does: no need to go much further than to the target.
            bound = max(bound * max(_FALL, min(0.5 * target / self.gap, 0.8)), least)
            allowed = patience
            while not self.descend(bound, allowed):
                self.settle(_SHARE * bound)
                allowed *= 2  # or sweeps that do not settle would go on forever
            settled = bound <= least
            self.n_rounds += 1
            self.certify()
        self.converged = self.gap <= target or settled

    def descend(self, bound, patience):
        """Step until no step is above the bound, or a stripe has taken too many steps on entries that are in use.

        Returns
        -------
        bool, whether no step is above the bound
        """
        segments, lists = self.segments, self.lists
        left = np.full(len(self.updates), patience)
        while True:
            for colour in segments.colours:
                stripes = colour[segments.hot(self.top, bound)[colour]]
                self._in_parts(stripes, lambda part: self._descend(part, bound, left))
            if lists.full():
                lists.grow()
            elif (self.top <= bound).all():
                return True
            elif (left <= 0).any():
                return False

    def _in_parts(self, stripes, work):
        """Do some work on stripes of one colour in threads."""
        n_parts = 1 if self.n_threads == 1 else min(len(stripes), 4 * self.n_threads)
        parts = [np.ascontiguousarray(stripes[i::n_parts]) for i in range(n_parts if len(stripes) else 0)]
        run_in_threads(lambda i, _: work(parts[i]), len(parts), self.n_threads)

    def _descend(self, stripes, bound, left):
        segments, lists = self.segments, self.lists
        self.kernels.descend(
            stripes,
            bound,
            left,
            self.q,
            self.dictionary.rows,
            self.limit,
            self.varied,
            self.problem.positive,
            self.wraps,
            segments.shape,
            segments.support,
            self.piece,
            segments.members,
            segments.starts,
            segments.bounds,
            segments.homes,
            segments.counts,
            self.top,
            lists.first,
            lists.count,
            lists.index,
            lists.value,
            lists.bar,
            self.updates,
        )

    def settle(self, tolerance):
        """Minimise over the non-zeros alone until a sweep takes no larger steps, or has been tried often enough.

        Every few sweeps, the codes are extrapolated from the last ones: to the combination of them whose differences
        are least, if that lowers the objective.
        """
        lists, segments = self.lists, self.segments
        place = lists.places()
        corner, source = self._windows(place)
        residual = self.residual().astype(self.q.dtype)
        moved = np.zeros(len(self.updates), self.q.dtype)
        values = np.empty((_MEMORY + 1, len(place)))
        residuals = np.empty((_MEMORY + 1, residual.size), self.q.dtype)

        def sweep(stripes):
            self.sweeps.settle(
                stripes,
                self.dictionary.padded,
                self.dictionary.width,
                self.problem.positive,
                segments.shape,
                self.signal_shape,
                segments.support,
                segments.members,
                segments.starts,
                lists.first,
                lists.count,
                corner,
                source,
                lists.value,
                lists.bar,
                residual.reshape(-1),
                moved,
            )

        for _ in range(_PASSES):
            values[0], residuals[0] = lists.value[place], residual.reshape(-1)
            for i in range(_MEMORY):
                for colour in segments.colours:
                    self._in_parts(colour, sweep)
                values[i + 1], residuals[i + 1] = lists.value[place], residual.reshape(-1)
                if moved.max() <= tolerance:
                    break
            else:
                residual[...] = self._extrapolate(place, values, residuals).reshape(residual.shape)
                continue
            break
        lists.drop_zeros()
        self.refresh()

    def _extrapolate(self, place, values, residuals):
        """Extrapolated codes into the lists, if they are better than the last ones; their residual."""
        differences = np.diff(values, axis=0)
        gram = np.einsum("ip,jp->ij", differences, differences)
        gram[np.diag_indices(_MEMORY)] += 1e-12 * np.trace(gram)
        weights = np.linalg.solve(gram, np.ones(_MEMORY))
        weights /= weights.sum()
        new, residual = weights @ values[1:], weights @ residuals[1:]
        flipped = np.flatnonzero(new * values[-1] <= 0)
        self._add_atoms(self.lists.index[place[flipped]], new[flipped], residual)
        new[flipped] = 0
        self.lists.value[place] = new
        bar = self.lists.bar[place].astype(np.float64)
        before, after = (
            0.5 * float(np.vdot(r, r)) + float(bar @ np.abs(z))
            for r, z in ((residuals[-1], values[-1]), (residual, new))
        )
        if after < before:
            return residual
        self.lists.value[place] = values[-1]
        return residuals[-1]

    def _windows(self, place):
        """Where the windows of non-zeros start in the signal and their atoms in `dictionary.padded`, in lists."""
        segments = self.segments
        position, atom = np.divmod(self.lists.index[place], self.n_atoms)
        along = segments.axes(position)
        sample = np.ravel_multi_index(along, self.signal_shape)
        reach = (segments.support[0], segments.support[1], self.dictionary.width)
        outside = np.any([u + length > n for u, length, n in zip(along, reach, self.signal_shape, strict=True)], axis=0)
        corner, source = np.zeros((2, len(self.lists.index)), np.int64)
        corner[place] = np.where(outside, -1 - sample, sample)
        source[place] = atom * (len(self.dictionary.padded) // self.n_atoms)
        return corner, source

    def residual(self):
        """x - D z, in float64."""
        place = self.lists.places()
        out = self.signal.astype(np.float64)
        self._add_atoms(self.lists.index[place], -self.lists.value[place].astype(np.float64), out)
        return out

    def _add_atoms(self, entries, values, signal):
        """Add what entries of the codes with these values stand for to a signal."""
        self.sweeps.add_atoms(
            entries,
            values,
            self.dictionary.atoms.astype(np.float64).reshape(-1),
            self.n_atoms,
            self.segments.shape,
            self.signal_shape,
            self.segments.support,
            signal.reshape(-1),
        )

    def refresh(self):
        """Correlations anew from the residual, free of what rounding has piled up."""
        residual = self.residual().astype(self.problem.dtype, copy=False)
        q = correlations(residual, self.dictionary.atoms, self.wraps, self.n_threads, self.q)
        self.q = q.reshape(-1)
        self.top[:] = np.inf

    def certify(self):
        """Objective, and the gap to the best dual point so far: a residual, scaled down until it is feasible."""
        if self.q.itemsize == 4:
            self.refresh()
        residual = self.residual()
        place = self.lists.places()
        magnitudes = np.abs(self.lists.value[place].astype(np.float64))
        ratio = self._largest_ratio()
        scale = 1.0 / ratio if ratio > 1 else 1.0
        fit2 = float(np.vdot(residual, residual))
        dual = scale * float(np.vdot(residual, self.signal)) - 0.5 * scale**2 * fit2
        self.best_dual = max(self.best_dual, dual)
        self.objective = 0.5 * fit2 + float(self.lists.bar[place].astype(np.float64) @ magnitudes)
        self.gap = max(self.objective - self.best_dual, 0.0)

    def _largest_ratio(self):
        """The largest correlation over its penalty."""
        n_positions = len(self.q) // self.n_atoms
        n_parts = 1 if self.n_threads == 1 else 4 * self.n_threads
        edges = np.arange(n_parts + 1) * n_positions // n_parts
        largest = np.empty(n_parts)

        def work(i, _):
            largest[i] = self.kernels.top_ratio(
                edges[i], edges[i + 1], self.q, self.limit, self.varied, self.problem.positive, self.n_atoms, self.piece
            )

        run_in_threads(work, n_parts, self.n_threads)
        return float(largest.max())
