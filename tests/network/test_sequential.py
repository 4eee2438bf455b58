"""Sequential sparse coding: the algorithm step by step, the problem it solves, its training, and what it refuses."""

import pickle

import numpy as np
import pytest
from network.finite_differences import check_gradients, connected
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sparseshare.callbacks import EarlyStopping, LossMonitor
from sparseshare.coding import sparse_encode
from sparseshare.network import SequentialSparseCoder, sequential
from sparseshare.network.layers import Builder
from sparseshare.network.sequential_steps import SequentialCoding
from sparseshare.optimization.lipschitz import largest_eigenvalue


def soft(z, threshold, positive=False):
    return np.maximum(z - threshold, 0) if positive else np.sign(z) * np.maximum(np.abs(z) - threshold, 0)


def plain_sista(X, D, alpha, smoothness, n_iter, transition=None, positive=False):
    """A frame at a time, by gradient steps on signals."""
    F = np.eye(D.shape[1]) if transition is None else transition
    bound = largest_eigenvalue(D @ D.T)
    step = 1 / ((1 + smoothness) * bound)
    codes = np.zeros((*X.shape[:2], len(D)))
    for sequence, found in zip(X, codes, strict=True):
        last = np.zeros(len(D))
        for x, place in zip(sequence, found, strict=True):
            expected = last @ D @ F
            h = last + (expected - last @ D) @ D.T / bound
            for _ in range(n_iter):
                gradient = (h @ D - x) @ D.T + smoothness * (h @ D - expected) @ D.T
                h = soft(h - step * gradient, step * alpha, positive)
            place[:] = last = h
    return codes


def atoms(n_components, n_features, rng):
    D = rng.standard_normal((n_components, n_features))
    return D / np.linalg.norm(D, axis=1, keepdims=True)


def slow_sequences(D, rng, n=12, n_steps=15, n_active=2, noise=0.0):
    """Sums of few atoms with weights that drift, and the same with noise."""
    codes = np.zeros((n, len(D)))
    for code in codes:
        code[rng.permutation(len(D))[:n_active]] = rng.uniform(0.5, 1.5, n_active)
    drift = 1 + 0.05 * rng.standard_normal((n, n_steps, len(D))).cumsum(axis=1)
    clean = (codes[:, None] * drift) @ D
    return clean, clean + noise * rng.standard_normal(clean.shape)


def objective(X, codes, D, alpha):
    return 0.5 * ((X - codes @ D) ** 2).sum(axis=-1) + alpha * np.abs(codes).sum(axis=-1)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("smoothness", [0, 0.7])
@pytest.mark.parametrize("moving", [False, True])
def test_codes_are_those_of_the_algorithm(positive, smoothness, moving, rng, dtype):
    D, X = atoms(9, 6, rng), rng.standard_normal((5, 7, 6)).cumsum(axis=1) / 2
    transition = np.linalg.qr(rng.standard_normal((6, 6)))[0] if moving else None
    options = {"alpha": 0.3, "smoothness": smoothness, "n_iter": 4, "transition": transition, "positive": positive}
    codes = SequentialSparseCoder(D, **options).fit(X.astype(dtype)).transform(X.astype(dtype))
    assert codes.dtype == dtype and 0.05 < (codes != 0).mean() < 0.95
    np.testing.assert_allclose(codes, plain_sista(X, D, **options), atol=1e-10 if dtype == np.float64 else 1e-4)


def test_codes_that_are_mostly_zeros_skip_them(rng):
    """Wide enough for the products that read only the atoms in use."""
    D = atoms(128, 40, rng)
    _, X = slow_sequences(D, rng, n=3, n_steps=4)
    options = {"alpha": 0.2, "smoothness": 0.3, "n_iter": 20}
    codes = SequentialSparseCoder(D, **options).fit_transform(X)
    assert 0 < (codes != 0).mean() < 0.1
    np.testing.assert_allclose(codes, plain_sista(X, D, **options), atol=1e-10)


