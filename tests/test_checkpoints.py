"""Files of checkpoints: what they hold, what they refuse, and that a bad moment leaves the last good one."""

import copy
import inspect
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.sparse import csr_array
from sklearn.base import clone

import sparseshare
from sparseshare import MiniBatchDictionaryLearning, atomic, checkpoints
from sparseshare.checkpoints import Checkpoint, random_bits, resumed_random_state
from sparseshare.fingerprints import fingerprint

FINGERPRINT = {"alpha": "1", "X": "float64 of shape (3, 4)"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.npz"


def stored(path, state):
    writer = Checkpoint(path, every=0)
    writer.load(FINGERPRINT)
    writer.save(state)
    return Checkpoint(path).load(FINGERPRINT)


def assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for entry, its in zip(one, other, strict=True):
            assert_equal(entry, its)
    elif isinstance(one, csr_array):
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
        assert one.shape == other.shape
    else:
        np.testing.assert_array_equal(one, other, strict=True)


SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    arrays.arrays(
        st.sampled_from([np.float64, np.float32, np.int32, bool]), arrays.array_shapes(min_dims=0, min_side=0)
    ),
    st.floats(width=32).map(np.float32),
)
STATES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(value=STATES)
def test_what_goes_in_comes_out(tmp_path_factory, value):
    assert_equal(stored(tmp_path_factory.mktemp("state") / "state.npz", {"value": value}), {"value": value})


def test_sparse_arrays_random_states_and_memory_order(path, rng):
    codes = csr_array(rng.standard_normal((4, 5)) * (rng.random((4, 5)) < 0.4), dtype=np.float32)
    random_state = np.random.RandomState(3)
    random_state.standard_normal()  # which leaves one behind
    state = stored(
        path, dict(codes=codes, bits=random_bits(random_state), columns=np.asfortranarray(rng.random((3, 4))))
    )
    assert_equal(state["codes"], codes)
    assert state["columns"].flags.f_contiguous
    wanted = random_state.standard_normal(4)
    np.testing.assert_array_equal(
        resumed_random_state(np.random.RandomState(), state["bits"]).standard_normal(4), wanted
    )
    with pytest.raises(TypeError, match="cannot hold a set"):
        stored(path, {"value": {1, 2}})


def test_a_file_that_is_cut_anywhere_is_refused(path, rng):
    stored(path, dict(dictionary=rng.standard_normal((5, 6)), losses=[1.0, 0.5]))
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match="state.npz' is no checkpoint that sparseshare has written, or it is damaged"
        ):
            Checkpoint(path).load(FINGERPRINT)
    for place in range(40, len(whole), 101):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:  # some bytes, such as those of dates, mean nothing
            state = Checkpoint(path).load(FINGERPRINT)
        except ValueError as error:
            assert "damaged" in str(error) or "another fit" in str(error)
        else:
            assert state["losses"] == [1.0, 0.5]


def test_foreign_files_are_refused(path, rng):
    def arrays_of_another(file):
        np.savez(file, header=np.frombuffer(b'{"what": "notes"}', np.uint8))

    def pickled(file):
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)

    def archive(file):
        with zipfile.ZipFile(file, "w") as made:
            made.writestr("notes.txt", "mine")

    for write in (
        arrays_of_another, pickled, archive, lambda file: np.save(file, np.ones(3)), lambda file: file.write(b"mine"),
    ):  # fmt: skip
        with open(path, "wb") as file:
            write(file)
        before = path.read_bytes()
        with pytest.raises(ValueError, match="is no checkpoint"):
            Checkpoint(path).load(FINGERPRINT)
        assert path.read_bytes() == before


