"""Activations against their formulas, finite differences and the densities they are to reach."""

import numpy as np
import pytest
from network.finite_differences import check_gradients, connected

from reference import soft_threshold
from sparseshare import sparse_encode
from sparseshare.network.layers import Builder, Dense

FORMULAS = {
    "relu": lambda z, t: np.maximum(z, 0),
    "soft": lambda z, t: soft_threshold(z, t, False),
    "soft_nonnegative": lambda z, t: soft_threshold(z, t, True),
    "hard": lambda z, t: np.where(np.abs(z) >= t, z, 0),
    "tanh": lambda z, t: np.tanh(z),
    "linear": lambda z, t: z,
}
WITH_THRESHOLD = ["soft", "soft_nonnegative", "hard"]


def activation(n_units=6, dtype=np.float64, **options):
    defaults = {name: options.pop(name) for name in ("n_threads",) if name in options}
    node = Dense(n_units, **options).connect((3,), Builder(dtype, np.random.RandomState(0), **defaults))
    return node.activation


@pytest.mark.parametrize("kind", FORMULAS)
def test_activations_are_their_formulas(kind, rng, dtype):
    threshold = 0.5 if kind in WITH_THRESHOLD else None
    z = rng.standard_normal((40, 6)).astype(dtype)
    bias = rng.standard_normal(6).astype(dtype)
    a, _ = activation(activation=kind, threshold=threshold, dtype=dtype).forward(z.copy(), bias=bias)
    assert a.dtype == dtype
    np.testing.assert_allclose(a, FORMULAS[kind](z + bias, 0.5), rtol=1e-6, atol=1e-7)


def test_a_hard_threshold_keeps_what_is_as_large(dtype):
    z = np.array([[-1.0, -0.5, -0.49, 0.49, 0.5, 0.0]], dtype)
    a, _ = activation(activation="hard", threshold=0.5, dtype=dtype).forward(z.copy())
    np.testing.assert_array_equal(a, np.array([[-1, -0.5, 0, 0, 0.5, 0]], dtype))


@pytest.mark.parametrize("kind", [*FORMULAS, "topk"])
@pytest.mark.parametrize("shape", [(3,), (4, 3)])
def test_gradients(kind, shape, rng):
    density = 0.4 if kind == "topk" else None
    node = connected(Dense(5, activation=kind, density=density), shape)
    check_gradients(node, rng.standard_normal((7, *shape)))


@pytest.mark.parametrize("kind", WITH_THRESHOLD)
@pytest.mark.parametrize("threshold", [0.0, 0.3, [0.0, 0.1, 0.2, 0.3, 0.4], "learned"])
def test_gradients_with_thresholds(kind, threshold, rng):
    if kind == "hard" and isinstance(threshold, str):
        pytest.skip("has no gradient")
    node = connected(Dense(5, activation=kind, threshold=threshold), (3,))
    if node.activation.learned:
        node.parameters["threshold"].values[:] = [0.0, 0.1, 0.2, 0.5, 2.0] if kind == "soft_nonnegative" else [0.1] * 5
    check_gradients(node, rng.standard_normal((7, 3)))


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_without_a_threshold_all_gradients_pass(kind):
    one = activation(activation=kind, threshold=0.0)
    a, cache = one.forward(np.zeros((1, 6)))
    np.testing.assert_array_equal(one.backward(np.ones((1, 6)), cache), np.ones((1, 6)))


def test_learned_thresholds_stay_nonnegative():
    node = connected(Dense(5, activation="soft", threshold="learned"), (3,))
    parameter = node.parameters["threshold"]
    parameter.values -= 1
    parameter.project()
    np.testing.assert_array_equal(parameter.values, 0)


@pytest.mark.parametrize("n_positions", [1, 4])
def test_topk_keeps_so_many_of_every_sample(n_positions, rng, dtype):
    node = Dense(10, activation="topk", density=0.25).connect(
        (n_positions, 3), Builder(dtype, np.random.RandomState(0))
    )
    z = rng.standard_normal((20, n_positions, 10)).astype(dtype)
    a, _ = node.activation.forward(z.copy())
    k = round(0.25 * n_positions * 10)
    flat, kept = np.abs(z).reshape(20, -1), (a != 0).reshape(20, -1)
    assert np.all(kept.sum(axis=1) == k)
    assert np.all(np.where(kept, flat, np.inf).min(axis=1) >= np.where(kept, 0, flat).max(axis=1))
    np.testing.assert_array_equal(a[a != 0], z[a != 0])
    assert node.activation.measured_density == k / (10 * n_positions)


def test_ties_go_to_the_earlier_unit():
    one = activation(activation="topk", density=0.5)
    a, _ = one.forward(np.array([[1.0, -1, 1, 2, -1, 0], [0, 0, 0, 0, 0, 0]]))
    np.testing.assert_array_equal(a, [[1, -1, 0, 2, 0, 0], [0, 0, 0, 0, 0, 0]])
    assert one.measured_density == 3 / 12


@pytest.mark.parametrize("kind", ["relu", "soft", "hard", "tanh", "linear"])
def test_nan_is_not_hidden(kind):
    z = np.array([[np.nan, 1.0, 0, 0, 0, 0]])
    a, _ = activation(activation=kind).forward(z)
    assert np.isnan(a[0, 0]) and not np.isnan(a[0, 1:]).any()


