"""Signals as users give them: stacks, lists of different sizes, flat rows; checked once, read one by one."""

from math import isqrt, prod

import numpy as np

from sparseshare.devices import array_module, device_of, on_gpu, resolve_device, to_device
from sparseshare.sources import Stack, stack_of
from sparseshare.validation import check_each_finite, check_image_shape, check_kind, check_stack, compute_dtype

from .atoms import FORMS, atoms_inside, check_atoms, spatial_axes


class ConvSignals:
    """Signals with as many channels each, in this room's form.

    Item i is the signal number i, an array of shape (n_codes, n_channels_of_atoms, *signal_shape), C-contiguous, of
    `dtype` and on `device`: (1, n_channels, ...) where one code makes all channels, (n_channels, 1, ...) where each has
    its own. Missing samples are 0.

    Attributes
    ----------
    n_signals : int
    n_axes : int
        Spatial axes.
    n_channels : int or None
        None: the signals have no channel axis.
    separate : bool
        Every channel has codes of its own.
    flat : bool
        Whether the signals came as rows that stand for something else than 1-D signals.
    same_shape : tuple of ints or None
        Spatial shape, if all signals share it.
    masks : sequence of arrays or None
        1 where a sample of item i is observed, 0 where it is missing.
    dtype : numpy.dtype
        float32 or float64, what to compute in.
    device : str
        Where to compute: items, one at a time, are moved there.
    home : str
        Where the signals live, and what is made of them goes.
    """

    def __init__(self, arrays, n_axes, n_channels, *, separate=False, missing=None, flat=False, device=None):
        self.arrays, self.n_axes, self.n_channels = arrays, n_axes, n_channels
        self.home = device_of(arrays if hasattr(arrays, "ndim") else arrays[0])
        self.device = self.home if device is None else device
        self.separate, self.missing, self.flat = separate and n_channels is not None, missing, flat
        self.n_signals = len(arrays)
        stacked = hasattr(arrays, "ndim")
        self.dtype = compute_dtype(arrays) if stacked else compute_dtype(*arrays)
        shapes = {arrays.shape[1:]} if stacked else {array.shape for array in arrays}
        self.same_shape = tuple(shapes.pop())[:n_axes] if len(shapes) == 1 else None

    def __len__(self):
        return self.n_signals

    def __getitem__(self, number):
        return to_device(self._inside(number, self.arrays[number]), self.device)

    def _inside(self, number, array):
        """Signal `number`, of which `array` is what the user has, where it lives."""
        xp = array_module(array)
        signal = xp.array(self._channels_first(array), self.dtype, order="C")
        missing = self._missing(number, array)
        if missing is not None:
            signal[xp.broadcast_to(missing, signal.shape)] = 0
        return signal

    def shape(self, number):
        """Spatial shape of a signal."""
        return self.same_shape or self.arrays[number].shape[: self.n_axes]

    @property
    def masks(self):
        """What of each signal is observed, as a sequence of factors; None if all is."""
        return None if self.missing is None else _Observed(self)

    def as_given(self, signal):
        """A signal in this room's form as the user's: channels last, or none.

        Parameters
        ----------
        signal : ndarray of shape (n_codes, n_channels_of_atoms, *signal_shape)

        Returns
        -------
        ndarray of shape (*signal_shape[, n_channels])
        """
        return as_given(signal, self.n_channels)

    def check_finite(self):
        """Refuse NaN and infinity outside the mask, and signals without any observed sample."""
        for number, array in enumerate(self.arrays):
            if np.dtype(array.dtype).kind == "f":
                signal = self._inside(number, array)
                hint = "; where samples are missing, encode with mask='nan'" if self.missing is None else ""
                check_each_finite(signal[None], number, one="signal", hint=hint)
            missing = self._missing(number, array)
            if missing is not None and missing.all():
                raise ValueError(f"every sample of signal {number} is missing: nothing to code; leave such signals out")

    def _missing(self, number, array):
        """Where samples are missing, in a shape that broadcasts to that of the signal; None if none are."""
        if self.missing is None:
            return None
        xp = array_module(array)
        missing = xp.isnan(array) if isinstance(self.missing, str) else xp.asarray(self.missing[number])
        if missing.ndim > self.n_axes:
            return self._channels_first(missing)
        return missing[None, None]

    def _channels_first(self, array):
        if self.n_channels is None:
            return array[None, None]
        channels = array_module(array).moveaxis(array, -1, 0)
        return channels[:, None] if self.separate else channels[None]


