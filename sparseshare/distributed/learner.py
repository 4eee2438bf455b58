"""What the learners on a cluster share: batches of blocks in both modes, epochs, and results for Dask arrays."""

from contextlib import closing

from sparseshare.checkpoints import begin_checkpoints
from sparseshare.fingerprints import in_words, sampled
from sparseshare.validation import check_choice, check_number, is_dask

from .encoding import decode_dask, encode_dask, score_dask
from .order import BlockOrder

_ROUND = 8  # blocks, where none is said
_BLOCKS_SAMPLED = 8  # of which a row tells these data from others: a block is read for it


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

    def _begin_checkpoints(self, blocks):
        """The checkpoint that a fit writes, and the state that it goes on from."""
        data = {}
        if self.checkpoint is not None:
            some = blocks.starts[sampled(len(blocks), _BLOCKS_SAMPLED)]
            data = dict(
                X=f"{blocks.shape}, of which some rows are {in_words(blocks.rows(some))}",
                blocks=in_words(blocks.sizes),
                components_=vars(self).get("components_") if self.warm_start else None,
            )
        return begin_checkpoints(self, **data)

    def _batches(self, blocks, order, merge, work, arguments):
        """Results of all batches of all epochs: numbers of the blocks, arguments of their tasks, result."""
        if self.mode == "synchronous":
            size = self._blocks_in_a_batch(blocks)
            while taken := order.take(size):
                numbers, given = sorted(taken), arguments()
                result = blocks.merged(merge, numbers, work, *given)
                order.done(taken)
                yield numbers, given, result
            return
        in_flight = self.max_in_flight
        if in_flight is None:
            in_flight = 2 * max(1, sum(blocks.client.nthreads().values()))
        staleness = 2 * in_flight if self.max_staleness is None else self.max_staleness
        numbers = (taken[0] for taken in iter(lambda: order.take(1), []))
        for number, given, result in blocks.as_they_come(numbers, work, arguments, in_flight, staleness):
            order.done([number])
            yield [number], given, result

    def _blocks_in_a_batch(self, blocks):
        if self.mode == "asynchronous":
            return 1
        return min(len(blocks), _ROUND if self.blocks_per_update is None else self.blocks_per_update)

    def _learn_from_blocks(
        self, steps, blocks, reports, random_state, checkpoint, saved, dictionary, state, has_converged=None
    ):
        """Epochs over all blocks, or what is left of them.

        Parameters
        ----------
        steps : callable
            ``steps(order)`` yields numbers of blocks and of signals, the objective of these, and whether to stop.
        blocks : ArrayBlocks
        reports : EpochReports
        random_state : RandomState
        checkpoint, saved
            As of `_begin_checkpoints`.
        dictionary, state : callables
            The dictionary as it is now; what else going on needs, for a checkpoint.
        has_converged : callable or None, default=None
            Asked after an epoch, with the losses so far.

        Returns
        -------
        list of float
            The mean loss of every epoch.
        """
        order = BlockOrder(len(blocks), self.max_iter, random_state if self.shuffle else None)
        progress = dict(losses=[], left=0, total=0.0, seen=0, finished=False)  # left: blocks that an epoch lacks
        if saved is not None:
            order.restore(saved["order"])
            progress = saved["progress"]

        def save():
            checkpoint.save(dict(state(), order=order.state, progress=progress, finished=progress["finished"]))

        losses, begun = progress["losses"], False
        if reports.again(losses, dictionary()) or progress["finished"]:
            return losses
        with closing(steps(order)) as steps:
            for n_blocks, size, objective, stop in steps:
                if progress["left"] == 0:
                    progress.update(left=len(blocks), total=0.0, seen=0)
                if not begun:
                    reports.begin()
                    begun = True
                for name, count in dict(left=-n_blocks, total=objective, seen=size).items():
                    progress[name] += count
                if progress["left"] == 0 or stop:
                    losses.append(progress["total"] / progress["seen"])
                    asked, begun = reports.end(losses[-1], dictionary()), False
                    if asked or stop or (has_converged is not None and has_converged(losses)):
                        break
                if checkpoint.due():
                    save()
        progress["finished"] = True
        save()
        return losses
