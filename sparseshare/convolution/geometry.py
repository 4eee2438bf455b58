"""Where shared atoms lie on a signal: boundaries, positions, and the grid on which Fourier transforms are taken."""

from dataclasses import dataclass
from math import prod

from scipy.fft import next_fast_len

from sparseshare.validation import check_choice

BOUNDARIES = ("circular", "full", "valid")


@dataclass(frozen=True)
class Geometry:
    """Positions of an atom on a signal, axis by axis, for N samples and an atom of L samples.

    Parameters
    ----------
    signal_shape : tuple of int
        Spatial axes of the signal, 1 to 3.
    support : tuple of int
        Spatial axes of the atoms.
    boundary : {"circular", "full", "valid"}
        Which convolution of a map with an atom makes the signal. "circular": N positions, atoms wrap around. "full":
        N - L + 1 positions, atoms lie wholly inside. "valid": N + L - 1 positions, atoms may stick out at both ends.

    Raises
    ------
    ValueError
        For an unknown boundary, axes that do not match, and atoms larger than the signal.

    Examples
    --------
    >>> from sparseshare.convolution.geometry import Geometry
    >>> Geometry((100, 80), (8, 8), "full").positions
    (93, 73)
    >>> Geometry((100, 80), (8, 8), "valid").positions
    (107, 87)
    """

    signal_shape: tuple
    support: tuple
    boundary: str = "circular"

    def __post_init__(self):
        check_choice("boundary", self.boundary, BOUNDARIES)
        if len(self.signal_shape) != len(self.support):
            raise ValueError(
                f"atoms with {len(self.support)} spatial axes cannot lie on a signal with {len(self.signal_shape)}: "
                f"atom shape {self.support}, signal shape {self.signal_shape}"
            )
        if any(length > samples for length, samples in zip(self.support, self.signal_shape, strict=True)):
            raise ValueError(
                f"atoms of shape {self.support} are larger than the signal, whose shape is {self.signal_shape}"
            )

    @classmethod
    def of_positions(cls, positions, support, boundary):
        """The geometry in which maps have the shape `positions`."""
        check_choice("boundary", boundary, BOUNDARIES)
        reach = {"circular": 0, "full": 1, "valid": -1}[boundary]
        shape = tuple(n + reach * (l - 1) for n, l in zip(positions, support, strict=True))  # noqa: E741
        return cls(shape, tuple(support), boundary)

    @property
    def n_axes(self):
        """Number of spatial axes."""
        return len(self.support)

    @property
    def positions(self):
        """Positions of an atom along every axis: the shape of a map."""
        reach = {"circular": 0, "full": -1, "valid": 1}[self.boundary]
        return tuple(n + reach * (l - 1) for n, l in zip(self.signal_shape, self.support, strict=True))  # noqa: E741

    @property
    def n_positions(self):
        """Number of positions."""
        return prod(self.positions)

    @property
    def offset(self):
        """Sample under the first entry of an atom at position 0, along every axis: 0, or -(L - 1) for "valid"."""
        return tuple(1 - length if self.boundary == "valid" else 0 for length in self.support)

    @property
    def grid(self):
        """Shape of the Fourier transforms: the signal itself if it wraps, else a fast length on which nothing wraps."""
        if self.boundary == "circular":
            return self.signal_shape
        lengths = self.signal_shape if self.boundary == "full" else self.positions
        return tuple(next_fast_len(length, real=True) for length in lengths)
