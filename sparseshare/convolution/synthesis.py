"""Codes in the users' form back to signals."""

import numpy as np
from scipy.sparse import csr_array, issparse

from sparseshare.devices import array_module, computing_on, device_of, on_gpu, to_device
from sparseshare.threads import run_in_threads, thread_count
from sparseshare.validation import check_axes, check_kind, compute_dtype

from .atoms import atoms_inside
from .device_operator import DeviceConvolution
from .geometry import Geometry
from .layout import unstack
from .operator import Convolution
from .signals import as_given


def signals_of(codes, atoms, boundary, *, channels="auto", shape=None, separate=False, n_jobs=None, device="cpu"):
    """The sums of maps' convolutions with their atoms.

    Parameters
    ----------
    codes : array of shape (n_samples, n_components, *positions[, n_channels]), or CSR with these axes in a row
        The last axis only where each channel has codes of its own.
    atoms : ndarray of shape (n_components, *support[, n_channels])
    boundary : {"circular", "full", "valid"}
    channels : bool or "auto", default="auto"
        Whether the last axis of the atoms holds channels. "auto": if codes have an axis of positions less than atoms
        have axes.
    shape : tuple of ints or None, default=None
        Spatial shape of the signals, which rows of CSR do not tell.
    separate : bool, default=False
        Whether the signals of codes in CSR have an axis of channels if there is only one channel.
    n_jobs : int or None, default=None
        Threads; the signals do not depend on it.
    device : str, default="cpu"
        "cpu" or "cuda:N".

    Returns
    -------
    array of shape (n_samples, *signal_shape[, n_channels])
        float32 if the codes are float32, else float64; it lives where the codes do.

    Raises
    ------
    ValueError
        For codes of another shape, NaN and infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.convolution.synthesis import signals_of
    >>> maps = np.zeros((1, 1, 6))
    >>> maps[0, 0, 1] = 2
    >>> signals_of(maps, np.array([[1.0, 2.0, 3.0]]), "circular").round(6) + 0.0
    array([[0., 2., 4., 6., 0., 0.]])
    """
    if not on_gpu(codes):
        codes = csr_array(codes) if issparse(codes) else np.asarray(codes)
    check_kind(codes, "codes")
    form = _form_of_rows if hasattr(codes, "tocsr") else _form_of_maps
    geometry, has_channels, n_codes = form(codes, atoms.shape, boundary, channels, shape, separate)
    dtype = compute_dtype(codes)
    inside = atoms_inside(atoms, atoms.shape[-1] if has_channels else None, dtype)
    n_channels = atoms.shape[-1] if has_channels else n_codes
    n_samples, n_threads = codes.shape[0], thread_count(n_jobs)
    if device != "cpu":
        return _signals_by_gpu(codes, to_device(inside, device), geometry, n_codes, n_channels, dtype)
    operator = Convolution(inside, geometry, n_threads if n_samples < n_threads else 1)
    operator.spectra  # noqa: B018 - computed once, before threads share them
    signals = np.empty((n_samples, *geometry.signal_shape, *([] if n_channels is None else [n_channels])), dtype)

    def work(number, _):
        maps = unstack(codes[number : number + 1], len(inside), geometry.positions, n_codes, dtype)[0]
        signals[number] = as_given(operator.synthesize(maps), n_channels)

    run_in_threads(work, n_samples, n_threads if n_samples >= n_threads else 1)
    return signals


def _signals_by_gpu(codes, atoms, geometry, n_codes, n_channels, dtype):
    """`signals_of` on the device of the atoms, a signal at a time."""
    device, home = device_of(atoms), device_of(codes)
    operator = DeviceConvolution(atoms, geometry)
    shape = (codes.shape[0], *geometry.signal_shape, *([] if n_channels is None else [n_channels]))
    with computing_on(device):
        signals = (np if home == "cpu" else array_module(atoms)).empty(shape, dtype)
        for number in range(codes.shape[0]):
            maps = unstack(codes[number : number + 1], len(atoms), geometry.positions, n_codes, dtype)[0]
            signal = as_given(operator.synthesize(to_device(maps, device)), n_channels)
            signals[number] = to_device(signal, home)
    return signals


def _form_of_maps(codes, atoms_shape, boundary, channels, shape, separate):
    """Geometry, whether atoms have channels, and channels with codes of their own (None: no such axis)."""
    n_inside, n_axes = len(atoms_shape) - 1, codes.ndim - 2
    has_channels = n_axes < n_inside if channels == "auto" else bool(channels)
    n_spatial = n_inside - has_channels
    separate = not has_channels and n_axes == n_spatial + 1
    if n_spatial < 1 or n_axes - separate != n_spatial or codes.size == 0:
        pooled = ": pooled rows of transform cannot be inverted" if codes.ndim == 2 else ""
        raise ValueError(
            f"maps must have the shape (n_samples, n_components, *positions[, n_channels]) with {max(n_spatial, 1)} "
            f"axes of positions, as encode returns them, got {codes.shape}{pooled}"
        )
    support = atoms_shape[1 : 1 + n_spatial]
    geometry = Geometry.of_positions(codes.shape[2 : 2 + n_spatial], support, boundary)
    return geometry, has_channels, codes.shape[-1] if separate else None


def _form_of_rows(codes, atoms_shape, boundary, channels, shape, separate):
    if shape is None:
        raise ValueError(
            "codes in a csr_array do not say what shape their signals have: pass shapes, set image_shape, or fit to "
            "signals of one shape"
        )
    n_inside = len(atoms_shape) - 1
    shape = check_axes("shapes", shape, np.size(shape))
    has_channels = len(shape) < n_inside if channels == "auto" else bool(channels)
    geometry = Geometry(shape, atoms_shape[1 : 1 + n_inside - has_channels], boundary)
    size = atoms_shape[0] * geometry.n_positions
    n_codes, left = divmod(codes.shape[1], size)
    if left or n_codes == 0 or (n_codes > 1 and has_channels):
        raise ValueError(
            f"codes have {codes.shape[1]} columns, but maps of {atoms_shape[0]} atoms on a signal of shape {shape} "
            f"have {size} entries"
        )
    return geometry, has_channels, n_codes if not has_channels and (separate or n_codes > 1) else None
