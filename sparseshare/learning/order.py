"""The order in which an epoch goes through its signals, found when it is asked for: it takes no memory to speak of.

To shuffle many signals as one would need an array of their numbers, and files read row by row all over. They are
shuffled in windows instead: windows of neighbouring signals in random order, and the signals of many windows among each
other. It is the same order wherever the signals live.
"""

import sys

import numpy as np

_WINDOW_BYTES = 2**18  # of neighbouring signals: what disks and chunked files like to read at one go
_GROUP_BYTES = 2**25  # of the signals that are shuffled among each other


class BatchOrder:
    """The rows of each batch of an epoch.

    Parameters
    ----------
    n_samples : int or None
        None: not known; the batches come in order, as long as there are any.
    batch_size : int
    bytes_a_row : int
        Of signals in the dtype of the computation.
    random_state : RandomState or None, default=None
        None leaves the signals in their order.
    """

    def __init__(self, n_samples, batch_size, bytes_a_row, random_state=None):
        self.n_samples = n_samples
        self.batch_size = batch_size if n_samples is None else min(batch_size, n_samples)
        self.first = 0  # batch
        window = self.batch_size * max(1, _WINDOW_BYTES // (bytes_a_row * self.batch_size))
        self._windows_a_group = max(1, _GROUP_BYTES // (bytes_a_row * window))
        self.rows_a_group = window * self._windows_a_group
        self._window, self._shuffled, self._known = window, random_state is not None, (None, None)
        if not self._shuffled:
            return
        if n_samples <= self.rows_a_group:
            self._rows, self._order = random_state.permutation(n_samples), None
        else:
            # A last window of fewer rows stays last, so that batches do not come across its end.
            self._rows, self._order = None, random_state.permutation(n_samples // window)
            self._seed = int(random_state.randint(2**31 - 1))

    def __len__(self):
        """Batches from `first` on; where nobody knows, more than there can be."""
        if self.n_samples is None:
            return sys.maxsize - self.first
        return -(-self.n_samples // self.batch_size) - self.first

    def __getitem__(self, number):
        """The rows of a batch, a slice or a rising array of int; or a part of the order, from some batch on."""
        if isinstance(number, slice):
            other = object.__new__(BatchOrder)
            vars(other).update(vars(self), first=self.first + number.indices(len(self))[0])
            return other
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        start = (self.first + number) * self.batch_size
        rows = slice(start, min(start + self.batch_size, self.n_samples))
        if not self._shuffled:
            return rows
        group = start // self.rows_a_group
        own = slice(rows.start - group * self.rows_a_group, rows.stop - group * self.rows_a_group)
        return np.sort(self._rows_of(group)[own])

    def groups(self):
        """What is best read together, and how its batches are cut from it.

        Yields
        ------
        windows : list of slices
            Rows, rising.
        batches : list of slices or arrays of int
            Where the rows of each batch lie among these.
        """
        number = 0
        while number < len(self):
            group = (self.first + number) * self.batch_size // self.rows_a_group
            last = min(-(-(group + 1) * self.rows_a_group // self.batch_size) - self.first, len(self))
            batches = [self[one] for one in range(number, last)]
            number = last
            if not self._shuffled:
                start = batches[0].start
                yield (
                    [slice(start, batches[-1].stop)],
                    [slice(rows.start - start, rows.stop - start) for rows in batches],
                )
                continue
            windows = self._windows(group)
            starts = np.array([window.start for window in windows])
            offsets = np.cumsum([0, *(window.stop - window.start for window in windows)])[:-1] - starts
            yield windows, [rows + offsets[np.searchsorted(starts, rows, side="right") - 1] for rows in batches]

    def _windows(self, group):
        """The windows of a group, rising."""
        if self._order is None:
            return [slice(0, self.n_samples)]
        chosen = np.sort(self._order[group * self._windows_a_group : (group + 1) * self._windows_a_group])
        windows = [slice(int(one) * self._window, (int(one) + 1) * self._window) for one in chosen]
        rest = self.n_samples // self._window * self._window
        if rest < self.n_samples and group == (self.n_samples - 1) // self.rows_a_group:
            windows.append(slice(rest, self.n_samples))
        return windows

    def _rows_of(self, group):
        """The rows of a group in the order of its batches."""
        if self._order is None:
            return self._rows
        known, rows = self._known
        if known != group:
            rows = np.concatenate([np.arange(window.start, window.stop) for window in self._windows(group)])
            rows = np.random.default_rng((self._seed, group)).permutation(rows)
            self._known = group, rows
        return rows
