"""Deep networks on a GPU: layers and whole trainings against the CPU, data that comes in pieces, moving and storing."""

import pickle

import numpy as np
import pytest

from sparseshare.network import (
    LSTM,
    Attention,
    AvgPool,
    Conv,
    DeepSparseClassifier,
    DeepSparseRegressor,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    Network,
    Recurrent,
    batches,
    circulant,
    cluster,
    clustered,
    hashed,
    load,
    parameter_report,
    prune,
    quantize,
    save,
    shared,
    tied,
)
from sparseshare.network import training as loop

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}

LAYERS = {
    "thresholds": (
        [Dense(7, activation="soft", threshold="learned"), Dense(33, activation="hard", threshold=0.3), Dense(1)],
        (5,),
    ),
    "top of all": ([Dense(33, activation="topk", density=0.2), Dense(3, activation="tanh")], (5,)),
    "top of positions": ([Conv(3, 2, activation="topk", density=0.1)], (7, 6, 1)),
    "convolutions": (
        [Conv(5, 3, padding="same"), Conv(33, (2, 3), stride=(2, 1), activation="soft", threshold=0.1)],
        (7, 6, 2),
    ),
    "poolings": ([MaxPool(3, stride=2), AvgPool((2, 1), stride=1), Flatten(), Dense(2)], (9, 8, 3)),
    "large windows": ([Conv(2, 1), MaxPool(17, stride=3)], (23, 23, 1)),
    "pooled": (
        [Conv(8, 3), MaxPool(2), Conv(33, 3, padding="same", activation="soft", threshold="learned"), MaxPool(2)],
        (11, 12, 1),
    ),
    "wide patches": ([Conv(4, (5, 4), stride=2, activation="tanh"), Conv(4, 3), MaxPool((2, 1))], (17, 13, 3)),
    "signals": ([Conv(4, 5), MaxPool(2), LSTM(5, return_sequences=True), Recurrent(6)], (17, 2)),
    "steps": (
        [Recurrent(6, activation="soft", threshold="learned", return_sequences=True, bias=False), LSTM(3)],
        (5, 3),
    ),
    "attention": ([Attention(4), Dense(3)], (5, 3)),
    "sparse attention": ([Attention(4, scores="sparsemax")], (3, 2, 3)),
    "dropped": ([Dropout(0.4), Dense(3)], (40,)),
    "hashed": ([Dense(40, share=hashed(1 / 8, run=16)), Dense(10, share=hashed(0.5, signed=False))], (33,)),
    "shared": (
        [Dense(9, share=circulant()), Dense(3, share=shared(np.arange(27).reshape(9, 3) % 4 - 1)), Dense(3)],
        (7,),
    ),
    "tied": ([Dense(4, share=tied("a")), Dense(4, share=tied("a")), Dense(4, nonnegative=True, bias=False)], (4,)),
}


def close(gpu, there, here, tolerance):
    there, here = gpu.get(there), np.asarray(here)
    assert there.dtype == here.dtype and there.shape == here.shape
    np.testing.assert_allclose(there, here, atol=tolerance * max(1, np.abs(here).max(initial=0)), rtol=0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_layers_forward_and_back(gpu, name, dtype):
    layers, shape = LAYERS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((13, *shape)).astype(dtype)
    here = Network(layers, shape, dtype, 0)
    there = Network(layers, shape, dtype, 0).to_device("cuda:0")
    dy = rng.standard_normal((13, *here.output_shape)).astype(dtype)
    for network, samples, slopes in ((here, x, dy), (there, gpu.asarray(x), gpu.asarray(dy))):
        network.nodes[network._first].input_gradient = True
        samples, caches = network.forward(samples, True, np.random.RandomState(3))
        close(gpu, samples, here.forward(x, True, np.random.RandomState(3))[0], TOLERANCE[dtype])
        network.reset_gradients()
        network.backward(slopes, caches)
    assert len(there.parameters) == len(here.parameters)
    for a, b in zip(there.parameters, here.parameters, strict=True):
        close(gpu, a.gradient, b.gradient, 3 * TOLERANCE[dtype])
    for a, b in zip(there.nodes, here.nodes, strict=True):
        if a.activation is not None:  # of what is pooled at once, those are not counted that no window looks at
            assert a.activation.measured_density == pytest.approx(b.activation.measured_density, abs=0.02)
    close(gpu, there.output(gpu.asarray(x)), here.output(x), TOLERANCE[dtype])


def images(n=97, dtype="float32"):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    X = 0.3 * rng.standard_normal((n, 11, 12))
    for k in range(3):
        X[y == k, 3 * k : 3 * k + 3, 2:9] += 1
    return X.astype(dtype), y


def rows(n=83, dtype="float64"):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, 9))
    return X.astype(dtype), np.stack([np.abs(X).sum(axis=1) - 7, X[:, 0] * X[:, 1]], axis=1)


