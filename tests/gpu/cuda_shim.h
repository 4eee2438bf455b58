// The CUDA dialect of sparseshare/kernels/gpu for g++: every CUDA thread of a block is a fiber of one CPU thread.
// Kernels see this file only; cuda_shim.cpp holds the scheduler and, where asked for, the race detector.
#pragma once
#define CUDA_SHIM 1
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define SHIM_PLAIN __attribute__((no_sanitize("thread")))

// Vector types, aligned as on the device.
#define SHIM_VECTORS(T, N2, N3, N4)                                    \
  struct alignas(2 * sizeof(T)) N2 { T x, y; };                        \
  struct N3 { T x, y, z; };                                            \
  struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) N4 { T x, y, z, w; }; \
  inline N2 make_##N2(T x, T y) { return {x, y}; }                     \
  inline N3 make_##N3(T x, T y, T z) { return {x, y, z}; }             \
  inline N4 make_##N4(T x, T y, T z, T w) { return {x, y, z, w}; }
SHIM_VECTORS(float, float2, float3, float4)
SHIM_VECTORS(double, double2, double3, double4)
SHIM_VECTORS(int, int2, int3, int4)
SHIM_VECTORS(unsigned, uint2, uint3, uint4)
SHIM_VECTORS(unsigned char, uchar2, uchar3, uchar4)
struct dim3 {
  unsigned x, y, z;
};

namespace shim {
struct Site {  // where a static shared array is declared
  void* memory;
  unsigned long long block;
};
extern "C" {
extern uint3 shim_thread_index, shim_block_index;
extern dim3 shim_block_size, shim_grid_size;
extern unsigned long long shim_block_serial;
extern void* shim_dynamic_memory;
void* shim_shared(Site* site, long bytes, const char* name);
int shim_block_barrier(const char* what, int line, int vote);
unsigned long long shim_shuffle(int kind, int by, int line, unsigned mask, int width, unsigned long long bits);
unsigned shim_ballot(const char* what, int line, unsigned mask, int predicate);
void shim_warp_barrier(int line, unsigned mask);
void shim_atomic(const void* address, int bytes);
void shim_fence();
void shim_fail(const char* message, int line);
int shim_run(const unsigned* grid, const unsigned* block, long dynamic_bytes, void (*body)(void*), void* arguments,
             long bytes_of_arguments, const bool* constant);
}

template <typename T, long COUNT>
inline T* shared(Site* site, const char* name) {
  static_assert(COUNT > 0 && std::is_trivial<T>::value, "shared arrays hold plain values");
  if (site->block != shim_block_serial) shim_shared(site, COUNT * (long)sizeof(T), name);
  return static_cast<T*>(site->memory);
}

enum Shuffle { FROM, XOR, DOWN, UP };

template <typename V>
SHIM_PLAIN inline V exchange(Shuffle kind, int by, int line, unsigned mask, int width, V value) {
  static_assert(sizeof(V) <= 8 && std::is_arithmetic<V>::value, "shuffles move numbers of at most 8 bytes");
  unsigned long long bits = 0;
  std::memcpy(&bits, &value, sizeof(V));
  bits = shim_shuffle(kind, by, line, mask, width, bits);
  std::memcpy(&value, &bits, sizeof(V));
  return value;
}

template <typename T, typename V, typename F>
SHIM_PLAIN inline T atomically(T* address, V, F change) {
  shim_atomic(address, sizeof(T));
  const T old = *address;
  *address = change(old);
  return old;
}

// From a kernel to a function that takes its arguments as pointers, and the arguments' types as text.
template <typename A>
struct Letter {
  static constexpr bool pointer = std::is_pointer<A>::value;
  using Item = std::remove_cv_t<std::remove_pointer_t<A>>;
  static constexpr char kind = std::is_same<Item, bool>::value               ? '?'
                               : std::is_floating_point<Item>::value         ? 'f'
                               : !std::is_integral<Item>::value              ? 'V'
                               : std::is_unsigned<Item>::value               ? 'u'
                                                                             : 'i';
  static void put(char*& text) {
    if (pointer) *text++ = '*';
    *text++ = kind;
    if (sizeof(Item) > 9) *text++ = (char)('0' + sizeof(Item) / 10);
    *text++ = (char)('0' + sizeof(Item) % 10);
    *text++ = ' ';
  }
};

template <typename... A>
void describe(void (*)(A...), char* text) {
  (Letter<A>::put(text), ...);
  *text = 0;
}

template <typename... A>
struct Call {
  void (*kernel)(A...);
  std::tuple<A...> arguments;
  SHIM_PLAIN static void run(void* self) {
    auto* call = static_cast<Call*>(self);
    std::apply(call->kernel, call->arguments);
  }
};

template <typename... A, std::size_t... I>
int launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, long bytes, void** values,
           std::index_sequence<I...>) {
  Call<A...> call{kernel, std::tuple<A...>(*static_cast<A*>(values[I])...)};
  const bool constant[] = {std::is_const<std::remove_pointer_t<A>>::value...};
  return shim_run(grid, block, bytes, &Call<A...>::run, &call, sizeof call, constant);
}

template <typename... A>
int launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, long bytes, void** values) {
  return launch(kernel, grid, block, bytes, values, std::index_sequence_for<A...>{});
}
}  // namespace shim

#define threadIdx (::shim::shim_thread_index)
#define blockIdx (::shim::shim_block_index)
#define blockDim (::shim::shim_block_size)
#define gridDim (::shim::shim_grid_size)
constexpr int warpSize = 32;

