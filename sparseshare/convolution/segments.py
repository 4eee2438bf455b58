"""Positions cut into segments, and the non-zeros of each segment in a list of its own, for coordinate descent.

Segments are joined to stripes across one axis. Every other stripe may be worked on at the same time: what happens in
one is out of reach of the next but one. So codes do not depend on the number of threads.
"""

from math import prod

import numpy as np

_STRIPE = 2**15  # entries of a stripe, at least
_SPARE = 16  # room of a list beside twice what it holds


class Segments:
    """Positions cut into boxes no shorter than the lags at which atoms overlap.

    Parameters
    ----------
    positions, support : tuples of int, of the same length
    wraps : bool
    n_components : int
    width : int
        Samples along the last axis that a change of an entry may touch in the residual.

    Attributes
    ----------
    shape, support : (3,) int64 arrays; axes in front are filled up with length 1
    counts : (3,) int64 array, segments along each axis
    bounds : (S, 6) int64 array, first position and the one after the last, for each axis
    homes : int64 array, the segment of a position along each axis, one axis after the other
    members, starts : int64 arrays, the segments of each stripe
    colours : list of int64 arrays, stripes that do not reach each other
    """

    def __init__(self, positions, support, wraps, n_components, width):
        fill = (1,) * (3 - len(positions))
        shape, support = fill + tuple(positions), fill + tuple(support)
        counts = [max(1, n // (2 * length - 1)) for n, length in zip(shape, support, strict=True)]
        edges = [np.arange(c + 1) * n // c for n, c in zip(shape, counts, strict=True)]
        grid = np.stack(np.meshgrid(*(np.arange(c) for c in counts), indexing="ij"), -1).reshape(-1, 3)
        self.shape, self.support, self.counts = (np.array(x, np.int64) for x in (shape, support, counts))
        self.bounds = np.stack([edges[a][grid[:, a] + side] for a in range(3) for side in (0, 1)], axis=1)
        self.homes = np.concatenate([np.repeat(np.arange(c), np.diff(e)) for c, e in zip(counts, edges, strict=True)])
        axis = int(np.argmax(counts))
        least = -(-width // (2 * support[2] - 1)) if axis == 2 else 1  # segments of a stripe
        n = max(1, min(counts[axis] // least, n_components * prod(shape) // _STRIPE))
        if wraps and n % 2:
            n = max(1, n - 1)
        stripe = grid[:, axis] * n // counts[axis]
        self.members = np.argsort(stripe, kind="stable")
        self.starts = np.searchsorted(stripe[self.members], np.arange(n + 1))
        self.colours = [np.arange(c, n, 2) for c in range(min(2, n))]

    def __len__(self):
        return len(self.bounds)

    def axes(self, position):
        """Positions, numbered in C order, along each of the three axes."""
        return np.unravel_index(position, self.shape)

    def of(self, position):
        """The segments of positions."""
        home, offset = 0, 0
        for axis, along in enumerate(self.axes(position)):
            home = home * self.counts[axis] + self.homes[offset + along]
            offset += self.shape[axis]
        return home

    def hot(self, top, bound):
        """Whether each stripe has a segment whose largest step is above the bound."""
        return np.maximum.reduceat(top[self.members], self.starts[:-1]) > bound


class Lists:
    """The non-zeros of every segment: entries of (positions, atoms), values and penalties, with room for more.

    Attributes
    ----------
    first : (S + 1,) int64 array, where the room of each list starts
    count : (S,) int64 array, how much of it is in use
    index : int64 array
    value, bar : arrays of the codes' type
    """

    def __init__(self, home, n_segments, index, value, bar):
        order = np.argsort(home, kind="stable")
        self.count = np.bincount(home, minlength=n_segments).astype(np.int64)
        self._lay_out(index[order], value[order], bar[order])

    def _lay_out(self, index, value, bar):
        self.first = np.zeros(len(self.count) + 1, np.int64)
        np.cumsum(2 * self.count + _SPARE, out=self.first[1:])
        self.index = np.zeros(self.first[-1], np.int64)
        self.value, self.bar = np.zeros((2, self.first[-1]), value.dtype)
        place = self.places()
        self.index[place], self.value[place], self.bar[place] = index, value, bar

    def places(self):
        """What is in use, as indices into `index`, `value` and `bar`."""
        ends = np.cumsum(self.count)
        return np.arange(ends[-1]) + np.repeat(self.first[:-1] - ends + self.count, self.count)

    def full(self):
        """Whether a list has no room left."""
        return bool((self.first[:-1] + self.count == self.first[1:]).any())

    def grow(self):
        """Give every list as much room again as it uses."""
        place = self.places()
        self._lay_out(self.index[place], self.value[place], self.bar[place])

    def drop_zeros(self):
        """Take entries that have become zero off the lists."""
        place = self.places()
        used = self.value[place] != 0
        home = np.repeat(np.arange(len(self.count)), self.count)[used]
        kept = place[used]
        self.count = np.bincount(home, minlength=len(self.count)).astype(np.int64)
        place = self.places()
        self.index[place], self.value[place], self.bar[place] = self.index[kept], self.value[kept], self.bar[kept]
