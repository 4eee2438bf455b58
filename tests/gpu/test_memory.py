"""What a GPU says that is out of memory."""

import numpy as np
import pytest

from sparseshare import devices, sparse_encode


def test_the_size_that_fits_is_said(gpu, monkeypatch):
    xp = gpu.xp
    monkeypatch.setattr(devices, "free_memory", lambda device: 64 * 2**20)

    def refuse(*args, **kwargs):
        raise xp.cuda.memory.OutOfMemoryError(2**33, 2**20)

    X, dictionary = np.ones((3, 2)), np.eye(2)
    monkeypatch.setattr("sparseshare.coding.pieces.CollectedRows", refuse)
    with pytest.raises(MemoryError, match=r"cuda:0 is out of memory for dense codes, .*At most 64 MB more fit there"):
        sparse_encode(gpu.asarray(X), gpu.asarray(dictionary), alpha=0.1)
