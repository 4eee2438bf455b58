"""Maps and pooled rows written to arrays as they are made: those that fit in memory, few at once, nothing lost."""

import errno
import weakref
from threading import Event

import numpy as np
import pytest
from convolution.test_coder import FORMS, problem
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from stored import KINDS, stored

from sparseshare.convolution import ConvDictionaryLearning, ConvSparseCoder, encoder, layout
from sparseshare.convolution.turns import in_turn
from sparseshare.sources import BlockError


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(layout, "_PIECE_BYTES", 1)  # a signal each


def same_bits(one, other):
    assert one.dtype == other.dtype
    assert_array_equal(one.view(np.int64), other.view(np.int64))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_is_returned(kind, rng, tmp_path):
    for number, (form, options) in enumerate(
        [(FORMS[0], {}), (FORMS[2], {}), (FORMS[1], {"solver": "fista", "tol": 0.1})]
    ):
        X, atoms = problem(rng, 2, form, 4)
        coder = ConvSparseCoder(atoms, alpha=2.0, split_sign=True, **options)
        given, maps, rows = stored(kind, X, tmp_path, f"X{number}", 3), coder.encode(X), coder.transform(X)
        for expected, method in ((maps, coder.encode), (rows, coder.transform)):
            disk = stored(kind, np.zeros(expected.shape), tmp_path, f"{method.__name__}{number}", 2)
            if kind == "memory map":
                disk = np.load(disk.filename, mmap_mode="r+")
            assert method(given, out=disk) is disk
            same_bits(disk[:], expected)
            plain = np.zeros(expected.shape)
            same_bits(method(X, out=plain), expected)
        assert coder.score(given) == coder.score(X)


def test_pieces_and_threads_do_not_show(rng, monkeypatch):
    X, atoms = problem(rng, n_samples=9)
    coder = ConvSparseCoder(atoms, alpha=1.0)
    maps, rows = coder.encode(X), coder.transform(X)
    for n_jobs, size in ((1, 1), (2, 1), (3, 2 * maps[0].nbytes), (2, 2**20), (12, 1)):
        monkeypatch.setattr(layout, "_PIECE_BYTES", size)
        coder.set_params(n_jobs=n_jobs)
        same_bits(coder.encode(X, out=np.zeros(maps.shape)), maps)
        same_bits(coder.transform(X, out=np.zeros(rows.shape)), rows)
    float32 = np.zeros(maps.shape, np.float32)
    assert_array_equal(coder.encode(X, out=float32), maps.astype(np.float32))


def test_rows_of_signals_of_different_sizes(rng):
    atoms = rng.standard_normal((3, 3, 2))
    images = [rng.standard_normal(shape) for shape in [(8, 9), (5, 12), (8, 9)]]
    coder = ConvSparseCoder(atoms, alpha=0.5)
    rows = coder.transform(images)
    same_bits(coder.transform(images, out=np.zeros(rows.shape)), rows)
    with pytest.raises(ValueError, match="out takes maps of one shape, but X is a list of signals of different ones"):
        coder.encode(images, out=np.zeros((3, 3, 8, 9)))
    alike = images[::2]
    same_bits(coder.encode(alike, out=np.zeros((2, 3, 8, 9))), coder.encode(alike))


def test_what_was_learned_can_be_written(rng):
    X, _ = problem(rng, n_samples=4)
    learner = ConvDictionaryLearning(3, (3, 2), alpha=0.5, max_iter=1, tol=0, random_state=0).fit(X)
    same_bits(learner.encode(X, out=np.zeros((4, 3, 8, 9))), learner.encode(X))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_on_disk(kind, rng, tmp_path):
    X, atoms = problem(rng, n_samples=5)
    missing, coder = rng.random(X.shape) < 0.3, ConvSparseCoder(atoms, alpha=0.5)
    expected, mask = coder.encode(X, mask=missing), stored(kind, missing, tmp_path, "mask", 2)
    same_bits(coder.encode(X, mask=mask), expected)
    given = stored(kind, np.where(missing, np.nan, X), tmp_path, "X", 2)
    for own in (mask, missing, "nan"):
        same_bits(coder.encode(given, mask=own, out=np.zeros(expected.shape)), expected)
    rows = stored(kind, missing.reshape(5, -1), tmp_path, "rows", 2)
    coder.set_params(image_shape=X.shape[1:])
    same_bits(coder.encode(X.reshape(5, -1), mask=rows), expected)
    with pytest.raises(ValueError, match="mask must be 'nan' or a boolean array of X's shape"):
        coder.encode(X, mask=stored(kind, missing[:4], tmp_path, "short", 2))


