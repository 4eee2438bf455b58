// The active atoms of a signal and the inverse Cholesky factor of their Gram matrix, for direct methods: one signal a
// block. No family of its own; put before those that ask for it.
//
// R, the inverse of the factor, is a packed triangle: row a begins at a (a + 1) / 2. Those numbers are all different
// modulo 32, so that neither a thread a row nor a thread a column meets conflicts between banks of shared memory.
//
// A block is one warp with all its state in shared memory, or, for large active sets and dictionaries, 128 threads with
// their state in device memory. What a function returns is the same for all threads of the block, unless told.

template <typename T>
__device__ __forceinline__ T rounding_level() {
  return sizeof(T) == 4 ? T(1e-6) : T(1.8e-15);
}

// Atoms closer to the span of others than this share of their squared norm depend on them.
template <typename T>
__device__ __forceinline__ T dependent_share() {
  return sizeof(T) == 4 ? T(1e-6) : T(1e-10);
}

template <typename T, int THREADS>
struct ActiveSet {
  const T *q, *G;  // (K,) correlations with the signal and (K, K) Gram matrix
  int K, room, thread;
  bool positive;
  int* idx;                                                             // (room,) active atoms
  T *lower, *coef, *sign, *rhs, *step, *column, *projection, *expansion;  // R, and (room,) each
  T* g;                                                                 // (K,) correlations with the residual
  double* parts;                                                        // a number a warp, in shared memory
  int* places;

  static __device__ __forceinline__ int row(int a) { return a * (a + 1) / 2; }

  // Hand out `memory`, `state_size` numbers in the driver; returns what is left of it.
  __device__ __forceinline__ T* lay_out(T* memory) {
    lower = memory;
    coef = lower + row(room);
    sign = coef + room;
    rhs = sign + room;
    step = rhs + room;
    column = step + room;
    projection = column + room;
    expansion = projection + room;
    memory = expansion + room;
    idx = reinterpret_cast<int*>(memory);
    g = memory + room;
    return g + K;
  }

  __device__ __forceinline__ void meet() const {
    if (THREADS == WARP)
      __syncwarp(FULL);
    else
      __syncthreads();
  }

  template <typename V>
  __device__ __forceinline__ V sum(V value) const {
    value = warp_sum(value);
    if (THREADS == WARP) return value;
    if (thread % WARP == 0) parts[thread / WARP] = value;
    __syncthreads();
    double total = 0;
    for (int w = 0; w < THREADS / WARP; ++w) total += parts[w];
    __syncthreads();
    return (V)total;
  }

  // The largest value and its index; of equal ones the lowest index.
  __device__ __forceinline__ void argmax(T& value, int& index) const {
    warp_argmax(value, index);
    if (THREADS == WARP) return;
    if (thread % WARP == 0) {
      parts[thread / WARP] = value;
      places[thread / WARP] = index;
    }
    __syncthreads();
    for (int w = 0; w < THREADS / WARP; ++w) {
      const T other = (T)parts[w];
      if (other > value || (other == value && places[w] < index)) {
        value = other;
        index = places[w];
      }
    }
    __syncthreads();
  }

