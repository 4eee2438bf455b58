"""The shim itself: what a warp, a block, shared memory and atomics do, and that broken kernels are found."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpu import shim

pytestmark = pytest.mark.skipif(shim.shim_problem() is not None, reason=str(shim.shim_problem()))

CODE = """
#define FULL 0xffffffffu
// instance: exchange<float> registers 1
// instance: exchange<double> registers 1
// instance: exchange<long long> registers 1
template <typename T>
__global__ void exchange(const T* x, T* down, T* up, T* other, T* first, unsigned* votes, int* any, int* all) {
  const int t = threadIdx.x;
  const T value = x[t];
  down[t] = __shfl_down_sync(FULL, value, 3);
  up[t] = __shfl_up_sync(FULL, value, 3);
  other[t] = __shfl_xor_sync(FULL, value, 5);
  first[t] = __shfl_sync(FULL, value, 7);
  votes[t] = __ballot_sync(FULL, value > T(0));
  any[t] = __any_sync(FULL, value > T(50));
  all[t] = __all_sync(FULL, value > T(-50));
}

// instance: block_votes<int> registers 1
template <typename I>
__global__ void block_votes(const I* x, I* count, I* any, I* all) {
  const int t = threadIdx.x;
  count[t] = __syncthreads_count(x[t]);
  any[t] = __syncthreads_or(x[t]);
  all[t] = __syncthreads_and(x[t]);
}

// instance: reverse<float, 128> registers 1
template <typename T, int THREADS>
__global__ void __launch_bounds__(THREADS) reverse(const T* x, T* out, const int mistake) {
  SHARED(T, kept, THREADS);
  DYNAMIC_SHARED(T, copy);
  const int t = threadIdx.x, warp = t / 32;
  for (int round = 0; round < 2; ++round) {
    kept[t] = x[blockIdx.x * THREADS + t];
    if (mistake != 1) __syncthreads();
    copy[t] = kept[THREADS - 1 - t];
    if (mistake != 2) __syncwarp();
    out[blockIdx.x * THREADS + t] = copy[warp * 32 + (t + 1) % 32];
    if (mistake != 3) __syncthreads();
  }
  if (mistake == 4 && t < 40) __syncthreads();
  if (mistake == 5 && t == 3) return;
  if (mistake == 6 && t % 2) __syncwarp();
  if (mistake == 7) copy[THREADS + t / 64] = T(1);
  if (mistake == 8 && blockIdx.x == 1 && t == 9) out[0] = T(1);
  if (mistake == 9 && t == 0) kept[t] += kept[t + 1], copy[t] = kept[0];
  if (mistake == 10) __shfl_sync(0xffffu, t, 0);
  __syncthreads();
}

// instance: unwritten<double> registers 1
template <typename T>
__global__ void unwritten(T* out, int* numbers) {
  SHARED(T, values, 32);
  SHARED(int, places, 32);
  DYNAMIC_SHARED(float, more);
  out[threadIdx.x] = values[threadIdx.x] + more[threadIdx.x];
  numbers[threadIdx.x] = places[threadIdx.x];
}

// instance: count_all<int> registers 1
template <typename I>
__global__ void count_all(I* total, I* largest, I* lowest, unsigned* tickets, float* sum, unsigned long long* last) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(total, t);
  atomicMax(largest, t);
  atomicMin(lowest, t);
  tickets[1 + atomicAdd(tickets, 1u)] = 1;
  atomicAdd(sum, 0.5f);
  atomicCAS(last, (unsigned long long)t, t + 1ull);
}

// instance: places<int> registers 1
template <typename I>
__global__ void places(I* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}

