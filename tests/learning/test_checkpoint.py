"""A fit that was killed and started again ends with the bits of one that was not."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from learning.learners import learners, name_of
from scipy.sparse import csr_array
from sklearn.base import clone

from sparseshare.callbacks import EarlyStopping, LossMonitor
from sparseshare.checkpoints import Checkpoint
from sparseshare.learning import DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
FITTED = ("components_", "loss_curve_", "n_iter_", "converged_", "n_steps_", "error_")


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def X(rng):
    return rng.standard_normal((120, 3)) @ rng.standard_normal((3, 8)) + 0.3 * rng.standard_normal((120, 8))


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state.npz")


def killed_after(monkeypatch, n_saves):
    """Let a fit end right after so many checkpoints."""
    save, left = Checkpoint.save, [n_saves]

    def save_and_die(self, state):
        save(self, state)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", save_and_die)


def fit_with_deaths(learner, X, monkeypatch, every_saves=1, most=1000):
    """Fit clones of a learner, each of which dies after some checkpoints, until one comes to an end."""
    for deaths in range(most):
        with monkeypatch.context() as patch:
            killed_after(patch, every_saves)
            try:
                return clone(learner).fit(X), deaths
            except Killed:
                continue
    raise AssertionError("never came to an end")


def assert_same_bits(one, other):
    for name in FITTED:
        assert hasattr(one, name) == hasattr(other, name)
        if hasattr(one, name):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name, strict=True)
    if hasattr(one, "_memory"):
        assert one._memory["n_steps"] == other._memory["n_steps"]
        for name, value in one._memory["statistics"].items():
            np.testing.assert_array_equal(value, other._memory["statistics"][name], err_msg=name, strict=True)


@pytest.mark.parametrize("learner", learners(), ids=name_of)
@pytest.mark.parametrize("form", ["float64", "float32", "csr"])
@pytest.mark.parametrize("every_saves", [1, 3])
def test_killed_at_every_checkpoint(learner, form, every_saves, X, path, monkeypatch):
    X = csr_array(X) if form == "csr" else X.astype(form)
    whole = clone(learner).fit(X)
    resumed, deaths = fit_with_deaths(
        clone(learner).set_params(checkpoint=Checkpoint(path, every=0)), X, monkeypatch, every_saves
    )
    assert deaths >= (4 if every_saves == 1 else 1)
    assert_same_bits(resumed, whole)


@pytest.mark.parametrize(
    "parameters",
    [
        dict(fit_algorithm="omp", n_nonzero_coefs=2, dict_update="mod"),
        dict(shuffle=False),
        dict(tol=0, max_no_improvement=3, max_iter=50),
        dict(alpha=3.0, max_iter=12, tol=0),  # atoms die and are exchanged
        dict(dict_init="k-means++", batch_size=17, l1_ratio=0.7),
        dict(max_iter=0),
        dict(callback=lambda state: None),
    ],
    ids=lambda parameters: ", ".join(parameters) or "as they are",
)
def test_killed_in_batches(parameters, X, path, monkeypatch):
    learner = MiniBatchDictionaryLearning(
        **{**dict(n_components=12, alpha=0.3, max_iter=3, batch_size=16, random_state=0), **parameters}
    )
    whole = clone(learner).fit(X)
    learner.set_params(checkpoint=Checkpoint(path, every=0))
    assert_same_bits(fit_with_deaths(learner, X, monkeypatch, 2)[0], whole)


def test_killed_while_atoms_are_exchanged(X, path, monkeypatch):
    X = np.concatenate([X, np.zeros((40, 8))])
    learner = DictionaryLearning(30, alpha=1.5, max_iter=10, tol=0, random_state=0, dict_init=np.ones((30, 8)))
    whole = clone(learner).fit(X)
    learner.set_params(checkpoint=Checkpoint(path, every=0))
    assert_same_bits(fit_with_deaths(learner, X, monkeypatch)[0], whole)


class Again:
    """Blocks that can be iterated again and again; nobody knows how many rows there are."""

    def __init__(self, X):
        self.X = X

    def __iter__(self):
        return (self.X[start : start + 25] for start in range(0, len(self.X), 25))


@pytest.mark.parametrize("learner", learners(), ids=name_of)
def test_killed_while_blocks_come_again_and_again(learner, X, path, monkeypatch):
    whole = clone(learner).fit(Again(X))
    learner = clone(learner).set_params(checkpoint=Checkpoint(path, every=0))
    resumed, deaths = fit_with_deaths(learner, Again(X), monkeypatch, 2)
    assert deaths >= 2
    assert_same_bits(resumed, whole)
    with pytest.raises(ValueError, match="another fit: X was float64 .*, rows with digest"):
        clone(learner).fit(Again(X + 1))


def test_killed_while_a_list_of_blocks_is_learned_from(X, path, monkeypatch):
    learner = MiniBatchDictionaryLearning(6, alpha=0.3, max_iter=2, batch_size=16, tol=0, random_state=0)
    whole, blocks = clone(learner).fit(list(Again(X))), list(Again(X))
    learner.set_params(checkpoint=Checkpoint(path, every=0))
    assert_same_bits(fit_with_deaths(learner, blocks, monkeypatch, 2)[0], whole)
    with pytest.raises(ValueError, match=r"another fit: .*n_samples was '120', is '100'"):
        clone(learner).fit(blocks[:-1])
    with pytest.raises(ValueError, match="another fit: X was"):  # a change far behind is found in a list
        clone(learner).fit([*blocks[:-1], blocks[-1] + 1])


@pytest.mark.parametrize("max_iter", [1, 3])  # of an iterator there is but one epoch
def test_killed_while_an_iterator_is_learned_from(max_iter, X, path, monkeypatch):
    """A new iterator over the same blocks: those that were learned from before are passed over."""
    learner = MiniBatchDictionaryLearning(6, alpha=0.3, max_iter=max_iter, batch_size=16, tol=0, random_state=0)
    whole = clone(learner).fit(iter(Again(X)))
    learner.set_params(checkpoint=Checkpoint(path, every=0))
    deaths, resumed = 0, None
    while resumed is None:
        with monkeypatch.context() as patch:
            killed_after(patch, 1)
            try:
                resumed = clone(learner).fit(iter(Again(X)))
            except Killed:
                deaths += 1
    assert deaths == 9  # after each of the 8 batches, nobody knowing that one is the last, and at the end
    assert_same_bits(resumed, whole)
    assert resumed.n_iter_ == 1


def test_an_iterator_that_has_moved_on_is_refused(rng, path, monkeypatch):
    learner = MiniBatchDictionaryLearning(6, alpha=0.3, batch_size=500, checkpoint=Checkpoint(path, every=0))
    half_way = iter(Again(rng.standard_normal((2600, 8))))  # more than the first dictionary is made of
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 3)
        clone(learner).fit(half_way)
    with pytest.raises(ValueError, match="another fit: X was float64 of shape .* Give every fit a path of its own"):
        clone(learner).fit(half_way)
    for _ in half_way:
        pass
    with pytest.raises(ValueError, match="its iterator is used up: pass a new one"):
        clone(learner).fit(half_way)
    with pytest.raises(ValueError, match="DictionaryLearning goes through its signals again and again, an iterator"):
        DictionaryLearning(6, checkpoint=path).fit(iter([rng.standard_normal((9, 8))]))


@pytest.mark.parametrize("learner", learners(), ids=name_of)
def test_killed_at_other_moments(learner, X, path, monkeypatch):
    """Between checkpoints: what was learned since the last is learned again."""
    whole = clone(learner).fit(X)
    learner = clone(learner).set_params(checkpoint=Checkpoint(path, every=0))
    due = np.random.default_rng(1)
    monkeypatch.setattr(Checkpoint, "due", lambda self: due.random() < 0.4)
    for moment in (1, 2, 4, 5):

        def die(state, left=[moment]):  # noqa: B006
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        with contextlib.suppress(Killed):  # some end before
            clone(learner).set_params(callback=die).fit(X)
    assert_same_bits(clone(learner).fit(X), whole)


@pytest.mark.parametrize("learner", learners(), ids=name_of)
def test_a_finished_fit_is_not_made_again(learner, X, path, monkeypatch):
    learner = clone(learner).set_params(checkpoint=path)
    first = clone(learner).fit(X)
    monkeypatch.setattr(Checkpoint, "save", lambda self, state: pytest.fail("saved again"))
    monkeypatch.setattr("sparseshare.learning.batch.encode", lambda *_, **__: pytest.fail("coded"))
    monkeypatch.setattr("sparseshare.learning.stream.encode", lambda *_, **__: pytest.fail("coded"))
    monkeypatch.setattr("sparseshare.learning.ksvd.encode", lambda *_, **__: pytest.fail("coded"))
    assert_same_bits(clone(learner).fit(X), first)


@pytest.mark.parametrize("learner", learners(), ids=name_of)
def test_another_fit_is_refused_by_name(learner, X, path):
    learner = clone(learner).set_params(checkpoint=path).fit(X)
    learner.set_params(n_jobs=1, verbose=0, split_sign=True).fit(X)  # which change nothing
    with pytest.raises(ValueError, match=r"one of another fit: max_iter was \d, is 7"):
        clone(learner).set_params(max_iter=7).fit(X)
    with pytest.raises(
        ValueError, match=r"another fit: X was float64 of shape \(120, 8\).* is float64 of shape \(119, 8"
    ):
        clone(learner).fit(X[1:])
    other = X.copy()
    other[-1, 0] += 1
    with pytest.raises(ValueError, match="another fit: X was .*, rows with digest"):
        clone(learner).fit(other)
    with pytest.raises(ValueError, match="another fit: X was float64 .* is float32"):
        clone(learner).fit(X.astype(np.float32))


def test_the_first_dictionary_is_part_of_the_parameters(X, path):
    MiniBatchDictionaryLearning(dict_init=X[:5], max_iter=2, checkpoint=path).fit(X)
    MiniBatchDictionaryLearning(dict_init=X[:5].copy(), max_iter=2, checkpoint=path).fit(X)
    with pytest.raises(ValueError, match="another fit: dict_init was"):
        MiniBatchDictionaryLearning(dict_init=X[1:6], max_iter=2, checkpoint=path).fit(X)


def test_warm_starts_are_fits_of_their_own(X, path):
    learner = MiniBatchDictionaryLearning(6, max_iter=2, random_state=0, warm_start=True, checkpoint=path).fit(X)
    with pytest.raises(ValueError, match="another fit: components_ was None, is float64"):
        learner.fit(X)


def test_random_states(X, path, monkeypatch):
    """A RandomState goes on from where the fit left it; NumPy's global one is left alone."""
    learner = MiniBatchDictionaryLearning(6, alpha=0.3, max_iter=3, batch_size=16, tol=0, max_no_improvement=None)
    drawn = np.random.RandomState(7)
    whole = clone(learner).set_params(random_state=drawn).fit(X)
    wanted = whole.random_state.randint(1 << 30)
    learner.set_params(checkpoint=Checkpoint(path, every=0), random_state=np.random.RandomState(7))
    resumed, _ = fit_with_deaths(learner, X, monkeypatch, 2)
    assert_same_bits(resumed, whole)
    assert resumed.random_state.randint(1 << 30) == wanted
    os.remove(path)
    learner.set_params(random_state=None)
    everybodys = np.random.mtrand._rand
    everybodys.seed(7)
    whole = clone(learner).set_params(checkpoint=None).fit(X)
    everybodys.seed(7)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 5)
        clone(learner).fit(X)
    everybodys.seed(1)
    assert_same_bits(clone(learner).fit(X), whole)
    after = everybodys.randint(1 << 30)
    everybodys.seed(1)
    assert after == everybodys.randint(1 << 30)


