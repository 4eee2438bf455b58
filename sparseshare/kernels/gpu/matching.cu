// Matching pursuit, and orthogonal matching pursuit with non-negative coefficients, one block a signal.
//
// A block keeps what belongs to its signal in dynamic shared memory or, where `scratch` is given, in `block_items`
// items of that, which are a multiple of 16 bytes.

template <typename T>
__device__ __forceinline__ T rounding_level() {  // what lies below this share of the largest correlation is rounding
  return sizeof(T) == 4 ? T(1e-6) : T(1.8e-15);
}

// Compact the non-zero coefficients into row i of the codes, by one warp.
template <typename T>
__device__ __forceinline__ void write_code(const int m, const int* atoms, const T* coef, int* __restrict__ indices,
                                           T* __restrict__ values, int* __restrict__ count) {
  const int lane = threadIdx.x % WARP;
  int written = 0;
  for (int base = 0; base < m; base += WARP) {
    const int a = base + lane;
    const bool there = a < m && coef[a] != T(0);
    const unsigned together = __ballot_sync(FULL, there);
    const int place = written + __popc(together & ((1u << lane) - 1));
    if (there) {
      indices[place] = atoms[a];
      values[place] = coef[a];
    }
    written += __popc(together);
  }
  if (lane == 0) *count = written;
}

// instance: match<float> registers 64
// instance: match<double> registers 64
template <typename T>
__global__ void __launch_bounds__(256, 4)
    match(const T* __restrict__ correlations, const double* __restrict__ norms2, const T* __restrict__ gram,
          const T* __restrict__ diagonal, const T* __restrict__ inverse_norms, const long long* __restrict__ n_nonzero,
          const double* __restrict__ max_error, const int max_iter, const bool positive, const int n_signals,
          const int n_atoms, const int capacity, T* scratch, const long long block_items, int* __restrict__ indices,
          T* __restrict__ values, int* __restrict__ counts, double* __restrict__ residuals,
          int* __restrict__ iterations, signed char* __restrict__ status) {
  constexpr int SIZE = Pack<T>::size;
  DYNAMIC_SHARED(T, memory);
  SHARED(T, scores, 8);
  SHARED(int, places, 8);
  SHARED(T, step, 1);
  SHARED(int, going, 1);
  T* g = scratch ? scratch + blockIdx.x * block_items : memory;
  T* coef = g + n_atoms;
  int* position = reinterpret_cast<int*>(coef + capacity);  // of each atom in the code
  int* atoms = position + n_atoms;
  const int lane = threadIdx.x % WARP, first = threadIdx.x * SIZE, width = blockDim.x * SIZE;
  for (int k = threadIdx.x; k < n_atoms; k += blockDim.x) position[k] = -1;
  for (long long i = blockIdx.x; i < n_signals; i += gridDim.x) {
    const T* __restrict__ q = correlations + i * n_atoms;
    const long long wanted = n_nonzero[i];
    const int limit = wanted < capacity ? (int)wanted : capacity;
    const double target = max_error[i];
    double rest = norms2[i];  // this, and what follows, is right in the first thread
    T level = T(-1);
    int m = 0, steps = 0, outcome = 0;
    const T* __restrict__ row = nullptr;  // what is to be taken out of the correlations
    for (;;) {
      T score = T(0);
      int j = 0x7fffffff;
      for (int start = first; start < n_atoms; start += width) {
        Pack<T> own = row ? load_pack(g + start) : load_pack(q + start);
        const Pack<T> inverse = load_pack(inverse_norms + start);
        if (row) {
          const Pack<T> other = load_pack(row + start);
#pragma unroll
          for (int e = 0; e < SIZE; ++e) own.item[e] -= step[0] * other.item[e];
        }
        store_pack(g + start, own);
#pragma unroll
        for (int e = 0; e < SIZE; ++e) {
          const T value = (positive ? own.item[e] : fabs(own.item[e])) * inverse.item[e];
          if (value > score) {
            score = value;
            j = start + e;
          }
        }
      }
      block_best(score, j, scores, places);
      if (j >= n_atoms) j = 0;  // no atom has a score
      if (threadIdx.x == 0) {
        const T largest = g[j], size = positive ? largest : T(fabs(largest));
        if (level < T(0)) level = rounding_level<T>() * fabs(largest);
        const bool fresh = position[j] < 0;
        const bool useful = rest > target && size > level && !(fresh && m >= limit);
        if (useful && steps >= max_iter) outcome = 1;
        going[0] = useful && steps < max_iter;
        if (going[0]) {
          if (fresh) {
            atoms[m] = j;
            coef[m] = T(0);
            position[j] = m++;
          }
          ++steps;
          const T change = largest / diagonal[j];
          coef[position[j]] += change;
          rest -= (double)largest * (double)change;
          step[0] = change;
        }
      }
      __syncthreads();
      if (!going[0]) break;
      row = gram + (long long)j * n_atoms;
    }
    if (threadIdx.x < WARP) {
      m = __shfl_sync(FULL, m, 0);
      double explained = 0;
      for (int a = lane; a < m; a += WARP) {
        T fit = T(0);
        for (int b = 0; b < m; ++b) fit += coef[b] * gram[(long long)atoms[b] * n_atoms + atoms[a]];
        const double correlation = (double)q[atoms[a]];
        explained += (double)coef[a] * (correlation + (double)((T)correlation - fit));
      }
      explained = warp_sum(explained);
      write_code(m, atoms, coef, indices + i * capacity, values + i * capacity, counts + i);
      for (int a = lane; a < m; a += WARP) position[atoms[a]] = -1;
      if (lane == 0) {
        const double residual = norms2[i] - explained;
        residuals[i] = residual > 0 ? residual : 0;
        iterations[i] = steps;
        status[i] = (signed char)outcome;
      }
    }
  }
}

