"""Convolutional sparse coding by locally greedy coordinate descent.

T. Moreau, L. Oudre, N. Vayatis, "DICOD: distributed convolutional coordinate descent for convolutional sparse coding",
ICML 2018; T. Moreau, A. Gramfort, "DiCoDiLe", 2020. The positions are cut into segments; in each the entry with the
largest step moves, as long as that step is above a bound. The bound falls until the duality gap is small enough.

Segments are joined to stripes across one axis. Every other stripe may be worked on at the same time: what happens in
one is out of reach of the next but one. So the codes do not depend on the number of threads.
"""

from math import prod

import numpy as np

from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads

from .interactions import correlations, interactions, size_of_interactions
from .maps import SparseMaps
from .problem import Solution

_FALL = 0.4  # the bound of a round over that of the round before
_LIMIT = 10_000_000  # updates in a round of a stripe
_ROUNDS = 200
_ROUNDING = {4: 2e-6, 8: 4e-15}  # least bound over the largest correlation
_STRIPE = 2**15  # entries of a stripe, at least
_LARGEST = 2**28  # bytes of interactions up to which this solver is a good choice


def applies(problem):
    """Why this solver cannot solve a problem, or is a bad choice for it; None if it can."""
    for name, absent in (
        ("masks", problem.mask is None),
        ("joint penalties", not problem.joint),
        ("smoothness", problem.smoothness is None),
        ("boundary='valid'", problem.geometry.boundary != "valid"),
        ("weights of 0", problem.weights is None or (problem.weights > 0).all()),
    ):
        if not absent:
            return f"solver='lgcd' knows no {name}"
    size = size_of_interactions(problem.atoms)
    if size > _LARGEST:
        return f"solver='lgcd' would need {size / 1e9:.3g} GB for the interactions of so many or so large atoms"
    return None


def solve(problem, *, start=None, tol=1e-4, max_iter=None, n_threads=1):
    """Solve a problem to a relative duality gap of `tol`.

    Parameters
    ----------
    problem : ConvProblem
        Without mask, joint penalty and smoothness, with a circular or full boundary and weights above 0.
    start : ndarray of shape `problem.maps_shape`, SparseMaps, or None, default=None
        Where to start; None: zero.
    tol : float, default=1e-4
        Stop when the duality gap is at most `tol * problem.energy`.
    max_iter : int or None, default=None
        Rounds, each with a lower bound on the steps that are still taken; None: 200.
    n_threads : int, default=1
        The codes do not depend on it.

    Returns
    -------
    Solution
        With `SparseMaps`; `n_iter` counts rounds.

    Raises
    ------
    ValueError
        For what `applies` refuses.
    """
    reason = applies(problem)
    if reason is not None:
        raise ValueError(reason)
    dictionary = Dictionary.of(problem)
    n_positions, n_components = prod(problem.geometry.positions), len(problem.atoms)
    indices, values, total = [], [], Solution(None, 0.0, 0.0, 0, True)
    for j, signal in enumerate(problem.signal):
        coder = Coder(problem, dictionary, signal, _entries(start, j, problem), n_threads)
        coder.run(tol, _ROUNDS if max_iter is None else max_iter)
        total.objective += coder.objective
        total.gap += coder.gap
        total.n_iter = max(total.n_iter, coder.n_rounds)
        total.converged &= coder.converged
        position, atom = np.divmod(coder.entries, n_components)
        place = (j * n_components + atom) * n_positions + position
        order = np.argsort(place)
        indices.append(place[order])
        values.append((coder.values / dictionary.norms[atom])[order])
    total.maps = SparseMaps(np.concatenate(indices), np.concatenate(values), problem.maps_shape)
    return total


