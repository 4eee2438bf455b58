"""Signals in pieces on a GPU: a piece is as many signals as its memory takes, and the next is on its way meanwhile."""

from functools import cached_property

import numpy as np

from sparseshare.devices import (
    array_module,
    computing_on,
    csr_of,
    memory_errors,
    module_of,
    on_gpu,
    rows_that_fit,
    to_device,
    to_host,
)
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.optimization.lipschitz import largest_eigenvalue
from sparseshare.staging import StagedRows

from .masks import hide_missing, mask_of_rows

_BY_SIGNAL = ("correlations", "exponents", "units", "norms2", "indices", "values", "counts", "gaps", "iterations")


class ProblemOnDevice:
    """A problem whose arrays live on a GPU; whatever is not an array is the problem's own.

    Parameters
    ----------
    problem : Problem
    device : str
        "cuda:N".
    """

    def __init__(self, problem, device):
        self._problem, self.device = problem, device

    def __getattr__(self, name):
        return getattr(self._problem, name)

    def for_rows(self, value, rows):
        """The part of a per-signal parameter that belongs to some rows, as one number a row."""
        return to_device(np.ascontiguousarray(self._problem.for_rows(value, rows)), self.device)

    def penalties(self, rows, units):
        """alpha of some rows in the kernels' units, in their dtype."""
        problem, xp = self._problem, array_module(units)
        alpha = to_device(problem.for_rows(problem.alpha, rows) * problem.l1_ratio * problem.norm_unit, self.device)
        return xp.minimum(alpha * units, 1e30).astype(problem.dtype)

    @cached_property
    def atoms(self):
        return to_device(self._problem.atoms, self.device)

    @cached_property
    def transposed_atoms(self):
        return self.atoms.T.copy()

    @cached_property
    def atom_scale(self):
        return to_device(self._problem.atom_scale, self.device)

    @cached_property
    def code_scale(self):
        return to_device(self._problem.code_scale, self.device)

    @cached_property
    def ridge(self):
        return to_device(self._problem.ridge, self.device)

    @cached_property
    def gram(self):
        """Gram matrix of the scaled atoms, with the quadratic penalty on its diagonal."""
        if self._problem._given_gram is not None:
            return to_device(self._problem.gram, self.device)
        xp = array_module(self.atoms)
        gram, every = self.atoms @ self.atoms.T, xp.arange(len(self.atoms))
        diagonal = gram[every, every]
        if self.form.pursuit:
            gram[every, every] = xp.where(diagonal > 0.5, diagonal.dtype.type(1), diagonal)
        elif self.l1_ratio != 1:
            gram[every, every] = diagonal + self.ridge
        return gram

    @cached_property
    def lipschitz(self):
        return largest_eigenvalue(self.gram)

    @property
    def safe_step(self):
        """A length at which gradient steps never raise the error; any will do where all atoms are zero."""
        return 1 / self.lipschitz if self.lipschitz > 0 else 1.0


class DeviceTile:
    """Scratch and results of one piece, as `tiles.Tile` has them; filled again and again."""

    def __init__(self, problem, n_rows):
        xp = module_of(problem.device)
        n_atoms, dtype = len(problem.atoms), problem.dtype
        self.problem, self.device = problem, problem.device
        self._kernels = kernels_for(self.device, "signals")
        self._signals = xp.empty((n_rows, problem.n_features), dtype)
        self._correlations = xp.empty((n_rows, n_atoms), dtype)
        self._exponents = xp.empty(n_rows, np.int32)
        self._units, self._norms2 = xp.empty(n_rows), xp.empty(n_rows)
        self._indices = xp.empty((n_rows, problem.capacity), np.int32)
        self._values = xp.empty((n_rows, problem.capacity), dtype)
        self._counts = xp.empty(n_rows, np.int32)
        self._gaps = xp.empty(n_rows)
        self._iterations = xp.empty(n_rows, np.int32)
        self._status = xp.empty(n_rows, np.int8)

    def load(self, block, rows, init=None, mask=None):
        """Scale the signals of `block`, which are number `rows`, and correlate them with the atoms."""
        n = len(block)
        self.rows, self.missing = rows, None
        for name in ("signals", *_BY_SIGNAL, "status"):
            setattr(self, name, getattr(self, f"_{name}")[:n])
        if mask is not None:
            part = mask_of_rows(mask, rows)
            part = part if isinstance(part, str) else to_device(np.ascontiguousarray(part), self.device)
            block, self.missing = hide_missing(block, part, rows.start)
        self._first_bad_row = self._kernels.scale_tile(
            block, None, self.signals, self.exponents, self.units, self.norms2
        )
        array_module(block).matmul(self.signals, self.problem.atoms.T, out=self.correlations)
        self.counts.fill(0)
        self.gaps.fill(0)
        self.iterations.fill(1)
        self.status.fill(0)
        if init is not None:
            part = init[rows]
            self._kernels.start_tile(
                *(to_device(array, self.device) for array in (part.indptr.astype(np.int64), part.indices, part.data)),
                self.exponents, self.problem.code_scale, self.indices, self.values, self.counts,
            )  # fmt: skip

    def refuse_bad_rows(self):
        """Raise the error that NaN and infinity deserve; waits for the device."""
        bad = self._first_bad_row()
        if bad >= 0:
            raise ValueError(
                f"X contains NaN or infinity, first in row {self.rows.start + bad}; for missing entries pass "
                "mask='nan' to sparse_encode"
            )

    def pack(self):
        """Codes of the piece in the user's units: row lengths, atoms, values."""
        return self._kernels.pack_tile(self.indices, self.values, self.counts, self.exponents, self.problem.code_scale)

    def spread(self, out):
        """Codes of the piece into their rows of a dense array of zeros."""
        self._kernels.spread_tile(self.indices, self.values, self.counts, self.exponents, self.problem.code_scale, out)