class Watched:
    """Signals that are not in memory, which fail if they are read one at a time no more, or begun too early."""

    def __init__(self, array, out=None):
        self._array, self.shape, self.dtype, self.out = array, array.shape, array.dtype, out
        self.times, self.lead = np.zeros(len(array), int), 0

    def __getitem__(self, key):
        assert key.stop - key.start == 1
        self.times[key] += 1
        if self.out is not None and self.times[key] > 1:  # once to check them all
            self.lead = max(self.lead, key.stop - self.out.n_written)
        return self._array[key].copy()


class Written:
    dtype = np.dtype(float)

    def __init__(self, shape):
        self.shape, self.n_written = shape, 0

    def __setitem__(self, rows, values):
        assert values.shape == (rows.stop - rows.start, *self.shape[1:])
        self.n_written = rows.stop


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_only_the_maps_of_a_few_signals_are_held(n_jobs, rng, monkeypatch):
    X, atoms = problem(rng, n_samples=40)
    held, most, solve = [], [], encoder.Encoder._solve

    def watched_solve(*arguments):
        most.append(sum(maps() is not None for maps in list(held)))
        solution = solve(*arguments)
        held.append(weakref.ref(solution.maps))
        return solution

    monkeypatch.setattr(encoder.Encoder, "_solve", watched_solve)
    coder = ConvSparseCoder(atoms, alpha=0.5, n_jobs=n_jobs)
    for use, shape in ((coder.encode, (40, 3, 8, 9)), (coder.transform, (40, 12))):
        out = Written(shape)
        signals = Watched(X, out)
        use(signals, out=out)
        # In work or waiting for their turn, and two pieces: the one that is written and the one that comes next.
        assert out.n_written == 40 and signals.lead <= 2 * n_jobs + 2
        assert signals.times[1:].max() == 2  # checked, coded
    assert max(most) <= 2 * n_jobs + 2
    most.clear()
    coder.transform(Watched(X))
    coder.score(Watched(X))
    assert max(most) <= n_jobs


def test_maps_that_do_not_fit_in_memory_can_be_written(rng, monkeypatch):
    X, atoms = problem(rng, n_samples=40)
    coder = ConvSparseCoder(atoms, alpha=2.0, n_jobs=1)
    expected = coder.encode(X)
    monkeypatch.setattr(encoder, "available_memory", lambda: 6 * expected[0].nbytes)
    with pytest.raises(MemoryError, match="of it for dense codes"):
        coder.encode(X)
    same_bits(coder.encode(X, out=np.zeros(expected.shape)), expected)


@pytest.mark.parametrize(
    ("options", "out", "message"),
    [
        ({}, np.zeros((3, 3, 8, 8)), r"out must have the shape \(3, 3, 8, 9\), got \(3, 3, 8, 8\)"),
        ({}, np.zeros((2, 3, 8, 9)), r"out must have the shape \(3, 3, 8, 9\), got \(2, 3, 8, 9\)"),
        ({"boundary": "full"}, np.zeros((3, 3, 8, 9)), r"out must have the shape \(3, 3, 6, 8\)"),
        ({}, np.zeros((3, 3, 8, 9), int), "out must hold floating-point numbers, got dtype int64"),
        ({}, np.broadcast_to(0.0, (3, 3, 8, 9)), "out is read-only"),
        ({}, "maps", "out must be an array with a shape and a dtype .* maps .*, got str without shape, dtype"),
        ({"sparse_output": True}, np.zeros((3, 3, 8, 9)), "out takes dense maps, and sparse_output=True"),
    ],
)
def test_an_out_that_does_not_suit_is_refused(options, out, message, rng):
    X, atoms = problem(rng)
    with pytest.raises(ValueError, match=message):
        ConvSparseCoder(atoms, alpha=0.5, **options).encode(X, out=out)
    if not options:
        with pytest.raises(ValueError, match=r"\(3, 12\)|floating|features"):
            ConvSparseCoder(atoms, alpha=0.5).transform(X, out=out)


