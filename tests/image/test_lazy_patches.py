"""Patches cut on the fly: the rows that `PatchExtractor` makes, wherever the images are."""

import numpy as np
import pytest

from sparseshare.image import ContrastNormalization, LazyPatches, PatchExtractor
from sparseshare.image import lazy_patches as cutting
from sparseshare.learning import MiniBatchDictionaryLearning
from sparseshare.sources import BlockError

IMAGES = np.random.default_rng(0).random((4, 15, 20)).astype(np.float32)
SIZES = [IMAGES[0], IMAGES[1, :9], IMAGES[2, :, :8]]
COLOURS = np.random.default_rng(1).random((3, 9, 12, 3))


def rows(images, patch=5, stride=1):
    return PatchExtractor((patch, patch) if isinstance(patch, int) else patch, stride).fit_transform(images)


@pytest.mark.parametrize("images", [IMAGES, SIZES, COLOURS, list(COLOURS)], ids=["stack", "sizes", "colours", "list"])
@pytest.mark.parametrize(("patch", "stride"), [(5, 1), ((4, 3), (2, 3))])
def test_rows_are_those_of_the_extractor(images, patch, stride):
    expected, lazy = rows(images, patch, stride), LazyPatches(images, patch, stride=stride)
    assert lazy.shape == expected.shape and lazy.dtype == expected.dtype
    np.testing.assert_array_equal(lazy[:], expected)
    np.testing.assert_array_equal(lazy[7:61], expected[7:61])
    some = np.random.default_rng(0).permutation(len(expected))[:20]
    np.testing.assert_array_equal(lazy[some], expected[some])
    np.testing.assert_array_equal(np.concatenate([block.rows for block in lazy.blocks(13)]), expected)


def test_images_may_be_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "_KEPT_BYTES", 2 * IMAGES[0].nbytes)
    files = [tmp_path / f"{number}.npy" for number in range(4)]
    for file, image in zip(files, IMAGES, strict=True):
        np.save(file, image)
    lazy = LazyPatches(files, 5, reader=np.load)
    np.testing.assert_array_equal(lazy[:], rows(IMAGES))
    assert len(lazy._kept) == 2
    read = []
    known = LazyPatches(
        files, 5, reader=lambda file: read.append(file) or np.load(file), image_shape=(15, 20), dtype="float32"
    )
    assert not read
    np.testing.assert_array_equal(known[:3], rows(IMAGES)[:3])
    assert read == files[:1]
    files[2].unlink()
    with pytest.raises(BlockError, match=r"rows 352 to 527\) of X could not be read: FileNotFoundError"):
        list(known.blocks(176, first=352))
    np.save(files[2], IMAGES[0, :9])
    with pytest.raises(BlockError, match=r"image 2 has the shape \(9, 20\), \(15, 20\) was announced"):
        list(known.blocks())


def test_images_may_be_mapped(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    np.testing.assert_array_equal(LazyPatches(np.load(tmp_path / "images.npy", mmap_mode="r"), 5)[:], rows(IMAGES))


def test_patches_can_be_normalised():
    lazy = LazyPatches(np.concatenate([IMAGES, np.ones((1, 15, 20), np.float32)]), 5, centered=True, normalized=True)[:]
    np.testing.assert_allclose(lazy.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(lazy, axis=1), [1] * 704 + [0] * 176, atol=1e-6)
    transformer = ContrastNormalization().fit(rows(IMAGES))
    np.testing.assert_allclose(
        LazyPatches(IMAGES, 5, transformer=transformer)[:], transformer.transform(rows(IMAGES)), atol=1e-6
    )


def test_learning_from_them_is_learning_from_the_rows():
    lazy = LazyPatches(IMAGES, 5, centered=True)
    learner = MiniBatchDictionaryLearning(10, alpha=0.1, batch_size=64, max_iter=2, random_state=0)
    atoms = learner.fit(lazy[:]).components_
    np.testing.assert_array_equal(learner.fit(lazy).components_, atoms)
    np.testing.assert_array_equal(learner.transform(lazy), learner.transform(lazy[:]))


def test_integers_are_cut_as_floats():
    images = np.arange(300, dtype=np.uint8).reshape(1, 15, 20)
    assert LazyPatches(images, 5).dtype == np.float64
    assert LazyPatches(images, 5, dtype=np.float32)[:2].dtype == np.float32


def test_a_bad_pixel_is_named_with_its_rows():
    bad = IMAGES.copy()
    bad[1, 3, 3] = np.nan
    with pytest.raises(BlockError, match=r"block 1 \(rows 176 to 351\) of X contains NaN .* first in row 176"):
        list(LazyPatches(bad, 5).blocks(176))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES[0], {}, r"images must be \(n, height, width"),
        ([], {}, "0 images"),
        (["a.png"], {}, "image 0 must be an array .*: give a reader"),
        ([IMAGES[0], COLOURS[0]], {}, "channels differ"),
        ([IMAGES[0], IMAGES[0, :3]], {}, "image 1: a patch of"),
        (IMAGES, {"patch_shape": 0}, "patch_shape"),
        (IMAGES, {"stride": (1, 0)}, "stride"),
        (IMAGES, {"centered": 1}, "centered"),
        (IMAGES, {"normalized": "l2"}, "normalized"),
        (IMAGES, {"reader": "imread"}, "reader"),
        (IMAGES, {"dtype": np.int32}, "dtype"),
        (IMAGES + 1j, {}, "Complex"),
    ],
)
def test_bad_input_is_named(images, options, message):
    with pytest.raises(ValueError, match=message):
        LazyPatches(images, **options)