def test_densities_are_measured(rng):
    one = activation(activation="relu")
    assert np.isnan(one.measured_density) and np.isnan(one.running_density)
    for wanted in (0.5, 0.25):
        z = np.ones((12, 6))
        z[: int(12 * (1 - wanted))] = -1
        one.forward(z)
        assert one.measured_density == wanted
    assert one.running_density == 0.375
    one.reset_counts()
    assert np.isnan(one.running_density)


@pytest.mark.parametrize("kind", WITH_THRESHOLD)
@pytest.mark.parametrize("threshold", [None, "per_unit", 3.0])
def test_thresholds_move_to_a_density(kind, threshold, rng, dtype):
    one = activation(n_units=8, activation=kind, threshold=threshold, density=0.1, dtype=dtype)
    scales = np.linspace(0.5, 4, 8)
    for _ in range(120):
        one.forward((rng.standard_normal((512, 8)) * scales).astype(dtype), training=True)
    z = (rng.standard_normal((20000, 8)) * scales).astype(dtype)
    before = one.parameter.values.copy()
    a, _ = one.forward(z)
    np.testing.assert_array_equal(one.parameter.values, before)  # predicting moves nothing
    assert abs(one.measured_density - 0.1) < 0.01
    if threshold == "per_unit":
        assert np.abs((a != 0).mean(axis=0) - 0.1).max() < 0.02
    else:
        assert one.parameter.values.shape == (1,)


def test_a_rare_unit_is_not_thresholded_below_zero(rng):
    one = activation(activation="soft_nonnegative", density=0.9)
    one.forward(-np.ones((30, 6)), training=True)
    np.testing.assert_array_equal(one.parameter.values, 0)


def test_one_soft_layer_is_sparse_encode_by_thresholds(rng, dtype):
    X, atoms = rng.standard_normal((30, 12)).astype(dtype), rng.standard_normal((20, 12)).astype(dtype)
    for kind, positive in [("soft", False), ("soft_nonnegative", True)]:
        node = Dense(20, activation=kind, threshold=0.7, bias=False).connect(
            (12,), Builder(dtype, np.random.RandomState(0))
        )
        node.weights.values[...] = atoms.T
        codes = sparse_encode(X, atoms, algorithm="threshold", alpha=0.7, positive=positive)
        np.testing.assert_allclose(node.forward(X)[0], codes, atol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("kind", [*FORMULAS, "topk"])
def test_bits_do_not_depend_on_threads(kind, rng):
    z, da = rng.standard_normal((2, 300, 1000)).astype(np.float32)
    found = []
    for n_threads in (1, 3):
        density = 0.2 if kind in ("topk", "hard") else None
        threshold = "learned" if kind == "soft" else None
        one = activation(
            n_units=1000, activation=kind, density=density, threshold=threshold, n_threads=n_threads, dtype=np.float32
        )
        sums = np.zeros(1000, np.float32)
        a, cache = one.forward(z.copy(), training=True)
        found.append([a, one.backward(da, cache, sums), sums])
        if kind in ("soft", "hard"):
            found[-1] += [one.parameter.values, one.parameter.gradient]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_defaults_are_those_of_the_builder():
    def built(layer, **defaults):
        return layer.connect((3,), Builder(np.float64, np.random.RandomState(0), **defaults)).activation

    assert built(Dense(4)).kind == "relu"
    one = built(Dense(4), activation="soft", threshold=0.3)
    assert one.kind == "soft" and one.parameter.values == [0.3]
    assert built(Dense(4, threshold=0.2), activation="soft", threshold=0.3, density=0.1).density is None
    assert built(Dense(4, threshold="per_unit"), activation="soft", density=0.1).density == 0.1
    assert built(Dense(4, density=0.2), activation="soft", threshold=0.3).parameter.values == [0.0]
    assert built(Dense(4, activation="tanh"), activation="hard", threshold=0.3, density=0.1).density is None
    assert built(Dense(4), activation="topk", density=0.5).k == 2
    assert built(Dense(4, activation="hard")).parameter.values == [0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "sigmoid"}, "'activation' parameter of Dense must be"),
        ({"activation": "relu", "threshold": 0.1}, "'threshold' parameter of Dense .* nearest to 'relu' is 'soft_nonn"),
        ({"activation": "relu", "density": 0.1}, "'density' parameter of Dense .* nearest to 'relu' is 'soft_nonneg"),
        ({"activation": "topk"}, "needs a 'density'"),
        ({"activation": "hard", "threshold": "learned"}, "A hard threshold has no gradient"),
        ({"activation": "soft", "threshold": "learned", "density": 0.1}, "either learned or moved"),
        ({"activation": "soft", "threshold": "per_unit"}, "needs the 'density'"),
        ({"activation": "soft", "threshold": "free"}, "an array of 4 of them"),
        ({"activation": "soft", "threshold": -1.0}, "'threshold' parameter of Dense must be"),
        ({"activation": "soft", "threshold": [1.0, 2.0]}, "must hold 4 finite numbers"),
        ({"activation": "soft", "threshold": [1.0, 2.0, -1.0, 0.0]}, "must hold 4 finite numbers"),
        ({"activation": "soft", "density": 0.0}, "'density' parameter of Dense must be"),
        ({"activation": "soft", "density": 1.5}, "'density' parameter of Dense must be"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Dense(4, **options).connect((3,), Builder(np.float64, np.random.RandomState(0)))


def test_defaults_that_do_not_fit_are_refused():
    builder = Builder(np.float64, np.random.RandomState(0), activation="relu", threshold=0.1)
    with pytest.raises(ValueError, match="its activation is 'relu'"):
        Dense(4).connect((3,), builder)
