"""ConvDictionaryLearning: recovery, descent, the limits in which its methods agree, and what it refuses."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sparseshare.callbacks import LossMonitor
from sparseshare.convolution import ConvDictionaryLearning, conv_sparse_encode
from sparseshare.convolution.geometry import Geometry
from sparseshare.convolution.operator import Convolution


def planted(rng, n_signals=4, shape=(30, 28), support=(4, 4), boundary="full", n_components=3, n_channels=None,
            density=0.015, noise=0.01):  # fmt: skip
    """Signals made of sparse maps and unit atoms, in the users' form, and the atoms."""
    geometry = Geometry(shape, support, boundary)
    n_inside = 1 if n_channels is None else n_channels
    atoms = rng.standard_normal((n_components, n_inside, *support))
    atoms /= np.sqrt((atoms**2).sum(axis=tuple(range(1, atoms.ndim)), keepdims=True))
    maps = (
        rng.uniform(1, 2, (n_signals, n_components, *geometry.positions))
        * rng.choice([-1, 1], n_components)[(slice(None), *[None] * len(shape))]
    )
    maps *= rng.random(maps.shape) < density
    signals = Convolution(atoms, geometry).synthesize(maps)
    signals += noise * rng.standard_normal(signals.shape)
    if n_channels is None:
        return signals[:, 0], atoms[:, 0]
    return np.moveaxis(signals, 1, -1), np.moveaxis(atoms, 1, -1)


def alikeness(found, atoms):
    """For every atom, its largest correlation with one that was found: over shifts, up to the sign."""
    n_axes = atoms.ndim - 1
    padded = [(0, 0), *((n, n) for n in atoms.shape[1:])]
    spectra = np.fft.fftn(np.pad(found, padded), axes=range(1, n_axes + 1))
    others = np.fft.fftn(np.pad(atoms, padded), axes=range(1, n_axes + 1))
    products = np.fft.ifftn(spectra[:, None] * others.conj(), axes=range(2, n_axes + 2)).real
    norms = np.linalg.norm(found.reshape(len(found), -1), axis=1)
    return (np.abs(products).reshape(*products.shape[:2], -1).max(axis=2) / norms[:, None]).max(axis=0)


def objective(learner, X, mask=None):
    """The mean objective per signal of exact codes, from the door's own report."""
    _, info = conv_sparse_encode(
        X, learner.components_, alpha=learner.alpha_, boundary=learner.boundary, tol=1e-9, mask=mask, return_info=True
    )
    return np.mean(info["objective"])


def assert_found(learner, atoms, least=0.97):
    """Nearly all of the atoms are there; one may have ended shifted by a sample or two, a local minimum."""
    found = np.sort(alikeness(learner.components_, atoms))
    assert found[0] > 0.8 and found[1:].min(initial=1) > least, found


@pytest.mark.parametrize("method", ["batch", "online"])
@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
def test_planted_waveforms_are_found(boundary, method, rng):
    X, atoms = planted(rng, 4, (600,), (12,), boundary, density=0.007)
    learner = ConvDictionaryLearning(
        8, 12, alpha=0.05, boundary=boundary, method=method, batch_size=2, tol=0, random_state=0
    ).set_params(max_iter=60 if method == "batch" else 20)  # fmt: skip
    learner.fit(X)
    assert learner.components_.shape == (8, 12)
    assert_found(learner, atoms, 0.9)


@pytest.mark.parametrize("boundary", ["circular", "full"])
def test_planted_patches_are_found(boundary, rng):
    X, atoms = planted(rng, boundary=boundary)
    learner = ConvDictionaryLearning(6, (4, 4), alpha=0.05, boundary=boundary, max_iter=60, random_state=0).fit(X)
    assert learner.components_.shape == (6, 4, 4)
    assert_found(learner, atoms)


def test_planted_colour_atoms_are_found(rng):
    X, atoms = planted(rng, n_channels=3)
    learner = ConvDictionaryLearning(5, (4, 4), alpha=0.05, boundary="full", random_state=0, max_iter=60).fit(X)
    assert learner.components_.shape == (5, 4, 4, 3)
    assert_found(learner, atoms)  # the channel axis takes part in the shifts, harmlessly