def _entries(start, j, problem):
    """Non-zeros of a start for signal j: entries of (positions, atoms), and values."""
    if start is None:
        return np.empty(0, np.int64), np.empty(0, problem.dtype)
    if not isinstance(start, SparseMaps):
        start = SparseMaps.from_dense(start)
    n_positions, n_components = prod(problem.geometry.positions), len(problem.atoms)
    place = start.indices - j * n_components * n_positions
    mine = (place >= 0) & (place < n_components * n_positions)
    if problem.positive:
        mine &= start.values > 0
    atom, position = np.divmod(place[mine], n_positions)
    return position * n_components + atom, start.values[mine].astype(problem.dtype)


class Dictionary:
    """Atoms of norm 1 and their interactions; belongs to an operator, so that it is made once.

    Attributes
    ----------
    norms : (K,) array, 1 for atoms that are zero
    atoms : (K, C, *support) array
    rows : (n,) array, the interactions
    """

    def __init__(self, atoms, n_threads=1):
        flat = atoms.reshape(len(atoms), -1)
        norms = np.sqrt(np.einsum("kl,kl->k", flat, flat, dtype=np.float64))
        self.zero = norms == 0
        self.norms = np.where(self.zero, 1, norms).astype(atoms.dtype)
        self.atoms = atoms / self.norms.reshape(-1, *[1] * (atoms.ndim - 1))
        self.rows = interactions(self.atoms, n_threads).reshape(-1)

    @classmethod
    def of(cls, problem):
        """The one of a problem's operator."""
        operator = problem.operator
        if not hasattr(operator, "_unit_dictionary"):
            operator._unit_dictionary = cls(problem.atoms, operator.n_threads)
        return operator._unit_dictionary