// The chosen atoms of `match_positively`: number and values, and F, the inverse of their Gram matrix's Cholesky factor.
template <typename T>
struct Chosen {
  int stride;
  T* inverse;  // F, row by row
  T *coef, *right, *projection, *target;
  int* atoms;
};

// Squared distance of an atom from the span of the m chosen ones, whose Gram row is given; by one warp.
template <typename T>
__device__ __forceinline__ T project(const Chosen<T>& chosen, const int m, const T* __restrict__ gram_row,
                                     const int j) {
  const int lane = threadIdx.x % WARP;
  for (int a = lane; a < m; a += WARP) chosen.right[a] = gram_row[chosen.atoms[a]];
  __syncwarp();
  T square = T(0);
  for (int a = lane; a < m; a += WARP) {
    T sum = T(0);
    for (int b = 0; b <= a; ++b) sum += chosen.inverse[a * chosen.stride + b] * chosen.right[b];
    chosen.projection[a] = sum;
    square += sum * sum;
  }
  __syncwarp();
  return gram_row[j] - warp_sum(square);
}

// Row m of F, from the projection that `project` left and the squared distance that it returned.
template <typename T>
__device__ __forceinline__ void append(const Chosen<T>& chosen, const int m, const T pivot2) {
  const int lane = threadIdx.x % WARP;
  const T scale = rsqrt(pivot2);
  T* row = chosen.inverse + m * chosen.stride;
  for (int b = lane; b < m; b += WARP) {
    T sum = T(0);
    for (int a = b; a < m; ++a) sum += chosen.projection[a] * chosen.inverse[a * chosen.stride + b];
    row[b] = -scale * sum;
  }
  if (lane == 0) row[m] = scale;
}

