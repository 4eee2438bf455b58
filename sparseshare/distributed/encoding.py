"""Codes, reconstructions and scores of Dask arrays, block by block; no client is needed."""

import copy
import warnings

import numpy as np
from scipy.sparse import csr_array, issparse

from sparseshare.validation import check_choice, is_dask
from sparseshare.variance import explained

from .blocks import whole_rows

_AT_ONCE = 4096  # rows whose codes are dense while they are scored


def encode_dask(X, coder, method="transform"):
    """Codes of a Dask array, block by block, where the blocks are.

    Nothing is computed before the result is, or is written: ``codes.to_zarr(path)``. Each block is coded on one thread,
    as many at a time as a worker has threads, unless the coder's `n_jobs` says how many threads a block takes.

    Parameters
    ----------
    X : dask.array.Array of shape (n_samples, n_features), or signals or images along its first axis
        Blocks dense or CSR, cut along the first axis; cut along others they are put together there.
    coder : estimator
        Fitted, or with a dictionary: anything with a `transform` that treats every row by itself.
    method : {"transform", "encode"}, default="transform"
        "encode" gives the activation maps of estimators with shared atoms.

    Returns
    -------
    dask.array.Array
        With blocks of as many rows; of csr_array where the coder has `sparse_output`.

    Raises
    ------
    TypeError
        If X is no Dask array.
    ValueError
        For signals that the coder refuses. Of what is refused when a block is computed the message names the block.

    See Also
    --------
    DaskMiniBatchDictionaryLearning : Learns the dictionary on the cluster, too.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from sparseshare.distributed import encode_dask
    >>> from sparseshare.learning import SparseCoder
    >>> X = da.from_array(np.random.default_rng(0).standard_normal((100, 6)), chunks=(30, 6))
    >>> codes = encode_dask(X, SparseCoder(dictionary=np.eye(6), alpha=0.5))
    >>> codes.shape, codes.numblocks, codes.compute().shape
    ((100, 6), (4, 1), (100, 6))
    """
    check_choice("method", method, ("transform", "encode"), of="encode_dask")
    return _by_blocks(X, coder, method, _codes_of_block)


def decode_dask(codes, coder):
    """Signals that a Dask array of codes stands for, block by block.

    Parameters
    ----------
    codes : dask.array.Array
        As `encode_dask` returns it.
    coder : estimator

    Returns
    -------
    dask.array.Array
    """
    return _by_blocks(codes, coder, "inverse_transform", _codes_of_block)


def score_dask(X, coder, n_means):
    """Share of the variance of a Dask array that the reconstruction explains, as the coder's `score` has it.

    Parameters
    ----------
    X : dask.array.Array
    coder : estimator
        Fitted, with `inverse_transform`.
    n_means : int
        Columns that have a mean each: features, or channels.

    Returns
    -------
    float
        The same for any number of workers: what blocks tell is added in their order.
    """
    X = whole_rows(_checked(X))
    n_blocks = len(X.chunks[0])
    moments = X.map_blocks(
        _moments_of_block, coder=_shared(_for_a_task(coder)), n_means=n_means, drop_axis=list(range(X.ndim)),
        new_axis=[0, 1], chunks=((1,) * n_blocks, (2 * n_means + 2,)), dtype=np.float64, meta=np.empty((0, 0)),
    ).compute()  # fmt: skip
    count, mean, variation, error = 0.0, np.zeros(n_means), 0.0, 0.0
    for row in moments:  # Chan, Golub and LeVeque 1979: no differences of large numbers
        more, own, around, missed = row[0], row[1 : n_means + 1], row[n_means + 1 : -1], row[-1]
        if more == 0:
            continue
        step = own - mean
        variation += float((around + step**2 * (count * more / (count + more))).sum())
        mean += step * (more / (count + more))
        count, error = count + more, error + missed
    return explained(error, variation)


def _checked(X):
    if not (is_dask(X) and hasattr(X, "map_blocks") and hasattr(X, "chunks")):
        raise TypeError(
            f"X must be a Dask array, got {type(X).__name__}: the coder's own transform takes everything else"
        )
    return X


def _by_blocks(X, coder, method, work):
    X = whole_rows(_checked(X))
    coder = _for_a_task(coder)
    example = _example(X, coder, method)
    axes = range(1, X.ndim)
    return X.map_blocks(
        work, coder=_shared(coder), method=method, example=example[:0], drop_axis=list(axes),
        new_axis=list(range(1, example.ndim)), chunks=(X.chunks[0], *((length,) for length in example.shape[1:])),
        dtype=example.dtype, meta=csr_array((0, 0), dtype=example.dtype) if issparse(example) else example[:0],
    )  # fmt: skip


def _for_a_task(coder):
    """A coder that takes a thread a block, if it has not been told otherwise."""
    if vars(coder).get("n_jobs", 1) is None:
        coder = copy.copy(coder)
        coder.n_jobs = 1
    return coder


def _shared(coder):
    """One task that holds the coder, for all blocks."""
    from dask import delayed

    return delayed(coder, pure=False, traverse=False)


def _example(X, coder, method):
    """What becomes of one row: its shape, type and dtype are those of the result."""
    if vars(coder).get("device", "cpu") not in ("cpu", "auto"):  # workers may have a GPU where there is none here
        coder = copy.copy(coder)
        coder.device = "cpu"
    row = np.ones((1, *X.shape[1:]), X.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(coder, method)(csr_array(row) if issparse(X._meta) and X.ndim == 2 else row)


def _codes_of_block(block, coder, method, example, block_info=None):
    if block.shape[0] == 0:
        return example
    try:
        return getattr(coder, method)(block)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{_name_of(block_info)}: {error}") from error


def _moments_of_block(block, coder, n_means, block_info=None):
    """Count, means, sums of squares around these, squared error."""
    if block.shape[0] == 0:
        return np.zeros((1, 2 * n_means + 2))
    coding = getattr(coder, "encode", coder.transform)
    error, rows = 0.0, [block[at : at + _AT_ONCE] for at in range(0, block.shape[0], _AT_ONCE)]
    try:
        for part in rows:
            found = np.asarray(coder.inverse_transform(coding(part)), np.float64)
            part = part.toarray() if issparse(part) else np.asarray(part)
            error += float(((part.reshape(found.shape) - found) ** 2).sum())
    except (ValueError, TypeError) as failure:
        raise type(failure)(f"{_name_of(block_info)}: {failure}") from failure
    dense = (block.toarray() if issparse(block) else np.asarray(block)).reshape(-1, n_means).astype(np.float64)
    mean = dense.mean(axis=0)
    return np.concatenate([[len(dense)], mean, ((dense - mean) ** 2).sum(axis=0), [error]])[None]


def _name_of(block_info):
    first, last = block_info[0]["array-location"][0]
    return f"block {block_info[0]['chunk-location'][0]} of X, rows {first} to {last - 1}"
