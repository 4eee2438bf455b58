"""Learning a dictionary on a cluster: as on one machine, whoever does the work."""

from threading import Event

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparseshare import MiniBatchDictionaryLearning
from sparseshare.callbacks import EarlyStopping, LossMonitor
from sparseshare.distributed import DaskMiniBatchDictionaryLearning, blocks
from sparseshare.distributed.blocks import ArrayBlocks

da = pytest.importorskip("dask.array")

PARAMETERS = dict(alpha=0.3, max_iter=2, tol=0, max_no_improvement=None, random_state=0)


def in_blocks(X, rows=30):
    return da.from_array(X, chunks=(rows, -1))


@pytest.mark.parametrize(
    "parameters",
    [
        dict(n_components=8),
        dict(dict_init="k-means++", n_components=8, positive_dict=True),
        dict(fit_algorithm="omp", n_nonzero_coefs=2, dict_update="mod", n_components=6),
        dict(dict_init="dead", l1_ratio=0.8, max_iter=4),
    ],
    ids=lambda given: next(iter(given)),
)
def test_synchronous_is_the_mini_batch_learner(client, X, dtype, parameters, monkeypatch):
    """Rounds of three blocks of 40 rows are batches of 120; atoms of zeros die and get other places."""
    monkeypatch.setattr(blocks, "_FAN_IN", 2)  # two levels of merging
    X, parameters = X.astype(dtype), PARAMETERS | parameters | dict(shuffle=False)
    if isinstance(parameters.get("dict_init"), str) and parameters["dict_init"] == "dead":
        parameters["dict_init"] = np.vstack([X[:4], np.zeros((2, 10)), X[:1]])
    expected = MiniBatchDictionaryLearning(batch_size=120, **parameters).fit(X)
    found = DaskMiniBatchDictionaryLearning(blocks_per_update=3, **parameters).fit(in_blocks(X, 40))
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(found.components_, expected.components_, atol=tolerance)
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=tolerance)
    assert found.components_.dtype == dtype
    assert (found.n_iter_, found.n_steps_, found.converged_) == (expected.n_iter_, expected.n_steps_, False)
    assert (np.linalg.norm(found.components_, axis=1) > 0.5).all()


def test_workers_change_no_bit(client, X):
    """Two of them, one of two threads, CSR blocks, two threads a task."""
    from distributed import Client

    learner = DaskMiniBatchDictionaryLearning(8, blocks_per_update=3, **PARAMETERS)
    signals = in_blocks(X, 50)
    two = learner.fit(signals).components_.copy()
    sparse = signals.map_blocks(csr_array, meta=csr_array((0, 0)))
    np.testing.assert_array_equal(learner.fit(sparse).components_, two)
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"):
        np.testing.assert_array_equal(learner.set_params(n_jobs=2).fit(signals).components_, two)


def test_asynchronous_learns_as_well(client, X):
    parameters = PARAMETERS | dict(max_iter=6)
    one_by_one = MiniBatchDictionaryLearning(8, batch_size=40, **parameters).fit(X)
    found = DaskMiniBatchDictionaryLearning(8, mode="asynchronous", **parameters).fit(in_blocks(X, 40))
    assert found.n_steps_ == 6 * 6 and found.n_iter_ == 6
    assert found.loss_curve_[-1] <= 1.05 * one_by_one.loss_curve_[-1]
    assert found.loss_curve_[-1] < found.loss_curve_[0]


def test_no_result_is_too_old():
    """A task that lags behind is overtaken by two others; a third is done and waits for it."""
    from distributed import Client

    go_on, third = GATES[:] = Event(), Event()
    version, order = 0, []
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as client:
        signals = ArrayBlocks(da.arange(40, chunks=4), client)
        results = signals.as_they_come(range(10), held_up, lambda: (version,), max_in_flight=4, max_staleness=2)
        for number, (given,), first_row in results:
            assert first_row == 4 * number and version - given <= 2
            version += 1
            order.append(number)
            if version == 2:
                assert third.wait(600)
                go_on.set()
    assert order[2] == 0 and sorted(order) == list(range(10))


GATES = []


def held_up(block, first_row, version):
    if first_row == 0:
        assert GATES[0].wait(600)
    if first_row == 12:
        GATES[1].set()
    return first_row


