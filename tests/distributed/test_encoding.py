"""Dask arrays block by block: codes, reconstructions, scores; what ordinary estimators say to them; threads."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare import (
    ConvDictionaryLearning,
    DictionaryLearning,
    MiniBatchDictionaryLearning,
    SparseCoder,
    sparse_encode,
)
from sparseshare.distributed import DaskMiniBatchDictionaryLearning, encode_dask
from sparseshare.threads import thread_count

da = pytest.importorskip("dask.array")


@pytest.fixture
def coder(X):
    return SparseCoder(dictionary=X[:7], transform_algorithm="lasso_lars", alpha=0.3)


def in_blocks(X, rows=70):
    return da.from_array(X, chunks=(rows, -1))


@pytest.mark.parametrize("options", [{}, dict(sparse_output=True), dict(split_sign=True)], ids=str)
def test_codes_are_those_of_the_coder(X, coder, dtype, options):
    """Without a client, dense and CSR blocks: the same bits, and what was announced comes."""
    coder.set_params(**options)
    X = X.astype(dtype)
    expected = coder.transform(X)
    sparse = in_blocks(X).map_blocks(csr_array, meta=csr_array((0, 0), dtype=dtype))
    for signals in (in_blocks(X), sparse):
        codes = encode_dask(signals, coder)
        assert codes.shape == expected.shape and codes.dtype == dtype and codes.chunks[0] == (70, 70, 70, 30)
        found = codes.compute(scheduler="sync")
        assert type(found) is type(expected) and found.dtype == dtype
        assert (found != expected).sum() == 0
    assert type(encode_dask(in_blocks(X), coder)._meta) is type(expected)


def test_learners_take_dask_arrays(client, X):
    learner = DaskMiniBatchDictionaryLearning(8, alpha=0.3, max_iter=1, sparse_output=True, random_state=0)
    codes = learner.fit(in_blocks(X)).transform(in_blocks(X))
    expected = learner.transform(X)
    assert (codes.compute() != expected).sum() == 0
    np.testing.assert_allclose(learner.inverse_transform(codes).compute(), learner.inverse_transform(expected))
    shifted = X + 1e4  # where the mean of squares would lose the variance
    assert learner.score(in_blocks(X)) == pytest.approx(learner.score(X), rel=1e-12)
    assert learner.score(in_blocks(shifted)) == pytest.approx(learner.score(shifted), rel=1e-6)
    assert learner.score(in_blocks(np.zeros((20, 10)))) == 1
    assert list(learner.get_feature_names_out()[:2]) == [
        "daskminibatchdictionarylearning0",
        "daskminibatchdictionarylearning1",
    ]


def test_empty_blocks_cut_columns_and_unknown_sizes(X, coder):
    odd = da.from_array(X, chunks=((100, 0, 140), (4, 6)))
    np.testing.assert_array_equal(encode_dask(odd, coder).compute(scheduler="sync"), coder.transform(X))
    chosen = in_blocks(X)[in_blocks(X)[:, 0] > 0]
    found = encode_dask(chosen, coder).compute(scheduler="sync")
    np.testing.assert_array_equal(found, coder.transform(X[X[:, 0] > 0]))


def test_maps_and_pooled_rows_of_shared_atoms(rng):
    images = rng.standard_normal((7, 12, 14, 3))
    learner = ConvDictionaryLearning(3, (4, 4), alpha=1.0, max_iter=1, tol=0, random_state=0).fit(images)
    blocks = da.from_array(images, chunks=(3, 12, 7, 3))
    for sparse in (False, True):
        learner.set_params(sparse_output=sparse)
        maps, expected = encode_dask(blocks, learner, "encode"), learner.encode(images)
        assert maps.shape == expected.shape
        found = maps.compute(scheduler="sync")
        np.testing.assert_array_equal(found.toarray() if sparse else found, expected.toarray() if sparse else expected)
    rows = encode_dask(blocks, learner)
    np.testing.assert_array_equal(rows.compute(scheduler="sync"), learner.transform(images))


def test_errors_name_what_is_wrong(X, coder):
    with pytest.raises(TypeError, match="must be a Dask array, got ndarray"):
        encode_dask(X, coder)
    with pytest.raises(ValueError, match="'method' parameter of encode_dask"):
        encode_dask(in_blocks(X), coder, "predict")
    with pytest.raises(ValueError, match="different numbers of features|expecting 10 features"):
        encode_dask(in_blocks(X[:, :4]), coder)
    X[150, 2] = np.inf
    with pytest.raises(ValueError, match="block 2 of X, rows 140 to 209: .*infinity"):
        encode_dask(in_blocks(X), coder).compute(scheduler="sync")


@pytest.mark.parametrize(
    "use",
    [
        lambda X: MiniBatchDictionaryLearning(3).fit(X),
        lambda X: DictionaryLearning(3).fit(X),
        lambda X: SparseCoder(dictionary=np.eye(10)).transform(X),
        lambda X: sparse_encode(X, np.eye(10)),
        lambda X: ConvDictionaryLearning(3, 4).fit(X),
        lambda X: sparse_encode(np.eye(10), X),
    ],
    ids=["mini-batch", "batch", "coder", "function", "convolution", "dictionary"],
)
def test_ordinary_estimators_do_not_pull_dask_arrays_into_memory(X, use):
    with pytest.raises(TypeError, match=r"Dask.*sparseshare\.distributed"):
        use(in_blocks(X))


def test_tasks_in_threads_of_one_process_take_one_thread_each(client, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    assert thread_count() == 8
    assert [client.submit(thread_count, n_jobs).result() for n_jobs in (None, -1, 3)] == [1, 1, 3]
