"""How shared atoms overlap: their correlations with a signal and with each other, laid out with the atoms fastest."""

from math import prod

import numpy as np

from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads

LARGEST = 2**30  # bytes of all interactions, at most
_RUN = 256  # positions of a row that are worked on together


def size_of_interactions(atoms):
    """Bytes that `interactions` of these atoms take."""
    lags = prod(2 * length - 1 for length in atoms.shape[2:])
    return len(atoms) ** 2 * lags * atoms.dtype.itemsize


def interactions(atoms, n_threads=1):
    """Correlations of all pairs of atoms at all lags at which they overlap, summed over the channels.

    An activation of atom i by 1 adds entry [i, lag + L - 1, k] to the correlation of the signal with atom k, `lag`
    further on.

    Parameters
    ----------
    atoms : ndarray of shape (n_components, n_channels, *support)
    n_threads : int, default=1

    Returns
    -------
    ndarray of shape (n_components, *(2 * support - 1), n_components)

    Raises
    ------
    MemoryError
        If they would take more than `LARGEST` bytes.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution.interactions import interactions
    >>> atoms = np.array([[[1.0, 2.0]], [[0.0, 1.0]]])
    >>> interactions(atoms)[0].T
    array([[2., 5., 2.],
           [1., 2., 0.]])
    """
    size = size_of_interactions(atoms)
    if size > LARGEST:
        raise MemoryError(
            f"the interactions of {len(atoms)} atoms of shape {atoms.shape[2:]} take {size / 1e9:.3g} GB, more than "
            f"{LARGEST / 1e9:.3g} GB: take fewer or smaller atoms, or another solver"
        )
    border = [(length - 1, length - 1) for length in atoms.shape[2:]]
    padded = np.pad(atoms, [(0, 0), (0, 0), *border])
    out = np.empty((len(atoms), *(2 * length - 1 for length in atoms.shape[2:]), len(atoms)), atoms.dtype)
    plan = _Plan(padded.shape[1:], atoms)

    def work(i, _):
        plan.correlate(padded[i], out[i])

    run_in_threads(work, len(atoms), n_threads)
    return out


def correlations(signal, atoms, wraps, n_threads=1, out=None):
    """Correlations of a signal with every atom at every position, atoms last.

    Parameters
    ----------
    signal : ndarray of shape (n_channels, *signal_shape)
    atoms : ndarray of shape (n_components, n_channels, *support)
    wraps : bool
        True for a circular boundary; else atoms lie inside the signal.
    n_threads : int, default=1
        The result does not depend on it.
    out : array of the result's size or None, default=None
        Where to write it.

    Returns
    -------
    ndarray of shape (*positions, n_components)
    """
    if wraps:
        signal = np.pad(signal, [(0, 0), *((0, length - 1) for length in atoms.shape[2:])], mode="wrap")
    plan = _Plan(signal.shape, atoms)
    shape = (*plan.positions, len(atoms))
    out = np.empty(shape, atoms.dtype) if out is None else out.reshape(shape)
    plan.correlate(signal, out, n_threads)
    return out


class _Plan:
    """Runs of positions, and the atoms as the kernel takes them, for signals of one shape."""

    def __init__(self, signal_shape, atoms):
        n_channels, *shape = signal_shape
        support = atoms.shape[2:]
        self.n_atoms, self.lanes = len(atoms), 64 // atoms.itemsize
        self.positions = tuple(n - length + 1 for n, length in zip(shape, support, strict=True))
        columns = -(-self.n_atoms // self.lanes) * self.lanes
        self.atoms = np.zeros((prod(atoms.shape[1:]), columns), atoms.dtype)
        self.atoms[:, : self.n_atoms] = atoms.reshape(self.n_atoms, -1).T
        samples = np.arange(prod(signal_shape)).reshape(signal_shape)
        self.offsets = samples[(slice(None), *(slice(length) for length in support))].flatten()
        along = np.arange(0, self.positions[-1], _RUN)
        rows = samples[(0, *(slice(n) for n in self.positions[:-1]), 0)].reshape(-1, 1)
        self.bases = (rows + along).reshape(-1)
        self.lengths = np.tile(np.minimum(self.positions[-1] - along, _RUN), len(rows))
        self.starts = (np.arange(len(rows))[:, None] * self.positions[-1] + along).reshape(-1) * self.n_atoms

    def correlate(self, signal, out, n_threads=1):
        kernels = kernels_for("cpu", "correlation")
        samples = np.zeros(signal.size + kernels.POSITIONS, self.atoms.dtype)
        samples[: signal.size] = signal.reshape(-1)
        n_parts = 1 if n_threads == 1 else min(len(self.bases), 4 * n_threads)
        edges = np.arange(n_parts + 1) * len(self.bases) // n_parts

        def work(i, _):
            part = slice(edges[i], edges[i + 1])
            kernels.correlate(
                samples,
                self.bases[part],
                self.lengths[part],
                self.offsets,
                self.atoms.reshape(-1),
                self.lanes,
                self.n_atoms,
                self.starts[part],
                out.reshape(-1),
            )

        run_in_threads(work, n_parts, n_threads)


class Dictionary:
    """Atoms of norm 1 and their interactions; belongs to an operator, so that it is made once.

    Attributes
    ----------
    norms : (K,) array, 1 for atoms that are zero
    zero : (K,) bool array
    atoms : (K, C, *support) array
    padded : (n,) array, atoms with their rows filled up with zeros to `width` samples, whole vectors
    rows : (K * lags * K,) array, the interactions
    """

    def __init__(self, atoms, n_threads=1):
        norms = np.linalg.norm(atoms.reshape(len(atoms), -1).astype(np.float64), axis=1)
        self.zero = norms == 0
        self.norms = np.where(self.zero, 1, norms).astype(atoms.dtype)
        self.atoms = atoms / self.norms.reshape(-1, *[1] * (atoms.ndim - 1))
        lanes = 64 // atoms.itemsize
        self.width = -(-atoms.shape[-1] // lanes) * lanes
        padding = [(0, 0)] * (atoms.ndim - 1) + [(0, self.width - atoms.shape[-1])]
        self.padded = np.pad(self.atoms, padding).reshape(-1)
        self.rows = interactions(self.atoms, n_threads).reshape(-1)

    @classmethod
    def of(cls, problem):
        """The one of a problem's operator."""
        operator = problem.operator
        if not hasattr(operator, "_unit_dictionary"):
            operator._unit_dictionary = cls(problem.atoms, operator.n_threads)
        return operator._unit_dictionary
