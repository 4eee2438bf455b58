"""Learning the dictionaries of multi-layer sparse coding: the first ones, gradients, and back to unit atoms."""

from math import isfinite, prod

import numpy as np

from sparseshare.threads import run_in_threads

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
        n_atoms = operator.weights_shape[1]
        pieces = np.asarray(operator.patches(x))
        energy = np.einsum("ij,ij->i", pieces, pieces, dtype=np.float64)
        some = np.flatnonzero(energy > 1e-12 * energy.max(initial=0))
        n_drawn = min(n_atoms, len(some))
        weights = random_state.standard_normal(operator.weights_shape)
        if n_drawn:
            share = energy[some] / energy[some].sum()
            drawn = random_state.choice(some, n_drawn, replace=False, p=share)
            weights[:, :n_drawn] = pieces[drawn].T / np.sqrt(energy[drawn])
        weights = to_sphere(weights.astype(x.dtype))
        found.append(weights)
        chain = Chain([operator], [weights])
        thresholds, steps = scaled(chain, [penalty], [1.0])
        blocks = [
            unrolled(x[block], chain, spread(chain, thresholds), steps, _GREEDY, positive, accelerated=True)[0]
            for block in chain.blocks(len(x))
        ]
        x = np.concatenate(blocks)
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
    if threshold:
        shrunk = np.sign(weights) * np.maximum(np.abs(weights) - weights.dtype.type(threshold), 0)
        gone = np.flatnonzero(~shrunk.any(axis=0))
        largest = np.abs(weights[:, gone]).argmax(axis=0)
        shrunk[largest, gone] = weights[largest, gone]
        weights = shrunk
    norms = np.sqrt(np.einsum("ij,ij->j", weights, weights, dtype=np.float64))
    return weights / np.where(norms > 0, norms, 1).astype(weights.dtype)


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
    float
        Sum over the samples.
    list of ndarray
        Of the shapes of the weights.
    """
    estimates = chain.estimates(codes)
    total = float(objective(x, estimates, alpha).sum())
    upstream, found = estimates[0] - x, []
    for i, operator in enumerate(chain.operators):
        found.append(operator.gradient(upstream, estimates[i + 1]))
        if i + 1 < len(chain.operators):
            upstream = operator.analyse(upstream, chain.weights[i])
            upstream += chain.dtype.type(alpha[i]) * np.sign(estimates[i + 1])
    return total, found


def along_sphere(gradient, weights):
    """The part of a gradient that leaves the norm of every atom as it is."""
    return gradient - weights * np.einsum("ij,ij->j", gradient, weights)


class DictionaryLearner:
    """Dictionaries while they are learned.

    Parameters
    ----------
    operators : list of Operator
    weights : list of ndarray
    alpha, atoms_alpha : list of float
    unrolled_for : callable
        ``unrolled_for(chain) -> infer(x, chain)``.
    """

    def __init__(self, operators, weights, alpha, atoms_alpha, unrolled_for):
        self.operators, self.alpha, self.atoms_alpha = operators, alpha, atoms_alpha
        self.parameters, self.optimizer = [Parameter(array) for array in weights], Adam()
        self.unrolled_for, self.densities = unrolled_for, np.full(len(operators), np.nan)

    def dictionaries(self):
        """As the user sees them."""
        return [operator.atoms(p.values) for operator, p in zip(self.operators, self.parameters, strict=True)]

    def state(self):
        """Copies of the weights, for `restore`."""
        return [parameter.values.copy() for parameter in self.parameters]

    def restore(self, state):
        """Go back to what `state` gave."""
        for parameter, values in zip(self.parameters, state, strict=True):
            parameter.values[...] = values

    def epoch(self, batches, rate, n_threads):
        """One pass over all batches; the sum of their objectives before each step, NaN if it was broken off."""
        total, counts, sizes = 0.0, np.zeros(len(self.operators)), np.zeros(len(self.operators))
        for x in batches:
            loss, found, nonzeros = self._gradients(x, n_threads)
            if not isfinite(loss):
                return loss
            total += loss
            counts += nonzeros
            sizes += [len(x) * prod(operator.output_shape) for operator in self.operators]
            for parameter, gradient, sparser in zip(self.parameters, found, self.atoms_alpha, strict=True):
                parameter.gradient = along_sphere(gradient / len(x), parameter.values)
                self.optimizer.update(parameter, rate)
                parameter.values[...] = to_sphere(parameter.values, rate * sparser)
        self.densities = counts / sizes
        return total

    def _gradients(self, x, n_threads):
        chain = Chain(self.operators, [parameter.values for parameter in self.parameters])
        infer, blocks = self.unrolled_for(chain), chain.blocks(len(x))
        parts = [None] * len(blocks)

        def work(i, worker):
            codes = infer(x[blocks[i]], chain)
            loss, found = gradients(x[blocks[i]], chain, codes[-1], self.alpha)
            parts[i] = loss, found, np.array([np.count_nonzero(layer) for layer in codes])

        run_in_threads(work, len(blocks), n_threads)
        loss, found, nonzeros = parts[0]
        for more in parts[1:]:
            loss, nonzeros = loss + more[0], nonzeros + more[2]
            for gradient, part in zip(found, more[1], strict=True):
                gradient += part
        return loss, found, nonzeros
