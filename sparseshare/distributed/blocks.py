"""Blocks of a Dask array, and work on them by the workers of a cluster.

Only futures are used. Everything that a task needs is the result of another task, the atoms too: when a worker dies the
scheduler does again elsewhere what was lost, and nothing else. Every task is a function of its arguments alone, and
results are merged in a tree whose shape the number of blocks decides, so what comes out does not depend on the workers.
"""

import numpy as np
from scipy.sparse import issparse

from sparseshare.devices import to_host
from sparseshare.validation import check_kind, is_dask

_FAN_IN = 8  # results that one task merges


def check_dask_array(X, axes, *, of):
    """A Dask array of numbers with blocks of known size that are cut along the first axis alone.

    Parameters
    ----------
    X : dask.array.Array
        Cut along other axes it is put together there.
    axes : tuple of int
        Numbers of axes that are allowed.
    of : str
        Estimator that it is for.

    Returns
    -------
    dask.array.Array

    Raises
    ------
    TypeError
        If X is no Dask array.
    ValueError
    """
    if not (is_dask(X) and hasattr(X, "to_delayed") and hasattr(X, "chunks")):
        raise TypeError(
            f"{of} learns from blocks of a Dask array, got {type(X).__name__}: make one with "
            "dask.array.from_array(X, chunks=(rows, -1)), or of a DataFrame with to_dask_array(lengths=True); what "
            "fits one machine goes to the estimator of the same name without Dask"
        )
    if X.ndim not in axes:
        raise ValueError(
            f"Found array with dim {X.ndim}: {of} takes Dask arrays of {' or '.join(map(str, axes))} axes, a signal a "
            f"row; got shape {X.shape}"
        )
    check_kind(X, "X")
    if np.isnan([length for lengths in X.chunks for length in lengths]).any():
        raise ValueError("the blocks of X have unknown sizes: call X.compute_chunk_sizes() first")
    if 0 in X.shape:
        what = "sample" if X.shape[0] == 0 else "feature"
        raise ValueError(
            f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required by {of}."
        )  # fmt: skip
    return whole_rows(X)


def whole_rows(X):
    """A Dask array that is cut along the first axis alone."""
    cut = [axis for axis in range(1, X.ndim) if len(X.chunks[axis]) > 1]
    return X.rechunk({axis: -1 for axis in cut}) if cut else X