def test_with_an_orthonormal_dictionary_it_starts_where_the_papers_do(rng):
    D, F = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
    node = SequentialCoding(D, 0.1, 0.5, 3, F, False).connect((1, 6), Builder(np.float64, None))
    bound = largest_eigenvalue(D @ D.T)
    assert abs(bound - 1) < 0.02  # the step is a safe one, a little short of 1
    np.testing.assert_allclose(node.first.values, np.eye(6) + (D @ F @ D.T - np.eye(6)) / bound, atol=1e-12)
    np.testing.assert_allclose(node.lateral.values, np.eye(6) * (1 - 1 / bound), atol=1e-12)


@pytest.mark.parametrize("smoothness", [0, 0.8])
def test_many_iterations_solve_the_problem_of_every_step(smoothness, rng):
    """A lasso for the frame and what is expected, blended; without smoothness for the frame alone."""
    D = atoms(6, 8, rng)
    _, X = slow_sequences(D, rng, noise=0.1)
    codes = SequentialSparseCoder(D, alpha=0.2, smoothness=smoothness, n_iter=2000).fit_transform(X)
    expected = np.zeros_like(X)
    expected[:, 1:] = (codes @ D)[:, :-1]
    blended = (X + smoothness * expected) / (1 + smoothness)
    frames = sparse_encode(blended.reshape(-1, 8), D, algorithm="lasso_lars", alpha=0.2 / (1 + smoothness))
    np.testing.assert_allclose(codes, frames.reshape(codes.shape), atol=1e-6)


def test_from_the_code_before_it_takes_fewer_iterations_than_from_zero(rng):
    D = atoms(20, 12, rng)
    _, X = slow_sequences(D, rng, noise=0.01)
    best = objective(X, sparse_encode(X.reshape(-1, 12), D, alpha=0.1).reshape(*X.shape[:2], 20), D, 0.1)[:, 1:]

    def iterations(sequences):
        """Until the later frames are within a hundredth of their least objective, on average."""
        for n_iter in range(1, 200):
            codes = SequentialSparseCoder(D, alpha=0.1, smoothness=0, n_iter=n_iter).fit_transform(sequences)
            if (objective(X, codes.reshape(*X.shape[:2], 20), D, 0.1)[:, 1:] / best).mean() < 1.01:
                return n_iter
        return None

    warm, cold = iterations(X), iterations(X.reshape(-1, 1, 12))
    assert warm <= cold / 4


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("moving", [False, True])
def test_gradients(positive, moving, rng):
    transition = np.linalg.qr(rng.standard_normal((5, 5)))[0] if moving else None
    node = connected(SequentialCoding(atoms(4, 5, rng), 0.1, 0.5, 3, transition, positive), (4, 5))
    for parameter in node.parameters.values():
        parameter.values *= 0.7
    x = rng.standard_normal((3, 4, 5))
    y, _ = node.forward(x)
    np.testing.assert_allclose(node.forward(x, training=True)[0], y, atol=1e-12)
    check_gradients(node, x, training=True)


def test_training_removes_more_noise_in_the_same_iterations(rng):
    D = atoms(16, 10, rng)
    clean, X = slow_sequences(D, rng, n=80, noise=0.3)
    held, held_noisy = slow_sequences(D, rng, n=40, noise=0.3)
    plain = SequentialSparseCoder(D, alpha=0.3, smoothness=1, n_iter=3)
    learned = clone(plain).set_params(
        learn=True, max_iter=40, n_iter_no_change=None, learning_rate=3e-3, random_state=0
    )
    plain.fit(X), learned.fit(X, clean)

    def error(coder):
        return np.mean((coder.inverse_transform(coder.transform(held_noisy)) - held) ** 2)

    assert error(learned) < 0.75 * error(plain) and error(plain) < np.mean((held_noisy - held) ** 2)
    assert learned.loss_curve_[-1] < 0.6 * learned.loss_curve_[0] and learned.n_iter_ == 40
    assert learned.score(held_noisy, held) > plain.score(held_noisy, held) > 0
    np.testing.assert_array_equal(learned.network_.nodes[1].weights.values, learned.components_)
    first = plain.network_.nodes[0].parameters
    for name, parameter in learned.network_.nodes[0].parameters.items():
        assert np.any(parameter.values != first[name].values), name


def test_without_training_nothing_is_learned(rng):
    D, X = atoms(9, 6, rng), rng.standard_normal((5, 7, 6))
    coder = SequentialSparseCoder(D).fit(X)
    assert coder.loss_curve_ == [] and coder.n_iter_ == 0 and coder.converged_
    np.testing.assert_array_equal(coder.components_, D)
    np.testing.assert_array_equal(coder.fit(X[:1]).transform(X), coder.fit_transform(X))


