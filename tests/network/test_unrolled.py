"""Learned sparse coders: ISTA at first, gradients, better than ISTA after training, ALISTA's weights, bad input."""

import pickle

import numpy as np
import pytest
from network.finite_differences import check_gradients, connected, difference
from scipy.sparse import issparse
from sklearn.base import clone

from sparseshare import sparse_encode
from sparseshare.coding.encode import encode
from sparseshare.coding.problem import Problem
from sparseshare.network.layers import Builder
from sparseshare.network.recurrent import Recurrent
from sparseshare.network.storage import load, save
from sparseshare.network.unrolled import LearnedSparseCoder
from sparseshare.network.unrolled_losses import CodeError, LassoObjective, StepLoss
from sparseshare.network.unrolled_steps import WEIGHTS, UnrolledISTA, analytic_weights

LIKE_ISTA = ("tied", "untied", "coupled")


def problem(rng, n=60, n_components=12, n_features=6):
    dictionary = rng.standard_normal((n_components, n_features))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    codes = rng.standard_normal((n, n_components)) * (rng.random((n, n_components)) < 0.2)
    return dictionary, codes @ dictionary + 0.05 * rng.standard_normal((n, n_features))


def steps_of(algorithm, X, D, alpha, n_steps, positive=False):
    """Codes of the coding room's solver that has not converged."""
    problem = Problem(D, algorithm=algorithm, alpha=alpha, max_iter=n_steps, tol=0, positive=positive)
    return encode(X, problem, dense=True).values


def ista(X, D, alpha, n_steps, positive):
    """Beck and Teboulle 2009, as it stands there."""
    lipschitz, Z = np.linalg.eigvalsh(D @ D.T)[-1], np.zeros((len(X), len(D)))
    for _ in range(n_steps):
        V = Z - (Z @ D - X) @ D.T / lipschitz
        Z = np.maximum(V - alpha / lipschitz, 0) if positive else np.sign(V) * np.maximum(abs(V) - alpha / lipschitz, 0)
    return Z


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weights", LIKE_ISTA)
def test_untrained_steps_are_those_of_ista(weights, positive, rng):
    D, X = problem(rng)
    coder = LearnedSparseCoder(3 * D, alpha=0.2, n_steps=6, weights=weights, positive=positive, max_iter=0).fit(X)
    for n_steps in range(1, 7):
        expected = steps_of("ista", X, 3 * D, 0.2, n_steps, positive)
        np.testing.assert_allclose(coder.network_.nodes[0].codes(X, n_steps), expected, atol=1e-12)
    np.testing.assert_array_equal(coder.transform(X), coder.network_.nodes[0].codes(X))
    # Training computes the same by other products.
    np.testing.assert_allclose(coder.network_.forward(X, training=True)[0], expected, atol=1e-12)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weights", LIKE_ISTA)
def test_untrained_accelerated_steps_are_those_of_fista(weights, positive, rng):
    D, X = problem(rng)
    options = dict(alpha=0.2, n_steps=7, weights=weights, positive=positive, accelerate=True, max_iter=0)
    node = LearnedSparseCoder(3 * D, **options).fit(X).network_.nodes[0]
    lipschitz, Z, Y, t = node.largest, np.zeros((60, 12)), np.zeros((60, 12)), 1.0
    for n_steps in range(1, 8):  # Beck and Teboulle 2009, as it stands there
        V = Y - (Y @ (3 * D) - X) @ (3 * D).T / lipschitz
        size = np.maximum((V if positive else abs(V)) - 0.2 / lipschitz, 0)
        t_old, t, old = t, (1 + np.sqrt(1 + 4 * t**2)) / 2, Z
        Z = np.sign(V) * size
        Y = Z + (t_old - 1) / t * (Z - old)
        np.testing.assert_allclose(node.codes(X, n_steps), Z, atol=1e-12)
    np.testing.assert_allclose(node.forward(X, training=True)[0], Z, atol=1e-12)
    # The coding room's drops momentum that points uphill, which so early it does not.
    np.testing.assert_allclose(node.codes(X, 4), steps_of("fista", X, 3 * D, 0.2, 4, positive), atol=1e-12)


