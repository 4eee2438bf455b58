"""Updates of a dictionary from additive statistics: the atom sweep and the method of optimal directions."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from sparseshare.devices import array_module, computing_on, device_of, on_gpu
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.optimization.constraints import AtomConstraint, row_norms

# An atom whose share of the mass A_kk is smaller than this takes no step: its ratios A_kj / A_kk are mostly rounding.
LEAST_MASS = 1e-9


def sweep_atoms(dictionary, statistics, constraint=None):
    """One pass of block coordinate descent over the atoms, in place.

    Atom by atom, d_k <- P(d_k + (B_k - A_k D) / A_kk): the exact minimiser of |X - W D|^2 over d_k in the constraint
    set, given the other atoms (Mairal et al. 2010, algorithm 2). Computed in blocks of atoms: a matrix product gives
    the steps of a block, and within the block every step corrects the later ones. Atoms without mass stay.

    Parameters
    ----------
    dictionary : array of shape (n_components, n_features), C-contiguous
        Updated in place.
    statistics : Statistics
        On the device of the dictionary.
    constraint : AtomConstraint or None, default=None
        None is the unit ball.

    Returns
    -------
    dictionary : array
        The same array.
    """
    constraint = AtomConstraint() if constraint is None else constraint
    device = device_of(dictionary)
    kernels = kernels_for(device, "atoms")
    A, B = statistics.A, statistics.B
    form = constraint.norm == "sphere", constraint.nonnegative, constraint.zero_mean, float(constraint.l1_budget or 0)
    if device != "cpu":
        with computing_on(device):
            kernels.sweep(A, B, LEAST_MASS, *form, dictionary)
        return dictionary
    n_components, n_features = dictionary.shape
    block = 32 if n_components <= 512 else 64  # the larger the rows, the more a wide matrix product pays
    ratios = np.empty((block, n_components), dictionary.dtype)
    targets = np.empty((block, n_features), dictionary.dtype)
    least_mass = LEAST_MASS * A.diagonal().max(initial=0)
    for first in range(0, n_components, block):
        last = min(first + block, n_components)
        rows, steps = ratios[: last - first], targets[: last - first]
        kernels.normalise_rows(A, B, first, last, least_mass, rows, steps)
        steps -= rows @ dictionary
        kernels.sweep_block(first, rows, steps, *form, dictionary)
    return dictionary


def optimal_directions(dictionary, statistics, constraint=None):
    """The dictionary of least squared error, normalised (method of optimal directions), in place.

    D <- (A + e I)^-1 B with a tiny e, then unit atoms; the norms go into the codes, so that W D stays as it is
    (Engan, Aase and Husoy 1999). The l1 norm of the codes may grow by that: made for the pursuits, whose objective is
    the squared error alone. Atoms without mass stay.

    Parameters
    ----------
    dictionary : array of shape (n_components, n_features)
        Updated in place.
    statistics : Statistics
        On the device of the dictionary. Rescaled in place as the codes have to be.
    constraint : AtomConstraint or None, default=None
        Norm and zero mean are honoured; other constraints have no solution of this form.

    Returns
    -------
    norms : array of shape (n_components,), float64
        On that device. What the codes are to be multiplied by, atom by atom.

    Raises
    ------
    ValueError
        For non-negative atoms and for an l1 budget.
    """
    constraint = AtomConstraint() if constraint is None else constraint
    if constraint.nonnegative or constraint.l1_budget is not None:
        raise ValueError("dict_update='mod' cannot keep atoms non-negative or within an l1 budget: use 'bcd'")
    if on_gpu(dictionary):
        return _optimal_directions_on_gpu(dictionary, statistics, constraint.zero_mean)
    mass = statistics.A.diagonal()
    used = np.flatnonzero(mass > LEAST_MASS * mass.max(initial=0))
    norms = np.ones(len(dictionary))
    if len(used) == 0:
        return norms
    # Unit diagonal before solving: the ridge then means the same for every atom.
    root = np.sqrt(mass[used])
    normal = statistics.A[np.ix_(used, used)] / np.outer(root, root)
    normal[np.diag_indices(len(used))] += 1e-10
    solution = cho_solve(cho_factor(normal), statistics.B[used] / root[:, None]) / root[:, None]
    if constraint.zero_mean:
        solution -= solution.mean(axis=1, keepdims=True)
    lengths = row_norms(solution)
    kept = lengths > 0
    dictionary[used[kept]] = solution[kept] / lengths[kept, None]
    norms[used[kept]] = lengths[kept]
    statistics.rescale(norms)
    return norms


def _optimal_directions_on_gpu(dictionary, statistics, zero_mean):
    """As on the CPU, but that atoms without mass stay in the equations, as an identity: no size is to be waited for."""
    xp = array_module(dictionary)
    with computing_on(device_of(dictionary)):
        mass = statistics.A.diagonal()
        used = mass > LEAST_MASS * mass.max()
        inverse = xp.where(used, 1 / xp.sqrt(xp.where(used, mass, 1.0)), 0.0)
        normal = statistics.A * inverse * inverse[:, None]
        every = xp.arange(len(normal))
        normal[every, every] = xp.where(used, normal[every, every] + 1e-10, 1.0)
        solution = xp.linalg.solve(normal, statistics.B * inverse[:, None]) * inverse[:, None]
        if zero_mean:
            solution -= solution.mean(axis=1, keepdims=True)
        lengths = row_norms(solution)
        norms = xp.where(lengths > 0, lengths, 1.0)
        dictionary[...] = xp.where((lengths > 0)[:, None], solution / norms[:, None], dictionary)
        statistics.rescale(norms)
    return norms