def test_channels_may_have_maps_of_their_own(rng):
    X, atoms = planted(rng, n_signals=6)
    X = np.stack([X[:3], X[3:]], axis=-1)
    learner = ConvDictionaryLearning(5, (4, 4), alpha=0.05, boundary="full", channels=False, random_state=0).fit(X)
    assert learner.components_.shape == (5, 4, 4)
    assert_found(learner, atoms)
    assert learner.encode(X).shape == (3, 5, 27, 25, 2)


def test_planted_rank_one_atoms_are_found(rng):
    u, v = rng.standard_normal((2, 5)), rng.standard_normal((2, 16))
    atoms = np.einsum("kc,kl->klc", u, v)
    atoms /= np.linalg.norm(atoms, axis=(1, 2), keepdims=True)
    maps = rng.uniform(1, 2, (4, 2, 385)) * (rng.random((4, 2, 385)) < 0.01)
    X = np.array([sum(np.stack([np.convolve(one[k], atoms[k, :, c]) for c in range(5)], -1) for k in range(2))
                  for one in maps])  # fmt: skip
    learner = ConvDictionaryLearning(
        6, 16, alpha=0.05, boundary="full", rank1=True, random_state=0, max_iter=80
    ).fit(X)  # fmt: skip
    assert np.linalg.svd(learner.components_, compute_uv=False)[:, 1].max() < 1e-10
    np.testing.assert_allclose(
        np.einsum("kc,kl->klc", learner.channel_patterns_, learner.support_patterns_), learner.components_, atol=1e-10
    )
    assert_found(learner, atoms, 0.9)


