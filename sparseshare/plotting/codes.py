"""What displays read out of codes and estimators."""

from copy import copy

import numpy as np
from scipy.sparse import csr_array, issparse

from sparseshare.devices import moved
from sparseshare.validation import check_dictionary


def on_host(thing):
    """What is drawn, with all its arrays in the host's memory.

    Parameters
    ----------
    thing : array, list of arrays, estimator, pipeline, fitted search, or anything else

    Returns
    -------
    object
        `thing` itself if nothing of it lives on a GPU, else a copy, as always of pipelines and searches.
    """
    for name in ("steps", "best_estimator_"):  # of scikit-learn, whose objects are not looked into
        inside = getattr(thing, name, None)
        if inside is None:
            continue
        thing = copy(thing)
        setattr(thing, name, [(key, on_host(step)) for key, step in inside] if name == "steps" else on_host(inside))
    return moved(thing, "cpu")


def check_codes(codes, n_atoms=None, *, name="codes"):
    """Codes as rows (csr_array) or activation maps (ndarray), an atom a column or a map.

    Parameters
    ----------
    codes : array-like or sparse array of shape (n_signals, n_atoms), or array (n, n_atoms, height, width)
        Of `n_atoms` columns or maps, or twice as many: positive parts, then negative parts. One set of maps may come as
        (n_atoms, height, width).
    n_atoms : int or None, default=None
        None takes the number that the codes have.
    name : str, default="codes"

    Returns
    -------
    csr_array of shape (n_signals, n_atoms) or ndarray of shape (n, n_atoms, height, width)

    Raises
    ------
    ValueError
        If the shape is another, or an entry is not finite.
    """
    codes = on_host(codes)
    if not issparse(codes):
        codes = np.asarray(codes)
        codes = codes[None] if codes.ndim == 3 else codes
        if codes.ndim not in (2, 4) or codes.size == 0:
            raise ValueError(
                f"{name} must have the shape (n_signals, n_atoms), or for maps (n, n_atoms, height, width), got "
                f"{codes.shape}"
            )
    if codes.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got dtype {codes.dtype}")
    entries = codes.tocsr().data if issparse(codes) else codes
    if not np.isfinite(entries).all():
        raise ValueError(f"{name} contain NaN or infinity; every entry must be a finite number")
    width = codes.shape[1]
    if n_atoms is not None and width not in (n_atoms, 2 * n_atoms):
        raise ValueError(f"{name} are of {width} atoms (their shape is {codes.shape}), but there are {n_atoms}")
    if codes.ndim == 2:
        codes = csr_array(codes)
        codes.eliminate_zeros()
    if n_atoms in (None, width):
        return codes
    both = codes[:, :n_atoms] - codes[:, n_atoms:]
    return both if codes.ndim == 4 else csr_array(both)


def use_of(codes):
    """Share of signals, or of places of the maps, where the code of an atom is not zero.

    Parameters
    ----------
    codes : csr_array or ndarray
        As `check_codes` returns them.

    Returns
    -------
    ndarray of shape (n_atoms,)

    Examples
    --------
    >>> from sparseshare.plotting.codes import check_codes, use_of
    >>> use_of(check_codes([[1.0, 0.0], [2.0, 0.0], [3.0, -1.0], [0.0, 0.0]])).tolist()
    [0.75, 0.25]
    """
    if codes.ndim == 4:
        return np.mean(codes != 0, axis=(0, 2, 3))
    return np.bincount(codes.indices, minlength=codes.shape[1]) / codes.shape[0]