@pytest.mark.parametrize("accelerate", [False, True])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_codes_are_those_of_the_weights_that_are_shown(weights, positive, accelerate, rng):
    D, X = problem(rng, n=300)
    layer = UnrolledISTA(D, 0.2, n_steps=4, weights=weights, positive=positive, accelerate=accelerate)
    node, Z, old = connected(layer, (6,)), np.zeros((300, 12)), np.zeros((300, 12))
    for t in range(4):
        W, S, theta = node.step_weights(t)
        Y = Z + (node.momenta()[t] * (Z - old) if accelerate else 0)
        V, old = X @ W + Y @ S, Z
        Z = np.maximum(V - theta, 0) if positive else np.sign(V) * np.maximum(abs(V) - theta, 0)
        np.testing.assert_allclose(node.codes(X, t + 1), Z, atol=1e-12)
        if weights in ("coupled", "analytic"):
            np.testing.assert_allclose(S, np.eye(12) - D @ W, atol=1e-12)
    np.testing.assert_array_equal(node.codes(X, sparse=True).toarray(), node.codes(X))


def test_ista_by_its_textbook(rng):
    D, X = problem(rng)
    largest = np.linalg.eigvalsh(D @ D.T)[-1]
    node = UnrolledISTA(D, 0.2, n_steps=4).connect((6,), Builder(np.float64, np.random.RandomState(0)))
    # The bound that steps are made of is within 3 % of the eigenvalue: stretch the weights to the eigenvalue itself.
    stretch = node.largest / largest
    assert 0.97 < 1 / stretch <= 1
    node.weights.values *= stretch
    node.recurrent.values *= stretch
    node.parameters["threshold"].values *= stretch
    np.testing.assert_allclose(node.codes(X), ista(X, D, 0.2, 4, False), atol=1e-12)


def test_tied_steps_are_a_recurrent_layer_with_a_threshold(rng):
    D, X = problem(rng)
    builder = Builder(np.float64, np.random.RandomState(0))
    node = connected(UnrolledISTA(D, 0.2, n_steps=5), (6,))
    W, S, theta = node.step_weights(0)
    recurrent = Recurrent(12, activation="soft", threshold=theta, bias=False).connect((5, 6), builder)
    recurrent.weights.values[...], recurrent.recurrent.values[...] = W, S
    again, _ = recurrent.forward(np.repeat(X[:, None], 5, axis=1))
    np.testing.assert_allclose(node.codes(X), again, atol=1e-12)


@pytest.mark.parametrize(("n_steps", "accelerate"), [(1, False), (3, False), (1, True), (4, True)])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_gradients(weights, positive, n_steps, accelerate, rng):
    D, X = problem(rng, n=6, n_components=5, n_features=3)
    layer = UnrolledISTA(D, 0.3, n_steps=n_steps, weights=weights, positive=positive, accelerate=accelerate)
    node = connected(layer, (3,), spread=False)
    for parameter in node.parameters.values():
        parameter.values += 0.1 * rng.standard_normal(parameter.values.shape)
    thresholds = node.parameters.pop("threshold")  # by another name: checked like any other
    check_gradients(_Named(node, thresholds), X, training=True)
    assert np.count_nonzero(node.codes(X)) > 2


class _Named:
    """The node, its thresholds among the parameters that are checked."""

    def __init__(self, node, thresholds):
        self._node, self.output_shape = node, node.output_shape
        self.parameters = {**node.parameters, "learned thresholds": thresholds}
        node.parameters["threshold"] = thresholds

    def forward(self, *arguments):
        return self._node.forward(*arguments)

    def backward(self, *arguments):
        return self._node.backward(*arguments)


def swept(X, D, alpha, Z, n_sweeps, positive):
    """Coordinate descent on the lasso over the atoms that codes have, a coefficient at a time."""
    made, norms2 = Z.copy(), (D**2).sum(axis=1)
    for x, z in zip(X, made, strict=True):
        atoms = np.flatnonzero(z)
        for k in np.tile(atoms, n_sweeps):
            step = D[k] @ (x - z @ D) + norms2[k] * z[k]
            z[k] = np.sign(step) * max((step if positive else abs(step)) - alpha, 0) / norms2[k]
    return made


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weights", ["tied", "coupled"])
def test_sweeps_descend_over_the_atoms_that_the_steps_leave(weights, positive, rng):
    D, X = problem(rng, n=60)
    D *= rng.uniform(0.5, 2, (12, 1))
    coder = LearnedSparseCoder(D, alpha=0.1, n_steps=3, weights=weights, positive=positive, max_iter=0).fit(X)
    Z = coder.transform(X)
    objectives = [lasso(X, D, 0.1, Z)]
    for n_sweeps in (1, 2, 200):
        made = coder.set_params(n_sweeps=n_sweeps).transform(X)
        # Signals whose correlations a sweep leaves where they are, to alpha / 1000, are done before the others.
        expected = swept(X, D, 0.1, Z, n_sweeps, positive)
        np.testing.assert_allclose(made, expected, atol=1e-10 if n_sweeps == 1 else 0.02)
        assert not made[Z == 0].any()
        objectives.append(lasso(X, D, 0.1, made))
        np.testing.assert_array_equal(coder.set_params(sparse_output=True).transform(X).toarray(), made)
        coder.set_params(sparse_output=False)
    assert (np.diff(objectives, axis=0) < 1e-12).all()
    slopes = (X - made @ D) @ D.T
    np.testing.assert_allclose(slopes[made != 0], 0.1 * np.sign(made[made != 0]), atol=0.02)


