"""Two workers that are threads of this process: kernels are loaded once, not three times."""

import pytest


@pytest.fixture(scope="module")  # its threads draw random numbers, which hypothesis takes for those of other tests
def cluster():
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("dask.array")
    # Over TCP all that workers are sent is packed and unpacked, and read-only then, as between machines.
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0", silence_logs=50
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    from distributed import Client

    with Client(cluster) as client:
        yield client


@pytest.fixture
def X(rng):
    return rng.standard_normal((240, 3)) @ rng.standard_normal((3, 10)) + 0.3 * rng.standard_normal((240, 10))
