"""Multi-layer sparse coding: against dense matrices, ISTA, networks, and a generic solver of the whole problem."""

import numpy as np
import pytest
from network.finite_differences import check_gradients, connected
from scipy.optimize import minimize

from sparseshare import sparse_encode
from sparseshare.network import Conv, Dense, Network, layered_thresholding, ml_fista, ml_ista, parameter_report
from sparseshare.network.chains import operator_of
from sparseshare.network.layers import Builder
from sparseshare.network.multilayer import multilayer_objective
from sparseshare.network.multilayer_layer import MultilayerCoding
from sparseshare.network.sharing import hashed

SHARED = [
    ((9, 2), [(3, 4, 2), (4, 3, 3)], [1, 1], ["valid", "valid"]),
    ((10, 1), [(3, 4, 1), (4, 2, 3), (5, 4)], [3, 1, 1], ["same", "valid", "valid"]),
    ((7, 6, 2), [(3, 3, 3, 2), (4, 2, 2, 3)], [2, 1], ["valid", "same"]),
    ((5, 5, 1), [(3, 2, 3, 1), (4, 4, 3, 3)], [(1, 2), 1], ["valid", "same"]),
    ((6, 6, 2), [(3, 2), (4, 6, 6, 3)], [1, 1], ["valid", "valid"]),
]


def soft(z, threshold, positive=False):
    return np.maximum(z - threshold, 0) if positive else np.sign(z) * np.maximum(np.abs(z) - threshold, 0)


def plain(x, matrices, alpha, steps, n_iter, positive=False, accelerated=False):
    """ML-ISTA and ML-FISTA in full, D_i as matrices whose columns are atoms; x of shape (n_features, n)."""
    last = len(matrices)
    now = before = np.zeros((matrices[-1].shape[1], x.shape[1]))
    momentum, point = 1.0, now
    for _ in range(n_iter):
        estimates = [point]
        for matrix in reversed(matrices):
            estimates.insert(0, matrix @ estimates[0])
        codes = [x]
        for i in range(last):
            gradient = matrices[i].T @ (matrices[i] @ estimates[i + 1] - codes[-1])
            threshold = alpha[i] * np.prod(steps[: i + 1])
            codes.append(soft(estimates[i + 1] - steps[i] * gradient, threshold, positive))
        before, now = now, codes[-1]
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        point = now + (momentum - 1) / following * (now - before) if accelerated else now
        momentum = following
    return codes[1:]


