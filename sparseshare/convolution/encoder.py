"""Codes of many signals for one set of atoms: options checked once, operators kept, signals shared out to threads."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from sparseshare.devices import array_module, computing_on, device_of, free_memory, on_gpu, to_device, to_host
from sparseshare.threads import run_in_threads, single_threaded_blas, thread_count
from sparseshare.validation import check_bool, check_choice, check_number

from . import admm, fista, lgcd, pursuit, working_set
from .device_operator import DeviceConvolution
from .geometry import BOUNDARIES, Geometry
from .maps import SparseMaps
from .operator import Convolution
from .problem import ConvProblem
from .rounds import slots_that_fit, solve_many
from .turns import in_turn

SOLVERS = ("auto", "lgcd", "working_set", "fista", "admm", "omp")
GPU_SOLVERS = ("auto", "fista")
_SOLVE = {
    "lgcd": lgcd.solve,
    "working_set": working_set.solve,
    "fista": fista.solve,
    "admm": admm.solve,
    "omp": pursuit.solve,
}
_ARRAYS = {"lgcd": 3, "working_set": 5, "fista": 8, "admm": 7, "omp": 2}  # of the size of the maps, held while solving
_ARRAYS_BY_ATOM = ("weights", "smoothness")
_TOGETHER = 2**32  # bytes that maps would take, were they dense, which a GPU makes before the first of them is taken
_DENSEST = 20  # times that atoms in use cover a sample, from which FISTA overtakes the working set (measured)


@dataclass(frozen=True)
class ConvOptions:
    """What is minimised, and how; the parameters of `conv_sparse_encode` that are not arrays of signals.

    Raises
    ------
    ValueError
        For parameters out of range or that exclude each other.
    """

    alpha: float | None = None
    alpha_relative: bool = False
    boundary: str = "circular"
    solver: str = "auto"
    positive: bool = False
    weights: object = None
    joint: float = 0.0
    smoothness: object = None
    n_nonzero_coefs: int | None = None
    max_error: float | None = None
    tol: float = 1e-4
    max_iter: int | None = None

    def __post_init__(self):
        check_choice("boundary", self.boundary, BOUNDARIES)
        check_choice("solver", self.solver, SOLVERS)
        check_bool("positive", self.positive)
        check_bool("alpha_relative", self.alpha_relative)
        check_number("alpha", self.alpha, 0, 1 if self.alpha_relative else None, open_low=True, allow_none=True)
        check_number("joint", self.joint, 0, 1)
        check_number("tol", self.tol, 0, open_low=True)
        check_number("max_iter", self.max_iter, 1, integer=True, allow_none=True)
        check_number("n_nonzero_coefs", self.n_nonzero_coefs, 1, integer=True, allow_none=True)
        check_number("max_error", self.max_error, 0, allow_none=True)
        if self.solver == "omp":
            if self.alpha is not None:
                raise ValueError("solver='omp' knows no alpha: give n_nonzero_coefs or max_error")
            if self.n_nonzero_coefs is None and self.max_error is None:
                raise ValueError("solver='omp' needs n_nonzero_coefs or max_error")
            for name in ("weights", "smoothness"):
                if getattr(self, name) is not None:
                    raise ValueError(f"solver='omp' knows no {name}")
            if self.joint:
                raise ValueError("solver='omp' knows no joint penalty")
        elif self.alpha is None:
            raise ValueError(f"solver={self.solver!r} needs alpha, the penalty")
        elif self.n_nonzero_coefs is not None or self.max_error is not None:
            raise ValueError("n_nonzero_coefs and max_error belong to solver='omp'")

    def on(self, device, dtype):
        """The same with its arrays where a device wants them.

        Raises
        ------
        ValueError
            If the solver has no form for the device.
        """
        if device == "cpu":
            weights, smoothness = (to_host(getattr(self, name)) for name in _ARRAYS_BY_ATOM)
            unchanged = weights is self.weights and smoothness is self.smoothness
            return self if unchanged else replace(self, weights=weights, smoothness=smoothness)
        if self.solver not in GPU_SOLVERS:
            raise ValueError(
                f"solver={self.solver!r} does not run on a GPU: take solver={' or '.join(map(repr, GPU_SOLVERS))} "
                "there, which are the same, or device='cpu'"
            )
        weights = self.weights if on_gpu(self.weights) else _as_numbers("weights", self.weights, dtype)
        return replace(self, weights=to_device(weights, device), smoothness=to_host(self.smoothness))

    def problem(self, signal, operator, alpha, mask=None):
        """The problem of one signal in this room's forms."""
        weights, smoothness = (_as_numbers(name, getattr(self, name), operator.dtype) for name in _ARRAYS_BY_ATOM)
        geometry, n_components = operator.geometry, len(operator.atoms)
        if weights is not None:
            weights = _check_weights(weights, n_components, geometry)
        if smoothness is not None:
            smoothness = _check_smoothness(smoothness, n_components)
        return ConvProblem(
            signal,
            operator,
            alpha,
            weights=weights,
            positive=bool(self.positive),
            joint=float(self.joint),
            smoothness=smoothness,
            mask=mask,
        )


