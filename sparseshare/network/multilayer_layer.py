"""`MultilayerCoding`: unrolled ML-ISTA as a layer of a network, to be trained with labels."""

import numpy as np

from sparseshare.devices import array_module, device_of, to_host
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.validation import check_bool, check_number

from .blocks import in_blocks
from .chains import check_each, connected, linear_layers
from .layers import Layer, Node
from .multilayer import SOFT, SOFT_NONNEGATIVE, unrolled
from .operators import Chain
from .parameters import Parameter
from .thresholds import Activation

_GROUPS = 16  # sums over a batch are made in so many parts, whatever the number of threads


class MultilayerCoding(Layer):
    """Codes of the deepest of several layers by some steps of ML-ISTA, all of it trained by backpropagation.

    With `n_steps=0` it is layered thresholding, the stack of its layers each with a threshold of its own. Every step
    more goes back to the signal and through all layers anew, with the same weights: the network gets deeper, the number
    of its parameters stays. Like any such iteration it blows up with step sizes of more than 2 / |D_i|^2; it starts at
    half of that, and learning rates of Adam above the usual 0.001 may take it there.

    Parameters
    ----------
    layers : list of Dense, Conv or int
        What is multiplied by; of their parameters those of the weights are used, and an int is a `Dense`.
    n_steps : int, default=0
        Steps of ML-ISTA after the first pass.
    positive : bool, default=True
        Codes >= 0, as those of a ReLU; thresholds may then become negative and are biases with the sign turned.
    threshold : float or sequence of float or of arrays of shape (n_units,), default=0.0
        First thresholds, one for all layers or one a layer. They are trained, one a unit. Signed codes need some above
        0, else the layers are linear.
    dictionaries : list of arrays or None, default=None
        First weights, as `ml_ista` takes them; None draws them by `init` of their layers, and without `step_sizes`
        brings them to a scale in which codes are as large as signals.
    step_sizes : sequence of float or None, default=None
        First step sizes, which are trained, too; None is 1 / |D_i|^2.

    See Also
    --------
    DeepSparseEncoder.to_classifier : Starts from dictionaries learned without labels.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sparseshare.network import Conv, DeepSparseClassifier, MultilayerCoding
    >>> X, y = load_digits(return_X_y=True)
    >>> network = DeepSparseClassifier(
    ...     [MultilayerCoding([Conv(16, 4), Conv(64, 5)], n_steps=2)],
    ...     image_shape=(8, 8), batch_size=32, max_iter=5, n_iter_no_change=None, random_state=0,
    ... )
    >>> network.fit(X[:1000] / 16, y[:1000]).score(X[1000:] / 16, y[1000:]) > 0.9
    True

    References
    ----------
    J. Sulam, A. Aberdam, A. Beck, M. Elad, "On multi-layer basis pursuit, efficient algorithms and convolutional neural
    networks", IEEE TPAMI 2019.
    """

    def __init__(self, layers, *, n_steps=0, positive=True, threshold=0.0, dictionaries=None, step_sizes=None):
        self.layers = layers
        self.n_steps = n_steps
        self.positive = positive
        self.threshold = threshold
        self.dictionaries = dictionaries
        self.step_sizes = step_sizes

    def connect(self, input_shape, builder):
        """See `Layer`."""
        check_number("n_steps", self.n_steps, 0, integer=True, of="MultilayerCoding")
        check_bool("positive", self.positive, of="MultilayerCoding")
        layers = linear_layers(self.layers, "MultilayerCoding")
        operators = connected(layers, input_shape, builder, "MultilayerCoding")
        return _MultilayerNode(self, operators, builder)


