"""`UnrolledISTA`: the steps of iterative soft thresholding as a layer whose weights can be learned."""

from math import sqrt

import numpy as np

from sparseshare.devices import array_module, device_of, to_host
from sparseshare.kernels.dispatch import kernels_for
from sparseshare.optimization.lipschitz import largest_eigenvalue
from sparseshare.threads import single_threaded_blas
from sparseshare.validation import check_bool, check_choice, check_dictionary, check_number

from .blocks import in_blocks, product, row_blocks, transposed_product
from .layers import Layer, Node
from .parameters import Parameter
from .unrolled_codes import unrolled_codes

WEIGHTS = ("tied", "untied", "coupled", "analytic")
_SOFT, _SOFT_NONNEGATIVE = 1, 2  # the modes of the kernels


class UnrolledISTA(Layer):
    """A fixed number of steps of iterative soft thresholding, z <- soft(x W + z S, theta), from z = 0.

    At first it is ISTA for 0.5 |x - z D|^2 + alpha |z|_1: W = D'/L, S = I - D D'/L, theta = alpha/L, L the largest
    eigenvalue of D D'. Training moves W, S and theta.

    Parameters
    ----------
    dictionary : array-like of shape (n_components, n_features)
        D, atoms as rows.
    alpha : float, default=1.0
        0 leaves thresholds at 0.
    n_steps : int, default=8
    weights : {"tied", "untied", "coupled", "analytic"}, default="tied"
        One W, S and theta for all steps; one set a step; one W and theta a step with S = I - D W; or one step length
        and theta a step, with W fixed.
    positive : bool, default=False
        Codes >= 0.
    every_step : bool, default=False
        In training the output is the codes after every step, (n_steps, n_components).
    accelerate : bool, default=False
        Take every step from y = z + beta (z - the codes before z) in place of z. The beta of a step is a weight like
        the others; at first they are those of FISTA.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network import Network
    >>> from sparseshare.network.unrolled_steps import UnrolledISTA
    >>> network = Network([UnrolledISTA(np.eye(3), 1.0, n_steps=2)], (3,))
    >>> network.output(np.array([[3.0, -0.5, 1.5]])).round(2)
    array([[2. , 0. , 0.5]])
    """

    def __init__(
        self, dictionary, alpha=1.0, *, n_steps=8, weights="tied", positive=False, every_step=False, accelerate=False
    ):
        self.dictionary = dictionary
        self.alpha = alpha
        self.n_steps = n_steps
        self.weights = weights
        self.positive = positive
        self.every_step = every_step
        self.accelerate = accelerate

    def connect(self, input_shape, builder):
        """See `Layer`."""
        dictionary = check_dictionary(to_host(self.dictionary))
        check_number("alpha", self.alpha, 0, of="UnrolledISTA")
        check_number("n_steps", self.n_steps, 1, integer=True, of="UnrolledISTA")
        check_choice("weights", self.weights, WEIGHTS, of="UnrolledISTA")
        check_bool("positive", self.positive, of="UnrolledISTA")
        check_bool("every_step", self.every_step, of="UnrolledISTA")
        check_bool("accelerate", self.accelerate, of="UnrolledISTA")
        if tuple(input_shape) != (dictionary.shape[1],):
            raise ValueError(f"its dictionary has atoms of {dictionary.shape[1]} features")
        return _NODES[self.weights](self, dictionary, builder)


def analytic_weights(dictionary):
    """Weights W of ALISTA: they minimise |D W|_F with d_i w_i = 1 for every atom, w_i being column i.

    Parameters
    ----------
    dictionary : array-like of shape (n_components, n_features)
        D, atoms as rows, of any norm.

    Returns
    -------
    ndarray of shape (n_features, n_components)
        Zeros for atoms of zeros.

    Notes
    -----
    A column of its own minimises |D w|^2 under one linear equation, so that w is (D'D)^+ d over d (D'D)^+ d'.

    References
    ----------
    J. Liu, X. Chen, Z. Wang, W. Yin, "ALISTA: analytic weights are as good as learned weights in LISTA", ICLR 2019,
    equation 16.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network.unrolled_steps import analytic_weights
    >>> analytic_weights(np.array([[2.0, 0.0], [0.0, 1.0]]))
    array([[0.5, 0. ],
           [0. , 1. ]])
    """
    dictionary = check_dictionary(dictionary)
    return _analytic(dictionary.astype(np.float64))[0].astype(dictionary.dtype)


