"""Products with hashed runs and pruned weights against the array they stand for; what they cost; that they are kept."""

import pickle
import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone

from sparseshare.network import Conv, DeepSparseClassifier, Dense, Network, hashed, load, prune, save
from sparseshare.network.parameters import Parameter
from sparseshare.network.patterns import Hashed, Kept

SHAPES = [(5, 1), (1, 9), (64, 16), (65, 17), (300, 130), (520, 70)]
ROWS = (1, 2, 4, 5, 8, 17, 140)  # each on its own, panels, rows as columns in one vector and in several


def slow_hashed(values, pattern):
    """A weight at a time, by the words of the published kind of hash."""
    n_columns, run = pattern.shape[1], pattern.run
    n_runs, n_starts = -(-n_columns // run), len(values) - run + 1
    words = Hashed((pattern.shape[0], n_runs), n_starts, pattern.seed)
    starts, signs = words.index(), words.signs()
    full = np.empty(pattern.shape)
    for i, j in np.ndindex(pattern.shape):
        value = values[starts[i, j // run] + j % run]
        full[i, j] = value * signs[i, j // run] if pattern.signed else value
    return full


def patterns(shape, rng):
    size = shape[0] * shape[1]
    for run, signed in ((1, True), (16, True), (16, False), (64, True), (80, True)):
        yield Hashed(shape, max(size // 8, 1), 3, signed, run)
    for density in (0, 0.125, 1):
        yield Kept.of(rng.random(shape) < density)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_those_of_the_array(shape, rng):
    for pattern in patterns(shape, rng):
        values = rng.standard_normal(pattern.n_values).astype(np.float32)
        parameter, spelled = Parameter(values, pattern), Parameter(values, pattern).full()
        if isinstance(pattern, Hashed):
            np.testing.assert_array_equal(spelled, slow_hashed(values, pattern).astype(np.float32))
        for n in ROWS:
            rows = rng.standard_normal((n, shape[0])).astype(np.float32)
            exact = rows.astype(np.float64) @ spelled
            scale = np.abs(rows).astype(np.float64) @ np.abs(spelled)
            product = parameter.product(rows)
            assert product.dtype == np.float32 and parameter._full is None
            assert (np.abs(product - exact) <= 1e-6 * scale + 1e-30).all()
            np.testing.assert_array_equal(product, parameter.product(rows, n_threads=2))


def test_products_in_double_precision(rng):
    for pattern in patterns((70, 50), rng):
        parameter = Parameter(rng.standard_normal(pattern.n_values), pattern)
        for n in ROWS:
            rows = rng.standard_normal((n, 140))[:, ::2]
            np.testing.assert_allclose(
                parameter.product(rows), rows @ Parameter(parameter.values, pattern).full(), rtol=1e-11, atol=1e-12
            )


def test_rows_of_a_large_batch_do_not_depend_on_each_other(rng):
    """As many rows as panels go by in two turns, and more of the matrix than is made at a time."""
    for pattern in (Hashed((600, 40), 3000, 0, run=16), Kept.of(rng.random((600, 40)) < 0.1)):
        parameter = Parameter(rng.standard_normal(pattern.n_values).astype(np.float32), pattern)
        rows = rng.standard_normal((530, 600)).astype(np.float32)
        product = parameter.product(rows)
        np.testing.assert_array_equal(product[515:], parameter.product(rows[515:]))


def test_no_rows():
    for pattern in (Hashed((20, 30), 40, 0), Hashed((20, 30), 40, 0, run=16), Kept.of(np.ones((20, 30), bool))):
        product = Parameter(np.ones(pattern.n_values), pattern).product(np.ones((0, 20)))
        assert product.shape == (0, 30)


def test_runs_spread_evenly():
    pattern = Hashed((400, 512), 5000, seed=0, run=16)
    counts = np.bincount(pattern.index().ravel(), minlength=5000)
    inner = counts[16:-16]  # fewer runs reach the ends
    assert inner.mean() == pytest.approx(400 * 512 / 5000, rel=0.02)
    assert 0.6 < inner.var() / inner.mean() < 1.6  # Poisson, in clumps of neighbours
    assert abs(pattern.signs().mean()) < 0.03
    index, signs = pattern.index(), pattern.signs()
    for run in range(0, 512, 16):
        np.testing.assert_array_equal(np.diff(index[:, run : run + 16]), 1)
        assert (signs[:, run : run + 16] == signs[:, [run]]).all()


def test_runs_are_cut_to_what_there_is():
    assert Hashed((10, 100), 200, 0, run=64).run == 64
    assert Hashed((10, 100), 50, 0, run=64).run == 48
    assert Hashed((10, 20), 200, 0, run=64).run == 32
    assert Hashed((10, 20), 15, 0, run=64).run == 1


def test_kernels_and_patterns_mean_the_same_piece():
    from sparseshare.kernels.dispatch import kernels_for
    from sparseshare.network.patterns import PIECE

    assert kernels_for("cpu", "compressed_products").PIECE == PIECE


def test_gradients_of_runs(rng):
    network = Network([Dense(20, share=hashed(1 / 4, run=16), activation="tanh")], (12,))
    x, dy = rng.standard_normal((5, 12)), rng.standard_normal((5, 20))
    network.reset_gradients()
    network.backward(dy, network.forward(x, training=True)[1])
    weights = network.nodes[0].weights
    assert weights.pattern.run == 16
    for number in (0, 17, 40, 59):
        sides = []
        for sign in (1, -1):
            weights.values[number] += sign * 1e-6
            weights.changed()
            sides.append((network.output(x) * dy).sum())
            weights.values[number] -= sign * 1e-6
        weights.changed()
        assert weights.gradient[number] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_convolutions_take_runs(rng):
    network = Network([Conv(20, 3, share=hashed(1 / 2, run=16))], (6, 6, 2))
    spelled = Network([Conv(20, 3)], (6, 6, 2))
    spelled.nodes[0].weights.values[...] = network.nodes[0].weights.full()
    x = rng.standard_normal((3, 6, 6, 2))
    np.testing.assert_allclose(network.output(x), spelled.output(x), atol=1e-12)


def memory_of(network, x):
    """Bytes of what the network holds, and of what comes and goes while it predicts, output aside."""
    network.release()
    network.output(x[:1])
    network.output(x)
    tracemalloc.start()
    activations = network.output(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    kept = len(pickle.dumps(network.parameters))
    assert all(parameter._full is None and parameter._index is None for parameter in network.parameters)
    return kept, peak - activations.nbytes


@pytest.mark.parametrize("kind", ["hashed", "hashed runs", "pruned"])
@pytest.mark.parametrize("n", [1, 40])
def test_a_network_of_an_eighth_takes_a_sixth_of_the_memory(kind, n):
    share = {"hashed": hashed(1 / 8), "hashed runs": hashed(1 / 8, run=64), "pruned": None}[kind]
    network = Network([Dense(1000, share=share), Dense(1000, share=share)], (784,), np.float32, n_threads=2)
    if kind == "pruned":
        network = prune(network, 1 / 8)
    dense = 4 * (784 * 1000 + 1000 * 1000 + 2 * 1000)
    kept, passing = memory_of(network, np.zeros((n, 784), np.float32))
    reported = sum(parameter.nbytes for parameter in network.parameters)
    assert reported <= kept < 1.02 * reported + 4000
    assert kept < dense / 6
    # A pruned network turns the rows of a batch into columns, 128 at a time.
    turned = 2 * 512 * 1000 if kind == "pruned" and n > 4 else 0
    assert kept + passing - 4 * n * 2000 - turned < dense / 6


@pytest.fixture(scope="module")
def digits():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 30)).astype(np.float32)
    return X, (X @ rng.standard_normal((30, 3))).argmax(axis=1)


def fitted(digits):
    return DeepSparseClassifier(
        [Dense(40)], share=hashed(1 / 2, seed=5, run=16), max_iter=3, n_iter_no_change=None, random_state=0
    ).fit(*digits)


def test_runs_are_pickled_stored_cloned_and_pruned(digits, tmp_path):
    network = fitted(digits)
    save(network, tmp_path / "runs.npz")
    for copy in (pickle.loads(pickle.dumps(network)), load(tmp_path / "runs.npz")):
        np.testing.assert_array_equal(copy.predict_proba(digits[0]), network.predict_proba(digits[0]))
        pattern = copy.network_.nodes[0].weights.pattern
        assert (pattern.run, pattern.seed, pattern.nbytes) == (16, 5, 0)
    assert clone(network).share.run == 16 and "run=16" in repr(network.share)
    small = prune(network, 1 / 4)
    save(small, tmp_path / "pruned.npz")
    np.testing.assert_array_equal(load(tmp_path / "pruned.npz").predict(digits[0]), small.predict(digits[0]))


def test_runs_train(digits):
    network = fitted(digits).set_params(max_iter=60, learning_rate=0.01).fit(*digits)
    assert network.score(*digits) > 0.95


@pytest.mark.parametrize("run", [0, -16, 8, 17, 16.5, "16"])
def test_wrong_runs(run):
    with pytest.raises(ValueError, match="'run' parameter of hashed must be"):
        Network([Dense(40, share=hashed(1 / 8, run=run))], (30,))


def test_rows_that_do_not_fit():
    for pattern in (Hashed((20, 30), 40, 0), Kept.of(np.ones((20, 30), bool))):
        parameter = Parameter(np.ones(pattern.n_values), pattern)
        with pytest.raises(ValueError, match=r"shape \(20, 30\) take rows of 20, got shape \(2, 21\)"):
            parameter.product(np.ones((2, 21)))
