"""Layers on positions: `Conv`, the same weights everywhere, and the pooling of windows, `MaxPool` and `AvgPool`.

Images (h, w, channels) and signals (time, channels) are one thing inside: a signal is an image of one line.
"""

from math import prod

import numpy as np

from sparseshare.devices import array_module, device_of
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads
from sparseshare.validation import check_axes, check_choice, check_number

from .blocks import SparseWeights, aligned_empty, in_blocks
from .layers import Layer, Node, check_layer
from .patterns import padding_before, positions_of
from .thresholds import activation_of

FEW_CHANNELS = 4  # so few that columns are quicker laid out the other way round
_COLUMN_BYTES = 5 << 17  # columns of a block of images: with their product they stay in a core's cache
_SPARSE_BELOW = 0.3  # density of the input under which skipping its zeros beats columns and a dense product
_GROUPS = 16  # sums over a batch are made in so many parts, whatever the number of threads
_COLUMN_BYTES_THERE = 1 << 28  # columns of a block of images on a GPU


class Conv(Layer):
    """Every position sees its neighbourhood with the same weights: y = activation(patch W + b).

    Parameters
    ----------
    n_filters : int
    kernel : int or tuple of int
        Size of a patch, one number for all axes or one for each.
    stride : int or tuple of int, default=1
    padding : {"valid", "same"}, default="valid"
        Patches lie inside the input; or zeros around it make as many positions as the input has (over the stride).
    activation, threshold, density : default=None
        As in `Dense`, and so are all that follow. A unit is a filter.
    bias : bool, default=True
    init : {"glorot", "he", "uniform"}, default="glorot"
    share : sharing rule or None, default=None
        For weights of the shape (prod(kernel) * n_channels, n_filters), rows in the order of a patch: line, pixel,
        channel.
    nonnegative : bool, default=False
    l1, l2 : float, default=0.0

    Examples
    --------
    >>> from sparseshare.network import Conv
    >>> Conv(32, 3, padding="same")
    Conv(kernel=3, n_filters=32, padding='same')
    """

    def __init__(
        self,
        n_filters,
        kernel,
        *,
        stride=1,
        padding="valid",
        activation=None,
        threshold=None,
        density=None,
        bias=True,
        init="glorot",
        share=None,
        nonnegative=False,
        l1=0.0,
        l2=0.0,
    ):
        self.n_filters = n_filters
        self.kernel = kernel
        self.stride = stride
        self.padding = padding
        self.activation = activation
        self.threshold = threshold
        self.density = density
        self.bias = bias
        self.init = init
        self.share = share
        self.nonnegative = nonnegative
        self.l1 = l1
        self.l2 = l2

    def connect(self, input_shape, builder):
        """See `Layer`."""
        n_axes = _axes_of(self, input_shape)
        n_filters = check_number("n_filters", self.n_filters, 1, integer=True, of="Conv")
        kernel = check_axes("kernel", self.kernel, n_axes, of="Conv")
        stride = check_axes("stride", self.stride, n_axes, of="Conv")
        check_choice("padding", self.padding, ("valid", "same"), of="Conv")
        check_layer(self)
        if self.padding == "valid":
            _check_fit(self, "kernel", kernel, input_shape)
        positions = positions_of(input_shape[:-1], kernel, stride, self.padding)
        before = padding_before(input_shape[:-1], kernel, stride, self.padding)
        return ConvNode(self, input_shape, kernel, stride, positions, before, n_filters, builder)


def _axes_of(layer, input_shape):
    if len(input_shape) not in (2, 3):
        raise ValueError(
            f"{layer!r} takes images (height, width, channels) or signals (time, channels), "
            f"got samples of shape {tuple(input_shape)}"
        )
    return len(input_shape) - 1


def _check_fit(layer, name, sizes, input_shape):
    if any(size > length for size, length in zip(sizes, input_shape, strict=False)):
        raise ValueError(
            f"The '{name}' of {layer!r} is larger than its input: {sizes} on samples of shape {tuple(input_shape)}"
        )


def _two(axes, one):
    """Numbers of two axes: a signal has one line."""
    return (one, *axes) if len(axes) == 1 else tuple(axes)


