"""Codes for the atoms, then atoms for the codes: the turns of convolutional dictionary learning."""

from dataclasses import replace
from functools import partial

import numpy as np

from sparseshare.devices import array_module, device_of, moved, to_device, to_host
from sparseshare.optimization.reductions import inner

from .encoder import Encoder, choose_solver
from .maps import packed, unpacked
from .replacement import WorstCoded, replace_atoms
from .statistics import ConvStatistics, complete
from .updates import AtomObjective, update_atoms

# Iterations of the coding in a turn: warm from the last turn, without codes to start from, and for a batch that is seen
# once. To solve for atoms that will move costs more than it brings. Measured on photographs, 64 atoms of 8 x 8.
_WARM = {"lgcd": 2, "working_set": 2, "fista": 10, "admm": 10}
_COLD = {"lgcd": 6, "working_set": 8, "fista": 30, "admm": 20}
_ONCE = {"lgcd": 10, "working_set": 20, "fista": 100, "admm": 50}
_ATTEMPTS = 6  # of a coding that has not descended, each twice as long as the one before
_PATIENCE = 10  # batches without a non-zero after which an atom is dead
_ROUNDING = {4: 1e-5, 8: 1e-10}  # of the energy: a rise of the objective that is none


class Alternation:
    """Atoms, and how signals teach them.

    Parameters
    ----------
    atoms : array of shape (n_components, n_channels, *support)
        Replaced, never written into. Codes, statistics and updates are made where they live.
    form : AtomForm
    options : ConvOptions
        Of the coding problem; `tol` is how exactly codes are solved at most.
    alpha : float
        The penalty in absolute terms.
    exchange : bool
        Whether dead atoms are replaced.
    n_jobs : int or None
    memory : dict or None, default=None
        `memory` of an earlier one, to go on from with batches.

    Attributes
    ----------
    maps : list of SparseMaps or None
        Codes of the signals of the last `step`.
    statistics : ConvStatistics
    """

    def __init__(self, atoms, form, options, alpha, exchange, n_jobs, memory=None):
        self.atoms, self.form, self.options, self.alpha = atoms, form, options, alpha
        self.exchange, self.n_jobs = exchange, n_jobs
        self.maps, self.objective = None, np.inf
        self.effort = 1
        if memory is None:
            self.statistics = self._no_statistics()
            self.unused_for, self.n_steps = np.zeros(len(atoms)), 0
        else:
            self._remember(memory)

    @property
    def memory(self):
        """All that going on with batches needs beside the atoms, as arrays and numbers."""
        return dict(statistics=vars(self.statistics), unused_for=self.unused_for, n_steps=self.n_steps)

    @property
    def state(self):
        """All that going on with the same signals needs, as arrays and numbers."""
        return dict(
            atoms=self.atoms,
            alpha=self.alpha,
            objective=self.objective,
            effort=self.effort,
            memory=self.memory,
            maps=None if self.maps is None else packed(self.maps),
        )

    def restore(self, state):
        """Go on from a `state`."""
        device = device_of(self.atoms)
        self.atoms, self.alpha = to_device(state["atoms"], device), state["alpha"]
        self.objective, self.effort = state["objective"], state["effort"]
        self._remember(state["memory"])
        self.maps = None if state["maps"] is None else [maps.to(device) for maps in unpacked(state["maps"])]

    def _remember(self, memory):
        self.statistics = ConvStatistics(**moved(memory["statistics"], device_of(self.atoms)))
        self.unused_for, self.n_steps = to_host(memory["unused_for"]), memory["n_steps"]

    def step(self, signals):
        """A turn on all signals; each starts from the codes of the turn before, and neither half raises the objective.

        Parameters
        ----------
        signals : ConvSignals
            The same in every turn.

        Returns
        -------
        float
            The objective after it, summed over the signals. Where samples are missing and for boundary="valid" a bound
            on it from above, which the next turn's codes start below.
        """
        encoder, maps, objective = self._coded(signals)
        self.maps = maps
        self.statistics, quadratic = self._count(signals, maps, encoder, objective)
        self.atoms = update_atoms(self.atoms, quadratic, self.form)
        self.objective = quadratic.value(self.atoms) + self.statistics.penalty
        self._exchange_atoms(to_host(self.statistics.usage) == 0, partial(self.worst_coded, signals, maps))
        self.n_steps += 1
        return self.objective

    def learn(self, batch, forgetting):
        """Learn from a batch that is not kept.

        Parameters
        ----------
        batch : ConvSignals
        forgetting : float
            What the statistics so far count beside this batch, from 0 to 1.

        Returns
        -------
        float
            The objective of the batch for the atoms before, summed over its signals.
        """
        maps, statistics, objective = self.summarized(batch)
        self.learn_from(statistics, forgetting, partial(self.worst_coded, batch, maps))
        return objective

    def summarized(self, batch):
        """Codes of a batch for the present atoms.

        Parameters
        ----------
        batch : ConvSignals

        Returns
        -------
        maps : list of SparseMaps
        statistics : ConvStatistics
        objective : float
            Summed over the signals.
        """
        encoder = self._encoder(_ONCE, batch)
        solutions = encoder.encode(batch, self.alpha, masks=batch.masks, sparse=True)
        maps = [solution.maps for solution in solutions]
        objective = sum(solution.objective for solution in solutions)
        return maps, self._count(batch, maps, encoder, objective)[0], objective

    def learn_from(self, statistics, forgetting, worst_coded):
        """Learn from what is known of a batch.

        Parameters
        ----------
        statistics : ConvStatistics
        forgetting : float
        worst_coded : callable
            `worst_coded(count)` is the `WorstCoded` of the batch for the atoms of that moment; asked if atoms died.
        """
        self.statistics.forget(forgetting)
        used_before = to_host(self.statistics.usage).copy()
        self.statistics += statistics
        self.atoms = update_atoms(self.atoms, AtomObjective(self.statistics), self.form)
        self.unused_for = np.where(to_host(self.statistics.usage) > used_before, 0, self.unused_for + 1)
        self._exchange_atoms(self.unused_for >= _PATIENCE, worst_coded)
        self.n_steps += 1

    def _encoder(self, iterations, signals):
        solver, most = self.options.solver, self.options.max_iter
        if solver == "auto":
            first, mask = signals[0], None if signals.masks is None else signals.masks[0]
            operator = Encoder(self.atoms, self.options).operator(first.shape[2:])
            solver = choose_solver(self.options.problem(first, operator, self.alpha, mask))
        iterations = self.effort * iterations[solver]
        iterations = iterations if most is None else min(most, iterations)
        return Encoder(self.atoms, replace(self.options, solver=solver, max_iter=iterations), self.n_jobs)

    def _coded(self, signals):
        """Codes no worse than those of the turn before: an encoder for the atoms, the codes, their objective."""
        start, tolerance = self.maps, _ROUNDING[self.atoms.dtype.itemsize] * self.statistics.energy
        for _ in range(_ATTEMPTS):
            encoder = self._encoder(_COLD if start is None else _WARM, signals)
            solutions = encoder.encode(signals, self.alpha, masks=signals.masks, init=start, sparse=True)
            maps = [solution.maps for solution in solutions]
            objective = sum(solution.objective for solution in solutions)
            if self.maps is None or objective <= self.objective + tolerance:
                return encoder, maps, objective
            # A solver that does not descend step by step was stopped on its way: let it go on.
            start = maps
            self.effort *= 2
        return encoder, self.maps, self.objective

    def _count(self, signals, maps, encoder, objective):
        """Statistics of coded signals, and their function of the atoms.

        What is not squared error in the signals' objective is their penalty.
        """
        statistics = self._no_statistics()
        masks = signals.masks
        for number, coded in enumerate(maps):
            signal = signals[number]
            operator = encoder.operator(signal.shape[2:])
            mask = None if masks is None else masks[number]
            whole, boundary, weight, constant = complete(signal, coded, operator, mask)
            statistics.add(
                whole, coded, boundary, weight=weight, constant=constant, n_threads=encoder.n_threads
            )  # fmt: skip
        statistics.settle().n_signals = float(len(maps))
        quadratic = AtomObjective(statistics)
        statistics.penalty = objective - quadratic.value(self.atoms)
        return statistics, quadratic

    def _exchange_atoms(self, dead, worst_coded):
        dead = np.flatnonzero(dead)
        dead = dead[dead >= self.form.n_fixed]
        if not self.exchange or len(dead) == 0:
            return
        worst = worst_coded(len(dead))
        self.atoms = self.atoms.copy()
        replaced = replace_atoms(self.atoms, dead, worst, self.form)
        self.unused_for[replaced] = 0
        for atom in replaced.tolist():
            self.statistics.drop(atom)

    def worst_coded(self, signals, maps, count):
        """What the present atoms, with codes that were found, reproduce worst.

        Parameters
        ----------
        signals : ConvSignals
        maps : list of SparseMaps
        count : int
            Patches to keep.

        Returns
        -------
        WorstCoded
        """
        worst = WorstCoded(self.form.support, count)
        encoder, masks = Encoder(self.atoms, self.options, self.n_jobs), signals.masks
        for number, coded in enumerate(maps):
            signal = signals[number]
            residual = signal - encoder.operator(signal.shape[2:]).synthesize(coded.dense())
            if masks is not None:
                residual *= masks[number]
            worst.look_at(residual, 0.5 * inner(signal, signal))
        return worst

    def _no_statistics(self):
        n_components, n_channels, *support = self.atoms.shape
        return ConvStatistics.zeros(n_components, n_channels, tuple(support), array_module(self.atoms))


class Batch:
    """Some of the signals.

    Parameters
    ----------
    signals : ConvSignals
    numbers : sequence of int
    """

    def __init__(self, signals, numbers):
        self.signals, self.numbers = signals, [int(number) for number in numbers]
        self.masks = None if signals.masks is None else _Picked(signals.masks, self.numbers)

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, number):
        return self.signals[self.numbers[number]]

    def shape(self, number):
        """Spatial shape of a signal."""
        return self.signals.shape(self.numbers[number])


class _Picked:
    def __init__(self, sequence, numbers):
        self.sequence, self.numbers = sequence, numbers

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, number):
        return self.sequence[self.numbers[number]]
