"""Vector quantisation: a dictionary of which every signal uses one atom, its nearest."""

import time

import numpy as np

from sparseshare.callbacks import report_epoch
from sparseshare.coding.problem import aligned_zeros
from sparseshare.coding.tiles import PRODUCT_ROWS
from sparseshare.devices import array_module, device_of, rows_that_fit, to_device, to_host
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, single_threaded_blas, thread_count

_SHARES = 16  # of the signals, with sums of their own: as many whatever the number of threads
_STOP = 1e-6  # relative fall of the loss in a pass below which passes no longer pay


class VectorQuantizer:
    """Atoms of which every signal uses one.

    Gain-shape: unit atoms, a signal is the nearest multiple of one; the atom becomes the direction of the sum of its
    signals, each times its gain. Else k-means: a signal is a centre, which becomes the mean of its signals. All arrays
    live on one device, where they are worked on.

    Parameters
    ----------
    atoms : ndarray of shape (n_components, n_features)
        To start from; unit rows for gain-shape. Changed in place.
    gain_shape : bool
    sums, counts : ndarrays of float64 of shapes (n_components, n_features) and (n_components,), default=None
        Sums so far, to go on from.

    References
    ----------
    A. Coates, A. Ng, The importance of encoding versus training with sparse coding and vector quantization, ICML 2011,
    equation 3 (OMP-1). S. Lloyd, Least squares quantization in PCM, 1982.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.image.quantization import VectorQuantizer
    >>> X = np.array([[2.0, 0], [-4, 0], [0, 1], [0, 3]])
    >>> quantizer = VectorQuantizer(np.array([[0.8, 0.6], [-0.6, 0.8]]), gain_shape=True)
    >>> losses = quantizer.fit(X, 10, np.random.RandomState(0))
    >>> losses[-1], abs(quantizer.atoms).round(6)
    (0.0, array([[1., 0.],
           [0., 1.]]))
    """

    def __init__(self, atoms, gain_shape, sums=None, counts=None):
        self.atoms, self.gain_shape = atoms, gain_shape
        xp = array_module(atoms)
        self.sums = xp.zeros(atoms.shape) if sums is None else sums
        self.counts = xp.zeros(len(atoms)) if counts is None else counts

    def fit(self, X, max_iter, random_state, n_jobs=None, verbose=False):
        """Passes over all signals until the loss stops falling; atoms without signals are drawn anew.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features), of the atoms' dtype
        max_iter : int
            Most passes.
        random_state : numpy.random.RandomState
        n_jobs : int or None, default=None
            Threads; the atoms do not depend on it.
        verbose : bool, default=False
            Print a line a pass.

        Returns
        -------
        list of float
            Half the mean squared error of every pass, for the atoms before it.
        """
        losses, started = [], time.perf_counter()
        for _ in range(max_iter):
            self.sums[:], self.counts[:] = 0, 0
            losses.append(self.add(X, n_jobs))
            unused = self.update()
            if len(unused):
                self.atoms[unused] = signals_as_atoms(X, len(unused), random_state, self.gain_shape)
            if verbose:
                report_epoch(type(self).__name__, len(losses), max_iter, losses[-1], time.perf_counter() - started)
            if len(losses) > 1 and losses[-2] - losses[-1] <= _STOP * losses[-1] and not len(unused):
                break
        return losses

    def add(self, X, n_jobs=None):
        """Add signals to the sums of their atoms.

        Returns
        -------
        float
            Half the mean squared error.
        """
        if device_of(X) != "cpu":
            return self._add_on_device(X)
        n, (n_atoms, n_features) = len(X), self.atoms.shape
        size = -(-n // _SHARES)
        size = -(-size // PRODUCT_ROWS) * PRODUCT_ROWS
        n_shares = -(-n // size)
        kernels, transposed = kernels_for("cpu", "features"), np.ascontiguousarray(self.atoms.T)
        offsets = np.zeros(n_atoms, X.dtype)
        if not self.gain_shape:
            offsets[:] = 0.5 * np.einsum("kf,kf->k", self.atoms, self.atoms)
        sums, counts = np.zeros((n_shares, n_atoms, n_features)), np.zeros((n_shares, n_atoms))
        errors = np.zeros(n_shares)

        def work(share, _):
            rows, Q = (
                aligned_zeros((PRODUCT_ROWS, n_features), X.dtype),
                aligned_zeros((PRODUCT_ROWS, n_atoms), X.dtype),
            )
            labels, values = np.zeros(PRODUCT_ROWS, np.int64), np.zeros(PRODUCT_ROWS, X.dtype)
            for start in range(share * size, min((share + 1) * size, n), PRODUCT_ROWS):
                signals = X[start : start + PRODUCT_ROWS]
                count = len(signals)
                rows[:count] = signals
                np.matmul(rows, transposed, out=Q)
                kernels.nearest_atoms(Q, count, offsets, self.gain_shape, labels, values)
                kernels.add_to_atoms(rows, count, labels, values, self.gain_shape, sums[share], counts[share])
                gains = values[:count].astype(np.float64)
                gain = gains @ gains / 2 if self.gain_shape else gains.sum()
                errors[share] += np.einsum("if,if->", signals, signals, dtype=np.float64) / 2 - gain

        with single_threaded_blas:
            run_in_threads(work, n_shares, thread_count(n_jobs))
        self.sums += sums.sum(axis=0)
        self.counts += counts.sum(axis=0)
        return max(float(errors.sum()), 0.0) / n

    def _add_on_device(self, X):
        """`add`, some signals at a time; the host waits once, for the error."""
        xp, device, (n_atoms, n_features) = array_module(X), device_of(X), self.atoms.shape
        kernels, offsets = kernels_for(device, "features"), xp.zeros(n_atoms, X.dtype)
        if not self.gain_shape:
            offsets[:] = 0.5 * xp.square(self.atoms).sum(axis=1)
        size, error = rows_that_fit(device, (n_atoms + 2 * n_features + 4) * 8), 0.0
        for start in range(0, len(X), size):
            rows = xp.ascontiguousarray(X[start : start + size])
            labels, values = xp.empty(len(rows), np.int64), xp.empty(len(rows), X.dtype)
            kernels.nearest_atoms(rows @ self.atoms.T, len(rows), offsets, self.gain_shape, labels, values)
            kernels.add_to_atoms(rows, len(rows), labels, values, self.gain_shape, self.sums, self.counts)
            gain = xp.square(values, dtype=np.float64).sum() / 2 if self.gain_shape else values.sum(dtype=np.float64)
            error = error + xp.square(rows, dtype=np.float64).sum() / 2 - gain
        return max(float(error), 0.0) / len(X)

    def update(self):
        """Make the atoms anew from the sums; returns those that have none."""
        xp = array_module(self.sums)
        scales = xp.sqrt(xp.square(self.sums).sum(axis=1)) if self.gain_shape else self.counts
        used = scales > 0
        self.atoms[used] = self.sums[used] / scales[used][:, None]
        return xp.flatnonzero(~used)


def signals_as_atoms(X, count, random_state, unit_norm=True):
    """Random signals, none of them zero as long as there are others; random directions where signals run out.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    count : int
    random_state : numpy.random.RandomState
    unit_norm : bool, default=True

    Returns
    -------
    ndarray of shape (count, n_features), new
    """
    norms2 = to_host(array_module(X).square(X, dtype=np.float64).sum(axis=1))
    useful = np.flatnonzero(norms2 > 1e-12 * norms2.max())
    chosen = random_state.permutation(useful)[:count]
    missing = random_state.standard_normal((count - len(chosen), X.shape[1])).astype(X.dtype)
    home, xp = device_of(X), array_module(X)
    atoms = xp.concatenate([X[to_device(chosen, home)], to_device(missing, home)])
    if unit_norm:
        atoms /= xp.linalg.norm(atoms, axis=1, keepdims=True)
    return atoms