def test_another_version_is_refused(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "__version__", "0.0.9")
        stored(path, {})
    with pytest.raises(ValueError, match=r"written by sparseshare 0\.0\.9, this is"):
        Checkpoint(path).load(FINGERPRINT)


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_write_that_fails_keeps_the_last_good_one(path, monkeypatch, moment):
    writer = Checkpoint(path, every=0)
    writer.load(FINGERPRINT)

    def fails(*_):
        raise OSError(28, "No space left on device")

    owner = atomic._Sink if moment == "write" else os
    name = "finish" if moment == "write" else moment
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        with pytest.raises(OSError, match=r"No space left on device\); there is none yet.*state.npz"):
            writer.save({"n": 0})
    writer.save({"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        with pytest.raises(OSError, match=r"No space left on device\); the last good one is kept.*state.npz") as caught:
            writer.save({"n": 2})
    assert caught.value.errno == 28
    assert os.listdir(path.parent) == ["state.npz"]
    assert Checkpoint(path).load(FINGERPRINT) == {"n": 1}


@pytest.mark.skipif(os.name == "nt", reason="has no limits on files")
def test_a_file_that_may_not_grow(path):
    from resource import RLIMIT_FSIZE, getrlimit, setrlimit

    writer = Checkpoint(path, every=0)
    writer.load(FINGERPRINT)
    writer.save({"n": 1, "A": np.zeros(1000)})
    before = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="the last good one is kept"):
            writer.save({"n": 2, "A": np.zeros(10_000)})
    finally:
        setrlimit(RLIMIT_FSIZE, before)
    assert Checkpoint(path).load(FINGERPRINT)["n"] == 1
    assert os.listdir(path.parent) == ["state.npz"]


def test_unwritable_paths_are_told_at_the_beginning(tmp_path, path):
    for wrong, error in ((tmp_path, IsADirectoryError), (tmp_path / "no" / "state.npz", FileNotFoundError)):
        with pytest.raises(error, match=str(wrong)):
            Checkpoint(wrong).load(FINGERPRINT)
    path.write_text("no folder")
    with pytest.raises(OSError, match=r"state\.npz"):
        Checkpoint(path / "state.npz").load(FINGERPRINT)


def test_what_is_left_of_a_killed_write_does_no_harm(path):
    assert stored(path, {"n": 1}) == {"n": 1}
    (path.parent / "state.npz.partial").write_bytes(b"torn")
    assert Checkpoint(path).load(FINGERPRINT) == {"n": 1}
    assert stored(path, {"n": 2}) == {"n": 2}
    assert os.listdir(path.parent) == ["state.npz"]


def test_times(path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    writer = Checkpoint(path, every=60)
    writer.load(FINGERPRINT)
    assert not writer.due()
    now[0] += 60
    assert writer.due()
    replace = os.replace

    def slow(*names):
        now[0] += 30
        replace(*names)

    monkeypatch.setattr(os, "replace", slow)
    writer.save({})
    now[0] += 599
    assert not writer.due()  # writing takes a twentieth of the time at most
    now[0] += 1
    assert writer.due()


def test_as_a_parameter(path):
    learner = MiniBatchDictionaryLearning(checkpoint=Checkpoint(path, every=5))
    assert clone(learner).checkpoint == learner.checkpoint != Checkpoint(path, every=6)
    for copied in (copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))):
        assert copied.checkpoint == learner.checkpoint and hash(copied.checkpoint) == hash(learner.checkpoint)
    assert f"Checkpoint({str(path)!r}, every=5)" in repr(learner)
    for wrong in (3, "", None, b"state.npz"):
        with pytest.raises(ValueError, match="path of a checkpoint"):
            Checkpoint(wrong)
    for wrong in (-1, np.nan, "often"):
        with pytest.raises(ValueError, match="'every' parameter of Checkpoint"):
            Checkpoint(path, every=wrong)


def test_fingerprints(rng):
    X = rng.standard_normal((1000, 3))
    learner = MiniBatchDictionaryLearning(alpha=np.float64(0.5), dict_init=X[:4])
    same = MiniBatchDictionaryLearning(alpha=0.5, dict_init=X[:4].copy(), n_jobs=2, verbose=True, device="cpu")
    assert fingerprint(learner, X=X) == fingerprint(same, X=X.copy(order="F"))
    for other in (X[:, ::-1], X.astype(np.float32), np.concatenate([X[1:], X[:1]]), csr_array(X)):
        assert fingerprint(learner, X=X) != fingerprint(learner, X=other)
    assert fingerprint(learner, X=X) != fingerprint(clone(learner).set_params(dict_init=X[1:5]), X=X)


def test_whatever_learns_for_long_has_checkpoints():
    given = {
        name: inspect.signature(getattr(sparseshare, name)).parameters
        for name in sparseshare.__all__
        if hasattr(getattr(sparseshare, name), "fit")
    }
    learns = {name for name, has in given.items() if "random_state" in has and ("max_iter" in has or "learner" in has)}
    learns.remove("SparseImageEncoder")  # its documentation says why
    assert learns == {name for name, has in given.items() if "checkpoint" in has} and len(learns) > 10
