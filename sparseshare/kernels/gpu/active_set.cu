// uses: active_atoms.cu
// The lasso by a direct method on an active set, twin of kernels/cpu/active_set.py: one signal a block.

enum Outcome { SETTLED = 0, STOPPED = 1, STALLED = 2, TOO_LARGE = 3, DIVERGED = 4 };

template <typename T, int THREADS>
struct LassoSet : ActiveSet<T, THREADS> {
  using Base = ActiveSet<T, THREADS>;
  using Base::q, Base::G, Base::K, Base::room, Base::thread, Base::positive, Base::idx, Base::lower, Base::coef;
  using Base::sign, Base::rhs, Base::step, Base::column, Base::projection, Base::expansion, Base::g, Base::row;
  using Base::meet, Base::sum, Base::argmax, Base::in_use, Base::distance2, Base::append, Base::expand, Base::solve;
  using Base::remove;

  // Solve for the signs as they stand, as far as the first sign change; drop that atom and go on. Returns m.
  __device__ __forceinline__ int descend(int first, int m) {
    while (first < m) {
      solve(first, m);
      T nearest = T(-2);  // minus the share of the step at which a coefficient reaches zero
      int drop = m;
#pragma unroll 1
      for (int a = thread; a < m; a += THREADS) {
        const T length = magnitude(step[a]);
        if ((coef[a] + step[a]) * sign[a] <= T(0)) {
          const T crossing = length > T(0) ? -magnitude(coef[a]) / length : T(0);
          if (crossing > nearest) {
            nearest = crossing;
            drop = a;
          }
        }
      }
      argmax(nearest, drop);
      const T t = drop < m ? min(-nearest, T(1)) : T(1);
#pragma unroll 1
      for (int a = thread; a < m; a += THREADS) {
        coef[a] += t * step[a];
        if (a >= first) rhs[a] *= T(1) - t;
      }
      meet();
      if (drop == m) break;
      m = remove(drop, m);
      if (drop < first) --first;
    }
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) rhs[a] = T(0);
    meet();
    return m;
  }

  // Put a dependent atom of sign s in: the one that leaves, or -1, and the value that enters. Moving w_j = t s and
  // w_A -= t s v with v = inv(G_AA) G_Aj leaves the residual as it is and lowers |w|_1.
  __device__ __forceinline__ int exchange(T s, int m, T& value) {
    expand(m);
    T nearest = T(-1e30);
    int drop = m;
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) {
      const T rate = s * expansion[a] * sign[a];
      if (rate > T(0) && -magnitude(coef[a]) / rate > nearest) {
        nearest = -magnitude(coef[a]) / rate;
        drop = a;
      }
    }
    argmax(nearest, drop);
    if (drop == m) return -1;
    value = -nearest * s;
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) coef[a] -= value * expansion[a];
    meet();
    return drop;
  }

  __device__ __forceinline__ int keep(int m, int* atoms, T* code) const {
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) {
      atoms[a] = idx[a];
      code[a] = coef[a];
    }
    return m;
  }

  // Let atom j in, and some that violate almost as much, or exchange j for one in use; the code before that is kept.
  // `value` and `atom` are this thread's candidate. Returns the number of atoms in use, or -1 without room for j.
  __device__ __forceinline__ int enter(int j, T threshold, T penalty, int m, T value, int atom, int capacity,
                                       int* atoms, T* code, bool& exchanged) {
    const T least = sizeof(T) == 4 ? T(1e-7) : T(1e-15);
    // More than on a CPU, though some have to leave again: to fetch rows of G for all atoms costs a GPU more than that.
    const int before = m, allowed = min(8, m + 1);
    bool waits = value > threshold;
    T start = 0;
    exchanged = false;
    for (;;) {
      waits &= atom != j;
      const T norm2 = G[(long long)j * K + j], s = g[j] > T(0) ? T(1) : T(-1);
      const T pivot2 = distance2(j, m);
      const bool independent = pivot2 > (exchanged ? least : dependent_share<T>()) * norm2;
      if (independent && m < room) {
        append(m++, j, pivot2, start, s, g[j] - penalty * s);
        // candidates that hardly differ from it would have to leave again
        waits &= magnitude(G[(long long)j * K + atom]) < T(0.95) * G[(long long)atom * K + atom];
      } else if (m == before && !exchanged) {
        if (independent && room < capacity) return -1;
        keep(m, atoms, code);
        const int drop = exchange(s, m, start);
        if (drop < 0) return m;
        exchanged = true;
        m = remove(drop, m);
        continue;  // with the same atom, which is independent of those that stay
      }
      if (exchanged || m - before == allowed) return m;
      do {
        T best = waits ? value : T(-1);
        j = atom;
        argmax(best, j);
        if (!(best > threshold)) return m;
        waits &= atom != j;
      } while (in_use(j, m));
    }
  }

  // The active set of a given code, without atoms that depend on earlier ones; its size, or -1 without room for it.
  __device__ __forceinline__ int start(const int* atoms, const T* code, int count) {
    int m = 0;
#pragma unroll 1
    for (int a = 0; a < count; ++a) {
      const int j = atoms[a];
      const T value = code[a];
      if (value == T(0) || (positive && value < T(0))) continue;
      const T pivot2 = distance2(j, m);
      if (!(pivot2 > dependent_share<T>() * G[(long long)j * K + j])) continue;
      if (m == room) return -1;
      append(m++, j, pivot2, value, value > T(0) ? T(1) : T(-1), T(0));
    }
    return m;
  }

  __device__ __forceinline__ double objective(int m, double norm2, T penalty) const {
    double part = 0;
#pragma unroll 1
    for (int a = thread; a < m; a += THREADS) {
      const double w = coef[a];
      part -= 0.5 * w * ((double)q[idx[a]] + (double)g[idx[a]]);
      part += (double)penalty * magnitude(w);
    }
    return 0.5 * norm2 + sum(part);
  }

  // Rounds until the gap is within tol or the optimality conditions hold to rounding, from m atoms in use. Returns the
  // outcome; `top` becomes the largest score. From the first nearly dependent atom on, the code of every round is kept
  // and the next one compared with it: DIVERGED means back to that one, without its factor.
  __device__ __forceinline__ int solve_penalty(double norm2, T penalty, double tol, int max_iter, int capacity,
                                               int* atoms, T* code, int& m, T& top, int& rounds) {
    const T reach = T(0.2);        // a violator enters beside the largest one if it exceeds the penalty by this share
    const T fragile_from = T(30);  // 1 over an atom's distance from the span of those in use
    const T floor = rounding_level<T>() * max(penalty, T(0.5 * sqrt(norm2)));
    const T widest = penalty == T(0) ? T(1e30) : penalty * T(sqrt(0.5 * tol));
    bool refine = m > 0, fragile = false, diverged = false;
    int refinements = 0, kept = 0;
    double lowest = 0.5 * norm2;
    for (;;) {
      T value;
      int atom;
      Base::sweep(coef, m, g, value, atom);
      int j = atom;
      top = value;
      argmax(top, j);
      if (diverged) return DIVERGED;
      if (fragile) {
        const double reached = objective(m, norm2, penalty);
        if (!(reached <= lowest + 5e-4 * norm2)) {  // true for NaN
          diverged = true;
          fragile = false;
          m = kept;
          for (int a = thread; a < m; a += THREADS) {
            idx[a] = atoms[a];
            coef[a] = code[a];
          }
          meet();
          continue;  // for the correlations of that code
        }
        lowest = min(lowest, reached);
        kept = keep(m, atoms, code);
      }
      T norm1 = 0, kappa = 0;
#pragma unroll 1
      for (int a = thread; a < m; a += THREADS) {
        norm1 += magnitude(coef[a]);
        kappa = max(kappa, magnitude(g[idx[a]] - penalty * sign[a]));
      }
      norm1 = sum(norm1);
      int where = 0;
      argmax(kappa, where);
      T delta = floor;
      if (norm1 > T(0)) delta = max(delta, min(T(0.25 * tol * norm2) / norm1, widest));
      int outcome = -1;
      if (rounds == max_iter) {
        outcome = STOPPED;
      } else if (!refine && (top <= penalty + delta || in_use(j, m))) {
        // done, but for conditions of atoms in use that rounding has spoilt: solve once more, with nothing new
        refine = (top > penalty + delta || kappa > delta) && refinements < 3;
        if (!refine) outcome = top <= penalty + delta ? SETTLED : STALLED;
      }
      if (outcome >= 0) {
        if (penalty == T(0)) top = max(top - floor, T(0));  // such a correlation is only ever zero to rounding
        return outcome;
      }
      ++rounds;
      int first = m;
      if (refine) {
        refine = false;
        ++refinements;
        first = 0;
#pragma unroll 1
        for (int a = thread; a < m; a += THREADS) rhs[a] = g[idx[a]] - penalty * sign[a];
        meet();
      } else {
        bool exchanged;
        const int grown = enter(j, penalty + max(delta, reach * (top - penalty)), penalty, m, value, atom, capacity,
                                atoms, code, exchanged);
        if (grown < 0) return TOO_LARGE;
        if (exchanged) {  // the residual is the old one but for rounding, the conditions of all atoms are new
          fragile = true;
          kept = m;
          m = grown;
          refine = true;
          --refinements;
          continue;
        }
        if (grown == m) return STALLED;
#pragma unroll 1
        for (int a = m; a < grown; ++a) {
          if (lower[row(a) + a] > fragile_from && !fragile) {
            fragile = true;
            kept = keep(m, atoms, code);
          }
        }
        m = grown;
      }
      m = descend(first, m);
    }
  }
};