class Scratch(dict):
    """Arrays of each thread, made when it first asks."""

    def __init__(self, dtype, *sizes, xp=np):
        self.dtype, self.sizes, self.empty = dtype, sizes, aligned_empty if xp is np else xp.empty

    def __missing__(self, worker):
        self[worker] = [self.empty(size, self.dtype) for size in self.sizes]
        return self[worker]


class ConvNode(Node):
    def __init__(self, layer, input_shape, kernel, stride, positions, before, n_filters, builder):
        super().__init__(layer, (*positions, n_filters))
        self.n_threads, self.input_shape, n_channels = builder.n_threads, tuple(input_shape), input_shape[-1]
        self.weights = builder.weights(
            layer, (prod(kernel) * n_channels, n_filters), prod(kernel) * n_channels, prod(kernel) * n_filters
        )
        self.bias = builder.bias(layer, n_filters)
        self.parameters = {"weights": self.weights}
        if self.bias is not None:
            self.parameters["bias"] = self.bias
        self.activation = activation_of(layer, self.output_shape, builder, self.parameters)
        self.image = (*_two(input_shape[:-1], 1), n_channels)
        self.kernel, self.positions, self.before = _two(kernel, 1), _two(positions, 1), _two(before, 0)
        self.grid = (*self.kernel, *_two(stride, 1), *self.positions)  # what the kernels ask for
        self.padded = tuple(
            (p - 1) * s + k for p, s, k in zip(self.positions, self.grid[2:4], self.kernel, strict=True)
        )
        # Lines that no patch reads may lie beyond the padded image; where nothing is added it is the image itself.
        self.pads = any(self.before) or any(p > n for p, n in zip(self.padded, self.image, strict=False))

    def _padded(self, x, kernels):
        if not self.pads:
            return x
        padded = array_module(x).empty((len(x), *self.padded, self.image[2]), x.dtype)
        kernels.pad_images(x, *self.before, padded)
        return padded

    def _columns(self, padded, scratch, kernels):
        """Patches as rows of a matrix, in memory of `scratch`."""
        n_columns, n_rows = self.weights.shape[0], len(padded) * prod(self.positions)
        part = scratch[: n_rows * n_columns]
        if self.image[2] <= FEW_CHANNELS and device_of(padded) == "cpu":
            rows = part.reshape(n_columns, n_rows)
            kernels.take_rows(padded, *self.grid, rows)
            return rows.T
        columns = part.reshape(n_rows, n_columns)
        kernels.take_columns(padded, *self.grid, columns)
        return columns

    def _blocks(self, n_samples, itemsize, device):
        bytes_a_sample = prod(self.positions) * self.weights.shape[0] * itemsize
        if device != "cpu":
            step = max(1, _COLUMN_BYTES_THERE // bytes_a_sample)
            return [slice(start, min(start + step, n_samples)) for start in range(0, n_samples, step)]
        step = max(1, min(_COLUMN_BYTES // bytes_a_sample, -(-n_samples // _GROUPS)))
        return [slice(start, min(start + step, n_samples)) for start in range(0, n_samples, step)]

    def forward(self, x, training=False, random_state=None):
        device, xp, activation = device_of(x), array_module(x), self.activation
        kernels = kernels_for(device, "columns")
        x = xp.ascontiguousarray(x).reshape(-1, *self.image)
        weights = self.weights.full()
        bias = None if self.bias is None else self.bias.full()
        y = xp.empty((len(x), *self.output_shape), x.dtype)
        n_positions, (n_rows, n_filters) = prod(self.positions), weights.shape
        blocks = self._blocks(len(x), x.itemsize, device)
        counts, tracked = [0] * len(blocks), {}
        scratch = Scratch(x.dtype, blocks[0].stop * n_positions * n_rows if blocks else 0, xp=xp)
        # With so few channels a patch is short: listing what is not 0 in it costs more than it saves.
        dense = training or self.image[2] <= FEW_CHANNELS or device != "cpu"
        sparse = None if dense else SparseWeights(weights, _SPARSE_BELOW)
        activation.begin()

        def work(i, worker):
            some = x[blocks[i]]
            z = y[blocks[i]].reshape(-1, n_filters)
            padded = self._padded(some, kernels)
            if sparse is not None and sparse.pays(some.reshape(-1, some.shape[2] * some.shape[3])):
                kernels.sparse_columns_product(padded, *self.grid, sparse.padded, z)
            else:
                columns = self._columns(padded, scratch[worker][0], kernels)
                if xp is np:
                    np.matmul(columns, weights, out=z)
                else:
                    columns.dot(weights, out=z)
            counts[i] = activation.apply(y[blocks[i]], bias, tracked if training else None, i)

        in_blocks(work, blocks, self.n_threads, device)
        activation.finish(counts, y.size, tracked)
        return y, (x, y)

    def backward(self, dy, cache):
        if device_of(dy) != "cpu":
            return self._backward_there(dy, *cache)
        kernels, activation = kernels_for("cpu", "columns"), self.activation
        x, y = cache
        dy = np.ascontiguousarray(dy)
        weights, n_positions, n_filters = self.weights.full(), prod(self.positions), self.output_shape[-1]
        blocks = self._blocks(len(x), x.itemsize, "cpu")
        groups = [blocks[start::_GROUPS] for start in range(min(_GROUPS, len(blocks)))]
        dx = np.empty_like(x) if self.input_gradient else None
        weight_sums = np.zeros((len(groups), *weights.shape), x.dtype)
        bias_sums = np.zeros((len(groups), n_filters), x.dtype)
        threshold_sums = np.zeros((len(groups), n_filters if activation.learned else 0), x.dtype)

        size = blocks[0].stop * n_positions if blocks else 0
        scratch = Scratch(x.dtype, size * len(weights), size * n_filters, weights.size)

        def work(group, worker):
            memory, dz_memory, product = scratch[worker]
            for block in groups[group]:
                some = x[block]
                n_rows = len(some) * n_positions
                dz, product = dz_memory[: n_rows * n_filters].reshape(n_rows, n_filters), product.reshape(weights.shape)
                activation.differentiate(dy[block], y[block], dz, bias_sums[group], threshold_sums[group])
                columns = self._columns(self._padded(some, kernels), memory, kernels)
                weight_sums[group] += np.matmul(columns.T, dz, out=product)
                if dx is not None:
                    columns = memory[: n_rows * len(weights)].reshape(n_rows, -1)
                    np.matmul(dz, weights.T, out=columns)
                    self._add_columns(columns, dx[block], kernels)

        in_blocks(work, groups, self.n_threads, "cpu")
        self.weights.add_gradient(weight_sums.sum(axis=0))
        if self.bias is not None:
            self.bias.add_gradient(bias_sums.sum(axis=0))
        activation.add_threshold_gradient(threshold_sums.sum(axis=0))
        return None if dx is None else dx.reshape(len(x), *self.input_shape)

    def _backward_there(self, dy, x, y):
        """The same on a GPU, whole batches of columns at a time."""
        xp, kernels = array_module(x), kernels_for(device_of(x), "columns")
        weights, n_positions = self.weights.full(), prod(self.positions)
        dz = self.activation.backward_there(dy, y, self.bias).reshape(len(x), n_positions, -1)
        blocks = self._blocks(len(x), x.itemsize, self.weights.device)
        parts = xp.empty((len(blocks), *weights.shape), x.dtype)
        dx = xp.empty_like(x) if self.input_gradient else None
        memory = xp.empty(blocks[0].stop * n_positions * len(weights) if blocks else 0, x.dtype)
        for number, block in enumerate(blocks):
            columns, slopes = self._columns(self._padded(x[block], kernels), memory, kernels), dz[block]
            slopes = slopes.reshape(-1, slopes.shape[2])
            columns.T.dot(slopes, out=parts[number])
            if dx is not None:
                self._add_columns(slopes.dot(weights.T, out=columns), dx[block], kernels)
        self.weights.add_gradient_parts(parts)
        return None if dx is None else dx.reshape(len(x), *self.input_shape)

    def _add_columns(self, columns, dx, kernels):
        if not self.pads:
            kernels.add_columns(columns, *self.grid, dx)
            return
        padded = array_module(dx).empty((len(dx), *self.padded, self.image[2]), dx.dtype)
        kernels.add_columns(columns, *self.grid, padded)
        (top, left), (height, width) = self.before, self.image[:2]
        part = padded[:, top : top + height, left : left + width]
        dx[:, part.shape[1] :] = 0
        dx[:, :, part.shape[2] :] = 0
        dx[:, : part.shape[1], : part.shape[2]] = part


class _Pool(Layer):
    def __init__(self, size, *, stride=None):
        self.size = size
        self.stride = stride

    def connect(self, input_shape, builder):
        """See `Layer`."""
        n_axes, owner = _axes_of(self, input_shape), type(self).__name__
        size = check_axes("size", self.size, n_axes, of=owner)
        stride = size if self.stride is None else check_axes("stride", self.stride, n_axes, of=owner)
        _check_fit(self, "size", size, input_shape)
        positions = positions_of(input_shape[:-1], size, stride, "valid")
        return self._node(self, input_shape, size, stride, positions, builder)


class _PoolNode(Node):
    def __init__(self, layer, input_shape, size, stride, positions, builder):
        n_channels = input_shape[-1]
        super().__init__(layer, (*positions, n_channels))
        self.n_threads = builder.n_threads
        self.image, self.pooled = (*_two(input_shape[:-1], 1), n_channels), (*_two(positions, 1), n_channels)
        self.input_shape, self.window = input_shape, (*_two(size, 1), *_two(stride, 1))

    def _each(self, work, n_samples, device):
        if device != "cpu":
            work(slice(0, n_samples))
            return
        step = max(1, _COLUMN_BYTES // (4 * prod(self.image)))
        blocks = [slice(start, start + step) for start in range(0, n_samples, step)]
        run_in_threads(lambda i, _: work(blocks[i]), len(blocks), self.n_threads)


class MaxPoolNode(_PoolNode):
    def forward(self, x, training=False, random_state=None):
        device, xp = device_of(x), array_module(x)
        kernels = kernels_for(device, "windows")
        x = xp.ascontiguousarray(x).reshape(-1, *self.image)
        y = xp.empty((len(x), *self.pooled), x.dtype)
        place = xp.empty(y.shape, np.uint8 if prod(self.window[:2]) <= 256 else np.int32)
        self._each(lambda b: kernels.largest_in_windows(x[b], *self.window, y[b], place[b]), len(x), device)
        return y.reshape(len(x), *self.output_shape), place

    def backward(self, dy, cache):
        device, xp = device_of(dy), array_module(dy)
        kernels = kernels_for(device, "windows")
        dy = xp.ascontiguousarray(dy).reshape(-1, *self.pooled)
        dx = xp.empty((len(dy), *self.image), dy.dtype)
        self._each(lambda b: kernels.largest_gradient(dy[b], cache[b], *self.window, dx[b]), len(dy), device)
        return dx.reshape(len(dy), *self.input_shape)


class _AvgPoolNode(_PoolNode):
    def forward(self, x, training=False, random_state=None):
        device, xp = device_of(x), array_module(x)
        kernels = kernels_for(device, "windows")
        x = xp.ascontiguousarray(x).reshape(-1, *self.image)
        y = xp.empty((len(x), *self.pooled), x.dtype)
        self._each(lambda b: kernels.mean_of_windows(x[b], *self.window, y[b]), len(x), device)
        return y.reshape(len(x), *self.output_shape), None

    def backward(self, dy, cache):
        device, xp = device_of(dy), array_module(dy)
        kernels = kernels_for(device, "windows")
        dy = xp.ascontiguousarray(dy).reshape(-1, *self.pooled)
        dx = xp.empty((len(dy), *self.image), dy.dtype)
        self._each(lambda b: kernels.mean_gradient(dy[b], *self.window, dx[b]), len(dy), device)
        return dx.reshape(len(dy), *self.input_shape)


class MaxPool(_Pool):
    """The largest value of every window, channel by channel. What is left over at the far ends is not looked at.

    Parameters
    ----------
    size : int or tuple of int
        Of a window, one number for all axes or one for each.
    stride : int, tuple of int or None, default=None
        Steps between windows; None is their size.

    Examples
    --------
    >>> from sparseshare.network import MaxPool
    >>> MaxPool(2)
    MaxPool(size=2)
    """

    _node = MaxPoolNode


class AvgPool(_Pool):
    """The mean of every window, channel by channel. What is left over at the far ends is not looked at.

    Parameters
    ----------
    size : int or tuple of int
        Of a window, one number for all axes or one for each.
    stride : int, tuple of int or None, default=None
        Steps between windows; None is their size.

    Examples
    --------
    >>> from sparseshare.network import AvgPool
    >>> AvgPool((2, 3), stride=1)
    AvgPool(size=(2, 3), stride=1)
    """

    _node = _AvgPoolNode
