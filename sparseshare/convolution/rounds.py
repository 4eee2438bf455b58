"""Many problems of one geometry at once on a GPU, by accelerated proximal gradient; each stops by its own gap.

Problems sit in slots. When one is done its slot goes to the next, so that the batch, and with it the plans of the
transforms, stays the same; when none are left to begin and half of the slots idle, those in work move together. What a
problem does next is decided on the device, and the host reads seldom, a check late, who is done.

Why not greedy coordinate descent: it makes four to five changes a non-zero, each of which reads and writes a window of
M (2 L - 1)^d correlations. For 64 atoms of 11 x 11 on a picture of 512 x 512 with 0.2 % non-zeros these are 50 GB
through the L2 cache, what about 40 rounds here move, in chains of dependent changes that leave most of a device idle.
"""

from math import inf, prod

import numpy as np

from sparseshare.devices import array_module, computing_on, device_of, rows_that_fit
from sparseshare.kernels.dispatch import kernels_for

from .maps import SparseMaps
from .problem import Solution

_CHECK = 8  # rounds from one reading to the next; half as many
_FEW = 50  # for so few iterations
_MOST = 1024  # slots
_GRID = 65_535  # signals of all slots, by which kernels number their blocks
_MAX_ITER = 10_000


class Rounds:
    """The state of several problems between rounds.

    Parameters
    ----------
    operator : DeviceConvolution
    template : ConvProblem
        What all problems share: penalty and, whether there is one, a mask.
    n_slots : int
    tol : float
    max_iter : int or None
    """

    def __init__(self, operator, template, n_slots, tol, max_iter):
        xp = self._xp = array_module(operator.atoms)
        self.operator, self.tol = operator, tol
        self._alpha, self._joint, self._positive = template.alpha, template.joint, template.positive
        self._max_iter = _MAX_ITER if max_iter is None else max_iter
        kernels = self._kernels = kernels_for(device_of(operator.atoms), "conv_fista")
        geometry, dtype = operator.geometry, operator.dtype
        n_codes, n_channels = template.signal.shape[:2]
        n_atoms = len(operator.atoms)
        self._weights, self._bounded = None, True
        if template.weights is not None:
            rows = xp.broadcast_to(template.weights, (n_atoms, *template.weights.shape[1:])).reshape(n_atoms, -1)
            per_map = 1 if rows.shape[1] == 1 else geometry.n_positions
            self._weights = xp.ascontiguousarray(xp.broadcast_to(rows, (n_atoms, per_map)))
            self._bounded = bool((rows > 0).all())
        self._place_of_maps = kernels.inset(geometry.positions, operator.storage, (0,) * geometry.n_axes)
        self._place_of_signals = kernels.inset(geometry.signal_shape, operator.canvas, operator.corner)
        maps, signals = (n_slots, n_codes, n_atoms, *operator.storage), (n_slots, *template.signal.shape)
        self._codes, self._far, self._fresh = (xp.zeros(maps, dtype) for _ in range(3))
        self._target, self._image, self._far_image, self._made = (xp.zeros(signals, dtype) for _ in range(4))
        self._mask = None if template.mask is None else xp.zeros(signals, dtype)
        self._residual = xp.zeros((n_slots, n_codes, n_channels, *operator.canvas), dtype)
        self.state = xp.zeros((n_slots, len(kernels.STATE)))
        self.state[:, kernels.STATE.index("phase")] = kernels.DONE

    def load(self, slot, problem, start=None):
        """Begin a problem in a slot.

        Parameters
        ----------
        slot : int
        problem : ConvProblem
            On the device.
        start : array of shape `problem.maps_shape`, SparseMaps or None, default=None
            Codes to start from.
        """
        target = self._target[slot]
        target[...] = problem.signal
        if self._mask is not None:
            self._mask[slot] = problem.mask
            target *= problem.mask
        self._fresh[slot] = 0
        if start is not None:
            dense = start.dense() if isinstance(start, SparseMaps) else start
            corner = tuple(slice(n) for n in self.operator.geometry.positions)
            self._fresh[(slot, slice(None), slice(None), *corner)] = dense
        energy = 0.5 * (target * target).sum(dtype=np.float64)
        most, names = self.operator.lipschitz, self._kernels.STATE
        most = most if most > 0 else 1.0
        state = {"phase": self._kernels.LOAD, "bound": -inf, "most": most, "curvature": 1.0}
        self.state[slot] = self._xp.asarray([state.get(name, 0.0) for name in names])
        self.state[slot, names.index("energy")] = energy
        self.state[slot, names.index("tolerance")] = self.tol * energy
        if self._mask is not None:
            self.state[slot, names.index("most")] = most * abs(problem.mask).max().astype(np.float64) ** 2

    @property
    def names(self):
        """What the entries of a row of `state` are called."""
        return self._kernels.STATE

    def is_done(self, row):
        """Whether a row of `state`, on the host, is that of a problem that is done."""
        return row[self.names.index("phase")] == self._kernels.DONE

    def advance(self):
        """One round."""
        kernels, operator, xp = self._kernels, self.operator, self._xp
        n_slots, n_codes, n_atoms = self._codes.shape[:3]
        n_inner = operator.geometry.n_positions
        blocks = kernels.n_blocks(prod(self._target.shape[1:]))
        aimed, looked = xp.empty((n_slots, blocks, 2)), xp.empty((n_slots, blocks, 2))
        stepped = xp.empty((n_slots, n_atoms * (1 if self._joint else n_codes) * kernels.n_blocks(n_inner), 4))
        kernels.aim(
            self.state, self._target, self._mask, self._made, self._place_of_signals, self._image, self._far_image,
            self._residual, aimed,
        )  # fmt: skip
        slopes = operator.correlate_stored(self._flat(self._residual))
        kernels.step(
            self.state, slopes, self._weights, self._place_of_maps, n_inner, self._alpha, self._joint, self._positive,
            self._codes, self._far, self._fresh, stepped,
        )  # fmt: skip
        del slopes
        synthesized = operator.synthesize_stored(self._flat(self._fresh))
        kernels.look(
            self.state, self._target, self._mask, self._image, self._far_image, synthesized, self._place_of_signals,
            self._made, looked,
        )  # fmt: skip
        kernels.decide(aimed, stepped, looked, self._alpha, self._bounded, self._max_iter, self.state)

    def maps(self, slots):
        """Codes of problems, (n, J, K, *positions); new."""
        n_codes, n_atoms = self._codes.shape[1:3]
        out = self._xp.empty((len(slots), n_codes, n_atoms, *self.operator.geometry.positions), self.operator.dtype)
        slots = self._xp.asarray(np.asarray(slots, np.int32))
        self._kernels.take(self.state, slots, self._place_of_maps, self._codes, self._fresh, out)
        return out

    def keep(self, slots):
        """Give all other slots up."""
        slots = self._xp.asarray(np.asarray(slots, np.int32))
        for name in ("_codes", "_far", "_fresh", "_target", "_image", "_far_image", "_made", "_mask", "_residual",
                     "state"):  # fmt: skip
            array = getattr(self, name)
            if array is not None:
                setattr(self, name, array[slots])

    def _flat(self, array):
        return array.reshape(-1, *array.shape[2:])


