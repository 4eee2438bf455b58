"""The fake CuPy refuses and counts what a real one would refuse or wait for."""

import copy
import pickle
import time

import numpy as np
import pytest
import scipy.sparse
from gpu import cupy_names, fake_cupy

state = fake_cupy.state


@pytest.fixture
def cp(monkeypatch):
    yield fake_cupy.install(monkeypatch)
    state.reset()


@pytest.fixture
def x(cp):
    return cp.asarray(np.arange(12, dtype="f4").reshape(3, 4))


def host(array):
    return array._host


def test_imports(cp):
    import cupy
    import cupyx.scipy.sparse
    from cupy.cuda.memory import OutOfMemoryError
    from cupyx.scipy.fft import rfft2

    assert cupy is cp and type(cupy.zeros(3)).__module__ == "cupy" and callable(rfft2)
    assert type(cupyx.scipy.sparse.csr_matrix((2, 3))).__module__.startswith("cupyx")
    assert issubclass(OutOfMemoryError, MemoryError)


def test_arithmetic_stays_on_the_device(cp, x):
    for result in (x + 1, 2 * x, x @ x.T, np.float32(2) * x, -x, x > 3, x.sum(), x.max(axis=0), np.sum(x), np.sqrt(x),
                   cp.where(x > 3, x, 0), cp.linalg.norm(x), x[1, 2], x.T, cp.einsum("ij,kj->ik", x, x)):  # fmt: skip
        assert isinstance(result, cp.ndarray)
    assert (x.sum()).shape == () and (x @ x.T).dtype == np.float32 and (x + np.float64(1)).dtype == np.float64
    np.testing.assert_array_equal((x @ x.T).get(), host(x) @ host(x).T)
    y = x.copy()
    y += 1
    y[y > 5] = 0
    np.testing.assert_array_equal(host(y), np.where(host(x) > 4, 0, host(x) + 1))
    (x / 0).get()  # no warnings come from a GPU


@pytest.mark.parametrize(
    "mistake",
    [
        lambda cp, x: np.asarray(x),
        lambda cp, x: np.array([x, x]),
        lambda cp, x: x + np.ones(4, "f4"),
        lambda cp, x: np.ones(4, "f4") + x,
        lambda cp, x: np.ones((3, 4), "f4") @ x.T,
        lambda cp, x: np.dot(np.ones((3, 4), "f4"), x.T),
        lambda cp, x: cp.dot(x, np.ones(4, "f4")),
        lambda cp, x: cp.concatenate([x, np.ones((1, 4), "f4")]),
        lambda cp, x: cp.sum(np.ones(4)),
        lambda cp, x: np.add(x, x, out=np.empty((3, 4), "f4")),
        lambda cp, x: cp.add(x, x, where=x > 2),
        lambda cp, x: cp.sum(x, initial=3),
        lambda cp, x: x.sum(where=x > 2),
        lambda cp, x: x.get(out=cp.empty((3, 4), "f4")),
        lambda cp, x: {x: 1},
        lambda cp, x: 3.0 in x,
        lambda cp, x: cp.copyto(x, np.ones((3, 4), "f4")),
    ],
)
def test_refused(cp, x, mistake):
    with pytest.raises(TypeError):
        mistake(cp, x)


def test_host_arrays_are_no_values(x):
    with pytest.raises(ValueError, match="non-scalar numpy.ndarray cannot be used for fill"):
        x[0] = np.ones(4, "f4")
    x[0] = np.float32(3)
    with pytest.raises(ValueError, match="twice"):
        x[x.astype(int)[0] * 0] = x[:1] + x
    with pytest.raises(ValueError, match="Unsupported dtype"):
        x.astype(object)


@pytest.mark.parametrize("name", ["loadtxt2", "vectorise", "apply_over_nothing", "lib.scimath2", "linalg.null_space"])
def test_names_that_cupy_lacks(cp, x, name):
    with pytest.raises(AttributeError, match="CuPy .* has no"):
        for part in name.split("."):
            cp = getattr(cp, part)
    with pytest.raises(AttributeError):
        x.no_method()


