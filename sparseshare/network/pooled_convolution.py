"""`Conv` and the `MaxPool` behind it computed as one: what lies between them never leaves the nearest caches."""

from math import gcd, prod

import numpy as np

from sparseshare.devices import array_module, device_of
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.threads import run_in_threads

from .blocks import SparseWeights, aligned, aligned_empty
from .convolutional import FEW_CHANNELS, ConvNode, MaxPoolNode, Scratch

_GROUPS = 16  # a batch is worked on in so many parts, whatever the number of threads
_STRIP_BYTES = 1 << 15  # of what lies between convolution and pooling, at a time
_SPARSE_BELOW = 0.35  # density of the input under which skipping its zeros beats a dense product
_SAMPLED = 256  # rows of a group that the tracking of a density looks at
_SAMPLED_THERE = 4096  # of a batch on a GPU


def joined(nodes):
    """Nodes in their order, pairs that can be computed as one in place of their two parts.

    Parameters
    ----------
    nodes : sequence of Node

    Returns
    -------
    list of objects with `forward` and `backward`
    """
    steps = []
    for node in nodes:
        if steps and PooledConv.fits(steps[-1], node):
            steps[-1] = PooledConv(steps[-1], node)
        else:
            steps.append(node)
    return steps


class PooledConv:
    """A node of `Conv` and one of `MaxPool` whose windows tile its output.

    It gives what the two give one after the other, up to rounding, but that the density of the activations is measured
    without those at the far ends that no window looks at: they are not computed.

    Parameters
    ----------
    conv, pool : Node
        That `fits` says yes to.
    """

    def __init__(self, conv, pool):
        self.conv, self.pool = conv, pool

    @staticmethod
    def fits(conv, pool):
        """Whether two nodes can be computed as one."""
        if not (isinstance(conv, ConvNode) and isinstance(pool, MaxPoolNode) and pool.window[:2] == pool.window[2:]):
            return False
        if not conv.activation.pointwise or prod(pool.window[:2]) > 256:  # places in a window are bytes
            return False
        if conv.weights.device != "cpu":
            return True
        lanes = _lanes(conv.weights.values.dtype)
        whole = conv.kernel[1] * conv.image[2] % lanes == 0 or not conv.input_gradient
        return whole and conv.output_shape[-1] % lanes == 0

    def forward(self, x, training=False, random_state=None):
        """See `Node.forward`."""
        if device_of(x) != "cpu":
            return self._forward_there(x, training)
        conv, activation, window = self.conv, self.conv.activation, self.pool.window[:2]
        weights = aligned(conv.weights.full())
        x = aligned(np.asarray(x, weights.dtype).reshape(-1, *conv.image))  # the kernels take one type
        bias = self._bias(x.dtype)
        n_lines, n_pixels, n_filters = self.pool.pooled
        y = aligned_empty((len(x), n_lines, n_pixels, n_filters), x.dtype)
        place = np.empty(y.shape, np.uint8)
        blocks, tracked = _blocks(len(x)), {}
        counts = [0] * len(blocks)
        strip_rows = prod(window) * n_pixels
        strip = max(1, min(n_lines, _STRIP_BYTES // (strip_rows * n_filters * x.itemsize)))
        kernels = kernels_for("cpu", "pooled_convolution")
        scratch = [(max(strip * strip_rows, kernels.ROWS), n_filters), self._padded_shape()]
        memory = Scratch(x.dtype, *scratch)
        sparse = None if training or conv.image[2] <= FEW_CHANNELS else SparseWeights(weights, _SPARSE_BELOW)
        activation.begin()
        limits = aligned(activation.limits())

        def work(i, worker):
            some, (z, padded) = x[blocks[i]], memory[worker]
            every, kept = 1, np.empty((0, n_filters), x.dtype)
            if training and activation.tracks:
                n_patches = len(some) * n_lines * strip_rows
                every = _coprime(-(-n_patches // _SAMPLED), n_pixels * window[1])
                kept = np.empty((-(-n_patches // every), n_filters), x.dtype)
                tracked[i] = kept
            skip_zeros = sparse is not None and sparse.pays(some.reshape(len(some), -1))
            counts[i] = kernels.pooled_patches(
                some, *conv.before, padded, *conv.grid[:4], *window, weights, bias, limits, skip_zeros, z, y[blocks[i]],
                place[blocks[i]], kept, every,
            )  # fmt: skip

        run_in_threads(work, len(blocks), conv.n_threads)
        activation.finish(counts, len(x) * n_lines * strip_rows * n_filters, tracked)
        return y.reshape(len(x), *self.pool.output_shape), (x, y, place)

    def backward(self, dy, cache):
        """See `Node.backward`."""
        if device_of(dy) != "cpu":
            return self._backward_there(dy, *cache)
        conv, activation, window = self.conv, self.conv.activation, self.pool.window[:2]
        x, y, place = cache
        dy = np.ascontiguousarray(dy).reshape(y.shape)
        n_filters, n_rows = y.shape[-1], conv.weights.shape[0]
        blocks = _blocks(len(x))
        dx = aligned_empty(x.shape if conv.input_gradient else (0, 1, 1, 1), x.dtype)
        kernels, padded_shape = kernels_for("cpu", "pooled_convolution"), self._padded_shape()
        transposed = conv.kernel[1] * conv.image[2] % _lanes(x.dtype) == 0
        shape = (n_filters, n_rows) if transposed else (-(-n_rows // kernels.TAPS) * kernels.TAPS, n_filters)
        sums = aligned_empty((len(blocks), *shape), x.dtype)
        bias_sums = np.zeros((len(blocks), n_filters), x.dtype)
        threshold_sums = np.zeros((len(blocks), n_filters if activation.learned else 0), x.dtype)
        weights = aligned(conv.weights.full().T) if transposed else None
        step = blocks[0].stop if blocks else 0
        memory = Scratch(x.dtype, padded_shape, padded_shape, (step, *y.shape[1:]))

        def work(i, worker):
            block = blocks[i]
            padded, back, slopes = memory[worker]
            slopes = slopes[: block.stop - block.start]
            # Of all that a window looked at only its largest value has a gradient, and that value is at hand.
            activation.differentiate(dy[block], y[block], slopes, bias_sums[i], threshold_sums[i])
            sums[i] = 0
            given = (x[block], *conv.before, padded, *conv.grid[:4], *window)
            if transposed:
                kernels.pooled_gradients(*given, weights, slopes, place[block], sums[i], back, dx[block])
            else:
                kernels.pooled_tap_gradients(*given, slopes, place[block], sums[i])

        run_in_threads(work, len(blocks), conv.n_threads)
        total = sums.sum(axis=0)
        conv.weights.add_gradient(total.T if transposed else total[:n_rows])
        if conv.bias is not None:
            conv.bias.add_gradient(bias_sums.sum(axis=0))
        activation.add_threshold_gradient(threshold_sums.sum(axis=0))
        return dx.reshape(len(x), *conv.input_shape) if conv.input_gradient else None

    def _forward_there(self, x, training):
        """The same on a GPU, the whole batch at once."""
        conv, activation, window, xp = self.conv, self.conv.activation, self.pool.window[:2], array_module(x)
        weights, bias = conv.weights.full(), None if conv.bias is None else conv.bias.full()
        x = xp.ascontiguousarray(x, weights.dtype).reshape(-1, *conv.image)
        y = xp.empty((len(x), *self.pool.pooled), x.dtype)
        place = xp.empty(y.shape, np.uint8)
        n_patches, every = len(x) * prod(self.pool.pooled[:2]) * prod(window), None
        if training and activation.tracks:
            every = _coprime(-(-n_patches // _SAMPLED_THERE), self.pool.pooled[1] * window[1])
        activation.begin()
        counts, kept, columns = kernels_for(device_of(x), "pooled_convolution").pooled_patches(
            x, *conv.before, *conv.grid[:4], *window, weights, bias, activation.thresholds, activation.mode, y, place,
            every,
        )  # fmt: skip
        activation.finish(counts, n_patches * y.shape[-1], dict(enumerate(kept)))
        return y.reshape(len(x), *self.pool.output_shape), (x, y, place, columns if training else None)

    def _backward_there(self, dy, x, y, place, columns):
        conv, (ph, pw), xp = self.conv, self.pool.window[:2], array_module(x)
        kernels, (n_lines, n_pixels) = kernels_for(device_of(x), "pooled_convolution"), y.shape[1:3]
        given, activation = (x, *conv.before, *conv.grid[:4]), conv.activation
        if kernels.goes_without_columns(conv.weights.shape[0]) and not conv.input_gradient:
            slopes = activation.backward_there(dy, y, conv.bias).reshape(y.shape)
            conv.weights.add_gradient_parts(kernels.pooled_tap_gradients(*given, ph, pw, slopes, place))
            return None
        dz = activation.backward_there(dy, y, conv.bias, place, (ph, pw, n_pixels))
        dx = xp.empty_like(x) if conv.input_gradient else None
        parts = kernels.pooled_gradients(*given, n_lines * ph, n_pixels * pw, conv.weights.full(), dz, columns, dx)
        conv.weights.add_gradient_parts(parts)
        return None if dx is None else dx.reshape(len(x), *conv.input_shape)

    def _bias(self, dtype):
        bias = self.conv.bias
        return np.zeros(self.conv.output_shape[-1], dtype) if bias is None else aligned(bias.full())

    def _padded_shape(self):
        """Of an image inside zeros; of no size where there are none."""
        return (*self.conv.padded, self.conv.image[2]) if self.conv.pads else (0, 1, 1)


def _blocks(n_samples):
    step = max(1, -(-n_samples // _GROUPS))
    return [slice(start, min(start + step, n_samples)) for start in range(0, n_samples, step)]


def _lanes(dtype):
    return kernels_for("cpu", "pooled_convolution").LANE_BYTES // dtype.itemsize


def _coprime(step, n_pixels):
    """The next step from this one on that visits all pixels of lines of this length."""
    while gcd(step, n_pixels) > 1:
        step += 1
    return step