def classifier(layers=None, **options):
    if layers is None:
        layers = [
            Conv(8, 3), MaxPool(2), Conv(8, 3, activation="soft", threshold="learned"), MaxPool(2), Dropout(0.1),
            Flatten(), Dense(12, share=hashed(0.5)),
        ]  # fmt: skip
    given = {"max_iter": 2, "n_iter_no_change": None, "batch_size": 32, "random_state": 0, "learning_rate": 0.01}
    return DeepSparseClassifier(layers, **given | options)


def regressor(layers=None, **options):
    given = {"max_iter": 3, "n_iter_no_change": None, "batch_size": 20, "random_state": 0, "learning_rate": 0.01}
    return DeepSparseRegressor([Dense(11)] if layers is None else layers, **given | options)


def stored(estimator, kind):
    assert all(type(parameter.values).__module__ == kind for parameter in estimator.network_.parameters)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("given", ["numpy", "cupy"])
def test_training_as_on_the_cpu(gpu, dtype, given):
    X, y = images(dtype=dtype)
    here = classifier(l1=0.01, class_weight={0: 1.0, 1: 2.0, 2: 0.5}).fit(X, y)
    there = classifier(l1=0.01, class_weight={0: 1.0, 1: 2.0, 2: 0.5}, device="cuda" if given == "numpy" else "auto")
    there.fit(X if given == "numpy" else gpu.asarray(X), y if given == "numpy" else gpu.asarray(y))
    tolerance = 300 * TOLERANCE[dtype]  # Adam's steps do not depend on the size of a gradient: neither do rounding's
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=tolerance)
    stored(there, given)
    np.testing.assert_allclose(there.densities_, here.densities_, atol=0.02)
    X = X if given == "numpy" else gpu.asarray(X)
    for method in ("predict_proba", "transform", "predict"):
        found = getattr(there, method)(X)
        assert type(found).__module__ == given
        close(gpu, found, getattr(here, method)(gpu.get(X)), 10 * tolerance)
    assert there.score(X, y) == here.score(gpu.get(X), y)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "schedule": "cosine"},
        {"optimizer": "momentum", "early_stopping": True, "validation_fraction": 0.2, "schedule": "adaptive"},
        {"activation": "soft", "density": 0.3},
        {"activation": "hard", "threshold": "per_unit", "density": 0.4},
        {"activation": "soft_nonnegative", "density": 0.2, "shuffle": False},
        {"share": clustered(5), "l1": 0.1},
        {"layers": [Dense(7, nonnegative=True, l1=0.01, l2=0.1), Dense(7, share=tied("a")), Dense(7, share=tied("a"))]},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_options_of_training(gpu, options):
    X, y = rows()
    here, there = regressor(**options).fit(X, y), regressor(**options, device="cuda").fit(X, y)
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=1e-8)
    np.testing.assert_allclose(there.predict(X), here.predict(X), atol=1e-8)
    for a, b in zip(there.network_.parameters, here.network_.parameters, strict=True):
        np.testing.assert_allclose(a.full(), b.full(), atol=1e-8)
    if there.early_stopping:
        np.testing.assert_allclose(there.validation_scores_, here.validation_scores_, rtol=1e-8)
    assert type(there.predict(X)) is np.ndarray