@pytest.mark.parametrize("learner", learners(), ids=name_of)
def test_callbacks_hear_of_the_epochs_before(learner, X, path, monkeypatch):
    pytest.importorskip("sklearn.callback")
    whole = clone(learner).set_callbacks(EarlyStopping(patience=1, tol=0.05)).fit(X)
    learner = clone(learner).set_params(checkpoint=Checkpoint(path, every=0))
    for _ in range(1000):
        monitor = LossMonitor()
        resumed = clone(learner).set_callbacks(EarlyStopping(patience=1, tol=0.05), monitor)
        with monkeypatch.context() as patch:
            killed_after(patch, 1)
            try:
                resumed.fit(X)
                break
            except Killed:
                continue
    assert_same_bits(resumed, whole)
    assert monitor.loss_curve == whole.loss_curve_


def test_a_full_disk_keeps_the_last_good_one(X, path, monkeypatch):
    learner = MiniBatchDictionaryLearning(6, alpha=0.3, max_iter=3, batch_size=16, random_state=0)
    whole = clone(learner).fit(X)
    learner.set_params(checkpoint=Checkpoint(path, every=0))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 5)
        clone(learner).fit(X)
    good = Path(path).read_bytes()
    with monkeypatch.context() as patch:

        def full(descriptor):
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device.*the last good one is kept.*state.npz"):
            clone(learner).fit(X)
    assert Path(path).read_bytes() == good and os.listdir(os.path.dirname(path)) == ["state.npz"]
    assert_same_bits(clone(learner).fit(X), whole)