def test_nan_is_named_before_anything_is_written(rng):
    X, atoms = problem(rng, n_samples=9)
    X[7, 2, 3] = np.nan
    out = Written((9, 3, 8, 9))
    with pytest.raises(ValueError, match="signal 7 contains NaN or infinity"):
        ConvSparseCoder(atoms).encode(Watched(X), out=out)
    assert out.n_written == 0


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_a_signal_that_cannot_be_read_loses_none_before_it(n_jobs, rng):
    X, atoms = problem(rng, n_samples=9)

    class Torn(Watched):
        def __getitem__(self, key):
            if key.start == 7 and self.times[7]:
                raise OSError("file truncated")
            return super().__getitem__(key)

    coder = ConvSparseCoder(atoms, alpha=0.5, n_jobs=n_jobs)
    expected, out = coder.encode(X), np.full((9, 3, 8, 9), np.nan)
    with pytest.raises(BlockError, match="rows 7 to 7 of X could not be read: OSError: file truncated"):
        coder.encode(Torn(X), out=out)
    same_bits(out[:7], expected[:7])
    assert np.isnan(out[7:]).all()
    for use in (coder.transform, coder.score):
        with pytest.raises(BlockError, match="rows 7 to 7 of X could not be read"):
            use(Torn(X))


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_an_out_that_fails_ends_the_work(n_jobs, rng):
    class Full(np.ndarray):
        def __setitem__(self, rows, maps):
            if rows.start == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().__setitem__(rows, maps)

    X, atoms = problem(rng, n_samples=30)
    coder, signals = ConvSparseCoder(atoms, alpha=0.5, n_jobs=n_jobs), Watched(X)
    out = np.zeros((30, 3, 8, 9)).view(Full)
    with pytest.raises(OSError, match=r"maps of block 2 \(rows 2 to 2\) failed .* those of rows 0 to 1 have been"):
        coder.encode(signals, out=out)
    same_bits(np.asarray(out[:2]), coder.encode(X[:2]))
    assert signals.times[20:].max() == 1


def test_warnings(rng):
    X, atoms = problem(rng)
    with pytest.warns(ConvergenceWarning, match="3 of 3 codes have not converged") as caught:
        ConvSparseCoder(atoms, alpha=1e-3, solver="fista", max_iter=1).encode(X, out=np.zeros((3, 3, 8, 9)))
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="all codes are zero: alpha=1e[+]09"):
        assert not ConvSparseCoder(atoms, alpha=1e9).transform(X, out=np.ones((3, 12))).any()


# ------------------------------------------------------------------------------------------------ results in their turn
@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_results_come_in_their_turn(n_threads):
    begun, taken = [], []

    def work(item, _):
        begun.append(item - len(taken))
        return -item

    for result in in_turn(work, 200, n_threads):
        taken.append(result)
    assert taken == [-item for item in range(200)]
    assert max(begun) <= 2 * n_threads
    assert list(in_turn(work, 0, n_threads)) == []


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_an_error_has_its_turn(n_threads):
    def work(item, _):
        if item == 7:
            raise RuntimeError("the seventh")
        return item

    taken = []
    with pytest.raises(RuntimeError, match="the seventh"):
        taken.extend(in_turn(work, 100, n_threads))
    assert taken == list(range(7))


def test_an_error_comes_while_threads_wait_for_room():
    done, others = [], Event()

    def work(item, _):
        if item == 0:
            assert others.wait(60)
            raise RuntimeError("the first")
        done.append(item)
        if len(done) == 3:  # there is no room for more
            others.set()

    with pytest.raises(RuntimeError, match="the first"):
        next(in_turn(work, 100, 2))
    assert sorted(done) == [1, 2, 3]


def test_nothing_is_begun_for_nobody():
    begun = []
    results = in_turn(lambda item, _: begun.append(item), 1000, 2)
    next(results)
    results.close()
    assert len(begun) <= 5
