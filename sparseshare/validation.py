"""Checks at the door: every message names the parameter or array, what was given and what is allowed."""

from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse

from .devices import array_module, on_gpu, to_host


def check_number(name, value, low=None, high=None, *, integer=False, allow_none=False, open_low=False, of=None):
    """Refuse anything but a finite number in an interval.

    Parameters
    ----------
    name : str
        Parameter, as the user typed it.
    value : object
        What was given. Booleans are refused; NumPy scalars are welcome.
    low, high : float or None, default=None
        Ends of the interval, both inside it unless `open_low`.
    integer : bool, default=False
    allow_none : bool, default=False
    open_low : bool, default=False
        Exclude `low` itself.
    of : str or None, default=None
        Function or estimator that the parameter belongs to.

    Returns
    -------
    int, float or None

    Raises
    ------
    ValueError
    """
    if value is None and allow_none:
        return None
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    right_kind = isinstance(value, Integral if integer else Real) and not isinstance(value, bool | np.bool_)
    inside = right_kind and np.isfinite(value) and (low is None or value > low or (value == low and not open_low))
    if inside and (high is None or value <= high):
        return int(value) if integer else float(value)
    allowed = "an integer" if integer else "a finite number"
    if low is not None:
        allowed += f" {'above' if open_low else 'of at least'} {low}"
    if high is not None:
        allowed += f"{' and' if low is not None else ' of'} at most {high}"
    raise ValueError(_refusal(name, value, allowed + (" or None" if allow_none else ""), of))


def check_choice(name, value, choices, *, of=None):
    """Refuse anything but one of the choices (strings, None or booleans); return it.

    Parameters
    ----------
    name : str
    value : object
    choices : sequence
    of : str or None, default=None
        Function or estimator that the parameter belongs to.

    Returns
    -------
    object

    Raises
    ------
    ValueError
    """
    # The type first: 1 == True, and comparing an array gives no truth value.
    if any(isinstance(value, type(choice)) and value == choice for choice in choices):
        return value
    listed = [repr(choice) for choice in choices]
    allowed = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"
    raise ValueError(_refusal(name, value, allowed, of))


def check_bool(name, value, *, of=None):
    """Refuse anything but True or False (Python's or NumPy's); return Python's.

    Parameters
    ----------
    name : str
    value : object
    of : str or None, default=None
        Function or estimator that the parameter belongs to.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise ValueError(_refusal(name, value, "True or False", of))


def check_axes(name, value, n_axes, *, of=None):
    """One positive int for each axis.

    Parameters
    ----------
    name : str
        Parameter, as the user typed it.
    value : int or sequence of ints
        One int is meant for every axis.
    n_axes : int
    of : str or None, default=None
        Function or estimator that the parameter belongs to.

    Returns
    -------
    tuple of ints

    Raises
    ------
    ValueError

    Examples
    --------
    >>> from sparseshare.validation import check_axes
    >>> check_axes("stride", 2, 3), check_axes("stride", [1, 4], 2)
    ((2, 2, 2), (1, 4))
    """
    numbers = (value,) * n_axes if np.ndim(value) == 0 else tuple(value)
    if len(numbers) != n_axes:
        allowed = "one int" if n_axes == 1 else f"one int or {n_axes} of them"
        raise ValueError(_refusal(name, value, allowed, of))
    return tuple(check_number(name, number, 1, integer=True, of=of) for number in numbers)


def check_image_shape(image_shape, forms=("(height, width)", "(height, width, n_channels)")):
    """Refuse anything but as many positive ints as one of the forms has.

    Parameters
    ----------
    image_shape : sequence of ints
        The parameter of this name.
    forms : sequence of str
        What is allowed, in words, one number a comma apart.

    Returns
    -------
    tuple of ints

    Raises
    ------
    ValueError
    """
    try:
        shape = tuple(image_shape)
    except TypeError:
        shape = ()
    if len(shape) not in {len(form.strip("(,)").split(",")) for form in forms}:
        raise ValueError(f"The 'image_shape' parameter must be {', '.join(forms)} or None, got {image_shape!r}")
    return tuple(check_number("image_shape", length, 1, integer=True) for length in shape)


def compute_dtype(*arrays):
    """Precision to compute in: float32 if every array has it, else float64.

    Parameters
    ----------
    *arrays : arrays or dtypes

    Returns
    -------
    numpy.dtype
    """
    dtypes = {np.dtype(array if isinstance(array, type | np.dtype) else array.dtype) for array in arrays}
    return np.dtype(np.float32 if dtypes == {np.dtype(np.float32)} else np.float64)


def is_dask(array):
    """Whether an array or a table is one of Dask's, without importing it."""
    return type(array).__module__.partition(".")[0] == "dask"