def test_bits_do_not_depend_on_threads(rng):
    D, X = atoms(9, 6, rng), rng.standard_normal((150, 5, 6)).astype(np.float32)
    options = {"learn": True, "max_iter": 2, "n_iter_no_change": None, "batch_size": 100, "random_state": 0}
    one, four = (SequentialSparseCoder(D, n_jobs=n_jobs, **options).fit(X) for n_jobs in (1, 4))
    np.testing.assert_array_equal(one.transform(X), four.set_params(n_jobs=1).transform(X))
    for mine, other in zip(one.network_.parameters, four.network_.parameters, strict=True):
        np.testing.assert_array_equal(mine.values, other.values)


def test_sequences_of_other_lengths_and_kinds(rng):
    D, X = atoms(9, 6, rng), rng.standard_normal((5, 7, 6))
    coder = SequentialSparseCoder(D, smoothness=0.5).fit(X)
    whole = coder.transform(X)
    np.testing.assert_allclose(coder.transform(X[:, :3]), whole[:, :3], atol=1e-12)  # nothing comes from the future
    np.testing.assert_allclose(coder.transform(X[2:3, :1].tolist()), whole[2:3, :1], atol=1e-12)
    assert coder.transform(np.ones((2, 3, 6), int)).dtype == np.float64
    strided = np.asfortranarray(X)
    strided.setflags(write=False)
    np.testing.assert_array_equal(coder.transform(strided), whole)
    np.testing.assert_allclose(coder.inverse_transform(whole), whole @ D)


def test_long_sequences_are_coded_piece_by_piece(rng, monkeypatch):
    D, X = atoms(9, 6, rng), rng.standard_normal((5, 7, 6))
    for transition in (None, np.eye(6)[::-1]):
        coder = SequentialSparseCoder(D, smoothness=0.5, transition=transition).fit(X)
        whole = coder.transform(X)
        with monkeypatch.context() as patched:
            patched.setattr(sequential, "_AT_ONCE", 2 * 3 * 9)
            patched.setattr(sequential, "_SEQUENCES", 2)
            np.testing.assert_allclose(coder.transform(X), whole, atol=1e-12)


def test_estimator_habits(rng):
    D, X = atoms(9, 6, rng), rng.standard_normal((12, 4, 6))
    coder = SequentialSparseCoder(
        D, learn=True, max_iter=2, n_iter_no_change=None, random_state=0, schedule="cosine", transition=np.eye(6)
    )
    parameters = coder.get_params()
    with pytest.raises(NotFittedError):
        coder.transform(X)
    before = X.copy()
    codes = coder.fit(X).transform(X)
    assert coder.n_features_in_ == 6 and all(coder.get_params()[name] is parameters[name] for name in parameters)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(clone(coder).fit(X).transform(X), codes)  # and a second fit begins anew
    np.testing.assert_array_equal(coder.fit(X).transform(X), codes)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(coder)).transform(X), codes)
    assert D is coder.dictionary and np.array_equal(np.linalg.norm(D, axis=1).round(12), np.ones(9))


def test_it_stands_in_a_pipeline_and_a_search(rng):
    D, X = atoms(9, 6, rng), rng.standard_normal((30, 4, 6))
    y = np.arange(30) % 2
    X[y == 1] += 2 * D[0]
    search = GridSearchCV(
        make_pipeline(
            SequentialSparseCoder(D, learn=True, max_iter=1, n_iter_no_change=None, random_state=0),
            FunctionTransformer(lambda codes: codes.mean(axis=1)),
            LogisticRegression(),
        ),
        {"sequentialsparsecoder__smoothness": [0, 1.0]},
        cv=2,
    ).fit(X, y)
    assert search.score(X, y) > 0.8


def test_training_that_diverges_keeps_the_last_good_weights(rng):
    D, X = atoms(9, 6, rng), rng.standard_normal((12, 4, 6))
    coder = SequentialSparseCoder(D, learn=True, optimizer="sgd", learning_rate=1e6, batch_size=2)
    with pytest.warns(ConvergenceWarning, match="Lower learning_rate"):
        coder.fit(X)
    assert not coder.converged_ and np.isfinite(coder.transform(X)).all()
    with pytest.warns(ConvergenceWarning, match="still getting better after max_iter=2"):
        coder.set_params(optimizer="adam", learning_rate=1e-3, max_iter=2).fit(X)


