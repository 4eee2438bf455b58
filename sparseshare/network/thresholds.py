"""Activations: thresholds that are fixed, learned or moved to a wanted density; ReLU, tanh; and how dense they are."""

from math import prod

import numpy as np

from sparseshare.devices import array_module, device_of
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads
from sparseshare.validation import check_choice, check_number

from .parameters import Parameter

ACTIVATIONS = ("relu", "soft", "soft_nonnegative", "hard", "topk", "tanh", "linear")
THRESHOLDED = ("soft", "soft_nonnegative", "hard")
FIRST_THRESHOLD = 0.1  # where nothing else is said, and where learning begins
_LINEAR, _SOFT, _SOFT_NONNEGATIVE, _HARD = range(4)  # the modes of the kernels
_MODES = {"relu": _SOFT_NONNEGATIVE, "soft": _SOFT, "soft_nonnegative": _SOFT_NONNEGATIVE, "hard": _HARD}
_BLOCK = 1 << 16  # entries that one call of a kernel works on
_SAMPLED = 256  # rows of a block whose magnitudes the tracking of a density looks at
_INSTEAD = {"relu": ": the nearest to 'relu' is 'soft_nonnegative', max(z - threshold, 0)"}
_RATE = 0.1  # how far a threshold moves towards the quantile of one more batch
_SAMPLED_THERE = 4096  # rows of a batch that a GPU looks at
_COUNTED = 64  # batches whose counts a GPU adds up together


def activation_of(layer, output_shape, builder, parameters):
    """The activation that a layer asks for, its parameters added to those of the layer.

    What the layer leaves open (None) is the builder's: ``builder.activation``, ``.threshold`` and ``.density``.

    Parameters
    ----------
    layer : Layer
        With ``activation``, ``threshold`` and ``density``.

        threshold : float, array-like of shape (n_units,), "learned", "per_unit" or None
            One number for all units or one a unit, fixed; "learned": one a unit, trained with the weights from 0.1 on
            (soft thresholds only); "per_unit": one a unit, moved so that every unit has the wanted density. Without
            any and with a density, one for all units is moved. Without both it is 0.1.
        density : float in (0, 1] or None
            Share of non-zero activations that the thresholds are moved to while training; of "topk" the share kept.
    output_shape : tuple of int
        Of one sample (for a layer with time steps of its own, of one step); the last axis counts the units.
    builder : Builder
    parameters : dict of str to Parameter
        Gets "threshold" where thresholds change in training.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        For options that are not there or do not go together.
    """
    owner, n_units = type(layer).__name__, output_shape[-1]
    check_choice("activation", layer.activation, (*ACTIVATIONS, None), of=owner)
    own = layer.activation is not None
    kind = layer.activation if own else check_choice("activation", builder.activation, ACTIVATIONS)
    threshold, density = layer.threshold, layer.density
    # Defaults for all layers do not concern a layer that says itself to be of a kind that cannot have them.
    if threshold is None and density is None and (kind in THRESHOLDED or not own):
        threshold = builder.threshold
    if density is None and (kind in (*THRESHOLDED, "topk") or not own):
        if layer.threshold is None or _is(layer.threshold, "per_unit"):
            density = builder.density
    if threshold is not None and kind not in THRESHOLDED:
        raise ValueError(
            f"The 'threshold' parameter of {owner} is for the activations {', '.join(map(repr, THRESHOLDED))}, "
            f"but its activation is {kind!r}{_INSTEAD.get(kind, '')}"
        )
    if density is not None and kind not in (*THRESHOLDED, "topk"):
        raise ValueError(
            f"The 'density' parameter of {owner} is for activations with a threshold and for 'topk', but its "
            f"activation is {kind!r}{_INSTEAD.get(kind, '')}"
        )
    density = check_number("density", density, 0, 1, allow_none=True, open_low=True, of=owner)
    if kind == "topk":
        if density is None:
            raise ValueError(f"The activation 'topk' of {owner} needs a 'density', the share of activations it keeps")
        return TopK(kind, n_units, builder, max(1, round(density * prod(output_shape))))
    if kind not in THRESHOLDED:
        return Tanh(kind, n_units, builder) if kind == "tanh" else Activation(kind, n_units, builder)
    values = first_thresholds(threshold, density, kind, n_units, owner).astype(builder.dtype)
    activation = Threshold(kind, n_units, builder, Parameter(values, nonnegative=True))
    activation.density, activation.learned = density, _is(threshold, "learned")
    if density is not None or activation.learned:
        parameters["threshold"] = activation.parameter
    return activation