def refuse_dask(array, name):
    """Refuse what NumPy would silently pull into the memory of this process.

    Parameters
    ----------
    array : object
    name : str
        What the message calls it.

    Raises
    ------
    TypeError
        For the arrays and tables of Dask.
    """
    if is_dask(array):
        raise TypeError(
            f"{name} is a collection of Dask's, which would be pulled into memory as a whole: encode it with "
            "sparseshare.distributed.encode_dask(X, coder), learn from it with DaskMiniBatchDictionaryLearning or "
            "DaskConvDictionaryLearning of sparseshare.distributed, or pass its compute()"
        )


def check_kind(array, name):
    """Refuse arrays of anything but real numbers.

    Parameters
    ----------
    array : ndarray or sparse array
    name : str
        What the messages call it.

    Raises
    ------
    ValueError
    """
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}, pass its real part")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold numbers, got dtype {array.dtype}")


def check_signals(X, n_features=None, *, name="X"):
    """Accept signals as rows without copying them.

    Arrays pass as they are, read-only, non-contiguous or memory-mapped, integers, booleans and float16 too: whoever
    reads a tile of them casts that tile. CSR passes, other sparse formats become CSR. Arrays of a GPU stay there. NaN
    and infinity are looked for tile by tile, not here.

    Parameters
    ----------
    X : array-like, DataFrame or sparse array of shape (n_samples, n_features)
    n_features : int or None, default=None
        Number of columns asked for.
    name : str, default="X"
        What the messages call it.

    Returns
    -------
    X : ndarray, csr_array or csr_matrix, or CuPy's
    dtype : numpy.dtype
        float32 or float64, what to compute in.

    Raises
    ------
    ValueError
    TypeError
        If an object array holds what no number can be made of.
    """
    X = X if issparse(X) or on_gpu(X) else _as_array(X, name)
    _check_shape(X, name)
    if on_gpu(X):
        check_kind(X, name)
    if n_features is not None and X.shape[1] != n_features:
        raise ValueError(
            f"Dictionary and {name} have different numbers of features: "
            f"the dictionary has {n_features}, {name}.shape is {X.shape}"
        )
    if issparse(X) or hasattr(X, "tocsr"):
        check_kind(X, name)
        X = X.tocsr()
    return X, compute_dtype(X)


def check_stack(X, n_axes=2, *, name="X", one="image"):
    """Accept images, signals or volumes as one array or as a list in which sizes may differ; nothing is copied.

    Parameters
    ----------
    X : array, list of arrays, object array of arrays, or table of at least 2 axes
    n_axes : int, default=2
        What holds arrays of at least as many axes is a list of images.
    name, one : str, default="X" and "image"
        What the messages call all of them and one of them.

    Returns
    -------
    list of ndarrays, or ndarray of at least 2 axes
        Of 2 axes: as `check_signals` returns it.

    Raises
    ------
    ValueError, TypeError
        For sparse and masked arrays, what holds no numbers, and what is empty.
    """
    if issparse(X) or (on_gpu(X) and hasattr(X, "tocsr")):
        raise TypeError(f"Sparse data was passed for {name}, but {one}s must be dense: use its toarray()")
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1 and len(X) and np.ndim(X[0]) >= n_axes:
        X = list(X)
    if isinstance(X, list | tuple) and any(getattr(image, "ndim", 0) >= n_axes for image in X):
        for number, image in enumerate(X):
            if getattr(image, "ndim", 0) < n_axes:
                raise ValueError(
                    f"{name} mixes dimensions: {one} {number} has the shape {np.shape(image)}, each must be an array "
                    f"with at least {n_axes} axes"
                )
        return [_check_image(image, f"{one} {number} of {name}") for number, image in enumerate(X)]
    try:
        array = X if hasattr(X, "ndim") else np.asarray(X)
    except ValueError:  # lists of different lengths: said below
        array = X
    if getattr(array, "ndim", 0) <= 2:
        return check_signals(array, name=name)[0]
    return _check_image(array, name)


