"""Signals in tiles: one matrix product a tile, one kernel call a tile, tiles shared out to threads.

A signal's codes are the same to the last bit whatever tile it is in and however many threads run, because every matrix
product has the same shape (the last one padded) and runs on one BLAS thread, and signals do not meet after it.
"""

from contextlib import contextmanager
from threading import Lock

import numpy as np
from scipy.sparse import csr_array, issparse

from sparseshare.kernels.dispatch import kernels_for, plain
from sparseshare.threads import single_threaded_blas

from .masks import hide_missing, mask_of_rows
from .problem import aligned_zeros

PRODUCT_ROWS = 128  # signals a matrix product: BLAS may take another path, with other last bits, for other shapes
_TILE_ENTRIES = 2**17  # correlations a tile: they stay in the second-level cache beside the Gram matrix
_GROWTH = 2**21  # entries by which the codes' memory grows at most: what is added is touched at once


class Tile:
    """Scratch and results of one tile; each thread keeps one and fills it again and again."""

    device = "cpu"

    def __init__(self, problem, n_rows):
        self.signals = aligned_zeros((n_rows, problem.n_features), problem.dtype)
        self._correlations = aligned_zeros((n_rows, len(problem.atoms)), problem.dtype)
        self._exponents = np.zeros(n_rows, np.int32)
        self._units = np.zeros(n_rows)
        self._norms2 = np.zeros(n_rows)
        self._indices = np.zeros((n_rows, problem.capacity), np.int32)
        self._values = np.zeros((n_rows, problem.capacity), problem.dtype)
        self._counts = np.zeros(n_rows, np.int32)
        self._gaps = np.zeros(n_rows)
        self._iterations = np.zeros(n_rows, np.int32)
        self._status = np.zeros(n_rows, np.int8)
        self._kernels = kernels_for("cpu", "signals")
        self.problem = problem

    def load(self, X, rows, cov=None, init=None, mask=None):
        """Scale signals `rows` and correlate them with the atoms; missing entries become zeros, noted in `missing`."""
        problem, n = self.problem, rows.stop - rows.start
        self.rows = rows
        for name in (
            "correlations",
            "exponents",
            "units",
            "norms2",
            "indices",
            "values",
            "counts",
            "gaps",
            "iterations",
            "status",
        ):
            setattr(self, name, getattr(self, f"_{name}")[:n])
        block = X[rows]
        block = plain(block.toarray() if issparse(block) else block, problem.dtype)
        self.missing = None
        if mask is not None:
            block, missing = hide_missing(block, mask_of_rows(mask, rows), rows.start)
            self.missing = plain(missing)
        padded = -(-n // PRODUCT_ROWS) * PRODUCT_ROWS
        bits = block.view(np.int32 if block.itemsize == 4 else np.int64)
        bad = self._kernels.scale_tile(block, bits, self.signals[:padded], self.exponents, self.units, self.norms2)
        if bad >= 0:
            raise ValueError(
                f"X contains NaN or infinity, first in row {rows.start + bad}; for missing entries pass mask='nan' to "
                "sparse_encode"
            )
        if cov is None:
            transposed = problem.atoms.T
            for start in range(0, padded, PRODUCT_ROWS):
                product = slice(start, start + PRODUCT_ROWS)
                np.matmul(self.signals[product], transposed, out=self._correlations[product])
        else:
            scaled = cov[:, rows].T * problem.atom_scale
            self.correlations[:, : problem.n_components] = scaled * self.units[:, None]
        self.counts[:] = 0
        self.gaps[:] = 0
        self.iterations[:] = 1
        self.status[:] = 0
        if init is not None:
            part = init.indptr[rows.start : rows.stop + 1].astype(np.int64)
            self._kernels.start_tile(
                part,
                init.indices,
                init.data,
                self.exponents,
                problem.code_scale,
                self.indices,
                self.values,
                self.counts,
            )

    def pack(self):
        """Codes of the tile in the user's units: row lengths, atoms, values."""
        room = int(self.counts.sum())
        atoms, codes = np.empty(room, np.int32), np.empty(room, self.values.dtype)
        lengths = np.empty(len(self.counts), np.int64)
        written = self._kernels.pack_tile(
            self.indices, self.values, self.counts, self.exponents, self.problem.code_scale, atoms, codes, lengths
        )
        return lengths, atoms[:written], codes[:written]

    def spread(self, out):
        """Codes of the tile into their rows of a dense array of zeros."""
        self._kernels.spread_tile(self.indices, self.values, self.counts, self.exponents, self.problem.code_scale, out)


def product_of_rows(rows, matrix):
    """rows @ matrix in float64, each row with the same bits whatever rows are beside it."""
    out, block = np.empty((len(rows), matrix.shape[1])), np.zeros((PRODUCT_ROWS, matrix.shape[0]))
    with single_threaded_blas:
        for start in range(0, len(rows), PRODUCT_ROWS):
            part = rows[start : start + PRODUCT_ROWS]
            block[: len(part)] = part
            out[start : start + len(part)] = (block @ matrix)[: len(part)]
    return out


def rows_a_tile(problem):
    """Signals a tile, a multiple of those in one matrix product."""
    rows = _TILE_ENTRIES // len(problem.atoms) // PRODUCT_ROWS * PRODUCT_ROWS
    return min(max(rows, PRODUCT_ROWS), 4 * PRODUCT_ROWS)


@contextmanager
def tile_run(problem, masked=False):
    """BLAS held to one thread, and what all tiles share computed once."""
    with single_threaded_blas:
        if masked:
            problem.transposed_atoms, problem.ridge  # noqa: B018 - computed here, by one thread
        else:
            problem.atoms, problem.gram  # noqa: B018
        yield


class RowsInOrder:
    """Rows of a CSR array that arrive in blocks out of order; memory grows with what has arrived and no more."""

    def __init__(self, n_rows, n_columns, dtype, guess):
        self._lock, self._waiting, self._next = Lock(), {}, 0
        self._lengths = np.zeros(n_rows + 1, np.int64)
        self._atoms, self._codes = np.empty(guess, np.int32), np.empty(guess, dtype)
        self._row = self._entries = 0
        self._shape = n_rows, n_columns

    def put(self, block, lengths, atoms, codes):
        with self._lock:
            self._waiting[block] = lengths, atoms, codes
            while self._next in self._waiting:
                self._append(*self._waiting.pop(self._next))
                self._next += 1

    def _append(self, lengths, atoms, codes):
        start, stop = self._entries, self._entries + len(atoms)
        if stop > len(self._atoms):
            for array in (self._atoms, self._codes):
                array.resize(stop + min(stop, _GROWTH), refcheck=False)
        self._atoms[start:stop], self._codes[start:stop] = atoms, codes
        self._lengths[self._row + 1 : self._row + 1 + len(lengths)] = lengths
        self._row, self._entries = self._row + len(lengths), stop

    def csr(self):
        for array in (self._atoms, self._codes):
            array.resize(self._entries, refcheck=False)
        starts = np.cumsum(self._lengths, out=self._lengths)
        if self._entries < np.iinfo(np.int32).max:
            starts = starts.astype(np.int32)
        rows = csr_array((self._codes, self._atoms, starts), shape=self._shape)
        rows.has_canonical_format = True
        return rows
