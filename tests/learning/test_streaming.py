"""Learning from and encoding rows on disk and in blocks: what arrays in memory give, little memory, nothing lost."""

import errno
import os
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from stored import KINDS, Watched, stored

from sparseshare import progress
from sparseshare.coding import open_codes, sparse_encode
from sparseshare.learning import KSVD, DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder, order
from sparseshare.sources import BlockError
from sparseshare.sources import blocks as blocks_of_rows

X = np.random.default_rng(0).standard_normal((1500, 8)).astype(np.float32)
ATOMS = np.random.default_rng(1).standard_normal((12, 8)).astype(np.float32)
COUNT = {"tol": 0, "random_state": 0}
LEARNERS = {
    "mini-batch": MiniBatchDictionaryLearning(12, alpha=0.3, max_iter=2, batch_size=48, **COUNT),
    "in order": MiniBatchDictionaryLearning(12, alpha=0.3, max_iter=1, shuffle=False, dict_init="svd", **COUNT),
    "coder": SparseCoder(n_components=12, alpha=0.3, max_iter=1, dict_init="k-means++", **COUNT),
    "batch": DictionaryLearning(12, alpha=0.3, max_iter=3, **COUNT),
    "K-SVD": KSVD(12, n_nonzero_coefs=2, max_iter=3, **COUNT),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(blocks_of_rows, "_MOST", 512)
    monkeypatch.setattr(order, "_WINDOW_BYTES", 32 * 64)
    monkeypatch.setattr(order, "_GROUP_BYTES", 32 * 400)


@pytest.fixture(params=KINDS)
def on_disk(request, tmp_path):
    return stored(request.param, X, tmp_path, rows=300)


def blocks(size=100):
    return (X[start : start + size] for start in range(0, len(X), size))


@pytest.mark.parametrize("name", LEARNERS)
def test_rows_on_disk_give_what_rows_in_memory_give(name, on_disk):
    learner = LEARNERS[name]
    atoms, codes, score = learner.fit(X).components_, learner.transform(X), learner.score(X)
    np.testing.assert_array_equal(learner.fit(on_disk).components_, atoms)
    np.testing.assert_array_equal(learner.transform(on_disk), codes)
    assert learner.score(on_disk) == pytest.approx(score, abs=1e-6)


def test_codes_of_rows_on_disk(on_disk):
    expected, options = sparse_encode(X, ATOMS, alpha=0.5), {"alpha": np.full(len(X), 0.5), "return_info": True}
    codes, info = sparse_encode(on_disk, ATOMS, **options, sparse_output=True)
    np.testing.assert_array_equal(codes.toarray(), expected)
    np.testing.assert_array_equal(info["gap"], sparse_encode(X, ATOMS, **options)[1]["gap"])
    np.testing.assert_array_equal(sparse_encode(on_disk, ATOMS, alpha=0.5, init=expected), sparse_encode(
        X, ATOMS, alpha=0.5, init=expected))  # fmt: skip


def test_a_mask_goes_along_with_its_rows(tmp_path):
    mask = np.random.default_rng(0).random(X.shape) < 0.2
    missing = np.where(mask, np.float32(np.nan), X)
    expected = sparse_encode(X, ATOMS, mask=mask, alpha=0.5)
    for given, own in ((X, mask), (missing, "nan")):
        np.save(tmp_path / "X.npy", given)
        codes = sparse_encode(np.load(tmp_path / "X.npy", mmap_mode="r"), ATOMS, mask=own, alpha=0.5)
        np.testing.assert_array_equal(codes, expected)
    own = stored("hdf5", mask, tmp_path, "mask")
    np.testing.assert_array_equal(sparse_encode(Watched(X), ATOMS, mask=own, alpha=0.5), expected)
    np.testing.assert_array_equal(sparse_encode([missing[:9], missing[9:]], ATOMS, mask="nan", alpha=0.5), expected)


def test_every_row_comes_once_an_epoch():
    for n_samples, batch_size in ((1500, 48), (1500, 64), (399, 64), (401, 7), (64, 100), (800, 400), (1, 1)):
        epoch = order.BatchOrder(n_samples, batch_size, 32, np.random.RandomState(0))
        batches = list(epoch)
        np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(n_samples))
        assert {len(rows) for rows in batches[:-1]} <= {batch_size}
        for number in range(0, len(batches), 5):
            rest = epoch[number:]
            assert len(rest) == len(batches) - number
            read = []
            for windows, own in rest.groups():
                rows = np.concatenate([np.arange(window.start, window.stop) for window in windows])
                read += [rows[positions] for positions in own]
            assert all(map(np.array_equal, read, batches[number:])) and len(read) == len(rest)