  __device__ __forceinline__ bool in_use(int j, int m) const {
    bool found = false;
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) found |= idx[a] == j;
    return THREADS == WARP ? __any_sync(FULL, found) : __syncthreads_or(found);
  }

  // out = q - G w for w on the first m atoms; `value` and `atom` become the largest score among this thread's atoms.
  __device__ __forceinline__ void sweep(const T* w, int m, T* out, T& value, int& atom) const {
    constexpr int EACH = sizeof(T) == 4 ? 8 : 4;
    value = T(-1);
    atom = 0;
    for (int start = thread; start < K; start += THREADS * EACH) {
      T total[EACH];
      int here[EACH];
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        here[e] = min(start + e * THREADS, K - 1);
        total[e] = q[here[e]];
      }
#pragma unroll 2
      for (int a = 0; a < m; ++a) {
        const T factor = -w[a];
        const T* const gram = G + (long long)idx[a] * K;
#pragma unroll
        for (int e = 0; e < EACH; ++e) total[e] = fma(factor, gram[here[e]], total[e]);
      }
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        if (start + e * THREADS >= K) continue;
        out[here[e]] = total[e];
        const T score = positive ? total[e] : magnitude(total[e]);
        if (score > value) {
          value = score;
          atom = here[e];
        }
      }
    }
    meet();
  }

  // projection = R column; returns its squared norm.
  __device__ __forceinline__ T project(int m) {
    T norm2 = 0;
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) {
      const T* const r = lower + row(a);
      T total = 0;
#pragma unroll 2
      for (int b = 0; b <= a; ++b) total = fma(r[b], column[b], total);
      projection[a] = total;
      norm2 += total * total;
    }
    norm2 = sum(norm2);
    meet();
    return norm2;
  }

  // expansion = R' projection: the projected atom's coefficients on the active ones.
  __device__ __forceinline__ void expand(int m) {
#pragma unroll 1
    for (int b = thread; b < m; b += THREADS) {
      T total = 0;
#pragma unroll 2
      for (int a = b; a < m; ++a) total = fma(lower[row(a) + b], projection[a], total);
      expansion[b] = total;
    }
    meet();
  }

  // Squared distance of atom j from the span of the active ones; leaves its projection.
  __device__ __forceinline__ T distance2(int j, int m) {
    const T* const gram = G + (long long)j * K;
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) column[a] = gram[idx[a]];
    meet();
    return gram[j] - project(m);
  }

  // Row m of R, for the atom that was projected.
  __device__ __forceinline__ void append(int m, int j, T pivot2, T value, T s, T rest) {
    const T inverse = T(1) / sqrt(pivot2);
    expand(m);
#pragma unroll 1
    for (int b = thread; b < m; b += THREADS) lower[row(m) + b] = -inverse * expansion[b];
    if (thread == 0) {
      lower[row(m) + m] = inverse;
      idx[m] = j;
      coef[m] = value;
      sign[m] = s;
      rhs[m] = rest;
    }
    meet();
  }

  // step = inv(G_AA) rhs, where rhs is 0 before `first`.
  __device__ __forceinline__ void solve(int first, int m) {
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) {
      const T* const r = lower + row(a);
      T total = 0;
#pragma unroll 2
      for (int b = first; b <= a; ++b) total = fma(r[b], rhs[b], total);
      column[a] = total;
    }
    meet();
#pragma unroll 1
    for (int b = thread; b < m; b += THREADS) {
      T total = 0;
#pragma unroll 2
      for (int a = max(b, first); a < m; ++a) total = fma(lower[row(a) + b], column[a], total);
      step[b] = total;
    }
    meet();
  }

  // Take atom d out: rotations bring its column of R into the last row, which then leaves. Returns what is left of m.
  __device__ __forceinline__ int remove(int d, int m) {
#pragma unroll 1
    for (int c = d + thread; c < m - 1; c += THREADS) {
      const T first = lower[row(d) + d], below = lower[row(c + 1) + d];
      T above = first * first;
#pragma unroll 1
      for (int a = d + 1; a <= c; ++a) above = fma(lower[row(a) + d], lower[row(a) + d], above);
      const T length = sqrt(fma(below, below, above));
      projection[c] = below / length;
      column[c] = (c == d ? first : sqrt(above)) / length;
    }
    meet();
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS) {
      if (k == d) continue;
      T carried = k < d ? lower[row(d) + k] : T(0);
#pragma unroll 1
      for (int c = max(d, k - 1); c < m - 1; ++c) {
        const T below = lower[row(c + 1) + k], cosine = projection[c], sine = column[c];
        const T turned = cosine * carried - sine * below;
        carried = sine * carried + cosine * below;
        if (c + 1 == k)
          expansion[k] = turned;  // right of the triangle until column d is gone
        else
          lower[row(c) + k] = turned;
      }
    }
    meet();
#pragma unroll 1
    for (int c = d + thread; c < m - 1; c += THREADS) {
      T* const r = lower + row(c);
#pragma unroll 1
      for (int k = d; k < c; ++k) r[k] = r[k + 1];
      r[c] = expansion[c + 1];
    }
    for (int start = d; start < m - 1; start += THREADS) {
      const int a = start + thread;
      const bool moves = a < m - 1;
      const int from = moves ? a + 1 : d;
      const int atom = idx[from];
      const T w = coef[from], s = sign[from], rest = rhs[from];
      meet();
      if (moves) {
        idx[a] = atom;
        coef[a] = w;
        sign[a] = s;
        rhs[a] = rest;
      }
      meet();
    }
    return m - 1;
  }

  // Primal minus dual objective of a code and its correlations, with the dual point alpha / top times the residual,
  // summed term by term.
  __device__ __forceinline__ double duality_gap(const T* code, const T* slopes, int m, double norm2, T alpha,
                                                T top) const {
    const double scale = top <= alpha ? 1.0 : (double)alpha / (double)top;
    double explained = 0, total = 0;
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) {
      const double w = code[a], gw = slopes[idx[a]];
      explained += w * ((double)q[idx[a]] + gw);
      total += (double)alpha * magnitude(w) - scale * w * gw;
    }
    const double residual2 = norm2 - sum(explained);
    total = sum(total);
    return 0.5 * (1.0 - scale) * (1.0 - scale) * max(residual2, 0.0) + max(total, 0.0);
  }
};
