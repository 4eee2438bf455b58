"""Atoms are drawn where and how they should be, in every form they have."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sparseshare import SparseCoder
from sparseshare.convolution import ConvSparseCoder
from sparseshare.image import PatchExtractor, SparseImageEncoder
from sparseshare.plotting import ActivationsDisplay, AtomsDisplay
from sparseshare.plotting.atoms import scaled
from sparseshare.plotting.codes import check_codes, use_of
from sparseshare.plotting.style import grid_of, share


@pytest.fixture
def dictionary(rng):
    return rng.standard_normal((12, 64))


@pytest.fixture
def codes(rng):
    codes = rng.standard_normal((50, 12))
    codes[rng.random((50, 12)) < np.linspace(0.1, 0.9, 12)[rng.permutation(12)]] = 0
    return codes


def tiles(display, n_columns, side, step):
    """The tiles of a picture of square tiles, in the order in which they are read."""
    picture = np.ma.filled(display.image_.get_array(), np.nan)
    for number in range(len(display.order_)):
        row, column = divmod(number, n_columns)
        yield picture[row * step[0] : row * step[0] + side, column * step[1] : column * step[1] + side]


def test_every_atom_has_its_tile(dictionary, title):
    display = AtomsDisplay.from_codes(dictionary, n_columns=4)
    assert title(display.ax_) == "12 atoms of 8 × 8 pixels"
    picture = display.image_.get_array()
    assert picture.shape == (3 * 9, 4 * 9 - 1)
    for tile, atom in zip(tiles(display, 4, 8, (9, 9)), dictionary, strict=True):
        assert_allclose(tile, atom.reshape(8, 8) / np.abs(atom).max())
    assert np.ma.getmaskarray(picture)[8].all() and np.ma.getmaskarray(picture)[:, 8].all()  # nothing in between
    assert display.image_.get_clim() == (-1, 1)
    assert_array_equal(display.order_, np.arange(12))
    assert display.lines_ is None and display.figure_ is display.ax_.figure


def test_the_most_used_come_first(dictionary, codes, title):
    use = (codes != 0).mean(axis=0)
    for given in (codes, csr_array(codes), np.hstack([codes.clip(0), (-codes).clip(0)])):
        display = AtomsDisplay.from_codes(dictionary, given, n_columns=4)
        assert_allclose(display.use, use)
        assert_array_equal(display.order_, np.argsort(-use, kind="stable"))
        assert "most used first" in title(display.ax_)
        assert [text.get_text() for text in display.ax_.texts] == [share(use[k]) for k in display.order_]
        for tile, number in zip(tiles(display, 4, 8, (10, 9)), display.order_, strict=True):
            assert_allclose(tile, dictionary[number].reshape(8, 8) / np.abs(dictionary[number]).max())
    few = AtomsDisplay.from_codes(dictionary, codes, max_atoms=5)
    assert_array_equal(few.order_, display.order_[:5])
    assert title(few.ax_).startswith("5 of 12 atoms")


def test_the_longest_come_first(dictionary, title):
    dictionary *= np.arange(12)[:, None]
    display = AtomsDisplay.from_codes(dictionary, order="norm")
    assert_array_equal(display.order_, np.argsort(-np.linalg.norm(dictionary, axis=1)))
    assert "largest norm first" in title(display.ax_)
    display.plot(order=None)
    assert_array_equal(display.order_, np.arange(12))


def test_atoms_shared_by_all_places(rng, title):
    atoms = rng.standard_normal((6, 5, 7))
    maps = np.zeros((2, 6, 9, 9))
    maps[:, 4] = 1
    maps[0, 2, :3] = -1
    display = AtomsDisplay.from_codes(atoms, maps)
    assert_allclose(display.use, [0, 0, 3 / 18, 0, 1, 0])
    assert_array_equal(display.order_, [4, 2, 0, 1, 3, 5])
    assert "6 atoms of 5 × 7 pixels" in title(display.ax_)
    assert_allclose(AtomsDisplay.from_codes(atoms, maps[0]).use, [0, 0, 3 / 9, 0, 1, 0])


def test_colours(rng, title):
    atoms = rng.standard_normal((4, 75))
    display = AtomsDisplay.from_codes(atoms, n_columns=2)
    picture = display.image_.get_array()
    assert picture.shape == (2 * 6, 2 * 6 - 1, 3)
    assert title(display.ax_) == "4 atoms of 5 × 5 pixels in colour"
    assert_allclose(picture[:5, 6:], 0.5 + 0.5 * atoms[1].reshape(5, 5, 3) / np.abs(atoms[1]).max())
    assert_array_equal(picture[5], 1)  # white between tiles


def test_channels_stand_side_by_side(rng, title):
    atoms = rng.standard_normal((4, 5, 5, 2))
    display = AtomsDisplay.from_codes(atoms, n_columns=2, scale="all")
    picture = np.ma.filled(display.image_.get_array(), np.nan)
    assert picture.shape == (2 * 6, 2 * (5 + 1 + 5 + 3) - 3)
    assert_allclose(picture[:5, :5], atoms[0, ..., 0])
    assert_allclose(picture[:5, 6:11], atoms[0, ..., 1])
    assert_allclose(picture[6:11, 14:19], atoms[3, ..., 0])
    assert display.image_.get_clim() == (-np.abs(atoms).max(), np.abs(atoms).max())
    assert "2 channels, side by side" in title(display.ax_)
    assert len(display.figure_.axes) == 2  # one scale of grey


def test_curves(rng, title):
    atoms = rng.standard_normal((7, 50))
    display = AtomsDisplay.from_codes(atoms, rng.standard_normal((9, 7)), n_columns=3)
    assert title(display.ax_).startswith("7 atoms of 50 samples, most used first")
    lines = display.lines_.get_segments()
    assert len(lines) == 7 and display.image_ is None
    for place, (line, number) in enumerate(zip(lines, display.order_, strict=True)):
        row, column = divmod(place, 3)
        assert column <= line[:, 0].min() < line[:, 0].max() < column + 1
        assert row < line[:, 1].min() < line[:, 1].max() < row + 1
        assert np.corrcoef(-line[:, 1], atoms[number])[0, 1] > 1 - 1e-9  # rows count downwards
    assert AtomsDisplay.from_codes(rng.standard_normal((2, 49)), atom_shape=(49,)).kind == "curve"
    assert AtomsDisplay.from_codes(rng.standard_normal((2, 49)), kind="curve").atoms.shape == (2, 49)


def test_curves_of_several_channels(rng, title):
    display = AtomsDisplay.from_codes(rng.standard_normal((6, 40, 3)), kind="curve")
    assert len(display.lines_.get_segments()) == 18
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == [f"channel {c}" for c in range(3)]
    assert title(display.ax_) == "6 atoms of 40 samples in 3 channels"


@pytest.mark.parametrize("n_atoms", [1, 4, 1000])
def test_any_number_of_atoms(rng, n_atoms, title):
    for features in (64, 50):
        display = AtomsDisplay.from_codes(rng.standard_normal((n_atoms, features)), np.eye(n_atoms))
        assert title(display.ax_).startswith(f"{n_atoms:,} atom")
        assert len(display.ax_.texts) == (n_atoms if n_atoms <= 40 else 0)
        width, height = display.figure_.get_size_inches()
        assert 3 < width < 10 and 1.3 < height < 10


def test_what_black_and_white_stand_for():
    atoms = np.array([[[0.0, 2.0]], [[1.0, 4.0]], [[0.0, 0.0]]])
    values, limits = scaled(atoms, "atom", None)  # nothing negative: black is zero
    assert_array_equal(values[:, 0], [[0, 1], [0.25, 1], [0, 0]])
    assert limits == (0, 1)
    assert scaled(atoms, "atom", True)[1] == (-1, 1)
    assert scaled(atoms, "all", None)[1] == (0, 4)
    assert scaled(-atoms, "all", None)[1] == (-4, 4)
    values, limits = scaled(atoms - 1, "atom", False)
    assert_array_equal(values[:, 0], [[0, 1], [0, 1], [0, 0]])
    assert limits == (0, 1)
    assert scaled(atoms - 1, "all", False)[1] == (-1, 3)
    assert scaled(np.zeros((1, 2, 2)), "all", None)[1] == (0, 1)


def test_estimators(rng, title):
    X = rng.standard_normal((60, 16))
    coder = SparseCoder(n_components=6, alpha=0.5, max_iter=2, random_state=0).fit(X)
    display = AtomsDisplay.from_estimator(coder, X)
    assert_allclose(display.use, (coder.transform(X) != 0).mean(axis=0))
    assert title(AtomsDisplay.from_estimator(coder).ax_) == "6 atoms of 4 × 4 pixels"
    assert AtomsDisplay.from_estimator(SparseCoder(rng.standard_normal((5, 9)))).atoms.shape == (5, 3, 3)
    split = SparseCoder(coder.components_, alpha=0.5, transform_algorithm="lasso_lars", split_sign=True).fit(X)
    assert_allclose(AtomsDisplay.from_estimator(split.set_output(transform="pandas"), X).use, display.use)
    pipeline = make_pipeline(PatchExtractor((2, 8)), StandardScaler(), coder)
    images = rng.standard_normal((2, 9, 9))
    pipeline.fit(images)
    display = AtomsDisplay.from_estimator(pipeline, images)
    assert display.atoms.shape == (6, 2, 8)
    assert_allclose(display.use, (pipeline.transform(images) != 0).mean(axis=0))
    search = GridSearchCV(coder, {"alpha": [0.5, 1.0]}, cv=2).fit(X)
    assert AtomsDisplay.from_estimator(search).atoms.shape == (6, 4, 4)


def test_an_encoder_of_images(rng, title):
    images = rng.random((4, 9, 9, 3))
    encoder = SparseImageEncoder(n_components=5, patch_shape=4, n_patches=100, max_iter=2, random_state=0).fit(images)
    display = AtomsDisplay.from_estimator(encoder, images)
    assert display.atoms.shape == (5, 4, 4, 3)
    maps = encoder.encode(images)
    assert_allclose(display.use, (maps[:, :5] != maps[:, 5:]).mean(axis=(0, 2, 3)))
    assert "5 atoms of 4 × 4 pixels in colour" in title(display.ax_)


def test_other_axes(dictionary, pictures):
    figure, axes = pictures.subplots(1, 2)
    display = AtomsDisplay.from_codes(dictionary, ax=axes[1], title="mine")
    assert display.ax_ is axes[1] and display.figure_ is figure
    assert axes[1].get_title(loc="left") == "mine" and not axes[0].images
    assert pictures.get_fignums() == [figure.number]
    assert display.plot() is display and display.figure_ is not figure


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(atoms=np.zeros(4)), r"atoms must have the shape .* got \(4,\)"),
        (dict(atoms=np.zeros((0, 4))), r"atoms must have the shape .* got \(0, 4\)"),
        (dict(atoms=np.full((2, 4), np.nan)), "atoms must be finite real numbers"),
        (dict(atoms=np.ones((2, 4), complex)), "atoms must be finite real numbers, got dtype complex128"),
        (dict(atoms=np.zeros((2, 10)), kind="image"), "atoms of 10 entries are no square images: pass atom_shape"),
        (dict(atoms=np.zeros((2, 10)), atom_shape=(3, 3)), r"atom_shape=\(3, 3\) has 9 entries, an atom has 10"),
        (dict(atoms=np.zeros((2, 16)), atom_shape=(2, 2, 2, 2)), r"atom_shape of images must be .* got \(2, 2, 2, 2\)"),
        (dict(atoms=np.zeros((2, 16)), kind="picture"), "'kind' parameter .* got 'picture'"),
        (dict(atoms=np.zeros((2, 4)), codes=np.zeros((5, 3))), r"codes are of 3 atoms .* there are 2"),
        (dict(atoms=np.zeros((2, 4)), codes=np.zeros(5)), r"codes must have the shape .* got \(5,\)"),
        (dict(atoms=np.zeros((2, 4)), codes=np.full((5, 2), np.inf)), "codes contain NaN or infinity"),
        (dict(atoms=np.zeros((2, 4)), codes=np.full((5, 2), "a")), "codes must hold real numbers, got dtype <U1"),
        (dict(atoms=np.zeros((2, 4)), order="use"), "order='use' needs codes"),
        (dict(atoms=np.zeros((2, 4)), order="size"), "'order' parameter of AtomsDisplay must be 'auto'"),
        (dict(atoms=np.zeros((2, 4)), scale="each"), "'scale' parameter of AtomsDisplay must be 'atom' or 'all'"),
        (dict(atoms=np.zeros((2, 4)), max_atoms=0), "'max_atoms' parameter of AtomsDisplay must be an integer"),
        (dict(atoms=np.zeros((2, 4)), n_columns=1.5), "'n_columns' parameter of AtomsDisplay must be an integer"),
        (dict(atoms=np.zeros((2, 4)), symmetric=1), "'symmetric' parameter of AtomsDisplay must be True or False"),
        (dict(atoms=np.zeros((2, 4)), ax=3), "ax must be None, one Axes or an array of as many"),
    ],
)
def test_wrong_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        AtomsDisplay.from_codes(**arguments)


def test_estimators_without_atoms():
    with pytest.raises(ValueError, match="SparseCoder has neither components_ nor atoms_: fit it"):
        AtomsDisplay.from_estimator(SparseCoder())


def test_use_and_grids():
    assert_allclose(use_of(check_codes(csr_array(([1.0, 0.0], ([0, 1], [1, 1])), shape=(4, 3)))), [0, 0.25, 0])
    for count in range(1, 300):
        for aspect in (0.3, 1, 4):
            n_rows, n_columns = grid_of(count, aspect)
            assert (n_rows - 1) * n_columns < count <= n_rows * n_columns
            if count > 30:
                assert 0.4 < n_columns * aspect / n_rows < 4


SHARED = {  # shapes of atoms and of signals
    "images": ((4, 5, 3), (2, 12, 11)),
    "colour images": ((4, 5, 3, 3), (2, 12, 11, 3)),
    "a code for each channel": ((4, 5, 3), (2, 12, 11, 2)),
    "signals": ((4, 16), (2, 50)),
    "signals of channels": ((4, 16, 3), (2, 50, 3)),
}


@pytest.mark.parametrize("form", SHARED)
def test_estimators_with_shared_atoms(rng, form, title):
    atoms, X = (rng.standard_normal(shape) for shape in SHARED[form])
    coder = ConvSparseCoder(atoms, alpha=0.6, alpha_relative=True).fit(X)
    display = AtomsDisplay.from_estimator(coder, X)
    maps = coder.encode(X)
    used = (maps.any(axis=-1) if form == "a code for each channel" else maps != 0).reshape(2, 4, -1).mean(axis=(0, 2))
    assert_allclose(display.use, used)
    assert_array_equal(display.order_, np.argsort(-used, kind="stable"))
    curves = form.startswith("signals")
    assert display.kind == ("curve" if curves else "image") and display.atoms.shape == atoms.shape
    assert title(display.ax_).startswith("4 atoms of 16 samples" if curves else "4 atoms of 5 × 3 pixels")
    assert title(display.ax_).endswith("with the share of places that use them")
    pipeline = make_pipeline(FunctionTransformer(), coder.set_params(sparse_output=True)).fit(X)
    assert_allclose(AtomsDisplay.from_estimator(pipeline, X).use, used)
    assert coder.sparse_output  # the estimator is left as it was
    assert_allclose(AtomsDisplay.from_estimator(coder, list(X[:1]) + [X[1, 1:]]).use, used, atol=0.2)
    assert AtomsDisplay.from_estimator(coder).use is None


def test_atoms_of_volumes_are_refused(rng):
    coder = ConvSparseCoder(rng.standard_normal((2, 2, 2, 2)), alpha=0.5).fit(rng.standard_normal((1, 5, 5, 5)))
    with pytest.raises(ValueError, match="atoms of volumes cannot be drawn: pass a slice of them"):
        AtomsDisplay.from_estimator(coder)
    with pytest.raises(ValueError, match="maps of volumes cannot be drawn: pass a slice of them"):
        ActivationsDisplay.from_estimator(coder, rng.standard_normal((1, 5, 5, 5)))
