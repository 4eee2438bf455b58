// Activations dropped by a hash of their place.

// instance: drop<float> registers 40
// instance: drop<double> registers 32
template <typename T>
__global__ void drop(const T* __restrict__ x, const unsigned key, const long long least, const T scale,
                     const long long n, T* __restrict__ out) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x; p < n; p += step)
    out[p] = mix((unsigned)p ^ key) >= least ? scale * x[p] : T(0);
}
