"""Attention: a weighted sum over positions or time steps, the weights from a small network."""

from math import prod

from sparseshare.devices import array_module
from sparseshare.validation import check_choice, check_number

from .blocks import product, transposed_product
from .layers import Layer, Node, check_layer
from .parameters import Parameter, initial
from .sharing import tied

SCORES = ("softmax", "sparsemax")


class Attention(Layer):
    """Sum of the positions of a sample, weighted by how relevant each is: y = sum_p a_p x_p.

    The scores are s_p = v . tanh(x_p W + b), the weights a = softmax(s) or sparsemax(s) over all positions: of a
    sequence its steps, of an image its pixels. sparsemax, the projection of s to the simplex, gives most positions no
    weight at all.

    Parameters
    ----------
    n_hidden : int
        Units of the network that gives the scores.
    scores : {"softmax", "sparsemax"}, default="softmax"
    bias : bool, default=True
        As in `Dense`, and so are all that follow, for W (n_features, n_hidden); of v (n_hidden, 1) `init` alone.
    init : {"glorot", "he", "uniform"}, default="glorot"
    share : sharing rule or None, default=None
    nonnegative : bool, default=False
    l1, l2 : float, default=0.0

    References
    ----------
    D. Bahdanau, K. Cho, Y. Bengio, "Neural machine translation by jointly learning to align and translate", ICLR 2015,
    section 3.1. sparsemax: A. Martins, R. Astudillo, "From softmax to sparsemax", ICML 2016, algorithm 1.

    Examples
    --------
    >>> from sparseshare.network import Attention
    >>> Attention(32, scores="sparsemax")
    Attention(n_hidden=32, scores='sparsemax')
    """

    def __init__(
        self,
        n_hidden,
        *,
        scores="softmax",
        bias=True,
        init="glorot",
        share=None,
        nonnegative=False,
        l1=0.0,
        l2=0.0,
    ):
        self.n_hidden = n_hidden
        self.scores = scores
        self.bias = bias
        self.init = init
        self.share = share
        self.nonnegative = nonnegative
        self.l1 = l1
        self.l2 = l2

    def connect(self, input_shape, builder):
        """See `Layer`."""
        n_hidden = check_number("n_hidden", self.n_hidden, 1, integer=True, of="Attention")
        check_choice("scores", self.scores, SCORES, of="Attention")
        check_layer(self)
        if len(input_shape) < 2:
            raise ValueError(
                f"{self!r} takes sequences (time, features) or images (height, width, channels), "
                f"got samples of shape {tuple(input_shape)}"
            )
        return _AttentionNode(self, input_shape, n_hidden, builder)


class _AttentionNode(Node):
    def __init__(self, layer, input_shape, n_hidden, builder):
        super().__init__(layer, input_shape[-1:])
        self.n_threads = builder.n_threads
        self.weights = builder.weights(layer, (input_shape[-1], n_hidden))
        self.bias = builder.bias(layer, n_hidden)
        self.vector = _vector(layer, n_hidden, builder)
        self.parameters = {"weights": self.weights, "vector": self.vector}
        if self.bias is not None:
            self.parameters["bias"] = self.bias

    def forward(self, x, training=False, random_state=None):
        shape, xp = x.shape, array_module(x)
        x = xp.ascontiguousarray(x).reshape(len(x), prod(shape[1:-1]), shape[-1])
        hidden = product(x.reshape(-1, shape[-1]), self.weights.full(), self.n_threads)
        if self.bias is not None:
            hidden += self.bias.full()
        xp.tanh(hidden, out=hidden)
        scores = (hidden @ self.vector.full()[:, 0]).reshape(x.shape[:2])
        share = softmax(scores) if self.layer.scores == "softmax" else sparsemax(scores)
        return xp.matmul(share[:, None], x)[:, 0], (shape, x, hidden, share)

    def backward(self, dy, cache):
        shape, x, hidden, share = cache
        xp = array_module(dy)
        rows = x.reshape(-1, shape[-1])
        dshare = xp.matmul(x, dy[:, :, None])[:, :, 0]
        if self.layer.scores == "softmax":
            dscores = share * (dshare - (share * dshare).sum(axis=1, keepdims=True))
        else:
            inside = share > 0
            mean = xp.where(inside, dshare, 0).sum(axis=1, keepdims=True) / inside.sum(axis=1, keepdims=True)
            dscores = xp.where(inside, dshare - mean.astype(dshare.dtype), 0).astype(dshare.dtype, copy=False)
        column = dscores.reshape(-1, 1)
        self.vector.add_gradient(transposed_product(hidden, column, self.n_threads))
        dz = column * self.vector.full().T
        dz *= 1 - hidden**2
        self.weights.add_gradient(transposed_product(rows, dz, self.n_threads))
        if self.bias is not None:
            self.bias.add_gradient(dz.sum(axis=0))
        if not self.input_gradient:
            return None
        dx = product(dz, self.weights.full().T, self.n_threads).reshape(x.shape)
        dx += share[:, :, None] * dy[:, None]
        return dx.reshape(shape)


def _vector(layer, n_hidden, builder):
    """Weights of the scores: shared with those of tied layers, but by no other rule, which is made for W."""
    if isinstance(layer.share, tied):
        return builder.weights(layer, (n_hidden, 1), place=1)
    return Parameter(initial(layer.init, (n_hidden, 1), builder.random_state, builder.dtype))


def softmax(scores):
    """exp(s) over its sum, row by row.

    Parameters
    ----------
    scores : ndarray of shape (n, n_positions)

    Returns
    -------
    ndarray of the same shape
    """
    shares = array_module(scores).exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def sparsemax(scores):
    """The nearest point of the simplex, row by row: max(s - t, 0) with the t for which it sums to 1.

    Parameters
    ----------
    scores : ndarray of shape (n, n_positions)

    Returns
    -------
    ndarray of the same shape

    Examples
    --------
    >>> import numpy as np
    >>> from sparseshare.network.attention import sparsemax
    >>> sparsemax(np.array([[1.0, 0.5, -3.0]]))
    array([[0.75, 0.25, 0.  ]])
    """
    xp = array_module(scores)
    sorted_scores = -xp.sort(-scores, axis=1)
    excess = xp.cumsum(sorted_scores, axis=1) - 1
    count = xp.arange(1, scores.shape[1] + 1)
    size = xp.maximum((sorted_scores * count > excess).sum(axis=1, keepdims=True), 1)
    level = xp.take_along_axis(excess, size - 1, axis=1) / size.astype(scores.dtype)
    return xp.maximum(scores - level, 0)
