// Steps of an unrolled sparse coder. Codes are dense here: products of whole matrices are what a GPU is fast at.

// codes = soft(products + factor * inputs, thresholds), and where the next step starts: codes + momentum * (codes - the
// codes before). One pass over all of it.
// instance: unrolled_step<float> registers 40
// instance: unrolled_step<double> registers 48
template <typename T>
__global__ void __launch_bounds__(256) unrolled_step(
    const T* __restrict__ products, const T* inputs, const T factor, const T* __restrict__ thresholds,
    const bool positive, const T momentum, const long long n, const int n_atoms, T* codes, T* points) {
  const long long stride = (long long)gridDim.x * blockDim.x;
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  int atom = (int)(i % n_atoms);
  const int step = (int)(stride % n_atoms);
  for (; i < n; i += stride) {
    const T value = (products == nullptr ? T(0) : products[i]) + factor * inputs[i];
    // NaN stays NaN: what has diverged must be seen to have.
    const T high = thresholds[atom], inner = value < high ? value : high, low = positive ? inner : -high;
    const T code = value != value ? value : value - (inner > low ? inner : low);
    if (points != nullptr) points[i] = code + momentum * (code - codes[i]);
    codes[i] = code;
    atom += step;
    if (atom >= n_atoms) atom -= n_atoms;
  }
}

// Coordinate descent over the atoms that a code has: one warp a signal, its atoms, values and correlations in shared
// memory, or in `scratch` where there are too many atoms for that.
// instance: descend_rows<float> registers 48
// instance: descend_rows<double> registers 56
template <typename T>
__global__ void descend_rows(
    const T* __restrict__ correlations, const T* __restrict__ gram, const T penalty, const T quiet, const int n_sweeps,
    const bool positive, const long long n, const int n_atoms, T* __restrict__ codes, T* scratch, int* places) {
  DYNAMIC_SHARED(T, memory);
  const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const long long row = (long long)blockIdx.x * warps + warp;
  if (row >= n) return;
  T* value = scratch == nullptr ? memory + 2 * warp * n_atoms : scratch + 2 * row * n_atoms;
  T* inner = value + n_atoms;
  int* index = scratch == nullptr ? reinterpret_cast<int*>(memory + 2 * warps * n_atoms) + warp * n_atoms
                                  : places + row * n_atoms;
  T* code = codes + row * n_atoms;
  int m = 0;
  for (int start = 0; start < n_atoms; start += WARP) {
    const int k = start + lane;
    const T entry = k < n_atoms ? code[k] : T(0);
    const bool used = entry != T(0) && gram[(long long)k * n_atoms + k] > T(0);
    const unsigned some = __ballot_sync(FULL, used);
    if (used) {
      const int a = m + __popc(some & ((1u << lane) - 1u));
      index[a] = k;
      value[a] = entry;
      inner[a] = correlations[row * n_atoms + k];
    }
    m += __popc(some);
  }
  __syncwarp();
  for (int sweep = 0; sweep < n_sweeps; ++sweep) {
    T change = T(0);
    for (int a = 0; a < m; ++a) {
      const T* near = gram + (long long)index[a] * n_atoms;
      const T scale = near[index[a]], old = value[a], sum = inner[a] + scale * old;
      const T moved = positive && sum < T(0) ? T(0) : soft_threshold(sum, penalty) / scale;
      const T step = moved - old;
      __syncwarp();  // all lanes have read what one of them writes now
      if (step != T(0)) {
#pragma unroll 2
        for (int b = lane; b < m; b += WARP) inner[b] -= step * near[index[b]];
        if (lane == 0) value[a] = moved;
        change = max(change, magnitude(step) * scale);
      }
      __syncwarp();
    }
    if (change <= quiet) break;
  }
  for (int k = lane; k < n_atoms; k += WARP) code[k] = T(0);
  __syncwarp();
  for (int a = lane; a < m; a += WARP) code[index[a]] = value[a];
}
