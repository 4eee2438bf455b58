// Orthogonal matching pursuit and orthogonal least squares on the Gram matrix, one block a signal.
//
// Every thread keeps its atoms' correlations, and their part of the chosen atoms' orthogonalised Gram rows, in
// registers; rows that these do not hold are in dynamic shared memory. So each chosen Gram row is read once, and
// nothing of the size of rows x atoms leaves the multiprocessor. Where shared memory is too small, too, `pursue_again`
// computes the orthogonalised rows anew from the Gram rows at every step.
//
// With `units`, correlations and columns of the Gram matrix come multiplied by weights of the atoms, and so is all that
// is derived from them: what belongs to a single atom is multiplied by its unit, the inverse of its weight.

enum { ACCEPTED, AGAIN, ENDED, COMPLETE };  // an atom; another one is needed; there is none; the last atom

template <typename T>
__device__ __forceinline__ T dependent_level() {  // squared distance from the span of the chosen atoms
  return sizeof(T) == 4 ? T(1e-6) : T(1e-10);
}

template <typename T>
__device__ __forceinline__ T rounding_level() {  // correlations below this share of the first are rounding
  return sizeof(T) == 4 ? T(1e-6) : T(2e-15);
}

// Without the subroutines of exact divisions and roots, for which registers would have to be saved.
__device__ __forceinline__ float quotient(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ double quotient(double a, double b) { return a / b; }

template <typename T>
__device__ __forceinline__ T inverse_root(T value) {
  const T first = rsqrt(value);
  return first * (T(1.5) - T(0.5) * value * first * first);
}

// values = inv(L') y for the first m atoms, by one warp, from the last 32 atoms to the first. Row a of `factor` holds
// row a of L, the inverse of the pivot in its place, and y_a behind the `room` atoms. `code` is scratch.
template <typename T>
__device__ __forceinline__ void solve_codes(const int m, const T* factor, const int stride, const int room, T* code,
                                            T* __restrict__ values) {
  const int lane = threadIdx.x % WARP;
  for (int base = (m - 1) / WARP * WARP; base >= 0 && m > 0; base -= WARP) {
    const int mine = base + lane;
    T value = mine < m ? factor[mine * stride + room] : T(0);
    const T inverse = mine < m ? factor[mine * stride + mine] : T(0);
    if (mine < m)
      for (int a = base + WARP; a < m; ++a) value -= code[a] * factor[a * stride + mine];
    const int last = m - base < WARP ? m - base : WARP;
    for (int a = last - 1; a >= 0; --a) {
      const T solved = __shfl_sync(FULL, value * inverse, a);
      if (lane == a) value = solved;
      if (lane < a) value -= solved * factor[(base + a) * stride + mine];
    }
    if (mine < m) {
      code[mine] = value;
      values[mine] = value;
    }
    __syncwarp();
  }
}

// What a thread knows of a signal: its atoms are `size` consecutive ones, and as many again a block's width further on.
template <typename T, int PER_THREAD, int ROWS>
struct Atoms {
  T g[PER_THREAD];         // correlations with the residual
  T distance[PER_THREAD];  // squared distance from the span of the chosen atoms (least squares)
  T basis[ROWS][PER_THREAD];
  unsigned taken;  // a bit for every chosen atom
};

// What the threads of a block share, one signal after the other.
template <typename T>
struct Shared {
  T* rows;     // of the basis from number ROWS on
  T* factor;   // as `solve_codes` takes it
  T* news;     // 1 / pivot and y of the atom just chosen, level of rounding
  T* scores;
  int* indices;
  int* verdict;  // and status
  double* rest;  // squared residual, that at which to stop, that at the start
};

// Choose atom m and, unless it is the last one, take it out of all correlations; returns the verdict. BEYOND says that
// all rows of the registers are taken, as m does where it is known to the compiler.
template <typename T, int PER_THREAD, int ROWS, int LEAST_SQUARES, bool BEYOND>
__device__ __forceinline__ int choose_atom(const int m, Atoms<T, PER_THREAD, ROWS>& atoms, const Shared<T>& shared,
                                           const T* __restrict__ gram, const T* __restrict__ diagonal,
                                           const T* __restrict__ units, const int n_atoms, const int stride,
                                           const int room, const int stop, int* __restrict__ chosen) {
  constexpr int SIZE = Pack<T>::size, GROUPS = PER_THREAD / SIZE;
  const int first = threadIdx.x * SIZE, width = blockDim.x * SIZE;
  T row[PER_THREAD];
  for (bool again = false;; again = true) {
    T score = T(0);
    int best = -1;
    if (LEAST_SQUARES) {
      T divisor = T(1);
#pragma unroll
      for (int e = 0; e < PER_THREAD; ++e) {
        const bool free = atoms.distance[e] > dependent_level<T>();
        const T gain = free ? atoms.g[e] * atoms.g[e] : T(0), norm = free ? atoms.distance[e] : T(1);
        if (gain * divisor > score * norm) {
          score = gain;
          divisor = norm;
          best = e;
        }
      }
      score = quotient(score, divisor);
    } else {  // as a tree, whose chain of comparisons is short
      T sizes[PER_THREAD];
      int places[PER_THREAD];
#pragma unroll
      for (int e = 0; e < PER_THREAD; ++e) {
        sizes[e] = fabs(atoms.g[e]);
        places[e] = e;
      }
#pragma unroll
      for (int step = 1; step < PER_THREAD; step *= 2) {
#pragma unroll
        for (int e = 0; e < PER_THREAD; e += 2 * step) {
          if (sizes[e + step] > sizes[e]) {
            sizes[e] = sizes[e + step];
            places[e] = places[e + step];
          }
        }
      }
      if (sizes[0] > T(0)) {
        score = sizes[0];
        best = places[0];
      }
    }
    int j = best < 0 ? 0x7fffffff : first + best / SIZE * width + best % SIZE;
    block_best(score, j, shared.scores, shared.indices);
    if (j >= n_atoms) j = 0;  // no atom has a score
    if (m + 1 < stop) {  // on its way while the owner looks at the atom
      const T* __restrict__ gram_row = gram + (long long)j * n_atoms;
#pragma unroll
      for (int group = 0; group < GROUPS; ++group) {
        const int start = first + group * width;
        Pack<T> pack;
#pragma unroll
        for (int e = 0; e < SIZE; ++e) pack.item[e] = T(0);
        if (start < n_atoms) pack = load_pack(gram_row + start);
#pragma unroll
        for (int e = 0; e < SIZE; ++e) row[group * SIZE + e] = pack.item[e];
      }
    }
    int own = -1;
#pragma unroll
    for (int group = 0; group < GROUPS; ++group) {
      const int place = j - first - group * width;
      if (place >= 0 && place < SIZE) own = group * SIZE + place;
    }
    if (own >= 0) {
      const T unit = units ? units[j] : T(1);
      T g = T(0), distance = T(0), pivot2 = diagonal[j];
#pragma unroll
      for (int e = 0; e < PER_THREAD; ++e) {
        g = e == own ? atoms.g[e] : g;
        if (LEAST_SQUARES) distance = e == own ? atoms.distance[e] : distance;
      }
      g *= unit;
      T* factor = shared.factor + m * stride;
#pragma unroll
      for (int a = 0; a < ROWS; ++a) {
        if (BEYOND || a < m) {
          T r = T(0);
#pragma unroll
          for (int e = 0; e < PER_THREAD; ++e) r = e == own ? atoms.basis[a][e] : r;
          r *= unit;
          factor[a] = r;
          pivot2 -= r * r;
        }
      }
#pragma unroll
      for (int a = 1; a < ROWS + SIZE; ++a)  // what else is in the last of the packs below
        if (!BEYOND && a > m && a < (m + SIZE - 1) / SIZE * SIZE) factor[a] = T(0);
      for (int a = ROWS; a < m; ++a) {
        const T r = shared.rows[(a - ROWS) * n_atoms + j] * unit;
        factor[a] = r;
        pivot2 -= r * r;
      }
      const T size = fabs(g);
      const double rest = shared.rest[0];
      if (m == 0 && !again) shared.news[2] = rounding_level<T>() * size;
      const bool free = !LEAST_SQUARES || distance > dependent_level<T>();
      int verdict = ENDED;
      if (!(size > shared.news[2]) || !free || (!again && (atoms.taken >> own & 1u))) {
        shared.verdict[1] = LEAST_SQUARES ? (free || rest <= dependent_level<T>() * shared.rest[2] ? 0 : 2)
                                          : (again ? 2 : 0);
      } else if (!(pivot2 > (LEAST_SQUARES ? T(0.1) : T(1)) * dependent_level<T>())) {
        verdict = LEAST_SQUARES ? ENDED : AGAIN;  // it depends on the chosen atoms, so its correlation is rounding
        shared.verdict[1] = LEAST_SQUARES ? 2 : 0;
#pragma unroll
        for (int e = 0; e < PER_THREAD; ++e) atoms.g[e] = e == own ? T(0) : atoms.g[e];
      } else {
        const T inverse = inverse_root(pivot2), y = g * inverse;
        const double left = rest - (double)y * (double)y, target = shared.rest[1];
        shared.news[0] = factor[m] = inverse;
        shared.news[1] = factor[room] = y;
        shared.rest[0] = left;
        chosen[m] = j;
        atoms.taken |= 1u << own;
        verdict = m + 1 == stop || (target >= 0 && left <= target) ? COMPLETE : ACCEPTED;
      }
      shared.verdict[0] = verdict;
    }
    __syncthreads();
    if (shared.verdict[0] != AGAIN) break;
  }
  const int verdict = shared.verdict[0];
  if (verdict != ACCEPTED) return verdict;
  const T inverse = shared.news[0], y = shared.news[1];
  const T* factor = shared.factor + m * stride;
#pragma unroll
  for (int part = 0; part < ROWS; part += SIZE) {
    if (BEYOND || part < m) {
      const Pack<T> coefficients = load_pack(factor + part);
#pragma unroll
      for (int a = part; a < part + SIZE && a < ROWS; ++a) {
        if (BEYOND || a < m) {
#pragma unroll
          for (int e = 0; e < PER_THREAD; ++e) row[e] -= coefficients.item[a - part] * atoms.basis[a][e];
        }
      }
    }
  }
  for (int a = ROWS; a < m; ++a) {
    const T coefficient = factor[a];
#pragma unroll
    for (int group = 0; group < GROUPS; ++group) {
      const int start = first + group * width;
      if (start < n_atoms) {
        const Pack<T> pack = load_pack(shared.rows + (a - ROWS) * n_atoms + start);
#pragma unroll
        for (int e = 0; e < SIZE; ++e) row[group * SIZE + e] -= coefficient * pack.item[e];
      }
    }
  }
#pragma unroll
  for (int e = 0; e < PER_THREAD; ++e) {
    row[e] *= inverse;
    atoms.g[e] -= y * row[e];
    if (LEAST_SQUARES) atoms.distance[e] -= row[e] * row[e];
#pragma unroll
    for (int a = 0; a < ROWS; ++a)
      if (!BEYOND && a == m) atoms.basis[a][e] = row[e];
  }
  if (BEYOND || m >= ROWS) {
#pragma unroll
    for (int group = 0; group < GROUPS; ++group) {
      const int start = first + group * width;
      Pack<T> pack;
#pragma unroll
      for (int e = 0; e < SIZE; ++e) pack.item[e] = row[group * SIZE + e];
      if (start < n_atoms) store_pack(shared.rows + (m - ROWS) * n_atoms + start, pack);
    }
  }
  return ACCEPTED;
}

// Codes of `room` atoms at most, for all signals or those that are `listed`. A signal that needs more and may have more
// joins those that are `left`, and nothing but its atoms so far is written.
// instance: pursue<float, 8, 8, 0> registers 128
// instance: pursue<float, 8, 6, 1> registers 128
// instance: pursue<double, 4, 6, 0> registers 128
// instance: pursue<double, 4, 4, 1> registers 128
template <typename T, int PER_THREAD, int ROWS, int LEAST_SQUARES>
__global__ void __launch_bounds__(512)
    pursue(const T* __restrict__ correlations, const double* __restrict__ norms2, const T* __restrict__ gram,
           const T* __restrict__ diagonal, const long long* __restrict__ n_nonzero,
           const double* __restrict__ max_error, const T* __restrict__ units, const long long* __restrict__ stops,
           const int n_stops, const int n_signals, const int n_atoms, const int capacity, const int room,
           const int* __restrict__ listed, const int* __restrict__ n_listed, int* __restrict__ left,
           int* __restrict__ n_left, int* __restrict__ indices, T* __restrict__ values, int* __restrict__ counts,
           double* __restrict__ residuals, signed char* __restrict__ status, T* __restrict__ path_values) {
  constexpr int SIZE = Pack<T>::size, GROUPS = PER_THREAD / SIZE;
  DYNAMIC_SHARED(T, memory);
  SHARED(T, news, 3);
  SHARED(T, scores, 16);
  SHARED(int, places, 16);
  SHARED(int, verdicts, 2);
  SHARED(double, rest, 3);
  const int stride = room / SIZE * SIZE + SIZE, outside = room - 1 > ROWS ? room - 1 - ROWS : 0;
  Shared<T> shared;
  shared.rows = memory;
  shared.factor = memory + (long long)outside * n_atoms;
  shared.news = news;
  shared.scores = scores;
  shared.indices = places;
  shared.verdict = verdicts;
  shared.rest = rest;
  const unsigned total = n_listed ? *n_listed : n_signals;
  for (unsigned number = blockIdx.x; number < total; number += gridDim.x) {
    const int i = listed ? listed[number] : number;
    const long long wanted = n_nonzero[i];
    const int limit = wanted < capacity ? (int)wanted : capacity, stop = limit < room ? limit : room;
    const double target = max_error[i];
    int m = 0, verdict = COMPLETE;
    if (threadIdx.x == 0) {
      rest[0] = rest[2] = norms2[i];
      rest[1] = target;
      verdicts[1] = 0;
    }
    if (stop > 0 && (target >= 0 ? norms2[i] > target : stop == limit)) {
      Atoms<T, PER_THREAD, ROWS> atoms;
      atoms.taken = 0;
#pragma unroll
      for (int group = 0; group < GROUPS; ++group) {
        const int start = (threadIdx.x + group * blockDim.x) * SIZE;
        Pack<T> pack, own;
        if (start < n_atoms) {
          pack = load_pack(correlations + (long long)i * n_atoms + start);
          if (LEAST_SQUARES) own = load_pack(diagonal + start);
        }
#pragma unroll
        for (int e = 0; e < SIZE; ++e) {
          atoms.g[group * SIZE + e] = start < n_atoms ? pack.item[e] : T(0);
          atoms.distance[group * SIZE + e] = LEAST_SQUARES && start < n_atoms ? own.item[e] : T(0);
        }
      }
      verdict = ACCEPTED;
#pragma unroll
      for (int step = 0; step <= ROWS; ++step) {
        if (verdict == ACCEPTED) {
          verdict = choose_atom<T, PER_THREAD, ROWS, LEAST_SQUARES, false>(
              step, atoms, shared, gram, diagonal, units, n_atoms, stride, room, stop,
              indices + (long long)i * capacity);
          m = step + (verdict != ENDED);
        }
      }
      while (verdict == ACCEPTED) {
        verdict = choose_atom<T, PER_THREAD, ROWS, LEAST_SQUARES, true>(
            m, atoms, shared, gram, diagonal, units, n_atoms, stride, room, stop, indices + (long long)i * capacity);
        m += verdict != ENDED;
      }
    }
    if (threadIdx.x < WARP) {
      __syncwarp();
      if (verdict == COMPLETE && stop < limit && !(rest[1] >= 0 && rest[0] <= rest[1])) {
        if (threadIdx.x == 0) left[atomicAdd(n_left, 1)] = i;
      } else {
        T* code = shared.factor + room * stride;
        solve_codes(m, shared.factor, stride, room, code, values + (long long)i * capacity);
        for (int p = 0; p < n_stops; ++p)
          solve_codes(stops[p] < m ? (int)stops[p] : m, shared.factor, stride, room, code,
                      path_values + ((long long)i * n_stops + p) * capacity);
        if (threadIdx.x == 0) {
          counts[i] = m;
          residuals[i] = rest[0] > 0 ? rest[0] : 0;
          status[i] = (signed char)verdicts[1];
        }
      }
    }
    __syncthreads();
  }
}

// Any count of atoms, from scratch memory of which each block has `block_items` items: correlations, distances, the
// inverse F of the Cholesky factor, and four vectors of the chosen atoms. Orthogonalised rows are rows of F times Gram
// rows, computed anew.
// instance: pursue_again<float, 0> registers 152
// instance: pursue_again<float, 1> registers 168
// instance: pursue_again<double, 0> registers 216
// instance: pursue_again<double, 1> registers 200
template <typename T, int LEAST_SQUARES>
__global__ void __launch_bounds__(256, 1)
    pursue_again(const T* __restrict__ correlations, const double* __restrict__ norms2, const T* __restrict__ gram,
                 const T* __restrict__ diagonal, const long long* __restrict__ n_nonzero,
                 const double* __restrict__ max_error, const T* __restrict__ units,
                 const long long* __restrict__ stops, const int n_stops, const int n_signals, const int n_atoms,
                 const int capacity, const int* __restrict__ listed, const int* __restrict__ n_listed, T* scratch,
                 const long long block_items, int* indices, T* __restrict__ values, int* __restrict__ counts,
                 double* __restrict__ residuals, signed char* __restrict__ status, T* __restrict__ path_values) {
  constexpr int SIZE = Pack<T>::size;
  SHARED(T, scores, 8);
  SHARED(int, places, 8);
  T* g = scratch + blockIdx.x * block_items;
  T* distance = g + n_atoms;
  T* inverse = distance + (LEAST_SQUARES ? n_atoms : 0);
  T* column = inverse + (long long)capacity * capacity;
  T* row = column + capacity;
  T* y = row + capacity;
  const int lane = threadIdx.x % WARP, first = threadIdx.x * SIZE, width = blockDim.x * SIZE;
  const long long total = n_listed ? *n_listed : n_signals;
  for (long long number = blockIdx.x; number < total; number += gridDim.x) {
    const long long i = listed ? listed[number] : number;
    int* chosen = indices + i * capacity;
    const long long wanted = n_nonzero[i];
    const int limit = wanted < capacity ? (int)wanted : capacity;
    const double norm2 = norms2[i], target = max_error[i];
    double rest = norm2;
    int m = 0, outcome = 0;
    T level = T(-1);
    bool again = false;
    for (int start = first; start < n_atoms; start += width) {
      store_pack(g + start, load_pack(correlations + i * n_atoms + start));
      if (LEAST_SQUARES) store_pack(distance + start, load_pack(diagonal + start));
    }
    while (m < limit && !(target >= 0 && rest <= target)) {
      T score = T(0), divisor = T(1);
      int j = 0x7fffffff;
      for (int start = first; start < n_atoms; start += width) {
        const Pack<T> own = load_pack(g + start);
        Pack<T> other;
        if (LEAST_SQUARES) other = load_pack(distance + start);
#pragma unroll
        for (int e = 0; e < SIZE; ++e) {
          T gain = fabs(own.item[e]), norm = T(1);
          if (LEAST_SQUARES) {
            const bool free = other.item[e] > dependent_level<T>();
            gain = free ? gain * gain : T(0);
            norm = free ? other.item[e] : T(1);
          }
          if (gain * divisor > score * norm) {
            score = gain;
            divisor = norm;
            j = start + e;
          }
        }
      }
      score = quotient(score, divisor);
      block_best(score, j, scores, places);
      if (j >= n_atoms) j = 0;  // no atom has a score
      const T unit = units ? units[j] : T(1), correlation = g[j] * unit, size = fabs(correlation);
      if (level < T(0)) level = rounding_level<T>() * size;
      const bool free = !LEAST_SQUARES || distance[j] > dependent_level<T>();
      bool taken = false;
      for (int a = threadIdx.x; a < m; a += blockDim.x) {
        column[a] = gram[(long long)chosen[a] * n_atoms + j] * unit;
        taken = taken || chosen[a] == j;
      }
      taken = __syncthreads_or(taken);
      if (!(size > level) || !free || (taken && !again)) {
        if (LEAST_SQUARES) outcome = free || rest <= dependent_level<T>() * norm2 ? 0 : 2;
        else outcome = again ? 2 : 0;
        break;
      }
      for (int a = threadIdx.x / WARP; a < m; a += blockDim.x / WARP) {
        T sum = T(0);
        for (int b = lane; b <= a; b += WARP) sum += inverse[(long long)a * capacity + b] * column[b];
        sum = warp_sum(sum);
        if (lane == 0) row[a] = sum;
      }
      __syncthreads();
      T square = T(0);
      for (int a = lane; a < m; a += WARP) square += row[a] * row[a];
      const T pivot2 = diagonal[j] - warp_sum(square);
      if (!(pivot2 > (LEAST_SQUARES ? T(0.1) : T(1)) * dependent_level<T>())) {
        if (LEAST_SQUARES) {
          outcome = 2;
          break;
        }
        again = true;  // it depends on the chosen atoms, so its correlation is rounding
        const int own = j / SIZE * SIZE;
        if (own % width == first) g[j] = T(0);
        continue;
      }
      again = false;
      const T scale = inverse_root(pivot2), value = correlation * scale;
      for (int b = threadIdx.x; b < m; b += blockDim.x) {
        T sum = T(0);
        for (int a = b; a < m; ++a) sum += row[a] * inverse[(long long)a * capacity + b];
        inverse[(long long)m * capacity + b] = -scale * sum;
      }
      if (threadIdx.x == 0) {
        inverse[(long long)m * capacity + m] = scale;
        y[m] = value;
        chosen[m] = j;
      }
      __syncthreads();
      rest -= (double)value * (double)value;
      ++m;
      if (m == limit || (target >= 0 && rest <= target)) break;
      const T* coefficients = inverse + (long long)(m - 1) * capacity;
      for (int start = first; start < n_atoms; start += width) {
        Pack<T> sum, own = load_pack(g + start);
#pragma unroll
        for (int e = 0; e < SIZE; ++e) sum.item[e] = T(0);
        for (int b = 0; b < m; ++b) {
          const T coefficient = coefficients[b];
          const Pack<T> pack = load_pack(gram + (long long)chosen[b] * n_atoms + start);
#pragma unroll
          for (int e = 0; e < SIZE; ++e) sum.item[e] += coefficient * pack.item[e];
        }
#pragma unroll
        for (int e = 0; e < SIZE; ++e) own.item[e] -= value * sum.item[e];
        store_pack(g + start, own);
        if (LEAST_SQUARES) {
          Pack<T> squares = load_pack(distance + start);
#pragma unroll
          for (int e = 0; e < SIZE; ++e) squares.item[e] -= sum.item[e] * sum.item[e];
          store_pack(distance + start, squares);
        }
      }
    }
    for (int p = -1; p < n_stops; ++p) {
      const int count = p < 0 || stops[p] > m ? m : (int)stops[p];
      T* out = p < 0 ? values + i * capacity : path_values + (i * n_stops + p) * capacity;
      for (int b = threadIdx.x; b < count; b += blockDim.x) {
        T sum = T(0);
        for (int a = b; a < count; ++a) sum += inverse[(long long)a * capacity + b] * y[a];
        out[b] = sum;
      }
    }
    if (threadIdx.x == 0) {
      counts[i] = m;
      residuals[i] = rest > 0 ? rest : 0;
      status[i] = (signed char)outcome;
    }
  }
}
