// uses: active_atoms.cu
// The lasso by homotopy, twin of kernels/cpu/homotopy.py: one signal a block, from the largest useful penalty down, one
// atom at a time. As the penalty falls from c by d the code moves by d u, u = inv(G_AA) s, and the correlations g by
// -d a, a = G u. An atom that may join does so at c' = |h| / (1 - s a), where h = g - c a and s is its sign.

enum Outcome { REACHED = 0, STOPPED = 1, OUT_OF_REACH = 2, TOO_LARGE = 3 };
enum Event { LEAVES = -1, NOTHING = 0, JOINS = 1 };
enum Repair { GO_ON = 0, REPAIRED = 1, FAILED = 2 };
#define UNSETTLED 16  // added to the status of codes whose gap rounding has left too large
#define HELD 8        // and of those to be solved at the penalty where they are

template <typename T, int THREADS>
struct Path : ActiveSet<T, THREADS> {
  using Base = ActiveSet<T, THREADS>;
  using Base::q, Base::G, Base::K, Base::room, Base::thread, Base::positive, Base::idx, Base::lower, Base::coef;
  using Base::sign, Base::rhs, Base::step, Base::g, Base::row, Base::meet, Base::sum, Base::argmax, Base::distance2;
  using Base::append, Base::solve, Base::remove, Base::places;
  T *u, *w_end;           // (room,) how fast coefficients change; coefficients further down the segment
  T *a, *g_end;           // (K,) how fast correlations fall; correlations there
  unsigned char* closed;  // (K,) whether an atom may not join
  T least;                // a rounding error of a correlation

  __device__ __forceinline__ void lay_out_path(T* memory) {
    a = Base::lay_out(memory);
    g_end = a + K;
    u = g_end + K;
    w_end = u + room;
    closed = reinterpret_cast<unsigned char*>(w_end + room);
  }

  // Nothing is active yet: the penalty at which the first atom joins, and that atom.
  __device__ __forceinline__ T begin(int& j) {
    T largest = 0;
    j = 0;
#pragma unroll 1
    for (int k = thread; k < K; k += THREADS) {
      const T score = positive ? q[k] : magnitude(q[k]);
      if (score > largest) {
        largest = score;
        j = k;
      }
      g[k] = q[k];
      a[k] = T(0);
      closed[k] = 0;
    }
    argmax(largest, j);
    least = T(8) * epsilon() * largest;
    meet();
    return largest;
  }

  static __device__ __forceinline__ T epsilon() { return sizeof(T) == 4 ? T(1.1920929e-7) : T(2.220446049250313e-16); }

  // The penalty at which atom j joins, or -1.
  __device__ __forceinline__ T meeting(int j, T c) const {
    const T h = g[j] - c * a[j];
    if (closed[j] || (positive ? h : magnitude(h)) <= least) return T(-1);
    const T divisor = T(1) - (h > T(0) ? a[j] : -a[j]);
    return divisor > T(0) ? min(c, magnitude(h) / divisor) : c;
  }