def fista_momenta(n_steps):
    """Momentum of every step of FISTA, (t_k - 1) / t_{k+1} with t_1 = 1 and t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2.

    Parameters
    ----------
    n_steps : int

    Returns
    -------
    ndarray of shape (n_steps,)
        The first step has none, for it starts from zeros; nor has the second.

    References
    ----------
    A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIAM J.
    Imaging Sciences 2(1), 2009, equations 4.2 and 4.3.

    Examples
    --------
    >>> from sparseshare.network.unrolled_steps import fista_momenta
    >>> fista_momenta(4).round(3)
    array([0.   , 0.   , 0.282, 0.434])
    """
    momenta, t = np.zeros(n_steps), 1.0
    for k in range(1, n_steps):
        t_old, t = t, (1 + sqrt(1 + 4 * t * t)) / 2
        momenta[k] = (t_old - 1) / t
    return momenta


def _analytic(atoms):
    """Analytic weights, and the largest eigenvalue of D W."""
    left, sizes, right = np.linalg.svd(atoms, full_matrices=False)
    some = sizes > max(atoms.shape) * np.finfo(atoms.dtype).eps * sizes[0]
    left, sizes, right = left[:, some], sizes[some], right[some]
    along = (left**2).sum(axis=1)
    scales = np.divide(1, along, out=np.zeros_like(along), where=along > np.finfo(atoms.dtype).eps)
    # D W is a projection, left @ left.T, with its columns scaled: it is similar to a symmetric matrix.
    largest = np.linalg.norm(np.sqrt(scales)[:, None] * left, 2) ** 2 if len(sizes) else 1.0
    return (right.T / sizes) @ left.T * scales, largest