def as_matrix(dictionary, input_shape, stride, padding):
    """Matrix of the synthesis, (entries of the input, codes), entry by entry; and the shape of the codes."""
    if dictionary.ndim == 2:
        n = int(np.prod(input_shape[:-1]))
        return np.kron(np.eye(n), dictionary.T), (*input_shape[:-1], len(dictionary))
    kernel, n_axes = dictionary.shape[1:-1], dictionary.ndim - 2
    stride = (stride,) * n_axes if np.ndim(stride) == 0 else stride
    positions, before = [], []
    for n, k, s in zip(input_shape, kernel, stride, strict=False):
        positions.append(-(-n // s) if padding == "same" else (n - k) // s + 1)
        before.append(max((positions[-1] - 1) * s + k - n, 0) // 2 if padding == "same" else 0)
    matrix = np.zeros((*input_shape, *positions, len(dictionary)))
    for place in np.ndindex(*positions):
        for tap in np.ndindex(*kernel):
            pixel = tuple(p * s + t - b for p, s, t, b in zip(place, stride, tap, before, strict=True))
            if all(0 <= q < n for q, n in zip(pixel, input_shape, strict=False)):
                matrix[(*pixel, slice(None), *place)] = dictionary[(slice(None), *tap)].T
    return matrix.reshape(int(np.prod(input_shape)), -1), (*positions, len(dictionary))


def random_dictionaries(rng, shapes):
    dictionaries = [rng.standard_normal(shape) for shape in shapes]
    return [d / np.linalg.norm(d.reshape(len(d), -1), axis=1).reshape(-1, *[1] * (d.ndim - 1)) for d in dictionaries]


def step_sizes(dictionaries, shape, strides, paddings):
    """1 over the bounds that are used inside, which the oracle takes as given; they are held to the norms below."""
    sizes = []
    for d, stride, padding in zip(dictionaries, strides, paddings, strict=True):
        layer = Dense(len(d)) if d.ndim == 2 else Conv(len(d), d.shape[1:-1], stride=stride, padding=padding)
        operator = operator_of(layer, shape, Builder(np.float64, np.random.RandomState(0)))
        sizes.append(1 / operator.norm2(operator.weights(d, np.float64)))
        shape = operator.output_shape
    return sizes


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(("solve", "accelerated"), [(ml_ista, False), (ml_fista, True)])
def test_iterations_are_those_of_the_paper(solve, accelerated, positive, rng):
    dictionaries, X = random_dictionaries(rng, [(12, 8), (10, 12), (9, 10)]), rng.standard_normal((70, 8))
    alpha = [0.05, 0.1, 0.02]
    steps = step_sizes(dictionaries, (8,), [1] * 3, ["valid"] * 3)
    expected = plain(X.T, [d.T for d in dictionaries], alpha, steps, 7, positive, accelerated)
    for n_jobs in (1, 2):
        codes = solve(X, dictionaries, alpha, n_iter=7, positive=positive, n_jobs=n_jobs)
        for ours, theirs in zip(codes, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.T, atol=1e-12)
            assert np.count_nonzero(ours) > 0


@pytest.mark.parametrize(("shape", "sizes", "strides", "paddings"), SHARED)
def test_shared_atoms_are_dense_matrices(shape, sizes, strides, paddings, rng):
    dictionaries, X = random_dictionaries(rng, sizes), rng.standard_normal((5, *shape))
    alpha = [0.01 * (i + 1) for i in range(len(sizes))]
    steps, matrices, at = step_sizes(dictionaries, shape, strides, paddings), [], shape
    for d, stride, padding in zip(dictionaries, strides, paddings, strict=True):
        matrix, at = as_matrix(d, at, stride, padding)
        matrices.append(matrix)
    flat = X.reshape(5, -1).T
    options = {"stride": strides, "padding": paddings}
    pairs = [
        (ml_fista(X, dictionaries, alpha, n_iter=4, **options), plain(flat, matrices, alpha, steps, 4, False, True)),
        (layered_thresholding(X, dictionaries, alpha, **options), plain(flat, matrices, alpha, [1] * len(sizes), 1)),
    ]
    for codes, expected in pairs:
        assert codes[-1].shape == (5, *at)
        for ours, theirs in zip(codes, expected, strict=True):
            np.testing.assert_allclose(ours.reshape(5, -1), theirs.T, atol=1e-12)
    for step, matrix in zip(steps, matrices, strict=True):
        assert np.linalg.norm(matrix, 2) ** 2 <= (1 + 1e-9) / step < 1.05 * np.linalg.norm(matrix, 2) ** 2


@pytest.mark.parametrize("layer", [Conv(20, 5), Conv(20, (3, 4), stride=2), Conv(20, 3, padding="same", stride=(1, 2))])
def test_steps_are_safe_and_not_much_too_short(layer, rng):
    operator = operator_of(layer, (17, 15, 3), Builder(np.float64, np.random.RandomState(0)))
    weights, v = operator.node.weights.full(), rng.standard_normal((1, 17, 15, 3))
    for _ in range(300):
        v /= np.linalg.norm(v)
        v = operator.synthesise(operator.analyse(v, weights), weights)
    assert np.linalg.norm(v) <= operator.norm2(weights) < 1.3 * np.linalg.norm(v)


@pytest.mark.parametrize(("solve", "accelerated"), [(ml_ista, False), (ml_fista, True)])
def test_one_layer_is_ista(solve, accelerated, rng):
    dictionary, X = random_dictionaries(rng, [(20, 9)])[0], rng.standard_normal((6, 9))
    (step,) = step_sizes([dictionary], (9,), [1], ["valid"])
    expected = plain(X.T, [dictionary.T], [0.2], [step], 40, accelerated=accelerated)[0]
    np.testing.assert_allclose(solve(X, [dictionary], 0.2, n_iter=40)[0], expected.T, atol=1e-12)
    optimum = sparse_encode(X, dictionary, algorithm="lasso_lars", alpha=0.2)
    found = solve(X, [dictionary], 0.2, n_iter=1000)[0]
    least, value = (multilayer_objective(X, [dictionary], codes, 0.2) for codes in (optimum, found))
    assert (value <= (1 + 1e-3) * least).all()


@pytest.mark.parametrize("positive", [False, True])
def test_layered_thresholding_is_a_network(positive, rng):
    dictionaries, X = random_dictionaries(rng, [(12, 8), (10, 12)]), rng.standard_normal((30, 8))
    kind = "soft_nonnegative" if positive else "soft"
    layers = [
        Dense(len(d), activation=kind, threshold=t, bias=False) for d, t in zip(dictionaries, [0.3, 0.2], strict=True)
    ]
    network = Network(layers, (8,))
    for node, dictionary in zip(network.nodes, dictionaries, strict=True):
        node.weights.values[:] = dictionary.T
    codes = layered_thresholding(X, dictionaries, [0.3, 0.2], positive=positive)
    np.testing.assert_allclose(codes[1], network.output(X), atol=1e-14)
    np.testing.assert_allclose(codes[0], network.output(X, 1), atol=1e-14)


def test_it_comes_near_the_minimum_and_nearer_with_smaller_inner_steps():
    rng = np.random.default_rng(1)  # here the minimum has zeros in the inner layer, too; without them there is no gap
    dictionaries, x = random_dictionaries(rng, [(7, 5), (6, 7)]), rng.standard_normal((1, 5))
    alpha, n = [0.3, 0.05], 6

    def value(codes):
        return multilayer_objective(x, dictionaries, codes[None], alpha)[0]

    def smooth(v):  # bounds on the magnitudes are variables, too
        residual = x[0] - v[:n] @ dictionaries[1] @ dictionaries[0]
        return 0.5 * residual @ residual + v[n:] @ np.repeat(alpha[::-1], [n, 7])

    synthesis = np.vstack([np.eye(n), dictionaries[1].T])
    rows = np.vstack([np.hstack([sign * synthesis, np.eye(len(synthesis))]) for sign in (1, -1)])
    best = minimize(
        smooth,
        np.ones(n + len(synthesis)),
        constraints={"type": "ineq", "fun": lambda v: rows @ v, "jac": lambda v: rows},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert best.success
    optimum = value(best.x[:n])
    options = {"n_jobs": 1}
    gaps = [
        value(ml_fista(x, dictionaries, alpha, n_iter=n_iter, step=[step, 1.0], **options)[-1][0]) / optimum - 1
        for step, n_iter in ((1.0, 400), (0.1, 400), (0.01, 1200))
    ]
    np.testing.assert_allclose(gaps, [0.075, 0.0076, 0.00076], rtol=0.1)
    resting = ml_fista(x, dictionaries, alpha, n_iter=400, **options)[-1]
    np.testing.assert_allclose(resting, ml_ista(x, dictionaries, alpha, n_iter=1000, **options)[-1], atol=1e-3)
    # Without a penalty on the inner layer there is no gap.
    free = ml_fista(x, dictionaries, [0, 0.1], n_iter=400, **options)[-1]
    product = dictionaries[1] @ dictionaries[0]
    np.testing.assert_allclose(free, sparse_encode(x, product, algorithm="lasso_lars", alpha=0.1), atol=1e-3)


def test_changes_never_grow(rng):
    dictionaries, X = random_dictionaries(rng, [(12, 8), (10, 12), (9, 10)]), rng.standard_normal((4, 8))
    codes = [ml_ista(X, dictionaries, [0.05, 0.1, 0.02], n_iter=n)[-1] for n in range(1, 30)]
    changes = [np.linalg.norm(b - a, axis=1) for a, b in zip(codes, codes[1:], strict=False)]
    assert all((after <= before + 1e-12).all() for before, after in zip(changes, changes[1:], strict=False))
    # With a step as small it goes downhill, too.
    values = [multilayer_objective(X, dictionaries, c, [0.05, 0.1, 0.02]) for c in codes]
    assert (values[-1] < values[0]).all()


def test_precision_and_channels(rng):
    dictionaries = random_dictionaries(rng, [(4, 3, 3, 1), (5, 2, 2, 4)])
    images = rng.standard_normal((3, 8, 8)).astype(np.float32)
    single = ml_fista(images, dictionaries, 0.1, n_iter=5)
    double = ml_fista(images[..., None].astype(float), dictionaries, 0.1, n_iter=5)
    for ours, theirs in zip(single, double, strict=True):
        assert ours.dtype == np.float32 and theirs.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"dictionaries": [np.eye(4), np.eye(3)]},
            r"dictionary 2 of shape \(3, 3\).*dictionary 1, whose shape is \(4, 4",
        ),
        ({"dictionaries": [np.ones((2, 5))]}, r"dictionary 1 of shape \(2, 5\).*samples of X have the shape \(4,\)"),
        ({"dictionaries": [np.ones((2, 5, 1))]}, "its atoms are larger"),
        ({"dictionaries": [np.ones((2, 2, 2, 4))]}, "2 axes of positions, not 0"),
        ({"dictionaries": [np.ones(4)]}, r"dictionary 1 must have the shape .*got \(4,\)"),
        ({"dictionaries": [np.full((2, 4), np.nan)]}, "dictionary 1 contains NaN"),
        ({"dictionaries": []}, "'dictionaries' parameter must be a list"),
        ({"dictionaries": np.eye(4)}, "'dictionaries' parameter must be a list"),
        ({"X": np.full((2, 4), np.inf)}, "X contains NaN"),
        ({"X": np.ones(4)}, "X must have samples"),
        ({"X": np.ones((0, 4))}, "X must have samples"),
        ({"X": np.ones((2, 4)) * 1j}, "Complex data"),
        ({"alpha": [0.1, 0.2, 0.3]}, "'alpha' parameter must be one number or 2, one a layer, got 3"),
        ({"alpha": [0.1, -1]}, r"alpha\[1\]"),
        ({"alpha": "a"}, "'alpha'"),
        ({"step": 1.5}, "'step'"),
        ({"step": [1]}, "'step' parameter must be one number or 2"),
        ({"n_iter": 0}, "'n_iter'"),
        ({"positive": 1}, "'positive'"),
        ({"stride": [1]}, "'stride' parameter, where it is a list, must have 2"),
    ],
)
def test_what_does_not_fit_is_named(change, match):
    arguments = {"X": np.ones((2, 4)), "dictionaries": [np.eye(4), np.eye(4)], "alpha": 0.1} | change
    with pytest.raises(ValueError, match=match):
        ml_ista(**arguments)