  // Start the segment at c: g -= fall a, a = G u. Returns the next atom to join, which the caller has to look at.
  __device__ __forceinline__ int segment(int m, T fall, T c) {
    constexpr int EACH = sizeof(T) == 4 ? 8 : 4;
    T size = 0, divisor = 1;  // quotients are compared cross-multiplied: divisions cost more
    int atom = 0;
    for (int start = thread; start < K; start += THREADS * EACH) {
      T total[EACH];
      int here[EACH];
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        here[e] = min(start + e * THREADS, K - 1);
        total[e] = 0;
      }
#pragma unroll 1
      for (int k = 0; k < m; ++k) {
        const T rate = u[k];
        const T* const gram = G + (long long)idx[k] * K;
#pragma unroll
        for (int e = 0; e < EACH; ++e) total[e] = fma(rate, gram[here[e]], total[e]);
      }
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        const int k = here[e];
        if (start + e * THREADS >= K) continue;
        const T slope = total[e], now = fma(-fall, a[k], g[k]), h = fma(-c, slope, now);
        g[k] = now;
        a[k] = slope;
        const bool up = positive || h > T(0);
        const T own = (up ? h : -h) - least, rest = max(T(1) - (up ? slope : -slope), T(1e-30));
        if (!closed[k] && own * divisor > size * rest) {
          size = own;
          divisor = rest;
          atom = k;
        }
      }
    }
    meet();
    T quotient = size / divisor;
    argmax(quotient, atom);
    return atom;
  }

  // Let atom j join at the bound of the sign of h; one that depends on A is put aside until A has changed. Returns the
  // number of active atoms, or -1 without room for it.
  __device__ __forceinline__ int join(int m, int capacity, int j, T h) {
    const T norm2 = G[(long long)j * K + j], pivot2 = distance2(j, m);
    const T s = h > T(0) ? T(1) : T(-1);
    if (thread == 0) closed[j] = 1;
    if (pivot2 <= dependent_share<T>() * norm2 || m == capacity) {
      meet();
      return m;
    }
    if (m == room) return -1;
    append(m, j, pivot2, T(0), s, T(0));
    const T speed = (s - a[j]) / sqrt(pivot2);
#pragma unroll 1
    for (int k = thread; k <= m; k += THREADS) u[k] = (k < m ? u[k] : T(0)) + speed * lower[row(m) + k];
    meet();
    return m + 1;
  }

  // u = inv(G_AA) s, from scratch.
  __device__ __forceinline__ void turn(int m) {
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS) rhs[k] = sign[k];
    meet();
    solve(0, m);
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS) u[k] = step[k];
    meet();
  }

  __device__ __forceinline__ int leave(int m, int d) {
    m = remove(d, m);
#pragma unroll 1
    for (int k = thread; k < K; k += THREADS) closed[k] = 0;
    meet();
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS) closed[idx[k]] = 1;
    turn(m);
    return m;
  }

  // The correlations from the code; the code corrected if those of A are off c s by more than a rounding error.
  __device__ __forceinline__ void refresh(int m, T c) {
    T worst = 0;
    int atom;
    Base::sweep(coef, m, g, worst, atom);
    worst = 0;
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS) {
      rhs[k] = g[idx[k]] - c * sign[k];
      worst = max(worst, magnitude(rhs[k]));
    }
    argmax(worst, atom);
    meet();
    if (worst <= T(0.5) * least) return;
    solve(0, m);
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS) coef[k] += step[k];
    meet();
  }

  // The next event as the penalty falls from c: which, to which atom (its place in A if it leaves), at which penalty.
  // The correlation of an atom that has just left is, up to rounding, on the bound that it comes from: it may join only
  // at the other one.
  __device__ __forceinline__ int next_event(int m, T c, T fall, int gone, bool has_room, bool drop, int& atom,
                                            T& following) {
    if (gone >= 0 && thread == 0) closed[gone] = 1;
    meet();
    const int j = segment(m, fall, c);
    int event = NOTHING;
    atom = 0;
    following = 0;
    T there = meeting(j, c);
    if (there >= T(0) && has_room) {
      event = JOINS;
      atom = j;
      following = there;
    }
    if (gone >= 0) {
      meet();
      if (thread == 0) closed[gone] = 0;
      meet();
      there = meeting(gone, c);
      if (there > following && (g[gone] - c * a[gone]) * g[gone] < T(0)) {
        event = JOINS;
        atom = gone;
        following = there;
      }
    }
    if (!drop) return event;
    T nearest = T(-1e30);  // minus the fall after which a coefficient is zero
    int lost = m;
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS) {
      const bool loses = (coef[k] + (c - following) * u[k]) * sign[k] < T(0) && u[k] * sign[k] < T(0);
      if (loses && -magnitude(coef[k] / u[k]) > nearest) {
        nearest = -magnitude(coef[k] / u[k]);
        lost = k;
      }
    }
    argmax(nearest, lost);
    if (lost == m) return event;
    atom = lost;
    following = c + nearest;
    return LEAVES;
  }

  // The penalty at which the segment meets the first of two bounds, above c if it has passed it; 0 if it does not.
  // Along a segment |w|_1 grows by h = u.s for a fall of 1, and |r|^2 = |r(c)|^2 - h (c^2 - c'^2).
  __device__ __forceinline__ double bound(int m, T c, double norm2, double max_l1_norm, double max_error) const {
    double norm1 = 0, h = 0, explained = 0;
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS) {
      const double w = coef[k], s = sign[k];
      norm1 += w * s;
      h += (double)u[k] * s;
      explained += w * ((double)q[idx[k]] + (double)c * s);
    }
    norm1 = sum(norm1);
    h = sum(h);
    const double residual2 = norm2 - sum(explained);
    double reached = 0;
    if (norm1 + h * c > max_l1_norm) reached = c - (max_l1_norm - norm1) / h;
    if (max_error > 0)
      reached = max(reached, sqrt(max((double)c * c - (residual2 - max_error) / h, 0.0)));
    return reached;
  }

  // The code at penalty `end` of this segment, in w_end, and its correlations, in g_end. Returns whether its duality
  // gap is within `goal` but for rounding errors.
  __device__ __forceinline__ bool look_ahead(int m, T c, T end, double norm2, T largest, double goal, bool drop,
                                             double& gap) {
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS) {
      const T w = coef[k] + (c - end) * u[k];
      w_end[k] = drop && w * sign[k] < T(0) ? T(0) : w;
    }
    meet();
    T top;
    int atom;
    Base::sweep(w_end, m, g_end, top, atom);
    argmax(top, atom);
    const T error = rounding_level<T>() * max(largest, end);
    gap = Base::duality_gap(w_end, g_end, m, norm2, max(end, min(top, error)), top);
    if (gap <= goal) return true;
    return Base::duality_gap(w_end, g_end, m, norm2, end, max(top - error, T(0))) <= goal;
  }

  // |x - w D|^2 of the code that was looked at.
  __device__ __forceinline__ double residual2(int m, double norm2) const {
    double explained = 0;
#pragma unroll 1
    for (int k = thread; k < m; k += THREADS)
      explained += (double)w_end[k] * ((double)q[idx[k]] + (double)g_end[idx[k]]);
    return max(norm2 - sum(explained), 0.0);
  }

  // Hand out the non-zeros of the code that was looked at; returns how many.
  __device__ __forceinline__ int write(int m, int* atoms, T* code) const {
    int count = 0;
    if (thread < WARP) {
      for (int start = 0; start < m; start += WARP) {
        const int k = start + thread;
        const T w = k < m ? w_end[k] : T(0);
        const unsigned mask = __ballot_sync(FULL, w != T(0));
        const int place = count + __popc(mask & ((1u << thread) - 1u));
        if (w != T(0)) {
          atoms[place] = idx[k];
          code[place] = w;
        }
        count += __popc(mask);
      }
    }
    return count;  // of the first warp only
  }
};

