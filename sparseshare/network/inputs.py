"""Samples as users give them: rows, images with or without channels, sequences; and the shape a network takes."""

from math import prod

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from sparseshare.devices import array_module, on_gpu
from sparseshare.sources import Stack, stack_of
from sparseshare.validation import check_each_finite, check_image_shape, check_kind, compute_dtype

from .convolutional import Conv, MaxPool
from .layers import Dense, Flatten

_READ_BYTES = 1 << 24  # of samples on disk that are looked at at once
_LARGE, _SMALL = 12, 6  # pixels: two convolutions and poolings, or one


def check_samples(estimator, X, reset, finite=True):
    """Accept samples without copying them more than NumPy must.

    Parameters
    ----------
    estimator : estimator
        With `image_shape` and `layers`; after `fit` with `input_shape_`.
    X : array-like
    reset : bool
        Whether this is a `fit`, which takes note of the features.
    finite : bool, default=True
        Look for NaN and infinity in samples on disk, too; else who reads them does, as `pieces_of` has it.

    Returns
    -------
    X : array of shape (n_samples, ...)
        As it was given, where it was given, a `Stack` if it is on disk; `Batches` casts what it reads of it.
    shape : tuple of int
        Of one sample as the network takes it.

    Raises
    ------
    ValueError
        For shapes that do not go with `image_shape` or with what was fitted.
    """
    asked = estimator.image_shape
    if asked is not None:
        asked = check_image_shape(asked)
        asked = asked if len(asked) == 3 else (*asked, 1)
    X = stack_of(X)
    if not hasattr(X, "ndim"):
        X = np.asarray(X)
    flat, as_it_is = X.ndim <= 2, on_gpu(X) or isinstance(X, Stack)
    fitted = None if reset else estimator.input_shape_
    if flat and (reset or hasattr(estimator, "n_features_in_")):
        if as_it_is:
            check_there(X, finite)
            validate_data(estimator, X, reset=reset, skip_check_array=True)
        else:
            X = validate_data(estimator, X, reset=reset, dtype="numeric")
    else:
        if as_it_is:
            check_there(X, finite)
        else:
            X = check_array(X, dtype="numeric", allow_nd=True, estimator=estimator, input_name="X")
        if reset:  # what a former fit on flat rows has left behind
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(estimator, name):
                    delattr(estimator, name)
    check_kind(X, "X")
    if X.ndim > 4:
        raise ValueError(
            f"Found array with dim {X.ndim}: X must be rows, images (n, height, width[, channels]) or sequences "
            f"(n, time, features); its shape is {X.shape}"
        )
    if fitted is not None:
        _check_fitted(X, fitted)
        return X, fitted
    if X.ndim == 2 and asked is not None and prod(asked) != X.shape[1]:
        raise ValueError(
            f"X has {X.shape[1]} columns, images of image_shape={estimator.image_shape} have {prod(asked)} pixels and "
            "channels"
        )
    if X.ndim > 2 and asked is not None and _with_channels(X.shape[1:]) != asked:
        raise ValueError(f"X has samples of shape {X.shape[1:]}, image_shape asks for {estimator.image_shape}")
    if asked is not None:
        return X, asked
    if X.ndim == 3 and _takes_images(estimator.layers):
        return X, _with_channels(X.shape[1:])
    return X, X.shape[1:]


def check_there(X, finite=True, one="sample"):
    """What `check_array` asks for, of samples on a GPU or, if `finite` all of them read once, on disk.

    Parameters
    ----------
    X : array or Stack of shape (n_samples, ...)
    finite : bool, default=True
    one : str, default="sample"
        What the message calls one of those on disk that is not finite.

    Raises
    ------
    TypeError
        For sparse arrays.
    ValueError
        For what is empty, holds no real numbers, NaN or infinity.
    """
    if hasattr(X, "tocsr"):
        raise TypeError("Sparse data was passed for X, but dense data is required. Use X.toarray()")
    if X.ndim < 2:
        raise ValueError(f"Expected 2D array, got {X.ndim}D array instead: X has the shape {X.shape}")
    if 0 in X.shape:
        raise ValueError(
            f"Found array with 0 sample(s) or feature(s) (shape={X.shape}) while a minimum of 1 is required"
        )
    check_kind(X, "X")
    if X.dtype.kind != "f" or (isinstance(X, Stack) and not finite):
        return
    if isinstance(X, Stack):
        n_samples = max(1, _READ_BYTES * len(X) // X.nbytes)
        for first in range(0, len(X), n_samples):
            check_each_finite(X[first : first + n_samples], first, one=one)
    elif not bool(array_module(X).isfinite(X).all()):
        raise ValueError("Input X contains NaN or infinity")


def network_dtype(X):
    """float32 for float32 samples, else float64."""
    return compute_dtype(X)


def default_layers(shape):
    """Hidden layers for samples of a shape, where the user names none.

    Parameters
    ----------
    shape : tuple of int

    Returns
    -------
    list of Layer
    """
    if len(shape) < 3 or min(shape[:2]) < _SMALL:
        return [Flatten(), Dense(128)] if len(shape) > 1 else [Dense(128)]
    if min(shape[:2]) < _LARGE:
        return [Conv(32, 3, padding="same"), MaxPool(2), Conv(64, 3, padding="same"), Flatten(), Dense(128)]
    return [Conv(32, 3), MaxPool(2), Conv(64, 3), MaxPool(2), Flatten(), Dense(128)]


def _takes_images(layers):
    """Whether 3-D samples are images without a channel axis: the first layer that moves over positions has two axes."""
    if layers is None:
        return True
    for layer in layers:
        if hasattr(layer, "layers"):
            return _takes_images(layer.layers)
        window = getattr(layer, "kernel", getattr(layer, "size", None))
        if window is not None:
            return np.ndim(window) == 0 or len(window) == 2
        if not isinstance(layer, Flatten):
            return False
    return False


def _with_channels(shape):
    return tuple(shape) if len(shape) == 3 else (*shape, 1)


def _check_fitted(X, fitted):
    given = X.shape[1:]
    if given == fitted or (*given, 1) == fitted or given == (prod(fitted),):
        return
    shown = fitted[:-1] if len(fitted) == 3 and fitted[-1] == 1 else fitted
    raise ValueError(f"X has samples of shape {given}, the network was fitted to {shown}")