def test_codes_of_another_shape():
    with pytest.raises(ValueError, match=r"codes must have the shape \(2, 3\)"):
        multilayer_objective(np.ones((2, 4)), [np.ones((3, 4))], np.ones((2, 4)), 0.1)


FORMS = [
    ([5, Dense(4)], (6,)),
    ([Conv(3, 3, stride=2), Conv(4, 2, padding="same")], (7, 7, 2)),
    ([Conv(3, 3, stride=2, padding="same"), 2, Conv(4, 2, share=hashed(9))], (9, 2)),
]


@pytest.mark.parametrize(("layers", "shape"), FORMS)
@pytest.mark.parametrize("n_steps", [0, 2])
@pytest.mark.parametrize("positive", [True, False])
def test_gradients_of_unrolled_iterations(layers, shape, n_steps, positive, rng):
    layer = MultilayerCoding(layers, n_steps=n_steps, positive=positive, threshold=1.0)
    check_gradients(connected(layer, shape), rng.standard_normal((3, *shape)), training=n_steps > 0)


@pytest.mark.parametrize("positive", [True, False])
def test_the_layer_unrolls_ml_ista(positive, rng, dtype):
    dictionaries, X = random_dictionaries(rng, [(4, 3, 3, 1), (5, 2, 2, 4)]), rng.standard_normal((70, 8, 8, 1))
    steps = step_sizes(dictionaries, (8, 8, 1), [1, 1], ["valid", "valid"])
    layer = MultilayerCoding(
        [Conv(4, 3), Conv(5, 2)],
        n_steps=3,
        positive=positive,
        threshold=[0.05 * steps[0], np.full(5, 0.1 * steps[0] * steps[1])],
        dictionaries=dictionaries,
    )
    outputs = []
    for n_threads in (1, 2):
        node = layer.connect((8, 8, 1), Builder(dtype, np.random.RandomState(0), n_threads=n_threads))
        y, cache = node.forward(X.astype(dtype), True)
        dx = node.backward(np.ones_like(y), cache)
        outputs.append([y, dx, *(p.gradient for p in node.parameters.values())])
        assert y.dtype == dx.dtype == dtype and node.activation.measured_density == np.mean(y != 0)
    for one, two in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one, two)
    expected = ml_ista(X, dictionaries, [0.05, 0.1], n_iter=4, positive=positive)[-1]
    np.testing.assert_allclose(outputs[0][0], expected, atol=1e-5 if dtype == np.float32 else 1e-12)