def current_client():
    """The Dask client that is in use.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    from distributed import get_client

    try:
        return get_client()
    except ValueError as error:
        raise RuntimeError(
            "learning on a cluster needs a Dask client: make one before, client = distributed.Client(address), or "
            "distributed.Client() for processes of this machine"
        ) from error


class ArrayBlocks:
    """The blocks of rows of a Dask array, and work on them.

    Parameters
    ----------
    X : dask.array.Array
        As `check_dask_array` returns it.
    client : distributed.Client

    Attributes
    ----------
    sizes : ndarray of int
        Rows of every block; empty ones are left out.
    starts : ndarray of int
        Their first rows.
    shape, dtype, ndim
        Of the array.
    """

    def __init__(self, X, client):
        from dask.delayed import Delayed
        from dask.optimization import cull

        self.client, self.shape, self.dtype, self.ndim = client, X.shape, X.dtype, X.ndim
        parts = X.to_delayed().ravel()
        graph = dict(parts[0].dask)
        # Each block with its own part of the graph: with the whole of it every task would cost as much as all blocks.
        kept = [number for number, size in enumerate(X.chunks[0]) if size > 0]
        self._parts = [Delayed(parts[number].key, cull(graph, [parts[number].key])[0]) for number in kept]
        self._numbers = kept
        self.sizes = np.array(X.chunks[0])[kept]
        self.starts = np.cumsum(self.sizes) - self.sizes

    def __len__(self):
        """Number of blocks."""
        return len(self.sizes)

    def share(self, value):
        """A future of a value that many tasks need: it goes out once, and between workers from there."""
        from dask import config

        with config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):  # no graph, but what is needed
            return self.client.submit(_as_it_is, value, pure=False)

    def submit(self, work, number, *arguments):
        """A future of `work(block, *arguments)`; the block is forgotten when that is done."""
        return self.client.submit(work, self.client.compute(self._parts[number]), *arguments, pure=False)

    def merged(self, merge, numbers, work, *arguments):
        """The results of some blocks, merged in their order.

        Parameters
        ----------
        merge : callable
            Of as many results as there are, in order; associative up to rounding.
        numbers : sequence of int
        work : callable
            `work(block, first_row, *arguments)`.
        *arguments : objects or futures

        Returns
        -------
        object

        Raises
        ------
        Exception
            What went wrong with a block, with its number and its rows.
        """
        # All at once: handed over one by one they cost the client six times as much.
        parts = self.client.compute([self._parts[number] for number in numbers])
        firsts = self.starts[list(numbers)].tolist()
        level = self.client.map(work, parts, firsts, *([each] * len(parts) for each in arguments), pure=False)
        del parts  # a block is forgotten when it has been worked on
        futures = dict(zip(numbers, level, strict=True))
        while len(level) > 1:
            groups = [level[at : at + _FAN_IN] for at in range(0, len(level), _FAN_IN)]
            level = [
                self.client.submit(merge, *group, pure=False) if len(group) > 1 else group[0] for group in groups
            ]  # fmt: skip
        return self._result(level[0], futures)

    def results(self, numbers, work, arguments_of):
        """`work(block, *arguments_of(number))` of some blocks, in the order of `numbers`."""
        futures = {number: self.submit(work, number, *arguments_of(number)) for number in numbers}
        return [self._result(future, futures) for future in futures.values()]

    def as_they_come(self, numbers, work, arguments, max_in_flight, max_staleness):
        """Results of blocks in the order in which they are done, of which none is too old.

        A result is as old as the number of results that were taken since its task was given its arguments. The next
        task begins when a result has been taken; where one task lags behind, results of others wait for it before it
        is too old.

        Parameters
        ----------
        numbers : iterable of int
            Blocks, in the order in which they are begun.
        work : callable
            `work(block, first_row, *arguments)`.
        arguments : callable
            `arguments()` are those of a task that begins now: a tuple of objects or futures.
        max_in_flight : int
            Tasks begun and not yet taken.
        max_staleness : int
            Age of a result at most.

        Yields
        ------
        number : int
        given : tuple
            The arguments of the task.
        result : object
        """
        from distributed import wait

        waiting, taken, numbers = [], 0, iter(numbers)  # (age 0 at, number, arguments, future), the oldest first

        def begin():
            number = next(numbers, None)
            if number is not None:
                given = arguments()
                future = self.submit(work, number, int(self.starts[number]), *given)
                waiting.append((taken, number, given, future))

        for _ in range(min(max_in_flight, max_staleness + 1)):
            begin()
        while waiting:
            # The one at a place may go first if those before it, one place further back then, do not get too old.
            allowed = 1
            while allowed < len(waiting) and taken + allowed - waiting[allowed - 1][0] <= max_staleness:
                allowed += 1
            wait([future for *_, future in waiting[:allowed]], return_when="FIRST_COMPLETED")
            place = next(place for place in range(allowed) if waiting[place][3].done())
            _, number, given, future = waiting.pop(place)
            result = self._result(future, {number: future})
            taken += 1
            yield number, given, result
            begin()

    def rows(self, numbers):
        """Some rows, dense, in their order.

        Parameters
        ----------
        numbers : ndarray of int

        Returns
        -------
        ndarray of shape (len(numbers), *shape[1:])

        Raises
        ------
        ValueError
            For NaN and infinity.
        """
        blocks = np.searchsorted(self.starts, numbers, side="right") - 1
        needed = np.unique(blocks).tolist()
        places = {number: np.flatnonzero(blocks == number) for number in needed}
        found = self.results(needed, _rows_of_block, lambda number: (numbers[places[number]] - self.starts[number],))
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for number, part in zip(needed, found, strict=True):
            out[places[number]] = part
        return out

    def _result(self, future, futures):
        """What a future holds; of an error the block is named that it comes from."""
        try:
            return future.result()
        except Exception as error:
            failed = [number for number, one in futures.items() if one.status == "error"]
            if not failed:
                raise
            number = min(failed)
            first, last = int(self.starts[number]), int(self.starts[number] + self.sizes[number]) - 1
            said = f"block {self._numbers[number]} of X, rows {first} to {last}: "
            kind = type(error) if type(error) in (ValueError, TypeError, MemoryError) else RuntimeError
            raise kind(f"{said}{error}") from error


class RemoteSignals:
    """Rows of a Dask array as an array: what is asked for is fetched. Shaped for `image_shape`, if rows are flat.

    Parameters
    ----------
    blocks : ArrayBlocks
    shape : tuple of int or None, default=None
        Of one signal.
    """

    def __init__(self, blocks, shape=None):
        self._blocks, self.dtype = blocks, blocks.dtype
        self.shape = blocks.shape if shape is None else (blocks.shape[0], *shape)
        self.ndim = len(self.shape)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        numbers = np.arange(len(self))[rows] if isinstance(rows, slice) else np.atleast_1d(rows)
        found = self._blocks.rows(numbers).reshape(len(numbers), *self.shape[1:])
        return found[0] if np.ndim(rows) == 0 and not isinstance(rows, slice) else found


def _as_it_is(value):
    return value


def _rows_of_block(block, rows):
    found = to_host(block[rows])
    found = found.toarray() if issparse(found) else np.asarray(found)
    if not np.isfinite(found).all():
        raise ValueError("X contains NaN or infinity: every entry must be a finite number")
    return found
