"""Few values for many weights: levels found by k-means or laid out evenly, and parameters brought onto them."""

from math import prod

import numpy as np

from sparseshare.devices import to_device, to_host

from .patterns import Listed, Merged

_ROUNDS = 50


def nearest_levels(parameter, n_levels, kind):
    """Levels for the values of a parameter, and which of them is the nearest to each.

    Parameters
    ----------
    parameter : Parameter
    n_levels : int
    kind : {"kmeans", "even"}
        Lloyd's rounds from evenly spaced levels (Han et al. 2016, section 3.2), values weighted by their uses; or the
        evenly spaced levels themselves, with 0 among them.

    Returns
    -------
    levels : ndarray of shape (at most n_levels,)
    nearest : int ndarray of shape (n_values,)
    """
    values = to_host(parameter.values).ravel().astype(np.float64)
    if kind == "even":
        low, high = (min(values.min(), 0.0), max(values.max(), 0.0))
        step = (high - low) / (n_levels - 1) if high > low else 1.0
        # 0 is a level: what has been 0 stays 0.
        levels = step * (np.arange(n_levels) + np.round(low / step))
    else:
        levels = _kmeans(values, to_host(parameter.uses()).ravel().astype(np.float64), n_levels)
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, values)
    used, nearest = np.unique(nearest, return_inverse=True)
    return levels[used].astype(parameter.values.dtype), nearest


def merge_values(parameter, levels, nearest):
    """Let a parameter store levels in the place of its values; what was 0 by its pattern stays so.

    Parameters
    ----------
    parameter : Parameter
    levels : ndarray of shape (n_levels,)
    nearest : int ndarray of shape (n_values,), or of the shape of the values
        Number of the level of every value, -1 for none.
    """
    if parameter.pattern is None:
        pattern = Listed(nearest.reshape(parameter.shape), len(levels))
    else:
        pattern = Merged(parameter.pattern, Listed(nearest.reshape(-1), len(levels)))
    parameter.set(to_device(levels, parameter.device), pattern)
    # What is stable for weights on their own is so for their mean, which a step of the sum over its uses moves.
    parameter.step = len(levels) / max(prod(parameter.shape), 1)


def _kmeans(values, weights, n_levels):
    levels = np.linspace(values.min(), values.max(), n_levels)
    order = np.argsort(values)
    ordered = values[order]
    mass = np.concatenate([[0], np.cumsum(weights[order])])
    moment = np.concatenate([[0], np.cumsum(weights[order] * ordered)])
    for _ in range(_ROUNDS):
        edges = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(values)]])
        masses = np.diff(mass[edges])
        means = np.divide(np.diff(moment[edges]), masses, out=levels.copy(), where=masses > 0)
        if np.array_equal(means, levels):
            break
        levels = np.sort(means)
    return levels
