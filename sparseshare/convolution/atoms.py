"""Atoms as users give them: checked, told which of their axes are spatial, and brought into this room's form."""

import numpy as np

from sparseshare.devices import array_module, on_gpu
from sparseshare.validation import check_choice, check_image_shape, check_kind

FORMS = {
    1: ("(time,)", "(time, n_channels)"),
    2: ("(height, width)", "(height, width, n_channels)"),
    3: ("(depth, height, width)", "(depth, height, width, n_channels)"),
}


def check_atoms(atoms, *, name="atoms"):
    """Accept atoms: dense, finite real numbers, at least one of them. Atoms of zeros are allowed.

    Parameters
    ----------
    atoms : array-like of shape (n_components, *support[, n_channels])
    name : str, default="atoms"

    Returns
    -------
    ndarray or cupy.ndarray
        The given array itself if it was one.

    Raises
    ------
    ValueError
    """
    try:
        atoms = atoms if on_gpu(atoms) else np.asarray(atoms)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error
    check_kind(atoms, name)
    if atoms.ndim > 1 and len(atoms) == 0:
        raise ValueError(f"{name} has no atoms: its shape is {atoms.shape}, n_components must be at least 1")
    if not 2 <= atoms.ndim <= 5 or atoms.size == 0:
        raise ValueError(
            f"{name} must have the shape (n_components, *atom_shape[, n_channels]) with 1 to 3 axes of atom_shape and "
            f"no empty axis, got {atoms.shape}"
        )
    if not array_module(atoms).isfinite(atoms).all():
        raise ValueError(f"{name} contains NaN or infinity; every entry must be a finite number")
    return atoms


def spatial_axes(atoms_shape, X, channels="auto", *, image_shape=None):
    """How many axes of atoms are spatial, and how many channels they have: by the shape of the signals, or as told.

    The same arrays can mean different things: (n_components, 64, 12) are atoms of 64 samples in 12 channels, or images
    of 64 x 12 pixels. Atoms have channels, says "auto", if signals have no axis more than they have and the last axes
    are equally long.

    Parameters
    ----------
    atoms_shape : tuple of ints
        (n_components, *support[, n_channels]).
    X : signals as in `signals.check_conv_signals`
    channels : bool or "auto", default="auto"
        Whether the last axis of the atoms holds channels.
    image_shape : tuple of ints or None, default=None
        Of signals given as flat rows.

    Returns
    -------
    n_axes : int
    n_channels : int or None

    Raises
    ------
    ValueError
        If as many spatial axes would not be 1 to 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution.atoms import spatial_axes
    >>> spatial_axes((10, 8, 8, 3), np.zeros((5, 60, 60, 3)))  # one code for three channels
    (2, 3)
    >>> spatial_axes((10, 8, 8), np.zeros((5, 60, 60, 3)))  # a code for each channel
    (2, None)
    >>> spatial_axes((10, 64, 12), np.zeros((5, 1000, 12)))
    (1, 12)
    >>> spatial_axes((10, 64, 12), np.zeros((5, 1000, 12)), channels=False)
    (2, None)
    """
    check_choice("channels", channels, (True, False, "auto"))
    if image_shape is not None:
        image_shape = check_image_shape(image_shape, [form for forms in FORMS.values() for form in forms])
    if channels == "auto":
        channels = _have_channels(atoms_shape, X, image_shape)
    n_axes = len(atoms_shape) - 1 - bool(channels)
    if not 1 <= n_axes <= 3:
        raise ValueError(
            f"atoms of shape {tuple(atoms_shape)} {'with' if channels else 'without'} channels (channels={channels}) "
            f"have {n_axes} spatial axes: there must be 1 to 3"
        )
    return n_axes, atoms_shape[-1] if channels else None


def atoms_inside(atoms, n_channels, dtype):
    """Atoms in this room's form.

    Parameters
    ----------
    atoms : ndarray of shape (n_components, *support[, n_channels])
    n_channels : int or None
        None: they have no axis of channels.
    dtype : dtype

    Returns
    -------
    array of shape (n_components, n_channels or 1, *support)
        A copy, C-contiguous, on the same device.

    Raises
    ------
    ValueError
        For values that the dtype does not hold.
    """
    xp = array_module(atoms)
    atoms = atoms[:, None] if n_channels is None else xp.moveaxis(atoms, -1, 1)
    with np.errstate(over="ignore"):  # what float32 cannot hold is reported below
        cast = xp.array(atoms, dtype=dtype, order="C")
    if not xp.isfinite(cast).all():
        raise ValueError(f"atoms hold values too large for {np.dtype(dtype)}, the dtype of the signals")
    return cast


def _have_channels(atoms_shape, X, image_shape):
    """What "auto" decides."""
    n_inside = len(atoms_shape) - 1
    if n_inside in (1, 4):
        return n_inside == 4
    shape = _shape_of_one(X) if image_shape is None else tuple(image_shape)
    if len(shape) == 1 and image_shape is None:  # flat rows: squares, of several channels if the atoms have three axes
        return n_inside == 3
    return len(shape) == n_inside and shape[-1] == atoms_shape[-1]


def _shape_of_one(X):
    """Shape of a signal, in what has not been checked."""
    if hasattr(X, "shape") and len(X.shape) > 1:
        return tuple(X.shape[1:])
    try:
        return np.shape(X[0])
    except (TypeError, ValueError, IndexError, KeyError):  # refused later, by name
        return ()
