"""Reports against counts made by hand, and against the matrices themselves."""

import tracemalloc

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from sparseshare.network import (
    Conv,
    DeepSparseClassifier,
    Dense,
    Flatten,
    MaxPool,
    Network,
    SequentialSparseCoder,
    cluster,
    hashed,
    parameter_report,
    prune,
    tied,
    toeplitz,
)
from sparseshare.network.recurrent import LSTM, Recurrent
from sparseshare.network.unrolled_steps import UnrolledISTA


def test_the_textbook_case():
    """An edge map of a 280 x 320 image: Goodfellow et al., Deep Learning, figure 9.6; no dense matrix is made."""
    tracemalloc.start()
    network = Network([Conv(1, (1, 2), bias=False, activation="linear")], (280, 320, 1), np.float32)
    network.nodes[0].weights.values[:, 0] = [-1, 1]
    row = parameter_report(network).layers[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row.output_shape == (280, 319, 1)
    assert row.operations == 319 * 280 * 3 == 267_960
    assert row.stored == 2
    assert row.dense == 320 * 280 * 319 * 280 > 8_000_000_000
    assert 16_000_000_000 < row.dense_operations < 17_000_000_000
    assert row.nonzeros == 2 * 319 * 280 == 178_640
    assert peak < 2**22


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), ((2, 3), (2, 1)), (4, 3)])
def test_convolutions_count_as_their_matrices(kernel, stride, padding, rng):
    shape = (9, 7, 2)
    network = Network([Conv(3, kernel, stride=stride, padding=padding), Flatten()], shape)
    network.nodes[0].weights.values[rng.random(network.nodes[0].weights.shape) < 0.3] = 0
    row = parameter_report(network).layers[0]
    n_units = int(np.prod(network.output_shape))
    matrix = Network([Dense(n_units, share=toeplitz(shape, kernel, stride, padding))], (126,)).nodes[0].weights
    matrix.values[...] = network.nodes[0].weights.values.ravel()
    matrix.changed()
    assert row.nonzeros == row.multiply_adds == np.count_nonzero(matrix.full())
    assert row.dense == matrix.full().size + n_units
    assert row.stored == matrix.values.size + 3


def test_dense_shared_and_tied_layers():
    layers = [Dense(20, share=hashed(1 / 4)), Dense(20, share=tied("a")), Dense(20, share=tied("a")), Dense(3)]
    report = parameter_report(Network(layers, (10,), np.float32))
    assert [row.stored for row in report.layers] == [50 + 20, 420, 0, 63]
    assert [row.dense for row in report.layers] == [220, 420, 420, 63]
    assert report.total.nbytes == 4 * report.total.stored == 4 * 553
    assert report.total.operations == 2 * report.total.multiply_adds == 2 * (200 + 400 + 400 + 60)


def test_layers_at_every_position_and_recurrent_layers():
    report = parameter_report(Network([Dense(6), LSTM(5, return_sequences=True), Recurrent(4)], (7, 3)))
    dense, lstm, recurrent = report.layers
    assert (dense.stored, dense.nonzeros, dense.dense) == (18 + 6, 7 * 18, 21 * 42 + 42)
    assert (lstm.stored, lstm.nonzeros) == (4 * (30 + 25 + 5), 7 * 4 * 55)
    assert (recurrent.stored, recurrent.nonzeros) == (20 + 16 + 4, 7 * 36)
    assert recurrent.dense >= 7 * 36


def test_measured_densities_and_compression():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    network = DeepSparseClassifier(
        [Conv(4, 3, activation="hard", density=0.2), MaxPool(2), Dense(20)], image_shape=(8, 8), max_iter=3,
        n_iter_no_change=None, random_state=0,
    ).fit(X, y)  # fmt: skip
    report = network.parameter_report()
    conv, pool, dense, flat, output = report.layers
    assert conv.sparse_multiply_adds == pytest.approx(np.mean(X != 0) * conv.multiply_adds, rel=0.02)
    assert conv.density == network.densities_[0] and np.isnan(pool.density)
    assert dense.sparse_multiply_adds < 0.8 * dense.multiply_adds
    small = parameter_report(prune(network, 0.25))
    assert small.total.nonzeros == pytest.approx(0.25 * report.total.nonzeros, rel=0.1)
    assert small.total.nbytes < 0.35 * report.total.nbytes
    few = parameter_report(cluster(network, 16)).layers[4]
    assert few.stored == 16 + 10 and few.nbytes == output.nbytes - 8 * (180 * 10 - 16) + 180 * 10


@pytest.mark.parametrize(("weights", "n_first"), [("tied", 1), ("analytic", 1), ("untied", 5), ("coupled", 5)])
def test_steps_of_ista(weights, n_first, rng):
    layer = UnrolledISTA(rng.standard_normal((12, 8)), n_steps=5, weights=weights)
    row = parameter_report(Network([layer], (8,))).total
    assert row.multiply_adds == row.nonzeros == n_first * 96 + 4 * 144
    assert row.dense == 5 * 96 + 4 * 144


def test_iterations_at_every_time_step(rng):
    coder = SequentialSparseCoder(rng.standard_normal((12, 8)), n_iter=3).fit(rng.standard_normal((2, 6, 8)))
    coding, back = parameter_report(coder).layers
    assert coding.multiply_adds == 96 + 3 * 144 + 144  # of signals, of iterates, of the code before
    assert back.multiply_adds == 96


def test_tables():
    report = parameter_report(Network([Flatten(), Dense(4), Dense(2)], (3, 3)))
    lines = str(report).splitlines()
    assert lines[0].split()[:4] == ["layer", "output", "stored", "dense"] and len(lines) == 7
    assert lines[-1].split()[:3] == ["total", "50", "50"]
    html = report._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") == 5 and html.count("<td>") == 4 * 9
    columns = report.to_dict()
    assert columns["stored"] == [0, 40, 10] and columns["layer"] == ["Flatten", "Dense", "Dense"]


def test_what_has_no_network_is_refused():
    with pytest.raises(ValueError, match="parameter_report is for a fitted network or a Network, got DeepSparse"):
        parameter_report(DeepSparseClassifier())
    with pytest.raises(NotFittedError):
        DeepSparseClassifier().parameter_report()