// Minimise 0.5 |x - w D|^2 + alpha |w|_1 for signals `rows` (null: all), at one penalty after the other: alphas, gaps,
// counts, iterations and status are (n, n_penalties), codes (n, n_penalties, capacity), in the first place with the
// code to start from. Signals with more than `room` active atoms are left TOO_LARGE with their code so far, and taken
// up there when they are listed in `rows`. `scratch` has the state of every block, unless that is in shared memory.
// instance: lasso<float, 32> registers 128
// instance: lasso<double, 32> registers 128
// instance: lasso<float, 128> registers 168
// instance: lasso<double, 128> registers 168
template <typename T, int THREADS>
__global__ void __launch_bounds__(THREADS, THREADS == WARP ? 16 : 3) lasso(
    const T* __restrict__ Q, const double* __restrict__ norms2, const T* __restrict__ G, const T* __restrict__ alphas,
    const double tol, const int max_iter, const bool positive, const long long* __restrict__ rows, int* indices,
    T* values, int* counts, double* __restrict__ gaps, int* __restrict__ iterations, signed char* __restrict__ status,
    const int n_atoms, const int n_penalties, const int capacity, const int room, T* scratch,
    const long long scratch_size, const int n_rows) {
  DYNAMIC_SHARED(T, shared);
  SHARED(double, parts, THREADS / WARP);
  SHARED(int, places, THREADS / WARP);
  LassoSet<T, THREADS> set;
  set.G = G;
  set.K = n_atoms;
  set.room = room;
  set.thread = threadIdx.x;
  set.positive = positive;
  set.parts = parts;
  set.places = places;
  set.lay_out(THREADS == WARP ? shared : scratch + blockIdx.x * scratch_size);
  for (int r = blockIdx.x; r < n_rows; r += gridDim.x) {
    set.meet();
    const long long i = rows ? rows[r] : r;
    const double norm2 = norms2[i];
    set.q = Q + i * n_atoms;
    long long p = i * n_penalties;
    const long long end = p + n_penalties;
    int rounds = 0;
    if (rows) {
      while (status[p] != TOO_LARGE) ++p;
      rounds = iterations[p];
    }
    const int* atoms = indices + p * capacity;  // of the code to start from
    const T* code = values + p * capacity;
    int m = counts[p];
    bool fits = true, anew = true;
    for (; p < end; ++p, rounds = 0) {
      if (anew) m = set.start(atoms, code, m);
      fits = m >= 0;
      if (!fits) break;
      T top;
      const int outcome = set.solve_penalty(norm2, alphas[p], tol, max_iter, capacity, indices + p * capacity,
                                            values + p * capacity, m, top, rounds);
      const double gap = set.duality_gap(set.coef, set.g, m, norm2, alphas[p], top);
      set.keep(m, indices + p * capacity, values + p * capacity);
      if (set.thread == 0) {
        counts[p] = m;
        iterations[p] = max(rounds, 1);
        status[p] = outcome == DIVERGED ? STALLED : outcome;
        gaps[p] = gap;
      }
      set.meet();
      fits = outcome != TOO_LARGE;
      if (!fits) break;
      anew = outcome == DIVERGED;
      atoms = indices + p * capacity;
      code = values + p * capacity;
    }
    if (!fits)
      for (long long left = p + set.thread; left < end; left += THREADS) status[left] = TOO_LARGE;
  }
}