def check_each_finite(images, first=0, *, one="image", hint=""):
    """Refuse NaN and infinity, and say in which of several images they are.

    Parameters
    ----------
    images : float array of shape (n, ...)
    first : int, default=0
        Number of the first.
    one : str, default="image"
        What the message calls one of them.
    hint : str, default=""
        How the message ends.

    Raises
    ------
    ValueError
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite only if all its terms are, and costs half as much as looking at each.
        if np.isfinite(float(images.sum(dtype=np.float64))):
            return
    for number, image in enumerate(to_host(images)):
        if not np.isfinite(image).all():
            entry = "pixel" if one == "image" else "sample"
            raise ValueError(
                f"{one} {first + number} contains NaN or infinity: every {entry} must be a finite number{hint}"
            )


def check_input_features(estimator, names):
    """Refuse other names of input features than those that `fit` saw, in scikit-learn's words.

    Parameters
    ----------
    estimator : estimator
        With `n_features_in_`, and `feature_names_in_`, if it was fitted to rows (with named columns).
    names : array-like of str or None
        None passes.

    Raises
    ------
    ValueError
    """
    if names is None:
        return
    known, n_features = (getattr(estimator, name, None) for name in ("feature_names_in_", "n_features_in_"))
    if known is not None and not np.array_equal(known, names):
        raise ValueError("input_features is not equal to feature_names_in_")
    if n_features is not None and len(names) != n_features:
        raise ValueError(
            f"input_features should have length equal to number of features ({n_features}), got {len(names)}"
        )


def is_flat(X):
    """Whether images or signals are rows of a table."""
    if hasattr(X, "ndim"):
        return X.ndim == 2
    if isinstance(X, list | tuple) and any(getattr(image, "ndim", 0) > 1 for image in X):
        return False  # images, which may live on a GPU
    try:
        return np.asarray(X).ndim == 2
    except ValueError:  # a list of images of different sizes
        return False


def check_resident(X, name="X"):
    """Dense numbers of a GPU: in the precision of the computation, in C order, finite.

    Parameters
    ----------
    X : CuPy array
    name : str, default="X"
        What the messages call it.

    Returns
    -------
    CuPy array
        X itself if nothing had to be changed.

    Raises
    ------
    TypeError
        For sparse arrays.
    ValueError
        For NaN, infinity and complex numbers.
    """
    if hasattr(X, "tocsr"):
        raise TypeError(f"Sparse data was passed for {name}, but dense data is required: use its toarray()")
    check_kind(X, name)
    X = array_module(X).ascontiguousarray(X, compute_dtype(X))
    if not bool(array_module(X).isfinite(X).all()):
        raise ValueError(f"Input {name} contains NaN or infinity: every entry must be a finite number")
    return X


def check_dictionary(dictionary, dtype=None, *, name="dictionary"):
    """Accept atoms as rows: dense, C-contiguous and finite, at least one. Atoms of zeros are allowed.

    Parameters
    ----------
    dictionary : array-like, DataFrame or sparse array of shape (n_components, n_features)
    dtype : dtype or None, default=None
        float32 or float64; None decides by the dictionary.
    name : str, default="dictionary"
        What the messages call it.

    Returns
    -------
    ndarray of shape (n_components, n_features)
        The given array itself if nothing had to be changed: do not write into it.

    Raises
    ------
    ValueError
    TypeError
        If an object array holds what no number can be made of.
    """
    array = _as_array(dictionary.toarray() if issparse(dictionary) else dictionary, name)
    if array.ndim == 2 and len(array) == 0:
        raise ValueError(f"{name} has no atoms: its shape is {array.shape}, n_components must be at least 1")
    _check_shape(array, name)
    with np.errstate(over="ignore"):  # what float32 cannot hold is reported below
        cast = np.ascontiguousarray(array, dtype=compute_dtype(array) if dtype is None else dtype)
    if not np.isfinite(cast).all():
        cause = f", or values too large for {cast.dtype}" if np.isfinite(array).all() else ""
        raise ValueError(f"{name} contains NaN or infinity{cause}; every entry must be a finite number")
    return cast


def _refusal(name, value, allowed, of):
    owner = f" of {of}" if of else ""
    given = repr(value)
    if len(given) > 60:
        given = f"{given[:57]}..."
    return f"The {name!r} parameter{owner} must be {allowed}, got {given}"


def _as_array(X, name):
    """Numeric ndarray; a view wherever NumPy can make one."""
    refuse_dask(X, name)
    if isinstance(X, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, whose mask would be lost: pass its data and its mask apart")
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"{name} must be a 2-D array of numbers: {error}") from error
    if array.dtype == object:
        try:
            # Nullable columns of a DataFrame hold pd.NA, which no float can be made of.
            array = X.to_numpy(np.float64, na_value=np.nan) if hasattr(X, "iloc") else array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name} must hold numbers: {error}") from error
    check_kind(array, name)
    return array


def _check_image(array, name):
    refuse_dask(array, name)
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, whose mask would be lost: fill in what is missing")
    array = array if on_gpu(array) else np.asarray(array)
    check_kind(array, name)
    return array


def _check_shape(array, name):
    """Two dimensions, neither of them empty. scikit-learn's words, which its estimator checks look for."""
    if array.ndim < 2:
        given = "1D array" if array.ndim == 1 else "scalar array"
        raise ValueError(
            f"Expected 2D array, got {given} instead: {name} must have the shape (n_samples, n_features). Reshape your "
            "data: array.reshape(1, -1) makes one row of it, array.reshape(-1, 1) one column"
        )
    if array.ndim > 2:
        raise ValueError(
            f"Found array with dim {array.ndim}: {name} must be 2-D, a row a signal; got shape {array.shape}"
        )
    for axis, what in enumerate(("sample", "feature")):
        if array.shape[axis] == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={array.shape}) while a minimum of 1 is required by {name}."
            )
