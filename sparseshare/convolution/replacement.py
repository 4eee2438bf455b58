"""Dead atoms give way to what is coded worst.

The place of an atom that no signal uses goes to the patch of the residual that holds most of its energy. Nothing is
drawn at random, so a fit stays reproducible; and as no code changes, the objective does not either.
"""

from itertools import product
from math import prod

import numpy as np

from sparseshare.devices import array_module, device_of, to_device, to_host

from .initialization import feasible

_LEAST_SHARE = 1e-8  # of a signal's energy per sample: patches with less are coded perfectly


class WorstCoded:
    """The patches of residuals that hold most energy, no two of them overlapping.

    Parameters
    ----------
    support : tuple of int
    count : int
        Patches to keep.

    Attributes
    ----------
    patches : list of ndarrays of shape (n_channels, *support)
        Most energy first; on the host, as only few are kept.
    """

    def __init__(self, support, count):
        self.support, self.count = support, count
        self._kept = []

    @property
    def patches(self):
        return [patch for _, patch in self._kept]

    def look_at(self, residual, energy):
        """Consider the patches of one residual.

        Parameters
        ----------
        residual : array of shape (J, n_channels, *signal_shape)
        energy : float
            0.5 |x|^2 of the signal.
        """
        least = _LEAST_SHARE * 2 * energy * prod(self.support) / prod(residual.shape[2:])
        for one in residual:
            sums = _window_sums((one.astype(np.float64) ** 2).sum(axis=0), self.support)
            for _ in range(self.count):
                corner = np.unravel_index(int(sums.argmax()), sums.shape)
                found = float(sums[corner])
                if found <= least or (len(self._kept) == self.count and found <= self._kept[-1][0]):
                    break
                window = tuple(slice(at, at + length) for at, length in zip(corner, self.support, strict=True))
                self._kept.append((found, to_host(one[(slice(None), *window)]).copy()))
                self._kept.sort(key=lambda entry: -entry[0])
                del self._kept[self.count :]
                around = zip(corner, self.support, strict=True)
                sums[tuple(slice(max(at - length + 1, 0), at + length) for at, length in around)] = -1

    def merge(self, other):
        """The patches that hold most energy among those of both, of equal ones our own first.

        Parameters
        ----------
        other : WorstCoded
            Of other residuals, with the same `support` and `count`.

        Returns
        -------
        WorstCoded
        """
        both = WorstCoded(self.support, self.count)
        both._kept = sorted(self._kept + other._kept, key=lambda entry: -entry[0])[: self.count]
        return both


def replace_atoms(atoms, dead, worst, form):
    """Put patches in the place of dead atoms, in place.

    Parameters
    ----------
    atoms : array of shape (n_components, n_channels, *support)
    dead : sequence of int
    worst : WorstCoded
    form : AtomForm

    Returns
    -------
    ndarray of int
        The atoms that were replaced: fewer than asked for where little is coded badly.
    """
    dead = np.asarray(dead, dtype=np.intp)[: len(worst.patches)]
    if len(dead) == 0:
        return dead
    found, good = feasible(np.stack(worst.patches[: len(dead)]).astype(atoms.dtype, copy=False), dead, form)
    places, found = (to_device(array, device_of(atoms)) for array in (dead[good], found[good]))
    atoms[places] = found
    return dead[good]


def _window_sums(values, support):
    """Sums over all windows of a shape, from cumulative sums."""
    xp = array_module(values)
    totals = xp.pad(values, [(1, 0)] * values.ndim)
    for axis in range(values.ndim):
        totals = totals.cumsum(axis=axis)
    sums = 0.0
    for corner in product((0, 1), repeat=values.ndim):
        part = tuple(
            slice(length, None) if end else slice(None, n + 1 - length)
            for end, length, n in zip(corner, support, values.shape, strict=True)
        )
        sums = sums + (-1) ** (values.ndim - sum(corner)) * totals[part]
    return xp.maximum(sums, 0)
