"""Rows of codes that arrive from a GPU in their order, to be one array there or in the host's memory."""

import numpy as np

from sparseshare.devices import array_module, csr_of, module_of, to_device


def entries_of(rows):
    """What a CSR array is made of.

    Parameters
    ----------
    rows : array of shape (n, n_columns), dense or CSR

    Returns
    -------
    lengths : int64 array of shape (n,)
    columns : int32 array
    values : array

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.coding.device_rows import entries_of
    >>> entries_of(np.array([[0.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))
    (array([1, 0, 2]), array([1, 0, 1], dtype=int32), array([2., 3., 4.]))
    """
    xp = array_module(rows)
    if hasattr(rows, "indptr"):
        return xp.diff(rows.indptr).astype(np.int64), rows.indices, rows.data
    places = xp.flatnonzero(rows)
    lengths = xp.count_nonzero(rows, axis=1).astype(np.int64)
    return lengths, (places % rows.shape[1]).astype(np.int32), rows.reshape(-1)[places]


class ArrivingRows:
    """Rows, dense or of a CSR array, put together where they are wanted.

    Parameters
    ----------
    shape : (int, int)
    dtype : dtype
    sparse : bool
    home : str
        "cpu" or "cuda:N".
    """

    def __init__(self, shape, dtype, sparse, home):
        self.shape, self.sparse, self.home, self._parts, self._row = shape, sparse, home, [], 0
        if not sparse:
            self._rows = module_of(home).empty(shape, dtype)

    def put(self, *rows):
        """Take the next rows: one dense array, or lengths, columns and values as `entries_of` gives them."""
        if self.sparse:
            self._parts.append([to_device(array, self.home) for array in rows])
            return
        self._rows[self._row : self._row + len(rows[0])] = to_device(rows[0], self.home)
        self._row += len(rows[0])

    def array(self):
        """All rows."""
        if not self.sparse:
            return self._rows
        xp = module_of(self.home)
        lengths, columns, values = (xp.concatenate(parts) for parts in zip(*self._parts, strict=True))
        starts = xp.zeros(self.shape[0] + 1, np.int64)
        xp.cumsum(lengths, out=starts[1:])
        if len(columns) < np.iinfo(np.int32).max:
            starts = starts.astype(np.int32)
        return csr_of(values, columns, starts, self.shape)