def test_what_is_wrong_with_a_path_is_said_before_learning(X, tmp_path, monkeypatch):
    monkeypatch.setattr("sparseshare.learning.stream.encode", lambda *_, **__: pytest.fail("coded"))
    learner = MiniBatchDictionaryLearning(6)
    with pytest.raises(FileNotFoundError, match=r"missing.*no such folder"):
        learner.set_params(checkpoint=tmp_path / "missing" / "state.npz").fit(X)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        learner.set_params(checkpoint=tmp_path).fit(X)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="notes.txt' is no checkpoint that sparseshare has written"):
        learner.set_params(checkpoint=tmp_path / "notes.txt").fit(X)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    for wrong in (3.5, b"state.npz", "", object()):
        with pytest.raises(ValueError, match="'checkpoint' parameter of MiniBatchDictionaryLearning must be a path"):
            learner.set_params(checkpoint=wrong).fit(X)


def test_a_given_dictionary_needs_no_checkpoint(X, path):
    SparseCoder(X[:5], checkpoint=path).fit(X)
    assert not os.path.exists(path)


def test_partial_fit_writes_none(X, path):
    MiniBatchDictionaryLearning(6, checkpoint=path).partial_fit(X)
    assert not os.path.exists(path)


KILLED = """
import os, signal, sys, time
import numpy as np
from sparseshare.checkpoints import Checkpoint
from sparseshare.learning import MiniBatchDictionaryLearning

X = np.random.default_rng(0).standard_normal((4000, 16))


def learn(checkpoint):
    parameters = dict(alpha=0.3, max_iter=4, batch_size=64, tol=0, max_no_improvement=None, random_state=0, n_jobs=1)
    return MiniBatchDictionaryLearning(32, checkpoint=checkpoint, **parameters).fit(X).components_


whole = learn(None)
state = Checkpoint(sys.argv[1], every=0)
moments = np.random.default_rng(3).random(5)
for moment in moments:
    child = os.fork()
    if child == 0:
        learn(state)
        os._exit(0)
    time.sleep(0.2 * moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
assert (learn(state) == whole).all()
print(os.listdir(os.path.dirname(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_kill_9(path):
    """Killed by the system at random moments; `benchmarks/kill_resume.py` does it 20 times to every learner."""
    done = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['state.npz']"