// Follow the paths of signals `rows` (null: all) to the first of their bounds; arguments as of the twin. Signals with
// more than `room` active atoms are left TOO_LARGE, to be followed anew when they are listed in `rows`.
// instance: homotopy<float, 32> registers 152
// instance: homotopy<double, 32> registers 128
// instance: homotopy<float, 128> registers 168
// instance: homotopy<double, 128> registers 168
template <typename T, int THREADS>
__global__ void __launch_bounds__(THREADS, THREADS == WARP ? 12 : 3) homotopy(
    const T* __restrict__ Q, const double* __restrict__ norms2, const T* __restrict__ G, const T* __restrict__ alpha,
    const double* __restrict__ max_l1_norm, const double* __restrict__ max_error,
    const long long* __restrict__ max_nonzero, const double tol, const bool drop, const bool positive,
    const int max_iter, const long long* __restrict__ rows, int* __restrict__ indices, T* __restrict__ values,
    int* __restrict__ counts, double* __restrict__ gaps, double* __restrict__ penalties, int* __restrict__ iterations,
    signed char* __restrict__ status, const int n_atoms, const int capacity, const int room, T* scratch,
    const long long scratch_size, const int n_rows) {
  DYNAMIC_SHARED(T, shared);
  SHARED(double, parts, THREADS / WARP);
  SHARED(int, places, THREADS / WARP);
  Path<T, THREADS> path;
  path.G = G;
  path.K = n_atoms;
  path.room = room;
  path.thread = threadIdx.x;
  path.positive = positive;
  path.parts = parts;
  path.places = places;
  path.lay_out_path(THREADS == WARP ? shared : scratch + blockIdx.x * scratch_size);
  for (int r = blockIdx.x; r < n_rows; r += gridDim.x) {
    path.meet();
    const long long i = rows ? rows[r] : r;
    const double norm2 = norms2[i];
    path.q = Q + i * n_atoms;
    int j;
    const T largest = path.begin(j);
    T c = largest, following = largest, fall = 0, end = max(c, alpha[i]);
    int m = 0, event = JOINS, steps = 0, outcome = REACHED;
    double bound = 0;
    const bool counted = !drop || max_nonzero[i] < capacity;
    const bool bounded = max_l1_norm[i] < 1e300 || max_error[i] > 0;
    const bool moves = c > alpha[i] && norm2 > max_error[i] && max_nonzero[i] > 0;
    while (moves) {
      int gone = -1;
#pragma unroll 1
      for (int k = path.thread; k < m; k += THREADS) path.coef[k] += (c - following) * path.u[k];
      path.meet();
      if (event == JOINS) {
        const int grown = path.join(m, capacity, j, path.g[j] - c * path.a[j]);
        if (grown < 0) {
          outcome = TOO_LARGE;
          break;
        }
        m = grown;
      } else if (event == LEAVES) {
        gone = path.idx[j];
        m = path.leave(m, j);
      }
      fall = c - following;
      c = following;
      if (steps % 8 == 7) {
        path.refresh(m, c);
        fall = 0;
      }
      event = path.next_event(m, c, fall, gone, counted || m < capacity, drop, j, following);
      if (bounded) bound = path.bound(m, c, norm2, max_l1_norm[i], max_error[i]);
      end = max(alpha[i], min(c, (T)bound));
      if (event == JOINS && counted && m >= max_nonzero[i]) end = max(end, following);
      ++steps;
      if (end >= following) break;
      if (steps == max_iter) {
        end = following;
        outcome = STOPPED;
        break;
      }
    }
    if (outcome == TOO_LARGE) {
      if (path.thread == 0) status[i] = TOO_LARGE;
      continue;
    }
    double gap;
    const bool done = path.look_ahead(m, c, end, norm2, largest, 0.5 * tol * norm2, drop, gap);
    const int count = path.write(m, indices + i * capacity, values + i * capacity);
    const double residual2 = path.residual2(m, norm2);
    if (end == T(0) && max_error[i] > 0 && residual2 > max_error[i] + 16 * (double)path.epsilon() * norm2)
      outcome = OUT_OF_REACH;
    if (path.thread == 0) {
      const int held = end > max(alpha[i], (T)bound) ? HELD : 0;
      counts[i] = count;
      gaps[i] = drop ? gap : residual2;
      penalties[i] = end;
      iterations[i] = steps;
      status[i] = outcome + (drop && !done ? UNSETTLED + held : 0);
    }
  }
}

