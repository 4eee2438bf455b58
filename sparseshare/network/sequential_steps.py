"""The recurrent network that codes sequences: iterations of ISTA, unrolled over time."""

import numpy as np

from sparseshare.devices import array_module, device_of
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.optimization.lipschitz import largest_eigenvalue
from sparseshare.threads import run_in_threads, single_threaded_blas

from .blocks import SparseWeights, product, row_blocks, transposed_product
from .layers import Layer, Node
from .parameters import Parameter
from .thresholds import Threshold

_SPARSE_BELOW = 0.12  # density of the codes under which skipping their zeros beats a dense product


class SequentialCoding(Layer):
    """Some iterations of ISTA at every time step, see `SequentialSparseCoder`.

    Parameters
    ----------
    dictionary : ndarray of shape (n_components, n_features)
    alpha, smoothness : float
    n_iter : int
    transition : ndarray of shape (n_features, n_features) or None
    positive : bool
    """

    def __init__(self, dictionary, alpha, smoothness, n_iter, transition, positive):
        self.dictionary = dictionary
        self.alpha = alpha
        self.smoothness = smoothness
        self.n_iter = n_iter
        self.transition = transition
        self.positive = positive

    def connect(self, input_shape, builder):
        """See `Layer`."""
        return _SequentialCodingNode(self, input_shape, builder)


