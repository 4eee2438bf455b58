// Orthogonal matching pursuit for signals with a mask each.
//
// The Gram matrix of each signal's own is never formed: chosen atoms are made orthonormal as vectors of features, and
// the change of all correlations is their product with the dictionary. A block takes SIGNALS signals a step further at
// a time, so that each entry of the dictionary, which comes from the second-level cache, serves them all; between two
// such passes warp s looks after signal s.

template <typename T>
__device__ __forceinline__ T rounding_level() {  // correlations below this share of the first are rounding
  return sizeof(T) == 4 ? T(1e-6) : T(2e-15);
}

// Sums over the features of factors, SIGNALS of them a feature, times the dictionary's entries or their squares.
template <typename T, int SIGNALS, bool SQUARES>
__device__ __forceinline__ void sum_features(const T* factors, const T* __restrict__ transposed, const int n_features,
                                             const int n_atoms, const int start, Pack<T>* sums) {
  constexpr int SIZE = Pack<T>::size;
#pragma unroll
  for (int s = 0; s < SIGNALS; ++s)
#pragma unroll
    for (int e = 0; e < SIZE; ++e) sums[s].item[e] = T(0);
#pragma unroll 1  // the sums take so many registers that more at a time would spill
  for (int f = 0; f < n_features; ++f) {
    const Pack<T> entries = load_pack(transposed + (long long)f * n_atoms + start);
#pragma unroll
    for (int part = 0; part < SIGNALS; part += SIZE) {
      const Pack<T> own = load_pack(factors + f * SIGNALS + part);
#pragma unroll
      for (int s = 0; s < SIZE; ++s)
#pragma unroll
        for (int e = 0; e < SIZE; ++e) {
          const T product = own.item[s] * entries.item[e];
          sums[part + s].item[e] += SQUARES ? product * product : product;
        }
    }
  }
}

// Codes of m atoms from their Cholesky factor, and y, the inverse pivots and room for as many numbers behind it; by one
// warp, in units of the atoms as they are.
template <typename T>
__device__ __forceinline__ void solve_codes(const int m, const T* factor, const int capacity, T* y, const T* scale,
                                            const int* chosen, T* __restrict__ values) {
  const T* inverse = y + capacity;
  T* code = y + 2 * capacity;
  const int lane = threadIdx.x % WARP;
  for (int a = lane; a < m; a += WARP) code[a] = y[a];
  __syncwarp();
  for (int a = m - 1; a >= 0; --a) {
    const T solved = code[a] * inverse[a];
    if (lane == 0) values[a] = solved * scale[chosen[a]];
    for (int b = lane; b < a; b += WARP) code[b] -= solved * factor[a * capacity + b];
    __syncwarp();
  }
}

