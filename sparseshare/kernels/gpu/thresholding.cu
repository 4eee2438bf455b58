// Codes by thresholding: the soft threshold, a warp a signal; normalised iterative hard thresholding, a block a signal.

// The non-zeros of a soft-thresholded row, in the order of the atoms.
// instance: threshold<float> registers 56
// instance: threshold<double> registers 64
template <typename T>
__global__ void __launch_bounds__(256, 4) threshold(const T* __restrict__ Q, const T* __restrict__ alpha,
                                                    const T* __restrict__ weights, const bool positive, const int n_rows,
                                                    const int n_atoms, const int capacity, int* __restrict__ indices,
                                                    T* __restrict__ values, int* __restrict__ counts) {
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  for (int i = blockIdx.x * warps + threadIdx.x / WARP; i < n_rows; i += gridDim.x * warps) {
    const long long first = (long long)i * n_atoms, out = (long long)i * capacity;
    const T penalty = alpha[i];
    int written = 0;
    for (int k = 0; k < n_atoms; k += WARP) {  // whole vectors of atoms: all lanes take part
      T q = Q[first + k + lane];
      if (positive && q < T(0)) q = T(0);
      const T w = soft_threshold(q, weights ? penalty * weights[first + k + lane] : penalty);
      const unsigned there = __ballot_sync(FULL, w != T(0));
      if (w != T(0)) {
        const int place = written + __popc(there & ((1u << lane) - 1));
        indices[out + place] = k + lane;
        values[out + place] = w;
      }
      written += __popc(there);
    }
    if (lane == 0) counts[i] = written;
  }
}

__device__ __forceinline__ int bits_of(float size) { return __float_as_int(size); }
__device__ __forceinline__ long long bits_of(double size) { return __double_as_longlong(size); }
template <typename T>
struct Bits {
  typedef int type;
  static constexpr int highest = 30;
};
template <>
struct Bits<double> {
  typedef long long type;
  static constexpr int highest = 62;
};

template <typename V>
__device__ __forceinline__ V block_total(V value) {  // the same for all threads, in one order
  SHARED(V, parts, 32);
  value = warp_sum(value);
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
  __syncthreads();
  V total = parts[0];
  for (int w = 1; w < (int)blockDim.x / WARP; ++w) total += parts[w];
  __syncthreads();
  return total;
}

template <typename T>
__device__ __forceinline__ T size_of(const T value, const bool positive) {
  return positive ? (value > T(0) ? value : T(0)) : magnitude(value);
}

// The `count` largest non-zero entries by size, earlier atoms first on a tie, in the order of the atoms; their number.
// The size of the last of them is found bit by bit.
template <typename T>
__device__ __forceinline__ int select_largest(const T* v, const int n_atoms, const int count, const bool positive, int* idx,
                                              T* coef) {
  typedef typename Bits<T>::type Word;
  SHARED(int, above_of, 32);
  SHARED(int, level_of, 32);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  Word least = 0;
  if (count > 0) {
    for (int bit = Bits<T>::highest; bit >= 0; --bit) {
      const Word trial = least | ((Word)1 << bit);
      int enough = 0;
      for (int k = threadIdx.x; k < n_atoms; k += blockDim.x) enough += bits_of(size_of(v[k], positive)) >= trial;
      if (block_total(enough) >= count) least = trial;
    }
  }
  int above = 0;
  for (int k = threadIdx.x; k < n_atoms; k += blockDim.x) above += bits_of(size_of(v[k], positive)) > least;
  above = block_total(above);
  int left = count - above, written = 0;  // entries as large as the last one that still fit
  if (count == 0) return 0;
  for (int start = 0; start < n_atoms; start += blockDim.x) {
    const int k = start + threadIdx.x;
    const T value = k < n_atoms ? v[k] : T(0);
    const Word size = bits_of(size_of(value, positive));
    const bool on = size > least, level = size == least && size > 0;
    const unsigned ons = __ballot_sync(FULL, on), levels = __ballot_sync(FULL, level), before = (1u << lane) - 1;
    if (lane == 0) {
      above_of[warp] = __popc(ons);
      level_of[warp] = __popc(levels);
    }
    __syncthreads();
    int on_before = __popc(ons & before), level_before = __popc(levels & before), all_on = 0, all_level = 0;
    for (int w = 0; w < warps; ++w) {
      if (w < warp) {
        on_before += above_of[w];
        level_before += level_of[w];
      }
      all_on += above_of[w];
      all_level += level_of[w];
    }
    if (on || (level && level_before < left)) {
      const int place = written + on_before + (level_before < left ? level_before : left);
      idx[place] = k;
      coef[place] = value;
    }
    const int taken = all_level < left ? all_level : left;
    written += all_on + taken;
    left -= taken;
    __syncthreads();
  }
  return written;
}