class _UnrolledNode(Node):
    """What all kinds of weights share: the loops over tiles and steps.

    Weights and thresholds are stored in units in which unit atoms give ISTA weights of the size of D and thresholds of
    1, however short its steps are: then one learning rate suits all.

    Subclasses have `_build`, `_prepared`, `_advance`, `_retreat`, `_add_gradients` and `_steps`.
    """

    def __init__(self, layer, dictionary, builder):
        self.n_components = len(dictionary)
        super().__init__(layer, (self.n_components,))
        self.n_threads, self.n_steps = builder.n_threads, layer.n_steps
        self.mode = _SOFT_NONNEGATIVE if layer.positive else _SOFT
        atoms = dictionary.astype(np.float64)
        self.dictionary = np.ascontiguousarray(atoms, builder.dtype)
        self.norm = float(np.sqrt((atoms**2).sum() / self.n_components)) or 1.0
        self.largest = largest_eigenvalue(atoms @ atoms.T) or 1.0
        self.n_sets = 1 if layer.weights == "tied" else layer.n_steps
        first = self._build(atoms)
        self.first_thresholds = np.asarray(first, builder.dtype)
        ones = np.ones((self.n_sets, self.n_components), builder.dtype)
        self.parameters["threshold"] = Parameter(ones, nonnegative=True)
        if layer.accelerate and self.n_steps > 1:
            self.parameters["momenta"] = Parameter(fista_momenta(self.n_steps)[1:].astype(builder.dtype))

    def _parameter(self, name, first, n_sets):
        """So many copies of an array, to be trained."""
        first = np.repeat(np.asarray(first, self.dictionary.dtype)[None], n_sets, axis=0)
        self.parameters[name] = Parameter(first)
        return self.parameters[name]

    def _thresholds(self):
        """Of every step, (n_steps, n_components)."""
        values = self.parameters["threshold"].values * self.first_thresholds
        return array_module(values).broadcast_to(values, (self.n_steps, self.n_components)).copy()

    def momenta(self):
        """Momentum of every step.

        Returns
        -------
        ndarray of shape (n_steps,) or None
            None without acceleration. The first is 0, for there are no codes before it.
        """
        if not self.layer.accelerate:
            return None
        values = self.parameters["momenta"].values if self.n_steps > 1 else self.first_thresholds[:0]
        xp = array_module(values)
        return xp.concatenate([xp.zeros(1, values.dtype), values])

    def step_weights(self, step):
        """W, S and theta of a step, numbered from 0.

        Parameters
        ----------
        step : int

        Returns
        -------
        W : ndarray of shape (n_features, n_components)
        S : ndarray of shape (n_components, n_components)
        theta : ndarray of shape (n_components,)
        """
        inputs, factor, recurrent, thresholds = self._steps(step + 1)[step]
        return factor * inputs, self._beside(inputs) if recurrent is None else recurrent, thresholds

    def forward(self, x, training=False, random_state=None):
        """See `Node`."""
        if not training:
            return self.codes(x), (x, None)
        passed = self._pass(x)
        states = passed[1]
        return states[1:].transpose(1, 0, 2) if self.layer.every_step else states[-1], (x, passed)

    def _pass(self, x):
        """Weights, codes before and after every step, where steps start, and what `_advance` keeps, for `backward`."""
        weights, thresholds, momenta, n = self._prepared(), self._thresholds(), self.momenta(), len(x)
        device, xp = device_of(x), array_module(x)
        states = xp.empty((self.n_steps + 1, n, self.n_components), x.dtype)
        states[0] = 0
        points = states[:-1] if momenta is None else xp.zeros_like(states[:-1])
        kept = xp.empty((self.n_steps, n, x.shape[1] if self.keeps_residuals else 0), x.dtype)
        blocks, no_bias = _blocks(n, device), np.zeros(self.n_components, x.dtype) if device == "cpu" else None
        kernels = kernels_for(device, "activations")

        def work(i, worker):
            rows = blocks[i]
            for t in range(self.n_steps):
                z = states[t + 1, rows]
                if momenta is not None and t:
                    points[t, rows] = (1 + momenta[t]) * states[t, rows] - momenta[t] * states[t - 1, rows]
                self._advance(t, weights, x[rows], points[t, rows], z, kept[t, rows])
                kernels.activate(z, no_bias, thresholds[t], self.mode)

        in_blocks(work, blocks, self.n_threads, device)
        return weights, states, points, kept, thresholds

    def backward(self, dy, cache):
        """See `Node`."""
        x, passed = cache
        weights, states, points, kept, thresholds = self._pass(x) if passed is None else passed
        momenta, device, xp = self.momenta(), device_of(x), array_module(x)
        gradients = xp.empty_like(states[1:])
        dx = xp.zeros_like(x) if self.input_gradient else None
        blocks, kernels = _blocks(len(x), device), kernels_for(device, "activations")
        # By step and unit, in parts that are added up at the end: a block's on the CPU, some rows' on a GPU.
        n_parts = len(blocks) if device == "cpu" else kernels.sum_parts(len(x), self.n_components)
        sums = np.zeros((len(blocks), self.n_components), x.dtype) if device == "cpu" else [None]
        threshold_sums = xp.zeros((self.n_steps, n_parts, self.n_components), x.dtype)
        momentum_sums = xp.zeros((len(blocks), self.n_steps))

        def work(i, worker):
            rows = blocks[i]
            every = dy.ndim == 3
            slope, carried = xp.ascontiguousarray(dy[rows, -1] if every else dy[rows]), None
            for t in reversed(range(self.n_steps)):
                dz, parts = gradients[t, rows], threshold_sums[t, i] if device == "cpu" else threshold_sums[t]
                kernels.activation_gradient(slope, states[t + 1, rows], thresholds[t], self.mode, dz, sums[i], parts)
                slope = self._retreat(t, weights, dz, None if dx is None else dx[rows])
                if momenta is not None and t:
                    momentum_sums[i, t] = xp.vdot(slope, states[t, rows] - states[t - 1, rows])
                    earlier = -momenta[t] * slope  # for the codes before those that the step starts from
                    slope = (1 + momenta[t]) * slope
                    if carried is not None:
                        slope += carried
                    carried = earlier
                if every and t:
                    slope += dy[rows, t - 1]

        with single_threaded_blas:
            in_blocks(work, blocks, self.n_threads, device)
            self._add_gradients(x, points, kept, gradients)
        by_step = threshold_sums.sum(axis=1) * self.first_thresholds
        self.parameters["threshold"].add_gradient(by_step.sum(axis=0, keepdims=True) if self.n_sets == 1 else by_step)
        if "momenta" in self.parameters:
            self.parameters["momenta"].add_gradient(momentum_sums.sum(axis=0)[1:].astype(x.dtype))
        return dx

    def codes(self, x, n_steps=None, sparse=False, n_sweeps=0):
        """Codes of signals after all steps or the first few, computed where the weights are.

        Parameters
        ----------
        x : array of shape (n_samples, n_features)
            Of the host, or of that device.
        n_steps : int or None, default=None
        sparse : bool, default=False
        n_sweeps : int, default=0
            Passes of coordinate descent after the steps, over the atoms that they leave.

        Returns
        -------
        ndarray or csr_array of shape (n_samples, n_components)
        """
        return unrolled_codes(
            x,
            self._steps(self.n_steps if n_steps is None else n_steps),
            self.layer.positive,
            self.n_threads,
            sparse,
            self.dictionary,
            self.momenta(),
            alpha=self.layer.alpha,
            n_sweeps=n_sweeps,
        )


