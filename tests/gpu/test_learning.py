"""Learners on a GPU: the dictionaries of the CPU from the same seeds, for arrays of the host and of the device."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare import KSVD, DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder, dict_learning
from sparseshare.learning import batches as feeding
from sparseshare.learning import dict_learning_online
from sparseshare.learning.batches import Pieces, batches
from sparseshare.learning.order import BatchOrder

DTYPES = [np.float32, np.float64]


@pytest.fixture
def X(rng):
    atoms = rng.standard_normal((12, 9))
    codes = np.where(rng.random((70, 12)) < 0.25, rng.standard_normal((70, 12)), 0)
    return codes @ atoms + 0.05 * rng.standard_normal((70, 9))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def assert_same(found, expected, X, dtype=np.float64):
    """Two learners that have gone the same way."""
    rtol = 1e-5 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=rtol)
    assert found.n_iter_ == expected.n_iter_ and found.converged_ == expected.converged_
    assert getattr(found, "n_steps_", None) == getattr(expected, "n_steps_", None)
    atoms = found.components_.get() if hasattr(found.components_, "get") else found.components_
    assert atoms.dtype == expected.components_.dtype == dtype
    np.testing.assert_allclose(atoms, expected.components_, atol=2e-3 if dtype == np.float32 else 1e-7)


MINI_BATCH = dict(alpha=0.3, batch_size=16, max_iter=3, random_state=0, tol=0, max_no_improvement=None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mini_batches(gpu, X, dtype):
    X = X.astype(dtype)
    expected = MiniBatchDictionaryLearning(12, **MINI_BATCH).fit(X)
    from_host = MiniBatchDictionaryLearning(12, **MINI_BATCH, device="cuda").fit(X)
    assert isinstance(from_host.components_, np.ndarray)
    assert_same(from_host, expected, X, dtype)
    there = MiniBatchDictionaryLearning(12, **MINI_BATCH).fit(gpu.asarray(X))
    assert isinstance(there.components_, gpu.xp.ndarray)
    assert_same(there, expected, X, dtype)
    np.testing.assert_array_equal(gpu.get(there.components_), from_host.components_)


@pytest.mark.parametrize(
    "parameters",
    [
        dict(dict_init="svd", shuffle=False),
        dict(dict_init="k-means++", atom_norm="sphere", positive_dict=True, positive_code=True, fit_algorithm="cd"),
        dict(fit_algorithm="omp", n_nonzero_coefs=2, dict_update="mod"),
        dict(l1_ratio=0.6, fit_algorithm="cd", zero_mean_dict=True),
        dict(atom_l1_budget=1.5, replace_atoms=False),
    ],
    ids=lambda parameters: "-".join(parameters),
)
def test_parameters_of_mini_batches(gpu, X, parameters):
    parameters = dict(MINI_BATCH, transform_tol=1e-12, **parameters)
    expected = MiniBatchDictionaryLearning(12, **parameters).fit(X)
    assert_same(MiniBatchDictionaryLearning(12, **parameters, device="cuda").fit(X), expected, X)


@pytest.mark.parametrize("rule", [dict(tol=0.02), dict(tol=0, max_no_improvement=2)], ids=["tol", "no improvement"])
def test_as_many_steps_as_on_the_cpu(gpu, X, rule):
    parameters = dict(MINI_BATCH, max_iter=60, transform_tol=1e-12, **rule) | rule
    expected = MiniBatchDictionaryLearning(6, **parameters).fit(X)
    found = MiniBatchDictionaryLearning(6, **parameters, device="cuda").fit(X)
    assert expected.converged_ and expected.n_steps_ % 5  # in the middle of an epoch
    assert_same(found, expected, X)


def test_atoms_are_exchanged_as_on_the_cpu(gpu, X):
    """Two equal atoms, and one that nothing uses, give way after the same steps."""
    start = np.random.default_rng(1).standard_normal((4, 9))
    start[1], start[2] = start[0], 1e-3 * start[2]
    parameters = dict(MINI_BATCH, batch_size=20, dict_init=start, alpha=1.0, max_iter=4, transform_tol=1e-12)
    without = MiniBatchDictionaryLearning(4, **parameters, replace_atoms=False).fit(X)
    expected = MiniBatchDictionaryLearning(4, **parameters).fit(X)
    assert np.abs(expected.components_ - without.components_).max() > 0.1
    assert_same(MiniBatchDictionaryLearning(4, **parameters, device="cuda").fit(X), expected, X)


def test_numbers_are_read_late_and_nothing_else_is(gpu, X):
    if gpu.state is None:
        pytest.skip("what a device is asked for is counted by the fake")
    trips = []
    for max_iter in (2, 6):
        before = gpu.state.trips.total()
        there = gpu.asarray(X)
        MiniBatchDictionaryLearning(12, **dict(MINI_BATCH, max_iter=max_iter, replace_atoms=False)).fit(there)
        trips.append(gpu.state.trips.total() - before)
    a_batch = (trips[1] - trips[0]) / (4 * 5)
    assert a_batch < 20  # the dictionary, four numbers, and what coding asks for


def test_going_on(gpu, X):
    here, there = (MiniBatchDictionaryLearning(8, **MINI_BATCH, warm_start=True, device=d) for d in ("cpu", "cuda"))
    for learner in (here, there):
        learner.fit(X).partial_fit(X[:10]).fit(X).partial_fit(X[10:30])
    assert_same(there, here, X)
    np.testing.assert_allclose(there._A, here._A, atol=1e-9)
    on_device = MiniBatchDictionaryLearning(8, **MINI_BATCH, warm_start=True)
    for rows in (slice(0, 10), slice(10, 30)):
        on_device.partial_fit(gpu.asarray(X)[rows])
    assert isinstance(on_device.components_, gpu.xp.ndarray)
    moved = MiniBatchDictionaryLearning(8, **MINI_BATCH).partial_fit(X[:10]).to_device("cuda")
    moved.partial_fit(gpu.asarray(X)[10:30])
    np.testing.assert_allclose(gpu.get(moved.components_), gpu.get(on_device.components_), atol=1e-9)
    again = pickle.loads(pickle.dumps(on_device))
    assert isinstance(again.components_, np.ndarray) and isinstance(again._memory["statistics"]["A"], np.ndarray)
    again.partial_fit(X[:5])


def test_callbacks_get_arrays_of_the_kind_of_X(gpu, X):
    for signals, kind in ((X, np.ndarray), (gpu.asarray(X), gpu.xp.ndarray)):
        seen = []
        parameters = dict(MINI_BATCH, max_iter=1, device="cuda", callback=seen.append)
        learner = MiniBatchDictionaryLearning(6, **parameters).fit(signals)
        assert [call["i"] for call in seen] == list(range(5)) and isinstance(seen[0]["dictionary"], kind)
        assert np.isfinite([call["batch_cost"] for call in seen]).all() and learner.n_steps_ == 5
        seen.clear()
        learner = DictionaryLearning(6, alpha=0.5, max_iter=2, tol=0, device="cuda", callback=seen.append).fit(signals)
        assert isinstance(seen[0]["dictionary"], kind) and seen[0]["code"].shape == (70, 6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_signals_at_once(gpu, X, dtype):
    X = X.astype(dtype)
    parameters = dict(alpha=0.3, max_iter=6, tol=0, random_state=0)
    expected = DictionaryLearning(12, **parameters).fit(X)
    assert_same(DictionaryLearning(12, **parameters, device="cuda").fit(X), expected, X, dtype)
    there = DictionaryLearning(12, **parameters).fit(gpu.asarray(X))
    assert_same(there, expected, X, dtype)
    codes = there.transform(gpu.asarray(X))
    assert isinstance(codes, gpu.xp.ndarray)
    np.testing.assert_allclose(gpu.get(codes), expected.transform(X), atol=5e-3 if dtype == np.float32 else 1e-5)
    np.testing.assert_allclose(there.score(gpu.asarray(X)), expected.score(X), rtol=1e-4)
    back = gpu.get(there.inverse_transform(codes))
    np.testing.assert_allclose(back, expected.inverse_transform(gpu.get(codes)), atol=5e-3)


@pytest.mark.parametrize("resident", [True, False])
def test_all_signals_in_pieces(gpu, X, resident, monkeypatch):
    monkeypatch.setattr(feeding, "_PIECE", 32)
    monkeypatch.setattr(feeding, "_RESIDENT", 0.25 if resident else 0)
    parameters = dict(alpha=0.3, max_iter=5, tol=0, random_state=0, transform_tol=1e-12)
    expected = DictionaryLearning(12, **parameters).fit(X)
    assert_same(DictionaryLearning(12, **parameters, device="cuda").fit(X), expected, X)
    start = np.random.default_rng(2).standard_normal((70, 12))
    more = dict(parameters, fit_algorithm="omp", n_nonzero_coefs=2, dict_update="mod", code_init=csr_array(start))
    assert_same(DictionaryLearning(12, **more, device="cuda").fit(X), DictionaryLearning(12, **more).fit(X), X)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dict_update", ["approximate", "exact"])
def test_ksvd(gpu, X, dict_update, dtype, monkeypatch):
    monkeypatch.setattr(feeding, "_PIECE", 32)
    X = X.astype(dtype)
    parameters = dict(n_nonzero_coefs=2, max_iter=3, tol=0, random_state=0, dict_update=dict_update)
    expected = KSVD(10, **parameters).fit(X)
    found = KSVD(10, **parameters, device="cuda").fit(X)
    assert isinstance(found.components_, np.ndarray)
    rtol = 1e-5 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(found.error_, expected.error_, rtol=rtol)
    there = KSVD(10, **parameters).fit(gpu.asarray(X))
    np.testing.assert_allclose(there.error_, expected.error_, rtol=rtol)
    assert (gpu.get(there.transform(gpu.asarray(X))) != 0).sum(axis=1).max() == 2


def test_duplicates_and_dead_atoms_of_batch_learners(gpu, X):
    start = np.random.default_rng(1).standard_normal((6, 9))
    start[1], start[2] = start[0], 0
    batch = dict(alpha=0.8, max_iter=3, tol=0, dict_init=start, transform_tol=1e-12)
    assert_same(DictionaryLearning(6, **batch, device="cuda").fit(X), DictionaryLearning(6, **batch).fit(X), X)
    start[2] = start[3] + 1e-4
    ksvd = dict(n_nonzero_coefs=2, max_iter=3, tol=0, dict_init=start)
    np.testing.assert_allclose(KSVD(6, **ksvd, device="cuda").fit(X).error_, KSVD(6, **ksvd).fit(X).error_, rtol=1e-9)


def test_a_coder_that_learns(gpu, X):
    parameters = dict(n_components=8, alpha=0.3, max_iter=2, random_state=0, tol=0, batch_size=32)
    expected = SparseCoder(**parameters).fit(X)
    found = SparseCoder(**parameters, device="cuda").fit(X)
    assert_same(found, expected, X)
    np.testing.assert_allclose(found.transform(X), expected.transform(X), atol=1e-5)
    there = SparseCoder(**parameters).fit(gpu.asarray(X)).partial_fit(gpu.asarray(X)[:20])
    assert isinstance(there.components_, gpu.xp.ndarray) and there.n_components_ == 8


def test_functions(gpu, X):
    parameters = dict(alpha=0.3, max_iter=2, random_state=0)
    code, dictionary, errors = dict_learning(X, 6, **parameters, tol=0)
    for signals, kind in ((X, np.ndarray), (gpu.asarray(X), gpu.xp.ndarray)):
        found = dict_learning(signals, 6, **parameters, tol=0, device="cuda")
        assert isinstance(found[0], kind) and isinstance(found[1], kind)
        np.testing.assert_allclose(found[2], errors, rtol=1e-7)
        np.testing.assert_allclose(gpu.get(found[1]), dictionary, atol=1e-5)
        found = dict_learning_online(signals, 6, **parameters, device="cuda")
        assert isinstance(found[0], kind) and found[0].shape == (70, 6)


def test_sparse_signals(gpu, X):
    sparse = csr_array(np.where(np.abs(X) > 1, X, 0))
    expected = MiniBatchDictionaryLearning(6, **MINI_BATCH).fit(sparse)
    assert_same(MiniBatchDictionaryLearning(6, **MINI_BATCH, device="cuda").fit(sparse), expected, X)
    from cupyx.scipy.sparse import csr_matrix

    assert_same(MiniBatchDictionaryLearning(6, **MINI_BATCH).fit(csr_matrix(sparse)), expected, X)


def test_bad_signals(gpu, X):
    X[33, 2] = np.nan
    for learner in (MiniBatchDictionaryLearning(4), DictionaryLearning(4), KSVD(4)):
        with pytest.raises(ValueError, match="NaN or infinity in rows 0 to 69"):
            learner.fit(gpu.asarray(X))
    with pytest.raises(RuntimeError, match="device='cpu'"):
        MiniBatchDictionaryLearning(4, device="cpu").fit(gpu.asarray(X))
    learner = MiniBatchDictionaryLearning(4, max_iter=1).fit(gpu.asarray(np.nan_to_num(X)))
    with pytest.raises(TypeError, match="cpu and cuda:0"):
        learner.partial_fit(np.nan_to_num(X))


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_from_the_host_arrive_whole(gpu, shuffled, monkeypatch):
    monkeypatch.setattr(feeding, "_GATHERED", 7)
    X = np.arange(200.0).reshape(100, 2)
    parts = BatchOrder(100, 16, 16, np.random.RandomState(0) if shuffled else None)
    for source in (X, csr_array(X), X.astype(np.int32)):
        for rows, batch in zip(parts, batches(source, parts, np.float32, "cuda:0", 2), strict=True):
            assert batch.dtype == np.float32
            np.testing.assert_array_equal(gpu.get(batch), X[rows])


def test_a_batch_stays_until_the_third_after_it(gpu):
    X = np.arange(80.0).reshape(40, 2)
    kept = []
    for number, batch in enumerate(batches(X, BatchOrder(40, 8, 16), np.float64, "cuda:0")):
        kept.append(batch)
        for back in range(min(number, 1) + 1):
            first = 8 * (number - back)
            np.testing.assert_array_equal(gpu.get(kept[number - back]), X[first : first + 8])


def test_an_error_while_gathering_reaches_the_caller(gpu):
    with pytest.raises(IndexError):
        list(batches(np.zeros((4, 2)), BatchOrder(9, 9, 16, np.random.RandomState(0)), np.float64, "cuda:0"))


def test_pieces_that_fit_are_sent_once(gpu, X, monkeypatch):
    monkeypatch.setattr(feeding, "_PIECE", 32)
    for share, sent in ((0.25, 3), (0, 6)):
        monkeypatch.setattr(feeding, "_RESIDENT", share)
        pieces = Pieces(X, np.float64, "cuda:0", 5)
        before = gpu.state.uploads if gpu.state else None
        for _ in range(2):
            found = [gpu.get(block) for _, block in pieces]
            np.testing.assert_array_equal(np.concatenate(found), X)
        assert before is None or gpu.state.uploads - before == sent
