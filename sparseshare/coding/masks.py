"""Entries of signals that are missing: what a user may pass as `mask`, and signals without them."""

import numpy as np

from sparseshare.devices import array_module, to_host


def check_mask(mask, shape, read=True):
    """A mask as "nan", None or a boolean array; one on disk is not read but by its user if `read` is false."""
    if mask is None or (isinstance(mask, str) and mask == "nan"):
        return mask
    if isinstance(mask, str):
        raise ValueError(f"mask must be 'nan' or a boolean array of X's shape, True where missing; got {mask!r}")
    missing = to_host(mask)
    if read or not (hasattr(missing, "shape") and hasattr(missing, "dtype")):
        missing = np.asarray(missing)
    if tuple(missing.shape) != shape or missing.dtype != bool:
        raise ValueError(
            f"mask must be 'nan' or a boolean array of X's shape {shape}, True where missing; got an array of shape "
            f"{missing.shape} and dtype {missing.dtype}"
        )
    return missing


def mask_of_rows(mask, rows):
    """The part of a mask that belongs to some rows."""
    return mask if mask is None or isinstance(mask, str) else mask[rows]


def hide_missing(X, mask, first=0):
    """Signals with zeros where they are missing, and where that is.

    Parameters
    ----------
    X : float array of shape (n_samples, n_features), NumPy or CuPy
    mask : bool array of X's shape or "nan"
    first : int, default=0
        Number of the first row, for error messages.

    Returns
    -------
    X, missing : arrays of X's shape, C-contiguous

    Raises
    ------
    ValueError
        For NaN or infinity where the mask says observed, and for signals without any observed entry.
    """
    xp = array_module(X)
    missing = xp.isnan(X) if isinstance(mask, str) else xp.ascontiguousarray(mask)
    bad = xp.flatnonzero((~xp.isfinite(X) & ~missing).any(axis=1))
    if len(bad):
        raise ValueError(f"X contains NaN or infinity where mask says it is observed, first in row {first + bad[0]}")
    empty = xp.flatnonzero(missing.all(axis=1))
    if len(empty):
        raise ValueError(f"every entry of row {first + empty[0]} of X is missing: nothing to code; leave such rows out")
    return xp.where(missing, X.dtype.type(0), X), missing
