"""Signals and images stand beside what their codes make of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.pipeline import make_pipeline

from sparseshare import SparseCoder
from sparseshare.convolution import ConvSparseCoder
from sparseshare.image import PatchExtractor
from sparseshare.plotting import ReconstructionDisplay
from sparseshare.plotting.reconstruction import natural_limits


@pytest.fixture
def dictionary(rng):
    return rng.standard_normal((20, 36)) * np.linspace(0.5, 2, 20)[:, None]


@pytest.fixture
def code():
    code = np.zeros(20)
    code[[2, 7, 11]] = 2, -1, 0.5
    return code


class Convolution:
    """Stands for a coder of images: maps in the place of rows."""

    def __init__(self, atoms, maps):
        self.atoms_, self.maps = atoms, maps

    def encode(self, images):
        assert len(images) == 1
        return self.maps[None]

    def inverse_transform(self, maps):
        return maps.sum(axis=1)


def test_a_patch(rng, dictionary, code, title):
    patch = code @ dictionary + 0.1 * rng.standard_normal(36)
    display = ReconstructionDisplay.from_codes(patch, code, dictionary)
    original, reconstruction, residual, atoms = display.axes_
    assert_allclose(original.images[0].get_array(), patch.reshape(6, 6))
    assert_allclose(reconstruction.images[0].get_array(), (code @ dictionary).reshape(6, 6))
    assert_allclose(residual.images[0].get_array(), (patch - code @ dictionary).reshape(6, 6))
    assert original.images[0].get_clim() == reconstruction.images[0].get_clim()
    limit = np.abs(patch - code @ dictionary).max()
    assert residual.images[0].get_clim() == (-limit, limit)
    norms = np.linalg.norm(dictionary, axis=1)
    assert_array_equal(display.used_, np.argsort(-np.abs(code) * norms)[:3])
    assert_array_equal(display.amounts_, code[display.used_])
    labels = {2: "+2", 7: "\N{MINUS SIGN}1", 11: "+0.5"}
    assert [text.get_text() for text in atoms.texts] == [labels[number] for number in display.used_]
    assert_allclose(
        atoms.images[0].get_array()[:6, :6],
        dictionary[display.used_[0]].reshape(6, 6) / np.abs(dictionary[display.used_[0]]).max(),
    )
    assert title(reconstruction) == "Reconstruction from 3 of 20 atoms"
    size = np.sqrt(np.mean((patch - code @ dictionary) ** 2))
    assert title(residual) == f"Residual, root mean square {size:.2g}"
    assert title(original) == "Original" and title(atoms) == "Atoms and their codes"


def test_a_curve(rng, dictionary, code, title):
    signal = code @ dictionary + 0.1 * rng.standard_normal(36)
    display = ReconstructionDisplay.from_codes(signal, code, dictionary, atom_shape=(36,), title="Heartbeat")
    both, residual, atoms = display.axes_
    assert_array_equal(both.lines[0].get_ydata(), signal)
    assert_allclose(both.lines[1].get_ydata(), code @ dictionary)
    assert [text.get_text() for text in both.get_legend().get_texts()] == ["original", "reconstruction"]
    assert_allclose(residual.lines[0].get_ydata(), signal - code @ dictionary)
    curves = [line.get_ydata() for line in atoms.lines if len(line.get_ydata()) == 36]
    assert len(curves) == 3
    for curve, number in zip(curves, display.used_, strict=True):  # each on a line of its own
        assert_allclose(curve - curve[0], code[number] * (dictionary[number] - dictionary[number][0]), atol=1e-12)
    assert title(both) == "Heartbeat" and atoms.get_xlabel() == "sample"


def test_an_image_from_its_patches(rng, dictionary, title):
    image = rng.random((20, 30))
    codes = rng.standard_normal((40, 20)) * (rng.random((40, 20)) > 0.8)
    display = ReconstructionDisplay.from_codes(
        image, csr_array(codes), dictionary, reconstruction=image * 0.9, n_atoms=4
    )
    assert_allclose(display.axes_[2].images[0].get_array(), image * 0.1)
    amounts = np.abs(codes).sum(axis=0) * np.linalg.norm(dictionary, axis=1)
    assert_array_equal(display.used_, np.argsort(-amounts)[:4])
    assert_allclose(display.amounts_, np.sort(amounts / amounts.sum())[::-1][:4])
    assert [text.get_text() for text in display.axes_[3].texts] == [f"{100 * a:.1f} %" for a in display.amounts_]
    assert title(display.axes_[1]) == f"Reconstruction, {np.count_nonzero(codes) / 40:.1f} atoms a patch"
    assert display.axes_[0].images[0].get_clim() == (0, 1)


def test_colours(rng):
    image = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    display = ReconstructionDisplay(image, image / 2).plot()
    assert len(display.axes_) == 3  # nothing is known of atoms
    assert_allclose(display.axes_[0].images[0].get_array(), image / 255)
    assert_allclose(display.axes_[1].images[0].get_array(), image / 510)
    assert_allclose(display.axes_[2].images[0].get_array(), 0.5 + image / 2 / image.max(), atol=1e-12)


def test_estimators(rng, dictionary):
    X = rng.standard_normal((5, 20)) @ dictionary
    coder = SparseCoder(dictionary, transform_algorithm="omp", transform_n_nonzero_coefs=4).fit(X)
    display = ReconstructionDisplay.from_estimator(coder, X, index=3)
    codes = coder.transform(X)
    assert_allclose(display.reconstruction.ravel(), codes[3] @ dictionary)
    assert set(display.used_) == set(np.flatnonzero(codes[3]))
    assert_allclose(ReconstructionDisplay.from_estimator(coder, X[3]).original, display.original)

    images = rng.standard_normal((2, 10, 11))
    pipeline = make_pipeline(PatchExtractor((6, 6)), coder).fit(images[:1])
    display = ReconstructionDisplay.from_estimator(pipeline, images, index=1)
    assert display.reconstruction.shape == (10, 11)
    assert_allclose(display.reconstruction, pipeline.inverse_transform(pipeline.transform(images[1:]))[0])


def test_maps(rng, title):
    maps = np.zeros((3, 8, 9))
    maps[1, 2, 3], maps[2, 4, 4] = 2.0, -0.5
    image = rng.standard_normal((1, 8, 9))
    coder = Convolution(np.ones((3, 2, 2)), maps)
    display = ReconstructionDisplay.from_estimator(coder, image)
    assert_array_equal(display.used_, [1, 2])
    assert_allclose(display.amounts_, [0.8, 0.2])
    assert_allclose(display.axes_[1].images[0].get_array(), maps.sum(axis=0))
    assert title(display.axes_[1]) == "Reconstruction, 2 activations"


def test_no_atom_is_used(dictionary):
    display = ReconstructionDisplay.from_codes(np.ones(36), np.zeros(20), dictionary)
    assert len(display.used_) == 0 and display.axes_[3].texts[0].get_text() == "no atom is used"
    curves = ReconstructionDisplay.from_codes(np.ones(36), np.zeros(20), dictionary, atom_shape=(36,))
    assert len(curves.used_) == 0


def test_other_axes(dictionary, code, pictures):
    figure, axes = pictures.subplots(1, 4)
    display = ReconstructionDisplay.from_codes(code @ dictionary, code, dictionary, ax=axes)
    assert list(display.axes_) == list(axes) and display.figure_ is figure
    figure, one = pictures.subplots()
    display.plot(ax=one)
    assert display.figure_ is figure and len(display.axes_) == 4 and not one.axison
    alone = pictures.figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match="ReconstructionDisplay draws 4 panels: ax must be one made by subplots"):
        display.plot(ax=alone)
    with pytest.raises(ValueError, match="draws 4 panels: ax must be None, one Axes or an array of as many"):
        display.plot(ax=axes[:3])


def test_what_black_and_white_stand_for():
    assert natural_limits(np.zeros((2, 2), np.uint8)) == (0, 255)
    assert natural_limits(np.array([0.1, 0.9])) == (0, 1)
    assert natural_limits(np.array([3.0, 90])) == (3, 90)
    assert natural_limits(np.array([-1.0, 2])) == (-2, 2)
    assert natural_limits(np.array([5.0, 5])) == (4, 6)


def test_wrong_input(dictionary, code):
    draw = ReconstructionDisplay.from_codes
    for arguments, message in [
        ((np.ones(35), code, dictionary), r"original has the shape \(35,\), but the reconstruction \(36,\)"),
        ((np.ones(36), code[:5], dictionary), "codes are of 5 atoms"),
        ((np.ones((9, 9)), np.zeros((4, 20)), dictionary), "are of many patches or places: pass reconstruction"),
        ((np.full(36, np.nan), code, dictionary), "original must hold finite real numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            draw(*arguments)
    with pytest.raises(ValueError, match="original must be one signal or image"):
        draw(np.ones((2, 3, 4, 5)), code, dictionary, reconstruction=np.ones((2, 3, 4, 5)))
    with pytest.raises(ValueError, match="'n_atoms' parameter of ReconstructionDisplay"):
        draw(np.ones(36), code, dictionary, n_atoms=0)
    coder = SparseCoder(dictionary).fit(np.ones((1, 36)))
    with pytest.raises(ValueError, match="'index' parameter of ReconstructionDisplay .* at most 1, got 2"):
        ReconstructionDisplay.from_estimator(coder, np.ones((2, 36)), index=2)
    with pytest.raises(ValueError, match="PCA has no inverse|object has no inverse_transform"):
        ReconstructionDisplay.from_estimator(object(), np.ones((2, 36)))


@pytest.mark.parametrize(
    ("atoms", "X"),
    [
        ((4, 5, 3), (2, 12, 11)),
        ((4, 5, 3, 3), (2, 12, 11, 3)),
        ((4, 5, 3), (2, 12, 11, 3)),
        ((4, 16), (2, 50)),
        ((4, 16, 3), (2, 50, 3)),
        ((4, 16), (2, 50, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("boundary", ["circular", "full"])
def test_estimators_with_shared_atoms(rng, atoms, X, boundary, title):
    atoms, X = rng.standard_normal(atoms), rng.standard_normal(X)
    coder = ConvSparseCoder(atoms, alpha=0.5, alpha_relative=True, boundary=boundary).fit(X)
    display = ReconstructionDisplay.from_estimator(coder, X, index=1)
    maps = coder.encode(X)
    assert_array_equal(display.original, X[1])
    assert_allclose(display.reconstruction, coder.inverse_transform(maps)[1])
    separate = X.ndim - atoms.ndim == 1
    largest = np.abs(maps[1]).max(axis=-1) if separate else np.abs(maps[1])
    amounts = largest.reshape(4, -1).sum(axis=1) * np.linalg.norm(atoms.reshape(4, -1), axis=1)
    assert_array_equal(display.used_, np.argsort(-amounts, kind="stable")[: np.count_nonzero(amounts)])
    assert_allclose(display.amounts_, amounts[display.used_] / amounts.sum())
    assert title(display.axes_[1 - (display.kind == "curve")]).endswith(f"{np.count_nonzero(largest):,} activations")
    assert len(display.axes_) == (3 if display.kind == "curve" else 4)
    if display.kind == "curve" and X.ndim == 3:
        assert [label.get_text() for label in display.axes_[0].get_yticklabels()] == [f"channel {c}" for c in range(3)]
        assert len(display.axes_[0].lines) == 6
    listed = ReconstructionDisplay.from_estimator(coder, [X[0], X[1, 1:]], index=1)
    assert listed.original.shape == X[1, 1:].shape


def test_flat_rows_are_drawn_as_images(rng):
    X = rng.standard_normal((2, 12, 11))
    coder = ConvSparseCoder(rng.standard_normal((4, 5, 3)), alpha=0.5, image_shape=(12, 11)).fit(X.reshape(2, -1))
    display = ReconstructionDisplay.from_estimator(coder, X.reshape(2, -1), index=1)
    assert_array_equal(display.original, X[1])
