"""Learning the dictionaries of several layers: gradients, objective, and what an estimator owes."""

import pickle

import numpy as np
import pytest
from network.finite_differences import difference
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sparseshare.callbacks import EarlyStopping, LossMonitor
from sparseshare.network import (
    Conv,
    DeepSparseEncoder,
    Dense,
    MaxPool,
    MultilayerCoding,
    hashed,
    layered_thresholding,
    load,
    ml_fista,
    ml_ista,
    save,
)
from sparseshare.network.chains import chain_of
from sparseshare.network.multilayer import multilayer_objective
from sparseshare.network.multilayer_learning import first_weights, gradients, to_sphere

ALPHA = [0.02, 0.05]


def planted(rng, n=200, n_features=12, positive=False):
    """Signals of two layers of sparse atoms."""
    outer, inner = rng.standard_normal((16, n_features)), rng.standard_normal((10, 16)) * (rng.random((10, 16)) < 0.3)
    codes = rng.standard_normal((n, 10)) * (rng.random((n, 10)) < 0.3)
    if positive:
        outer, inner, codes = np.abs(outer), np.abs(inner), np.abs(codes)
    return codes @ inner @ outer / 4


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((60, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def shared(images):
    layers = [Conv(4, 3), Conv(6, 3, stride=2)]
    return DeepSparseEncoder(layers, alpha=ALPHA, max_iter=2, n_iter_no_change=None, random_state=0).fit(images)


@pytest.mark.parametrize(
    ("shape", "sizes"), [((6,), [(7, 6), (5, 7)]), ((5, 4, 2), [(3, 2, 2, 2), (4, 3, 2, 3), (2, 4)])]
)
def test_gradients_by_the_dictionaries(shape, sizes, rng):
    x, chain = chain_of(rng.standard_normal((3, *shape)), [rng.standard_normal(s) for s in sizes], 1, "valid")
    alpha, codes = [0.1, 0.2, 0.3][: len(sizes)], rng.standard_normal((3, *chain.operators[-1].output_shape))
    _, found = gradients(x, chain, codes, alpha)
    for weights, gradient in zip(chain.weights, found, strict=True):
        expected = difference(lambda: gradients(x, chain, codes, alpha)[0], weights)
        np.testing.assert_allclose(gradient, expected, atol=1e-6 * np.abs(expected).max())


def test_atoms_go_back_to_the_sphere(rng, dtype):
    weights = rng.standard_normal((6, 4)).astype(dtype)
    weights[:, 1] = [0.1, -0.2, 0, 0, 0.05, 0]
    weights[:, 2] = 0
    atoms = to_sphere(weights, 0.3)
    assert atoms.dtype == dtype
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=0), [1, 1, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(atoms[:, 1], [0, -1, 0, 0, 0, 0])
    np.testing.assert_array_equal(atoms[:, 0] == 0, np.abs(weights[:, 0]) <= dtype(0.3))


def test_first_atoms_are_pieces_of_the_data(rng):
    x = np.zeros((4, 6, 6, 1))
    x[:2, 1:4, 1:4] = rng.standard_normal((2, 3, 3, 1))
    _, chain = chain_of(x, [np.ones((5, 3, 3, 1)), np.ones((7, 4))[:, :1].repeat(5, axis=1)], 1, "valid")
    weights = first_weights(chain.operators, x, [0.01, 0.01], False, np.random.RandomState(0))
    pieces = chain.operators[0].patches(x)
    alike = pieces / np.maximum(np.linalg.norm(pieces, axis=1, keepdims=True), 1e-12) @ weights[0]
    np.testing.assert_allclose(alike.max(axis=0), 1)
    assert [w.shape for w in weights] == [(9, 5), (5, 7)]
    for empty in first_weights(chain.operators, np.zeros_like(x), [0.1, 0.1], False, np.random.RandomState(0)):
        np.testing.assert_allclose(np.linalg.norm(empty, axis=0), 1)


@pytest.mark.parametrize("positive", [False, True])
def test_learning_lowers_the_objective(positive, rng):
    X = planted(rng, positive=positive)
    encoder = DeepSparseEncoder(
        [16, 10], alpha=ALPHA, positive=positive, max_iter=20, n_iter=30, batch_size=50, random_state=0
    )
    with pytest.warns(ConvergenceWarning, match="stopped after max_iter=2 epochs"):
        clone(encoder).set_params(max_iter=2).fit(X)
    early = clone(encoder).set_params(max_iter=1).fit(X)
    late = encoder.set_params(n_iter_no_change=None).fit(X)
    assert late.loss_curve_[0] == early.loss_curve_[0] and late.loss_curve_[-1] < 0.75 * late.loss_curve_[0]
    values = [
        multilayer_objective(X, fitted.dictionaries_, fitted.transform(X), ALPHA).mean() for fitted in (early, late)
    ]
    assert values[1] < 0.85 * values[0]
    assert values[1] == pytest.approx(late.loss_curve_[-1], rel=0.05)  # which batches saw before their steps
    assert late.score(X) > early.score(X)
    for dictionary in late.dictionaries_:
        np.testing.assert_allclose(np.linalg.norm(dictionary, axis=1), 1)
    assert (late.transform(X).min() >= 0) == positive
    assert late.densities_.shape == (2,) and late.n_iter_ == 20 and not late.converged_


def test_sparse_atoms(rng):
    X = planted(rng)
    encoder = DeepSparseEncoder([16, 10], alpha=ALPHA, max_iter=15, n_iter_no_change=None, random_state=0)
    dense, sparse = encoder.fit(X), clone(encoder).set_params(atoms_alpha=0.5).fit(X)
    share = [np.mean(fitted.dictionaries_[1] != 0) for fitted in (dense, sparse)]
    assert share[1] < 0.7 * share[0] and np.all(sparse.dictionaries_[0] != 0)
    assert sparse.score(X) > 0.7


def test_it_stops_and_callbacks_see_it(rng, capsys):
    X, monitor = rng.standard_normal((40, 5)), LossMonitor()
    encoder = DeepSparseEncoder([6, 4], max_iter=100, n_iter_no_change=2, tol=0.05, random_state=0, verbose=True)
    encoder.set_callbacks(monitor)
    encoder.fit(X)
    assert encoder.converged_ and len(encoder.loss_curve_) == encoder.n_iter_ < 100
    assert monitor.loss_curve == encoder.loss_curve_
    assert f"[DeepSparseEncoder] epoch {encoder.n_iter_}/100" in capsys.readouterr().out
    encoder.set_params(n_iter_no_change=None, verbose=False).set_callbacks(EarlyStopping(patience=1, tol=0.5))
    assert encoder.fit(X).n_iter_ == 2 and encoder.converged_


def test_what_overflows_stops_with_a_warning(rng):
    X = np.full((20, 4), 1e38, np.float32) * rng.standard_normal((20, 4)).astype(np.float32)
    with pytest.warns(ConvergenceWarning, match="Bring X to a smaller scale"), np.errstate(all="ignore"):
        encoder = DeepSparseEncoder([3, 2], random_state=0).fit(X)
    assert all(np.isfinite(dictionary).all() for dictionary in encoder.dictionaries_)


@pytest.mark.parametrize(
    ("algorithm", "codes"), [("ml_fista", ml_fista), ("ml_ista", ml_ista), ("threshold", layered_thresholding)]
)
def test_codes_are_those_of_the_functions(algorithm, codes, shared, images):
    encoder = clone(shared).set_params(algorithm=algorithm, step=0.5, n_jobs=2, max_iter=1).fit(images)
    options = {} if algorithm == "threshold" else {"n_iter": 20, "step": 0.5}
    expected = codes(images, encoder.dictionaries_, ALPHA, stride=[1, 2], **options)
    found = encoder.encode(images)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(encoder.transform(images), found[-1].reshape(60, -1))
    alone = clone(encoder).set_params(n_jobs=1).fit(images)
    np.testing.assert_array_equal(alone.transform(images), encoder.transform(images))


def test_images_rows_and_the_way_back(shared, images):
    flat = clone(shared).set_params(image_shape=(8, 8)).fit(images.reshape(60, -1))
    codes = shared.transform(images)
    assert codes.dtype == np.float32 and codes.shape == (60, 2 * 2 * 6)
    np.testing.assert_array_equal(flat.transform(images.reshape(60, -1)), codes)
    rebuilt = shared.inverse_transform(codes)
    assert rebuilt.shape == images.shape and rebuilt.dtype == np.float32
    np.testing.assert_array_equal(flat.inverse_transform(codes), rebuilt.reshape(60, -1))
    variance = ((images - images.mean(axis=0)) ** 2).sum()
    assert shared.score(images) == pytest.approx(1 - ((images - rebuilt) ** 2).sum() / variance, rel=1e-4)
    assert shared.score(images) == pytest.approx(flat.score(images.reshape(60, -1)))
    assert [d.shape for d in shared.dictionaries_] == [(4, 3, 3, 1), (6, 3, 3, 4)]
    assert flat.get_feature_names_out()[-1] == "deepsparseencoder23"
    assert shared.transform(images.astype(float)).dtype == np.float64
    same = pickle.loads(pickle.dumps(shared))
    np.testing.assert_array_equal(same.transform(images), codes)


@pytest.mark.parametrize("shape", [(6,), (9, 3), (4, 6, 2), (6, 7), (16, 17, 1)])
def test_default_layers(shape, rng):
    X = rng.standard_normal((4, *shape))
    encoder = DeepSparseEncoder(max_iter=1, n_iter=2, image_shape=shape if len(shape) == 2 and shape[1] == 7 else None)
    codes = encoder.fit_transform(X)
    assert encoder.inverse_transform(codes).shape == X.shape and len(encoder.encode(X)) == 2


def test_constant_signals_and_scores(rng):
    encoder = DeepSparseEncoder([3, 2], max_iter=1, random_state=0).fit(np.zeros((5, 4)))
    assert encoder.score(np.zeros((5, 4))) == 1.0 and encoder.score(np.ones((5, 4))) == 0.0


@pytest.mark.parametrize("algorithm", ["ml_fista", "threshold"])
@pytest.mark.parametrize("n_steps", [0, 2])
def test_a_classifier_starts_from_the_dictionaries(algorithm, n_steps, shared, images, tmp_path):
    encoder = clone(shared).set_params(algorithm=algorithm, max_iter=1).fit(images)
    y = np.arange(60) % 3
    classifier = encoder.to_classifier(
        n_steps, layers=[Dense(5)], learning_rate=1e-9, max_iter=1, n_iter_no_change=None, random_state=0
    )
    network = classifier.fit(images, y).network_
    found = network.output(images[..., None], 1)
    if algorithm == "threshold":
        expected = encoder.transform(images) if n_steps == 0 else None
    else:
        expected = ml_ista(images, encoder.dictionaries_, ALPHA, stride=[1, 2], n_iter=n_steps + 1)[-1]
    if expected is not None:
        np.testing.assert_allclose(found.reshape(60, -1), expected.reshape(60, -1), atol=1e-4)
    classifier.set_params(learning_rate=0.001, max_iter=4).fit(images, y)
    assert classifier.loss_curve_[-1] < classifier.loss_curve_[0]
    assert len(network.weights()) == 4  # of the two dictionaries and two dense layers: no penalty on steps, thresholds
    save(classifier, tmp_path / "classifier.npz")
    np.testing.assert_array_equal(
        load(tmp_path / "classifier.npz").predict_proba(images), classifier.predict_proba(images)
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"layers": 3}, "'layers' parameter of DeepSparseEncoder must be a list"),
        ({"layers": [MaxPool(2)]}, "layers"),
        ({"layers": [Conv(2, 3, share=hashed(3))]}, "has a 'share'"),
        ({"layers": [Conv(2, 3), Conv(2, 7)]}, r"layer 1 of DeepSparseEncoder.*layer 0, Conv.*\(6, 6, 2\).*larger"),
        ({"alpha": [0.1]}, "'alpha' parameter of DeepSparseEncoder must be one number or 2, one a layer, got 1"),
        ({"alpha": -1}, "alpha"),
        ({"step": 2}, "step"),
        ({"atoms_alpha": [0.1, 0.2]}, "'atoms_alpha' parameter of DeepSparseEncoder must be one number or 1"),
        ({"algorithm": "ista"}, "algorithm"),
        ({"positive": "yes"}, "positive"),
        ({"n_iter": 0}, "n_iter"),
    ],
)
def test_wrong_parameters(change, match, images):
    with pytest.raises(ValueError, match=match):
        DeepSparseEncoder(**({"layers": [Conv(2, 3), Conv(2, 2)]} | change)).fit(images)


def test_wrong_samples(shared, images):
    with pytest.raises(ValueError, match=r"samples of shape \(7, 8\).*fitted to \(8, 8\)"):
        shared.transform(images[:, 1:])
    with pytest.raises(ValueError, match="X must have 24 columns"):
        shared.inverse_transform(np.ones((2, 5)))
    with pytest.raises(ValueError, match="image_shape"):
        DeepSparseEncoder([4], image_shape=(3, 3)).fit(np.ones((5, 8)))


def test_a_layer_of_layers_takes_images_without_channels(images):
    encoder = DeepSparseEncoder([Conv(3, 3)], max_iter=1).fit(images)
    assert encoder.input_shape_ == (8, 8, 1)
    classifier = encoder.to_classifier(max_iter=1, n_iter_no_change=None).fit(images, np.arange(60) % 2)
    assert classifier.input_shape_ == (8, 8, 1) and isinstance(classifier.layers[0], MultilayerCoding)
    assert clone(classifier).get_params(deep=False).keys() == classifier.get_params(deep=False).keys()