def codes_of(estimator, X):
    """Codes that an estimator gives: maps of `encode` where there is one, else rows of `transform`.

    Parameters
    ----------
    estimator : transformer
    X : array-like

    Returns
    -------
    array or sparse array
        Maps of images of different sizes as rows, one a place. Of atoms shared over positions, maps as `as_pictures`
        makes them; of signals of different sizes all places in one line.
    """
    last = last_step(estimator)
    if hasattr(last, "encode"):
        X = reaching(estimator, X)
        if n_axes_of(estimator) is not None:
            maps, n_axes = dense_coder(last).encode(X), last.n_axes_
            if not isinstance(maps, list):
                return as_pictures(maps, n_axes)
            pictures = [as_pictures(own[None], n_axes) for own in maps]
            return np.concatenate([own.reshape(1, own.shape[1], 1, -1) for own in pictures], axis=3)
        codes = last.encode(X)
        if isinstance(codes, list):
            codes = np.concatenate([maps.reshape(len(maps), -1).T for maps in codes])
        return codes
    codes = estimator.transform(X)
    return codes.to_numpy() if hasattr(codes, "to_numpy") else codes  # data frames, from set_output


def n_axes_of(estimator):
    """Spatial axes of atoms that are shared over positions; None if an estimator's atoms are not.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    int or None
    """
    return getattr(last_step(estimator), "n_axes_", None)


def reaching(estimator, X):
    """What signals are when they reach the last step of a pipeline."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    return estimator[:-1].transform(X) if len(getattr(estimator, "steps", [])) > 1 else X


def dense_coder(estimator):
    """The last step of a pipeline, or of what a search found best, told to give dense maps."""
    return copy(last_step(estimator)).set_params(sparse_output=False)


def as_pictures(maps, n_axes):
    """Maps of atoms that are shared over positions as maps of images.

    Parameters
    ----------
    maps : ndarray of shape (n, n_atoms, *positions[, n_channels])
    n_axes : int
        Axes of positions.

    Returns
    -------
    ndarray of shape (n, n_atoms, height, width)
        Height is 1 for 1-D signals. Where each channel has codes of its own, the one of largest magnitude.

    Raises
    ------
    ValueError
        For volumes.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.plotting.codes import as_pictures
    >>> as_pictures(np.array([[[[0.0, -2.0], [1.0, 0.5], [0.0, 0.0]]]]), 1).tolist()
    [[[[-2.0, 1.0, 0.0]]]]
    """
    if n_axes == 3:
        raise ValueError("maps of volumes cannot be drawn: pass a slice of them, maps[:, :, depth], to from_codes")
    if maps.ndim > 2 + n_axes:
        largest = np.abs(maps).argmax(axis=-1)[..., None]
        maps = np.take_along_axis(maps, largest, axis=-1)[..., 0]
    return maps if n_axes == 2 else maps[:, :, None]


def atoms_of(estimator):
    """Atoms of an estimator, of the last step of a pipeline, or of what a search found best.

    Parameters
    ----------
    estimator : estimator
        With `components_` or `atoms_`, or an unfitted coder with a `dictionary`.

    Returns
    -------
    ndarray of shape (n_atoms, n_features) or (n_atoms, height, width[, channels])

    Raises
    ------
    ValueError
        If there are no atoms.
    """
    last = last_step(estimator)
    for name in ("components_", "atoms_", "dictionary"):
        atoms = getattr(last, name, None)
        if atoms is not None:
            return check_dictionary(atoms) if np.ndim(atoms) == 2 else np.asarray(atoms)
    raise ValueError(f"{type(last).__name__} has neither components_ nor atoms_: fit it, or pass the atoms themselves")


def patch_shape_of(estimator, n_features):
    """Shape of the patches that an estimator, or a step of a pipeline, cuts; None if it cuts none that fit.

    Parameters
    ----------
    estimator : estimator
    n_features : int
        Entries of an atom.

    Returns
    -------
    tuple of ints or None
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    for step in [step for _, step in getattr(estimator, "steps", [])] or [estimator]:
        shape = getattr(step, "patch_shape", getattr(step, "patch_size", None))
        if shape is not None:
            shape = (shape, shape) if np.ndim(shape) == 0 else tuple(shape)
            n_channels, left = divmod(n_features, int(np.prod(shape)))
            if left == 0 and n_channels:
                return shape if n_channels == 1 else (*shape, n_channels)
    return None


def last_step(estimator):
    """The last step of a pipeline, or of what a search found best; any other estimator as it is."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    return estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
