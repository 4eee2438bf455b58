"""What a network stores and what it computes, layer by layer, beside dense layers that share nothing."""

from dataclasses import dataclass, fields
from html import escape
from math import prod

import numpy as np

from .model import Network
from .multilayer_layer import MultilayerCoding
from .patterns import padding_before
from .sequential_steps import SequentialCoding
from .unrolled_steps import UnrolledISTA

_HEADS = {
    "layer": "layer",
    "output_shape": "output",
    "stored": "stored",
    "dense": "dense",
    "nonzeros": "non-zeros",
    "multiply_adds": "multiply-adds",
    "sparse_multiply_adds": "at density",
    "nbytes": "bytes",
    "density": "density",
}


@dataclass(frozen=True)
class LayerReport:
    """A layer, for one sample.

    Attributes
    ----------
    layer : str
    output_shape : tuple of int or None
        None in the sum.
    stored : int
        Parameters that are stored and trained, biases and all. Those of tied layers count where they come first.
    dense : int
        Parameters of dense layers that share nothing: from every input to every output, and for recurrent layers anew
        in every step.
    nonzeros : int
        Weights of these that are not 0.
    multiply_adds : int
        One for each of them.
    sparse_multiply_adds : float
        Of these, how many meet an input that is not 0, by the measured density of the inputs.
    operations : int
        Multiplications and additions: two a weight, less one an output without a bias.
    dense_operations : int
        The same for the dense weights.
    nbytes : int
        What values and patterns take.
    density : float
        Measured share of non-zero activations behind the layer, NaN without an activation or a measurement.
    """

    layer: str
    output_shape: tuple | None
    stored: int
    dense: int
    nonzeros: int
    multiply_adds: int
    sparse_multiply_adds: float
    operations: int
    dense_operations: int
    nbytes: int
    density: float


@dataclass(frozen=True)
class ParameterReport:
    """The layers of a network and their sum; printed as a table.

    Attributes
    ----------
    layers : list of LayerReport
    total : LayerReport
    """

    layers: list
    total: LayerReport

    def to_dict(self):
        """Columns by name, a list with an entry a layer: for a DataFrame.

        Returns
        -------
        dict of str to list
        """
        return {field.name: [getattr(row, field.name) for row in self.layers] for field in fields(LayerReport)}

    def _cells(self):
        rows = [list(_HEADS.values())]
        for row in (*self.layers, self.total):
            cells = [row.layer, "" if row.output_shape is None else " x ".join(map(str, row.output_shape))]
            numbers = [getattr(row, name) for name in list(_HEADS)[2:-1]]
            cells += [f"{round(number):,}" for number in numbers]
            rows.append([*cells, "" if np.isnan(row.density) else f"{row.density:.3f}"])
        return rows

    def __str__(self):
        rows = self._cells()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def _repr_html_(self):
        head, *rows = self._cells()
        row_of = "<tr>{}</tr>".format
        body = "".join(row_of("".join(f"<td>{escape(cell)}</td>" for cell in row)) for row in rows)
        return f"<table>{row_of(''.join(f'<th>{escape(cell)}</th>' for cell in head))}{body}</table>"


def parameter_report(estimator):
    """Parameters, operations and bytes of a network, layer by layer, and what dense layers would have.

    Parameters
    ----------
    estimator : DeepSparseClassifier, DeepSparseRegressor, LearnedSparseCoder, SequentialSparseCoder or Network
        Fitted; densities are known of fitted classifiers and regressors only.

    Returns
    -------
    ParameterReport

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> from sparseshare.network import Dense, Network, hashed, parameter_report
    >>> report = parameter_report(Network([Dense(100, share=hashed(1 / 8)), Dense(10)], (64,)))
    >>> report.total.stored, report.total.dense
    (1910, 7510)
    >>> print(report)
    layer  output  stored  dense  non-zeros  multiply-adds  at density   bytes  density
    -----------------------------------------------------------------------------------
    Dense  100        900  6,500      6,400          6,400       6,400   7,200
    Dense  10       1,010  1,010      1,000          1,000       1,000   8,080
    -----------------------------------------------------------------------------------
    total           1,910  7,510      7,400          7,400       7,400  15,280
    """
    network = estimator if isinstance(estimator, Network) else getattr(estimator, "network_", None)
    if not isinstance(network, Network):
        raise ValueError(f"parameter_report is for a fitted network or a Network, got {estimator!r}")
    network = network.to_device("cpu")
    layers, seen = [], set()
    unknown = [np.nan] * len(network.nodes)
    for node, input_shape, density, input_density in zip(
        network.nodes,
        network.input_shapes,
        network.densities or unknown,
        network.input_densities or unknown,
        strict=True,
    ):
        own = [parameter for parameter in node.parameters.values() if id(parameter) not in seen]
        seen.update(map(id, own))
        layers.append(_layer_report(node, input_shape, own, density, input_density))
    names = [field.name for field in fields(LayerReport) if field.name not in ("layer", "output_shape", "density")]
    sums = {name: sum(getattr(row, name) for row in layers) for name in names}
    return ParameterReport(layers, LayerReport("total", None, density=np.nan, **sums))


