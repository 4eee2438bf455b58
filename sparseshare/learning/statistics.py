"""Additive statistics of coded signals: all that a dictionary update has to know about them.

With A = W'W and B = W'X the squared error of any dictionary D is |X - W D|^2 = |X|^2 - 2 <B, D> + <A, D D'>, so updates
and objectives need no signals once these are summed, and sums of batches, of workers, of days simply add up
(Mairal, Bach, Ponce and Sapiro 2010, section 3.2).
"""

from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
from scipy.sparse import issparse

from sparseshare.devices import array_module, computing_on, csr_of, device_of, module_of, on_gpu, to_device
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads, thread_count

_BLOCK = 4096  # signals that are made dense at a time
_BLOCK_ON_GPU = 262_144


@dataclass
class Statistics:
    """Sums over coded signals, in float64: NumPy arrays, or CuPy arrays where the signals are on a GPU.

    Attributes
    ----------
    A : ndarray of shape (n_components, n_components)
        W'W.
    B : ndarray of shape (n_components, n_features)
        W'X.
    l1 : ndarray of shape (n_components,)
        Sum of |w_k| of each atom.
    usage : ndarray of shape (n_components,)
        Number of signals that use each atom. Never weighted, and forgotten as the rest is.
    squared_norm : float, or array of no axes on a GPU
        |X|^2.
    n_seen : float
        Number of signals, weighted.
    """

    A: np.ndarray
    B: np.ndarray
    l1: np.ndarray
    usage: np.ndarray
    squared_norm: float = 0.0
    n_seen: float = 0.0

    @classmethod
    def zeros(cls, n_components, n_features, device="cpu"):
        """Statistics of no signals."""
        shapes = (n_components, n_components), (n_components, n_features), n_components, n_components
        with computing_on(device):
            return cls(*map(module_of(device).zeros, shapes))

    def add(self, X, codes, *, weight=1.0, n_jobs=None):
        """Count further signals in.

        Parameters
        ----------
        X : array or CSR array of shape (n_samples, n_features)
            Made dense block by block.
        codes : CSR array of shape (n_samples, n_components)
            Where the statistics are.
        weight : float, default=1.0
            What every signal counts.
        n_jobs : int or None, default=None
            Threads; None takes all. The result is the same to the last bit.

        Returns
        -------
        self
        """
        weight = float(weight)
        if on_gpu(codes):
            return self._add_on_gpu(X, codes, weight)
        kernels = kernels_for("cpu", "statistics")
        n_threads = thread_count(n_jobs) if X.shape[0] > _BLOCK else 1  # waking threads costs more than a small sum
        for rows, (indptr, indices, values) in code_blocks(codes):
            block = dense_rows(X, rows, values.dtype)
            starts, signals, positions = _ordered(indptr, indices, len(self.A))
            accumulate = partial(kernels.accumulate, indptr, indices, values, block, weight, starts, signals, positions)
            shares = _even_shares(starts, 4 * n_threads if n_threads > 1 else 1)
            run_in_threads(partial(self._accumulate_share, accumulate, shares), len(shares), n_threads)
            kernels.atom_usage(indices, values, weight, self.l1, self.usage)
            self.squared_norm += weight * float(np.einsum("ij,ij->", block, block, dtype=np.float64))
            self.n_seen += weight * len(block)
        return self

    def _add_on_gpu(self, X, codes, weight):
        device, xp = device_of(codes), array_module(codes)
        kernels = kernels_for(device, "statistics")
        with computing_on(device):
            for rows, (indptr, indices, values) in code_blocks(codes):
                block = to_device(dense_rows(X, rows, values.dtype), device)
                lists = _ordered(indptr, indices, len(self.A))
                kernels.accumulate(indptr, indices, values, block, weight, *lists, 0, len(self.A), self.A, self.B)
                kernels.atom_usage(lists[0], lists[2], values, weight, self.l1, self.usage)
                self.squared_norm = self.squared_norm + weight * xp.square(block, dtype=np.float64).sum()
                self.n_seen += weight * len(block)
        return self

    def _accumulate_share(self, accumulate, shares, share, worker):
        accumulate(*shares[share], self.A, self.B)

    def merge(self, other):
        """Statistics of the signals of both.

        Parameters
        ----------
        other : Statistics
            For the same dictionary.

        Returns
        -------
        Statistics
        """
        return Statistics(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def weighted(self, weight):
        """The same signals as if each had been added with a weight.

        Parameters
        ----------
        weight : float

        Returns
        -------
        Statistics
            New; the usage, which is never weighted, is shared.
        """
        names = "A", "B", "l1", "squared_norm", "n_seen"
        return replace(self, **{name: weight * getattr(self, name) for name in names})

    def forget(self, factor):
        """Let the signals seen so far count `factor` times as much, in place.

        Parameters
        ----------
        factor : float
            Between 0 and 1.

        Returns
        -------
        self
        """
        for array in (self.A, self.B, self.l1, self.usage):
            array *= factor
        self.squared_norm *= factor
        self.n_seen *= factor
        return self

    def rescale(self, norms):
        """Multiply the codes of atom k by norms[k], in place: the atom was divided by it."""
        norms = array_module(self.A).asarray(norms, dtype=np.float64)
        self.A *= norms[:, None]
        self.A *= norms
        self.B *= norms[:, None]
        self.l1 *= norms

    def hand_over(self, atom, to, sign):
        """Turn the codes of one atom into codes of another one, which is (nearly) `sign` times it, in place."""
        self.A[to] += sign * self.A[atom]
        self.A[:, to] += sign * self.A[:, atom]
        self.B[to] += sign * self.B[atom]
        self.l1[to] += self.l1[atom]
        self.usage[to] += self.usage[atom]
        self.drop(atom)

    def drop(self, atom):
        """Set the codes of an atom to zero, in place."""
        self.A[atom] = self.A[:, atom] = self.B[atom] = self.l1[atom] = self.usage[atom] = 0

    def squared_error(self, dictionary):
        """|X - W D|^2 of any dictionary, exact up to rounding of |X|^2.

        Parameters
        ----------
        dictionary : array of shape (n_components, n_features)

        Returns
        -------
        float
        """
        D = dictionary.astype(np.float64, copy=False)
        xp = array_module(self.A)
        fit = xp.vdot(self.A, D @ D.T) - 2 * xp.vdot(self.B, D)
        return max(float(self.squared_norm) + float(fit), 0.0)

    def objective(self, dictionary, alpha=0.0, l1_ratio=1.0):
        """0.5 |X - W D|^2 + alpha * l1_ratio * |W|_1 + 0.5 * alpha * (1 - l1_ratio) * |W|^2, summed over the signals.

        Parameters
        ----------
        dictionary : array of shape (n_components, n_features)
        alpha : float, default=0.0
        l1_ratio : float, default=1.0

        Returns
        -------
        float
        """
        return 0.5 * self.squared_error(dictionary) + self.penalty(alpha, l1_ratio)

    def penalty(self, alpha, l1_ratio=1.0):
        """alpha * l1_ratio * |W|_1 + 0.5 * alpha * (1 - l1_ratio) * |W|^2, summed over the signals.

        Parameters
        ----------
        alpha : float
        l1_ratio : float, default=1.0

        Returns
        -------
        float
        """
        return float(alpha * (l1_ratio * self.l1.sum() + 0.5 * (1 - l1_ratio) * self.A.trace()))


def partial_statistics(X, codes, *, n_jobs=None):
    """Statistics of some signals and their codes, computed where the codes are.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    codes : CSR array of shape (n_samples, n_components)
        No atom twice in a row.
    n_jobs : int or None, default=None

    Returns
    -------
    Statistics

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from sparseshare.learning.statistics import partial_statistics
    >>> codes = csr_array(np.array([[1.0, 0.0], [2.0, 3.0]]))
    >>> partial_statistics(np.array([[1.0], [10.0]]), codes).A
    array([[5., 6.],
           [6., 9.]])
    """
    return Statistics.zeros(codes.shape[1], X.shape[1], device_of(codes)).add(X, codes, n_jobs=n_jobs)


def squared_residuals(X, codes, dictionary):
    """|x - w D|^2 of every signal, computed where the codes are.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    codes : CSR array of shape (n_samples, n_components)
    dictionary : array of shape (n_components, n_features)
        In the dtype of the codes, and on their device.

    Returns
    -------
    array of shape (n_samples,), float64
    """
    device = device_of(codes)
    kernels = kernels_for(device, "statistics")
    with computing_on(device):
        residuals = module_of(device).empty(X.shape[0])
        for rows, arrays in code_blocks(codes):
            block = to_device(dense_rows(X, rows, dictionary.dtype), device)
            kernels.squared_residuals(*arrays, block, dictionary, residuals[rows])
    return residuals


def order_by_atom(codes):
    """The non-zeros of codes atom by atom, signals in order.

    Parameters
    ----------
    codes : CSR array of shape (n_samples, n_components)

    Returns
    -------
    starts : array of shape (n_components + 1,), int64
        Where each atom's non-zeros begin in the lists that follow.
    signals, positions : arrays of int32
        Of each non-zero the row and the place in `codes.data`.
    """
    return _ordered(codes.indptr.astype(np.int64), codes.indices.astype(np.int32, copy=False), codes.shape[1])


def _ordered(indptr, indices, n_components):
    xp = array_module(indices)
    starts = xp.empty(n_components + 1, np.int64)
    signals, positions = xp.empty(len(indices), np.int32), xp.empty(len(indices), np.int32)
    kernels_for(device_of(indices), "statistics").order_by_atom(indptr, indices, starts, signals, positions)
    return starts, signals, positions


def code_blocks(codes):
    """Blocks of rows of a CSR matrix: pairs of a slice and the three arrays as the kernels take them."""
    n_samples, size = codes.shape[0], _BLOCK_ON_GPU if on_gpu(codes) else _BLOCK
    indices = codes.indices.astype(np.int32, copy=False)
    if n_samples <= size and on_gpu(codes):  # what a slice would be is not read from the device
        yield slice(0, n_samples), (codes.indptr.astype(np.int64), indices, codes.data)
        return
    for start in range(0, n_samples, size):
        stop = min(start + size, n_samples)
        indptr = codes.indptr[start : stop + 1].astype(np.int64)
        first, last = int(indptr[0]), int(indptr[-1])
        indptr -= first
        yield slice(start, stop), (indptr, indices[first:last], codes.data[first:last])


def joined_rows(parts):
    """CSR arrays of one device, one below the other.

    Parameters
    ----------
    parts : list of CSR arrays of shapes (n_rows, n_columns)

    Returns
    -------
    CSR array
        The only part itself if there is one.
    """
    if len(parts) == 1:
        return parts[0]
    xp, entries = array_module(parts[0]), np.cumsum([0, *(len(part.data) for part in parts)])
    indptr = [part.indptr[:-1].astype(np.int64) + entries[number] for number, part in enumerate(parts)]
    indptr = xp.concatenate([*indptr, xp.asarray(entries[-1:])])
    if entries[-1] < np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    data, indices = (xp.concatenate([getattr(part, name) for part in parts]) for name in ("data", "indices"))
    return csr_of(data, indices, indptr, (sum(part.shape[0] for part in parts), parts[0].shape[1]))


def dense_rows(X, rows, dtype):
    """Some signals as the kernels take them: dense, in C order, of one dtype, writeable.

    Parameters
    ----------
    X : array or CSR array of shape (n_samples, n_features)
    rows : slice or ndarray of int
    dtype : dtype

    Returns
    -------
    array
        On the device of X; a view where that is possible.
    """
    if on_gpu(X):
        xp = array_module(X)
        block = X[rows if isinstance(rows, slice) else xp.asarray(rows)]
        return xp.ascontiguousarray(block.toarray() if hasattr(block, "toarray") else block, dtype=dtype)
    block = X[rows].toarray() if issparse(X) else X[rows]
    block = np.ascontiguousarray(block, dtype=dtype)
    # Numba would compile every kernel once more for arrays that are read-only.
    return block if block.flags.writeable else block.copy()


def _even_shares(starts, n_shares):
    """Ranges of atoms with about equally many non-zeros."""
    n_atoms = len(starts) - 1
    cuts = np.searchsorted(starts, np.linspace(0, starts[-1], n_shares + 1)[1:-1])
    bounds = np.unique(np.concatenate([[0], np.minimum(cuts, n_atoms), [n_atoms]])).tolist()
    return list(zip(bounds[:-1], bounds[1:], strict=True))