class _FreeNode(_UnrolledNode):
    """W and S, learned each for itself, one for all steps or one a step (of S: a step after the first)."""

    keeps_residuals = False

    def _build(self, atoms):
        n_recurrent = min(self.n_steps - 1, self.n_sets)
        self.units = self.norm / self.largest, self.norm**2 / self.largest
        self.parameters = {}
        self.weights = self._parameter("weights", atoms.T / self.norm, self.n_sets)
        self.recurrent = None  # one step needs none
        if n_recurrent:
            self.recurrent = self._parameter("recurrent_weights", atoms @ atoms.T / self.norm**2, n_recurrent)
        return np.full(self.n_components, self.layer.alpha / self.largest)

    def _prepared(self):
        """(W, S) of every step."""
        scalar = self.dictionary.dtype.type
        inputs = list(self.weights.values * scalar(self.units[0]))
        recurrent = []
        for values in () if self.recurrent is None else self.recurrent.values:
            recurrent.append(_with_identity(values * scalar(-self.units[1])))
        if self.n_sets == 1:
            return list(zip(inputs * self.n_steps, (recurrent * self.n_steps or [None])[: self.n_steps], strict=True))
        return list(zip(inputs, [recurrent[0] if recurrent else None, *recurrent], strict=True))

    def _steps(self, n_steps):
        thresholds = self._thresholds()
        zeros = array_module(self.dictionary).zeros((self.n_components,) * 2, self.dictionary.dtype)
        one = self.dictionary.dtype.type(1)
        return [
            (inputs, one, zeros if recurrent is None else recurrent, thresholds[t])
            for t, (inputs, recurrent) in enumerate(self._prepared()[:n_steps])
        ]

    def _advance(self, t, weights, x, before, z, kept):
        inputs, recurrent = weights[t]
        array_module(x).matmul(x, inputs, out=z)
        if t:
            z += before @ recurrent

    def _retreat(self, t, weights, dz, dx):
        inputs, recurrent = weights[t]
        if dx is not None:
            dx += dz @ inputs.T
        return dz @ recurrent.T if t else None

    def _add_gradients(self, x, points, kept, gradients):
        scalar, xp = self.dictionary.dtype.type, array_module(x)
        if self.n_sets == 1:
            by_inputs = [transposed_product(x, gradients.sum(axis=0), self.n_threads)]
            rows = [array.reshape(-1, self.n_components) for array in (points[1:], gradients[1:])]
            by_recurrent = [transposed_product(*rows, self.n_threads)] if self.n_steps > 1 else []
        else:
            by_inputs = [transposed_product(x, dz, self.n_threads) for dz in gradients]
            by_recurrent = [
                transposed_product(z, dz, self.n_threads) for z, dz in zip(points[1:], gradients[1:], strict=True)
            ]
        self.weights.add_gradient(xp.stack(by_inputs) * scalar(self.units[0]))
        if self.recurrent is not None:
            self.recurrent.add_gradient(xp.stack(by_recurrent) * scalar(-self.units[1]))