def test_blocks_are_learned_from_in_order():
    learner = LEARNERS["in order"].set_params(dict_init=ATOMS)
    atoms = learner.fit(X).components_
    np.testing.assert_array_equal(learner.fit(blocks()).components_, atoms)
    np.testing.assert_array_equal(learner.fit([X[:3], csr_array(X[3:])]).components_, atoms)
    learner.set_params(dict_init="svd")


@pytest.mark.parametrize("name", ["batch", "K-SVD"])
def test_what_can_be_iterated_again_is_gone_through_again(name):
    class Again:
        def __iter__(self):
            return blocks()

    learner = clone(LEARNERS[name]).set_params(dict_init=ATOMS)
    atoms = learner.fit(X).components_
    for given in (list(blocks()), Again()):
        np.testing.assert_array_equal(learner.fit(given).components_, atoms)


def test_an_iterator_is_good_for_one_epoch():
    learner = MiniBatchDictionaryLearning(12, alpha=0.3, max_iter=5, max_no_improvement=None, **COUNT)
    with pytest.warns(ConvergenceWarning, match="used up the iterator of blocks after 1 of at most max_iter=5 epochs"):
        learner.fit(blocks())
    assert learner.n_iter_ == 1 and learner.n_steps_ == 6
    assert learner.score(blocks()) == pytest.approx(learner.score(X), abs=1e-6)
    used = blocks()
    list(used)
    with pytest.raises(ValueError, match="used up"):
        learner.fit(used)
    for name in ("batch", "K-SVD"):
        with pytest.raises(ValueError, match="an iterator gives its blocks only once"):
            LEARNERS[name].fit(blocks())


def test_a_stop_is_found_without_knowing_how_many_there_are():
    learner = MiniBatchDictionaryLearning(12, alpha=0.3, batch_size=5, tol=10.0, random_state=0).fit(blocks())
    assert learner.converged_ and learner.n_steps_ == 101


def test_partial_fit_takes_a_step_a_block():
    one, other = (MiniBatchDictionaryLearning(12, alpha=0.3, dict_init=ATOMS) for _ in range(2))
    for block in blocks():
        one.partial_fit(block)
    np.testing.assert_array_equal(other.partial_fit(blocks()).components_, one.components_)
    assert other.n_steps_ == 15 and other.loss_curve_ == one.loss_curve_


def outputs(folder):
    zarr, h5py = pytest.importorskip("zarr"), pytest.importorskip("h5py")
    yield np.lib.format.open_memmap(folder / "codes.npy", "w+", np.float32, (len(X), 12))
    yield zarr.open(folder / "codes.zarr", mode="w", shape=(len(X), 12), chunks=(512, 12), dtype="f4")
    yield h5py.File(folder / "codes.h5", "w").create_dataset("codes", (len(X), 12), "f4")


def test_codes_go_where_they_are_wanted(tmp_path):
    coder = SparseCoder(ATOMS, alpha=0.5)
    expected = coder.transform(X)
    for number, out in enumerate(outputs(tmp_path)):
        for given in (X, csr_array(X), blocks()):
            out[:] = 7
            assert coder.transform(given, out=out) is out
            np.testing.assert_array_equal(out[:], expected)
        folder = tmp_path / str(number)
        codes = coder.transform(X if number else blocks(), out=folder if number else str(folder))
        assert codes.complete and codes.shape == expected.shape
        np.testing.assert_array_equal(codes[:].toarray(), expected)
    both = SparseCoder(ATOMS, alpha=0.5, split_sign=True)
    np.testing.assert_array_equal(both.transform(X, out=tmp_path / "both")[5:700].toarray(), both.transform(X)[5:700])


def test_codes_in_a_folder_are_rows_again(tmp_path):
    coder = SparseCoder(ATOMS, alpha=0.5)
    codes = coder.transform(X, out=tmp_path)
    np.testing.assert_allclose(sparse_encode(codes, np.eye(12), alpha=0, tol=0), codes[:].toarray(), atol=1e-5)