class Segments:
    """Positions cut into segments, and segments joined to stripes.

    Parameters
    ----------
    positions, support : tuples of int, of the same length
    wraps : bool
    n_components : int

    Attributes
    ----------
    shape, support : (3,) int64 arrays; axes in front are filled up with length 1
    counts : (3,) int64 array, segments along each axis
    bounds : (S, 6) int64 array, first position and the one after the last, for each axis
    homes : int64 array, the segment of a position along each axis, one axis after the other
    members, starts : int64 arrays, the segments of each stripe
    colours : list of int64 arrays, stripes that do not reach each other
    """

    def __init__(self, positions, support, wraps, n_components):
        missing = 3 - len(positions)
        shape, support = (1,) * missing + tuple(positions), (1,) * missing + tuple(support)
        counts = [max(1, n // (2 * length - 1)) for n, length in zip(shape, support, strict=True)]
        edges = [np.arange(c + 1) * n // c for n, c in zip(shape, counts, strict=True)]
        grid = np.stack(np.meshgrid(*(np.arange(c) for c in counts), indexing="ij"), -1).reshape(-1, 3)
        self.shape, self.support = np.array(shape), np.array(support)
        self.counts = np.array(counts)
        self.bounds = np.stack([edges[a][grid[:, a] + side] for a in range(3) for side in (0, 1)], 1)
        self.homes = np.concatenate([np.repeat(np.arange(c), np.diff(e)) for c, e in zip(counts, edges, strict=True)])
        axis = int(np.argmax(counts))
        stripes = self._stripes(counts[axis], wraps, n_components * prod(shape) // counts[axis])
        stripe = stripes[grid[:, axis]]
        self.members = np.argsort(stripe, kind="stable")
        n_stripes = int(stripes[-1]) + 1
        self.starts = np.searchsorted(stripe[self.members], np.arange(n_stripes + 1))
        self.colours = [np.arange(c, n_stripes, 2) for c in range(min(2, n_stripes))]

    @staticmethod
    def _stripes(count, wraps, size):
        """The stripe of each segment along the axis: as many as are of a good size, an even number if they wrap."""
        n = max(1, min(count, count * size // _STRIPE))
        if wraps and n % 2:
            n = n - 1 if n > 1 else 1
        return np.arange(count) * n // count


class Coder:
    """The state of one signal: correlations of its residual with all atoms, and the non-zeros of every segment."""

    def __init__(self, problem, dictionary, signal, start, n_threads):
        geometry = problem.geometry
        self.problem, self.dictionary, self.signal, self.n_threads = problem, dictionary, signal, n_threads
        self.kernels = kernels_for("cpu", "locally_greedy")
        self.wraps = geometry.boundary == "circular"
        self.n_atoms = len(problem.atoms)
        self.segments = Segments(geometry.positions, geometry.support, self.wraps, self.n_atoms)
        segments = self.segments
        self.signal_shape = np.array((1,) * (3 - geometry.n_axes) + geometry.signal_shape)
        self.width = max(1, self.kernels.RUN // self.n_atoms)
        rows = segments.bounds[:, 1::2] - segments.bounds[:, ::2]
        self.n_runs = int((rows[:, 0] * rows[:, 1] * -(-rows[:, 2] // self.width)).max())
        self.limit, self.varied = self._limits()
        self.top = np.full(len(segments.bounds), np.inf)
        self._fill(*start)
        self.updates = np.zeros(len(segments.starts) - 1, np.int64)
        self.n_rounds, self.best_dual = 0, -np.inf
        self.q = None
        self.refresh()
        self.scale = float(np.abs(self.q).max()) if len(start[0]) == 0 else None

    def _limits(self):
        problem, norms = self.problem, self.dictionary.norms
        weights = np.ones(1, problem.dtype) if problem.weights is None else problem.weights
        varied = weights.size > self.n_atoms
        if varied:
            limit = np.broadcast_to(weights, (self.n_atoms, *problem.geometry.positions))
            limit = np.ascontiguousarray(np.moveaxis(limit, 0, -1)).reshape(-1, self.n_atoms)
            limit *= problem.dtype.type(problem.alpha)
        else:
            limit = np.broadcast_to(weights.reshape(-1) * problem.dtype.type(problem.alpha), (self.width, self.n_atoms))
            limit = limit.copy()
        limit /= norms
        limit[:, self.dictionary.zero] = np.inf
        return limit.reshape(-1), varied

    def _fill(self, entries, values):
        """Lists of the segments from non-zeros, each with as much room again."""
        segments, dtype = self.segments, self.problem.dtype
        entries, values = np.asarray(entries), np.asarray(values) * self.dictionary.norms[entries % self.n_atoms]
        limits = self.limit[entries if self.varied else entries % self.n_atoms]
        position = entries // self.n_atoms
        home, strides = 0, np.cumprod((1, *segments.shape[:0:-1]))[::-1]
        offset = 0
        for axis in range(3):
            along = position // strides[axis] % segments.shape[axis]
            home = home * segments.counts[axis] + segments.homes[offset + along]
            offset += segments.shape[axis]
        order = np.argsort(home, kind="stable") if len(entries) else np.empty(0, np.int64)
        self.count = np.bincount(home[order] if len(entries) else [], minlength=len(self.top)).astype(np.int64)
        self.first = np.zeros(len(self.top) + 1, np.int64)
        np.cumsum(2 * self.count + 16, out=self.first[1:])
        place = self._listed()
        self.index = np.zeros(self.first[-1], np.int64)
        self.value, self.bar = np.zeros((2, self.first[-1]), dtype)
        self.index[place], self.value[place], self.bar[place] = entries[order], values[order], limits[order]

    def _listed(self):
        """Places of the lists that are in use."""
        ends = np.cumsum(self.count)
        return np.arange(ends[-1]) + np.repeat(self.first[:-1] - ends + self.count, self.count)

    @property
    def entries(self):
        """Non-zeros: entries of (positions, atoms)."""
        return self.index[self._listed()]

    @property
    def values(self):
        """Non-zeros: values for atoms of norm 1."""
        return self.value[self._listed()]

    def _grow(self):
        """More room for all lists: twice what each of them holds."""
        place = self._listed()
        old = self.index[place], self.value[place], self.bar[place]
        np.cumsum(2 * self.count + 16, out=self.first[1:])
        place = self._listed()
        self.index = np.zeros(self.first[-1], np.int64)
        self.value, self.bar = np.zeros((2, self.first[-1]), self.problem.dtype)
        self.index[place], self.value[place], self.bar[place] = old

    def residual(self):
        """x - D z."""
        segments = self.segments
        out = np.array(self.signal, order="C")
        self.kernels.add_atoms(
            self.entries,
            -self.values,
            self.dictionary.atoms.reshape(-1),
            self.n_atoms,
            self.wraps,
            segments.shape,
            self.signal_shape,
            segments.support,
            out.reshape(-1),
        )
        return out

    def refresh(self):
        """Correlations anew from the residual, free of what rounding has piled up."""
        self.q = correlations(self.residual(), self.dictionary.atoms, self.wraps, self.n_threads).reshape(-1)
        self.top[:] = np.inf

    def descend(self, bound, budget=_LIMIT):
        """Step until no step is above the bound."""
        segments = self.segments
        while True:
            before = self.updates.sum()
            for colour in segments.colours:
                hot = np.maximum.reduceat(self.top[segments.members], segments.starts[:-1]) > bound
                stripes = colour[hot[colour]]
                n_parts = min(len(stripes), 4 * self.n_threads if self.n_threads > 1 else 1)

                def work(i, _, stripes=stripes, n_parts=n_parts):
                    self._kernel(stripes[i::n_parts], bound, budget)

                run_in_threads(work, n_parts, self.n_threads)
            if (self.first[:-1] + self.count == self.first[1:]).any():
                self._grow()
            elif budget == 0 or (self.top <= bound).all() or self.updates.sum() == before:
                return

    def _kernel(self, stripes, bound, budget):
        segments = self.segments
        self.kernels.descend(
            stripes,
            bound,
            budget,
            self.q,
            self.dictionary.rows,
            self.limit,
            self.varied,
            self.problem.positive,
            self.wraps,
            segments.shape,
            segments.support,
            self.width,
            segments.members,
            segments.starts,
            segments.bounds,
            segments.homes,
            segments.counts,
            self.n_runs,
            self.top,
            self.first,
            self.count,
            self.index,
            self.value,
            self.bar,
            self.updates,
        )

    def run(self, tol, max_rounds):
        """Lower the bound until the gap is at most `tol` times the energy of the problem's signal."""
        target = tol * 0.5 * float(np.vdot(self.signal, self.signal))
        self.descend(0.0, budget=0)
        bound = float(self.top.max())
        least = _ROUNDING[self.q.itemsize] * max(bound, float(self.limit.min()))
        self.certify()
        while self.gap > target and self.n_rounds < max_rounds and bound > least:
            bound = max(bound * _FALL, least)
            self.descend(bound)
            self.n_rounds += 1
            self.certify()
        self.converged = self.gap <= target

    def certify(self):
        """Objective and duality gap."""
        residual = self.residual().astype(np.float64).reshape(-1)
        place = self._listed()
        values = self.value[place].astype(np.float64)
        norm1 = float(self.bar[place].astype(np.float64) @ np.abs(values))
        ratio = self.largest_ratio()
        scale = min(1.0, 1.0 / ratio) if ratio > 0 else 1.0
        fit = 0.5 * float(residual @ residual)
        signal = self.signal.astype(np.float64).reshape(-1)
        dual = scale * float(residual @ signal) - scale**2 * fit
        self.best_dual = max(self.best_dual, dual)
        self.objective = fit + norm1
        self.gap = max(self.objective - self.best_dual, 0.0)

    def largest_ratio(self):
        """Largest correlation over its penalty."""
        n_positions = len(self.q) // self.n_atoms
        starts = np.arange(9) * n_positions // 8
        out = np.empty(8)

        def work(i, _):
            piece = slice(i, i + 1)
            self.kernels.largest_ratios(
                starts[i : i + 2],
                self.q,
                self.limit,
                self.varied,
                self.problem.positive,
                self.n_atoms,
                self.width,
                out[piece],
            )

        run_in_threads(work, 8, self.n_threads)
        return float(out.max())