def test_a_first_pass_keeps_the_size_of_signals(rng):
    node = MultilayerCoding([Conv(30, 3), 40]).connect((9, 9, 2), Builder(np.float64, np.random.RandomState(0)))
    x = rng.standard_normal((50, 9, 9, 2))
    before = [parameter.values[0] for parameter in node.steps]
    z = before[0] * node.operators[0].analyse(x, node.weights[0].full())
    assert np.mean(z**2) == pytest.approx(1, rel=0.2)
    assert before == pytest.approx([1 / n for n in node._chain().norms2()], rel=2e-3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"layers": []}, "'layers' parameter of MultilayerCoding must be a list"),
        ({"layers": [0, 4]}, "layers"),
        ({"layers": [Conv(2, 3, activation="relu")]}, "has a 'activation', which has no meaning here"),
        ({"layers": [Conv(2, 3), Conv(2, 9)]}, r"layer 1 of MultilayerCoding.*layer 0, Conv.*\(4, 4, 2\).*larger"),
        ({"n_steps": -1}, "n_steps"),
        ({"positive": 2}, "positive"),
        ({"threshold": [0.1]}, "one number or 2 entries"),
        ({"threshold": [0.1, np.ones(2)]}, "a finite number or 3 of them"),
        ({"threshold": -1.0, "positive": False}, "none below 0"),
        ({"dictionaries": [np.ones((2, 3, 3, 1))]}, "must be a list of 2"),
        ({"dictionaries": [np.ones((2, 3, 3, 1)), np.ones((3, 2))]}, r"dictionary 2 .* \(3, 2, 2, 2\), got \(3, 2\)"),
        ({"step_sizes": [1.0]}, "'step_sizes' parameter of MultilayerCoding must be one number or 2"),
        ({"step_sizes": 0}, "step_sizes"),
    ],
)
def test_layers_that_cannot_be(change, match):
    with pytest.raises(ValueError, match=match):
        MultilayerCoding(**({"layers": [Conv(2, 3), Conv(3, 2)]} | change)).connect(
            (6, 6, 1), Builder(np.float64, np.random.RandomState(0))
        )