def _layer_report(node, input_shape, own, density, input_density):
    counts = _iterations(node, input_shape)
    if counts is not None:
        return _iterations_report(node, own, density, *counts)
    weights = {name: p for name, p in node.parameters.items() if len(p.shape) > 1}
    n_outputs = prod(node.output_shape) if weights else 0
    has_bias = any(name.endswith("bias") for name in node.parameters)
    if hasattr(node.layer, "kernel"):
        dense = prod(input_shape) * n_outputs
        nonzeros = _convolution_nonzeros(node, input_shape, *weights.values())
    else:
        steps = prod(input_shape[:-1])  # a layer on the last axis works anew at every position
        sizes, counts = (sum(number(p) for p in weights.values()) for number in (_size, _nonzeros))
        nonzeros = steps * counts
        # Several weights: a recurrent or an attention layer, of which a deep network would have one set a step.
        dense = steps * sizes if len(weights) > 1 else prod(input_shape) * n_outputs
    known = 1.0 if np.isnan(input_density) else input_density
    saved = 0 if has_bias else n_outputs
    return LayerReport(
        layer=type(node.layer).__name__,
        output_shape=node.output_shape,
        stored=sum(parameter.values.size for parameter in own),
        dense=dense + (n_outputs if has_bias else 0),
        nonzeros=nonzeros,
        multiply_adds=nonzeros,
        sparse_multiply_adds=known * nonzeros,
        operations=2 * nonzeros - saved,
        dense_operations=2 * dense - saved,
        nbytes=sum(parameter.nbytes for parameter in own),
        density=density,
    )


def _iterations(node, input_shape):
    """Products of layers that go on from their own output: those they make, and those of a network without sharing."""
    layer = node.layer
    if isinstance(layer, MultilayerCoding):  # every step goes back to the signal and forth again, through all layers
        inner = [_layer_report(operator.node, operator.input_shape, [], np.nan, np.nan) for operator in node.operators]
        n_passes = 1 + 2 * layer.n_steps
        return tuple(n_passes * sum(getattr(row, name) for row in inner) for name in ("nonzeros", "dense"))
    n_features, n_components = input_shape[-1], node.output_shape[-1]
    if isinstance(layer, UnrolledISTA):
        back = (layer.n_steps - 1) * n_components**2  # the first step begins at zero
        n_first = layer.n_steps if layer.weights in ("untied", "coupled") else 1
        return n_first * n_features * n_components + back, layer.n_steps * n_features * n_components + back
    if isinstance(layer, SequentialCoding):
        weights = {name: _nonzeros(p) for name, p in node.parameters.items() if len(p.shape) > 1}
        products = prod(input_shape[:-1]) * (sum(weights.values()) + (layer.n_iter - 1) * weights["lateral_weights"])
        return products, products
    return None


def _iterations_report(node, own, density, nonzeros, dense):
    return LayerReport(
        layer=type(node.layer).__name__,
        output_shape=node.output_shape,
        stored=sum(parameter.values.size for parameter in own),
        dense=dense,
        nonzeros=nonzeros,
        multiply_adds=nonzeros,
        sparse_multiply_adds=float(nonzeros),
        operations=2 * nonzeros,
        dense_operations=2 * dense,
        nbytes=sum(parameter.nbytes for parameter in own),
        density=density,
    )


def _size(parameter):
    return prod(parameter.shape)


def _nonzeros(parameter):
    return parameter.nonzeros()


def _convolution_nonzeros(node, input_shape, weights):
    """Pairs of an input and an output between which there is a weight that is not 0: at a rim there are fewer."""
    lengths, positions = input_shape[:-1], node.output_shape[:-1]
    kernel = _axes(node.layer.kernel, len(lengths))
    stride = _axes(node.layer.stride, len(lengths))
    before = padding_before(lengths, kernel, stride, node.layer.padding)
    per_axis = []
    for n, p, k, s, b in zip(lengths, positions, kernel, stride, before, strict=True):
        places = np.arange(p)[:, None] * s - b + np.arange(k)
        per_axis.append(((places >= 0) & (places < n)).sum(axis=0))
    inside = per_axis[0]
    for counts in per_axis[1:]:
        inside = np.multiply.outer(inside, counts)
    entries = np.count_nonzero(weights.full().reshape(prod(kernel), -1), axis=1)
    weights.release()
    return int(inside.reshape(-1) @ entries)


def _axes(value, n_axes):
    return (value,) * n_axes if np.ndim(value) == 0 else tuple(value)