class _MultilayerNode(Node):
    def __init__(self, layer, operators, builder):
        super().__init__(layer, operators[-1].output_shape)
        self.operators, self.n_threads, dtype = operators, builder.n_threads, builder.dtype
        self.weights = [operator.node.weights for operator in operators]
        self.mode = SOFT_NONNEGATIVE if layer.positive else SOFT
        self._set_dictionaries(layer.dictionaries)
        n_layers, owner = len(operators), "MultilayerCoding"
        self.thresholds = [
            Parameter(values.astype(dtype), nonnegative=not layer.positive)
            for values in _first_thresholds(layer.threshold, operators, not layer.positive)
        ]
        if layer.step_sizes is None:
            norms2 = self._chain().norms2()
            if layer.dictionaries is None:
                norms2 = self._scale_weights(norms2)
            sizes = [1 / norm2 if norm2 else 1.0 for norm2 in norms2]
        else:
            sizes = check_each("step_sizes", layer.step_sizes, n_layers, 0, of=owner, open_low=True)
        self.steps = [Parameter(np.full(1, size, dtype), nonnegative=True) for size in sizes]
        self.parameters = {}
        for number, parts in enumerate(zip(self.weights, self.thresholds, self.steps, strict=True), 1):
            self.parameters |= {
                f"{name}{number}": part for name, part in zip(("weights", "threshold", "step"), parts, strict=True)
            }
        self.activation = Activation("soft_nonnegative" if layer.positive else "soft", self.output_shape[-1], builder)

    def _set_dictionaries(self, dictionaries):
        if dictionaries is None:
            return
        n_layers = len(self.operators)
        if not isinstance(dictionaries, list | tuple) or len(dictionaries) != n_layers:
            raise ValueError(
                f"The 'dictionaries' parameter of MultilayerCoding must be a list of {n_layers}, one a layer, or None"
            )
        for number, (operator, weights, atoms) in enumerate(
            zip(self.operators, self.weights, dictionaries, strict=True), 1
        ):
            expected = (operator.weights_shape[1], *operator.atom_shape)
            if np.shape(atoms) != expected:
                raise ValueError(
                    f"dictionary {number} of MultilayerCoding must have the shape {expected}, got {np.shape(atoms)}"
                )
            if weights.shared:
                raise ValueError(f"layer {number} of MultilayerCoding shares weights: it takes no dictionary")
            weights.values[...] = operator.weights(np.asarray(to_host(atoms)), weights.values.dtype)
            weights.project()

    def _scale_weights(self, norms2):
        """Bring drawn weights to the scale in which a first pass, with steps of 1 / |D|^2, keeps the mean square.

        With weights s times as large it gives 1 / s times as much: others train slower, or not at all.
        """
        scaled = []
        for weights, operator, norm2 in zip(self.weights, self.operators, norms2, strict=True):
            if operator.node.layer.share is None and norm2:
                scale = np.sqrt(np.mean(weights.values**2) * len(weights.values)) / norm2
                weights.values *= weights.values.dtype.type(scale)
                norm2 *= scale**2
            scaled.append(norm2)
        return scaled

    def _chain(self):
        return Chain(self.operators, [weights.full() for weights in self.weights])

    def _passes(self, x, chain):
        """Codes and estimates of every pass, for some samples."""
        passes, xp = [], array_module(x)
        thresholds = [xp.ascontiguousarray(parameter.values) for parameter in self.thresholds]
        # Those of a GPU stay there: the host is not to wait for them.
        steps = [float(p.values[0]) if xp is np else p.values for p in self.steps]
        unrolled(x, chain, thresholds, steps, 1 + self.layer.n_steps, self.layer.positive, keep=passes)
        return passes

    def forward(self, x, training=False, random_state=None):
        xp, chain = array_module(x), self._chain()
        x, blocks = xp.ascontiguousarray(x), chain.blocks(len(x))
        y, passes = xp.empty((len(x), *self.output_shape), x.dtype), [None] * len(blocks)
        counts = [0] * len(blocks)

        def work(i, worker):
            found = self._passes(x[blocks[i]], chain)
            y[blocks[i]] = found[-1][0][-1]
            counts[i] = xp.count_nonzero(y[blocks[i]])
            if training:  # else so much would be kept for nothing; a gradient that is asked for makes it anew
                passes[i] = found

        in_blocks(work, blocks, self.n_threads, device_of(x))
        self.activation.finish(counts, y.size)
        return y, (x, passes)

    def backward(self, dy, cache):
        x, passes = cache
        xp, chain = array_module(dy), self._chain()
        dy, blocks = xp.ascontiguousarray(dy), chain.blocks(len(x))
        groups = [range(start, len(blocks), _GROUPS) for start in range(min(_GROUPS, len(blocks)))]
        dx = xp.empty_like(x) if self.input_gradient else None
        sums = [_Sums(chain) for _ in groups]

        def work(group, worker):
            for i in groups[group]:
                some = self._passes(x[blocks[i]], chain) if passes[i] is None else passes[i]
                found = self._backward(dy[blocks[i]], some, chain, sums[group])
                if dx is not None:
                    dx[blocks[i]] = found

        in_blocks(work, groups, self.n_threads, device_of(x))
        for name, parameters in (("weights", self.weights), ("thresholds", self.thresholds), ("steps", self.steps)):
            for i, parameter in enumerate(parameters):
                for part in sums:
                    parameter.add_gradient(getattr(part, name)[i])
        return dx

    def _backward(self, dy, passes, chain, sums):
        """Gradient by the signals of some samples; those by the parameters are added to `sums`."""
        xp, operators, last = array_module(dy), chain.operators, len(chain.operators)
        steps = [parameter.values[0] for parameter in self.steps]
        dx, upstream = 0, dy
        for codes, estimates in reversed(passes):
            by_estimates = [0] * (last + 1)
            for i in reversed(range(last)):
                dz = self._threshold_gradient(i, upstream, codes[i + 1], sums)
                towards = codes[i] if estimates is None else codes[i] - estimates[i]
                back = operators[i].synthesise(dz, chain.weights[i])
                sums.weights[i] += steps[i] * operators[i].gradient(towards, dz)
                sums.steps[i] += xp.vdot(back, towards)
                back *= steps[i]
                upstream = back
                by_estimates[i + 1] = by_estimates[i + 1] + dz
                by_estimates[i] = -back
            dx = dx + upstream
            if estimates is None:
                break
            for i in range(last):
                upstream = operators[i].analyse(by_estimates[i], chain.weights[i])
                sums.weights[i] += operators[i].gradient(by_estimates[i], estimates[i + 1])
                by_estimates[i + 1] += upstream
            upstream = by_estimates[last]
        return dx

    def _threshold_gradient(self, i, upstream, codes, sums):
        """Gradient by what the thresholds of a layer were given; that by them is added to `sums`."""
        xp, device, n_units = array_module(codes), device_of(codes), codes.shape[-1]
        kernels, dz = kernels_for(device, "activations"), xp.empty_like(codes)
        rows = [array.reshape(-1, n_units) for array in (upstream, codes, dz)]
        into = sums.unused[i], sums.thresholds[i]
        if device != "cpu":
            into = None, xp.empty((kernels.sum_parts(*rows[1].shape), n_units), codes.dtype)
        kernels.activation_gradient(*rows[:2], self.thresholds[i].values, self.mode, rows[2], *into)
        if device != "cpu":
            sums.thresholds[i] += into[1].sum(axis=0)
        return dz


