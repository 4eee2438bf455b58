"""Learning the dictionaries of multi-layer sparse coding: the first ones, gradients, and back to unit atoms."""

from dataclasses import dataclass
from math import isfinite, prod

import numpy as np

from sparseshare.devices import array_module, device_of, moved, to_device, to_host

from .blocks import in_blocks
from .multilayer import objective, scaled, spread, unrolled
from .operators import Chain
from .optimizers import Adam
from .parameters import Parameter

_GREEDY = 20  # iterations for the codes that the first atoms of the next layer are drawn from


def first_weights(operators, x, alpha, positive, random_state):
    """Atoms drawn from the data: pieces of signals, then pieces of codes for these, and so on, of norm 1.

    Large pieces are drawn rather than small ones; what there are too few of is random.

    Parameters
    ----------
    operators : list of Operator
    x : ndarray of shape (n, *input_shape)
        Some signals.
    alpha : list of float
    positive : bool
    random_state : RandomState

    Returns
    -------
    list of ndarray of shape (n_entries, n_atoms)
    """
    found = []
    for operator, penalty in zip(operators, alpha, strict=True):
        n_atoms, device = operator.weights_shape[1], device_of(x)
        pieces = operator.patches(x)
        energy = to_host(array_module(x).square(pieces, dtype=np.float64).sum(axis=1))
        some = np.flatnonzero(energy > 1e-12 * energy.max(initial=0))
        n_drawn = min(n_atoms, len(some))
        weights = random_state.standard_normal(operator.weights_shape)
        if n_drawn:
            share = energy[some] / energy[some].sum()
            drawn = random_state.choice(some, n_drawn, replace=False, p=share)
            weights[:, :n_drawn] = to_host(pieces[to_device(drawn, device)]).T / np.sqrt(energy[drawn])
        weights = to_device(to_sphere(weights.astype(x.dtype)), device)
        found.append(weights)
        chain = Chain([operator], [weights])
        thresholds, steps = scaled(chain, [penalty], [1.0])
        blocks = [
            unrolled(x[block], chain, spread(chain, thresholds), steps, _GREEDY, positive, accelerated=True)[0]
            for block in chain.blocks(len(x))
        ]
        x = array_module(x).concatenate(blocks)
    return found


def to_sphere(weights, threshold=0.0):
    """Atoms (columns) of norm 1, after a soft threshold of their entries; where nothing is left the largest stays.

    Parameters
    ----------
    weights : ndarray of shape (n_entries, n_atoms)
    threshold : float, default=0.0

    Returns
    -------
    ndarray of that shape
    """
    xp = array_module(weights)
    if threshold:
        size = abs(weights)
        shrunk = xp.sign(weights) * xp.maximum(size - weights.dtype.type(threshold), 0)
        gone = ~shrunk.any(axis=0) & (xp.arange(len(weights))[:, None] == size.argmax(axis=0))
        weights = xp.where(gone, weights, shrunk)
    norms = xp.sqrt(xp.square(weights, dtype=np.float64).sum(axis=0))
    return weights / xp.where(norms > 0, norms, 1).astype(weights.dtype)


def gradients(x, chain, codes, alpha):
    """Objective of some samples, and its gradients by the weights for fixed codes of the deepest layer.

    Parameters
    ----------
    x : ndarray of shape (n, *input_shape)
    chain : Chain
    codes : ndarray of shape (n, *output_shape)
    alpha : list of float

    Returns
    -------
    float, or on a GPU an array of one number
        Sum over the samples.
    list of ndarray
        Of the shapes of the weights.
    """
    estimates, xp = chain.estimates(codes), array_module(x)
    total = objective(x, estimates, alpha).sum()
    upstream, found = estimates[0] - x, []
    for i, operator in enumerate(chain.operators):
        found.append(operator.gradient(upstream, estimates[i + 1]))
        if i + 1 < len(chain.operators):
            upstream = operator.analyse(upstream, chain.weights[i])
            upstream += xp.sign(estimates[i + 1]) * chain.dtype.type(alpha[i])
    return total, found


def along_sphere(gradient, weights):
    """The part of a gradient that leaves the norm of every atom as it is."""
    return gradient - weights * (gradient * weights).sum(axis=0)