class _SequentialCodingNode(Node):
    """h <- soft(h S + x V + h' U, b), n_iter times, from h' T on; h' is the code before.

    The first weights are those of ISTA with the step 1 / ((1 + smoothness) |D|^2). Arrays have time first.
    """

    def __init__(self, layer, input_shape, builder):
        D, smoothness = layer.dictionary, layer.smoothness
        n_components = len(D)
        super().__init__(layer, (input_shape[0], n_components))
        self.n_threads, self.n_components = builder.n_threads, n_components
        gram, onward = D @ D.T, D if layer.transition is None else D @ layer.transition
        step = 1 / (largest_eigenvalue(gram) or 1.0)
        slow = step / (1 + smoothness)

        def parameter(values):
            return Parameter(np.ascontiguousarray(values, builder.dtype))

        self.weights = parameter(slow * D.T)
        self.lateral = parameter(np.eye(n_components) - step * gram)
        self.recurrent = parameter(slow * smoothness * onward @ D.T)
        self.parameters = {
            "weights": self.weights,
            "lateral_weights": self.lateral,
            "recurrent_weights": self.recurrent,
        }
        self.first = None
        if layer.transition is not None:
            self.first = parameter(np.eye(n_components) + step * (onward - D) @ D.T)
            self.parameters["first_weights"] = self.first
        thresholds = np.full(n_components, slow * layer.alpha, builder.dtype)
        kind = "soft_nonnegative" if layer.positive else "soft"
        self.activation = Threshold(kind, n_components, builder, Parameter(thresholds, nonnegative=True))
        self.activation.learned = True
        self.parameters["threshold"] = self.activation.parameter

    def forward(self, x, training=False, random_state=None, last=None):
        """See `Node`; `last` (n, n_components) are the codes before the first step, None for zeros."""
        if device_of(x) != "cpu":
            return self._forward_there(x, training, last)
        n, n_steps, n_features = x.shape
        n_iter, positive, activation = self.layer.n_iter, self.layer.positive, self.activation
        signals = np.ascontiguousarray(x.transpose(1, 0, 2))
        drive = product(signals.reshape(-1, n_features), self.weights.full(), self.n_threads)
        drive = drive.reshape(n_steps, n, self.n_components)
        recurrent = self.recurrent.full() if self.recurrent.values.any() else None
        first = None if self.first is None else self.first.full()
        lateral = SparseWeights(self.lateral.full(), 0.0 if training else _SPARSE_BELOW)
        # What goes into every iteration, and what comes out of the last one of a time step.
        iterates = np.empty((n_steps, n_iter, n, self.n_components), x.dtype) if training else None
        codes = np.empty_like(drive)
        blocks = row_blocks(n)
        counts = np.zeros(len(blocks), np.int64)
        activation.begin()
        add_and_threshold = kernels_for("cpu", "recurrent").add_and_threshold
        sparse_product = kernels_for("cpu", "sparse_products").sparse_product

        def work(i, worker):
            block = blocks[i]
            pair = np.empty((2, *codes[0, block].shape), x.dtype)
            known = None if last is None else last[block]
            count = 0 if last is None else known.size
            for t in range(n_steps):
                push = drive[t, block]
                h = iterates[t, 0, block] if training else pair[0]
                if known is None:
                    h[...] = 0
                elif first is None:
                    h[...] = known
                else:
                    np.matmul(known, first, out=h)
                    count = h.size
                if known is not None and recurrent is not None:
                    push += np.matmul(known, recurrent, out=pair[1])
                for k in range(n_iter):
                    if k + 1 == n_iter:
                        z = codes[t, block]
                    else:
                        z = iterates[t, k + 1, block] if training else pair[(k + 1) % 2]
                    if count == 0:
                        z[...] = 0
                    elif count < lateral.below * h.size:
                        sparse_product(h, lateral.padded, z)
                    else:
                        np.matmul(h, lateral.padded[:, : self.n_components], out=z)
                    count = add_and_threshold(z, push, activation.thresholds, positive)
                    h = z
                known = h
                counts[i] += count

        with single_threaded_blas:
            run_in_threads(work, len(blocks), self.n_threads)
        activation.finish(counts.sum(), codes.size)
        return np.ascontiguousarray(codes.transpose(1, 0, 2)), (signals, iterates, codes)

    def _forward_there(self, x, training, last):
        """The same on a GPU: all sequences at once, dense products, the threshold in one pass after each."""
        (n, n_steps, n_features), xp, n_iter = x.shape, array_module(x), self.layer.n_iter
        activation, kernels = self.activation, kernels_for(device_of(x), "recurrent")
        signals = xp.ascontiguousarray(x.transpose(1, 0, 2))
        drive = signals.reshape(-1, n_features).dot(self.weights.full()).reshape(n_steps, n, self.n_components)
        recurrent, lateral = self.recurrent.full(), self.lateral.full()
        first = None if self.first is None else self.first.full()
        iterates = xp.empty((n_steps, n_iter, n, self.n_components), x.dtype) if training else None
        codes, pair = xp.empty_like(drive), xp.empty((2, n, self.n_components), x.dtype)
        counts = []
        activation.begin()
        for t in range(n_steps):
            h = iterates[t, 0] if training else pair[0]
            if last is None:
                h.fill(0)
            elif first is None:
                h[...] = last
            else:
                last.dot(first, out=h)
            if last is not None:
                drive[t] += last.dot(recurrent)
            for k in range(n_iter):
                if k + 1 == n_iter:
                    z = codes[t]
                else:
                    z = iterates[t, k + 1] if training else pair[(k + 1) % 2]
                h.dot(lateral, out=z)
                count = kernels.add_and_threshold(z, drive[t], activation.thresholds, self.layer.positive)
                h = z
            counts.append(count)
            last = h
        activation.finish(counts, codes.size)
        return xp.ascontiguousarray(codes.transpose(1, 0, 2)), (signals, iterates, codes)

    def backward(self, dy, cache):
        if device_of(dy) != "cpu":
            return self._backward_there(dy, *cache)
        signals, iterates, codes = cache
        n_steps, n_iter, n, n_components = iterates.shape
        activation, blocks = self.activation, row_blocks(n)
        across, back = (np.ascontiguousarray(w.full().T) for w in (self.lateral, self.recurrent))
        first = None if self.first is None else np.ascontiguousarray(self.first.full().T)
        dz, ddrive = np.empty_like(iterates), np.zeros_like(codes)
        dfirst = None if first is None else np.empty_like(codes)
        sums = np.zeros((2, len(blocks), n_components), codes.dtype)

        def work(i, worker):
            block = blocks[i]
            dh, more = np.zeros_like(codes[0, block]), np.empty_like(codes[0, block])
            for t in range(n_steps - 1, -1, -1):
                dh += dy[block, t]
                push = ddrive[t, block]
                for k in range(n_iter - 1, -1, -1):
                    after = codes[t, block] if k + 1 == n_iter else iterates[t, k + 1, block]
                    activation.differentiate(dh, after, dz[t, k, block], sums[0, i], sums[1, i])
                    push += dz[t, k, block]
                    np.matmul(dz[t, k, block], across, out=dh)
                if first is not None:
                    dfirst[t, block] = dh
                    np.matmul(dfirst[t, block], first, out=dh)
                dh += np.matmul(push, back, out=more)

        with single_threaded_blas:
            run_in_threads(work, len(blocks), self.n_threads)
        activation.add_threshold_gradient(sums[1].sum(axis=0))
        return self._add_gradients(signals, iterates, codes, dz, ddrive, dfirst)

    def _backward_there(self, dy, signals, iterates, codes):
        xp, kernels = array_module(dy), kernels_for(device_of(dy), "activations")
        (n_steps, n_iter), thresholds, mode = iterates.shape[:2], self.activation.thresholds, self.activation.mode
        across, back = self.lateral.full().T, self.recurrent.full().T
        first = None if self.first is None else self.first.full().T
        dz, ddrive = xp.empty_like(iterates), xp.zeros_like(codes)
        dfirst = None if first is None else xp.empty_like(codes)
        slopes, dh = xp.ascontiguousarray(dy.transpose(1, 0, 2)), xp.zeros_like(codes[0])
        for t in range(n_steps - 1, -1, -1):
            dh += slopes[t]
            for k in range(n_iter - 1, -1, -1):
                after = codes[t] if k + 1 == n_iter else iterates[t, k + 1]
                kernels.activation_gradient(dh, after, thresholds, mode, dz[t, k], None, None)
                ddrive[t] += dz[t, k]
                dz[t, k].dot(across, out=dh)
            if first is not None:
                dfirst[t] = dh
                dfirst[t].dot(first, out=dh)
            dh += ddrive[t].dot(back)
        # Where nothing passes, signs are 0; where something does, dz is the gradient by what comes out.
        by_threshold = (xp.sign(codes) * dz[:, -1]).sum(axis=(0, 1))
        by_threshold += (xp.sign(iterates[:, 1:]) * dz[:, :-1]).sum(axis=(0, 1, 2))
        self.activation.add_threshold_gradient(-by_threshold)
        return self._add_gradients(signals, iterates, codes, dz, ddrive, dfirst)

    def _add_gradients(self, signals, iterates, codes, dz, ddrive, dfirst):
        """Gradients by all weights, and by the signals if asked for."""
        n_steps, n, n_components = codes.shape
        rows, before = ddrive.reshape(-1, n_components), codes[:-1].reshape(-1, n_components)
        flat = signals.reshape(len(rows), -1)
        self.weights.add_gradient(transposed_product(flat, rows, self.n_threads))
        self.lateral.add_gradient(
            transposed_product(iterates.reshape(-1, n_components), dz.reshape(-1, n_components), self.n_threads)
        )
        self.recurrent.add_gradient(transposed_product(before, rows[n:], self.n_threads))
        if dfirst is not None:
            self.first.add_gradient(transposed_product(before, dfirst[1:].reshape(-1, n_components), self.n_threads))
        if not self.input_gradient:
            return None
        dx = product(rows, self.weights.full().T, self.n_threads).reshape(n_steps, n, -1)
        return array_module(dx).ascontiguousarray(dx.transpose(1, 0, 2))