def test_a_bad_block_loses_nothing_that_was_written(tmp_path):
    bad, coder = X.copy(), SparseCoder(ATOMS, alpha=0.5)
    bad[1100, 3] = np.nan
    np.save(tmp_path / "X.npy", bad)
    mapped, expected = np.load(tmp_path / "X.npy", mmap_mode="r"), coder.transform(X)
    out = np.lib.format.open_memmap(tmp_path / "codes.npy", "w+", np.float32, expected.shape)
    message = r"block 2 \(rows 1024 to 1499\) of X contains NaN or infinity, first in row 1100"
    for given, where in ((mapped, out), (bad, tmp_path / "codes")):
        with pytest.raises(BlockError, match=message):
            coder.transform(given, out=where)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy")[:1024], expected[:1024])
    saved = open_codes(tmp_path / "codes")
    assert not saved.complete and saved.shape == (1024, 12)
    np.testing.assert_array_equal(saved[:].toarray(), expected[:1024])
    with pytest.raises(BlockError, match=r"block 2 \(rows 1024 to 1279\) of X contains NaN"):
        MiniBatchDictionaryLearning(12, max_iter=1, dict_init=ATOMS, shuffle=False).fit(mapped)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_names_a_bad_block_on_disk(name, tmp_path):
    bad, learner = X.copy(), clone(LEARNERS[name])
    bad[1100, 3] = np.inf
    np.save(tmp_path / "X.npy", bad)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    message = r"block \d \(rows \d+ to \d+\) of X contains NaN or infinity, first in row 1100"
    with pytest.raises(BlockError, match=message):
        learner.fit(mapped)
    learner.fit(X)
    for use in (learner.transform, learner.score, *([learner.partial_fit] if hasattr(learner, "partial_fit") else [])):
        with pytest.raises(BlockError, match=message):
            use(mapped)


def nan(block):
    block[1, 2] = np.nan
    return block


def unreadable(block):
    raise OSError("the cable is out")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan, r"block 731 \(rows 1462 to 1463\) of X contains NaN or infinity, first in row 1463"),
        (lambda block: block[:, :7], r"block 731 \(rows 1462 to 1463\) of X has 7 columns, those before it have 8"),
        (lambda block: block.astype(float), "block 731 .* has dtype float64, those before it have float32"),
        (unreadable, "block 731 of X, whose rows begin at 1462, could not be read: OSError: the cable is out"),
    ],
    ids=["nan", "width", "dtype", "cable"],
)
def test_a_bad_one_of_many_blocks_is_named_and_the_codes_before_it_stay(spoil, message, tmp_path):
    coder = SparseCoder(ATOMS, alpha=0.5)

    def spoilt():
        return (spoil(rows.copy()) if number == 731 else rows for number, rows in enumerate(blocks(2)))

    learner = MiniBatchDictionaryLearning(12, max_iter=1, dict_init=ATOMS)
    for use in (learner.fit, learner.partial_fit, coder.score, lambda X: coder.transform(X, out=tmp_path)):
        with pytest.raises(BlockError, match=message) as caught:
            use(spoilt())
        assert caught.value.block == 731
    saved = open_codes(tmp_path)
    assert not saved.complete
    np.testing.assert_array_equal(saved[:].toarray(), coder.transform(X[:1024]))
    assert coder.transform(blocks(2), out=tmp_path).complete  # the rest


def test_a_file_that_ends_too_early_is_named_with_its_block_and_the_codes_before_it_stay(tmp_path):
    class Torn:
        shape, dtype = X.shape, X.dtype

        def __getitem__(self, rows):
            if rows.stop > 1200:
                raise OSError("file truncated")
            return X[rows]

    coder, message = (
        SparseCoder(ATOMS, alpha=0.5),
        r"block 2 \(rows 1024 to 1499\) of X could not be read: OSError: file",
    )
    out, expected = np.zeros((len(X), 12), np.float32), coder.transform(X)
    with pytest.raises(BlockError, match=message):
        coder.transform(Torn(), out=out)
    np.testing.assert_array_equal(out[:1024], expected[:1024])
    for use in (clone(LEARNERS["batch"]).fit, lambda rows: coder.transform(rows, out=tmp_path)):
        with pytest.raises(BlockError, match=r"block \d .* of X could not be read: OSError: file truncated"):
            use(Torn())


def test_an_out_that_is_cut_is_an_error_and_no_crash(tmp_path):
    out = np.lib.format.open_memmap(tmp_path / "codes.npy", "w+", np.float32, (len(X), 12))

    def cutting():
        yield X[:100]
        os.truncate(tmp_path / "codes.npy", 1000)  # before any codes are on their way there
        yield X[100:]

    with pytest.raises(OSError, match=r"codes of block 0 .* has been cut to 1000 bytes.*; none have been written"):
        SparseCoder(ATOMS, alpha=0.5).transform(cutting(), out=out)


