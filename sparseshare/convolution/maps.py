"""Activation maps of which only the non-zeros are kept."""

from dataclasses import dataclass
from math import prod

import numpy as np

from sparseshare.devices import array_module, moved, to_host


@dataclass
class SparseMaps:
    """Maps of one signal, shape (n_signals, n_components, *positions), by their non-zeros, on either device.

    Attributes
    ----------
    indices : int64 array of shape (n_nonzeros,)
        Where the non-zeros are in the maps laid out in C order; ascending.
    values : array of shape (n_nonzeros,)
        float32 or float64.
    shape : tuple of int
        Shape of the dense maps.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution.maps import SparseMaps
    >>> maps = SparseMaps.from_dense(np.array([[[0.0, 2.0, 0.0], [0.0, 0.0, -1.0]]]))
    >>> maps.indices.tolist(), maps.values.tolist()
    ([1, 5], [2.0, -1.0])
    >>> maps.dense().shape
    (1, 2, 3)
    """

    indices: np.ndarray
    values: np.ndarray
    shape: tuple

    @property
    def dtype(self):
        """Of the values."""
        return self.values.dtype

    @classmethod
    def from_dense(cls, maps):
        """The non-zeros of dense maps."""
        xp = array_module(maps)
        flat = xp.ascontiguousarray(maps).reshape(-1)
        indices = xp.flatnonzero(flat)
        return cls(indices.astype(np.int64, copy=False), flat[indices], maps.shape)

    def dense(self):
        """All entries, as an array of `shape`."""
        flat = array_module(self.values).zeros(prod(self.shape), self.values.dtype)
        flat[self.indices] = self.values
        return flat.reshape(self.shape)

    def to(self, device):
        """The same on a device, "cpu" or "cuda:N"."""
        return moved(self, device)


def packed(maps):
    """Maps of many signals as few arrays of the host.

    Parameters
    ----------
    maps : list of SparseMaps

    Returns
    -------
    dict
        For `unpacked`.
    """
    indices, values = ([to_host(getattr(one, name)) for one in maps] for name in ("indices", "values"))
    return dict(
        indices=np.concatenate(indices),
        values=np.concatenate(values),
        ends=np.cumsum([len(one) for one in values]),
        shapes=np.array([one.shape for one in maps], np.int64),
    )


def unpacked(state):
    """The list of SparseMaps that `packed` was given, on the host."""
    starts = [0, *state["ends"][:-1].tolist()]
    parts = [slice(*ends) for ends in zip(starts, state["ends"].tolist(), strict=True)]
    return [
        SparseMaps(state["indices"][part].copy(), state["values"][part].copy(), tuple(shape))
        for part, shape in zip(parts, state["shapes"].tolist(), strict=True)
    ]
