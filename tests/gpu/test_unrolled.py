"""Unrolled sparse coders on a GPU against the CPU: steps, sweeps, training, NumPy and CuPy in."""

import pickle

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sparseshare.kernels.cpu import unrolled_steps as on_cpu
from sparseshare.network import LearnedSparseCoder, Network
from sparseshare.network.unrolled_steps import WEIGHTS, UnrolledISTA

DTYPES = [np.float32, np.float64]
ORDERS = ["forward", "reverse", "random"]


def tolerance(dtype):
    return dict(rtol=1e-4, atol=1e-5) if dtype == np.float32 else dict(rtol=1e-9, atol=1e-10)


def host(codes):
    codes = codes.get() if hasattr(codes, "get") else codes
    return codes.toarray() if hasattr(codes, "toarray") else codes


def unit_atoms(n_atoms, n_features, dtype=np.float64):
    atoms = np.random.default_rng(n_atoms).standard_normal((n_atoms, n_features))
    atoms[n_atoms // 2] = atoms[0]
    return (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("n_atoms", [1, 31, 33, 257])
def test_a_step(gpu, n_atoms, positive, dtype):
    from sparseshare.kernels.gpu import unrolled_steps

    rng = np.random.default_rng(0)
    products, inputs, before = rng.standard_normal((3, 9, n_atoms)).astype(dtype)
    thresholds, products[0, 0] = rng.random(n_atoms).astype(dtype), np.nan
    for some in (products, None):
        value = (0 if some is None else some) + dtype(0.5) * inputs
        expected = np.sign(value) * np.maximum(abs(value) - thresholds, 0)
        expected = np.maximum(value - thresholds, 0) if positive else expected
        found = []
        for order in ORDERS:
            codes, points = gpu.asarray(before), gpu.poisoned(before.shape, dtype)
            there = None if some is None else gpu.asarray(some)
            with gpu.order(order):
                unrolled_steps.unrolled_step(
                    there, gpu.asarray(inputs), 0.5, gpu.asarray(thresholds), positive, codes, points, 0.3
                )
            found.append((host(codes), host(points)))
        np.testing.assert_allclose(found[0][0], expected, **tolerance(dtype))
        np.testing.assert_allclose(found[0][1], expected + 0.3 * (expected - before), **tolerance(dtype))
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("n_atoms, shared", [(1, None), (33, None), (257, None), (257, 100)])
def test_sweeps(gpu, monkeypatch, n_atoms, shared, positive, dtype):
    from sparseshare.kernels.gpu import unrolled_steps

    if shared:
        monkeypatch.setattr(unrolled_steps, "_SHARED", shared)  # too little: what they need is in global memory
    rng, atoms = np.random.default_rng(0), unit_atoms(n_atoms, 20, dtype)
    X, n = rng.standard_normal((9, 20)).astype(dtype), 9
    codes = np.where(rng.random((n, n_atoms)) < 0.3, rng.standard_normal((n, n_atoms)), 0).astype(dtype)
    X[3], codes[4] = 0, 0
    codes = abs(codes) if positive else codes
    gram, penalty, quiet = atoms @ atoms.T, dtype(0.2), dtype(2e-4)
    indices, values = np.zeros((n, n_atoms), np.int32), np.zeros((n, n_atoms), dtype)
    counts = np.count_nonzero(codes, axis=1).astype(np.int32)
    for i, row in enumerate(codes):
        indices[i, : counts[i]], values[i, : counts[i]] = np.flatnonzero(row), row[row != 0]
    wide = np.zeros((n_atoms, 64), dtype)
    wide[:, :20] = atoms
    on_cpu.descend_rows(X, wide, gram, penalty, quiet, 5, positive, indices, values, counts)
    expected = np.zeros_like(codes)
    on_cpu.spread_rows(indices, values, counts, expected)
    found = []
    for order in ORDERS:
        there = gpu.asarray(codes)
        with gpu.order(order):
            unrolled_steps.descend_rows(
                gpu.asarray((X - codes @ atoms) @ atoms.T), gpu.asarray(gram), penalty, quiet, 5, positive, there
            )
        found.append(host(there))
    np.testing.assert_allclose(
        found[0], expected, **tolerance(dtype) | dict(atol=1e-4 if dtype == np.float32 else 1e-9)
    )
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("accelerate, every_step", [(False, False), (True, True)])
def test_a_node_forward_and_back(gpu, weights, accelerate, every_step):
    X = np.random.default_rng(1).standard_normal((70, 12))
    layer = UnrolledISTA(
        unit_atoms(20, 12), 0.3, n_steps=3, weights=weights, accelerate=accelerate, every_step=every_step
    )
    network = Network([layer], (12,))
    network.nodes[0].input_gradient = True
    for parameter in network.parameters:
        parameter.values += 0.1 * np.random.default_rng(2).random(parameter.values.shape)
    there = network.to_device("cuda:0")
    results = []
    for one, x in ((network, X), (there, gpu.asarray(X))):
        y, caches = one.forward(x, True)
        slope = np.random.default_rng(3).standard_normal(y.shape)
        dx = one.nodes[0].backward(slope if one is network else gpu.asarray(slope), caches[0])
        results.append([y, dx, one.output(x), *(parameter.gradient for parameter in one.parameters)])
    for a, b in zip(*results, strict=True):
        assert isinstance(b, gpu.xp.ndarray)
        np.testing.assert_allclose(host(b), a, rtol=1e-9, atol=1e-10)


CODERS = {
    "tied": dict(weights="tied"),
    "free": dict(weights="untied", positive=True, n_sweeps=2),
    "coupled": dict(weights="coupled", accelerate=True, early_stopping=True),
    "discounted": dict(weights="coupled", discount=0.5, loss="codes"),
    "analytic": dict(weights="analytic", n_sweeps=3, accelerate=True),
}


@pytest.mark.parametrize("name", CODERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_coders(gpu, name, dtype):
    if dtype == np.float32 and name not in ("coupled", "analytic"):
        pytest.skip("in one precision")
    X = np.random.default_rng(0).standard_normal((90, 8)).astype(dtype)
    options = dict(alpha=0.3, n_steps=3, max_iter=2, batch_size=40, random_state=0) | CODERS[name]
    expected = LearnedSparseCoder(unit_atoms(12, 8), **options).fit(X)
    moved = LearnedSparseCoder(unit_atoms(12, 8), **options, device="cuda").fit(X)
    resident = LearnedSparseCoder(unit_atoms(12, 8), **options).fit(gpu.asarray(X))
    codes, bounds = expected.transform(X), tolerance(dtype)
    for coder, signals, kind in ((moved, X, np.ndarray), (resident, gpu.asarray(X), gpu.xp.ndarray)):
        assert type(coder.components_) is type(coder.network_.nodes[0].dictionary) is kind
        np.testing.assert_allclose(coder.loss_curve_, expected.loss_curve_, **bounds)
        found = coder.transform(signals)
        assert type(found) is kind and found.dtype == dtype
        np.testing.assert_allclose(host(found), codes, **bounds)
        np.testing.assert_allclose(host(coder.inverse_transform(found)), expected.inverse_transform(codes), **bounds)
        coder.set_params(sparse_output=True)
        np.testing.assert_allclose(host(coder.transform(signals)), codes, **bounds)


def test_errors_pickles_and_moves(gpu):
    X = np.random.default_rng(0).standard_normal((60, 8))
    coder = LearnedSparseCoder(unit_atoms(12, 8), alpha=0.3, n_steps=2, max_iter=1, random_state=0)
    codes = coder.fit(gpu.asarray(X)).transform(gpu.asarray(X))
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        coder.transform(X)
    with pytest.raises(ValueError, match="NaN or infinity"):
        coder.transform(gpu.asarray(np.where(X == X[2, 3], np.nan, X)))
    with pytest.raises(ValueError, match="different numbers of features|expecting 8 features"):
        coder.transform(gpu.asarray(X[:, :5]))
    again = pickle.loads(pickle.dumps(coder))
    np.testing.assert_allclose(again.transform(X), host(codes), rtol=1e-9, atol=1e-10)
    there = again.to_device("cuda").transform(gpu.asarray(X))
    np.testing.assert_allclose(host(there), host(codes), rtol=1e-9, atol=1e-10)


def test_error_curve(gpu):
    X = np.random.default_rng(0).standard_normal((40, 8))
    options = dict(alpha=0.3, n_steps=2, max_iter=1, random_state=0)
    expected = LearnedSparseCoder(unit_atoms(12, 8), **options).fit(X).error_curve(X)
    found = LearnedSparseCoder(unit_atoms(12, 8), **options).fit(gpu.asarray(X)).error_curve(gpu.asarray(X))
    for measure in ("code_error", "objective_gap"):
        for name, curve in expected[measure].items():
            np.testing.assert_allclose(found[measure][name], curve, rtol=1e-6, atol=1e-8)


def test_pipeline_and_grid_search(gpu):
    X = np.random.default_rng(0).standard_normal((60, 8))
    y = (abs(X[:, 0]) > 0.7).astype(int)
    coder = LearnedSparseCoder(unit_atoms(12, 8), n_steps=2, max_iter=1, random_state=0, device="cuda")
    search = GridSearchCV(
        make_pipeline(coder, LogisticRegression()), {"learnedsparsecoder__alpha": [0.1, 0.3]}, cv=2, error_score="raise"
    )
    assert search.fit(X, y).predict(X).shape == (60,)
