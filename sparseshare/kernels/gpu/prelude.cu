// What every family of kernels may use; put before each source. No includes: NVRTC and g++ (in tests) both compile this.
#define FULL 0xffffffffu
#define WARP 32

#ifndef CUDA_SHIM
// Static shared memory: `count` items of a type as a flat array. Tests bound and poison it.
#define SHARED(T, name, count) __shared__ T name[count]
// The launch's dynamic shared memory as a T*.
#define DYNAMIC_SHARED(T, name)                                          \
  extern __shared__ __align__(16) unsigned char dynamic_shared_memory[]; \
  T* name = reinterpret_cast<T*>(dynamic_shared_memory)
#endif

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {  // every lane gets the sum, added in one order for all of them
#pragma unroll
  for (int offset = WARP / 2; offset; offset >>= 1) value += __shfl_xor_sync(FULL, value, offset);
  return value;
}

template <typename T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
  for (int offset = WARP / 2; offset; offset >>= 1) {
    const T other = __shfl_xor_sync(FULL, value, offset);
    value = other > value ? other : value;
  }
  return value;
}

// The largest value of a warp and where it was; of equal ones the lowest index, so that the order does not matter.
template <typename T>
__device__ __forceinline__ void warp_argmax(T& value, int& index) {
#pragma unroll
  for (int offset = WARP / 2; offset; offset >>= 1) {
    const T other = __shfl_xor_sync(FULL, value, offset);
    const int there = __shfl_xor_sync(FULL, index, offset);
    if (other > value || (other == value && there < index)) {
      value = other;
      index = there;
    }
  }
}

// The same where no value is negative, for which newer devices have an instruction.
__device__ __forceinline__ void warp_best(double& score, int& index) { warp_argmax(score, index); }
__device__ __forceinline__ void warp_best(float& score, int& index) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned mine = __float_as_uint(score), top = __reduce_max_sync(FULL, mine);
  index = __reduce_min_sync(FULL, mine == top ? index : 0x7fffffff);
  score = __uint_as_float(top);
#else
  warp_argmax(score, index);
#endif
}

// The best of a block, for all its threads. `scores` and `indices` have an entry a warp; a barrier has to come between
// two calls.
template <typename T>
__device__ __forceinline__ void block_best(T& score, int& index, T* scores, int* indices) {
  warp_best(score, index);
  if (blockDim.x == WARP) {
    __syncwarp();
    return;
  }
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  if (lane == 0) {
    scores[threadIdx.x / WARP] = score;
    indices[threadIdx.x / WARP] = index;
  }
  __syncthreads();
  score = lane < warps ? scores[lane] : T(0);
  index = lane < warps ? indices[lane] : 0x7fffffff;
  warp_best(score, index);
}

// What one vector load or store moves.
template <typename T>
struct __align__(16) Pack {
  static constexpr int size = 16 / sizeof(T);
  T item[size];
};

template <typename T>
__device__ __forceinline__ Pack<T> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T>*>(from);
}

template <typename T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T>& pack) {
  *reinterpret_cast<Pack<T>*>(to) = pack;
}

template <typename T>
__device__ __forceinline__ T magnitude(T value) {
  return value < T(0) ? -value : value;
}

template <typename T>
__device__ __forceinline__ T soft_threshold(T value, T threshold) {
  const T rest = magnitude(value) - threshold;
  return rest > T(0) ? (value < T(0) ? -rest : rest) : T(0);
}

// The largest of non-negative numbers, which are ordered as their bits are.
__device__ __forceinline__ void atomic_max_nonnegative(float* target, float value) {
  atomicMax(reinterpret_cast<int*>(target), __float_as_int(value));
}
__device__ __forceinline__ void atomic_max_nonnegative(double* target, double value) {
  atomicMax(reinterpret_cast<unsigned long long*>(target), (unsigned long long)__double_as_longlong(value));
}

// a / b of numbers that are not negative, in 32 bits where they have no more: a division of 64 takes five times as long.
__device__ __forceinline__ long long divide(const long long a, const int b) {
  return a >> 31 ? a / b : (long long)((unsigned)a / (unsigned)b);
}

// A bijection of 32 bits in which every bit of the input moves about half of the output's.
__device__ __forceinline__ unsigned mix(unsigned word) {
  word ^= word >> 16;
  word *= 0x7FEB352Du;
  word ^= word >> 15;
  word *= 0x846CA68Bu;
  return word ^ (word >> 16);
}

// Leaves what the threads of a block have counted; the counts of all blocks are added up when somebody asks for them.
__device__ __forceinline__ void leave_count(int count, int* __restrict__ counts) {
  SHARED(int, warps, 32);
  count = warp_sum(count);
  if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = count;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < (int)blockDim.x / WARP; ++warp) count += warps[warp];
    counts[blockIdx.x] = count;
  }
}

// Activations of a network by the modes of the kernels; NaN comes out as NaN.
#define ACTIVATION_LINEAR 0
#define ACTIVATION_SOFT 1
#define ACTIVATION_SOFT_NONNEGATIVE 2
#define ACTIVATION_HARD 3
#define ACTIVATION_TANH 4
template <typename T>
__device__ __forceinline__ T activation(const T v, const T threshold, const int mode) {
  if (mode == ACTIVATION_LINEAR) return v;
  if (mode == ACTIVATION_TANH) return tanh(v);
  if (mode == ACTIVATION_HARD) return magnitude(v) < threshold ? T(0) : v;
  const T above = v - threshold;
  if (mode == ACTIVATION_SOFT_NONNEGATIVE) return above <= T(0) ? T(0) : above;
  const T below = v + threshold;
  return above > T(0) ? above : below < T(0) ? below : v != v ? v : T(0);
}
