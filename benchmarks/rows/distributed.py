"""Encoding of a Dask array by two workers against one, each a process of one thread."""

import time

import numpy as np
import problems
from row import Line, Row

from .lasso import N_NONZEROS

N_BLOCKS = 40


def distributed(settings, n_signals=800_000, at_least=1.7):
    """The blocks lie in the workers' memory; what comes back is their numbers of non-zeros."""
    n_signals = settings.count(n_signals) // N_BLOCKS * N_BLOCKS
    row = Row("distributed", f"lasso of {n_signals:,} signals in {N_BLOCKS} blocks on a Dask cluster", "µs a signal")
    try:
        import distributed as dask_cluster  # noqa: F401
    except ImportError as error:
        row.lines.append(Line("one worker", np.nan, None, at_least, note=f"not measured: {error}"))
        return row
    D = problems.dictionary(8, 256, settings).astype(np.float32)
    alpha = problems.penalty(8, 256, N_NONZEROS, settings)
    (two, found), (one, expected) = (_encode(n_workers, n_signals, D, alpha, settings) for n_workers in (2, 1))
    two, one = 1e6 * two / n_signals, 1e6 * one / n_signals
    accuracy = f"non-zeros {found:,} and {expected:,}"
    row.lines.append(Line("one worker", two, one, at_least, accuracy, found == expected))
    return row


def _encode(n_workers, n_signals, D, alpha, settings):
    """Seconds, the least of several, and the number of non-zeros."""
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    from sparseshare.datasets import photo_patches
    from sparseshare.distributed import encode_dask
    from sparseshare.learning import SparseCoder

    def patches(block_info=None):  # inside: workers know nothing of this file
        return photo_patches(n_signals // N_BLOCKS, (8, 8), random_state=block_info[None]["chunk-location"][0]).astype(
            np.float32
        )

    def count(codes):
        return np.array([codes.nnz])

    coder = SparseCoder(dictionary=D, transform_algorithm="lasso_lars", alpha=alpha, sparse_output=True)
    with LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        chunks = (n_signals // N_BLOCKS,) * N_BLOCKS
        X = da.map_blocks(
            patches, chunks=(chunks, (64,)), dtype=np.float32, meta=np.empty((0, 0), np.float32)
        ).persist()
        wait(X)
        counts = encode_dask(X, coder).map_blocks(
            count, drop_axis=1, chunks=((1,) * N_BLOCKS,), dtype=np.int64, meta=np.empty(0, np.int64)
        )
        found = int(counts.compute().sum())  # compiles, too
        seconds = []
        for _ in range(settings.repeats):
            start = time.perf_counter()
            counts.compute()
            seconds.append(time.perf_counter() - start)
    return min(seconds), found