@pytest.mark.skipif(not hasattr(SequentialSparseCoder, "set_callbacks"), reason="scikit-learn 1.9 brought callbacks")
def test_callbacks_see_every_epoch_and_may_stop(rng, capsys):
    D, X = atoms(9, 6, rng), rng.standard_normal((12, 4, 6))
    monitor = LossMonitor()
    coder = SequentialSparseCoder(D, learn=True, max_iter=3, n_iter_no_change=None, verbose=True)
    coder.set_callbacks(monitor).fit(X)
    assert monitor.loss_curves == [coder.loss_curve_] and len(coder.loss_curve_) == 3
    assert capsys.readouterr().out.count("SequentialSparseCoder") == 3
    coder = SequentialSparseCoder(D, learn=True, max_iter=50, learning_rate=1e-12).set_callbacks(EarlyStopping(2))
    assert coder.fit(X).n_iter_ < 10 and coder.converged_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "'alpha' parameter of SequentialSparseCoder"),
        ({"smoothness": np.nan}, "'smoothness' parameter"),
        ({"n_iter": 0}, "'n_iter' parameter"),
        ({"positive": 1}, "'positive' parameter"),
        ({"learn": "yes"}, "'learn' parameter"),
        ({"optimizer": "lbfgs"}, "'optimizer' parameter"),
        ({"learning_rate": 0}, "'learning_rate' parameter"),
        ({"schedule": "linear"}, "'schedule' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"n_iter_no_change": 0}, "'n_iter_no_change' parameter"),
        ({"tol": -1}, "'tol' parameter"),
        ({"verbose": "loud"}, "'verbose' parameter"),
        ({"n_jobs": 0}, "'n_jobs' parameter"),
        ({"device": "gpu"}, "device"),
        ({"dictionary": np.ones((4, 5))}, r"the dictionary has 5, X.shape is \(3, 4, 6\)"),
        ({"dictionary": np.ones((0, 6))}, "no atoms"),
        ({"dictionary": np.full((4, 6), np.nan)}, "NaN"),
        ({"transition": np.eye(5)}, r"shape \(6, 6\), from features to features, got \(5, 5\)"),
        ({"transition": np.full((6, 6), np.inf)}, "transition"),
    ],
)
def test_wrong_parameters_are_named(options, message, rng):
    options = {"dictionary": np.eye(6), **options}
    with pytest.raises(ValueError, match=message):
        SequentialSparseCoder(**options).fit(rng.standard_normal((3, 4, 6)))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((4, 6)), r"Expected 3D array, got 2D array instead: .* One sequence x is x\[None\]"),
        (np.ones((2, 2, 4, 6)), "got 4D array"),
        (np.ones((0, 4, 6)), r"0 sample\(s\)"),
        (np.ones((3, 0, 6)), r"0 time step\(s\)"),
        (np.ones((3, 4, 5)), "X has 5 features, but SequentialSparseCoder is expecting 6 features"),
        (np.full((3, 4, 6), np.nan), "NaN"),
        (np.ones((3, 4, 6), complex), "Complex data not supported"),
        (np.array([[["a"] * 6]]), "numeric|convert"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(X, message):
    coder = SequentialSparseCoder(np.eye(6)).fit(np.ones((3, 4, 6)))
    with pytest.raises(ValueError, match=message):
        coder.transform(X)


def test_targets_and_codes_that_do_not_fit_are_refused(rng):
    X = rng.standard_normal((3, 4, 6))
    coder = SequentialSparseCoder(np.eye(6), learn=True, max_iter=1, n_iter_no_change=None)
    with pytest.raises(ValueError, match=r"X has the shape \(3, 4, 6\), y \(3, 4, 5\)"):
        coder.fit(X, X[:, :, :5])
    with pytest.raises(ValueError, match="NaN"):
        coder.fit(X, np.full(X.shape, np.nan))
    with pytest.raises(ValueError, match=r"n_components=6, got \(3, 4, 5\)"):
        coder.fit(X, X).inverse_transform(X[:, :, :5])