def solve_many(problems, n_problems, *, starts=None, tol=1e-4, max_iter=None, n_slots=None):
    """Solve problems that differ in their signals and masks only.

    Parameters
    ----------
    problems : callable
        `problems(number)` is a ConvProblem on the device, made when its turn comes. All without smoothness.
    n_problems : int
    starts : callable or None, default=None
        `starts(number)` are codes to start from, on the device.
    tol : float, default=1e-4
    max_iter : int or None, default=None
        None is 10000.
    n_slots : int or None, default=None
        Problems at once; None are as many as fit in memory. An allocation that fails halves them.

    Yields
    ------
    number : int
    solution : Solution
        With dense maps on the device. In the order in which they are done.

    Raises
    ------
    MemoryError
        If not even one problem fits.
    """
    first = problems(0)
    device = device_of(first.signal)
    n_slots = slots_that_fit(first) if n_slots is None else n_slots
    waiting, n_slots = list(range(n_problems))[::-1], min(n_slots, n_problems)
    with computing_on(device):
        while waiting:
            done = set()
            try:
                for number, solution in _in_slots(problems, waiting.copy(), n_slots, starts, tol, max_iter):
                    done.add(number)
                    yield number, solution
                waiting = []
            except MemoryError as error:
                if n_slots == 1:
                    raise MemoryError(
                        f"{device} has no room for one signal, which takes about {bytes_a_slot(first) / 2**20:.0f} MB: "
                        f"take fewer atoms, smaller signals or float32 ({error})"
                    ) from error
                n_slots //= 2
            waiting = [number for number in waiting if number not in done]