def lasso(X, D, alpha, Z):
    return 0.5 * ((X - Z @ D) ** 2).sum(axis=1) + alpha * abs(Z).sum(axis=1)


def test_sweeps_leave_no_code_on_an_atom_of_zeros(rng):
    D, X = problem(rng)
    coder = LearnedSparseCoder(D, alpha=0.1, n_steps=2, n_sweeps=3, max_iter=0).fit(X)
    node = coder.network_.nodes[0]
    node.dictionary[3] = 0  # the weights still use it
    assert node.codes(X)[:, 3].any() and not coder.transform(X)[:, 3].any()
    assert not coder.transform(np.zeros_like(X)).any()


def test_backward_after_a_pass_that_was_no_training(rng):
    D, X = problem(rng)
    found = []
    for training in (False, True):
        node = connected(UnrolledISTA(D, 0.2, n_steps=3), (6,))
        y, cache = node.forward(X, training)
        found.append([node.backward(y, cache), *(parameter.gradient for parameter in node.parameters.values())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_losses_and_their_gradients(rng):
    D, X = problem(rng, n=5)
    Z, targets = rng.standard_normal((2, 5, 12))
    for loss, given in ((LassoObjective(D, 0.3, 2.0), X), (CodeError(1.5), targets)):
        value, gradient = loss(Z, given)
        expected = np.empty_like(Z)
        for place in np.ndindex(Z.shape):
            step = np.zeros_like(Z)
            step[place] = 1e-6
            expected[place] = (loss(Z + step, given)[0] - loss(Z - step, given)[0]) / 2e-6
        np.testing.assert_allclose(gradient, expected, atol=1e-7)
    objective = (0.5 * ((X - Z @ D) ** 2).sum() + 0.3 * abs(Z).sum()) / 10
    np.testing.assert_allclose(LassoObjective(D, 0.3, 2.0)(Z, X)[0], objective)
    np.testing.assert_allclose(value, ((Z - targets) ** 2).sum() / 7.5)


@pytest.mark.parametrize("accelerate", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_loss_of_every_step(weights, accelerate, rng):
    D, X = problem(rng, n=6, n_components=5, n_features=3)
    layer = UnrolledISTA(D, 0.3, n_steps=3, weights=weights, every_step=True, accelerate=accelerate)
    node = connected(layer, (3,))
    loss = StepLoss(LassoObjective(D, 0.3, 1.0), 0.5)

    def value():
        return loss(node.forward(X, True)[0], X)[0]

    outputs, cache = node.forward(X, True)
    assert outputs.shape == (6, 3, 5)
    by_step = [LassoObjective(D, 0.3, 1.0)(node.codes(X, t), X)[0] for t in (1, 2, 3)]
    np.testing.assert_allclose(value(), np.dot(by_step, [1 / 7, 2 / 7, 4 / 7]))
    node.backward(loss(outputs, X)[1], cache)
    for name, parameter in node.parameters.items():
        np.testing.assert_allclose(parameter.gradient, difference(value, parameter.values), atol=1e-6, err_msg=name)


def test_discount_trains_every_step(rng):
    D, X = problem(rng, n=1000)
    options = dict(alpha=0.1, n_steps=4, max_iter=10, random_state=0)
    last, every = (LearnedSparseCoder(D, discount=d, **options).fit(X).error_curve(X) for d in (0.0, 0.7))
    gaps = every["objective_gap"]["learned"]
    assert (np.diff(gaps) < 0).all() and gaps[0] < last["objective_gap"]["learned"][0]
    assert (gaps < every["objective_gap"]["ista"]).all()


@pytest.mark.parametrize("loss", ["objective", "codes"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_training_beats_ista_on_signals_not_seen(weights, loss, rng):
    D, X = problem(rng, n=1200)
    X, new = X[:1000].astype(np.float32), X[1000:]
    coder = LearnedSparseCoder(
        D, alpha=0.1, n_steps=4, weights=weights, loss=loss, max_iter=15, learning_rate=0.02, random_state=0
    ).fit(X)
    curve = coder.error_curve(new)
    np.testing.assert_array_equal(curve["steps"], [1, 2, 3, 4])
    measure = curve["objective_gap" if loss == "objective" else "code_error"]
    # Weights that are no dictionary's have codes of the lasso for no fixed point.
    assert measure["learned"][-1] < (0.9 if weights == "analytic" else 0.8) * measure["ista"][-1]
    assert coder.loss_curve_[-1] < coder.loss_curve_[0] < 1
    assert coder.n_iter_ == 15 and not coder.converged_


def test_error_curve_is_what_it_says(rng):
    D, X = problem(rng)
    coder = LearnedSparseCoder(D, alpha=0.1, n_steps=3, weights="tied", max_iter=0).fit(X)
    curve = coder.error_curve(X)
    exact = sparse_encode(X, D, alpha=0.1, tol=1e-10)

    def F(Z):
        return 0.5 * ((X - Z @ D) ** 2).sum() + 0.1 * abs(Z).sum()

    for name in ("ista", "fista"):
        Z = steps_of(name, X, D, 0.1, 3)
        np.testing.assert_allclose(curve["objective_gap"][name][2], (F(Z) - F(exact)) / F(exact), atol=1e-8)
        np.testing.assert_allclose(curve["code_error"][name][2], ((Z - exact) ** 2).sum() / (exact**2).sum(), atol=1e-6)
    for measure in ("objective_gap", "code_error"):
        np.testing.assert_allclose(curve[measure]["learned"], curve[measure]["ista"], atol=1e-10)


def test_analytic_weights_are_the_least_coherent(rng):
    D = rng.standard_normal((12, 6))
    D -= D.mean(axis=1, keepdims=True)  # no atom sees the mean: D'D is singular
    D[3] = 0
    W = analytic_weights(D)
    norms = np.einsum("kn,nk->k", D, W)
    np.testing.assert_allclose(norms, np.arange(12) != 3, atol=1e-12)
    least = np.linalg.norm(D @ W)
    gram = D.T @ D
    for k in range(12):
        # Lagrange: the gradient of |D w|^2 is a multiple of the atom.
        gradient = gram @ W[:, k]
        multiple = gradient @ D[k] / max(D[k] @ D[k], 1e-300)
        np.testing.assert_allclose(gradient, multiple * D[k], atol=1e-12)
    for _ in range(20):
        step = rng.standard_normal(W.shape)
        step -= D.T * np.divide(
            np.einsum("kn,nk->k", D, step), (D**2).sum(axis=1), out=np.zeros(12), where=(D**2).sum(axis=1) > 0
        )
        assert np.linalg.norm(D @ (W + 0.1 * step)) >= least
    square = rng.standard_normal((5, 5))
    np.testing.assert_allclose(analytic_weights(square), np.linalg.inv(square), atol=1e-10)


def test_analytic_steps_do_not_run_away(rng):
    D, X = problem(rng)
    curve = LearnedSparseCoder(D, alpha=0.1, n_steps=40, weights="analytic", max_iter=0).fit(X).error_curve(X)
    assert curve["objective_gap"]["learned"][-1] < curve["objective_gap"]["learned"][0]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_float32_and_threads(weights, rng):
    D, X = problem(rng, n=600)
    X = X.astype(np.float32)
    coders = [
        LearnedSparseCoder(D, alpha=0.1, n_steps=3, weights=weights, max_iter=2, n_jobs=n, random_state=0).fit(X)
        for n in (1, 2)
    ]
    codes = [coder.transform(X) for coder in coders]
    assert codes[0].dtype == np.float32 and coders[0].components_.dtype == np.float32
    np.testing.assert_array_equal(*codes)
    assert coders[0].loss_curve_ == coders[1].loss_curve_
    coders[0].set_params(sparse_output=True, n_jobs=2)
    sparse = coders[0].transform(X)
    assert issparse(sparse) and sparse.dtype == np.float32
    np.testing.assert_array_equal(sparse.toarray(), codes[0])
    np.testing.assert_allclose(coders[0].inverse_transform(sparse), codes[0] @ D.astype(np.float32), atol=1e-5)


def test_scale_of_signals_and_atoms_does_not_matter(rng):
    """A dictionary c times as long and signals b times as long: the same course of training."""
    D, X = problem(rng, n=400)
    losses = [
        LearnedSparseCoder(c * D, alpha=0.1 * b * c, n_steps=3, max_iter=4, random_state=0).fit(b * X).loss_curve_
        for b, c in ((1.0, 1.0), (2.0**12, 2.0**-6))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_validation_part_and_early_stopping(rng):
    D, X = problem(rng, n=400)
    options = dict(alpha=0.1, n_steps=3, max_iter=30, early_stopping=True, schedule="constant", random_state=0)
    coder = LearnedSparseCoder(D, n_iter_no_change=2, tol=1e-3, **options).fit(X)
    assert coder.converged_ and coder.n_iter_ == len(coder.loss_curve_) == len(coder.validation_scores_) < 30
    with pytest.raises(ValueError, match="leaves none of 1"):
        LearnedSparseCoder(D, **options).fit(X[:1])


@pytest.mark.parametrize("weights", ["tied", "analytic"])
def test_signals_of_zeros_and_penalties_that_leave_nothing(weights, rng):
    D, X = problem(rng)
    options = dict(n_steps=2, weights=weights, max_iter=1)
    for loss in ("codes", "objective"):
        assert not LearnedSparseCoder(D, alpha=100.0, loss=loss, **options).fit(X).transform(X).any()
        coder = LearnedSparseCoder(D, alpha=0.1, loss=loss, **options).fit(np.zeros_like(X))
        assert not coder.transform(np.zeros_like(X)).any() and np.isfinite(coder.loss_curve_).all()
    coder = LearnedSparseCoder(np.zeros_like(D), **options).fit(X)
    assert not coder.transform(X).any()


def test_pickle_clone_and_callbacks_parameters(rng):
    D, X = problem(rng)
    coder = LearnedSparseCoder(D, alpha=0.1, n_steps=2, max_iter=2, random_state=0).fit(X)
    again = pickle.loads(pickle.dumps(coder))
    np.testing.assert_array_equal(again.transform(X), coder.transform(X))
    np.testing.assert_array_equal(clone(coder).fit(X).transform(X), coder.transform(X))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_files_without_pickle(weights, rng, tmp_path):
    D, X = problem(rng)
    coder = LearnedSparseCoder(D, alpha=0.1, n_steps=2, weights=weights, max_iter=2, random_state=0)
    coder.fit(X.astype(np.float32))
    save(coder, tmp_path / "coder.npz")
    again = load(tmp_path / "coder.npz")
    assert again.transform(X).dtype == np.float32
    np.testing.assert_array_equal(again.transform(X), coder.transform(X))
    np.testing.assert_array_equal(again.components_, coder.components_)


def test_names_of_features_out(rng):
    D, X = problem(rng)
    coder = LearnedSparseCoder(D, max_iter=0).fit(X)
    assert list(coder.get_feature_names_out()[:2]) == ["learnedsparsecoder0", "learnedsparsecoder1"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -0.1),
        ("n_steps", 0),
        ("n_steps", 1.5),
        ("weights", "free"),
        ("positive", "yes"),
        ("accelerate", None),
        ("n_sweeps", -1),
        ("n_sweeps", 1.5),
        ("loss", "mse"),
        ("optimizer", "lbfgs"),
        ("learning_rate", 0),
        ("momentum", 1),
        ("schedule", "linear"),
        ("batch_size", 0),
        ("max_iter", -1),
        ("shuffle", None),
        ("early_stopping", "on"),
        ("validation_fraction", 1),
        ("n_iter_no_change", 0),
        ("tol", -1),
        ("discount", 1.5),
        ("sparse_output", 2),
        ("verbose", "loud"),
        ("n_jobs", 0),
        ("device", "gpu"),
        ("random_state", "a"),
    ],
)
def test_wrong_parameters_are_named(name, value, rng):
    D, X = problem(rng)
    with pytest.raises(ValueError, match=name if name != "random_state" else "cannot be used to seed"):
        LearnedSparseCoder(D, **{name: value}).fit(X)


def test_wrong_dictionaries_and_signals(rng):
    D, X = problem(rng)
    with pytest.raises(ValueError, match="different numbers of features: the dictionary has 5, X.shape is"):
        LearnedSparseCoder(D[:, :5]).fit(X)
    with pytest.raises(ValueError, match="dictionary contains NaN"):
        LearnedSparseCoder(np.where(D > 1e9, 0, np.nan)).fit(X)
    with pytest.raises(ValueError, match="no atoms"):
        LearnedSparseCoder(D[:0]).fit(X)
    with pytest.raises(ValueError, match="NaN"):
        LearnedSparseCoder(D).fit(np.where(X > 1, np.nan, X))
    coder = LearnedSparseCoder(D, max_iter=0).fit(X)
    with pytest.raises(ValueError, match="12 entries"):
        coder.inverse_transform(X)
    with pytest.raises(ValueError, match="atoms of 6 features"):
        UnrolledISTA(D).connect((5,), Builder(np.float64, np.random.RandomState(0)))