@settings(max_examples=12)
@given(
    n_axes=st.integers(1, 3),
    boundary=st.sampled_from(["circular", "full", "valid"]),
    n_channels=st.sampled_from([None, 1, 2]),
    channels=st.booleans(),
    positive=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_objective_never_rises(n_axes, boundary, n_channels, channels, positive, masked, seed):
    rng = np.random.default_rng(seed)
    shape = {1: (40,), 2: (13, 11), 3: (7, 6, 5)}[n_axes]
    X = rng.standard_normal((2, *shape, *(() if n_channels is None else (n_channels,))))
    mask = rng.random(X.shape) < 0.3 if masked else None
    learner = ConvDictionaryLearning(
        4, (3,) * n_axes, alpha=0.3, boundary=boundary, channels=channels, positive_code=positive, max_iter=4, tol=0,
        random_state=0,
    ).fit(X, mask=mask)  # fmt: skip
    losses = np.array(learner.loss_curve_)
    assert len(losses) == 4 and (np.diff(losses) <= 1e-8 * losses[0]).all()


@pytest.mark.parametrize("solver", ["lgcd", "working_set", "fista", "admm"])
def test_every_solver_descends_to_a_like_objective(solver, rng):
    X, _ = planted(rng, boundary="circular", noise=0.1)
    learner = ConvDictionaryLearning(5, (4, 4), alpha=0.2, solver=solver, random_state=0, max_iter=25, tol=0).fit(X)
    assert (np.diff(learner.loss_curve_) <= 1e-8 * learner.loss_curve_[0]).all()
    # What was reported is what exact codes give, but for the last steps of the codes.
    assert objective(learner, X) == pytest.approx(learner.loss_curve_[-1], rel=0.03)


@pytest.mark.parametrize("boundary", ["circular", "valid"])
def test_reported_objectives_bound_the_true_ones(boundary, rng):
    X, _ = planted(rng, boundary=boundary, noise=0.1)
    mask = rng.random(X.shape) < 0.5
    learner = ConvDictionaryLearning(5, (4, 4), alpha=0.2, boundary=boundary, random_state=0, max_iter=40, tol=0)
    learner.fit(X, mask=mask)
    true = objective(learner, X, mask)
    assert true <= learner.loss_curve_[-1] * (1 + 1e-9)
    assert true == pytest.approx(learner.loss_curve_[-1], rel=0.05)


def test_half_missing_signals_are_filled_in():
    rng = np.random.default_rng(1)
    time = np.arange(16)
    atoms = np.hanning(18)[1:-1] * np.sin(2 * np.pi * np.array([[1], [2.5]]) * time / 16)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    maps = rng.uniform(1, 2, (4, 2, 485)) * (rng.random((4, 2, 485)) < 0.008)
    X = np.array([sum(np.convolve(one[k], atoms[k]) for k in range(2)) for one in maps])
    missing = rng.random(X.shape) < 0.5
    learner = ConvDictionaryLearning(4, 16, alpha=0.1, boundary="full", random_state=0, max_iter=40, tol=0)
    learner.fit(np.where(missing, np.nan, X), mask="nan")
    filled = learner.inverse_transform(learner.encode(np.where(missing, np.nan, X), mask="nan"))
    assert ((filled - X)[missing] ** 2).sum() < 0.7 * (X[missing] ** 2).sum()
    assert alikeness(learner.components_, atoms).min() > 0.9


def test_one_batch_of_all_signals_is_batch_learning(rng):
    X, _ = planted(rng)
    options = dict(n_components=4, atom_shape=(4, 4), alpha=0.1, max_iter=8, tol=0, random_state=0)
    batch = ConvDictionaryLearning(**options).fit(X)
    online = ConvDictionaryLearning(**options, method="online", batch_size=4).fit(X)
    np.testing.assert_array_equal(batch.components_, online.components_)
    assert batch.loss_curve_ == online.loss_curve_


def test_partial_fits_are_an_epoch(rng):
    X, _ = planted(rng, n_signals=6)
    start = rng.standard_normal((4, 4, 4))
    options = dict(n_components=4, atom_shape=(4, 4), alpha=0.1, forgetting=1, dict_init=start, method="online")
    epoch = ConvDictionaryLearning(**options, batch_size=2, shuffle=False, max_iter=1).fit(X)
    parts = ConvDictionaryLearning(**options)
    for first in range(0, 6, 2):
        parts.partial_fit(X[first : first + 2])
    np.testing.assert_array_equal(epoch.components_, parts.components_)
    assert epoch.n_steps_ == parts.n_steps_ == 3
    assert np.mean(parts.loss_curve_) == pytest.approx(epoch.loss_curve_[0])


def test_what_is_kept_of_a_stream_does_not_grow(rng):
    X, _ = planted(rng, n_signals=12)
    options = dict(n_components=4, atom_shape=(4, 4), alpha=0.1, method="online", batch_size=2, max_iter=1)
    few, many = (len(pickle.dumps(ConvDictionaryLearning(**options).fit(X[:n]))) for n in (4, 12))
    assert abs(few - many) < 100


def test_a_stream_forgets(rng):
    X, _ = planted(rng, n_signals=4)
    start = rng.standard_normal((4, 4, 4))
    options = dict(n_components=4, atom_shape=(4, 4), alpha=0.1, dict_init=start)
    fresh = ConvDictionaryLearning(**options, forgetting=0)
    fresh.partial_fit(X[:2]).partial_fit(X[2:])
    kept = ConvDictionaryLearning(**options).partial_fit(X[:2]).partial_fit(X[2:])
    assert fresh._memory["statistics"]["n_signals"] == 2 and kept._memory["statistics"]["n_signals"] == 4
    assert np.abs(fresh.components_ - kept.components_).max() > 1e-4


def test_any_number_of_threads_gives_the_same_bits(rng):
    X, _ = planted(rng)
    one, two = (
        ConvDictionaryLearning(5, (4, 4), alpha=0.1, max_iter=4, tol=0, random_state=0, n_jobs=n).fit(X) for n in (1, 2)
    )
    np.testing.assert_array_equal(one.components_, two.components_)


def test_float32_stays(rng):
    X, atoms = planted(rng)
    learner = ConvDictionaryLearning(6, (4, 4), alpha=0.05, boundary="full", max_iter=60, tol=0, random_state=0)
    learner.fit(X.astype(np.float32))
    assert learner.components_.dtype == learner.transform(X.astype(np.float32)).dtype == np.float32
    assert_found(learner, atoms)


def test_signals_of_different_sizes(rng):
    X, atoms = planted(rng)
    X = [*X, X[0, :20, 3:], X[1, 5:, :17]]
    learner = ConvDictionaryLearning(6, (4, 4), alpha=0.05, boundary="full", max_iter=60, random_state=0).fit(X)
    assert learner.signal_shape_ is None
    assert_found(learner, atoms)
    assert learner.transform(X).shape == (6, 24)


def test_flat_rows_are_their_images(rng):
    X, _ = planted(rng, shape=(20, 24))
    options = dict(n_components=4, atom_shape=(4, 4), alpha=0.1, max_iter=3, tol=0, random_state=0)
    images = ConvDictionaryLearning(**options).fit(X)
    rows = ConvDictionaryLearning(**options, image_shape=(20, 24)).fit(X.reshape(4, -1))
    np.testing.assert_array_equal(images.components_, rows.components_)
    assert rows.n_features_in_ == 480


def test_atoms_are_what_they_may_be(rng):
    X, _ = planted(rng)
    options = dict(alpha=0.1, max_iter=5, tol=0, random_state=0)
    positive = ConvDictionaryLearning(4, (4, 4), positive_dict=True, **options).fit(X).components_
    assert positive.min() >= 0
    centred = ConvDictionaryLearning(4, (4, 4), zero_mean_dict=True, atom_norm="sphere", **options).fit(X).components_
    np.testing.assert_allclose(centred.sum(axis=(1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(centred, axis=(1, 2)), 1)
    sizes = ConvDictionaryLearning(atom_shape={(4, 4): 2, (2, 3): 3}, **options).fit(X).components_
    assert sizes.shape == (5, 4, 4) and not sizes[2:, 2:].any() and not sizes[2:, :, 3:].any()
    assert (np.linalg.norm(sizes, axis=(1, 2)) <= 1 + 1e-12).all()


def test_fixed_atoms_stay_and_may_be_smooth(rng):
    X, _ = planted(rng, boundary="circular")
    X += np.linspace(0, 3, 30)[:, None]
    impulse = np.zeros((1, 4, 4))
    impulse[0, 0, 0] = 0.7
    learner = ConvDictionaryLearning(
        4, (4, 4), alpha=0.1, dict_init=impulse, n_fixed=1, weights=[0.1, 1, 1, 1], smoothness=[5.0, 0, 0, 0],
        max_iter=4, tol=0, random_state=0,
    ).fit(X)  # fmt: skip
    np.testing.assert_array_equal(learner.components_[0], impulse[0])
    assert (np.diff(learner.loss_curve_) <= 1e-8 * learner.loss_curve_[0]).all()


def test_atoms_that_nothing_uses_are_replaced(rng):
    X, atoms = planted(rng)
    start = np.zeros((5, 4, 4))
    kept = ConvDictionaryLearning(
        5, (4, 4), alpha=0.05, boundary="full", dict_init=start, replace_atoms=False, max_iter=1
    )
    with pytest.warns(UserWarning, match="all codes are zero"):
        kept.fit(X)
    assert not kept.components_.any()
    learner = clone(kept).set_params(replace_atoms=True, max_iter=40).fit(X)
    assert_found(learner, atoms)


def test_a_relative_penalty_is_a_fraction_of_the_largest(rng):
    X, _ = planted(rng)
    start = rng.standard_normal((4, 4, 4))
    learner = ConvDictionaryLearning(4, (4, 4), alpha=0.3, alpha_relative=True, dict_init=start, max_iter=2, tol=0)
    learner.fit(X)
    unit = start / np.maximum(np.linalg.norm(start, axis=(1, 2)), 1)[:, None, None]
    _, info = conv_sparse_encode(X, unit, alpha=0.3, alpha_relative=True, return_info=True)
    assert learner.alpha_ == pytest.approx(info["alpha"])
    scaled = clone(learner).fit(1000 * X)
    np.testing.assert_allclose(scaled.components_, learner.components_, atol=1e-5)


def test_it_stops_when_the_objective_does_not_fall(rng):
    X, _ = planted(rng)
    learner = ConvDictionaryLearning(4, (4, 4), alpha=0.1, tol=1e-2, random_state=0).fit(X)
    assert learner.converged_ and learner.n_iter_ == len(learner.loss_curve_) < 100
    drops = -np.diff(learner.loss_curve_) / learner.loss_curve_[:-1]
    assert drops[-1] <= 1e-2 and (drops[:-1] > 1e-2).all()
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        clone(learner).set_params(max_iter=2, tol=1e-6).fit(X)


def test_callbacks_and_lines_of_progress(rng, capsys):
    X, _ = planted(rng)
    learner = ConvDictionaryLearning(4, (4, 4), alpha=0.1, tol=0, max_iter=3, random_state=0, verbose=True)
    if hasattr(learner, "set_callbacks"):
        monitor = LossMonitor()
        learner.set_callbacks(monitor)
    learner.fit(X)
    assert capsys.readouterr().out.count("[ConvDictionaryLearning] epoch") == 3
    if hasattr(learner, "set_callbacks"):
        np.testing.assert_allclose(monitor.loss_curve, learner.loss_curve_)


def test_a_warm_start_goes_on(rng):
    X, _ = planted(rng)
    learner = ConvDictionaryLearning(4, (4, 4), alpha=0.1, tol=0, max_iter=5, random_state=0, warm_start=True).fit(X)
    last = learner.loss_curve_[-1]
    assert learner.fit(X).loss_curve_[-1] < last
    with pytest.raises(ValueError, match="fit a clone"):
        learner.set_params(n_components=5).fit(X)


def test_it_survives_pickling(rng):
    X, _ = planted(rng)
    learner = ConvDictionaryLearning(4, (4, 4), alpha=0.1, max_iter=2, tol=0, random_state=0).fit(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(learner)).transform(X), learner.transform(X))


@pytest.mark.parametrize(
    "parameters, message",
    [
        (dict(n_components=0), "'n_components'.*at least 1"),
        (dict(alpha=0), "'alpha'.*above 0"),
        (dict(alpha=2, alpha_relative=True), "'alpha'.*at most 1"),
        (dict(boundary="periodic"), "'boundary'.*'circular'"),
        (dict(solver="omp"), "'solver'.*'lgcd'"),
        (dict(method="stochastic"), "'method'.*'online'"),
        (dict(forgetting=1.5), "'forgetting'.*at most 1"),
        (dict(max_iter=0), "'max_iter'"),
        (dict(tol=-1), "'tol'"),
        (dict(batch_size=0), "'batch_size'"),
        (dict(rank1=1), "'rank1'.*True or False"),
        (dict(rank1=True), "rank1=True needs signals with channels"),
        (dict(dict_init="svd"), "'dict_init'.*'k-means"),
        (dict(dict_init=np.zeros((2, 5, 4))), r"dict_init must have the shape \(n_atoms, \*\(4, 4\)\)"),
        (dict(n_fixed=1), "n_fixed=1"),
        (dict(atom_shape=(50, 4)), "atoms of shape .* are larger than the signal: number 0"),
        (dict(atom_shape=(4, 0)), "'atom_shape'"),
        (dict(atom_shape="8x8"), "atom_shape must be"),
        (dict(atom_shape=[(4, 4), (3, 3)]), "shapes of 2 atoms, n_components is 3"),
        (dict(atom_shape=(4,) * 4), "atom_shape must be"),
        (dict(positive_dict=True, zero_mean_dict=True), "exclude each other"),
        (dict(pool_grid=100), "coarser grid"),
        (dict(smoothness=[1.0]), "smoothness must have the shape"),
    ],
)
def test_wrong_parameters_are_named(parameters, message, rng):
    X, _ = planted(rng)
    learner = ConvDictionaryLearning(3, (4, 4), alpha=0.1, max_iter=1).set_params(**parameters)
    with pytest.raises(ValueError, match=message):
        learner.fit(X).transform(X)


def test_statistics_that_would_not_fit_are_refused(rng):
    with pytest.raises(MemoryError, match="lower n_components or atom_shape"):
        ConvDictionaryLearning(1000, (32, 32)).fit(rng.standard_normal((1, 64, 64)))


def test_batches_must_be_like_the_first(rng):
    X, _ = planted(rng)
    learner = ConvDictionaryLearning(3, (4, 4), alpha=0.1).partial_fit(X)
    with pytest.raises(ValueError, match="channel"):
        learner.partial_fit(np.stack([X, X], -1))
