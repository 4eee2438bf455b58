// Thresholds on the outputs of units, with the bias added, the non-zeros counted, and the gradient back; the largest of
// every row; thresholds that move to a wanted density.
// instance: activate<float> registers 40
// instance: activate<double> registers 40
template <typename T>
__global__ void activate(T* __restrict__ z, const T* __restrict__ bias, const T* __restrict__ thresholds, const int mode,
                         const long long size, const int n_units, int* __restrict__ counts) {
  const long long step = (long long)gridDim.x * blockDim.x, first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const int jump = int(step % n_units);
  int k = int(first % n_units), count = 0;
  for (long long i = first; i < size; i += step) {
    const T a = activation(bias ? z[i] + bias[k] : z[i], thresholds[k], mode);
    z[i] = a;
    count += a != T(0);
    k += jump;
    k -= k < n_units ? 0 : n_units;
  }
  leave_count(count, counts);
}

// A block works on 32 units, and on one part of the rows: its sums are that part's. With `place` the rows are windows of
// ph x pw patches, n_pixels of them on a line, and dz has a row a patch: that of the largest gets the gradient.
// instance: activation_gradient<float> registers 64
// instance: activation_gradient<double> registers 64
template <typename T>
__global__ void activation_gradient(const T* __restrict__ da, const T* __restrict__ a, const T* __restrict__ thresholds,
                                    const int mode, const long long n_rows, const int n_units,
                                    const long long rows_a_part, const unsigned char* __restrict__ place, const int ph,
                                    const int pw, const int n_pixels, T* __restrict__ dz, T* __restrict__ sums,
                                    T* __restrict__ threshold_sums) {
  SHARED(T, shared_sums, 512);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  const int k = blockIdx.x * WARP + lane;
  const long long begin = blockIdx.y * rows_a_part, end = min(n_rows, begin + rows_a_part);
  T sum = T(0), threshold_sum = T(0);
  if (k < n_units) {
    const bool all = mode == ACTIVATION_LINEAR || ((mode == ACTIVATION_SOFT || mode == ACTIVATION_HARD) && thresholds[k] == T(0));
    for (long long row = begin + warp; row < end; row += warps) {
      const long long i = row * n_units + k;
      const T slope = da[i];
      T passed = slope;
      if (mode != ACTIVATION_LINEAR) {
        const T value = a[i];
        if (mode == ACTIVATION_TANH)
          passed = slope * (T(1) - value * value);
        else if (!all && value == T(0))
          passed = T(0);
        if (value != T(0)) threshold_sum -= value > T(0) ? slope : -slope;
      }
      sum += passed;
      if (place) {
        const long long line = divide(row, n_pixels), first = line * ph * n_pixels * pw + (row - line * n_pixels) * pw;
        const int where = place[i];
        for (int y = 0; y < ph; ++y)
          for (int x = 0; x < pw; ++x)
            dz[(first + (long long)y * n_pixels * pw + x) * n_units + k] = y * pw + x == where ? passed : T(0);
      } else if (dz) {
        dz[i] = passed;
      }
    }
  }
  shared_sums[threadIdx.x] = sum;
  shared_sums[threadIdx.x + blockDim.x] = threshold_sum;
  __syncthreads();
  if (warp == 0 && k < n_units) {
    for (int other = 1; other < warps; ++other) {
      sum += shared_sums[other * WARP + lane];
      threshold_sum += shared_sums[blockDim.x + other * WARP + lane];
    }
    const long long at = (long long)blockIdx.y * n_units + k;
    if (sums) sums[at] = sum;
    if (threshold_sums) threshold_sums[at] = threshold_sum;
  }
}

