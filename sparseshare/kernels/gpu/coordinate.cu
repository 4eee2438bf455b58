// The lasso by cyclic coordinate descent on the Gram matrix, twin of kernels/cpu/coordinate.py: one signal a warp.
//
// Thirty-two coordinates are looked at in one go: a ballot finds the first that would move, only those that do cost a
// row of the Gram matrix, and all look again. A coordinate moves if that changes its correlation by more than `quiet`.

enum Outcome { SETTLED = 0, STOPPED = 1, TOO_LARGE = 3, CRAWLS = 4 };
#define PATIENCE 64  // sweeps before a set that does not settle is left to the direct method

template <typename T>
__device__ __forceinline__ T rounding_level() {
  return sizeof(T) == 4 ? T(1e-6) : T(1.8e-15);
}

// How far a coordinate has to move, times its scale, given its correlation and its value times that scale.
template <typename T>
__device__ __forceinline__ T way(T slope, T scaled, T penalty, bool positive) {
  const T moved = slope + scaled;
  return (positive && moved < T(0) ? T(0) : soft_threshold(moved, penalty)) - scaled;
}

// g = q - sum of w[a] rows of G; returns the largest score.
template <typename T>
__device__ __forceinline__ T sweep(const T* q, const T* G, int K, const int* atoms, const T* w, int m, bool positive,
                                   T* g) {
  constexpr int EACH = sizeof(T) == 4 ? 8 : 4;
  T top = T(-1);
  for (int start = threadIdx.x; start < K; start += WARP * EACH) {
    T total[EACH];
    int here[EACH];
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      here[e] = min(start + e * WARP, K - 1);
      total[e] = q[here[e]];
    }
#pragma unroll 2
    for (int a = 0; a < m; ++a) {
      const T factor = -w[a];
      const T* const gram = G + (long long)atoms[a] * K;
#pragma unroll
      for (int e = 0; e < EACH; ++e) total[e] = fma(factor, gram[here[e]], total[e]);
    }
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      if (start + e * WARP >= K) continue;
      g[here[e]] = total[e];
      top = max(top, positive ? total[e] : magnitude(total[e]));
    }
  }
  __syncwarp(FULL);
  return warp_max(top);
}

// What the code's correlations say: its duality gap, its l1 norm, and whether it is as good as rounding lets it be.
template <typename T>
struct Certificate {
  double gap;
  T norm1;
  bool exact;

  __device__ __forceinline__ Certificate(const T* q, const T* g, const int* atoms, const T* w, int m, double norm2,
                                         T penalty, T top, T floor) {
    const double scale = top <= penalty ? 1.0 : (double)penalty / (double)top;
    double explained = 0, total = 0;
    T worst = top - penalty;
    norm1 = 0;
    for (int a = threadIdx.x; a < m; a += WARP) {
      const double value = w[a], slope = g[atoms[a]];
      explained += value * ((double)q[atoms[a]] + slope);
      total += (double)penalty * magnitude(value) - scale * value * slope;
      norm1 += magnitude(w[a]);
      worst = max(worst, magnitude(g[atoms[a]] - (w[a] > T(0) ? penalty : -penalty)));
    }
    norm1 = warp_sum(norm1);
    total = warp_sum(total);
    const double residual2 = norm2 - warp_sum(explained);
    gap = 0.5 * (1.0 - scale) * (1.0 - scale) * max(residual2, 0.0) + max(total, 0.0);
    exact = warp_max(worst) <= floor;
  }

  // The change of a correlation at which sweeps end: small beside what is outside the set, or for the gap.
  __device__ __forceinline__ T quiet(T penalty, T top, T floor, double tol, double norm2) const {
    const T enough = norm1 > T(0) ? min(T(0.05 * tol * norm2) / norm1, penalty * T(0.3 * sqrt(0.5 * tol))) : T(0);
    return max(max(T(0.15) * (top - penalty), T(0.25) * floor), enough);
  }
};

// Row a of a packed triangle begins at a (a + 1) / 2: all different modulo 32, so that reading a row or a column of the
// symmetric matrix meets no conflicts between banks.
__device__ __forceinline__ int packed(int a, int b) { return a >= b ? a * (a + 1) / 2 + b : b * (b + 1) / 2 + a; }

