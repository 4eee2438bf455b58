"""Encoding of a Dask array by two workers in turns with one, each a process of one thread."""

import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import problems
from row import Line, Row

from .lasso import N_NONZEROS

N_BLOCKS = 40
IN_TURN = 4  # blocks that have the same signals: the photographs have not enough


def distributed(settings, n_signals=800_000, at_least=1.7):
    """The blocks lie in the workers' memory, and so do their codes; what comes back is their numbers of non-zeros."""
    rows = settings.count(n_signals) // N_BLOCKS
    n_signals = rows * N_BLOCKS
    row = Row("distributed", f"lasso of {n_signals:,} signals in {N_BLOCKS} blocks on a Dask cluster", "µs a signal")
    try:
        import distributed as dask_cluster  # noqa: F401
    except ImportError as error:
        row.lines.append(Line("one worker", np.nan, None, at_least, note=f"not measured: {error}"))
        return row
    from sparseshare.learning import SparseCoder

    D = problems.dictionary(8, 256, settings).astype(np.float32)
    alpha = problems.penalty(8, 256, N_NONZEROS, settings)
    coder = SparseCoder(dictionary=D, transform_algorithm="lasso_lars", alpha=alpha, sparse_output=True)
    with TemporaryDirectory() as folder, ExitStack() as clusters:
        file = Path(folder) / "signals.npy"
        np.save(file, problems.test_signals(8, n_signals // IN_TURN))
        encodings = [clusters.enter_context(_Encoding(n_workers, rows, str(file), coder)) for n_workers in (1, 2)]
        found = [encoding.digest() for encoding in encodings]  # compiles, too
        seconds = np.array([[encoding.seconds() for encoding in encodings] for _ in range(settings.repeats)])
    one, two = 1e6 * seconds.min(axis=0) / n_signals
    same = bool((found[0] == found[1]).all())
    accuracy = "codes of the same bits" if same else "codes differ"
    row.lines.append(Line("one worker", two, one, at_least, accuracy, same))
    return row


class _Encoding:
    """A cluster that has the signals and waits to be asked for their codes."""

    def __init__(self, n_workers, rows, file, coder):
        self.n_workers, self.rows, self.file, self.coder = n_workers, rows, file, coder

    def __enter__(self):
        import dask.array as da
        from distributed import Client, LocalCluster, wait

        from sparseshare.distributed import encode_dask

        rows, file = self.rows, self.file

        # Inside, and without names of this file: workers know nothing of it.
        def read(block_info=None):
            stored = np.load(file, mmap_mode="r")
            first = block_info[None]["array-location"][0][0] % len(stored)
            return np.array(stored[first : first + rows])

        with ExitStack() as opened:
            cluster = LocalCluster(
                n_workers=self.n_workers, threads_per_worker=1, dashboard_address=":0", silence_logs=40
            )
            self._client = Client(opened.enter_context(cluster), set_as_default=False)
            opened.enter_context(self._client)
            self._client.wait_for_workers(self.n_workers)
            chunks = ((rows,) * N_BLOCKS, (64,))
            X = da.map_blocks(read, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0), np.float32))
            X = self._client.persist(X)
            with self._client.as_current():
                wait(X)
            self._codes = encode_dask(X, self.coder)
            self._close = opened.pop_all().close
        return self

    def __exit__(self, *_):
        self._close()

    def digest(self):
        """A checksum of the codes of every block."""

        def checksum(codes):
            return np.array([zlib.crc32(np.concatenate([part.view(np.uint8) for part in parts(codes)]))])

        def parts(codes):
            return codes.data, codes.indices, codes.indptr

        return self._of_each_block(checksum)

    def seconds(self):
        """Of coding all blocks."""

        def count(codes):
            return np.array([codes.nnz])

        start = time.perf_counter()
        self._of_each_block(count)
        return time.perf_counter() - start

    def _of_each_block(self, work):
        numbers = self._codes.map_blocks(
            work, drop_axis=1, chunks=((1,) * N_BLOCKS,), dtype=np.int64, meta=np.empty(0, np.int64)
        )
        return self._client.compute(numbers).result()
