"""Rows that are read piece by piece: each kind gives the rows of the array it stands for, and names what is wrong."""

import mmap
import os

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array

from sparseshare.sources import ArrayRows, BlockError, Blocks, rows_a_block, rows_of
from sparseshare.sources import blocks as blocks_of_rows

X = np.random.default_rng(0).standard_normal((100, 5)).astype(np.float32)
BLOCKS = [X[:7], X[7:60], X[60:60], X[60:]]


def on_disk(kind, folder):
    """X as an array of a kind."""
    if kind == "memory map":
        np.save(folder / "X.npy", X)
        return np.load(folder / "X.npy", mmap_mode="r")
    if kind == "part of a map":
        np.save(folder / "X.npy", np.concatenate([X, X]))
        return np.load(folder / "X.npy", mmap_mode="r")[100:]
    if kind == "zarr":
        array = pytest.importorskip("zarr").open(
            folder / "X.zarr", mode="w", shape=X.shape, chunks=(30, 5), dtype=X.dtype
        )
        array[:] = X
        return array
    if kind == "hdf5":
        return pytest.importorskip("h5py").File(folder / "X.h5", "w").create_dataset("X", data=X)
    return BLOCKS if kind == "list" else [csr_array(block) for block in BLOCKS]


KINDS = ["memory map", "part of a map", "zarr", "hdf5", "list", "sparse blocks"]


def dense(rows):
    return rows.toarray() if hasattr(rows, "toarray") else rows


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_array(kind, tmp_path):
    source = rows_of(on_disk(kind, tmp_path))
    assert isinstance(source, Blocks if kind in ("list", "sparse blocks") else ArrayRows)
    assert source.shape == X.shape and source.dtype == X.dtype
    np.testing.assert_array_equal(dense(source[3:70]), X[3:70])
    rows = np.array([99, 3, 3, 50, 4])
    np.testing.assert_array_equal(dense(source[rows]), X[rows])
    for n_rows in (1, 32, 100, 1000):
        blocks = list(source.blocks(n_rows))
        np.testing.assert_array_equal(np.concatenate([dense(block.rows) for block in blocks]), X)
        assert [block.first for block in blocks] == list(range(0, 100, n_rows))
        assert [block.number for block in blocks] == list(range(len(blocks)))
    (last,) = source.blocks(64, first=64)
    assert (last.number, last.first, last.rows.shape) == (1, 64, (36, 5))


def test_what_is_in_memory_passes_as_it_is():
    for rows in (X, X.tolist(), csr_array(X), [X[0], X[1]], [], None, "text", np.zeros((2, 3, 4))):
        assert rows_of(rows) is rows


def test_an_iterator_gives_its_blocks_once():
    source = rows_of(iter(BLOCKS))
    assert source.once and source.shape == (None, 5)
    with pytest.raises(TypeError, match="not known"):
        len(source)
    np.testing.assert_array_equal(source.head(20), X[:20])
    np.testing.assert_array_equal(source.sample(), X[:64])
    np.testing.assert_array_equal(np.concatenate([block.rows for block in source.blocks(9)]), X)
    assert source.shape == X.shape
    with pytest.raises(ValueError, match="is used up"):
        next(source.blocks(9))


def test_a_sample_of_listed_blocks_is_from_all_over():
    rows = np.unique(np.linspace(0, 99, 64).astype(int))
    for blocks in (BLOCKS, [csr_array(block) for block in BLOCKS], [coo_array(BLOCKS[0]), *BLOCKS[1:]]):
        np.testing.assert_array_equal(dense(rows_of(blocks).sample()), X[rows])
    assert rows_of([*BLOCKS, X[:, 1:]]).sample().shape[1] == 5  # a block of another width is named when it is read
    assert rows_of([X[:0], X[:0]]).sample().shape == (0, 5)


def test_what_can_be_iterated_again_is_counted_in_a_pass():
    class Again:
        def __iter__(self):
            return iter(BLOCKS)

    source = rows_of(Again())
    assert source.shape == (None, 5) and not source.once
    assert source.count() == 100 and source.shape == X.shape