def test_names_are_those_of_the_installed_cupy():
    cupy = pytest.importorskip("cupy")
    if cupy.__version__ != fake_cupy._KNOWN["version"]:
        pytest.skip(f"cupy_names.json is of CuPy {fake_cupy._KNOWN['version']}, {cupy.__version__} is installed")
    known = fake_cupy._KNOWN["cupy"]
    assert {name for name in dir(cupy) if not name.startswith("_")} <= set(known) | {"testing", "typing", "array_api"}
    for name in ("sum", "einsum", "searchsorted", "empty", "asnumpy"):
        assert cupy_names._arguments(getattr(cupy, name), f"cupy.{name}") == known[name]


def test_views_share_memory(cp, x):
    row, number = x[1], x[2, 3]
    row[...] = 7
    number[...] = -1
    assert (host(x)[1] == 7).all() and host(x)[2, 3] == -1
    assert x[1:].data.ptr == x.data.ptr + 16 and state.used_bytes == 512
    assert x.reshape(12).flags.c_contiguous and not x.T.flags.c_contiguous
    assert x.ravel().data.ptr == x.data.ptr and x.copy().data.ptr != x.data.ptr
    assert cp.ascontiguousarray(x) is not None and cp.asarray(x).data.ptr == x.data.ptr


def test_fresh_memory_is_poisoned(cp, x):
    assert np.isnan(host(cp.empty((3, 4), np.float32))).all() and np.isnan(host(cp.empty_like(x))).all()
    assert (host(cp.empty(5, np.int32)) == -842150451).all()
    import cupyx

    assert np.isnan(cupyx.empty_pinned((2, 3))).all()


def test_round_trips_are_counted(cp, x):
    (x @ x.T).sum() + x[1, 2]
    assert not state.trips
    float(x[0, 0]), int(x[0, 1]), bool(x[0, 2] > 0), x.get(), cp.asnumpy(x), x[0, 0].item(), x.tolist()
    assert state.trips == {"float": 1, "int": 1, "bool": 1, "get": 3, "item": 1}
    state.trips.clear()
    x[x > 3], cp.flatnonzero(x), cp.unique(x)
    assert state.trips == {"nonzero": 3}
    cp.asarray(np.ones(3)), x.set(np.ones((3, 4), "f4"))
    assert state.uploads >= 2


def test_copies_arrive_at_the_next_synchronisation(cp, x):
    import cupyx

    stream, event = cp.cuda.Stream(non_blocking=True), cp.cuda.Event()
    landing = cupyx.empty_pinned((3, 4), np.float32)
    with stream:
        x.get(out=landing, blocking=False)
        event.record()
        x += 100  # comes after the copy
    assert np.isnan(landing).all()
    while not event.done:
        time.sleep(0)
    np.testing.assert_array_equal(landing, np.arange(12).reshape(3, 4))
    staging = cupyx.empty_pinned((3, 4), np.float32)
    staging[:] = 1
    with stream:
        x.set(staging)
    stream.synchronize()
    staging[:] = 2
    with stream:
        x.set(staging)
    staging[:] = 3
    with pytest.raises(RuntimeError, match="overwritten before its copy"):
        stream.synchronize()


def test_memory_has_a_limit(cp):
    pool = cp.get_default_memory_pool()
    pool.set_limit(size=1 << 20)
    kept = cp.empty(100_000)
    with pytest.raises(MemoryError, match=r"allocating .* bytes \(allocated so far: 800,256 bytes, limit"):
        cp.zeros(100_000) + 1
    del kept
    assert state.used_bytes == 0 and state.peak_bytes == 800_256
    cp.zeros(100_000)
    assert cp.cuda.runtime.memGetInfo() == (8 << 30, 8 << 30) and pool.get_limit() == 1 << 20