def slots_that_fit(problem):
    """How many problems like this one may be worked on at once.

    Raises
    ------
    MemoryError
        If not even one.
    """
    most = max(1, min(_MOST, _GRID // len(problem.signal)))
    return rows_that_fit(device_of(problem.signal), bytes_a_slot(problem), problem.operator.bytes_of_atoms, most)


def bytes_a_slot(problem):
    """Device memory that a problem takes while it is worked on, its codes when they are done included."""
    operator, itemsize = problem.operator, problem.dtype.itemsize
    n_codes = len(problem.signal)
    maps = n_codes * len(operator.atoms) * (3 * prod(operator.storage) + operator.geometry.n_positions)
    signals = n_codes * operator.atoms.shape[1] * (6 * prod(operator.geometry.signal_shape) + prod(operator.canvas))
    return itemsize * (maps + signals) + n_codes * operator.bytes_a_signal()


def _in_slots(problems, waiting, n_slots, starts, tol, max_iter):
    """The problems numbered `waiting`, the last of them first."""
    first = problems(waiting[-1])
    rounds = Rounds(first.operator, first, n_slots, tol, max_iter)
    names, check = rounds.names, _CHECK if max_iter is None or max_iter > _FEW else _CHECK // 2
    readback = kernels_for(device_of(first.signal), "readback").Readback(rounds.state)
    numbers, fresh = [None] * n_slots, [0] * n_slots  # what sits in a slot, and readings until what is read is its own

    def begin(slot):
        numbers[slot] = waiting.pop() if waiting else None
        if numbers[slot] is not None:
            number = numbers[slot]
            rounds.load(slot, problems(number), None if starts is None else starts(number))
            fresh[slot] = 1

    for slot in range(n_slots):
        begin(slot)
    fresh = [0] * n_slots
    while any(number is not None for number in numbers):
        for _ in range(check):
            rounds.advance()
        read = readback.next(rounds.state)
        if read is None:
            continue
        done = [
            slot for slot, number in enumerate(numbers)
            if number is not None and not fresh[slot] and rounds.is_done(read[slot])
        ]  # fmt: skip
        fresh = [max(wait - 1, 0) for wait in fresh]
        rows = {slot: dict(zip(names, read[slot].tolist(), strict=True)) for slot in done}
        for slot in done:  # one at a time: their maps are as large as a problem
            row = rows[slot]
            gap = max(row["objective"] - row["bound"], 0.0)
            gap = gap / row["energy"] if row["energy"] > 0 else gap
            yield (
                numbers[slot],
                Solution(rounds.maps([slot])[0], row["objective"], gap, int(row["iterations"]), bool(row["converged"])),
            )
            begin(slot)
        live = [slot for slot, number in enumerate(numbers) if number is not None]
        if not waiting and live and len(live) <= len(numbers) // 2:
            rounds.keep(live)
            numbers, fresh = [numbers[slot] for slot in live], [0] * len(live)
            readback = kernels_for(device_of(first.signal), "readback").Readback(rounds.state)