class _Sums:
    """Gradients of a part of a batch."""

    def __init__(self, chain):
        xp = array_module(chain.weights[0])
        self.weights = [xp.zeros_like(weights) for weights in chain.weights]
        self.thresholds = [xp.zeros(weights.shape[1], chain.dtype) for weights in chain.weights]
        self.unused = [xp.zeros(weights.shape[1], chain.dtype) for weights in chain.weights]
        self.steps = xp.zeros((len(chain.weights), 1), chain.dtype)


def _first_thresholds(threshold, operators, nonnegative):
    """Thresholds of every layer, one a unit."""
    several = isinstance(threshold, list | tuple | np.ndarray)
    given = list(threshold) if several else [threshold] * len(operators)
    if len(given) != len(operators):
        raise ValueError(
            f"The 'threshold' parameter of MultilayerCoding must be one number or {len(operators)} entries, one a "
            f"layer, got {len(given)}"
        )
    for number, (entry, operator) in enumerate(zip(given, operators, strict=True)):
        n_units = operator.output_shape[-1]
        values = np.asarray(np.nan if isinstance(entry, str) else entry, np.float64)
        if values.shape not in ((), (n_units,)) or not np.isfinite(values).all() or (nonnegative and values.min() < 0):
            raise ValueError(
                f"The 'threshold' parameter of MultilayerCoding must hold a finite number or {n_units} of them for "
                f"layer {number}{', none below 0' if nonnegative else ''}, got {entry!r}"
            )
        yield np.full(n_units, values)