class _ResidualNode(_UnrolledNode):
    """z + (x - z D) V with V = W, learned at every step: S = I - D V."""

    keeps_residuals = True

    def _build(self, atoms):
        self.unit = self.norm / self.largest
        self.parameters = {}
        self.weights = self._parameter("weights", atoms.T / self.norm, self.n_steps)
        return np.full(self.n_components, self.layer.alpha / self.largest)

    def _prepared(self):
        """V of every step."""
        return self.weights.values * self.dictionary.dtype.type(self.unit)

    def _steps(self, n_steps):
        thresholds, one = self._thresholds(), self.dictionary.dtype.type(1)
        wide = self.n_components > self.dictionary.shape[1]
        return [
            (inputs, one, None if wide else self._beside(inputs), thresholds[t])
            for t, inputs in enumerate(self._prepared()[:n_steps])
        ]

    def _beside(self, inputs):
        return _with_identity(product(self.dictionary, -inputs, self.n_threads))

    def _advance(self, t, weights, x, before, z, kept):
        xp = array_module(x)
        if t:
            xp.matmul(before, self.dictionary, out=kept)
            xp.subtract(x, kept, out=kept)
        else:
            kept[:] = x
        xp.matmul(kept, weights[t], out=z)
        if t:
            z += before

    def _retreat(self, t, weights, dz, dx):
        by_residual = dz @ weights[t].T
        if dx is not None:
            dx += by_residual
        return dz - by_residual @ self.dictionary.T if t else None

    def _add_gradients(self, x, points, kept, gradients):
        by_weights = [transposed_product(r, dz, self.n_threads) for r, dz in zip(kept, gradients, strict=True)]
        self.weights.add_gradient(array_module(x).stack(by_weights) * self.dictionary.dtype.type(self.unit))


class _AnalyticNode(_ResidualNode):
    """The same with V = step length times the analytic weights: only lengths and thresholds are learned."""

    def _build(self, atoms):
        weights, largest = _analytic(atoms)
        norms, own_norms = np.linalg.norm(atoms, axis=1), np.linalg.norm(weights, axis=0)
        ratios = np.divide(own_norms, norms, out=np.ones_like(norms), where=norms > 0)
        self.unit = 1 / largest
        self.analytic = np.ascontiguousarray(weights, self.dictionary.dtype)
        self.parameters = {}
        self.lengths = self._parameter("step_lengths", 1.0, self.n_steps)
        return self.layer.alpha * self.unit * ratios

    def _prepared(self):
        return list(self._scaled_lengths()[:, None, None] * self.analytic)

    def _scaled_lengths(self):
        return self.lengths.values * self.dictionary.dtype.type(self.unit)

    def _steps(self, n_steps):
        thresholds = self._thresholds()
        return [
            (self.analytic, scale, self._beside(self.analytic * scale), thresholds[t])
            for t, scale in enumerate(to_host(self._scaled_lengths())[:n_steps])
        ]

    def _add_gradients(self, x, points, kept, gradients):
        sums = [(product(r, self.analytic, self.n_threads) * dz).sum() for r, dz in zip(kept, gradients, strict=True)]
        self.lengths.add_gradient(array_module(x).stack(sums) * self.dictionary.dtype.type(self.unit))


def _blocks(n_samples, device):
    """Samples that are worked on together: a GPU takes all."""
    return row_blocks(n_samples) if device == "cpu" else [slice(0, n_samples)]


def _with_identity(matrix):
    """A square matrix plus the identity, in place."""
    every = array_module(matrix).arange(len(matrix))
    matrix[every, every] += 1
    return matrix


_NODES = {"tied": _FreeNode, "untied": _FreeNode, "coupled": _ResidualNode, "analytic": _AnalyticNode}