class _Observed:
    """Factors of the samples of each signal: 1 where it is observed, 0 where it is missing."""

    def __init__(self, signals):
        self._signals = signals

    def __len__(self):
        return len(self._signals)

    def __getitem__(self, number):
        signals = self._signals
        missing = signals._missing(number, signals.arrays[number])
        shape = (1, 1) if signals.n_channels is None else (signals.n_channels, 1)
        shape = shape if signals.separate else shape[::-1]
        xp = array_module(missing)
        observed = xp.where(xp.broadcast_to(missing, (*shape, *signals.shape(number))), 0, 1).astype(signals.dtype)
        return to_device(observed, signals.device)


def device_for(device, X, *arrays):
    """Where to compute for signals, of which there may be a list, and for other arrays: see `resolve_device`."""
    each = X if isinstance(X, list | tuple) else [X]
    return resolve_device(device, *each, *arrays)


def check_conv_signals(
    X, n_axes, n_channels=None, *, image_shape=None, fitted_shape=None, mask=None, name="X", device=None
):  # fmt: skip
    """Accept signals without copying them.

    Parameters
    ----------
    X : array of shape (n, *signal_shape[, n_channels]), flat rows (n, n_features), or list of signals
        Memory maps, zarr arrays and HDF5 data sets are read signal by signal. A list may hold signals of different
        sizes. Rows are 1-D signals if `n_axes` is 1 and there is no `image_shape`.
    n_axes : int
        Spatial axes, 1 to 3.
    n_channels : int, "any" or None, default=None
        Channels of the atoms; the signals must have as many. None: the atoms have none, and if the signals do, each
        channel has codes of its own. "any": there are no atoms yet, and they will have those of the signals.
    image_shape : tuple of ints or None, default=None
        Spatial shape, and channels if there are any, of signals given as flat rows. None: squares or cubes.
    fitted_shape : tuple of ints or None, default=None
        What flat rows are taken for if `image_shape` is None.
    mask : bool array of X's shape, with or without channels, list of such, "nan" or None, default=None
        True where a sample is missing; "nan": where X is NaN.
    name : str, default="X"
        What the messages call it.
    device : str or None, default=None
        Where to compute; None is where the signals live.

    Returns
    -------
    ConvSignals

    Raises
    ------
    ValueError, TypeError
        For anything else, NaN and infinity outside the mask, signals without samples, dimensions or channels that
        differ; the message names the signal.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution.signals import check_conv_signals
    >>> colour = np.zeros((5, 20, 30, 3))
    >>> check_conv_signals(colour, 2, 3)[0].shape, check_conv_signals(colour, 2)[0].shape
    ((1, 3, 20, 30), (3, 1, 20, 30))
    >>> check_conv_signals(np.zeros((5, 600)), 2, image_shape=(20, 30))[0].shape
    (1, 1, 20, 30)
    """
    if image_shape is not None:
        image_shape = check_image_shape(image_shape, FORMS[n_axes])
    array = stack_of(X, name)
    if isinstance(array, Stack):
        check_kind(array, name)
    else:
        array = check_stack(X, n_axes, name=name, one="signal")
    rows = not isinstance(array, list) and array.ndim == 2
    flat = rows and (n_axes > 1 or bool(image_shape) or isinstance(n_channels, int) or len(fitted_shape or ()) == 2)
    if flat:
        shape = image_shape or fitted_shape or _guessed_shape(array.shape[1], n_axes, n_channels, name)
        if prod(shape) != array.shape[1]:
            raise ValueError(
                f"{name} has {array.shape[1]} columns, signals of shape {tuple(shape)} have {prod(shape)} samples"
            )
        mask = _unflatten_mask(mask, array.shape, shape)
        array = array.reshape(len(array), *shape)
    if isinstance(array, list):
        homes = sorted({device_of(one) for one in array})
        if len(homes) > 1:
            raise TypeError(f"signals of {name} live on {' and '.join(homes)}: move them to one device")
        _check_list(array, n_axes, image_shape, name)
        one = array[0].shape
    else:
        _check_stacked(array, n_axes, image_shape, name)
        one = array.shape[1:]
    channels = one[n_axes] if len(one) > n_axes else None
    if n_channels not in (None, "any") and channels != n_channels:
        has = "no channel axis" if channels is None else f"{channels} channel(s)"
        raise ValueError(f"the atoms have {n_channels} channel(s), the signals of {name} have {has}")
    mask = _check_mask(mask, array, n_axes)
    signals = ConvSignals(array, n_axes, channels, separate=n_channels is None, missing=mask, flat=flat, device=device)
    signals.check_finite()
    return signals


