// Sums over sparse activation maps: phi, how maps go together, and psi, how maps and signals go together. Both are sums
// over the non-zeros of an atom of what lies at some lags from them, in planes that are continued beyond their ends.

// out[k, q, lag] += weight * sum over the non-zeros u of atom k of z_k[u] planes[q, at(u) + offsets[lag]], for k from
// blockIdx.y on. Threads are pairs of plane and lag; they go through the non-zeros of their atom in order, in float64.
// `starts` are the places of the atoms' first non-zeros; positions (n0, n1, n2) lie in planes with rows of wide1 and
// wide2 entries.
// instance: correlate_entries<float> registers 48
// instance: correlate_entries<double> registers 48
template <typename T>
__global__ void __launch_bounds__(256, 2) correlate_entries(
    const long long* __restrict__ indices, const T* __restrict__ values, const long long* __restrict__ starts,
    const T* __restrict__ planes, const long long* __restrict__ offsets, const int n_planes, const int n_lags,
    const int n0, const int n1, const int n2, const int wide1, const int wide2, const long long plane,
    const double weight, double* __restrict__ out) {
  constexpr int TOGETHER = 256;
  SHARED(long long, at, TOGETHER);
  SHARED(double, value, TOGETHER);
  const long long pair = (long long)blockIdx.x * blockDim.x + threadIdx.x, pairs = (long long)n_planes * n_lags;
  const long long n_positions = (long long)n0 * n1 * n2;
  const bool own = pair < pairs;
  const T* from = own ? planes + pair / n_lags * plane + offsets[pair % n_lags] : planes;
  double total = 0;
  for (long long begin = starts[blockIdx.y]; begin < starts[blockIdx.y + 1]; begin += TOGETHER) {
    const int here = (int)min((long long)TOGETHER, starts[blockIdx.y + 1] - begin);
    __syncthreads();
    if ((int)threadIdx.x < here) {
      const long long position = indices[begin + threadIdx.x] % n_positions, line = position / n2;
      at[threadIdx.x] = (line / n1 * wide1 + line % n1) * wide2 + position % n2;
      value[threadIdx.x] = (double)values[begin + threadIdx.x];
    }
    __syncthreads();
    if (own) {
#pragma unroll 4
      for (int a = 0; a < here; ++a) total += value[a] * (double)from[at[a]];
    }
  }
  if (own) out[(long long)blockIdx.y * pairs + pair] += weight * total;
}