// Take atom d out of F: rotate its column into the last row, which then leaves.
template <typename T>
__device__ __forceinline__ void remove(const Chosen<T>& chosen, const int m, const int d) {
  const int lane = threadIdx.x % WARP;
  for (int c = d; c < m - 1; ++c) {
    T *row = chosen.inverse + c * chosen.stride, *below = row + chosen.stride;
    const T a = row[d], b = below[d], square = a * a + b * b;
    __syncwarp();  // kept: all lanes have read row[d] before one of them changes it
    if (square > T(0)) {
      const T inverse = rsqrt(square), cosine = b * inverse, sine = a * inverse;
      for (int k = lane; k <= c + 1; k += WARP) {
        const T x = k <= c ? row[k] : T(0), y = below[k];
        row[k] = cosine * x - sine * y;
        below[k] = sine * x + cosine * y;
      }
    } else if (lane == 0) {
      row[c + 1] = T(0);
    }
    __syncwarp();
  }
  for (int c = d; c < m - 1; ++c) {
    T* row = chosen.inverse + c * chosen.stride;
    for (int base = d; base <= c; base += WARP) {
      const int k = base + lane;
      const T next = k <= c ? row[k + 1] : T(0);
      __syncwarp();
      if (k <= c) row[k] = next;
      __syncwarp();
    }
  }
}

// Move the coefficients to least squares, as far as the first that reaches zero; that atom leaves, and so on.
template <typename T>
__device__ __forceinline__ int settle(const Chosen<T>& chosen, int m, const T* __restrict__ q) {
  const int lane = threadIdx.x % WARP;
  while (m > 0) {
    for (int a = lane; a < m; a += WARP) {
      T sum = T(0);
      for (int b = 0; b <= a; ++b) sum += chosen.inverse[a * chosen.stride + b] * q[chosen.atoms[b]];
      chosen.projection[a] = sum;
    }
    __syncwarp();
    T share = T(2);  // of the way that a coefficient can go, at most 1 where one stops
    int drop = 0x7fffffff;
    for (int b = lane; b < m; b += WARP) {
      T sum = T(0);
      for (int a = b; a < m; ++a) sum += chosen.inverse[a * chosen.stride + b] * chosen.projection[a];
      chosen.target[b] = sum;
      if (!(sum > T(0))) {
        const T coef = chosen.coef[b], own = coef > T(0) ? coef / (coef - sum) : T(0);
        if (own < share) {
          share = own;
          drop = b;
        }
      }
    }
    share = -share;
    warp_argmax(share, drop);
    share = -share;
    const bool all = drop >= m;
    for (int b = lane; b < m; b += WARP) {
      const T target = chosen.target[b], coef = chosen.coef[b];
      chosen.coef[b] = all ? target : coef + share * (target - coef);
    }
    __syncwarp();
    if (all) break;
    for (int base = drop; base < m - 1; base += WARP) {
      const int a = base + lane;
      const int atom = a < m - 1 ? chosen.atoms[a + 1] : 0;
      const T coef = a < m - 1 ? chosen.coef[a + 1] : T(0);
      __syncwarp();
      if (a < m - 1) {
        chosen.atoms[a] = atom;
        chosen.coef[a] = coef;
      }
    }
    remove(chosen, m, drop);
    --m;
  }
  return m;
}