@contextmanager
def files_of_at_most(size):
    """Files that cannot grow further, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_no_piece(tmp_path):
    coder, signals = SparseCoder(ATOMS, alpha=0.5), X.copy()
    signals[:1024] *= 0.1  # few non-zeros: two small pieces, and a large one
    expected = coder.transform(signals, out=tmp_path / "whole")[:].toarray()
    size = (tmp_path / "whole" / "codes-000002.npz").stat().st_size
    with files_of_at_most(size - 1), pytest.raises(OSError, match=r"piece 2 of the codes failed .*the 2 before stay"):
        coder.transform(signals, out=tmp_path / "cut")
    assert sorted(file.name for file in (tmp_path / "cut").iterdir()) == [
        "codes-000000.npz", "codes-000001.npz", "codes.json",
    ]  # fmt: skip
    np.testing.assert_array_equal(open_codes(tmp_path / "cut")[:].toarray(), expected[:1024])
    codes = coder.transform(signals, out=tmp_path / "cut")
    assert codes.complete
    np.testing.assert_array_equal(codes[:].toarray(), expected)


def test_room_for_a_mapped_out_is_taken_at_the_beginning(tmp_path, monkeypatch):
    coder, file = SparseCoder(ATOMS, alpha=0.5), tmp_path / "codes.npy"
    out = np.lib.format.open_memmap(file, "w+", np.float32, (len(X), 12))

    def full(descriptor, first, size):
        assert first == 0 and size == file.stat().st_size
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"no room for the 72128 bytes of the file \(No space left .*codes\.npy"):
        coder.transform(X, out=out)
    monkeypatch.undo()
    np.testing.assert_array_equal(coder.transform(X, out=out), coder.transform(X))


def test_an_out_that_fails_names_the_block():
    class Full(np.ndarray):
        def __setitem__(self, rows, codes):
            if rows.start:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().__setitem__(rows, codes)

    coder, out = SparseCoder(ATOMS, alpha=0.5), np.zeros((len(X), 12), np.float32).view(Full)
    with pytest.raises(
        OSError, match=r"codes of block 1 \(rows 512 to 1023\) failed .*No space left.* rows 0 to 511 have been written"
    ):
        coder.transform(X, out=out)
    np.testing.assert_array_equal(out[:512], coder.transform(X)[:512])


def test_an_interrupted_run_goes_on_after_the_last_piece(tmp_path):
    coder, asked = SparseCoder(ATOMS, alpha=0.5), []

    def interrupted(stop):
        for number, block in enumerate(blocks(512)):
            if number == stop:
                raise KeyboardInterrupt
            asked.append(number)
            yield block

    with pytest.raises((KeyboardInterrupt, BlockError)):
        coder.transform(interrupted(1), out=tmp_path)
    first = (tmp_path / "codes-000000.npz").stat().st_mtime_ns
    (tmp_path / "codes-000001.npz.partial").write_bytes(b"what a kill leaves")
    codes = coder.transform(blocks(512), out=tmp_path)
    assert codes.complete and (tmp_path / "codes-000000.npz").stat().st_mtime_ns == first
    np.testing.assert_array_equal(codes[:].toarray(), coder.transform(X))
    (tmp_path / "codes-000001.npz").unlink()
    assert open_codes(tmp_path).shape == (512, 12) and not open_codes(tmp_path).complete
    assert coder.transform(blocks(512), out=tmp_path).complete


def test_a_folder_of_other_codes_is_refused(tmp_path):
    coder = SparseCoder(ATOMS, alpha=0.5)
    coder.transform(X, out=tmp_path)
    for other, rows in ((SparseCoder(ATOMS, alpha=0.6), X), (SparseCoder(-ATOMS, alpha=0.5), X), (coder, X[1:])):
        with pytest.raises(ValueError, match="codes of another run"):
            other.transform(rows, out=tmp_path)
    (tmp_path / "codes-000001.npz").write_bytes(b"PK\3\4 cut")
    with pytest.raises(BlockError, match=r"codes-000001.npz is no whole piece"):
        open_codes(tmp_path)[:]
    (tmp_path / "codes.json").write_text("{}")
    with pytest.raises(ValueError, match="was not written by transform"):
        open_codes(tmp_path)
    (tmp_path / "codes.json").unlink()
    with pytest.raises(ValueError, match="holds pieces of codes, but no codes.json"):
        coder.transform(X, out=tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no codes"):
        open_codes(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (7, "out must be the path of a folder, or an array"),
        (np.zeros((1500, 11)), r"out must have the shape \(1500, 12\), got \(1500, 11\)"),
        (np.zeros((10, 12)), r"out must have the shape \(1500, 12\)"),
        (np.zeros((1500, 12), int), "floating-point"),
        (np.broadcast_to(np.float32(0), (1500, 12)), "read-only"),
    ],
)
def test_an_out_that_does_not_suit_is_refused(out, message):
    with pytest.raises(ValueError, match=message):
        SparseCoder(ATOMS, alpha=0.5).transform(X, out=out)


@pytest.mark.parametrize("n_rows", [1400, 1600])
def test_an_out_of_another_length_than_the_blocks_is_refused(n_rows):
    with pytest.raises(ValueError, match=f"out has {n_rows} rows, X has"):
        SparseCoder(ATOMS, alpha=0.5).transform(blocks(), out=np.zeros((n_rows, 12)))


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match="8"):
        SparseCoder(ATOMS, alpha=0.5).transform([X[:, :7]])
    with pytest.raises(ValueError, match="8"):
        LEARNERS["mini-batch"].fit(X).transform([X[:, :7]])


def test_codes_that_miss_the_goal_are_counted(tmp_path):
    coder = SparseCoder(ATOMS, transform_algorithm="ista", alpha=0.01, transform_max_iter=1)
    with pytest.warns(ConvergenceWarning, match="of 1500 codes have not converged"):
        coder.transform(X, out=tmp_path)


def test_lines_say_how_far_it_is(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    coder = SparseCoder(ATOMS, alpha=0.5, verbose=1)
    coder.transform(X, out=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("[SparseCoder] 512 of 1500 signals, ") and lines[0].endswith(" s left")
    assert lines[2].startswith("[SparseCoder] 1500 signals, ")
    MiniBatchDictionaryLearning(12, max_iter=1, batch_size=500, verbose=1).fit(blocks())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[MiniBatchDictionaryLearning] 500 signals, ") and "epoch 1/1" in lines[-1]


def test_durations_are_in_words():
    for seconds, words in ((0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")):
        assert progress.duration(seconds) == words


def test_only_a_few_blocks_are_held():
    coder, size = SparseCoder(ATOMS, alpha=0.5, transform_algorithm="threshold"), 5_000

    def many(n_blocks):
        rng = np.random.default_rng(0)
        return (rng.random((size, 8), np.float32) for _ in range(n_blocks))

    class Out:
        dtype = np.dtype(np.float32)

        def __init__(self, n_blocks):
            self.shape = n_blocks * size, 12

        def __setitem__(self, rows, codes):
            assert codes.shape == (rows.stop - rows.start, 12)

    coder.transform(many(1), out=Out(1))
    peaks = []
    for n_blocks in (3, 12):
        tracemalloc.start()
        coder.transform(many(n_blocks), out=Out(n_blocks))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 4e6 and peaks[1] < peaks[0] + 1e6


PROGRAM = """
import sys
from pathlib import Path