def test_samples_that_do_not_fit_come_in_pieces(gpu, monkeypatch, tmp_path):
    X, y = images(dtype="float64")
    X = np.round(60 * X + 90).clip(0, 255).astype(np.uint8)  # sent as they are, cast there
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    whole = classifier(learning_rate=1e-4, device="cuda").fit(X, y)
    monkeypatch.setattr(batches, "_SHARE", 0)
    monkeypatch.setattr(batches, "_PIECE_BYTES", 32 * 11 * 12 * 8)
    pieces = classifier(learning_rate=1e-4, device="cuda").fit(X, y)
    assert pieces.loss_curve_ == whole.loss_curve_
    np.testing.assert_array_equal(pieces.predict_proba(mapped), whole.predict_proba(X))
    assert classifier(learning_rate=1e-4, device="cuda").fit(mapped, y).loss_curve_ == whole.loss_curve_
    held = [classifier(learning_rate=1e-4, device="cuda", early_stopping=True).fit(X, y) for _ in range(2)]
    assert held[0].loss_curve_ == held[1].loss_curve_


def test_the_host_does_not_wait_for_batches(gpu):
    if gpu.state is None:
        pytest.skip("waits are counted by the fake alone")
    X, y = images()
    trips = []
    estimator = classifier(batch_size=8, max_iter=1, device="cuda", activation="soft", density=0.3).fit(X[:9], y[:9])
    for n in (16, 40):
        read = batches.Batches(X[:n], estimator.input_shape_, np.float32, "cuda:0")
        network = estimator.network_.to_device("cuda:0")
        before = sum(gpu.state.trips.values())
        loop.train_epoch(network, read, y[:n], estimator._plan(), 1e-3, np.random.RandomState(0))
        trips.append(sum(gpu.state.trips.values()) - before)
    assert trips[0] == trips[1] < 20


def test_a_loss_that_explodes(gpu):
    X, y = rows()
    with pytest.warns(UserWarning, match="The loss became (nan|inf)"):
        estimator = regressor(optimizer="sgd", learning_rate=1e200, device="cuda").fit(X, y)
    assert all(np.isfinite(parameter.values).all() for parameter in estimator.network_.parameters)


def test_partial_fit_and_warm_start(gpu):
    X, y = images()
    here, there, moved = classifier(), classifier(), classifier(device="cuda")
    for part in (slice(0, 50), slice(50, 97)):
        here.partial_fit(X[part], y[part], classes=[0, 1, 2])
        there.partial_fit(gpu.asarray(X[part]), y[part], classes=[0, 1, 2])
        moved.partial_fit(X[part], y[part], classes=[0, 1, 2])
    stored(there, "cupy")
    stored(moved, "numpy")
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=1e-3)
    assert moved.loss_curve_ == there.loss_curve_
    again = there.set_params(warm_start=True).fit(gpu.asarray(X), y)
    assert len(again.loss_curve_) == 4


def test_moving_and_storing(gpu, tmp_path):
    X, y = images()
    there = classifier().fit(gpu.asarray(X), y)
    expected = gpu.get(there.predict_proba(gpu.asarray(X)))
    again = pickle.loads(pickle.dumps(there))
    stored(again, "numpy")
    stored(there, "cupy")
    save(there, tmp_path / "network.npz")
    for other in (again, load(tmp_path / "network.npz")):
        np.testing.assert_allclose(other.predict_proba(X), expected, atol=1e-5)
    again.to_device("cuda")
    stored(again, "cupy")
    close(gpu, again.predict_proba(gpu.asarray(X)), expected, 1e-6)
    stored(again.to_device("cpu"), "numpy")
    np.testing.assert_allclose(again.predict_proba(X), expected, atol=1e-5)
    assert str(parameter_report(there)) == str(parameter_report(again))


