"""Codes and maps are drawn so that no activation is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from sparseshare import SparseCoder
from sparseshare.convolution import ConvSparseCoder
from sparseshare.image import SparseImageEncoder
from sparseshare.plotting import ActivationsDisplay
from sparseshare.plotting.activations import largest_cells


@pytest.fixture
def codes(rng):
    return rng.standard_normal((60, 15)) * (rng.random((60, 15)) < np.linspace(0.05, 0.6, 15))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 50))
def test_cells_hold_the_largest_entries(n_rows, n_columns, most, seed):
    codes = np.random.default_rng(seed).normal(size=(n_rows, n_columns)).round(1)
    shape = min(n_rows, most), min(n_columns, most)
    expected = np.zeros(shape)
    for i, j in np.ndindex(*codes.shape):
        cell = i * shape[0] // n_rows, j * shape[1] // n_columns
        if abs(codes[i, j]) > abs(expected[cell]):
            expected[cell] = codes[i, j]
    assert_array_equal(np.abs(largest_cells(codes, most)), np.abs(expected))
    assert_array_equal(np.abs(largest_cells(csr_array(codes), most)), np.abs(expected))


def test_codes(codes, title):
    display = ActivationsDisplay.from_codes(codes)
    picture, use, counts = display.axes_
    order = np.argsort(-(codes != 0).mean(axis=0), kind="stable")
    assert_array_equal(display.order_, order)
    assert_array_equal(display.images_[0].get_array(), codes[:, order])
    assert display.images_[0].get_extent() == [0, 15, 60, 0]
    low, high = display.images_[0].get_clim()
    assert -low == high == np.quantile(np.abs(codes[codes != 0]), 0.99)
    assert_allclose(use.patches[0].get_data().values, (codes != 0).mean(axis=0)[order])
    heights = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in counts.patches}
    for number, count in enumerate(np.bincount((codes != 0).sum(axis=1))):
        assert sum(height for centre, height in heights.items() if abs(centre - number) < 0.4) == count
    assert counts.texts[0].get_text() == f"mean {(codes != 0).sum(axis=1).mean():.3g}"
    assert title(picture) == f"Codes, {100 * np.mean(codes != 0):.0f} % non-zero"
    assert title(use) == "Use of 15 atoms"
    assert (counts.get_xlabel(), counts.get_ylabel()) == ("non-zeros a signal", "signals")


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (5000, 1000)])
def test_any_number_of_codes(rng, shape):
    codes = csr_array(shape)
    assert ActivationsDisplay.from_codes(codes).axes_[1].get_title(loc="left") == (
        f"Use, {shape[1]:,} of {shape[1]:,} never"
    )
    codes = csr_array((np.ones(shape[0]), (np.arange(shape[0]), rng.integers(0, shape[1], shape[0]))), shape=shape)
    display = ActivationsDisplay.from_codes(codes)
    assert max(display.images_[0].get_array().shape) <= 160
    assert sum(bar.get_height() for bar in display.axes_[2].patches) == shape[0]


def test_maps(rng, title):
    maps = np.zeros((6, 20, 30))
    for number, places in enumerate((3, 0, 40, 9, 1, 0)):
        maps[number].flat[rng.choice(600, places, replace=False)] = rng.standard_normal(places)
    image = rng.random((20, 30, 3))
    display = ActivationsDisplay.from_codes(maps, image=image, max_maps=4)
    assert_array_equal(display.order_, [2, 3, 0, 4])
    assert [title(axes) for axes in display.axes_] == [
        "Image", "atom 2, 40 places", "atom 3, 9 places", "atom 0, 3 places", "atom 4, 1 places"
    ]  # fmt: skip
    assert_allclose(display.axes_[0].images[0].get_array(), image)
    for drawn, number in zip(display.images_, display.order_, strict=True):
        assert_array_equal(drawn.get_array(), maps[number])  # few enough rows and columns for all
        assert_array_equal(drawn.get_alpha() > 0, maps[number] != 0)
        low, high = drawn.get_clim()
        assert -low == high and drawn.norm(high / 4) == 0.75  # small ones are seen
    alone = ActivationsDisplay.from_codes(np.stack([0 * maps, maps]), index=1)
    assert len(alone.axes_) == 6
    assert_array_equal(alone.images_[0].get_array(), maps[2])
    assert len(ActivationsDisplay.from_codes(np.zeros((2, 5, 5))).images_) == 2
    dense, sparse = np.ones((300, 200)), np.zeros((300, 200))
    sparse[7, 9] = 1
    large = ActivationsDisplay.from_codes(np.stack([dense, sparse]))
    assert [image.get_array().shape for image in large.images_] == [(160, 160), (48, 48)]
    assert large.images_[0].get_extent() == [-0.5, 199.5, 299.5, -0.5]


def test_estimators(rng, codes):
    X = rng.standard_normal((30, 9))
    coder = SparseCoder(rng.standard_normal((15, 9)), alpha=1.0, transform_algorithm="lasso_lars").fit(X)
    display = ActivationsDisplay.from_estimator(coder, X)
    assert_allclose(display.codes.toarray(), coder.transform(X))
    split = ActivationsDisplay.from_estimator(coder.set_params(split_sign=True), X)
    assert_allclose(split.codes.toarray(), display.codes.toarray())

    images = rng.standard_normal((3, 12, 14))
    encoder = SparseImageEncoder(n_components=6, patch_shape=5, n_patches=100, max_iter=2, random_state=0).fit(images)
    display = ActivationsDisplay.from_estimator(encoder, images, index=2)
    maps = encoder.encode(images[2:])[0]
    assert_allclose(display.codes[0], maps[:6] - maps[6:])  # positive parts, then negative ones
    assert_array_equal(display.image, images[2])
    assert display.images_[0].get_extent() == [1.5, 11.5, 9.5, 1.5]  # centres of patches
    assert display.axes_[1].get_xlim() == (-0.5, 13.5) and display.axes_[1].get_ylim() == (11.5, -0.5)
    rows = ActivationsDisplay.from_estimator(encoder.set_params(sparse_output=True), images)
    assert rows.codes.shape == (80, 6) and len(rows.axes_) == 3
    sizes = ActivationsDisplay.from_estimator(encoder.set_params(sparse_output=False), [images[0], images[1, 3:]])
    assert sizes.codes.shape == (80 + 50, 6)


def test_other_axes(codes, pictures):
    figure, axes = pictures.subplots(3, 1)
    display = ActivationsDisplay.from_codes(codes, ax=axes, title="All codes")
    assert list(display.axes_) == list(axes) and axes[0].get_title(loc="left") == "All codes"
    assert display.plot(ax=pictures.figure().add_subplot()) is display


def test_wrong_input(codes):
    for arguments, message in [
        (dict(codes=np.zeros(4)), r"codes must have the shape .* got \(4,\)"),
        (dict(codes=np.zeros((0, 4))), r"codes must have the shape .* got \(0, 4\)"),
        (dict(codes=np.full((2, 4), np.nan)), "codes contain NaN"),
        (dict(codes=codes, n_atoms=4), "codes are of 15 atoms"),
        (dict(codes=codes, image=np.ones((3, 3))), "an image goes with maps"),
        (dict(codes=np.ones((2, 4, 4)), image=np.ones(4)), r"image must have the shape .* got \(4,\)"),
        (dict(codes=np.ones((2, 4, 4)), index=1), "'index' parameter of ActivationsDisplay .* at most 0, got 1"),
        (dict(codes=np.ones((2, 4, 4)), max_maps=0), "'max_maps' parameter of ActivationsDisplay"),
    ]:
        with pytest.raises(ValueError, match=message):
            ActivationsDisplay.from_codes(**arguments)


@pytest.mark.parametrize("boundary", ["circular", "full", "valid"])
def test_activations_lie_at_the_middle_of_atoms(rng, boundary):
    """One atom of ones in an image of zeros: the mark is where its middle pixel is."""
    atoms, image = np.zeros((2, 5, 3)), np.zeros((14, 12))
    atoms[0], atoms[1, 0, 0] = 1, 9
    image[4:9, 6:9] = 1
    coder = ConvSparseCoder(atoms, alpha=0.1, boundary=boundary).fit(image[None])
    display = ActivationsDisplay.from_estimator(coder, image[None])
    assert_array_equal(display.image, image)
    assert_array_equal(display.order_, [0, 1])
    row, column = np.argwhere(display.codes[0, 0])[0]
    left, _, _, top = display.images_[0].get_extent()
    assert (top + row + 0.5, left + column + 0.5) == (6, 7)


@pytest.mark.parametrize("channels", [None, 3])
def test_activations_of_a_signal(rng, title, channels):
    shape = () if channels is None else (channels,)
    atoms, X = rng.standard_normal((6, 9, *shape)), rng.standard_normal((2, 60, *shape))
    coder = ConvSparseCoder(atoms, alpha=0.5, alpha_relative=True, boundary="full", sparse_output=True).fit(X)
    maps = coder.encode(X).toarray()[1].reshape(6, 52)
    display = ActivationsDisplay.from_estimator(coder, X, index=1, max_maps=4)
    counts = np.count_nonzero(maps, axis=1)
    assert_array_equal(display.order_, np.argsort(-counts, kind="stable")[:4])
    assert display.images_ == [] and len(display.lines_) == 4 and len(display.axes_) == 2
    for row, (lines, number) in enumerate(zip(display.lines_, display.order_, strict=True)):
        places = np.flatnonzero(maps[number])
        segments = np.array(lines.get_segments()).reshape(-1, 2, 2)
        assert_allclose(segments[:, 0, 0], places + 4)  # the middle of 9 samples
        limit = np.abs(maps[display.order_]).max()
        assert_allclose(row - segments[:, 1, 1], 0.45 * maps[number, places] / limit)
    used = np.count_nonzero(counts)
    assert title(display.axes_[1]).startswith(f"{counts.sum():,} activations of {used} of 6 atoms")
    assert [label.get_text() for label in display.axes_[1].get_yticklabels()] == [f"atom {k}" for k in display.order_]
    assert len(display.axes_[0].lines) == (channels or 1)
    assert len(ActivationsDisplay.from_codes(maps[None, :, None]).axes_) == 1
    assert len(ActivationsDisplay.from_estimator(coder, [X[0, :30], X[1]], index=0).axes_) == 2