def test_devices(cp, x):
    with cp.cuda.Device(1):
        y = cp.zeros((3, 4), np.float32)
        assert y.device.id == 1 and cp.cuda.Device().id == 1
        with pytest.raises(ValueError, match="array device = 0 while current = 1"):
            y + x
    assert cp.cuda.Device().id == 0 == x.device.id
    with pytest.raises(RuntimeError, match="cudaErrorInvalidDevice"), cp.cuda.Device(2):
        pass
    state.devices = 0
    assert not cp.is_available()
    with pytest.raises(RuntimeError, match="cudaErrorNoDevice"):
        cp.cuda.runtime.getDeviceCount()


def test_copies_and_pickles(cp, x):
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert isinstance(other, cp.ndarray) and other.data.ptr != x.data.ptr
        np.testing.assert_array_equal(host(other), host(x))


def test_sparse_matrices(cp, x, rng):
    from cupyx.scipy.sparse import csr_matrix, issparse

    dense = np.where(rng.random((5, 4)) < 0.4, rng.standard_normal((5, 4)), 0).astype("f4")
    made = csr_matrix(cp.asarray(dense))
    again = csr_matrix((made.data, made.indices, made.indptr), shape=(5, 4))
    assert issparse(again) and again.nnz == np.count_nonzero(dense) and again.data.data.ptr == made.data.data.ptr
    np.testing.assert_array_equal(host(again.toarray()), dense)
    np.testing.assert_allclose(host(again @ x.T), dense @ host(x).T, rtol=1e-6)
    np.testing.assert_allclose(host(again.T @ again.toarray()), dense.T @ dense, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(host(again[1:3].toarray()), dense[1:3])
    assert scipy.sparse.issparse(again.get()) and scipy.sparse.issparse(csr_matrix(again.get()).get())
    with pytest.raises(TypeError, match="NumPy array"):
        np.asarray(again)
    with pytest.raises(TypeError):
        again @ np.ones((4, 2), "f4")
    with pytest.raises(ValueError, match="device arrays"):
        csr_matrix((np.ones(1), np.zeros(1, int), np.array([0, 1])), shape=(1, 1))
    with pytest.raises(ValueError, match="supported"):
        csr_matrix((made.data.astype(int), made.indices, made.indptr), shape=(5, 4))


def test_transforms_stay_single(cp, x):
    from cupyx.scipy import fft

    for module in (cp.fft, fft):
        spectrum = module.rfft2(x, s=(5, 6))
        assert spectrum.dtype == np.complex64 and spectrum.shape == (5, 4)
        np.testing.assert_allclose(host(module.irfft2(spectrum, s=(5, 6)))[:3, :4], host(x), atol=1e-5)
    np.testing.assert_allclose(
        host(cp.fft.fft(x, axis=0, norm="ortho")), np.fft.fft(host(x), axis=0, norm="ortho"), 1e-5
    )


def test_random_numbers(cp):
    made = cp.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    assert isinstance(made, cp.ndarray) and made.dtype == np.float32
    assert isinstance(cp.random.RandomState(0).rand(3), cp.ndarray)


def test_kernels(cp, x):
    from gpu import shim

    if shim.shim_problem():
        pytest.skip(shim.shim_problem())
    code = """
    template <typename T> __global__ void twice(const T* x, T* out, const int n) {
      for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = T(2) * x[i];
    }"""
    with pytest.raises(ValueError, match="-std"):
        cp.RawModule(code=code, name_expressions=("twice<float>",))
    module = cp.RawModule(code=code, options=("-std=c++17",), name_expressions=("twice<float>",))
    kernel, out = module.get_function("twice<float>"), cp.empty_like(x)
    kernel((1,), (32,), (x, out, np.int32(12)), shared_mem=0)
    np.testing.assert_array_equal(host(out), 2 * host(x))
    for values in ((x, out, 12), (host(x), out, np.int32(12)), (x, out.astype("f8"), np.int32(12))):
        with pytest.raises(TypeError):
            kernel((1,), (32,), values)
    with pytest.raises(KeyError):
        module.get_function("twice<double>")