@pytest.mark.parametrize("make", [lambda e: prune(e, 0.25), lambda e: quantize(e, 4), lambda e: cluster(e, 6)])
def test_compression(gpu, make):
    X, y = images()
    here = classifier([Flatten(), Dense(12)]).fit(X, y)
    there = pickle.loads(pickle.dumps(here)).to_device("cuda")
    small_here, small_there = make(here), make(there)
    stored(small_there, "cupy")
    close(gpu, small_there.predict_proba(gpu.asarray(X)), small_here.predict_proba(X), 1e-5)
    assert str(parameter_report(small_here)) == str(parameter_report(small_there))
    small_here.set_params(warm_start=True).fit(X, y)
    small_there.set_params(warm_start=True).fit(gpu.asarray(X), y)
    np.testing.assert_allclose(small_there.loss_curve_, small_here.loss_curve_, rtol=1e-3)


def test_what_the_user_has_written_stays_as_it_is(gpu):
    X, y = rows()
    layers = [Dense(3, activation="soft", threshold=np.full(3, 0.1)), Dense(2, share=shared(np.zeros((3, 2), int)))]
    estimator = regressor(layers).fit(gpu.asarray(X), y).to_device("cuda")
    assert type(estimator.layers[0].threshold) is type(estimator.densities_) is np.ndarray
    assert type(estimator.network_.nodes[1].layer.share.index) is np.ndarray
    assert np.all(gpu.get(estimator.predict(gpu.asarray(X))) == gpu.get(estimator.predict(gpu.asarray(X))))


def test_words_as_classes_come_on_the_host(gpu):
    X, y = images()
    names = np.array(["one", "two", "three"])[y]
    there = classifier().fit(gpu.asarray(X), names)
    found = there.predict(gpu.asarray(X))
    assert type(found) is np.ndarray and set(found) <= set(names)
    assert type(there.predict_log_proba(gpu.asarray(X))).__module__ == "cupy"


def test_bad_samples(gpu):
    X, y = images()
    there = classifier([Flatten(), Dense(3)]).fit(gpu.asarray(X), y)
    with pytest.raises(TypeError, match="device='auto' follows the arrays, but they live on cpu and cuda:0"):
        there.predict(X)
    with pytest.raises(RuntimeError, match="device='cpu' was asked for, but an array lives on a GPU"):
        classifier(device="cpu").fit(gpu.asarray(X), y)
    with pytest.raises(ValueError, match="X has samples of shape"):
        there.predict(gpu.asarray(X[:, :5]))
    X[3, 2, 1] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN or infinity"):
        there.predict(gpu.asarray(X))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        classifier().fit(gpu.asarray(X[0, 0]), y)
    with pytest.raises(ValueError, match="Complex data not supported"):
        classifier().fit(gpu.asarray(X.astype(complex)), y)
    with pytest.raises(ValueError, match="0 sample"):
        classifier().fit(gpu.asarray(X[:0]), y[:0])
    flat = classifier([Dense(3)]).fit(gpu.asarray(rows()[0]), np.arange(83) % 3)
    with pytest.raises(ValueError, match="X has 8 features, but DeepSparseClassifier is expecting 9"):
        flat.predict(gpu.asarray(rows()[0][:, :8]))


def test_predictions_take_what_fits(gpu):
    if gpu.state is None:
        pytest.skip("a limit would hold for what comes after")
    X, y = images()
    estimator = classifier([Conv(8, 3, activation="tanh"), Flatten(), Dense(3)], device="cuda").fit(X, y)
    expected = estimator.predict_proba(X)
    gpu.state.limit = gpu.state.used_bytes + 2_000_000
    np.testing.assert_allclose(estimator.predict_proba(X), expected, atol=1e-6)
    gpu.state.limit = gpu.state.used_bytes + 1000
    with pytest.raises(MemoryError, match="cuda:0 has 0 MB free, too little for one row|out of memory"):
        estimator.predict_proba(X)


def test_too_little_memory_is_said(gpu):
    if gpu.state is None:
        pytest.skip("a limit would hold for what comes after")
    X, y = images()
    gpu.state.limit = 40_000
    with pytest.raises(MemoryError, match="cuda:0 is out of memory for training a network"):
        classifier(device="cuda").fit(X, y)
