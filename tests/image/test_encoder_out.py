"""Features of images that are written as they are made: the bits of those in memory, some images at a time."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from stored import KINDS, Watched, Written, stored

from sparseshare.image import SparseImageEncoder, patch_codes
from sparseshare.image.patch_codes import PatchCoder

X = np.random.default_rng(0).random((20, 8, 6, 3)).astype(np.float32)
SEVERAL = [X[0], X[1, :5], *X[2:9], X[9, :, :4], X[10]]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of 3 images, of which 6 are written at once."""
    monkeypatch.setattr(PatchCoder, "part_sizes", (4096, 3))
    monkeypatch.setattr(patch_codes, "_WRITTEN_BYTES", 4 * 40 * 6)


def fitted(**options):
    return SparseImageEncoder(5, patch_shape=3, n_patches=60, max_iter=3, random_state=0, **options).fit(X)


ENCODERS = {
    "threshold": {},
    "lasso": dict(encoding="lasso", pooling="max", split_sign=False),
    "triangle": dict(encoding="triangle", dictionary="kmeans", n_jobs=1),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_features_are_those_in_memory(name, monkeypatch):
    encoder = fitted(**ENCODERS[name])
    for sizes in ((4096, 3), (10, 64)):  # the second: images in bands
        monkeypatch.setattr(PatchCoder, "part_sizes", sizes)
        for images in (X, SEVERAL):
            expected = encoder.set_params(sparse_output=False).transform(images)
            for sparse_output in (False, True):
                out = Written(expected.shape, np.float32)
                encoder.set_params(sparse_output=sparse_output)
                assert encoder.transform(images, out=out) is out
                assert_array_equal(out.array, expected)
                assert out.most <= 6 * 40 // expected.shape[1]


@pytest.mark.parametrize("kind", KINDS)
def test_from_disk_to_disk(kind, tmp_path):
    encoder = fitted()
    expected = encoder.transform(X)
    out = stored(kind, np.zeros_like(expected), tmp_path, "features")
    if kind == "memory map":
        out = np.load(tmp_path / "features.npy", mmap_mode="r+")
    encoder.transform(stored(kind, X, tmp_path), out=out)
    assert_array_equal(out[:], expected)
    if kind == "memory map":
        assert_array_equal(np.load(tmp_path / "features.npy"), expected)


def test_a_part_is_read_at_a_time():
    watched, encoder = Watched(X), fitted()
    out = Written((20, 40), np.float64)
    encoder.transform(watched, out=out)
    assert (watched.most, watched.n_read, out.most) == (3, 20, 6)
    assert_array_equal(out.array, encoder.transform(X))


def test_many_parts_make_a_piece_of_their_own(monkeypatch):
    monkeypatch.setattr(patch_codes, "_WRITTEN_BYTES", 2**20)
    monkeypatch.setattr(patch_codes, "_PARTS_AT_ONCE", 2)
    monkeypatch.setattr(PatchCoder, "part_sizes", (10, 64))
    out, encoder = Written((20, 40), np.float32), fitted()
    encoder.transform(X, out=out)
    assert out.most == 1  # an image is never cut
    assert_array_equal(out.array, encoder.transform(X))


def test_a_bad_image_is_named_and_what_was_written_stays():
    bad, encoder, out = X.copy(), fitted(), Written((20, 40), np.float32)
    bad[13, 2, 2, 1] = np.nan
    with pytest.raises(ValueError, match="image 13 contains NaN or infinity"):
        encoder.transform(Watched(bad), out=out)
    assert_array_equal(out.array[:12], encoder.transform(X[:12]))
    assert np.isnan(out.array[12:]).all()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((20, 39)), r"out must have the shape \(20, 40\), got \(20, 39\)"),
        (np.empty((19, 40)), r"out must have the shape \(20, 40\), got \(19, 40\)"),
        (np.empty((20, 40), int), "out must hold floating-point numbers, got dtype int64"),
        ("features.npy", "out must be an array .* to whose rows features can be written .* got str"),
    ],
    ids=["columns", "rows", "integers", "path"],
)
def test_an_out_that_does_not_suit(out, message):
    with pytest.raises(ValueError, match=message):
        fitted().transform(X, out=out)


def test_one_warning_for_all_pieces(monkeypatch):
    encoder = fitted(encoding="lasso_cd", alpha=0.01)
    monkeypatch.setattr(patch_codes, "Problem", partial(patch_codes.Problem, max_iter=1, tol=1e-9))
    with pytest.warns(ConvergenceWarning) as at_once:
        encoder.transform(X)
    with pytest.warns(ConvergenceWarning) as by_pieces:
        encoder.transform(X, out=np.empty((20, 40)))
    assert [str(one.message) for one in at_once] == [str(one.message) for one in by_pieces]
    assert len(at_once) == 1