// instance: match_positively<float> registers 128
// instance: match_positively<double> registers 128
template <typename T>
__global__ void __launch_bounds__(256, 2)
    match_positively(const T* __restrict__ correlations, const double* __restrict__ norms2,
                     const T* __restrict__ gram, const T* __restrict__ diagonal, const T* __restrict__ inverse_norms,
                     const long long* __restrict__ n_nonzero, const double* __restrict__ max_error,
                     const int n_signals, const int n_atoms, const int capacity, T* scratch,
                     const long long block_items, int* __restrict__ indices, T* __restrict__ values,
                     int* __restrict__ counts, double* __restrict__ residuals, int* __restrict__ iterations,
                     signed char* __restrict__ status) {
  constexpr int SIZE = Pack<T>::size;
  DYNAMIC_SHARED(T, memory);
  SHARED(T, scores, 8);
  SHARED(int, places, 8);
  SHARED(int, news, 2);  // number of chosen atoms; whether to go on
  const T dependent = sizeof(T) == 4 ? T(1e-6) : T(1e-10);
  const int lane = threadIdx.x % WARP, first = threadIdx.x * SIZE, width = blockDim.x * SIZE;
  T* ranks = scratch ? scratch + blockIdx.x * block_items : memory;
  Chosen<T> chosen;
  chosen.stride = capacity;
  chosen.inverse = ranks + n_atoms;
  chosen.coef = chosen.inverse + (long long)capacity * capacity;
  chosen.right = chosen.coef + capacity;
  chosen.projection = chosen.right + capacity;
  chosen.target = chosen.projection + capacity;
  chosen.atoms = reinterpret_cast<int*>(chosen.target + capacity);
  for (long long i = blockIdx.x; i < n_signals; i += gridDim.x) {
    const T* __restrict__ q = correlations + i * n_atoms;
    const long long wanted = n_nonzero[i];
    const int limit = wanted < capacity ? (int)wanted : capacity;
    const double norm2 = norms2[i], target = max_error[i];
    double rest = norm2;  // this, and what follows but m, is right in the first warp
    T level = T(-1);
    int m = 0, rounds = 0, outcome = 0;
    for (;;) {
      for (int start = first; start < n_atoms; start += width) {
        Pack<T> own = load_pack(q + start);
        const Pack<T> inverse = load_pack(inverse_norms + start);
        for (int a = 0; a < m; ++a) {
          const T coef = chosen.coef[a];
          const Pack<T> other = load_pack(gram + (long long)chosen.atoms[a] * n_atoms + start);
#pragma unroll
          for (int e = 0; e < SIZE; ++e) own.item[e] -= coef * other.item[e];
        }
#pragma unroll
        for (int e = 0; e < SIZE; ++e) own.item[e] *= inverse.item[e];
        store_pack(ranks + start, own);
      }
      __syncthreads();
      if (threadIdx.x < WARP) {
        bool going = true;
        if (rounds > 0) {
          double explained = 0;
          for (int a = lane; a < m; a += WARP) {
            const int j = chosen.atoms[a];
            explained += (double)chosen.coef[a] * ((double)q[j] + (double)(ranks[j] / inverse_norms[j]));
            ranks[j] = T(0);
          }
          const double left = norm2 - warp_sum(explained), now = left > 0 ? left : 0;
          going = now < rest;  // else what is left is rounding
          rest = now;
        }
        going = going && m < limit && rest > target;
        if (going && rounds >= 3 * limit + 10) {
          outcome = 1;
          going = false;
        }
        if (lane == 0) news[1] = going;
      }
      __syncthreads();
      if (!news[1]) break;
      bool accepted = false;
      for (bool looking = true; looking;) {
        T score = T(0);
        int j = 0x7fffffff;
        for (int start = first; start < n_atoms; start += width) {
          const Pack<T> own = load_pack(ranks + start);
#pragma unroll
          for (int e = 0; e < SIZE; ++e) {
            if (own.item[e] > score) {
              score = own.item[e];
              j = start + e;
            }
          }
        }
        block_best(score, j, scores, places);
        if (level < T(0)) level = rounding_level<T>() * score;
        accepted = j < n_atoms && score > level;
        if (threadIdx.x < WARP) {
          int again = 0;
          if (accepted) {
            const T pivot2 = project(chosen, m, gram + (long long)j * n_atoms, j);
            if (pivot2 > dependent * diagonal[j]) {
              append(chosen, m, pivot2);
              if (lane == 0) {
                chosen.atoms[m] = j;
                chosen.coef[m] = T(0);
              }
              __syncwarp();
              m = settle(chosen, m + 1, q);
              outcome = 0;
              ++rounds;
            } else {
              again = 1;
              outcome = 2;
              if (lane == 0) ranks[j] = T(0);
            }
          }
          if (lane == 0) {
            news[0] = m;
            news[1] = again;
          }
        }
        __syncthreads();
        m = news[0];
        looking = news[1];
      }
      if (!accepted) break;
    }
    if (threadIdx.x < WARP) {
      for (int a = lane; a < m; a += WARP) {
        indices[i * capacity + a] = chosen.atoms[a];
        values[i * capacity + a] = chosen.coef[a];
      }
      if (lane == 0) {
        counts[i] = m;
        residuals[i] = rest;
        iterations[i] = rounds;
        status[i] = (signed char)outcome;
      }
    }
  }
}
