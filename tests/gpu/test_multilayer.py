"""Multi-layer and sequential sparse coding on a GPU against the CPU, NumPy and CuPy in."""

import pickle

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sparseshare.network import (
    Conv,
    DeepSparseEncoder,
    MultilayerCoding,
    Network,
    SequentialSparseCoder,
    layered_thresholding,
    ml_fista,
    ml_ista,
    operators,
)
from sparseshare.network.multilayer import multilayer_objective
from sparseshare.network.multilayer_learning import to_sphere


def close(found, expected, dtype=np.float64):
    found = found.get() if hasattr(found, "get") else found
    bounds = dict(rtol=1e-4, atol=1e-5) if dtype == np.float32 else dict(rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found, expected, **bounds)
    assert np.asarray(expected).dtype == found.dtype


def dense_and_shared(dtype):
    rng = np.random.default_rng(0)
    yield rng.standard_normal((9, 8)), [rng.standard_normal(shape) for shape in [(12, 8), (20, 12)]], {}
    filters = [rng.standard_normal((4, 3, 3, 1)), rng.standard_normal((6, 3, 3, 4))]
    yield rng.random((3, 9, 10)), filters, dict(stride=[2, 1], padding=["same", "valid"])
    yield rng.random((3, 15, 2)), [rng.standard_normal((5, 4, 2))], dict(stride=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_of_all_layers(gpu, monkeypatch, dtype):
    for X, dictionaries, options in dense_and_shared(dtype):
        X = X.astype(dtype)
        there, atoms = gpu.asarray(X), [gpu.asarray(dictionary) for dictionary in dictionaries]
        for code in (ml_ista, ml_fista, layered_thresholding):
            # All samples at once, or one at a time.
            monkeypatch.setattr(operators, "_BYTES_ON_GPU", 1 if code is layered_thresholding else 1 << 28)
            more = {} if code is layered_thresholding else dict(n_iter=3)
            expected = code(X, dictionaries, 0.1, **options, **more)
            moved = code(X, dictionaries, 0.1, **options, **more, device="cuda")
            resident = code(there, atoms, 0.1, **options, **more)
            for a, b, c in zip(expected, moved, resident, strict=True):
                assert type(b) is np.ndarray and type(c) is gpu.xp.ndarray
                close(b, a, dtype)
                close(c, a, dtype)
        values = multilayer_objective(X, dictionaries, expected[-1], 0.1, **options)
        close(multilayer_objective(there, atoms, resident[-1], 0.1, **options), values, dtype)
        close(multilayer_objective(X, dictionaries, expected[-1], 0.1, **options, device="cuda"), values, dtype)


def test_mixed_arrays_of_a_call(gpu):
    X, dictionaries, _ = next(dense_and_shared(np.float64))
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        ml_ista(gpu.asarray(X), dictionaries, 0.1)
    with pytest.raises(RuntimeError, match="device='cpu'"):
        ml_ista(gpu.asarray(X), dictionaries, 0.1, device="cpu")
    with pytest.raises(ValueError, match="NaN or infinity"):
        ml_ista(gpu.asarray(X * np.nan), dictionaries, 0.1, device="cuda")


def test_unit_atoms(gpu):
    weights = np.random.default_rng(0).standard_normal((7, 5))
    weights[:, 2], weights[:, 3] = 0, 1e-3
    for threshold in (0.0, 0.5):
        close(to_sphere(gpu.asarray(weights), threshold), to_sphere(weights, threshold))


ENCODERS = {
    "dense": dict(layers=[12, 6], atoms_alpha=0.1),
    "shared": dict(layers=[Conv(4, 3), Conv(5, 3)], image_shape=(8, 8), algorithm="ml_ista", positive=True),
    "threshold": dict(layers=[Conv(4, 3, stride=2), 6], image_shape=(8, 8), algorithm="threshold"),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_encoders(gpu, name, dtype):
    if dtype == np.float32 and name != "dense":
        pytest.skip("in one precision")
    X = np.random.default_rng(0).random((20, 64)).astype(dtype)
    options = dict(alpha=0.05, n_iter=3, batch_size=13, max_iter=2, n_iter_no_change=None, random_state=0)
    expected = DeepSparseEncoder(**options | ENCODERS[name]).fit(X)
    for samples, device, kind in ((X, "cuda", np.ndarray), (gpu.asarray(X), "auto", gpu.xp.ndarray)):
        encoder = DeepSparseEncoder(**options | ENCODERS[name], device=device).fit(samples)
        np.testing.assert_allclose(encoder.loss_curve_, expected.loss_curve_, rtol=1e-5)
        np.testing.assert_allclose(encoder.densities_, expected.densities_, rtol=1e-12 if dtype == np.float64 else 0.1)
        for atoms, other in zip(encoder.dictionaries_, expected.dictionaries_, strict=True):
            assert type(atoms) is kind
            close(atoms, other, dtype)
        codes = encoder.transform(samples)
        assert type(codes) is kind
        if dtype == np.float64:
            close(codes, expected.transform(X))
            close(encoder.inverse_transform(codes), expected.inverse_transform(expected.transform(X)))
            for a, b in zip(encoder.encode(samples), expected.encode(X), strict=True):
                close(a, b)
        np.testing.assert_allclose(encoder.score(samples), expected.score(X), rtol=1e-4)
    again = pickle.loads(pickle.dumps(encoder))
    close(again.transform(X), codes.get(), dtype)
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        encoder.transform(X)
    again.to_classifier(max_iter=1, n_iter_no_change=None).fit(X, np.arange(20) % 2)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("layers, shape", [([12, 5], (8,)), ([Conv(4, 3), Conv(5, 3)], (7, 7, 2))])
def test_a_layer_forward_and_back(gpu, layers, shape, positive):
    X = np.random.default_rng(1).standard_normal((9, *shape))
    network = Network([MultilayerCoding(layers, n_steps=2, positive=positive, threshold=0.05)], shape)
    network.nodes[0].input_gradient = True
    there, results = network.to_device("cuda:0"), []
    for one, x in ((network, X), (there, gpu.asarray(X))):
        y, caches = one.forward(x, True)
        slope = np.random.default_rng(3).standard_normal(y.shape)
        dx = one.nodes[0].backward(slope if one is network else gpu.asarray(slope), caches[0])
        results.append([y, dx, one.output(x), *(parameter.gradient for parameter in one.parameters)])
        assert one.nodes[0].activation.measured_density == pytest.approx(np.mean(results[0][0] != 0))
    for a, b in zip(*results, strict=True):
        assert isinstance(b, gpu.xp.ndarray)
        close(b, a)


def test_encoders_in_pipelines(gpu):
    X, y = np.random.default_rng(0).random((40, 16)), np.arange(40) % 2
    encoder = DeepSparseEncoder([8, 4], n_iter=2, max_iter=1, n_iter_no_change=None, random_state=0, device="cuda")
    search = GridSearchCV(
        make_pipeline(encoder, LogisticRegression()), {"deepsparseencoder__alpha": [0.01, 0.1]}, cv=2,
        error_score="raise",
    )  # fmt: skip
    assert search.fit(X, y).predict(X).shape == (40,)


SEQUENTIAL = {
    "plain": {},
    "transition": dict(transition=np.linalg.qr(np.random.default_rng(5).standard_normal((5, 5)))[0], positive=True),
    "learned": dict(learn=True, max_iter=3, n_iter_no_change=None, learning_rate=1e-3),
    "learned_transition": dict(learn=True, max_iter=2, n_iter_no_change=None, transition=np.eye(5)),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", SEQUENTIAL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sequences(gpu, name, dtype):
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((8, 5))
    X = rng.standard_normal((13, 6, 5)).astype(dtype)
    options = dict(alpha=0.1, smoothness=0.5, n_iter=3, batch_size=6, random_state=0) | SEQUENTIAL[name]
    expected = SequentialSparseCoder(atoms, **options).fit(X)
    codes = expected.transform(X)
    for sequences, device, kind in ((X, "cuda", np.ndarray), (gpu.asarray(X), "auto", gpu.xp.ndarray)):
        coder = SequentialSparseCoder(atoms, **options, device=device).fit(sequences)
        assert type(coder.components_) is kind
        np.testing.assert_allclose(coder.loss_curve_, expected.loss_curve_, rtol=1e-5)
        found = coder.transform(sequences)
        assert type(found) is kind
        close(found, codes, dtype)
        close(coder.inverse_transform(found), expected.inverse_transform(codes), dtype)
        np.testing.assert_allclose(coder.score(sequences), expected.score(X), rtol=1e-4)
    close(pickle.loads(pickle.dumps(coder)).transform(X), codes, dtype)
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        coder.transform(X)
    with pytest.raises(ValueError, match="NaN or infinity"):
        coder.transform(gpu.asarray(X * np.nan))


def test_the_gradient_by_sequences(gpu):
    X = np.random.default_rng(0).standard_normal((7, 5, 4))
    coder = SequentialSparseCoder(np.random.default_rng(1).standard_normal((6, 4)), n_iter=2, transition=np.eye(4))
    network = coder.fit(X).network_
    there, results = network.to_device("cuda:0"), []
    for one, x in ((network, X), (there, gpu.asarray(X))):
        node = one.nodes[0]
        node.input_gradient = True
        y, cache = node.forward(x, True)
        dx = node.backward(y, cache)
        results.append([y, dx, *(parameter.gradient for parameter in node.parameters.values())])
    for a, b in zip(*results, strict=True):
        close(b, a)