import numpy as np

from sparseshare import MiniBatchDictionaryLearning
from sparseshare.learning import order
from sparseshare.sources import blocks

blocks._MOST, order._GROUP_BYTES = 8192, 2**22  # pieces of 2 and 4 MB
folder = Path(sys.argv[1])
learner = MiniBatchDictionaryLearning(
    16, alpha=1.0, batch_size=4096, max_iter=1, tol=0, max_no_improvement=None, random_state=0,
    fit_algorithm="threshold",
)
for n_rows in (10_000, 60_000, 300_000):  # the first one loads and compiles; the others have 15 and 77 MB
    rows = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (n_rows, 64))
    rows[:] = np.random.default_rng(0).standard_normal(64)
    rows.flush()
    del rows
    X = np.load(folder / "X.npy", mmap_mode="r")
    out = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.float32, (n_rows, 16))
    Path("/proc/self/clear_refs").write_text("5")
    learner.fit(X).transform(X, out=folder / str(n_rows))
    learner.transform(X, out=out)
    learner.score(X)
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))
    del X, out
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux to reset the peak")
def test_resident_memory_does_not_grow_with_the_file(tmp_path):
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stderr
    _, small, large = map(float, result.stdout.split())
    assert large < small + 25  # pages that stay, or a copy, are 61 MB