// Minimise 0.5 |x - w D|^2 + alpha |w|_1 over a working set of at most ROOM atoms, their Gram matrix in shared memory.
// Codes are (n, capacity), in with what to start from. A signal that needs more atoms is left TOO_LARGE with its code
// so far, one whose set does not settle CRAWLS.
// instance: working_set<float, 96> registers 152
// instance: working_set<double, 96> registers 128
template <typename T, int ROOM>
__global__ void __launch_bounds__(WARP, 12) working_set(
    const T* __restrict__ Q, const double* __restrict__ norms2, const T* __restrict__ G, const T* __restrict__ alpha,
    const double tol, const int max_iter, const bool positive, int* indices, T* values, int* counts,
    double* __restrict__ gaps, int* __restrict__ iterations, signed char* __restrict__ status, const int n_rows,
    const int K, const int capacity) {
  constexpr int EACH = ROOM / WARP;
  DYNAMIC_SHARED(T, memory);
  T* const gram = memory;  // the set's, a packed triangle
  T* const coef = gram + ROOM * (ROOM + 1) / 2;
  T* const slope = coef + ROOM;
  T* const used = slope + ROOM;  // coefficients that are not zero
  int* const atoms = reinterpret_cast<int*>(used + ROOM);
  int* const used_atoms = atoms + ROOM;
  T* const g = used + 3 * ROOM;
  const int lane = threadIdx.x;
  const unsigned before = (1u << lane) - 1u;  // the lanes
  for (int i = blockIdx.x; i < n_rows; i += gridDim.x) {
    const T* const q = Q + (long long)i * K;
    int* const code_atoms = indices + (long long)i * capacity;
    T* const code = values + (long long)i * capacity;
    const T penalty = alpha[i];
    const double target = tol * 0.5 * norms2[i];
    int n = 0, ready = 0, sweeps = 0, outcome = -1, m = 0;
    const int given = counts[i];
    for (int start = 0; start < given; start += WARP) {
      const int a = min(start + lane, given - 1), j = code_atoms[a];
      const T value = code[a];
      const bool allowed = value != T(0) && !(positive && value < T(0)) && G[(long long)j * K + j] > T(0);
      const bool takes = start + lane < given && allowed;
      const unsigned mask = __ballot_sync(FULL, takes);
      const int place = n + __popc(mask & before);
      if (takes && place < ROOM) {
        atoms[place] = j;
        coef[place] = value;
      }
      n += __popc(mask);
    }
    T floor = 0;
    for (int k = lane; k < K; k += WARP) floor = max(floor, magnitude(q[k]));
    floor = rounding_level<T>() * max(warp_max(floor), penalty);
    __syncwarp(FULL);
    if (n > ROOM) {
      if (lane == 0) {
        status[i] = TOO_LARGE;
        iterations[i] = 0;
      }
      continue;
    }
    T w[EACH], h[EACH], inverse[EACH];
    bool waits = false;  // the set did not settle in the last round
    double gap;
    for (;;) {
      m = 0;
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        const int a = lane + e * WARP;
        w[e] = a < n ? coef[a] : T(0);
        const unsigned mask = __ballot_sync(FULL, w[e] != T(0));
        const int place = m + __popc(mask & before);
        if (w[e] != T(0)) {
          used[place] = w[e];
          used_atoms[place] = atoms[a];
        }
        m += __popc(mask);
      }
      __syncwarp(FULL);
      const T top = sweep(q, G, K, used_atoms, used, m, positive, g);
      const Certificate<T> now(q, g, used_atoms, used, m, norms2[i], penalty, top, floor);
      gap = now.gap;
      if (gap <= target || now.exact)
        outcome = SETTLED;
      else if (sweeps >= max_iter)
        outcome = STOPPED;
      else if (waits)
        outcome = CRAWLS;
      if (outcome >= 0) break;
      // atoms of the set are no candidates: their correlations move over
      int atom[EACH];
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        const int a = lane + e * WARP;
        atom[e] = a < n ? atoms[a] : 0;
        h[e] = a < n ? g[atom[e]] : T(0);
      }
      __syncwarp(FULL);
#pragma unroll
      for (int e = 0; e < EACH; ++e)
        if (lane + e * WARP < n) g[atom[e]] = T(0);
      __syncwarp(FULL);
      // the strongest candidate of every lane, if it violates almost as much as the strongest of all
      T best = penalty + T(0.3) * (top - penalty);
      int candidate = -1;
      for (int k = lane; k < K; k += WARP) {
        const T score = positive ? g[k] : magnitude(g[k]);
        if (score > best) {
          best = score;
          candidate = k;
        }
      }
      if (candidate >= 0 && !(G[(long long)candidate * K + candidate] > T(0))) candidate = -1;
      const unsigned joins = __ballot_sync(FULL, candidate >= 0);
      if (n + __popc(joins) > ROOM) {  // atoms at zero leave
        if (m == ROOM && joins) {
          outcome = TOO_LARGE;
          break;
        }
        n = ready = 0;
#pragma unroll
        for (int e = 0; e < EACH; ++e) {
          const unsigned mask = __ballot_sync(FULL, w[e] != T(0));
          const int place = n + __popc(mask & before);
          if (w[e] != T(0)) {
            atoms[place] = atom[e];
            coef[place] = w[e];
            slope[place] = h[e];
          }
          n += __popc(mask);
        }
      } else {
#pragma unroll
        for (int e = 0; e < EACH; ++e)
          if (lane + e * WARP < n) slope[lane + e * WARP] = h[e];
      }
      const int place = n + __popc(joins & before);
      if (candidate >= 0 && place < ROOM) {
        atoms[place] = candidate;
        coef[place] = T(0);
        slope[place] = g[candidate];
      }
      n = min(n + __popc(joins), ROOM);
      __syncwarp(FULL);
#pragma unroll 2
      for (int a = ready; a < n; ++a) {
        const T* const row = G + (long long)atoms[a] * K;
        for (int b = lane; b <= a; b += WARP) gram[packed(a, b)] = row[atoms[b]];
      }
      ready = n;
      __syncwarp(FULL);
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        const int a = lane + e * WARP;
        w[e] = a < n ? coef[a] : T(0);
        h[e] = a < n ? slope[a] : T(0);
        const T scale = a < n ? gram[packed(a, a)] : T(1);
        w[e] *= scale;  // in units in which a look needs no division
        inverse[e] = T(1) / scale;
      }
      const T quiet = now.quiet(penalty, top, floor, tol, norms2[i]);
      const int allowed = min(PATIENCE, max_iter - sweeps);
      bool moved = true;
      int done = 0;
      for (; moved && done < allowed; ++done) {
        moved = false;
#pragma unroll
        for (int e = 0; e < EACH; ++e) {
          unsigned passed = 0;  // lanes that have had their turn
          for (;;) {
            const T step = way(h[e], w[e], penalty, positive);
            const bool moves = magnitude(step) > quiet && !((passed >> lane) & 1u);
            const unsigned mask = __ballot_sync(FULL, moves);
            if (!mask) break;
            const int first = __ffs(mask) - 1, a = first + e * WARP;
            passed |= (2u << first) - 1u;
            if (lane == first) w[e] += step;
            const T change = __shfl_sync(FULL, step * inverse[e], first);
#pragma unroll
            for (int f = 0; f < EACH; ++f)
              if (lane + f * WARP < n) h[f] -= change * gram[packed(a, lane + f * WARP)];
            moved = true;
          }
        }
      }
      waits = moved;
      sweeps += done;