// A fresh allocation of the exact size for every block, filled with NaN: reading too early or too far shows.
#define SHARED(T, name, count)          \
  static ::shim::Site shim_site_##name; \
  T* const name = ::shim::shared<T, (count)>(&shim_site_##name, #name)
#define DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(::shim::shim_dynamic_memory)

#define SHIM_LINE int line = __builtin_LINE()
inline void __syncthreads(SHIM_LINE) { shim::shim_block_barrier("__syncthreads", line, 0); }
inline int __syncthreads_count(int vote, SHIM_LINE) {
  return shim::shim_block_barrier("__syncthreads_count", line, vote != 0);
}
inline int __syncthreads_or(int vote, SHIM_LINE) {
  return shim::shim_block_barrier("__syncthreads_or", line, vote != 0) > 0;
}
inline int __syncthreads_and(int vote, SHIM_LINE) {
  return shim::shim_block_barrier("__syncthreads_and", line, vote == 0) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SHIM_LINE) { shim::shim_warp_barrier(line, mask); }
inline void __threadfence() { shim::shim_fence(); }
inline void __threadfence_block() {}

#define SHIM_SHUFFLE(name, kind, by_type)                                                               \
  template <typename V>                                                                                 \
  inline V name(unsigned mask, V value, by_type by, int width = 32, SHIM_LINE) {                        \
    return ::shim::exchange(::shim::kind, (int)by, line, mask, width, value);                           \
  }
SHIM_SHUFFLE(__shfl_sync, FROM, int)
SHIM_SHUFFLE(__shfl_xor_sync, XOR, int)
SHIM_SHUFFLE(__shfl_down_sync, DOWN, unsigned)
SHIM_SHUFFLE(__shfl_up_sync, UP, unsigned)
inline unsigned __ballot_sync(unsigned mask, int predicate, SHIM_LINE) {
  return shim::shim_ballot("__ballot_sync", line, mask, predicate);
}
inline int __any_sync(unsigned mask, int predicate, SHIM_LINE) {
  return shim::shim_ballot("__any_sync", line, mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SHIM_LINE) {
  return shim::shim_ballot("__all_sync", line, mask, predicate) == 0xffffffffu;
}

// Atomics, for the types that every architecture since sm_60 has.
template <typename T, typename... U>
constexpr bool shim_is_one_of = (std::is_same<T, U>::value || ...);
#define SHIM_ATOMIC(name, result, ...)                                                                  \
  template <typename T>                                                                                 \
  inline T name(T* address, std::common_type_t<T> value) {                                              \
    static_assert(shim_is_one_of<T, __VA_ARGS__>, #name " is not there for this type on every device"); \
    return ::shim::atomically(address, value, [value](T old) -> T { return result; });                  \
  }
using shim_long = unsigned long long;
SHIM_ATOMIC(atomicAdd, old + value, int, unsigned, shim_long, float, double)
SHIM_ATOMIC(atomicSub, old - value, int, unsigned)
SHIM_ATOMIC(atomicMax, old > value ? old : value, int, unsigned, long long, shim_long)
SHIM_ATOMIC(atomicMin, old < value ? old : value, int, unsigned, long long, shim_long)
SHIM_ATOMIC(atomicExch, value, int, unsigned, shim_long, float)
SHIM_ATOMIC(atomicAnd, old & value, int, unsigned, shim_long)
SHIM_ATOMIC(atomicOr, old | value, int, unsigned, shim_long)
SHIM_ATOMIC(atomicXor, old ^ value, int, unsigned, shim_long)
template <typename T>
inline T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  static_assert(shim_is_one_of<T, int, unsigned, shim_long>, "atomicCAS is not there for this type on every device");
  return ::shim::atomically(address, value, [=](T old) -> T { return old == expected ? value : old; });
}

template <typename To, typename From>
inline To shim_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "bits of another size");
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}
inline int __float_as_int(float value) { return shim_bits<int>(value); }
inline unsigned __float_as_uint(float value) { return shim_bits<unsigned>(value); }
inline float __int_as_float(int value) { return shim_bits<float>(value); }
inline float __uint_as_float(unsigned value) { return shim_bits<float>(value); }
inline long long __double_as_longlong(double value) { return shim_bits<long long>(value); }
inline double __longlong_as_double(long long value) { return shim_bits<double>(value); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return value ? __builtin_clz((unsigned)value) : 32; }
inline int __clzll(long long value) { return value ? __builtin_clzll((unsigned long long)value) : 64; }
template <typename T>
inline T __ldg(const T* address) {
  return *address;
}

// NVRTC has these in the global namespace, for float and for double.
using std::abs, std::ceil, std::copysign, std::cos, std::exp, std::expm1, std::fabs, std::floor, std::fma, std::fmax,
    std::fmin, std::isfinite, std::isinf, std::isnan, std::ldexp, std::log, std::log1p, std::pow, std::rint, std::round,
    std::sin, std::sqrt, std::tanh, std::trunc;
template <typename A, typename B>
inline std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}
template <typename A, typename B>
inline std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}
inline float rsqrt(float value) { return 1.0f / std::sqrt(value); }
inline double rsqrt(double value) { return 1.0 / std::sqrt(value); }
inline float rsqrtf(float value) { return rsqrt(value); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float value) { return std::exp(value); }
inline float __logf(float value) { return std::log(value); }