// g = q - G w for a sparse w.
template <typename T>
__device__ __forceinline__ void sweep(const T* q, const T* __restrict__ G, const int n_atoms, const int* idx, const T* coef,
                                      const int m, T* g) {
  for (int k = threadIdx.x; k < n_atoms; k += blockDim.x) {
    T total = q[k];
    for (int a = 0; a < m; ++a) total -= coef[a] * G[(long long)idx[a] * n_atoms + k];
    g[k] = total;
  }
  __syncthreads();
}

template <typename T>
__device__ __forceinline__ double squared_residual(const T* q, const T* g, const int* idx, const T* coef, const int m,
                                                   const double norm2) {
  double explained = 0;
  for (int a = threadIdx.x; a < m; a += blockDim.x) explained += (double)coef[a] * ((double)q[idx[a]] + (double)g[idx[a]]);
  const double rest = norm2 - block_total(explained);
  return rest > 0 ? rest : 0;
}

// The step that minimises the residual along g on a support.
template <typename T>
__device__ __forceinline__ T normalised_step(const T* g, const int* idx, const int m, const T* __restrict__ G,
                                             const int n_atoms, const T safe) {
  T square = T(0), curvature = T(0);
  for (int a = threadIdx.x; a < m; a += blockDim.x) {
    const T* row = G + (long long)idx[a] * n_atoms;
    T along = T(0);
    for (int b = 0; b < m; ++b) along += row[idx[b]] * g[idx[b]];
    square += g[idx[a]] * g[idx[a]];
    curvature += along * g[idx[a]];
  }
  square = block_total(square);
  curvature = block_total(curvature);
  const T length = curvature > T(0) ? square / curvature : safe;
  return length > safe ? length : safe;
}

// Least squares on a support, by one warp: atoms that depend on earlier ones leave, and if codes are to be non-negative
// those whose values would not be, one by one. Returns the number of atoms that stay, in all lanes. `factor` is a lower
// triangle in rows of `capacity`.
template <typename T>
__device__ __forceinline__ int least_squares(const T* q, const T* __restrict__ G, const int n_atoms, const int capacity,
                                             const bool positive, int m, int* idx, T* coef, T* x, T* factor) {
  const int lane = threadIdx.x % WARP;
  const T dependent = sizeof(T) == 4 ? T(1e-5) : T(1e-10);
  for (;;) {
    int kept = 0;
    for (int a = 0; a < m; ++a) {
      const int atom = idx[a];
      const T value = coef[a], *row = G + (long long)atom * n_atoms;
      for (int b = lane; b < kept; b += WARP) x[b] = row[idx[b]];
      __syncwarp();
      T square = T(0);
      for (int j = 0; j < kept; ++j) {  // forward substitution
        const T here = x[j] / factor[j * capacity + j];
        square += here * here;
        for (int b = j + 1 + lane; b < kept; b += WARP) x[b] -= factor[b * capacity + j] * here;
        if (lane == 0) factor[kept * capacity + j] = here;
        __syncwarp();
      }
      const T pivot2 = row[atom] - square;
      if (pivot2 > dependent * row[atom]) {
        if (lane == 0) {
          factor[kept * capacity + kept] = sqrt(pivot2);
          idx[kept] = atom;
          coef[kept] = value;
        }
        ++kept;
      }
      __syncwarp();
    }
    m = kept;
    for (int a = lane; a < m; a += WARP) x[a] = q[idx[a]];
    __syncwarp();
    for (int j = 0; j < m; ++j) {
      const T here = x[j] / factor[j * capacity + j];
      __syncwarp();
      if (lane == 0) x[j] = here;
      for (int b = j + 1 + lane; b < m; b += WARP) x[b] -= factor[b * capacity + j] * here;
      __syncwarp();
    }
    for (int j = m - 1; j >= 0; --j) {
      const T here = x[j] / factor[j * capacity + j];
      __syncwarp();
      if (lane == 0) x[j] = here;
      for (int b = lane; b < j; b += WARP) x[b] -= factor[j * capacity + b] * here;
      __syncwarp();
    }
    T t = T(1);
    int drop = m;
    if (positive) {
      for (int a = 0; a < m; ++a) {
        if (x[a] <= T(0) && (drop == m || coef[a] < t * (coef[a] - x[a]))) {
          t = coef[a] > T(0) ? coef[a] / (coef[a] - x[a]) : T(0);
          drop = a;
        }
      }
    }
    __syncwarp();  // kept: the values that some step would make negative have been read
    for (int a = lane; a < m; a += WARP) coef[a] = drop == m ? x[a] : coef[a] + t * (x[a] - coef[a]);
    __syncwarp();
    if (drop == m) return m;
    if (lane == 0) {
      for (int a = drop; a < m - 1; ++a) {
        idx[a] = idx[a + 1];
        coef[a] = coef[a + 1];
      }
    }
    --m;
    __syncwarp();  // kept: one lane has moved the atoms up
  }
}