def _is(threshold, word):
    return isinstance(threshold, str) and threshold == word


def first_thresholds(threshold, density, kind, n_units, owner):
    """Thresholds before training.

    Parameters
    ----------
    threshold, density : see `activation_of`
    kind : str
    n_units : int
    owner : str
        Of the layer, for messages.

    Returns
    -------
    ndarray of shape (1,) or (n_units,)
        0 where they are to be found from the first batch.
    """
    if _is(threshold, "learned"):
        if kind == "hard":
            raise ValueError(
                f"A hard threshold has no gradient: threshold='learned' of {owner} needs a soft activation"
            )
        if density is not None:
            raise ValueError(
                f"A threshold of {owner} is either learned or moved to a density: with threshold='learned', "
                f"density must be None, got {density}"
            )
        return np.full(n_units, FIRST_THRESHOLD)
    if _is(threshold, "per_unit"):
        if density is None:
            raise ValueError(f"threshold='per_unit' of {owner} needs the 'density' that every unit is to have")
        return np.zeros(n_units)
    if threshold is None:
        return np.full(1, FIRST_THRESHOLD if density is None else 0.0)
    if np.ndim(threshold) == 0:
        if isinstance(threshold, str):
            raise ValueError(
                f"The 'threshold' parameter of {owner} must be a number of at least 0, an array of {n_units} of them, "
                f"'learned', 'per_unit' or None, got {threshold!r}"
            )
        return np.array([check_number("threshold", threshold, 0, of=owner)], np.float64)
    values = np.array(threshold, np.float64)
    if values.shape != (n_units,) or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(
            f"The 'threshold' parameter of {owner}, where it is an array, must hold {n_units} finite numbers of at "
            f"least 0, one a unit, got shape {values.shape}"
            + (f" with {values.min()} to {values.max()}" if values.size else "")
        )
    return values


