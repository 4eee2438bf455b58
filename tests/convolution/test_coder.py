"""ConvSparseCoder: maps and pooled rows of every form of signals, and back, against plain versions of both."""

import pickle
from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import convolve
from scipy.sparse import csr_array, issparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sparseshare.convolution import ConvSparseCoder, conv_sparse_encode

SHAPES = {1: ((19,), (4,)), 2: ((8, 9), (3, 2)), 3: ((5, 4, 6), (2, 2, 3))}
BOUNDARIES = ("circular", "full", "valid")
FORMS = ("no channels", "atoms with channels", "a code for each channel")


def problem(rng, n_axes=2, form="no channels", n_samples=3):
    """Signals and atoms, as users give them."""
    shape, support = SHAPES[n_axes]
    channels = () if form == "no channels" else (2,)
    atoms = rng.standard_normal((3, *support, *(channels if form == "atoms with channels" else ())))
    return rng.standard_normal((n_samples, *shape, *channels)), atoms


def slow_synthesis(maps, atoms, boundary):
    """One signal without channels from its maps (n_components, *positions), by whole convolutions."""
    mode = {"full": "full", "valid": "valid", "circular": "full"}[boundary]
    signal = sum(convolve(own, atom, mode=mode, method="direct") for own, atom in zip(maps, atoms, strict=True))
    if boundary == "circular":
        for axis, length in enumerate(maps.shape[1:]):
            start, end = np.split(signal, [length], axis=axis)
            start[(slice(None),) * axis + (slice(end.shape[axis]),)] += end
            signal = start
    return signal


def slow_inverse(maps, atoms, boundary, form):
    if form == "no channels":
        return np.stack([slow_synthesis(own, atoms, boundary) for own in maps])
    if form == "atoms with channels":
        return np.stack([slow_inverse(maps, atoms[..., c], boundary, "no channels") for c in range(2)], axis=-1)
    return np.stack([slow_inverse(maps[..., c], atoms, boundary, "no channels") for c in range(2)], axis=-1)


