"""What tells a fit, or rows, from others: parameters in words, and digests of data."""

import hashlib
import inspect
from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse

from .devices import array_module, on_gpu, to_host

SAMPLED = 64  # rows of data that a fingerprint looks at
# Parameters that change nothing of what is learned, or only where and how fast.
_FREE = (
    "checkpoint", "callback", "verbose", "n_jobs", "device", "sparse_output", "split_sign", "transform_algorithm",
    "transform_alpha", "transform_max_error",
)  # fmt: skip


def fingerprint(estimator, **data):
    """What tells a fit from others, in words: its parameters, shape, dtype and some rows of its data.

    Parameters
    ----------
    estimator : object
        With `get_params`.
    **data : arrays, lists of arrays, strings or None
        By what they are called.

    Returns
    -------
    dict of str
        Parameters that change nothing of what is learned are left out, and so is where a `RandomState` stands.
    """
    parameters = estimator.get_params(deep=False)
    described = {"estimator": type(estimator).__name__}
    described.update({name: in_words(value) for name, value in parameters.items() if name not in _FREE})
    described.update({name: _data_in_words(value) for name, value in data.items()})
    return described


def in_words(value):
    """A parameter or an array, all of it; equal ones read equal, in every process."""
    if isinstance(value, bool | np.bool_ | str) or value is None:
        return repr(value)
    if isinstance(value, Integral):
        return repr(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        value = to_host(value)
        whole = value if issparse(value) else np.ascontiguousarray(value)
        return f"{value.dtype} of shape {tuple(value.shape)} with digest {_digest([whole])}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_words, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{in_words(key)}: {in_words(entry)}' for key, entry in value.items())}}}"
    if hasattr(value, "get_params"):
        inner = value.get_params(deep=False).items()
        return f"{type(value).__name__}({', '.join(f'{name}={in_words(entry)}' for name, entry in inner)})"
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    return type(value).__name__


def _data_in_words(X):
    if X is None or isinstance(X, str):
        return repr(X)
    if isinstance(X, list | tuple):
        shapes = _digest([repr([(str(one.dtype), tuple(one.shape)) for one in X]).encode()])
        rows = [row for number in sampled(len(X)) for row in _some_rows(X[number])]
        return f"{len(X)} arrays of shapes with digest {shapes}, entries with digest {_digest(rows)}"
    return f"{X.dtype} of shape {tuple(X.shape)}, rows with digest {_digest(_some_rows(X))}"


def sampled(n, most=SAMPLED):
    """Numbers of the rows of a data set of `n` that a fingerprint looks at: a list of int, `most` of them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int)).tolist() if n else []


def _some_rows(X):
    """Rows from all over an array, the first and the last among them; none of what cannot be indexed."""
    if not hasattr(X, "__getitem__"):
        return []
    rows = sampled(X.shape[0])
    if on_gpu(X):
        return [to_host(X[array_module(X).asarray(rows)])]
    return [X[row : row + 1] for row in rows]


def _digest(parts):
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if issparse(part):
            for array in (part.indptr, part.indices, part.data):
                digest.update(np.ascontiguousarray(array).tobytes())
        else:
            digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