class Activation:
    """What follows the linear part of a layer, here nothing but the bias: the base of the others.

    A batch passes either whole, by `forward` and `backward`, or in blocks: `begin`, `apply` to each block from any
    thread, `finish`; and `differentiate` for each block on the way back.

    Parameters
    ----------
    kind : str
    n_units : int
    builder : Builder

    Attributes
    ----------
    kind : str
        One of `ACTIVATIONS`.
    n_values : int
        Activations since `reset_counts`; the share of `n_nonzero` in them is the running density.
    density : float or None
        Share that thresholds are moved to.
    learned : bool
        Whether thresholds have a gradient.
    """

    density, learned = None, False
    pointwise = True  # whether `limits` say all about it

    def __init__(self, kind, n_units, builder):
        self.kind, self.n_units, self.n_threads = kind, n_units, builder.n_threads
        self.thresholds = np.zeros(n_units, builder.dtype)
        self.mode = _MODES.get(kind, _LINEAR)
        self._no_bias = np.zeros(n_units, builder.dtype)
        self._counted = None, 0
        self.reset_counts()

    @property
    def tracks(self):
        """Whether training moves thresholds by what `finish` is given."""
        return self.density is not None

    @property
    def measured_density(self):
        """Share of non-zero activations in the last batch; counts of a GPU come to the host only here."""
        n_nonzero, n_values = self._counted
        return _total(n_nonzero) / n_values if n_values else np.nan

    @property
    def n_nonzero(self):
        """Non-zero activations since `reset_counts`."""
        self._n_nonzero, self._waiting = self._n_nonzero + _total(self._waiting), []
        return self._n_nonzero

    def limits(self):
        """The activation of z as ``z - above`` for z > high, ``z - below`` for z < low, 0 between.

        Returns
        -------
        ndarray of shape (4, n_units)
            high (NaN: never 0), above, low, below.
        """
        t = self.thresholds
        limits = np.zeros((4, self.n_units), t.dtype)
        limits[2] = -np.inf
        if self.mode == _LINEAR:
            limits[0] = np.nan
        elif self.mode == _HARD:
            limits[0], limits[2] = np.nextafter(t, -np.inf), np.nextafter(-t, np.inf)
        else:
            limits[:2] = t
            if self.mode == _SOFT:
                limits[2:] = -t
        return limits

    def reset_counts(self):
        """Start counting anew."""
        self._n_nonzero = self.n_values = 0
        self._waiting = []  # counts on a GPU that have not been added up

    @property
    def running_density(self):
        """Share of non-zero activations since `reset_counts`; NaN before the first."""
        return self.n_nonzero / self.n_values if self.n_values else np.nan

    def forward(self, z, training=False, bias=None):
        """Activations of a batch.

        Parameters
        ----------
        z : ndarray of shape (n_samples, ..., n_units)
            What the linear part gives. It is overwritten.
        training : bool, default=False
            Whether thresholds may move. They do so after the batch.
        bias : ndarray of shape (n_units,) or None, default=None

        Returns
        -------
        a : ndarray of the shape of z
        cache : object
            For `backward`.
        """
        z = array_module(z).ascontiguousarray(z)
        blocks, tracked = _blocks(z), {}
        counts = [0] * len(blocks)

        def work(i, worker):
            counts[i] = self.apply(z[blocks[i]], bias, tracked if training else None, i)

        run_in_threads(work, len(blocks), self.n_threads)
        self.finish(counts, z.size, tracked)
        return z, z

    def apply(self, z, bias=None, tracked=None, place=0):
        """Activations of whole samples of a batch, in place.

        Parameters
        ----------
        z : C-contiguous ndarray of shape (n, ..., n_units)
            Overwritten by the activations.
        bias : ndarray of shape (n_units,) or None, default=None
        tracked : dict or None, default=None
            In training: takes what `finish` moves the thresholds by.
        place : int, default=0
            Of these samples in the batch: which entry of `tracked` is theirs.

        Returns
        -------
        int or array
            Number of non-zeros; on a GPU counts that add up to it.
        """
        rows, device = z.reshape(-1, self.n_units), device_of(z)
        bias = self._no_bias if bias is None and device == "cpu" else bias
        return kernels_for(device, "activations").activate(rows, bias, self.thresholds, self.mode)

    def begin(self):
        """Take up changes of the parameters, before the first block of a batch."""

    def finish(self, n_nonzero, n_values, tracked=()):
        """Take note of the density of a batch, and move thresholds towards the wanted one.

        Parameters
        ----------
        n_nonzero : int or list
            Of the whole batch, or what `apply` has returned for its blocks.
        n_values : int
            Of the whole batch.
        tracked : dict
            What `apply` has filled; empty outside of training.
        """
        n_nonzero = n_nonzero if isinstance(n_nonzero, list) else [n_nonzero]
        if any(device_of(count) != "cpu" for count in n_nonzero):
            if len(self._waiting) >= _COUNTED:
                self._waiting = [_added(self._waiting)]
            self._waiting += n_nonzero
        else:
            n_nonzero = int(sum(n_nonzero))
            self._n_nonzero += n_nonzero
        self._counted = n_nonzero, n_values
        self.n_values += int(n_values)

    def backward(self, da, cache, sums=None):
        """Gradient by z.

        Parameters
        ----------
        da : ndarray of shape (n_samples, ..., n_units)
            On the CPU; `backward_there` is for a GPU.
        cache : object
        sums : ndarray of shape (n_units,) or None, default=None
            The gradient by the bias is added to it.

        Returns
        -------
        ndarray of the shape of da
        """
        da = np.ascontiguousarray(da)
        dz, blocks = np.empty_like(da), _blocks(da)
        bias_parts = np.zeros((len(blocks), self.n_units), da.dtype)
        threshold_parts = np.zeros((len(blocks), self.n_units if self.learned else 0), da.dtype)

        def work(i, worker):
            block = blocks[i]
            self.differentiate(da[block], cache[block], dz[block], bias_parts[i], threshold_parts[i])

        run_in_threads(work, len(blocks), self.n_threads)
        if sums is not None:
            sums += bias_parts.sum(axis=0)
        self.add_threshold_gradient(threshold_parts.sum(axis=0))
        return dz

    def backward_there(self, da, a, bias, place=None, window=(1, 1, 1)):
        """Gradient by z on a GPU; bias and thresholds add theirs, in parts that nobody has added up yet.

        Parameters
        ----------
        da, a : arrays of shape (n_samples, ..., n_units)
        bias : Parameter or None
        place : array of the shape of a, or None, default=None
            Where in a window each activation was the largest: the gradient is that by all entries of the windows.
        window : tuple of 3 ints
            Lines and pixels of a window, windows on a line.

        Returns
        -------
        array of shape (n_rows, n_units), or (n_rows * window[0] * window[1], n_units)
            `da` itself, in that shape, where the activation changes nothing.
        """
        xp, kernels = array_module(da), kernels_for(device_of(da), "activations")
        da, a = (xp.ascontiguousarray(array).reshape(-1, self.n_units) for array in (da, a))
        shape = kernels.sum_parts(*a.shape), self.n_units
        mode = kernels.TANH if self.kind == "tanh" else self.mode
        plain = mode == _LINEAR and place is None
        dz = da if plain else xp.empty((len(da) * window[0] * window[1], self.n_units), a.dtype)
        bias_parts = None if bias is None else xp.empty(shape, a.dtype)
        threshold_parts = xp.empty(shape, a.dtype) if self.learned else None
        if not plain or bias is not None:
            written = None if plain else dz
            kernels.activation_gradient(
                da, a, self.thresholds, mode, written, bias_parts, threshold_parts, place, window
            )
        if bias is not None:
            bias.add_gradient_parts(bias_parts)
        if self.learned:
            self.parameter.add_gradient_parts(threshold_parts)
        return dz

    def differentiate(self, da, a, dz, bias_sums, threshold_sums):
        """Gradient by z for some samples, on the CPU.

        Parameters
        ----------
        da, a : C-contiguous ndarrays of shape (n, ..., n_units)
            The gradient by the activations, and what `apply` made of z.
        dz : ndarray of their shape
            Written to; may be `da`.
        bias_sums : ndarray of shape (n_units,)
            dz is added up in it.
        threshold_sums : ndarray of shape (n_units,), or (0,) for thresholds that are not learned
            The gradient by the thresholds is added up in it.
        """
        flat = (array.reshape(-1, self.n_units) for array in (da, a))
        kernels_for("cpu", "activations").activation_gradient(
            *flat, self.thresholds, self.mode, dz.reshape(-1, self.n_units), bias_sums, threshold_sums
        )

    def add_threshold_gradient(self, gradient):
        """Pass on the gradient by the thresholds of a batch, (n_units,) or (0,)."""


