"""Patches of images on disk, and patches written as they are cut: those of images in memory, some at a time."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from stored import KINDS, Watched, Written, stored

from sparseshare.image import PatchExtractor, extractor_input
from sparseshare.sources import BlockError
from sparseshare.sources import blocks as blocks_of_rows

IMAGES = np.random.default_rng(0).random((13, 6, 7, 2)).astype(np.float32)
SEVERAL = [IMAGES[0], IMAGES[1, :4], IMAGES[2], IMAGES[3, :, :4], IMAGES[4]]
EXTRACTORS = {
    "all": dict(patch_shape=3),
    "strides": dict(patch_shape=(2, 3), stride=(1, 2)),
    "some": dict(patch_shape=3, max_patches=5, random_state=0),
    "a share": dict(patch_shape=3, max_patches=0.8, random_state=0),
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Four images are read at once."""
    monkeypatch.setattr(extractor_input, "_PART_BYTES", 4 * IMAGES[0].nbytes)


def pieces_of(n_rows, monkeypatch):
    monkeypatch.setattr(blocks_of_rows, "_FEWEST", n_rows)
    monkeypatch.setattr(blocks_of_rows, "_MOST", n_rows)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_patches_are_those_in_memory(name, monkeypatch):
    for images in (IMAGES, SEVERAL):
        extractor = PatchExtractor(**EXTRACTORS[name]).fit(images)
        rows = extractor.transform(images)
        for n_rows in (1, 7, 64):  # parts of an image, an image or less, some images
            pieces_of(n_rows, monkeypatch)
            out = Written(rows.shape, np.float32)
            assert extractor.transform(images, out=out) is out and out.most <= n_rows
            assert_array_equal(out.array, rows)
            if images is SEVERAL:
                continue
            watched, out = Watched(images), Written(rows.shape, np.float32)
            extractor.transform(watched, out=out)
            assert (watched.most, watched.n_read) == (4, 13) and out.most <= n_rows
            assert_array_equal(out.array, rows)
            assert_array_equal(extractor.transform(watched), rows)


@pytest.mark.parametrize("kind", KINDS)
def test_from_disk_to_disk(kind, tmp_path):
    on_disk = stored(kind, IMAGES, tmp_path)
    for name, parameters in EXTRACTORS.items():
        extractor, there = PatchExtractor(**parameters).fit(IMAGES), PatchExtractor(**parameters).fit(on_disk)
        assert (there.image_shape_, there.n_channels_) == ((6, 7, 2), 2)
        rows, locations = extractor.transform(IMAGES), extractor.locate(IMAGES)
        assert_array_equal(there.transform(on_disk), rows)
        for found, expected in zip(there.locate(on_disk), locations, strict=True):
            assert_array_equal(found, expected)
        out = stored(kind, np.zeros_like(rows), tmp_path, f"rows of {name}")
        if kind == "memory map":
            out = np.load(tmp_path / f"rows of {name}.npy", mmap_mode="r+")
        there.transform(on_disk, out=out)
        assert_array_equal(out[:], rows)


def test_signals_volumes_integers_and_missing_pixels():
    rng = np.random.default_rng(1)
    holes = np.where(IMAGES > 0.9, np.float32(np.nan), IMAGES)
    for images, patch in (
        (rng.random((9, 20)), (5,)),
        (rng.integers(0, 255, (5, 4, 5, 6), dtype=np.uint8), (2, 3, 2)),
        (holes, (3, 3)),
    ):
        for most in (None, 4):
            extractor = PatchExtractor(patch, max_patches=most, random_state=0)
            rows = extractor.fit_transform(images)
            found = extractor.fit_transform(Watched(images))
            assert found.dtype == rows.dtype
            assert_array_equal(found, rows)


def test_no_more_is_read_than_is_needed():
    watched = Watched(IMAGES)
    extractor = PatchExtractor(3).fit(watched)
    assert (watched.most, watched.n_read) == (4, 13)  # looked through for infinite pixels
    extractor.locate(watched)
    assert watched.n_read == 13
    extractor.set_params(max_patches=3).locate(watched)
    assert (watched.most, watched.n_read) == (4, 26)


def test_infinite_pixels_are_named_and_what_was_written_stays():
    bad = IMAGES.copy()
    bad[9, 2, 2, 1] = -np.inf
    extractor = PatchExtractor(3).fit(IMAGES)
    rows = extractor.transform(IMAGES)
    out = Written(rows.shape, np.float32)
    with pytest.raises(BlockError, match="image 9 of X contains infinite pixels") as caught:
        extractor.transform(Watched(bad), out=out)
    assert (caught.value.block, caught.value.rows) == (2, slice(8, 12))
    assert_array_equal(out.array[: 8 * 20], rows[: 8 * 20])
    assert np.isnan(out.array[8 * 20 :]).all()
    for method in (extractor.fit, extractor.set_params(max_patches=2).locate):
        with pytest.raises(BlockError, match="image 9 of X contains infinite pixels"):
            method(Watched(bad))


class Broken(Watched):
    def __getitem__(self, key):
        if key.start >= 8:
            raise OSError("the cable is out")
        return super().__getitem__(key)


def test_what_is_refused():
    extractor = PatchExtractor(3).fit(IMAGES)
    with pytest.raises(BlockError, match="rows 8 to 11 of X could not be read: OSError: the cable is out"):
        extractor.transform(Broken(IMAGES), out=np.empty((260, 18)))
    with pytest.raises(ValueError, match=r"out must have the shape \(260, 18\), got \(260, 17\)"):
        extractor.transform(IMAGES, out=np.empty((260, 17)))
    with pytest.raises(ValueError, match=r"out must have the shape \(260, 18\), got \(13, 18\)"):
        extractor.transform(Watched(IMAGES), out=np.empty((13, 18)))
    with pytest.raises(ValueError, match="to whose rows patches can be written .* got str"):
        extractor.transform(IMAGES, out="rows.npy")
    with pytest.raises(TypeError, match="X is an iterator, here an array is needed"):
        extractor.fit(iter(IMAGES))
    with pytest.raises(ValueError, match="real numbers, got dtype complex"):
        extractor.fit(Watched(IMAGES + 1j))
    with pytest.raises(ValueError, match=r"a patch of \(3, 3\) does not fit into an image of \(2, 7\)"):
        extractor.transform(Watched(IMAGES[:, :2]))
    with pytest.raises(ValueError, match="fitted were images of 2 channels, these are of no channel axis"):
        extractor.transform(Watched(IMAGES[..., 0]))
