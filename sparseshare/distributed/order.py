"""In which order blocks are learned from, and how far that has come."""

import numpy as np

from sparseshare.checkpoints import random_bits, resumed_random_state


class BlockOrder:
    """Numbers of blocks, epoch after epoch, and which of those that were handed out are not learned from yet.

    Parameters
    ----------
    n_blocks : int
    n_epochs : int
    random_state : RandomState or None
        Draws the order of every epoch; None leaves it as it is.

    Examples
    --------
    >>> from sparseshare.distributed.order import BlockOrder
    >>> order = BlockOrder(3, 2, None)
    >>> order.take(2), order.take(2), order.take(2), order.take(2)
    ([0, 1], [2], [0, 1], [2])
    >>> order.done([0, 1, 2, 0])
    >>> order.state["todo"]
    array([1, 2])
    """

    def __init__(self, n_blocks, n_epochs, random_state):
        self._n_blocks, self._n_epochs, self._random_state = n_blocks, n_epochs, random_state
        self._begun, self._epoch, self._place, self._drawn = [], [], 0, 0

    def take(self, count):
        """The next numbers, at most so many and of one epoch; none after the last epoch."""
        if self._place == len(self._epoch) and self._drawn < self._n_epochs:
            shuffled = self._random_state is not None
            numbers = self._random_state.permutation(self._n_blocks) if shuffled else np.arange(self._n_blocks)
            self._epoch, self._place, self._drawn = numbers.tolist(), 0, self._drawn + 1
        taken = self._epoch[self._place : self._place + count]
        self._place += len(taken)
        self._begun += taken
        return taken

    def done(self, numbers):
        """These have been learned from."""
        for number in numbers:
            self._begun.remove(number)

    @property
    def state(self):
        """What going on needs, for a checkpoint; what has been begun is begun anew."""
        return dict(
            todo=np.array(self._begun + self._epoch[self._place :], np.int64),
            drawn=self._drawn,
            random_state=None if self._random_state is None else random_bits(self._random_state),
        )

    def restore(self, state):
        """Go on from a `state`."""
        self._begun, self._epoch, self._place, self._drawn = [], state["todo"].tolist(), 0, state["drawn"]
        if self._random_state is not None:
            self._random_state = resumed_random_state(self._random_state, state["random_state"])