def check_atoms_and_signals(atoms, X, *, channels="auto", mask=None, image_shape=None, fitted_shape=None, device=None):
    """Atoms and signals that belong together, in this room's forms.

    Parameters
    ----------
    atoms : array-like of shape (n_components, *support[, n_channels])
    X, mask, image_shape, fitted_shape, device : as in `check_conv_signals`
    channels : bool or "auto", default="auto"
        As in `spatial_axes`.

    Returns
    -------
    atoms : array of shape (n_components, n_channels or 1, *support)
        Of the signals' dtype, and on their device.
    signals : ConvSignals

    Raises
    ------
    ValueError, TypeError
    """
    atoms = check_atoms(atoms)
    n_axes, n_channels = spatial_axes(atoms.shape, X, channels, image_shape=image_shape or fitted_shape)
    signals = check_conv_signals(
        X, n_axes, n_channels, image_shape=image_shape, fitted_shape=fitted_shape, mask=mask, device=device
    )  # fmt: skip
    check_support(atoms.shape[1 : n_axes + 1], signals)
    return to_device(atoms_inside(atoms, n_channels, signals.dtype), signals.device), signals


def check_support(support, signals):
    """Refuse signals that are smaller than atoms of a shape; the message names the first one."""
    for number in range(1 if signals.same_shape else signals.n_signals):
        shape = signals.shape(number)
        if any(length > samples for length, samples in zip(support, shape, strict=True)):
            columns = f" (n_features = {shape[0]})" if len(support) == 1 else ""
            raise ValueError(
                f"atoms of shape {support} are larger than the signal: number {number} of shape {shape}{columns}"
            )


def as_given(signal, n_channels):
    """A signal in this room's form, (n_codes, n_channels_of_atoms, *signal_shape), as users have it."""
    if n_channels is None:
        return signal[0, 0]
    return array_module(signal).moveaxis(signal.reshape(n_channels, *signal.shape[2:]), 0, -1)


def _guessed_shape(n_features, n_axes, n_channels, name):
    """What flat rows stand for if nothing says so: a square or a cube, with the channels of the atoms."""
    n_channels = n_channels if isinstance(n_channels, int) else None
    samples, left = divmod(n_features, n_channels or 1)
    side = isqrt(samples) if n_axes == 2 else round(samples ** (1 / n_axes))
    if left or side**n_axes != samples:
        what = {1: "signal", 2: "square image", 3: "cube"}[n_axes] + (
            f" of {n_channels} channels" if n_channels else ""
        )
        raise ValueError(
            f"{name} has flat rows of {n_features} samples, which make no {what}: give "
            f"image_shape={' or '.join(FORMS[n_axes])}, or an array with these axes; one signal is signal[None]"
        )
    return (side,) * n_axes + (() if n_channels is None else (n_channels,))