def slow_rows(maps, pooling, levels, split_sign, separate):
    """Rows (n_samples, n_cells * n_signs * n_components * n_channels) from the users' maps, by slices."""
    maps = maps if separate else maps[..., None]
    positions = maps.shape[2:-1]
    columns = []
    for level in levels:
        for cell in np.ndindex(*level):
            inside = tuple(
                slice(at * n // cells, (at + 1) * n // cells)
                for at, n, cells in zip(cell, positions, level, strict=True)
            )
            part = maps[(slice(None), slice(None), *inside)]
            for sign in [np.maximum(part, 0), np.maximum(-part, 0)] if split_sign else [np.abs(part)]:
                columns.append(getattr(np, pooling)(sign, axis=tuple(range(2, 2 + len(positions)))))
    return np.stack(columns, axis=1).reshape(len(maps), -1)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_maps_rows_and_signals(rng, n_axes, boundary, form):
    X, atoms = problem(rng, n_axes, form)
    coder = ConvSparseCoder(atoms, alpha=1.0, boundary=boundary).fit(X)
    maps = coder.encode(X)
    assert_array_equal(maps, conv_sparse_encode(X, atoms, alpha=1.0, boundary=boundary))
    assert 0 < np.mean(maps != 0) < 0.9
    signals = coder.inverse_transform(maps)
    assert_allclose(signals, slow_inverse(maps, atoms, boundary, form), atol=1e-12)
    assert_allclose(ConvSparseCoder(atoms, boundary=boundary).inverse_transform(maps), signals)  # without a fit
    expected = (
        1 - ((X - signals) ** 2).sum() / ((X - X.mean(axis=tuple(range(X.ndim - (form != FORMS[0]))))) ** 2).sum()
    )
    assert_allclose(coder.score(X), expected, rtol=1e-10)

    sparse = clone(coder).set_params(sparse_output=True).fit(X)
    rows = sparse.encode(X)
    assert issparse(rows) and rows.format == "csr"
    assert_array_equal(rows.toarray(), maps.reshape(len(X), -1))
    assert_allclose(sparse.inverse_transform(rows), signals, atol=1e-12)
    unfitted = ConvSparseCoder(atoms, boundary=boundary)
    assert_allclose(unfitted.inverse_transform(rows, shapes=SHAPES[n_axes][0]), signals, atol=1e-12)

    grids = (1, [(1,) * n_axes]), ([1, 2], [(1,) * n_axes, (2,) * n_axes])
    options = list(product(("sum", "mean", "max"), (False, True), grids))
    if boundary != "circular":  # pooling sees maps of another size
        options = options[BOUNDARIES.index(boundary) :: 5]
    for pooling, split_sign, (grid, levels) in options:
        coder.set_params(pooling=pooling, pool_grid=grid, split_sign=split_sign)
        features = coder.transform(X)
        assert_allclose(features, slow_rows(maps, pooling, levels, split_sign, form == FORMS[2]), atol=1e-12)
        assert features.shape[1] == len(coder.get_feature_names_out())
    assert_array_equal(coder.fit_transform(X), coder.transform(X))


def test_names_say_where_features_are(rng):
    X, atoms = problem(rng)
    coder = ConvSparseCoder(atoms, alpha=0.5, pool_grid=[1, (1, 2)], split_sign=True, pooling="sum").fit(X)
    names, maps = coder.get_feature_names_out().tolist(), coder.encode(X)
    assert names[:4] == ["atom0+_1x1_0_0", "atom1+_1x1_0_0", "atom2+_1x1_0_0", "atom0-_1x1_0_0"]
    assert len(set(names)) == 18
    features = dict(zip(names, coder.transform(X).T, strict=True))
    right = maps[:, 2, :, 4:]
    assert_allclose(features["atom2-_1x2_0_1"], -np.where(right < 0, right, 0).sum(axis=(1, 2)), atol=1e-12)
    X, atoms = problem(rng, 1, FORMS[2])
    coder = ConvSparseCoder(atoms, alpha=0.5, pool_grid=3).fit(X)
    names, maps = coder.get_feature_names_out().tolist(), coder.encode(X)
    assert names[:3] == ["atom0_channel0_3_0", "atom0_channel1_3_0", "atom1_channel0_3_0"]
    features = dict(zip(names, coder.transform(X).T, strict=True))
    assert_allclose(features["atom1_channel1_3_2"], np.abs(maps[:, 1, 12:, 1]).max(axis=1))


def test_positive_codes_have_one_sign(rng):
    X, atoms = problem(rng)
    coder = ConvSparseCoder(atoms, alpha=0.5, positive_code=True, split_sign=True, pool_grid=1).fit(X)
    assert (coder.encode(X) >= 0).all()
    assert coder.transform(X).shape == (3, 3)
    assert coder.get_feature_names_out().tolist() == ["atom0_1x1_0_0", "atom1_1x1_0_0", "atom2_1x1_0_0"]


def test_signals_of_different_sizes(rng):
    atoms = rng.standard_normal((3, 3, 2))
    images = [rng.standard_normal(shape) for shape in [(8, 9), (5, 12), (8, 9)]]
    coder = ConvSparseCoder(atoms, alpha=0.5).fit(images)
    assert coder.signal_shape_ is None and not hasattr(coder, "n_features_in_")
    maps = coder.encode(images)
    assert [own.shape for own in maps] == [(3, 8, 9), (3, 5, 12), (3, 8, 9)]
    for image, own in zip(images, maps, strict=True):
        assert_array_equal(own, coder.encode(image[None])[0])
    for one, other in zip(conv_sparse_encode(images, atoms, alpha=0.5), maps, strict=True):
        assert_array_equal(one, other)
    assert [own.format for own in conv_sparse_encode(images, atoms, alpha=0.5, sparse_output=True)] == ["csr"] * 3
    with pytest.raises(ValueError, match="init needs signals of one shape"):
        conv_sparse_encode(images, atoms, alpha=0.5, init=maps)
    features = coder.transform(images)
    assert features.shape == (3, 12)
    assert_array_equal(features[1:2], coder.transform(images[1][None]))
    signals = coder.inverse_transform(maps)
    assert [signal.shape for signal in signals] == [(8, 9), (5, 12), (8, 9)]
    error = sum(((image - signal) ** 2).sum() for image, signal in zip(images, signals, strict=True))
    pixels = np.concatenate([image.ravel() for image in images])
    assert_allclose(coder.score(images), 1 - error / ((pixels - pixels.mean()) ** 2).sum())

    rows = coder.set_params(sparse_output=True).encode(images)
    assert [own.shape for own in rows] == [(1, 216), (1, 180), (1, 216)]
    again = coder.inverse_transform(rows, shapes=[image.shape for image in images])
    for one, other in zip(again, signals, strict=True):
        assert_allclose(one, other, atol=1e-12)
    with pytest.raises(ValueError, match="do not say what shape their signals have: pass shapes, set image_shape"):
        coder.inverse_transform(rows)
    with pytest.raises(ValueError, match="shapes are of 1 signals, but there are maps of 3"):
        coder.inverse_transform(rows, shapes=[(8, 9)])


@pytest.mark.parametrize("form", FORMS)
def test_flat_rows(rng, form):
    X, atoms = problem(rng, 2, form)
    expected = ConvSparseCoder(atoms, alpha=0.5).fit(X)
    rows = X.reshape(len(X), -1)
    coder = ConvSparseCoder(atoms, alpha=0.5, image_shape=X.shape[1:]).fit(rows)
    assert coder.n_features_in_ == rows.shape[1]
    assert coder.signal_shape_ == (8, 9) and coder.n_channels_ == (None if form == FORMS[0] else 2)
    assert_array_equal(coder.transform(rows), expected.transform(X))
    assert_array_equal(coder.encode(X), expected.encode(X))
    assert_array_equal(expected.transform(rows), expected.transform(X))  # rows are taken for what fit saw
    with pytest.raises(ValueError, match="X has 5 features, but ConvSparseCoder is expecting"):
        coder.transform(rows[:, :5])
    named = pd.DataFrame(rows).add_prefix("pixel")
    assert_array_equal(coder.fit(named).transform(named), expected.transform(X))
    assert coder.feature_names_in_[1] == "pixel1"
    with pytest.raises(ValueError, match="input_features is not equal to feature_names_in_"):
        coder.get_feature_names_out(["a"] * rows.shape[1])
    squares = ConvSparseCoder(atoms[..., 0] if form == FORMS[1] else atoms, alpha=0.5).fit(rng.standard_normal((2, 49)))
    assert squares.signal_shape_ == (7, 7)


def test_other_lengths_go_in_a_list(rng):
    X, atoms = problem(rng, 1)
    coder = ConvSparseCoder(atoms).fit(X)
    longer = rng.standard_normal((2, 30))
    with pytest.raises(ValueError, match="X has 30 features, .* Signals of another length go in a list"):
        coder.encode(longer)
    assert_array_equal(coder.encode(list(longer)), ConvSparseCoder(atoms).encode(longer))


def test_masks(rng):
    X, atoms = problem(rng, 2, FORMS[1])
    missing = rng.random(X.shape) < 0.3
    coder = ConvSparseCoder(atoms, alpha=0.5).fit(X)
    maps = coder.encode(np.where(missing, np.nan, X), mask="nan")
    assert_array_equal(maps, conv_sparse_encode(X, atoms, alpha=0.5, mask=missing))
    assert_array_equal(coder.encode(list(X), mask=list(missing)), maps)
    with pytest.raises(ValueError, match="signal 0 contains NaN"):
        coder.transform(np.where(missing, np.nan, X))


def test_channels_as_told(rng):
    X, atoms = rng.standard_normal((2, 20, 5)), rng.standard_normal((3, 4, 5))
    waves = ConvSparseCoder(atoms).fit(X)
    assert waves.encode(X).shape == (2, 3, 20) and waves.n_channels_ == 5
    narrow = ConvSparseCoder(atoms, channels=False).fit(X)
    maps = narrow.encode(X)
    assert maps.shape == (2, 3, 20, 5) and narrow.n_channels_ is None
    assert narrow.inverse_transform(maps).shape == X.shape
    assert_array_equal(maps, conv_sparse_encode(X, atoms, alpha=0.1, channels=False))
    assert ConvSparseCoder(atoms, channels=True).fit(X.reshape(2, -1)).signal_shape_ == (20,)
    colour = rng.standard_normal((2, 8, 9, 2))
    separate = ConvSparseCoder(rng.standard_normal((3, 3, 2))).fit(colour)
    with pytest.raises(ValueError, match=r"X has signals of 1 channel\(s\), ConvSparseCoder was fitted to 2"):
        separate.transform(colour[..., :1])


def test_relative_penalties_are_those_of_fit(rng):
    X, atoms = problem(rng)
    coder = ConvSparseCoder(atoms, alpha=0.2, alpha_relative=True)
    with pytest.raises(NotFittedError):
        coder.transform(X)
    coder.fit(X)
    _, info = conv_sparse_encode(X, atoms, alpha=0.2, alpha_relative=True, return_info=True)
    assert_allclose(coder.alpha_, info["alpha"])
    assert_array_equal(coder.encode(X)[1:2], coder.encode(X[1:2]))
    assert ConvSparseCoder(atoms, alpha=0.7).fit(X).alpha_ == 0.7


def test_pursuit(rng):
    X, atoms = problem(rng)
    coder = ConvSparseCoder(atoms, solver="omp", n_nonzero_coefs=4).fit(X)
    assert coder.alpha_ is None
    maps = coder.encode(X)
    assert_array_equal((maps != 0).sum(axis=(1, 2, 3)), 4)
    assert_array_equal(maps, conv_sparse_encode(X, atoms, solver="omp", n_nonzero_coefs=4))
    with pytest.raises(ValueError, match="needs n_nonzero_coefs or max_error"):
        ConvSparseCoder(atoms, solver="omp").fit(X)


def test_threads_do_not_show(rng):
    X, atoms = problem(rng, n_samples=5)
    one, two = (ConvSparseCoder(atoms, alpha=0.3, n_jobs=n_jobs).fit(X) for n_jobs in (1, 2))
    assert one.transform(X).tobytes() == two.transform(X).tobytes()
    assert one.encode(X).tobytes() == two.encode(X).tobytes()
    maps = one.encode(X)
    assert one.inverse_transform(maps).tobytes() == two.inverse_transform(maps).tobytes()
    assert one.score(X) == two.score(X)


def test_precision(rng, dtype):
    X, atoms = problem(rng)
    coder = ConvSparseCoder(atoms, alpha=0.5).fit(X.astype(dtype))
    maps = coder.encode(X.astype(dtype))
    assert maps.dtype == coder.transform(X.astype(dtype)).dtype == coder.inverse_transform(maps).dtype == dtype
    coder.set_params(sparse_output=True)
    rows = coder.encode(X.astype(dtype))
    assert rows.dtype == coder.inverse_transform(rows).dtype == dtype
    assert coder.encode((100 * X).astype(int)).dtype == np.float64


def test_in_a_pipeline(rng):
    bars = np.zeros((2, 5, 5))
    bars[0, 2], bars[1, :, 2] = 1, 1
    images, y = np.zeros((60, 12, 12)), np.arange(60) % 2
    for image, label in zip(images, y, strict=True):
        top, left = rng.integers(0, 7, 2)
        image[top : top + 5, left : left + 5] = bars[label]
    images += 0.2 * rng.standard_normal(images.shape)
    coder = ConvSparseCoder(bars, alpha=0.3, image_shape=(12, 12), pool_grid=1)
    pipeline = make_pipeline(coder, LogisticRegression())
    search = GridSearchCV(pipeline, {"convsparsecoder__pooling": ["sum", "max"]}, cv=2)
    search.fit(images.reshape(60, -1), y)
    assert search.score(images.reshape(60, -1), y) > 0.95
    frame = clone(coder).set_output(transform="pandas").fit_transform(images)
    assert frame.columns.tolist() == ["atom0_1x1_0_0", "atom1_1x1_0_0"]


WRONG = {
    "atoms": [[[1.0, np.nan]], np.zeros((0, 3)), np.zeros(3)],
    "alpha": [-1, np.nan, "a", None],
    "alpha_relative": [1],
    "boundary": ["periodic"],
    "solver": ["lars"],
    "positive_code": [1],
    "weights": [[1.0], [-1.0, 1, 1]],
    "joint": [-0.1, 1.5],
    "smoothness": [[1.0], [np.nan, 1, 1]],
    "tol": [-1, np.nan],
    "max_iter": [0, 1.5],
    "pooling": ["median"],
    "pool_grid": [0, [], (2, 2, 2), 1.5, [(2, 2), (1, 2, 3)]],
    "split_sign": [1],
    "sparse_output": ["yes"],
    "image_shape": [(8,), 8, (8, 0), (9, 8)],
    "channels": [3, None],
    "n_jobs": ["all", 1.5],
    "device": ["gpu"],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_parameters_are_named_in_fit(rng, name):
    X, atoms = problem(rng)
    for wrong in [*WRONG[name], object()]:
        coder = ConvSparseCoder(atoms).set_params(**{name: wrong})
        with pytest.raises((ValueError, TypeError), match=rf"\b{name.removesuffix('_code')}"):
            coder.fit(X)


def test_wrong_maps_are_refused(rng):
    X, atoms = problem(rng)
    coder = ConvSparseCoder(atoms, alpha=0.5).fit(X)
    with pytest.raises(ValueError, match=r"got \(3, 12\): pooled rows of transform cannot be inverted"):
        coder.inverse_transform(coder.transform(X))
    with pytest.raises(ValueError, match=r"codes must have the shape \(1, 3, 8, 9\), got \(1, 4, 8, 9\)"):
        coder.inverse_transform(np.zeros((2, 4, 8, 9)))
    with pytest.raises(
        ValueError, match="codes have 215 columns, but maps of 3 atoms on a signal of shape .* have 216"
    ):
        coder.inverse_transform(csr_array((2, 215)))
    with pytest.raises(ValueError, match="Found a list of 0 maps"):
        coder.inverse_transform([])
    with pytest.raises(ValueError, match="the codes of signal 0 contain NaN"):
        coder.inverse_transform(np.full((1, 3, 8, 9), np.nan))


def test_warnings(rng):
    X, atoms = problem(rng)
    with pytest.warns(ConvergenceWarning, match="have not converged"):
        ConvSparseCoder(atoms, alpha=1e-3, solver="fista", max_iter=1).fit(X).transform(X)
    with pytest.warns(UserWarning, match="all codes are zero: alpha=1e[+]09"):
        assert not ConvSparseCoder(atoms, alpha=1e9).fit(X).transform(X).any()


def test_constant_signals(rng):
    _, atoms = problem(rng)
    coder = ConvSparseCoder(atoms, alpha=0.1).fit(np.zeros((2, 8, 9)))
    assert coder.score(np.zeros((2, 8, 9))) == 1
    assert coder.score(np.ones((2, 8, 9))) == 0


def test_a_grid_finer_than_the_map(rng):
    X, atoms = problem(rng)
    with pytest.raises(ValueError, match="a grid of 9x9 cells is finer than the map of 8x9 positions"):
        ConvSparseCoder(atoms, pool_grid=9).fit_transform(X)


@pytest.mark.parametrize("form", FORMS)
def test_pickles_carry_a_version(rng, form, monkeypatch):
    X, atoms = problem(rng, 2, form)
    coder = ConvSparseCoder(atoms, alpha=0.5).fit(X)
    stored = pickle.dumps(coder)
    assert_array_equal(pickle.loads(stored).transform(X), coder.transform(X))
    monkeypatch.setattr("sparseshare.version.__version__", "999.0")
    with pytest.warns(InconsistentVersionWarning, match="999.0"):
        pickle.loads(stored)


def test_skops_round_trip(rng):
    skops = pytest.importorskip("skops.io")
    X, atoms = problem(rng)
    coder = ConvSparseCoder(atoms, alpha=0.5, alpha_relative=True).fit(X)
    stored = skops.dumps(coder)
    loaded = skops.loads(stored, trusted=skops.get_untrusted_types(data=stored))
    assert_array_equal(loaded.transform(X), coder.transform(X))