#pragma unroll
      for (int e = 0; e < EACH; ++e)
        if (lane + e * WARP < n) coef[lane + e * WARP] = w[e] * inverse[e];
    }
    for (int a = lane; a < m; a += WARP) {
      code_atoms[a] = used_atoms[a];
      code[a] = used[a];
    }
    if (lane == 0) {
      counts[i] = m;
      gaps[i] = gap;
      iterations[i] = sweeps;
      status[i] = outcome;
    }
  }
}

// The same over all atoms, for signals `rows`, from their codes so far. A block has its correlations and its dense code
// in shared memory, or, for large dictionaries, in `scratch`.
// instance: plain<float> registers 128
// instance: plain<double> registers 128
template <typename T>
__global__ void __launch_bounds__(WARP, 16) plain(
    const T* __restrict__ Q, const double* __restrict__ norms2, const T* __restrict__ G, const T* __restrict__ diagonal,
    const T* __restrict__ alpha, const double tol, const int max_iter, const bool positive,
    const long long* __restrict__ rows, int* indices, T* values, int* counts, double* __restrict__ gaps,
    int* __restrict__ iterations, signed char* __restrict__ status, T* scratch, const int n_rows, const int K,
    const int capacity) {
  DYNAMIC_SHARED(T, shared);
  T* const w = scratch ? scratch + 2LL * K * blockIdx.x : shared;
  T* const h = w + K;
  const int lane = threadIdx.x;
  for (int r = blockIdx.x; r < n_rows; r += gridDim.x) {
    const long long i = rows[r];
    const T* const q = Q + i * K;
    int* const code_atoms = indices + i * capacity;
    T* const code = values + i * capacity;
    const T penalty = alpha[i];
    const double target = tol * 0.5 * norms2[i];
    T floor = 0;
    for (int k = lane; k < K; k += WARP) {
      floor = max(floor, magnitude(q[k]));
      w[k] = T(0);
    }
    floor = rounding_level<T>() * max(warp_max(floor), penalty);
    __syncwarp(FULL);
    int m = counts[i], sweeps = iterations[i], outcome = -1;
    for (int a = lane; a < m; a += WARP)
      if (diagonal[code_atoms[a]] > T(0) && !(positive && code[a] < T(0))) w[code_atoms[a]] = code[a];
    bool waits = false;
    double gap;
    for (;;) {
      __syncwarp(FULL);
      m = 0;
      for (int start = 0; start < K; start += WARP) {
        const int k = min(start + lane, K - 1);
        const T value = start + lane < K ? w[k] : T(0);
        const unsigned mask = __ballot_sync(FULL, value != T(0));
        const int place = m + __popc(mask & ((1u << lane) - 1u));
        if (value != T(0)) {
          code_atoms[place] = k;
          code[place] = value;
        }
        m += __popc(mask);
      }
      __syncwarp(FULL);
      const T top = sweep(q, G, K, code_atoms, code, m, positive, h);
      const Certificate<T> now(q, h, code_atoms, code, m, norms2[i], penalty, top, floor);
      gap = now.gap;
      if (gap <= target || now.exact)
        outcome = SETTLED;
      else if (sweeps >= max_iter)
        outcome = STOPPED;
      else if (waits)
        outcome = CRAWLS;
      if (outcome >= 0) break;
      __syncwarp(FULL);  // kept: the certificate has read correlations that other lanes change now
      const T quiet = now.quiet(penalty, top, floor, tol, norms2[i]);
      const int allowed = min(PATIENCE, max_iter - sweeps);
      bool moved = true;
      int done = 0;
      for (; moved && done < allowed; ++done) {
        moved = false;
        for (int start = 0; start < K; start += WARP) {
          const int k = min(start + lane, K - 1);
          const bool inside = start + lane < K;  // a lane reads what is its own: none waits for another
          const T scale = inside ? diagonal[k] : T(0);
          unsigned passed = 0;
          for (;;) {
            const T old = inside ? w[k] : T(0), scaled = old * scale;
            const T step = way(inside ? h[k] : T(0), scaled, penalty, positive);
            const bool moves = scale > T(0) && magnitude(step) > quiet && !((passed >> lane) & 1u);
            const unsigned mask = __ballot_sync(FULL, moves);
            if (!mask) break;
            const int first = __ffs(mask) - 1;
            passed |= (2u << first) - 1u;
            const T after = (scaled + step) / scale;
            const T change = __shfl_sync(FULL, after - old, first);
            if (lane == first) w[k] = after;
            const T* const row = G + (long long)(start + first) * K;
#pragma unroll 4
            for (int b = lane; b < K; b += WARP) h[b] -= change * row[b];
            moved = true;
          }
        }
      }
      waits = moved;
      sweeps += done;
    }
    if (lane == 0) {
      counts[i] = m;
      gaps[i] = gap;
      iterations[i] = sweeps;
      status[i] = outcome;
    }
  }
}