def _check_stacked(array, n_axes, image_shape, name):
    forms = " or ".join(f"(n, {form[1:]}".replace(",)", ")") for form in FORMS[n_axes])
    if array.ndim - 1 not in (n_axes, n_axes + 1):
        raise ValueError(
            f"Found array with dim {array.ndim}: for atoms of {n_axes} spatial axes {name} must have the shape {forms}"
            f"{'' if n_axes == 1 else ' or hold flat rows'}; got {array.shape}"
        )
    if 0 in array.shape:
        what = "sample" if len(array) == 0 else "feature"
        raise ValueError(
            f"Found array with 0 {what}(s) (shape={array.shape}) while a minimum of 1 is required by {name}."
        )
    if image_shape is not None and array.shape[1:] != image_shape:
        raise ValueError(f"{name} has signals of shape {array.shape[1:]}, image_shape asks for {image_shape}")


def _check_list(arrays, n_axes, image_shape, name):
    for number, array in enumerate(arrays):
        if array.ndim not in (n_axes, n_axes + 1) or array.size == 0:
            raise ValueError(
                f"signal {number} of {name} must have the shape {' or '.join(FORMS[n_axes])} for atoms of {n_axes} "
                f"spatial axes, got {array.shape}"
            )
        if array.ndim != arrays[0].ndim:
            raise ValueError(
                f"signals of different dimensions: signal 0 of {name} has shape {arrays[0].shape}, signal {number} has "
                f"{array.shape}"
            )
        if array.ndim > n_axes and array.shape[-1] != arrays[0].shape[-1]:
            raise ValueError(
                f"signal 0 of {name} has {arrays[0].shape[-1]} channel(s), signal {number} has {array.shape[-1]}: all "
                "must have as many"
            )
        if image_shape is not None and array.shape != image_shape:
            raise ValueError(f"signal {number} of {name} has shape {array.shape}, image_shape asks for {image_shape}")


def _unflatten_mask(mask, rows_shape, shape):
    if mask is None or isinstance(mask, str | list) or np.shape(mask) != rows_shape:
        return mask
    mask = stack_of(mask, "mask")
    mask = mask if isinstance(mask, Stack) else array_module(mask).asarray(mask)
    return mask.reshape(len(mask), *shape)


def _check_mask(mask, arrays, n_axes):
    """A mask as "nan", None, or boolean arrays, one of which may be on disk and stay there."""
    if mask is None or (isinstance(mask, str) and mask == "nan"):
        return mask
    rule = "mask must be 'nan' or a boolean array of X's shape, with or without channels, True where missing"
    if isinstance(mask, str):
        raise ValueError(f"{rule}; got {mask!r}")
    if isinstance(arrays, list):
        if not isinstance(mask, list | tuple) or len(mask) != len(arrays):
            raise ValueError(f"{rule}: for a list of {len(arrays)} signals, a list of as many masks")
        masks = [own if on_gpu(own) else np.asarray(own) for own in mask]
        for number, (own, array) in enumerate(zip(masks, arrays, strict=True)):
            _check_one_mask(own, array.shape, n_axes, f"{rule}; for signal {number}")
        return [to_device(own, device_of(array)) for own, array in zip(masks, arrays, strict=True)]
    mask = stack_of(mask, "mask")
    if isinstance(mask, Stack):
        mask = mask[:] if on_gpu(arrays) else mask
    elif not on_gpu(mask):
        mask = np.asarray(mask)
    _check_one_mask(mask, arrays.shape, n_axes + 1, rule)
    return to_device(mask, device_of(arrays))


def _check_one_mask(mask, shape, n_leading, rule):
    if mask.dtype != bool or mask.shape not in (shape, shape[:n_leading]):
        allowed = f"{shape}" if len(shape) == n_leading else f"{shape} or {shape[:n_leading]}"
        raise ValueError(f"{rule}: {allowed}; got an array of shape {mask.shape} and dtype {mask.dtype}")