class Encoder:
    """Codes of signals of any sizes for atoms that stay: what depends on the atoms alone is computed once.

    Parameters
    ----------
    atoms : array of shape (n_components, n_channels, *support)
        Where they live is where codes are computed; signals, masks and codes to start from live there, too.
    options : ConvOptions
    n_jobs : int or None, default=None
        Threads of the CPU.

    Raises
    ------
    ValueError
        If the solver has no form for the device.
    """

    def __init__(self, atoms, options, n_jobs=None):
        self.atoms, self.device = atoms, device_of(atoms)
        self.options = options.on(self.device, atoms.dtype)
        self.n_threads = thread_count(n_jobs) if self.device == "cpu" else 1
        self._operators = {}

    def operator(self, signal_shape, n_threads=1):
        """The operator for signals of a shape."""
        key = signal_shape, n_threads
        if key not in self._operators:
            geometry = Geometry(signal_shape, self.atoms.shape[2:], self.options.boundary)
            on_cpu = self.device == "cpu"
            self._operators[key] = (
                Convolution(self.atoms, geometry, n_threads) if on_cpu else DeviceConvolution(self.atoms, geometry)
            )
        return self._operators[key]

    def positions(self, signal_shape):
        """Shape of the maps of a signal."""
        return Geometry(signal_shape, self.atoms.shape[2:], self.options.boundary).positions

    def alpha(self, signals, masks=None):
        """The penalty in absolute terms: a part of the least one at which all codes of the signals are zero."""
        if not self.options.alpha_relative:
            return self.options.alpha
        return self.options.alpha * self.largest_alpha(signals, masks)

    def largest_alpha(self, signals, masks=None):
        """The least alpha at which all codes of all signals are zero."""
        largest = [0.0] * len(signals)

        def work(i, _):
            operator = self.operator(signals[i].shape[2:])
            mask = None if masks is None else masks[i]
            largest[i] = self.options.problem(signals[i], operator, 1.0, mask).largest_alpha()

        with computing_on(self.device):
            run_in_threads(work, len(signals), self.n_threads)
        return max(largest)

    def encode(self, signals, alpha=None, *, masks=None, init=None, sparse=False, home=None, finish=None):
        """Solve the problem of every signal.

        Parameters
        ----------
        signals : sequence of arrays of shape (J, C, *signal_shape)
        alpha : float or None, default=None
            Absolute; None for solver="omp".
        masks : sequence of arrays or None, default=None
            W of every signal.
        init : sequence of maps or None, default=None
            Where to start.
        sparse : bool, default=False
            Make all maps `SparseMaps`, as soon as a signal is done.
        home : str or None, default=None
            Where the maps go, "cpu" or "cuda:N". None: they stay on the device, and are `SparseMaps` there.
        finish : callable or None, default=None
            ``finish(number, solution)`` says what to keep of a solution as soon as it is there, in the thread that
            made it; None: all of it.

        Returns
        -------
        list of Solution, or of what `finish` returns
            Their gaps are relative ones: divided by 0.5 |W x|^2 (of pursuits: the squared norm of the residual).
        """
        if self.device != "cpu":
            with computing_on(self.device):
                return self._encode_on_gpu(range(len(signals)), signals, alpha, masks, init, home, finish)
        results = [None] * len(signals)
        work, n_threads = self._work(signals, alpha, masks, init, sparse, finish)

        def put(number, worker):
            results[number] = work(number, worker)

        with single_threaded_blas:
            run_in_threads(put, len(signals), n_threads)
        return results

    def encode_in_turn(self, signals, alpha=None, *, masks=None, sparse=False, home=None, finish=None):
        """The same results, one after the other; few are held at once.

        Parameters
        ----------
        signals, alpha, masks, sparse, home, finish : as in `encode`

        Yields
        ------
        Solution, or what `finish` returns
        """
        if self.device == "cpu":
            work, n_threads = self._work(signals, alpha, masks, None, sparse, finish)
            with single_threaded_blas:
                yield from in_turn(work, len(signals), n_threads)
            return
        step = max(1, _TOGETHER // max(self._bytes_of_maps(signals)))
        for first in range(0, len(signals), step):
            numbers = range(first, min(first + step, len(signals)))
            with computing_on(self.device):
                results = self._encode_on_gpu(numbers, signals, alpha, masks, None, home, finish)
            yield from results

    def _work(self, signals, alpha, masks, init, sparse, finish):
        """What a thread does with the signal of a number, and how many do so at once."""
        outer = self.n_threads if len(signals) >= self.n_threads else 1
        inner = max(1, self.n_threads // outer)

        def work(i, _):
            signal = signals[i]
            operator = self.operator(signal.shape[2:], inner)
            problem = self.options.problem(signal, operator, alpha, None if masks is None else masks[i])
            solution = self._solve(problem, None if init is None else init[i], inner)
            if sparse and not isinstance(solution.maps, SparseMaps):
                solution.maps = SparseMaps.from_dense(solution.maps)
            return solution if finish is None else finish(i, solution)

        return work, outer

    def _encode_on_gpu(self, numbers, signals, alpha, masks, init, home, finish):
        """Signals of one shape together; only the non-zeros of their codes are kept, and moved."""
        results, groups = {}, {}
        for i in numbers:
            groups.setdefault(signals.shape(i), []).append(i)
        for shape, alike in groups.items():
            for place, solution in self._solve_alike(alike, shape, signals, alpha, masks, init):
                maps, number = SparseMaps.from_dense(solution.maps), alike[place]
                solution = replace(solution, maps=maps if home is None else maps.to(home))
                results[number] = solution if finish is None else finish(number, solution)
        return [results[number] for number in numbers]

    def _solve_alike(self, numbers, shape, signals, alpha, masks, init):
        """Solutions of signals of one shape, with their places in `numbers`, in the order in which they are done."""
        operator = self.operator(shape)

        def problem(place):
            mask = None if masks is None else masks[numbers[place]]
            return self.options.problem(signals[numbers[place]], operator, alpha, mask)

        def start(place):
            return init[numbers[place]]

        first, options = problem(0), {"tol": self.options.tol, "max_iter": self.options.max_iter}
        if first.roughness is not None:
            for place in range(len(numbers)):
                one = problem(place)
                solution = fista.solve(one, start=None if init is None else start(place), **options)
                yield place, replace(solution, gap=solution.gap / (one.energy or 1.0))
            return
        try:
            n_slots = slots_that_fit(first)
        except MemoryError:
            if operator.direct:
                raise
            operator = DeviceConvolution(self.atoms, operator.geometry, direct=True)  # in memory for the maps alone
            n_slots = slots_that_fit(problem(0))
        yield from solve_many(
            problem, len(numbers), starts=None if init is None else start, n_slots=n_slots, **options
        )  # fmt: skip

    def _solve(self, problem, start, n_threads):
        options = self.options
        name = options.solver
        if name == "auto":
            solution = solve_by_best(problem, start, options.tol, options.max_iter, n_threads)
        elif name == "omp":  # its gap is the squared norm of the residual
            return pursuit.solve(
                problem,
                n_nonzero_coefs=options.n_nonzero_coefs,
                max_error=options.max_error,
                n_threads=n_threads,
            )
        else:
            solution = _SOLVE[name](
                problem, start=start, tol=options.tol, max_iter=options.max_iter, n_threads=n_threads
            )
        return replace(solution, gap=solution.gap / problem.energy if problem.energy > 0 else solution.gap)

    def check_memory(self, signals, masks, sparse, in_turn=False):
        """Refuse what would not fit: the codes of the signals in work, and all dense codes together.

        Parameters
        ----------
        signals, masks : as in `encode`
        sparse : bool
            No dense codes are kept.
        in_turn : bool, default=False
            Dense codes wait until they are taken one after the other.

        Raises
        ------
        MemoryError
        """
        available = available_memory()
        if self.device != "cpu":
            self._check_memory_of_codes(signals, sparse or in_turn)
        if available is None or self.device != "cpu":
            return
        sizes = self._bytes_of_maps(signals)
        at_once, solver = min(len(sizes), self.n_threads), self.options.solver
        if solver == "auto":
            operator = self.operator(signals.shape(0))
            solver = choose_solver(self.options.problem(signals[0], operator, 1.0, None if masks is None else masks[0]))
        arrays = _ARRAYS[solver]
        kept = 0 if sparse else 2 * at_once * max(sizes) if in_turn else sum(sizes)
        needed = at_once * arrays * max(sizes) + kept
        if needed > available:
            avoidable = f", {_gigabytes(kept)} of it for dense codes" if kept else ""
            avoidable += " (sparse_output=True avoids them)" if kept and not in_turn else ""
            raise MemoryError(
                f"coding needs about {_gigabytes(needed)}{avoidable}, and {_gigabytes(available)} are free: {at_once} "
                f"signal(s) at once take {arrays} arrays of {_gigabytes(max(sizes))}. Lower n_jobs, the size of the "
                "signals or the number of atoms, or use float32"
            )

    def _bytes_of_maps(self, signals):
        """What the dense maps of each signal take."""
        bytes_a_position = len(signals[0]) * self.atoms.dtype.itemsize * len(self.atoms)
        return [bytes_a_position * prod(self.positions(signals.shape(i))) for i in range(len(signals))]

    def _check_memory_of_codes(self, signals, sparse):
        """Refuse dense codes that have no room where they go; what solving takes is cut into pieces."""
        if sparse or signals.home == "cpu":
            return
        size = sum(self._bytes_of_maps(signals))
        free = free_memory(signals.home)
        if size > free:
            raise MemoryError(
                f"dense codes take {_gigabytes(size)}, and {_gigabytes(free)} are free on {signals.home}: take "
                "sparse_output=True, fewer signals at once, or float32"
            )


def choose_solver(problem):
    """The solver that "auto" takes for a problem at first."""
    if on_gpu(problem.atoms):
        return "fista"
    for name, solver in (("lgcd", lgcd), ("working_set", working_set)):
        if solver.applies(problem) is None:
            return name
    return "fista"


def solve_by_best(problem, start, tol, max_iter, n_threads):
    """Solve with what is fastest for a problem; codes that turn out not to be sparse are left to `fista`."""
    name = choose_solver(problem)
    options = {"tol": tol, "max_iter": max_iter, "n_threads": n_threads}
    if name == "working_set":
        solution = working_set.solve(problem, start=start, densest=_DENSEST, **options)
        if solution.converged or (max_iter is not None and solution.n_iter >= max_iter):
            return solution
        name, start = "fista", solution.maps
    return _SOLVE[name](problem, start=start, **options)


def available_memory():
    """Bytes that may still be taken, or None where the system does not say."""
    with suppress(OSError, StopIteration), open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _as_numbers(name, array, dtype):
    if array is None:
        return None
    if on_gpu(array):
        return array.astype(dtype, copy=False)
    try:
        return np.asarray(array, dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error


def _check_weights(weights, n_components, geometry):
    allowed = (n_components,), (n_components, *geometry.positions)
    if weights.shape not in allowed:
        raise ValueError(
            f"weights must have the shape (n_components,) = {allowed[0]} or (n_components, *positions) = {allowed[1]}, "
            f"got {weights.shape}"
        )
    if not (array_module(weights).isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("weights must be finite numbers of at least 0")
    return weights.reshape(n_components, *[1] * geometry.n_axes) if weights.ndim == 1 else weights


def _check_smoothness(smoothness, n_components):
    if smoothness.shape != (n_components,):
        raise ValueError(f"smoothness must have the shape (n_components,) = {(n_components,)}, got {smoothness.shape}")
    if not (np.isfinite(smoothness).all() and (smoothness >= 0).all()):
        raise ValueError("smoothness must hold finite numbers of at least 0")
    return smoothness if smoothness.any() else None


def _gigabytes(size):
    return f"{size / 1e9:.3g} GB"