class Threshold(Activation):
    """Hard threshold ``z if |z| >= t else 0``; soft ``sign(z) max(|z| - t, 0)``; soft_nonnegative ``max(z - t, 0)``.

    Where nothing passes a threshold no gradient does. A threshold t that is learned has the gradient -sign(a).

    Parameters
    ----------
    kind, n_units, builder : see `Activation`
    parameter : Parameter
        The thresholds, of shape (1,) or (n_units,).
    """

    def __init__(self, kind, n_units, builder, parameter):
        super().__init__(kind, n_units, builder)
        self.parameter, self.found = parameter, False

    def begin(self):
        """See `Activation`."""
        self.thresholds[:] = self.parameter.values

    def forward(self, z, training=False, bias=None):
        """See `Activation`."""
        self.begin()
        return super().forward(z, training, bias)

    def apply(self, z, bias=None, tracked=None, place=0):
        """See `Activation`."""
        on_cpu = device_of(z) == "cpu"
        if tracked is not None and self.density is not None:
            rows = z.reshape(-1, self.n_units)
            if not on_cpu:
                rows = rows[:: -(-len(rows) // _SAMPLED_THERE)]
            elif len(rows) > _SAMPLED:
                rows = rows[np.random.RandomState(place % 2**32).randint(len(rows), size=_SAMPLED)]
            tracked[place] = rows if bias is None else rows + bias
            if bias is None:  # a view of what is overwritten now
                tracked[place] = rows.copy()
        return super().apply(z, bias)

    def finish(self, n_nonzero, n_values, tracked=()):
        """See `Activation`."""
        super().finish(n_nonzero, n_values, tracked)
        if not tracked:
            return
        xp = array_module(self.parameter.values)
        z = [tracked[place] for place in sorted(tracked)]
        z = xp.concatenate(z) if len(z) > 1 else xp.ascontiguousarray(z[0])
        if xp is not np:
            self._move_there(z)
            return
        size = z if self.kind == "soft_nonnegative" else np.abs(z, out=z)
        values = self.parameter.values
        wanted = np.quantile(size, 1 - self.density, axis=0 if values.size == self.n_units > 1 else None)
        wanted = np.maximum(wanted, 0)
        # No threshold yet: there is nothing to move slowly from.
        values += (wanted - values) * (_RATE if values.any() else 1)
        self.parameter.changed()

    def _move_there(self, z):
        """The same on a GPU; the host asks once whether there are thresholds yet, and not in every batch."""
        values = self.parameter.values
        self.found = self.found or bool(values.any())
        kernels_for(device_of(z), "activations").move_thresholds(
            z, self.kind == "soft_nonnegative", self.density, _RATE if self.found else 1, values
        )
        self.found = True
        self.parameter.changed()

    def add_threshold_gradient(self, gradient):
        """See `Activation`."""
        if self.learned:
            self.parameter.add_gradient(gradient)


class TopK(Activation):
    """The k activations of largest magnitude in every sample, all positions taken together; the others 0.

    Parameters
    ----------
    kind, n_units, builder : see `Activation`
    k : int
    """

    pointwise = False

    def __init__(self, kind, n_units, builder, k):
        super().__init__(kind, n_units, builder)
        self.k, self.mode = k, _HARD
        self.thresholds[:] = 1  # for the gradient: it passes where something was kept

    def apply(self, z, bias=None, tracked=None, place=0):
        """See `Activation`."""
        device, rows = device_of(z), z.reshape(len(z), -1)
        kernels = kernels_for(device, "activations")
        if device != "cpu":
            return kernels.keep_largest(rows, bias, self.n_units, self.k)
        if bias is not None:
            z += bias
        return kernels.keep_largest(rows, self.k)


class Tanh(Activation):
    """Hyperbolic tangent."""

    pointwise = False

    def apply(self, z, bias=None, tracked=None, place=0):
        """See `Activation`."""
        rows, device = z.reshape(-1, self.n_units), device_of(z)
        if device != "cpu":
            return kernels_for(device, "activations").tanh_activate(rows, bias)
        if bias is not None:
            z += bias
        np.tanh(z, out=z)
        return kernels_for("cpu", "sparse_products").count_nonzeros(rows)

    def differentiate(self, da, a, dz, bias_sums, threshold_sums):
        """See `Activation`."""
        flat = (array.reshape(-1, self.n_units) for array in (da, a, dz))
        kernels_for("cpu", "recurrent").tanh_gradient(*flat, bias_sums)


def _added(counts):
    """Counts on a GPU as one of them."""
    xp = array_module(counts[0])
    return xp.concatenate([count.reshape(-1) for count in counts]).sum(dtype=np.int64)


def _total(counts):
    """A number from one, or from counts that are still on a GPU."""
    if isinstance(counts, list):
        return int(_added(counts)) if counts else 0
    return counts


def _blocks(z):
    """Slices of whole samples, of a size that does not depend on the number of threads: nor do sums over them.

    A GPU takes all at once.
    """
    if device_of(z) != "cpu":
        return [slice(0, len(z))]
    step = max(1, _BLOCK * len(z) // max(z.size, 1))
    return [slice(start, start + step) for start in range(0, len(z), step)]