// instance: iht<float> registers 168
// instance: iht<double> registers 168
template <typename T>
__global__ void __launch_bounds__(128, 3) iht(const T* __restrict__ Q, const double* __restrict__ norms2,
                                              const T* __restrict__ G, const long long* __restrict__ n_nonzero, const T safe,
                                              const double tol, const int max_iter, const bool positive, const int n_signals,
                                              const int n_atoms, const int capacity, T* scratch, const long long items,
                                              int* __restrict__ indices, T* __restrict__ values, int* __restrict__ counts,
                                              double* __restrict__ residuals, int* __restrict__ iterations,
                                              signed char* __restrict__ status) {
  DYNAMIC_SHARED(T, dynamic);
  SHARED(int, how_many, 1);
  T* memory = scratch ? scratch + blockIdx.x * items : dynamic;
  T *g = memory, *new_g = g + n_atoms, *score = new_g + n_atoms, *coef = score + n_atoms, *new_coef = coef + capacity;
  T *x = new_coef + capacity, *factor = x + capacity;
  int *idx = reinterpret_cast<int*>(factor + capacity * capacity), *new_idx = idx + capacity;
  for (int i = blockIdx.x; i < n_signals; i += gridDim.x) {
    const T* q = Q + (long long)i * n_atoms;
    const double norm2 = norms2[i];
    const int count = n_nonzero[i] < capacity ? (int)n_nonzero[i] : capacity;
    int m = 0, rounds = 0, outcome = 1;
    double residual2 = norm2;
    sweep(q, G, n_atoms, idx, coef, 0, g);
    while (rounds < max_iter) {
      ++rounds;
      T length;
      if (m == 0) {  // the atoms that a first step would choose
        const int first = select_largest(g, n_atoms, count, positive, new_idx, new_coef);
        length = normalised_step(g, new_idx, first, G, n_atoms, safe);
      } else {
        length = normalised_step(g, idx, m, G, n_atoms, safe);
      }
      int new_m;
      double new_residual2;
      for (;;) {
        for (int k = threadIdx.x; k < n_atoms; k += blockDim.x) score[k] = length * g[k];
        __syncthreads();
        for (int a = threadIdx.x; a < m; a += blockDim.x) score[idx[a]] += coef[a];
        __syncthreads();
        new_m = select_largest(score, n_atoms, count, positive, new_idx, new_coef);
        sweep(q, G, n_atoms, new_idx, new_coef, new_m, new_g);
        new_residual2 = squared_residual(q, new_g, new_idx, new_coef, new_m, norm2);
        if (new_residual2 <= residual2 || length <= safe) break;
        length = length * T(0.5) > safe ? length * T(0.5) : safe;
      }
      int moved = 0;
      for (int a = threadIdx.x; a < m && a < new_m; a += blockDim.x) moved += new_idx[a] != idx[a];
      const bool same = block_total(moved) == 0 && new_m == m;
      const double fall = residual2 - new_residual2;
      int* spare_idx = idx;
      T *spare_coef = coef, *spare_g = g;
      idx = new_idx, new_idx = spare_idx;
      coef = new_coef, new_coef = spare_coef;
      g = new_g, new_g = spare_g;
      m = new_m;
      residual2 = new_residual2;
      if (same && fall <= tol * norm2) {
        outcome = 0;
        break;
      }
    }
    if (threadIdx.x < WARP) {
      const int kept = least_squares(q, G, n_atoms, capacity, positive, m, idx, coef, x, factor);
      if (threadIdx.x == 0) *how_many = kept;
    }
    __syncthreads();
    const int kept = *how_many;
    if (kept < m && outcome == 0 && !positive) outcome = 2;
    sweep(q, G, n_atoms, idx, coef, kept, g);
    residual2 = squared_residual(q, g, idx, coef, kept, norm2);
    for (int a = threadIdx.x; a < kept; a += blockDim.x) {
      indices[(long long)i * capacity + a] = idx[a];
      values[(long long)i * capacity + a] = coef[a];
    }
    if (threadIdx.x == 0) {
      counts[i] = kept;
      residuals[i] = residual2;
      iterations[i] = rounds;
      status[i] = outcome;
    }
  }
}
