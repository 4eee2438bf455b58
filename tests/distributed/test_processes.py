"""Workers that are processes: the same results, no more threads than there are workers, and what a death costs."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.model_selection import GridSearchCV

from sparseshare import ConvDictionaryLearning, MiniBatchDictionaryLearning, SparseCoder, heldout_entries_scorer
from sparseshare.distributed import DaskConvDictionaryLearning, DaskMiniBatchDictionaryLearning, encode_dask
from sparseshare.threads import thread_count

da = pytest.importorskip("dask.array")
pytestmark = pytest.mark.slow

PARAMETERS = dict(alpha=0.3, max_iter=2, tol=0, max_no_improvement=None, random_state=0)


@pytest.fixture(scope="module")
def processes():
    """What workers are sent are functions made inside of tests: these files are not theirs to import."""
    distributed = pytest.importorskip("distributed")
    from dask import config

    before, method = dict(os.environ), "spawn"
    settings = {"distributed.deploy.lost-worker-timeout": "1h"}  # on a busy machine a worker's successor is late
    if "forkserver" in multiprocessing.get_all_start_methods():  # a worker need not import everything anew
        method = "forkserver"
        server = multiprocessing.get_context(method)
        server.set_forkserver_preload(["distributed", "dask.array", "sparseshare.distributed"])
        first = server.Process()
        first.start()
        first.join()
    with (
        config.set({**settings, "distributed.worker.multiprocessing-method": method}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
    ):
        yield cluster
    for variable in set(os.environ) - set(before):  # what Dask tells its workers it tells their parent
        del os.environ[variable]


@pytest.fixture
def client(processes):
    from distributed import Client

    with Client(processes) as client:
        client.wait_for_workers(2, timeout=600)
        yield client


def in_blocks(X, rows=30):
    return da.from_array(X, chunks=(rows, *(-1 for _ in X.shape[1:])))


def test_processes_change_no_bit(client, X):
    """Learned and coded there and in threads of this process."""
    from distributed import Client

    signals = in_blocks(X, 60)
    sparse = signals.map_blocks(csr_array, meta=csr_array((0, 0)))
    learner = DaskMiniBatchDictionaryLearning(8, blocks_per_update=3, **PARAMETERS)
    coder = SparseCoder(dictionary=X[:8], transform_algorithm="lasso_lars", alpha=0.3, sparse_output=True)

    def everything():
        atoms = learner.fit(signals).components_.copy()
        codes = learner.transform(signals).compute(), encode_dask(sparse, coder).compute().toarray()
        return atoms, *codes, learner.score(signals)

    found = everything()
    with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"):
        for there, here in zip(found, everything(), strict=True):
            np.testing.assert_array_equal(there, here)


def test_a_grid_search_takes_a_thread_a_worker(client, X):
    import joblib

    search = GridSearchCV(
        MiniBatchDictionaryLearning(8, max_iter=1, random_state=0), {"alpha": [0.1, 0.4]},
        scoring=heldout_entries_scorer, cv=2,
    )  # fmt: skip
    with joblib.parallel_config("dask"):
        found = search.fit(X).cv_results_["mean_test_score"]
        told = joblib.Parallel()(joblib.delayed(thread_count)() for _ in range(4))
    np.testing.assert_allclose(found, search.set_params(n_jobs=None).fit(X).cv_results_["mean_test_score"])
    assert told == [1] * 4  # Dask tells its processes OMP_NUM_THREADS=1
    assert [client.submit(thread_count, pure=False, workers=[name]).result() for name in client.nthreads()] == [1, 1]


def deadly(signals, here, moments):
    """The same blocks, of whom some kill the worker that reads them for the n-th time: pairs of block and n."""
    kill, here = signal.SIGKILL, str(here)

    def read(part, block_info=None):
        block = block_info[0]["chunk-location"][0]
        with open(os.path.join(here, f"reads-{block}"), "a+") as file:
            file.write(".")
            file.flush()
            file.seek(0)
            if (block, len(file.read())) in moments:
                open(os.path.join(here, f"killed-{len(os.listdir(here))}-{block}"), "w").close()
                os.kill(os.getpid(), kill)
        return part

    return signals.map_blocks(read, dtype=signals.dtype, meta=np.empty((0,) * signals.ndim, signals.dtype))


def deaths(here):
    return len(list(here.glob("killed-*")))


def test_workers_that_die_cost_their_blocks(client, X, tmp_path):
    """Killed in five moments of a fit, while they read a block or between two updates: the same bits."""
    learner = DaskMiniBatchDictionaryLearning(8, blocks_per_update=4, dict_init=X[:8], **PARAMETERS)
    expected = learner.fit(in_blocks(X)).components_.copy()

    def between(state):
        if state["i"] == 2:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    learner.set_params(callback=between)
    found = learner.fit(deadly(in_blocks(X), tmp_path, {(0, 1), (4, 1), (2, 2), (7, 2)}))
    np.testing.assert_array_equal(found.components_, expected)
    assert deaths(tmp_path) == 4


def test_a_death_among_shared_atoms_and_codes_costs_a_block(client, rng, tmp_path):
    """The worker of block 1 dies over it while atoms are learned, and that of block 0 while codes are computed."""
    images = rng.standard_normal((4, 12, 10))
    parameters = dict(n_components=3, atom_shape=(4, 4), alpha=1.0, max_iter=2, tol=0, shuffle=False, random_state=0)
    expected = ConvDictionaryLearning(method="online", batch_size=4, forgetting=0.0, **parameters).fit(images)
    learner = DaskConvDictionaryLearning(blocks_per_update=2, **parameters).fit(in_blocks(images, 2))
    atoms, maps = learner.components_.copy(), learner.encode(images)
    np.testing.assert_allclose(atoms, expected.components_, atol=1e-8)
    for step in ("learn", "encode"):
        (tmp_path / step).mkdir()
    learner.fit(deadly(in_blocks(images, 2), tmp_path / "learn", {(1, 1)}))
    np.testing.assert_array_equal(learner.components_, atoms)
    found = learner.encode(deadly(in_blocks(images, 2), tmp_path / "encode", {(0, 1)})).compute()
    np.testing.assert_array_equal(found, maps)
    assert (deaths(tmp_path / "learn"), deaths(tmp_path / "encode")) == (1, 1)


def test_who_does_not_wait_learns_all_blocks_when_one_dies(client, X, tmp_path):
    parameters = PARAMETERS | dict(max_iter=6, dict_init=X[:8])
    learner = DaskMiniBatchDictionaryLearning(mode="asynchronous", **parameters)
    learner.fit(deadly(in_blocks(X, 60), tmp_path, {(2, 1)}))
    assert learner.n_steps_ == 6 * 4 and deaths(tmp_path) == 1
    assert learner.loss_curve_[-1] < learner.loss_curve_[0]


def test_a_block_that_kills_whoever_reads_it_is_named(client, X, tmp_path):
    """After more deaths than Dask allows, here none."""

    def allow(failures, dask_scheduler):
        before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, failures
        return before

    # One after the other: Dask blames all tasks that a worker had when it died.
    learner = DaskMiniBatchDictionaryLearning(blocks_per_update=1, shuffle=False, dict_init=X[:8], **PARAMETERS)
    before = client.run_on_scheduler(allow, 0)
    try:
        with pytest.raises(RuntimeError, match="block 1 of X, rows 60 to 119: .*died"):
            learner.fit(deadly(in_blocks(X, 60), tmp_path, {(1, 1)}))
    finally:
        client.run_on_scheduler(allow, before)
