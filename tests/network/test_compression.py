"""Pruned, quantised and clustered networks: what is left, alone and together, and that fine-tuning keeps it."""

import tracemalloc

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sparseshare.network import (
    Conv,
    DeepSparseClassifier,
    Dense,
    Network,
    cluster,
    hashed,
    prune,
    quantize,
    toeplitz,
)

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)


def fitted(share=None, layers=None, **options):
    options = {"max_iter": 15, "n_iter_no_change": None, "random_state": 0, "learning_rate": 0.005, **options}
    return DeepSparseClassifier(layers or [Dense(64)], share=share, **options).fit(X, Y)


@pytest.fixture(scope="module")
def networks():
    made = {"dense": fitted(), "hashed": fitted(hashed(1 / 4)), "conv": fitted(layers=[Conv(6, 3)], image_shape=(8, 8))}
    made["toeplitz"] = fitted(layers=[Dense(36 * 6, share=toeplitz((8, 8, 1), 3))])
    return made


def arrays(network):
    return [weights.full().copy() for weights in network.network_.weights()]


KINDS = ("dense", "hashed", "conv", "toeplitz")


@pytest.mark.parametrize("kind", KINDS)
def test_pruning_keeps_the_largest_values(networks, kind):
    before = [w.values.copy().ravel() for w in networks[kind].network_.weights()]
    full = arrays(networks[kind])
    for values, old, parameter, new in zip(
        before, full, prune(networks[kind], 0.3).network_.weights(), arrays(prune(networks[kind], 0.3)), strict=True
    ):
        assert parameter.values.size == round(0.3 * values.size)
        bound = np.sort(np.abs(values))[-parameter.values.size]
        np.testing.assert_array_equal(new, np.where(np.abs(old) >= bound, old, 0))
    np.testing.assert_array_equal(full[0], arrays(networks[kind])[0])  # the one that was given stays as it is


def test_pruning_twice_counts_from_the_beginning(networks):
    for kind in KINDS:
        twice, once = prune(prune(networks[kind], 0.5), 0.2), prune(networks[kind], 0.2)
        for one, other in zip(arrays(once), arrays(twice), strict=True):
            np.testing.assert_array_equal(one, other)


def test_ties_do_not_keep_more():
    network = Network([Dense(10, bias=False)], (10,))
    network.nodes[0].weights.values[...] = 1
    assert prune(network, 0.25).nodes[0].weights.nonzeros() == 25


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [2, 5])
def test_quantised_weights_are_on_a_grid_through_zero(networks, kind, bits):
    for old, new in zip(arrays(networks[kind]), arrays(quantize(networks[kind], bits)), strict=True):
        levels = np.unique(np.abs(new))
        positive = levels[levels > 0]
        step = np.diff(np.unique(new)).min()
        np.testing.assert_allclose(positive / step, np.round(positive / step), atol=1e-2)
        assert len(np.unique(new)) <= 2**bits * (2 if kind == "hashed" else 1)
        assert np.abs(new - old).max() <= 0.51 * (old.max() - old.min()) / (2**bits - 1) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_clusters_are_means_of_their_weights(networks, kind):
    clustered = cluster(networks[kind], 8)
    for old, parameter in zip(networks[kind].network_.weights(), clustered.network_.weights(), strict=True):
        assert parameter.values.size <= 8
        merged = parameter.pattern.merged if kind in ("hashed", "toeplitz") and old.shared else parameter.pattern
        index, uses = merged.index().ravel(), old.uses().ravel()
        for number, value in enumerate(parameter.values):
            members = index == number
            mean = np.average(old.values.ravel()[members], weights=uses[members])
            assert value == pytest.approx(mean, rel=1e-3, abs=1e-4)


COMBINATIONS = {
    "pruned": lambda network: prune(network, 0.3),
    "quantised": lambda network: quantize(network, 4),
    "clustered": lambda network: cluster(network, 12),
    "pruned, clustered": lambda network: cluster(prune(network, 0.3), 12),
    "pruned, quantised": lambda network: quantize(prune(network, 0.3), 4),
    "quantised, pruned": lambda network: prune(quantize(network, 4), 0.6),
    "pruned twice, clustered": lambda network: cluster(prune(prune(network, 0.6), 0.3), 12),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_fine_tuning_keeps_the_pattern(networks, kind, name):
    small = COMBINATIONS[name](networks[kind])
    zeros = [full == 0 for full in arrays(small)]
    stored = [weights.values.size for weights in small.network_.weights()]
    loss = -np.mean(small.predict_log_proba(X)[np.arange(len(Y)), Y])
    small.partial_fit(X, Y)
    small.set_params(warm_start=True, max_iter=3).fit(X, Y)
    for full, zero in zip(arrays(small), zeros, strict=True):
        assert not full[zero & ("pruned" in name)].any()
    assert [weights.values.size for weights in small.network_.weights()] == stored
    assert -np.mean(small.predict_log_proba(X)[np.arange(len(Y)), Y]) < loss


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_few_values_can_be_tuned_by_any_optimizer(networks, optimizer):
    """A level gathers the gradients of hundreds of weights; its steps are scaled, and do not throw it off."""
    small = cluster(networks["dense"], 8).set_params(warm_start=True, max_iter=5, optimizer=optimizer)
    before = -np.mean(small.predict_log_proba(X)[np.arange(len(Y)), Y])
    small.set_params(learning_rate=0.05).fit(X, Y)
    assert -np.mean(small.predict_log_proba(X)[np.arange(len(Y)), Y]) < before


def test_fine_tuning_repairs_what_pruning_has_cost(networks):
    small = prune(networks["dense"], 1 / 8)
    broken = small.score(X, Y)
    assert small.set_params(warm_start=True, max_iter=15).fit(X, Y).score(X, Y) > max(broken + 0.02, 0.93)


@pytest.mark.parametrize("share", [None, hashed(1 / 8)], ids=["pruned", "hashed"])
def test_inference_needs_a_sixth_of_the_memory(share):
    """Of what stays and of what comes and goes, the output aside."""
    network = Network([Dense(1000, share=share, bias=False, activation="linear")], (784,), np.float32)
    if share is None:
        network = prune(network, 1 / 8)
    weights, x = network.nodes[0].weights, np.zeros((64, 784), np.float32)
    network.release()
    network.output(x[:1])
    tracemalloc.start()
    weights.product(x)
    peak = tracemalloc.get_traced_memory()[1] - 64 * 1000 * 4
    tracemalloc.stop()
    scratch_of_rows = 2 * x.nbytes
    assert weights.nbytes + peak - scratch_of_rows < 784 * 1000 * 4 / 6


@pytest.mark.parametrize("bad", [0, 1.5, "half"])
def test_wrong_densities(networks, bad):
    with pytest.raises(ValueError, match="'density' parameter of prune"):
        prune(networks["dense"], bad)


def test_wrong_levels(networks):
    with pytest.raises(ValueError, match="'bits' parameter of quantize must be an integer of at least 2"):
        quantize(networks["dense"], 1)
    with pytest.raises(ValueError, match="'n_values' parameter of cluster"):
        cluster(networks["dense"], 0)


def test_only_fitted_networks():
    with pytest.raises(ValueError, match="prune is for a fitted network or a Network, got 3"):
        prune(3, 0.5)
    with pytest.raises(ValueError, match="not fitted"):
        cluster(DeepSparseClassifier(), 3)