// instance: arguments<float, 3> registers 1
template <typename T, int N>
__global__ void arguments(double* out, const T a, const bool b, const signed char c, const unsigned char d,
                          const long long e, const unsigned f, const double g, const float4* missing) {
  if (threadIdx.x == 0) {
    const double given[] = {(double)a, (double)b, (double)c, (double)d, (double)e, (double)f, g, missing == nullptr, N};
    for (int k = 0; k < 9; ++k) out[k] = given[k];
  }
}
"""


@pytest.fixture(scope="module")
def module():
    return shim.ShimModule(CODE)


@pytest.fixture(params=shim.ORDERS)
def order(request):
    with shim.using(order=request.param, seed=3):
        yield request.param


@pytest.mark.parametrize("name, dtype", [("float", "f4"), ("double", "f8"), ("long long", "i8")])
def test_warp_operations(module, order, name, dtype, rng):
    x = rng.integers(-60, 60, 96).astype(dtype)
    down, up, other, first = (np.zeros(96, dtype) for _ in range(4))
    votes, any_, all_ = np.zeros(96, "u4"), np.zeros(96, "i4"), np.zeros(96, "i4")
    module.get_function(f"exchange<{name}>")((1,), (96,), (x, down, up, other, first, votes, any_, all_))
    lanes, warps = np.arange(32), x.reshape(3, 32)
    np.testing.assert_array_equal(down.reshape(3, 32), warps[:, np.where(lanes + 3 < 32, lanes + 3, lanes)])
    np.testing.assert_array_equal(up.reshape(3, 32), warps[:, np.where(lanes >= 3, lanes - 3, lanes)])
    np.testing.assert_array_equal(other.reshape(3, 32), warps[:, lanes ^ 5])
    np.testing.assert_array_equal(first.reshape(3, 32), np.repeat(warps[:, 7:8], 32, axis=1))
    bits = ((warps > 0) * (1 << lanes)).sum(axis=1)
    np.testing.assert_array_equal(votes.reshape(3, 32), np.repeat(bits[:, None], 32, axis=1))
    np.testing.assert_array_equal(any_.reshape(3, 32)[:, 0], (warps > 50).any(axis=1))
    np.testing.assert_array_equal(all_.reshape(3, 32)[:, 0], (warps > -50).all(axis=1))


@pytest.mark.parametrize("set_to_one", [[], [70], list(range(128))])
def test_block_votes(module, order, set_to_one):
    x = np.zeros(128, "i4")
    x[set_to_one] = 5
    count, any_, all_ = (np.full(128, -1, "i4") for _ in range(3))
    module.get_function("block_votes<int>")((1,), (128,), (x, count, any_, all_))
    assert set(count) == {len(set_to_one)} and set(any_) == {len(set_to_one) > 0}
    assert set(all_) == {len(set_to_one) == 128}


def launch_reverse(module, mistake, blocks=2):
    x, out = np.arange(128 * blocks, dtype="f4"), np.full(128 * blocks, np.nan, "f4")
    module.get_function("reverse<float, 128>")((blocks,), (128,), (x, out, np.int32(mistake)), shared_mem=512)
    return x.reshape(blocks, 128), out.reshape(blocks, 128)


@pytest.mark.parametrize("mode", ["plain", "races"])
def test_barriers_and_shared_memory(module, order, mode):
    with shim.using(mode=mode):
        x, out = launch_reverse(module, 0)
    warps = x[:, ::-1].reshape(2, 4, 32)
    np.testing.assert_array_equal(out, np.roll(warps, -1, axis=2).reshape(2, 128))


RACES = {
    1: r"race: block .* byte \d+ of the shared array kept, which another thread of another warp|kept, which nobody",
    2: r"race: block .* byte \d+ of the shared array \(dynamic\), which another thread of its warp|\), which nobody",
    3: r"race: block .* byte \d+ of the shared array \(?\w+\)?, which another thread of (its|another) warp",
    8: r"race between blocks: .* device memory, which another block wrote",
}


@pytest.mark.parametrize("mistake", RACES)
def test_races_are_found(module, order, mistake):
    """Also those that no order of the threads shows: with mistake 3 the values written twice are the same."""
    with shim.using(mode="races"), pytest.raises(shim.ShimError, match=RACES[mistake]) as raised:
        launch_reverse(module, mistake)
    assert "line " in str(raised.value) and "[" in str(raised.value)  # and the text of the source there


@pytest.mark.parametrize("line", ["if (mistake != 1)", "if (mistake != 2)", "if (mistake != 3)"])
def test_a_skipped_barrier_orders_nothing(module, line):
    number = 1 + next(k for k, text in enumerate(CODE.splitlines()) if line in text)
    with shim.using(mode="races", skipped_line=number), pytest.raises(shim.ShimError, match="race"):
        launch_reverse(module, 0)


@pytest.mark.parametrize("mistake", [4, 5, 6])
def test_divergent_barriers(module, order, mistake):
    with pytest.raises(shim.ShimError, match=r"divergent barrier in block .*threads \d+ to \d+ (wait|have returned)"):
        launch_reverse(module, mistake)
    launch_reverse(module, 0)  # the next launch is none the worse


def test_other_mistakes(module):
    with pytest.raises(shim.ShimError, match=r"written past the end of the shared array \(dynamic\), 512 bytes"):
        launch_reverse(module, 7)
    with pytest.raises(shim.ShimError, match="warp operation of some lanes only"):
        launch_reverse(module, 10)
    with shim.using(mode="races", order="reverse"):
        launch_reverse(module, 9)  # one thread, in order


def test_shared_memory_starts_poisoned(module):
    for _ in range(2):
        out, numbers = np.zeros(32), np.zeros(32, "i4")
        module.get_function("unwritten<double>")((3,), (32,), (out, numbers), shared_mem=128)
        assert np.isnan(out).all() and (np.abs(numbers.astype("i8")) > 2**30).all()
    with shim.using(mode="races"), pytest.raises(shim.ShimError, match="shared array values, which nobody has written"):
        module.get_function("unwritten<double>")((3,), (32,), (out, numbers), shared_mem=128)


@pytest.mark.parametrize("mode", ["plain", "races"])
def test_atomics(module, order, mode):
    total, largest, lowest = np.zeros(1, "i4"), np.full(1, -9, "i4"), np.full(1, 9, "i4")
    tickets, sums, last = np.zeros(1 + 3 * 64, "u4"), np.zeros(1, "f4"), np.zeros(1, "u8")
    with shim.using(mode=mode):
        module.get_function("count_all<int>")((3,), (64,), (total, largest, lowest, tickets, sums, last))
    assert (total[0], largest[0], lowest[0], tickets[0]) == (191 * 192 // 2, 191, 0, 192)
    assert (tickets[1:] == 1).all() and sums[0] == 96
    assert last[0] >= 1 and (order != "forward" or last[0] == 192)


def test_indices_in_three_dimensions(module, order):
    out = np.full(24 * 64, -1, "i4")
    module.get_function("places<int>")((2, 3, 4), (4, 8, 2), (out,))
    np.testing.assert_array_equal(out.reshape(24, 64), 1000 * np.arange(24)[:, None] + np.arange(64))


def good_arguments():
    return [np.zeros(9), np.float32(1.5), np.bool_(True), np.int8(-3), np.uint8(200), np.int64(2**40), np.uint32(2**31),
            np.float64(1e300), np.uint64(0)]  # fmt: skip


def test_arguments_arrive(module):
    given = good_arguments()
    module.get_function("arguments<float, 3>")((1,), (32,), tuple(given))
    np.testing.assert_array_equal(given[0], [1.5, 1, -3, 200, 2**40, 2**31, 1e300, 1, 3])


@pytest.mark.parametrize(
    "position, value, message",
    [
        (0, np.zeros(9, "f4"), "array of float64, got one of float32"),
        (0, 3.0, "device array of float64, got float"),
        (1, 1.5, "NumPy scalar of float32, got float"),
        (1, np.float64(1.5), "NumPy scalar of float32, got float64"),
        (2, True, "NumPy scalar of bool8, got bool"),
        (3, np.uint8(1), "NumPy scalar of int8, got uint8"),
        (5, np.int32(1), "NumPy scalar of int64, got int32"),
        (8, None, "device array of structs"),
    ],
)
def test_arguments_of_the_wrong_type(module, position, value, message):
    given = good_arguments()
    given[position] = value
    with pytest.raises(
        TypeError, match=f"argument {position} must be a {message}|argument {position} must be an {message}"
    ):
        module.get_function("arguments<float, 3>")((1,), (32,), tuple(given))


def test_limits(module):
    kernel = module.get_function("reverse<float, 128>")
    x = np.zeros(256, "f4")
    for grid, block, shared, message in [
        ((1,), (256,), 512, "128 are allowed"),
        ((1,), (40,), 512, "whole warps"),
        ((1,), (32, 1, 128), 512, "128 are allowed"),
        ((1, 70000), (128,), 512, "more than CUDA takes"),
        ((0,), (128,), 512, "positive"),
        ((1,), (128,), 50000, "49152 were asked for"),
        ((1,), (128,), 49152, "512 bytes of static and 49152 of dynamic shared memory"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernel(grid, block, (x, x.copy(), np.int32(0)), shared_mem=shared)
    kernel.max_dynamic_shared_size_bytes = 60000
    kernel((1,), (128,), (x, x.copy(), np.int32(0)), shared_mem=50000)
    with pytest.raises(ValueError, match="232448 at most"):
        kernel.max_dynamic_shared_size_bytes = 232449
    with pytest.raises(TypeError, match="tuple"):
        kernel(1, (128,), (x, x, np.int32(0)))
    with pytest.raises(TypeError, match="takes 3 arguments, got 2"):
        kernel((1,), (128,), (x, x))


def test_names(module):
    assert len(module.expressions) == 9 and "arguments<float,3>" in module.expressions
    with pytest.raises(KeyError, match="no instance"):
        module.get_function("exchange<int>")
    with pytest.raises(RuntimeError, match="g\\+\\+ refuses"):
        shim.ShimModule(
            "template <typename T> __global__ void bad(T* x) { x[0] = nothing; }", ["bad<int>"]
        ).get_function("bad<int>")((1,), (32,), (np.zeros(1, "i4"),))


def test_needed_barriers_are_known(module):
    """Of the three barriers of the loop each alone keeps something apart; the last one of the kernel does not."""
    with shim.using(mode="races"):
        launch_reverse(module, 0)
    uses = shim.uses_of_barriers(CODE)
    lines = {number: text for number, text in shim.barriers(CODE).items() if "mistake" in text or "();" in text}
    needed = {text for number, text in lines.items() if uses[number] & shim.NEEDED}
    assert needed == {f"if (mistake != {k}) {name}();" for k, name in [(1, "__syncthreads"), (2, "__syncwarp"),
                                                                     (3, "__syncthreads")]}  # fmt: skip
    last = max(number for number, text in lines.items() if text == "__syncthreads();")
    assert uses[last] == shim.RAN


FAR = """template <typename T>
__global__ void far(T* out, const T* x, const int kept_at, const int x_at, const int own_at) {
  SHARED(T, kept, 40);
  T own[4];
  for (int k = 0; k < 4; ++k) own[k] = x[k];
  for (int k = threadIdx.x; k < 40; k += 32) kept[k] = T(1);
  __syncthreads();
  out[threadIdx.x] = kept[threadIdx.x + kept_at] + x[(int)threadIdx.x + x_at] + (own_at ? own[own_at] : T(0));
}"""


def launch_far(*places):
    kernel = shim.ShimModule(FAR, ["far<float>"]).get_function("far<float>")
    around = np.zeros(96, "f4")  # what lies beside an array does not count as the array
    kernel((1,), (32,), (np.zeros(32, "f4"), around[32:64], *map(np.int32, places)))


@pytest.mark.parametrize("places", [(9, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (8, 2**20, 0)])
def test_overruns_are_found(places):
    with shim.using(mode="races"):
        launch_far(8, 0, 3)
        with pytest.raises(shim.ShimError, match=r"thread \d+ reads 4 bytes outside of all arrays, at line 8 \(out"):
            launch_far(*places)


def test_an_overrun_of_a_thread_s_own_array_ends_the_process():
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from gpu import shim, test_shim
shim.settings.mode, shim.settings.cache = "races", {str(shim.settings.cache)!r}
test_shim.launch_far(0, 0, 4)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0 and "source.cu:8" in done.stderr
    assert "runtime error: index 4 out of bounds for type 'float [4]'" in done.stderr
