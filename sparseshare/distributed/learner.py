"""What the learners on a cluster share: batches of blocks in both modes, epochs, and results for Dask arrays."""

import numpy as np

from sparseshare.validation import check_choice, check_number, is_dask

from .encoding import decode_dask, encode_dask, score_dask

_ROUND = 8  # blocks, where none is said


def refuse_beside_dask(**given):
    """Refuse what only arrays of one machine go with.

    Raises
    ------
    ValueError
    """
    for name, value in given.items():
        if value is not None:
            hint = ": what comes back is a Dask array, which its to_zarr or store writes" if name == "out" else ""
            raise ValueError(f"{name} does not go with a Dask array{hint}")


class ClusterLearner:
    """Learning from the blocks of a Dask array.

    Subclasses have the parameters `mode`, `blocks_per_update`, `max_in_flight`, `max_staleness`, `shuffle`, `n_jobs`
    and `max_iter`, and stand before an estimator that does the same for arrays.
    """

    def transform(self, X, out=None):
        """Codes of signals, as without Dask; a Dask array for a Dask array, see `encode_dask`."""
        if not is_dask(X):
            return super().transform(X, out)
        refuse_beside_dask(out=out)
        self._check_is_ready()
        return encode_dask(X, self._serial())

    def inverse_transform(self, X, *more):
        """Signals that codes stand for, as without Dask; a Dask array for a Dask array."""
        if not is_dask(X):
            return super().inverse_transform(X, *more)
        self._check_is_ready()
        return decode_dask(X, self._serial())

    def score(self, X, y=None):
        """Share of the variance that the reconstruction explains, as without Dask; of a Dask array block by block."""
        if not is_dask(X):
            return super().score(X)
        self._check_is_ready()
        return score_dask(X, self._serial(), self._n_means(X))

    def _check_cluster_parameters(self):
        of = type(self).__name__
        check_choice("mode", self.mode, ("synchronous", "asynchronous"), of=of)
        check_number("blocks_per_update", self.blocks_per_update, 1, integer=True, allow_none=True, of=of)
        check_number("max_in_flight", self.max_in_flight, 1, integer=True, allow_none=True, of=of)
        check_number("max_staleness", self.max_staleness, 0, integer=True, allow_none=True, of=of)

    @property
    def _threads(self):
        """Threads of a task: Dask runs as many tasks at once as a worker may use threads."""
        return 1 if self.n_jobs is None else self.n_jobs

    def _batches(self, blocks, merge, work, arguments, random_state):
        """Results of all batches of all epochs: numbers of the blocks, arguments of their tasks, result."""
        orders = (
            random_state.permutation(len(blocks)) if self.shuffle else np.arange(len(blocks))
            for _ in range(self.max_iter)
        )  # fmt: skip
        if self.mode == "synchronous":
            size = self._blocks_in_a_batch(blocks)
            for order in orders:
                for start in range(0, len(order), size):
                    numbers, given = np.sort(order[start : start + size]).tolist(), arguments()
                    yield numbers, given, blocks.merged(merge, numbers, work, *given)
            return
        in_flight = self.max_in_flight
        if in_flight is None:
            in_flight = 2 * max(1, sum(blocks.client.nthreads().values()))
        staleness = 2 * in_flight if self.max_staleness is None else self.max_staleness
        numbers = (int(number) for order in orders for number in order)
        for number, given, result in blocks.as_they_come(numbers, work, arguments, in_flight, staleness):
            yield [number], given, result

    def _blocks_in_a_batch(self, blocks):
        if self.mode == "asynchronous":
            return 1
        return min(len(blocks), _ROUND if self.blocks_per_update is None else self.blocks_per_update)

    def _epochs(self, steps, n_blocks, reports, dictionary, has_converged=None):
        """The mean loss of every epoch.

        `steps` yields numbers of blocks and of signals, the objective of these, and whether to stop.
        """
        losses, left = [], 0
        for blocks, size, objective, stop in steps:
            if left == 0:
                reports.begin()
                left, total, seen = n_blocks, 0.0, 0
            left, total, seen = left - blocks, total + objective, seen + size
            if left == 0 or stop:
                losses.append(total / seen)
                asked = reports.end(losses[-1], dictionary())
                if asked or stop or (has_converged is not None and has_converged(losses)):
                    break
        return losses