def test_partial_fit_and_warm_start_go_on(client, X):
    parameters = PARAMETERS | dict(shuffle=False, dict_init=X[:8])
    whole = DaskMiniBatchDictionaryLearning(blocks_per_update=4, **parameters).fit(in_blocks(X))
    parts = DaskMiniBatchDictionaryLearning(**parameters)
    for _ in range(2):
        for start in range(0, 240, 120):
            parts.partial_fit(in_blocks(X[start : start + 120]))
    np.testing.assert_array_equal(parts.components_, whole.components_)
    assert parts.n_steps_ == whole.n_steps_ == len(parts.loss_curve_) == 4
    again = DaskMiniBatchDictionaryLearning(blocks_per_update=4, warm_start=True, **parameters | dict(max_iter=1))
    again.fit(in_blocks(X)).fit(in_blocks(X))
    np.testing.assert_array_equal(again.components_, whole.components_)
    with pytest.raises(ValueError, match="expecting 10 features"):
        parts.partial_fit(in_blocks(X[:, :4]))


def test_progress(client, X, capsys):
    pytest.importorskip("sklearn.callback")
    steps, monitor = [], LossMonitor()
    learner = DaskMiniBatchDictionaryLearning(
        5, blocks_per_update=3, verbose=1, callback=lambda state: steps.append(state["i"]), **PARAMETERS
    )
    learner.set_callbacks(monitor, EarlyStopping(patience=1, tol=0.9)).fit(in_blocks(X))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("[DaskMiniBatchDictionaryLearning] epoch 2/2: loss ")
    assert steps == list(range(6)) and monitor.loss_curve == learner.loss_curve_


def test_stops_early(client, X):
    learner = DaskMiniBatchDictionaryLearning(
        5, alpha=0.3, blocks_per_update=2, max_no_improvement=3, tol=0.05, random_state=0
    ).fit(in_blocks(X))
    assert learner.converged_ and learner.n_iter_ < 100


def test_no_epoch_gives_back_the_start(client, X):
    learner = DaskMiniBatchDictionaryLearning(max_iter=0, dict_init=3 * X[:4]).fit(in_blocks(X))
    np.testing.assert_array_equal(learner.components_, 3 * X[:4])


def test_blocks_of_any_sizes_and_columns(client, X):
    """Empty blocks are passed over, cut columns are put together."""
    odd = da.from_array(X, chunks=((7, 0, 100, 133), (4, 6)))
    learner = DaskMiniBatchDictionaryLearning(8, blocks_per_update=2, **PARAMETERS).fit(odd)
    assert learner.n_steps_ == 4
    assert learner.transform(odd).compute().shape == (240, 8)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda X: X, TypeError, r"Dask array, got ndarray.*from_array"),
        (lambda X: in_blocks(X)[in_blocks(X)[:, 0] > 0], ValueError, "compute_chunk_sizes"),
        (lambda X: in_blocks(X).astype(complex), ValueError, "Complex data not supported"),
        (lambda X: da.from_array(X.ravel(), chunks=10), ValueError, "array with dim 1"),
        (lambda X: in_blocks(X)[:0], ValueError, "0 sample"),
    ],
    ids=["numpy", "unknown sizes", "complex", "1-D", "empty"],
)
def test_wrong_data(client, X, make, error, message):
    with pytest.raises(error, match=message):
        DaskMiniBatchDictionaryLearning(5).fit(make(X))


def test_the_bad_block_is_named(client, X):
    bad, whole = DaskMiniBatchDictionaryLearning(dict_init=X[:5], blocks_per_update=3), in_blocks(X.copy())
    X[123, 4] = np.nan
    with pytest.raises(ValueError, match=r"block 4 of X, rows 120 to 149: .*NaN"):
        bad.fit(in_blocks(X))
    with pytest.raises(ValueError, match=r"block 4 of X, rows 120 to 149: .*NaN"):
        bad.set_params(mode="asynchronous").fit(in_blocks(X))

    def read(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 2:
            raise OSError("the file ends here")
        return block

    unreadable = whole.map_blocks(read, dtype=X.dtype, meta=X[:0])
    with pytest.raises(RuntimeError, match="block 2 of X, rows 60 to 89: the file ends here"):
        bad.fit(unreadable)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("mode", "sync"),
        ("blocks_per_update", 0),
        ("max_in_flight", 0),
        ("max_staleness", -1),
        ("shuffle", 1),
        ("max_no_improvement", -1),
        ("dict_init", "svd"),
        ("alpha", -1),
        ("n_jobs", "all"),
    ],
)
def test_wrong_parameters(X, name, wrong):
    learner = DaskMiniBatchDictionaryLearning(**{name: wrong})
    with pytest.raises(ValueError, match=rf"'{name}' parameter"):
        learner.fit(in_blocks(X))


def test_without_a_client(X):
    with pytest.raises(RuntimeError, match="needs a Dask client"):
        DaskMiniBatchDictionaryLearning(5).fit(in_blocks(X))