def bytes_a_signal(problem):
    """Memory that a signal takes on a GPU while it is coded, the solvers' scratch included."""
    n_atoms = len(problem.atoms)
    size = problem.dtype.itemsize
    return size * (4 * n_atoms + 4 * problem.n_features) + (size + 4) * 2 * problem.capacity + 64


class CollectedRows:
    """Codes that arrive piece by piece, dense or as rows of a CSR array, on a GPU or in the host's memory.

    Parameters
    ----------
    shape : (n_samples, n_components)
    dtype : dtype
    dense : bool
    keep : str or None
        The device where they stay; None is the host.
    """

    def __init__(self, shape, dtype, dense, keep):
        self.shape, self.dense, self.keep, self.parts = shape, dense, keep, []
        self._xp = module_of(keep or "cpu")
        if dense:
            self.codes = self._xp.zeros(shape, dtype)

    def put(self, tile):
        if not self.dense:
            parts = tile.pack()
            self.parts.append(parts if self.keep else tuple(part.get() for part in parts))
        elif self.keep:
            tile.spread(self.codes[tile.rows])
        else:
            out = array_module(tile.values).zeros((tile.rows.stop - tile.rows.start, self.shape[1]), self.codes.dtype)
            tile.spread(out)
            out.get(out=self.codes[tile.rows])

    def result(self):
        if self.dense:
            return self.codes
        xp = self._xp
        lengths, atoms, codes = (xp.concatenate(parts) for parts in zip(*self.parts, strict=True))
        starts = xp.zeros(self.shape[0] + 1, np.int64)
        xp.cumsum(lengths, out=starts[1:])
        if len(atoms) < np.iinfo(np.int32).max:
            starts = starts.astype(np.int32)
        rows = csr_of(codes, atoms, starts, self.shape)
        rows.has_canonical_format = True
        return rows


def encode_pieces(X, problem, device, *, solve, certify, tol, init=None, mask=None, dense=False, keep=False):
    """Codes for a problem that is one for all signals, on a GPU, piece by piece.

    Parameters
    ----------
    X, problem, init, mask, dense : as of `encode`
    device : str
        "cuda:N".
    solve, certify : callable
        Fill a tile, and judge what is in it.
    tol : float
    keep : bool, default=False
        Leave the codes on the device; so are those of signals that live there.

    Returns
    -------
    values : array of shape (n_samples, n_components), dense or CSR
    gap, n_iter, converged : ndarrays of shape (n_samples,)
    """
    xp = module_of(device)
    keep = device if keep or on_gpu(X) else None
    n_samples = X.shape[0]
    gap, n_iter, converged = np.zeros(n_samples), np.zeros(n_samples, np.int32), np.ones(n_samples, bool)
    with computing_on(device):
        problem = ProblemOnDevice(problem, device)
        n_rows = min(rows_that_fit(device, bytes_a_signal(problem)), n_samples)
        with memory_errors(device, "dense codes, of which sparse_output=True would keep the non-zeros only"):
            codes = CollectedRows((n_samples, problem.n_components), problem.dtype, dense, keep)
        while True:
            try:
                tile, pieces = DeviceTile(problem, n_rows), StagedRows(X, problem.dtype, device, n_rows)
                for rows, block in pieces:
                    tile.load(block, rows, init, mask)
                    solve(problem, tile, tol)
                    pieces.prefetch()
                    tile.refuse_bad_rows()
                    gap[rows], converged[rows] = (to_host(array) for array in certify(problem, tile, tol))
                    n_iter[rows] = tile.iterations.get()
                    codes.put(tile)
                break
            except xp.cuda.memory.OutOfMemoryError as error:
                tile = pieces = block = None  # noqa: F841 - their memory is wanted
                codes.parts.clear()
                xp.get_default_memory_pool().free_all_blocks()
                n_rows = _halved(n_rows, problem, device, error)
        return codes.result(), gap, n_iter, converged


def _halved(n_rows, problem, device, error):
    if n_rows == 1:
        raise MemoryError(
            f"{device} has too little free memory to code a single signal with {problem.n_components} atoms of "
            f"{problem.n_features} features, which takes {bytes_a_signal(problem) / 2**20:.3g} MB: {error}. Free "
            "memory there, or use device='cpu'"
        ) from error
    return n_rows // 2