def test_no_blocks_are_refused():
    with pytest.raises(ValueError, match="used up"):
        rows_of(iter([]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((2, 5), np.nan, np.float32), r"block 2 \(rows 60 to 61\) of X contains NaN .* first in row 60"),
        (csr_array(np.diag([0, 1, np.inf, 0, 0]).astype(np.float32)), "block 2 .* first in row 62"),
        (np.ones((4, 6), np.float32), r"block 2 \(rows 60 to 63\) of X has 6 columns, those before it have 5"),
        (np.ones((4, 5)), "block 2 .* has dtype float64, those before it have float32"),
        (np.ones(5, np.float32), r"block 2 .* must be a 2-D array, a row a signal, got the shape \(5,\)"),
        ([[1.0], [1.0, 2.0]], "block 2 .* is no 2-D array of numbers"),
    ],
)
def test_a_bad_block_is_named(bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        list(rows_of(iter([*BLOCKS[:2], bad, X])).blocks())
    assert caught.value.block == 2 and caught.value.rows.start == 60


def test_what_an_iterator_raises_names_the_block():
    def blocks():
        yield X
        raise OSError("the cable is out")

    with pytest.raises(
        BlockError, match=r"block 1 of X, whose rows begin at 100, could not be read: OSError: the cable"
    ):
        list(rows_of(blocks()).blocks())


def test_nan_on_disk_is_named_with_its_block(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_of_rows, "_FEWEST", 16)
    monkeypatch.setattr(blocks_of_rows, "_MOST", 16)
    bad = X.copy()
    bad[40, 2] = np.nan
    np.save(tmp_path / "X.npy", bad)
    source = rows_of(np.load(tmp_path / "X.npy", mmap_mode="r"))
    with pytest.raises(BlockError, match=r"block 2 \(rows 32 to 47\) of X contains NaN or infinity, first in row 40"):
        list(source.blocks())
    assert len(list(source.blocks(finite=False))) == 7


def test_a_file_that_was_cut_is_an_error_and_no_crash(tmp_path):
    source = rows_of(on_disk("memory map", tmp_path))
    os.truncate(tmp_path / "X.npy", 1000)
    with pytest.raises(BlockError, match=r"block 0 .* could not be read: OSError: .* has been cut to 1000 bytes"):
        list(source.blocks())


@pytest.mark.skipif(not hasattr(mmap, "MADV_RANDOM"), reason="this system takes no advice")
def test_rows_far_apart_do_not_fetch_what_lies_between(tmp_path):
    """Seen by the advice that the system is given; without it every row brings megabytes along."""
    advice = []

    class Advised(mmap.mmap):
        def madvise(self, option, *where):
            advice.append(option)

    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (3000, 1024))
    X[:] = np.arange(3000)[:, np.newaxis]
    source = ArrayRows(X)
    with open(tmp_path / "X.npy", "rb") as file, Advised(file.fileno(), 0, access=mmap.ACCESS_READ) as advised:
        source._mapped.map = advised
        for rows, wanted in ((np.array([7, 1500, 2900]), True), (np.arange(0, 300, 5), False)):
            advice.clear()
            np.testing.assert_array_equal(source[rows][:, 0], rows)
            begun, ended = (option in advice for option in (mmap.MADV_RANDOM, mmap.MADV_NORMAL))
            assert begun == ended == wanted
            if wanted:
                assert advice.index(mmap.MADV_RANDOM) < advice.index(mmap.MADV_NORMAL) == len(advice) - 1
    assert source[np.array([], int)].shape == (0, 1024)


def test_a_file_that_was_deleted_is_read_on(tmp_path):
    source = rows_of(on_disk("memory map", tmp_path))
    (tmp_path / "X.npy").unlink()
    np.testing.assert_array_equal(source[:], X)


def test_changes_to_a_private_map_stay(tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((70_000, 64), np.float32))
    private = np.load(tmp_path / "X.npy", mmap_mode="c")
    private[7] = 1
    for _ in rows_of(private).blocks():
        pass
    assert private[7].sum() == 64


def test_an_infinite_sum_of_finite_numbers_passes():
    huge = np.full((4, 5), 3e38, np.float32)
    assert len(list(rows_of([huge]).blocks())) == 1


def test_blocks_are_of_bounded_size():
    assert rows_a_block(64, np.float32) == 65_536
    assert rows_a_block(1, np.float32) == 65_536
    assert rows_a_block(1000, np.float64) == 2048
    assert rows_a_block(10**6, np.float64) == 512