def test_no_dictionary_for_shared_weights():
    layer = MultilayerCoding([Dense(4, share=hashed(5))], dictionaries=[np.ones((4, 6))])
    with pytest.raises(ValueError, match="shares weights: it takes no dictionary"):
        layer.connect((6,), Builder(np.float64, np.random.RandomState(0)))


@pytest.mark.parametrize("n_steps", [0, 3])
def test_report_counts_every_pass(n_steps):
    coding = Network([MultilayerCoding([Conv(3, 3), Conv(4, 2), 5], n_steps=n_steps)], (8, 7, 2))
    stack = Network([Conv(3, 3, bias=False), Conv(4, 2, bias=False), Dense(5, bias=False)], (8, 7, 2))
    ours, theirs = parameter_report(coding).total, parameter_report(stack).total
    assert ours.stored == theirs.stored + 3 + 4 + 5 + 3  # thresholds and step sizes
    for name in ("dense", "nonzeros", "multiply_adds"):
        assert getattr(ours, name) == (1 + 2 * n_steps) * getattr(theirs, name)


def test_penalties_and_compression_leave_thresholds_and_steps_alone():
    network = Network([MultilayerCoding([4, 3]), Dense(2)], (5,))
    assert [parameter.shape for parameter in network.weights()] == [(5, 4), (4, 3), (3, 2)]