// Numbers as unsigned integers of the same order.
__device__ __forceinline__ unsigned ordered(const float v) {
  const unsigned bits = __float_as_uint(v);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ unsigned long long ordered(const double v) {
  const unsigned long long bits = (unsigned long long)__double_as_longlong(v);
  return bits >> 63 ? ~bits : bits | (1ull << 63);
}
__device__ __forceinline__ float number(const unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}
__device__ __forceinline__ double number(const unsigned long long key) {
  return __longlong_as_double((long long)(key >> 63 ? key & ~(1ull << 63) : ~key));
}

// The key of this rank, from 0, among `key_of(0)`, ..., digit by digit from the top; for all threads of a block.
template <typename U, typename F>
__device__ U key_of_rank(const long long n, long long rank, const F key_of) {
  SHARED(int, counts, 256);
  SHARED(long long, found, 2);
  U key = 0, known = 0;
  for (int shift = 8 * (int)sizeof(U) - 8; shift >= 0; shift -= 8) {
    for (int digit = threadIdx.x; digit < 256; digit += blockDim.x) counts[digit] = 0;
    __syncthreads();
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {
      const U other = key_of(i);
      if ((other & known) == key) atomicAdd(&counts[int(other >> shift) & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 0;
      while (digit < 255 && rank >= counts[digit]) rank -= counts[digit++];
      found[0] = digit;
      found[1] = rank;
    }
    __syncthreads();
    key |= U(found[0]) << shift;
    known |= U(255) << shift;
    rank = found[1];
  }
  return key;
}

// A block a row: the `kept` largest magnitudes stay, earlier ones first on a tie.
// instance: keep_largest<float> registers 64
// instance: keep_largest<double> registers 64
template <typename T>
__global__ void keep_largest(T* __restrict__ z, const T* __restrict__ bias, const int n_units, const long long n,
                             const long long kept, int* __restrict__ counts) {
  SHARED(int, tied, 32);
  T* row = z + blockIdx.x * n;
  if (bias)
    for (long long i = threadIdx.x; i < n; i += blockDim.x) row[i] += bias[i % n_units];

  const auto least = key_of_rank<decltype(ordered(T(0)))>(n, n - kept, [row](long long i) { return ordered(fabs(row[i])); });
  int larger = 0;
  for (long long i = threadIdx.x; i < n; i += blockDim.x) larger += ordered(fabs(row[i])) > least;
  larger = warp_sum(larger);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  if (lane == 0) tied[warp] = larger;
  __syncthreads();
  long long room = kept;
  for (int other = 0; other < warps; ++other) room -= tied[other];
  __syncthreads();
  int count = 0;
  for (long long base = 0; base < n; base += blockDim.x) {
    const long long i = base + threadIdx.x;
    const auto key = i < n ? ordered(fabs(row[i])) : ordered(T(0));
    const bool tie = i < n && key == least;
    const unsigned ties = __ballot_sync(FULL, tie);
    if (lane == 0) tied[warp] = __popc(ties);
    __syncthreads();
    int before = __popc(ties & ((1u << lane) - 1u)), all = 0;
    for (int other = 0; other < warps; ++other) {
      before += other < warp ? tied[other] : 0;
      all += tied[other];
    }
    if (i < n) {
      if (key < least || (tie && before >= room)) row[i] = T(0);
      count += row[i] != T(0);
    }
    room -= all;
    __syncthreads();
  }
  leave_count(count, counts);
}

// Thresholds moved by `rate` towards the quantile of what they are compared with, one block a threshold: of all units
// together, or of each unit.
// instance: move_thresholds<float> registers 48
// instance: move_thresholds<double> registers 56
template <typename T>
__global__ void move_thresholds(const T* __restrict__ z, const long long n_rows, const int n_units, const bool by_unit,
                                const bool nonnegative, const double quantile, const double rate,
                                T* __restrict__ thresholds) {
  SHARED(T, nearest, 32);
  const long long n = by_unit ? n_rows : n_rows * n_units, stride = by_unit ? n_units : 1;
  const T* from = z + (by_unit ? blockIdx.x : 0);
  const auto key_of = [from, stride, nonnegative](long long i) {
    const T v = from[i * stride];
    return ordered(nonnegative ? v : fabs(v));
  };
  const double place = quantile * double(n - 1);
  const long long rank = min((long long)place, n - 1);
  const auto key = key_of_rank<decltype(ordered(T(0)))>(n, rank, key_of);
  // The next one up is the same, or the smallest of those that are larger.
  long long below = 0;
  T next = T(0);
  bool any = false;
  for (long long i = threadIdx.x; i < n; i += blockDim.x) {
    const auto other = key_of(i);
    below += other <= key;
    const T v = number(other);
    if (other > key && (!any || v < next)) {
      next = v;
      any = true;
    }
  }
  SHARED(long long, at_most, 32);
  SHARED(int, some, 32);
  below = warp_sum(below);
#pragma unroll
  for (int offset = WARP / 2; offset; offset >>= 1) {
    const T there = __shfl_xor_sync(FULL, next, offset);
    const bool known = __shfl_xor_sync(FULL, (int)any, offset);
    if (known && (!any || there < next)) next = there;
    any = any || known;
  }
  if (threadIdx.x % WARP == 0) {
    at_most[threadIdx.x / WARP] = below;
    nearest[threadIdx.x / WARP] = next;
    some[threadIdx.x / WARP] = any;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < (int)blockDim.x / WARP; ++warp) {
      below += at_most[warp];
      if (some[warp] && (!any || nearest[warp] < next)) next = nearest[warp];
      any = any || some[warp];
    }
    const double low = number(key), high = any && below <= rank + 1 ? double(next) : low;
    const double wanted = max(low + (high - low) * (place - double(rank)), 0.0);
    const double old = thresholds[blockIdx.x];
    thresholds[blockIdx.x] = T(old + (wanted - old) * rate);
  }
}