@dataclass
class EpochSums:
    """Of the batches of an epoch so far; those of a GPU stay there, the host asks for them once an epoch.

    Attributes
    ----------
    n_samples : int
    objective : float, or on a GPU an array of one number
    nonzeros : int array of shape (n_layers,)
        In the codes of every layer.
    """

    n_samples: int = 0
    objective: object = 0.0
    nonzeros: object = 0

    @classmethod
    def there(cls, state, device):
        """Sums that go on from the `vars` of others, where they are added to."""
        sums = cls(**state)
        sums.objective, sums.nonzeros = to_device(sums.objective, device), to_device(sums.nonzeros, device)
        return sums


class DictionaryLearner:
    """Dictionaries while they are learned.

    Parameters
    ----------
    operators : list of Operator
    weights : list of ndarray
        Where they are to be learned.
    alpha, atoms_alpha : list of float
    unrolled_for : callable
        ``unrolled_for(chain) -> infer(x, chain)``.
    memory : dict or None, default=None
        `memory` of an earlier one, to go on from.
    """

    def __init__(self, operators, weights, alpha, atoms_alpha, unrolled_for, memory=None):
        self.operators, self.alpha, self.atoms_alpha = operators, alpha, atoms_alpha
        self.parameters, self.optimizer = [Parameter(array) for array in weights], Adam()
        self.unrolled_for, self.densities = unrolled_for, np.full(len(operators), np.nan)
        if memory is not None:
            self.densities = memory["densities"]
            for parameter, state in zip(self.parameters, memory["optimizer"], strict=True):
                parameter.state = moved(state, self.device)

    @property
    def device(self):
        """Where the dictionaries are learned."""
        return self.parameters[0].device

    @property
    def memory(self):
        """All that going on needs beside the weights, as arrays and numbers."""
        return dict(optimizer=[parameter.state for parameter in self.parameters], densities=self.densities)

    def dictionaries(self):
        """As the user sees them, where they are learned."""
        return [operator.atoms(p.values) for operator, p in zip(self.operators, self.parameters, strict=True)]

    def weights(self):
        """Copies of the weights, for `restore`."""
        return [parameter.values.copy() for parameter in self.parameters]

    def restore(self, weights):
        """Go back to what `weights` gave."""
        for parameter, values in zip(self.parameters, weights, strict=True):
            parameter.values[...] = values

    def epoch(self, batches, rate, n_threads, sums, after_batch):
        """One pass over all batches, or the rest of it; the sum of their objectives before each step.

        Parameters
        ----------
        batches : iterable of arrays of shape (n, *input_shape)
        rate : float
        n_threads : int
        sums : EpochSums
            Of the batches before; those of `batches` are added.
        after_batch : callable
            Without arguments, called after every step.

        Returns
        -------
        float
            NaN or infinite if the pass was broken off.
        """
        for x in batches:
            loss, found, nonzeros = self._gradients(x, n_threads)
            if device_of(loss) == "cpu" and not isfinite(loss):
                return float(loss)
            sums.n_samples += len(x)
            sums.objective, sums.nonzeros = sums.objective + loss, sums.nonzeros + nonzeros
            for parameter, gradient, sparser in zip(self.parameters, found, self.atoms_alpha, strict=True):
                parameter.gradient = along_sphere(gradient / len(x), parameter.values)
                self.optimizer.update(parameter, rate)
                parameter.values[...] = to_sphere(parameter.values, rate * sparser)
            after_batch()
        n_codes = [sums.n_samples * prod(operator.output_shape) for operator in self.operators]
        self.densities = to_host(sums.nonzeros) / n_codes
        return float(sums.objective)

    def _gradients(self, x, n_threads):
        chain, xp = Chain(self.operators, [parameter.values for parameter in self.parameters]), array_module(x)
        infer, blocks = self.unrolled_for(chain), chain.blocks(len(x))
        parts = [None] * len(blocks)

        def work(i, worker):
            codes = infer(x[blocks[i]], chain)
            loss, found = gradients(x[blocks[i]], chain, codes[-1], self.alpha)
            parts[i] = loss, found, xp.stack([xp.asarray(xp.count_nonzero(layer)) for layer in codes])

        in_blocks(work, blocks, n_threads, chain.device)
        loss, found, nonzeros = parts[0]
        for more in parts[1:]:
            loss, nonzeros = loss + more[0], nonzeros + more[2]
            for gradient, part in zip(found, more[1], strict=True):
                gradient += part
        return loss, found, nonzeros