// Every block has `block_items` items of scratch memory, an equal share for each of its signals: correlations, scales
// of the atoms, orthonormal atoms, their Cholesky factor, and three vectors.
// instance: pursue_masked<float, 8> registers 128
// instance: pursue_masked<double, 4> registers 168
template <typename T, int SIGNALS>
__global__ void __launch_bounds__(32 * SIGNALS, SIGNALS == 8 ? 2 : 3)
    pursue_masked(const T* __restrict__ correlations, const double* __restrict__ norms2, const T* __restrict__ atoms,
                  const T* __restrict__ transposed, const bool* __restrict__ missing,
                  const long long* __restrict__ n_nonzero, const double* __restrict__ max_error,
                  const long long* __restrict__ stops, const int n_stops, const int n_signals, const int n_atoms,
                  const int n_features, const int capacity, T* scratch, const long long block_items, int* indices,
                  T* __restrict__ values, int* __restrict__ counts, double* __restrict__ residuals,
                  signed char* __restrict__ status, T* __restrict__ path_values) {
  constexpr int SIZE = Pack<T>::size;
  SHARED(T, news, SIGNALS);  // correlation of the orthonormal atom that has just been chosen
  const T dependent = sizeof(T) == 4 ? T(1e-6) : T(1e-10), faint = T(1e-30), boost = T(1152921504606846976.0);  // 2^60
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int first = threadIdx.x * SIZE, width = blockDim.x * SIZE;
  const int share = (int)(block_items / SIGNALS) - n_features;
  T* factors = scratch + blockIdx.x * block_items;  // of the dictionary's features, for each signal
  T* shares = factors + n_features * SIGNALS;
  T* g = shares + (long long)warp * share;  // what warp s keeps of signal s begins with this
  for (int group = blockIdx.x; group <= (n_signals - 1) / SIGNALS; group += gridDim.x) {
    const long long i = (long long)group * SIGNALS + warp;
    const bool there = i < n_signals;
    int observed = 0;
    for (int f = lane; f < n_features; f += WARP) {
      const bool seen = there && !missing[i * n_features + f];
      factors[f * SIGNALS + warp] = seen ? T(1) : T(0);
      observed += seen;
    }
    observed = warp_sum(observed);
    const long long wanted = there ? n_nonzero[i] : 0;
    int limit = wanted < capacity ? (int)wanted : capacity;
    limit = limit < observed ? limit : observed;
    double rest = there ? norms2[i] : 0;
    T level = T(-1);
    int m = 0;
    if (there && lane == 0) status[i] = 0;

    // norms of what is left of the atoms; a second time for signals where their squares are lost
    T unit = T(1), largest = T(0);
    bool repeat = true;
    for (int round = 0; repeat; ++round) {
      __syncthreads();
      for (int start = first; start < n_atoms; start += width) {
        Pack<T> sums[SIGNALS];
        sum_features<T, SIGNALS, true>(factors, transposed, n_features, n_atoms, start, sums);
#pragma unroll
        for (int s = 0; s < SIGNALS; ++s) store_pack(shares + (long long)s * share + n_atoms + start, sums[s]);
      }
      __syncthreads();
      largest = T(0);
      for (int k = lane; k < n_atoms; k += WARP) largest = g[n_atoms + k] > largest ? g[n_atoms + k] : largest;
      largest = warp_max(largest);
      const bool lost = round == 0 && there && largest < faint;
      if (lost) {
        unit = boost;
        for (int f = lane; f < n_features; f += WARP) factors[f * SIGNALS + warp] *= boost;
      }
      repeat = __syncthreads_or(lost);  // kept: a vote
    }
    const T least = faint * largest;
    for (int k = lane; k < n_atoms; k += WARP) {
      const T norm2 = g[n_atoms + k];
      const T own = norm2 > least ? unit * rsqrt(norm2) : T(0);
      g[n_atoms + k] = own;
      g[k] = there ? correlations[i * n_atoms + k] * own : T(0);
    }
    bool live = m < limit && !(max_error[i] >= 0 && rest <= max_error[i]);
    if (lane == 0) news[warp] = T(0);
    for (bool begun = false; __syncthreads_or(live); begun = true) {
      for (int start = begun ? first : n_atoms; start < n_atoms; start += width) {
        Pack<T> sums[SIGNALS];
        sum_features<T, SIGNALS, false>(factors, transposed, n_features, n_atoms, start, sums);
#pragma unroll
        for (int s = 0; s < SIGNALS; ++s) {
          T* all = shares + (long long)s * share + start;
          Pack<T> own = load_pack(all);
          const Pack<T> scales = load_pack(all + n_atoms);
#pragma unroll
          for (int e = 0; e < SIZE; ++e) own.item[e] -= news[s] * (sums[s].item[e] * scales.item[e]);
          store_pack(all, own);
        }
      }
      __syncthreads();
      bool again = false, accepted = false;
      T value = T(0);
      while (live) {  // one warp on its own
        const T* scale = g + n_atoms;
        T* orthonormal = g + 2 * n_atoms;
        T* factor = orthonormal + (long long)capacity * n_features;
        T* y = factor + (long long)capacity * capacity;
        const bool* own_missing = missing + i * n_features;
        int* chosen = indices + i * capacity;
        T score = T(0);
        int j = 0x7fffffff;
        for (int start = lane * SIZE; start < n_atoms; start += WARP * SIZE) {
          const Pack<T> own = load_pack(g + start);
#pragma unroll
          for (int e = 0; e < SIZE; ++e) {
            const T size = fabs(own.item[e]);
            if (size > score) {
              score = size;
              j = start + e;
            }
          }
        }
        warp_best(score, j);
        if (j >= n_atoms) j = 0;  // no atom has a score
        const T correlation = g[j];
        if (level < T(0)) level = rounding_level<T>() * fabs(correlation);
        bool taken = false;
        for (int a = lane; a < m; a += WARP) taken = taken || chosen[a] == j;
        taken = __any_sync(FULL, taken);
        if (!(fabs(correlation) > level) || (taken && !again)) {
          if (again && lane == 0) status[i] = 2;
          live = false;
          break;
        }
        const T* atom = atoms + (long long)j * n_features;
        T* fresh = orthonormal + (long long)m * n_features;
        for (int f = lane; f < n_features; f += WARP) fresh[f] = own_missing[f] ? T(0) : scale[j] * atom[f];
        for (int a = 0; a < m; ++a) {
          const T* old = orthonormal + (long long)a * n_features;
          T product = T(0);
          for (int f = lane; f < n_features; f += WARP) product += own_missing[f] ? T(0) : scale[j] * atom[f] * old[f];
          product = warp_sum(product);
          for (int f = lane; f < n_features; f += WARP) fresh[f] -= product * old[f];
          if (lane == 0) factor[m * capacity + a] = product;
        }
        T square = T(0);
        for (int f = lane; f < n_features; f += WARP) square += fresh[f] * fresh[f];
        const T pivot2 = warp_sum(square);
        if (pivot2 > dependent) {
          const T pivot = rsqrt(pivot2);
          value = correlation * pivot;
          for (int f = lane; f < n_features; f += WARP) {
            fresh[f] *= pivot;
            factors[f * SIGNALS + warp] = fresh[f];
          }
          if (lane == 0) {
            y[m] = value;
            y[capacity + m] = pivot;
            chosen[m] = j;
          }
          rest -= (double)value * (double)value;
          ++m;
          accepted = true;
          live = m < limit && !(max_error[i] >= 0 && rest <= max_error[i]);
          break;
        }
        again = true;  // it depends on the chosen atoms, so its correlation is rounding
        if (lane == 0) g[j] = T(0);
        __syncwarp();  // kept: all lanes look at all correlations again
      }
      if (lane == 0) news[warp] = accepted ? value : T(0);
    }
    if (there) {
      const T* factor = g + 2 * n_atoms + (long long)capacity * n_features;
      T* y = g + 2 * n_atoms + (long long)capacity * (n_features + capacity);
      for (int p = -1; p < n_stops; ++p)
        solve_codes(p < 0 || stops[p] > m ? m : (int)stops[p], factor, capacity, y, g + n_atoms, indices + i * capacity,
                    p < 0 ? values + i * capacity : path_values + (i * n_stops + p) * capacity);
      if (lane == 0) {
        counts[i] = m;
        residuals[i] = rest > 0 ? rest : 0;
      }
    }
  }
}
