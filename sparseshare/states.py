"""Nested states as JSON with their arrays beside it: no pickle, so reading one runs no code."""

import numpy as np
from scipy.sparse import csr_array, issparse

from .devices import to_host


def written(value, arrays):
    """What JSON can hold of a state, its arrays laid aside.

    Parameters
    ----------
    value : object
        Of NumPy and CuPy arrays, CSR arrays, numbers, strings, bytes, None, and lists, tuples and dicts of these.
    arrays : dict
        Arrays are put here, under names that `restored` finds them by.

    Raises
    ------
    TypeError
        For anything else.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        return {"scalar": value.item(), "dtype": value.dtype.str}
    if isinstance(value, int | float):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [written(entry, arrays) for entry in value]
    if isinstance(value, tuple):
        return {"tuple": [written(entry, arrays) for entry in value]}
    if isinstance(value, dict):
        return {"dict": [[written(key, arrays), written(entry, arrays)] for key, entry in value.items()]}
    value = to_host(value)
    if issparse(value):
        value = csr_array(value)
        return {
            "csr": [written(part, arrays) for part in (value.data, value.indices, value.indptr)],
            "shape": value.shape,
        }
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        key = f"array{len(arrays)}"
        arrays[key] = value
        return {"array": key}
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def restored(value, arrays):
    """The state that `written` has made `value` and `arrays` of."""
    if isinstance(value, list):
        return [restored(entry, arrays) for entry in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "csr" in value:
        return csr_array(tuple(restored(part, arrays) for part in value["csr"]), shape=tuple(value["shape"]))
    if "scalar" in value:
        return np.dtype(value["dtype"]).type(value["scalar"])
    if "bytes" in value:
        return bytes.fromhex(value["bytes"])
    if "tuple" in value:
        return tuple(restored(entry, arrays) for entry in value["tuple"])
    return {restored(key, arrays): restored(entry, arrays) for key, entry in value["dict"]}