// One round of what repairs codes: from solutions of the lasso at `penalties` along their segments to the bounds, whose
// penalty and code they become. `state` says whether a signal is REPAIRED, or FAILED to reach its gap at a penalty that
// is `held` or meets the bounds.
// instance: toward_bounds<float, 128> registers 168
// instance: toward_bounds<double, 128> registers 168
template <typename T, int THREADS>
__global__ void __launch_bounds__(THREADS, 3) toward_bounds(
    const T* __restrict__ Q, const double* __restrict__ norms2, const T* __restrict__ G, const T* __restrict__ alpha,
    const double* __restrict__ max_l1_norm, const double* __restrict__ max_error, const double tol,
    const bool positive, const bool* __restrict__ held, const signed char* __restrict__ solved, T* penalties,
    int* indices, T* values, int* counts, double* gaps, signed char* __restrict__ state,
    const int n_atoms, const int capacity, T* scratch, const long long scratch_size, const int n_rows) {
  SHARED(double, parts, THREADS / WARP);
  SHARED(int, places, THREADS / WARP);
  Path<T, THREADS> path;
  path.G = G;
  path.K = n_atoms;
  path.room = capacity;
  path.thread = threadIdx.x;
  path.positive = positive;
  path.parts = parts;
  path.places = places;
  path.lay_out_path(scratch + blockIdx.x * scratch_size);
  for (int i = blockIdx.x; i < n_rows; i += gridDim.x) {
    path.meet();
    int* const atoms = indices + (long long)i * capacity;
    T* const code = values + (long long)i * capacity;
    path.q = Q + (long long)i * n_atoms;
    int j;
    const T largest = path.begin(j), end = penalties[i];
    const int given = counts[i];
    const double goal = 0.5 * tol * norms2[i];
    int m = 0;
#pragma unroll 1
    for (int k = 0; k < given; ++k) {
      const T value = code[k];
      const int grown = path.join(m, capacity, atoms[k], value);
      if (grown > m && path.thread == 0) path.coef[m] = value;
      m = grown;
    }
    path.meet();
    path.turn(m);
    const double reached = path.bound(m, end, norms2[i], max_l1_norm[i], max_error[i]);
    const T bound = max(alpha[i], (T)reached);
    double gap = gaps[i];
    int outcome;
    int count = given;
    if (held[i] || bound == end) {
      outcome = solved[i] == 0 || gap <= goal ? REPAIRED : FAILED;
    } else {
      outcome = path.look_ahead(m, end, bound, norms2[i], largest, goal, true, gap) ? REPAIRED : GO_ON;
      count = path.write(m, atoms, code);
    }
    path.meet();
    if (path.thread == 0) {
      state[i] = outcome;
      gaps[i] = gap;
      counts[i] = count;
      if (!held[i]) penalties[i] = bound;
    }
  }
}
