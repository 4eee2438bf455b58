// Weights that share values: hashes of positions, weights spelled out, gradients gathered.

template <typename T>
__device__ __forceinline__ T signed_value(const T value, const signed char* __restrict__ signs, const long long place) {
  return signs && signs[place] < 0 ? -value : value;
}

// instance: hashed_index<int> registers 32
template <typename I>
__global__ void hashed_index(const unsigned n_values, const unsigned key, const long long n, I* __restrict__ index,
                             signed char* __restrict__ signs) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x; p < n; p += step) {
    const unsigned word = mix((unsigned)p ^ key);
    index[p] = I(((unsigned long long)word * n_values) >> 32);
    signs[p] = word & 1u ? -1 : 1;
  }
}

// instance: spell_out<float> registers 40
// instance: spell_out<double> registers 48
template <typename T>
__global__ void spell_out(const T* __restrict__ values, const int* __restrict__ index,
                          const signed char* __restrict__ signs, const long long n, T* __restrict__ out) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x; p < n; p += step) {
    const int i = index[p];
    out[p] = i >= 0 ? signed_value(values[i], signs, p) : T(0);
  }
}

// One block a value. `order` lists the weights of the values one after the other, those of value v from starts[v] on.
// instance: gather_gradients<float> registers 40
// instance: gather_gradients<double> registers 40
template <typename T>
__global__ void gather_gradients(const T* __restrict__ gradient, const signed char* __restrict__ signs,
                                 const int* __restrict__ order, const long long* __restrict__ starts,
                                 T* __restrict__ sums) {
  SHARED(double, parts, 32);
  const long long v = blockIdx.x, end = starts[v + 1];
  double total = 0.0;
  for (long long i = starts[v] + threadIdx.x; i < end; i += blockDim.x) {
    const int place = order[i];
    total += signed_value(gradient[place], signs, place);
  }
  total = warp_sum(total);
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = total;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < (int)blockDim.x / WARP; ++warp) total += parts[warp];
    sums[v] += T(total);
  }
}
