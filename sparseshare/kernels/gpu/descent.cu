// Proximal gradient over a linear operator: what an iteration does besides the operator, in four launches and no host.
//
// Codes are J groups of P entries; y = z + momentum (z - before) is never stored. Every iteration writes the next of four
// buffers, whose last contents are four iterations old. A step that turns out too long is taken back: the state says how
// many iterations ago z and the codes before it were written. The retry takes the shortest step, which always holds, so
// two never fail in a row, and what is written over is needed no more, or read first by the thread that writes.

// Numbers of an iteration, kept on the device; the driver fills in their first values and reads the last ones.
enum { CURVATURE, MOMENTUM, Z_AGO, BEFORE_AGO, BOUND, OBJECTIVE, DONE, COUNT, TOTAL, SHARE, PULL, LEARNED, FAILED, T_NOW };
enum { ISTA, FISTA, BACKTRACKING };

template <typename T>
__device__ __forceinline__ const T* written(const double ago, const T* one, const T* two, const T* three, const T* four) {
  return ago == 1 ? one : ago == 2 ? two : ago == 3 ? three : four;
}

// Sums of COUNT values over a block, in an order that does not vary, written by thread 0.
template <int N>
__device__ __forceinline__ void block_sums(double (&value)[N], double* out) {
  SHARED(double, sums, N * 32);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const double sum = warp_sum(value[i]);
    if (lane == 0) sums[i * 32 + warp] = sum;
  }
  __syncthreads();
  if (threadIdx.x < N) {
    double sum = 0;
    for (int w = 0; w < warps; ++w) sum += sums[threadIdx.x * 32 + w];
    out[threadIdx.x] = sum;
  }
}

// r = b - image(y), and |r|^2, <b, r>.
// instance: residual_at<float> registers 56
// instance: residual_at<double> registers 64
template <typename T>
__global__ void __launch_bounds__(256, 4) residual_at(const T* __restrict__ target, const T* __restrict__ one,
                                                   const T* __restrict__ two, const T* __restrict__ three,
                                                   const T* __restrict__ four, const double* __restrict__ state,
                                                   const long long n, T* __restrict__ residual, double* __restrict__ sums) {
  const T* z = written(state[Z_AGO], one, two, three, four);
  const T* before = written(state[BEFORE_AGO], one, two, three, four);
  const T momentum = T(state[MOMENTUM]);
  double sum[2] = {0, 0};
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {
    T y = z[i];
    if (momentum != T(0)) y += momentum * (y - before[i]);
    const T r = target[i] - y;
    residual[i] = r;
    sum[0] += (double)r * r;
    sum[1] += (double)target[i] * r;
  }
  block_sums(sum, sums + 2 * blockIdx.x);
}

// Sums of a block's threads and their largest `highest`: four numbers a block.
__device__ __forceinline__ void step_results(double length2, double ahead, double sizes, double highest, double* out) {
  double sum[3] = {length2, ahead, sizes};
  block_sums(sum, out);
  SHARED(double, most, 32);
  highest = warp_max(highest);
  if ((threadIdx.x & 31) == 0) most[threadIdx.x >> 5] = highest;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < blockDim.x >> 5; ++w) highest = most[w] > highest ? most[w] : highest;
    out[3] = highest;
  }
}

// next = prox(y + correlations / curvature); |next - y|^2, <next - y, next - z>, the l1 norm of next, weighted, and the
// largest correlation over its weight. A thread has several entries, read before any is written, to keep memory busy.
// instance: l1_step<float> registers 120
// instance: l1_step<double> registers 128
template <typename T>
__global__ void __launch_bounds__(256, 2) l1_step(const T* __restrict__ correlations, const T* one, const T* two,
                                                  const T* three, T* next, const double* __restrict__ state,
                                                  const double alpha, const T* __restrict__ weights,
                                                  const long long a_weight, const bool positive, const int groups,
                                                  const long long n, double* __restrict__ sums) {
  const int PER = 4;
  const T* z = written(state[Z_AGO], one, two, three, (const T*)next);
  const T* before = written(state[BEFORE_AGO], one, two, three, (const T*)next);
  const bool done = state[DONE] != 0, moving = state[MOMENTUM] != 0;
  const T momentum = T(state[MOMENTUM]), step = done ? T(0) : T(1 / state[CURVATURE]);
  const T level = done ? T(0) : T(alpha / state[CURVATURE]);
  const long long all = groups * n, stride = (long long)gridDim.x * blockDim.x * PER;
  T length2 = T(0), ahead = T(0);
  double sizes = 0, highest = 0;
  for (long long start = (long long)blockIdx.x * blockDim.x * PER + threadIdx.x; start < all; start += stride) {
    T here[PER], old[PER], correlation[PER], weight[PER];
#pragma unroll
    for (int u = 0; u < PER; ++u) {
      const long long i = start + u * (int)blockDim.x;
      const bool inside = i < all;
      here[u] = inside ? z[i] : T(0);
      old[u] = inside && moving ? before[i] : T(0);
      correlation[u] = inside ? correlations[i] : T(0);
      weight[u] = T(1);
      if (weights && inside) {
        const long long p = groups == 1 ? i : i % n;  // a 64-bit division costs as much as all the rest
        weight[u] = weights[a_weight == 1 ? p : n < 0x7fffffff ? (unsigned)p / (unsigned)a_weight : p / a_weight];
      }
    }
#pragma unroll
    for (int u = 0; u < PER; ++u) {
      const long long i = start + u * (int)blockDim.x;
      const T y = moving ? here[u] + momentum * (here[u] - old[u]) : here[u];
      T value = y + step * correlation[u];
      if (positive && value < T(0)) value = T(0);
      if (!done) value = soft_threshold(value, level * weight[u]);
      else value = here[u];
      if (i < all) next[i] = value;
      length2 += (value - y) * (value - y);
      ahead += (value - y) * (value - here[u]);
      if (value != T(0)) sizes += magnitude(value) * weight[u];
      const T height = positive ? correlation[u] : magnitude(correlation[u]);
      if (height > T(0)) {
        const double quotient = weights ? height / weight[u] : height;
        highest = quotient > highest ? quotient : highest;
      }
    }
  }
  step_results(length2, ahead, sizes, highest, sums + 4 * blockIdx.x);
}

// The least alpha at which a group of correlations is dual feasible, if it is above `most`; else `most`. It is between
// the largest of the group and its norm, and there by bisection (Ndiaye et al. 2016, equation 21).
template <typename T>
__device__ __forceinline__ double epsilon_norm(const T* correlations, long long p, long long n, int groups, double weight, double joint,
                               bool positive, double most) {
  double largest = 0, square = 0;
  for (int j = 0; j < groups; ++j) {
    const T value = correlations[j * n + p];
    const double size = positive ? (value > T(0) ? value : T(0)) : magnitude(value);
    largest = size > largest ? size : largest;
    square += size * size;
  }
  if (largest == 0) return most;
  double low = largest / weight, high = sqrt(square) / weight;
  if (!(high > most) || joint == 1 || !(weight > 0)) return high > most ? high : most;
  low = low > most ? low : most;
  for (int halving = 0; halving < 50; ++halving) {
    const double middle = halving ? 0.5 * (low + high) : low;
    double rest = 0;
    for (int j = 0; j < groups; ++j) {
      const T value = correlations[j * n + p];
      const double size = (positive ? (value > T(0) ? value : T(0)) : magnitude(value)) / weight;
      const double over = size - (1 - joint) * middle;
      rest += over > 0 ? over * over : 0;
    }
    if (sqrt(rest) <= joint * middle) {
      high = middle;
      if (!halving) break;
    } else {
      low = middle;
    }
  }
  return high > most ? high : most;
}

// As `l1_step`, for a penalty that joins the groups: (1 - joint) of it is the l1 norm, the rest the l2 norm over groups.
// instance: joint_step<float> registers 120
// instance: joint_step<double> registers 128
template <typename T>
__global__ void __launch_bounds__(256, 2) joint_step(const T* __restrict__ correlations, const T* one, const T* two,
                                                     const T* three, T* next, const double* __restrict__ state,
                                                     const double alpha, const T* __restrict__ weights,
                                                     const long long a_weight, const bool positive, const double joint,
                                                     const int groups, const long long n, double* __restrict__ sums) {
  const T* z = written(state[Z_AGO], one, two, three, (const T*)next);
  const T* before = written(state[BEFORE_AGO], one, two, three, (const T*)next);
  const bool done = state[DONE] != 0;
  const T momentum = T(state[MOMENTUM]), step = T(1 / state[CURVATURE]);
  const double level = alpha / state[CURVATURE];
  T length2 = T(0), ahead = T(0);
  double sizes = 0, highest = 0;
  for (long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x; p < n; p += (long long)gridDim.x * blockDim.x) {
    const T weight = weights ? weights[p / a_weight] : T(1);
    if (done) {
      for (int j = 0; j < groups; ++j) next[j * n + p] = z[j * n + p];
      continue;
    }
    highest = epsilon_norm(correlations, p, n, groups, (double)weight, joint, positive, highest);
    const T threshold = joint < 1 ? T(level * (1 - joint)) * weight : T(0);
    double square = 0, norm1 = 0;
    for (int j = 0; j < groups; ++j) {  // thresholded, not yet shrunk; nothing is written where it still must be read
      const long long i = j * n + p;
      const T y = momentum != T(0) ? z[i] + momentum * (z[i] - before[i]) : z[i];
      T value = y + step * correlations[i];
      if (positive && value < T(0)) value = T(0);
      value = soft_threshold(value, threshold);
      square += (double)value * value;
    }
    const double norm = sqrt(square), rest = norm - joint * level * weight;
    const T shrink = T(rest > 0 ? rest / norm : 0.0);
    for (int j = 0; j < groups; ++j) {
      const long long i = j * n + p;
      const T here = z[i], y = momentum != T(0) ? here + momentum * (here - before[i]) : here;
      T value = y + step * correlations[i];
      if (positive && value < T(0)) value = T(0);
      value = shrink * soft_threshold(value, threshold);
      next[i] = value;
      length2 += (value - y) * (value - y);
      ahead += (value - y) * (value - here);
      norm1 += magnitude(value);
    }
    if (rest > 0) sizes += ((1 - joint) * norm1 + joint * rest) * weight;
  }
  step_results(length2, ahead, sizes, highest, sums + 4 * blockIdx.x);
}

// |image(next) - image(y)|^2 and |b - image(next)|^2, with the residual at y.
// instance: image_moved<float> registers 48
// instance: image_moved<double> registers 56
template <typename T>
__global__ void __launch_bounds__(256, 4) image_moved(const T* __restrict__ target, const T* __restrict__ residual,
                                                   const T* __restrict__ image, const long long n,
                                                   double* __restrict__ sums) {
  double sum[2] = {0, 0};
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {
    const T left = target[i] - image[i];
    const double moved = (double)residual[i] - left;
    sum[0] += moved * moved;
    sum[1] += (double)left * left;
  }
  block_sums(sum, sums + 2 * blockIdx.x);
}

__device__ __forceinline__ void aim(double* state) {  // share and momentum of the next step, from its curvature
  const double curvature = state[CURVATURE], total = state[TOTAL];
  const double t = (1 + sqrt(1 + 4 * curvature * total)) / (2 * curvature);
  state[SHARE] = t / (total + t);
  state[MOMENTUM] = state[SHARE] * state[PULL];
}

// Whether the step holds, where the codes are now, their objective, the bound, and how to go on. One block of 256.
// instance: decide<double> registers 64
template <typename S>
__global__ void __launch_bounds__(256) decide(const S* __restrict__ residual_sums, const S* __restrict__ step_sums,
                                              const S* __restrict__ moved_sums, const int image_blocks,
                                              const int code_blocks, const double alpha, const double most,
                                              const double tolerance, const int max_iter, const int method, S* state) {
  SHARED(double, total, 8);
  double sum[7] = {0, 0, 0, 0, 0, 0, 0}, highest = 0;
  for (int b = threadIdx.x; b < image_blocks; b += blockDim.x) {
    sum[0] += residual_sums[2 * b];
    sum[1] += residual_sums[2 * b + 1];
    sum[5] += moved_sums[2 * b];
    sum[6] += moved_sums[2 * b + 1];
  }
  for (int b = threadIdx.x; b < code_blocks; b += blockDim.x) {
    for (int i = 0; i < 3; ++i) sum[2 + i] += step_sums[4 * b + i];
    highest = step_sums[4 * b + 3] > highest ? step_sums[4 * b + 3] : highest;
  }
  block_sums(sum, total);
  SHARED(double, tops, 32);
  highest = warp_max(highest);
  if ((threadIdx.x & 31) == 0) tops[threadIdx.x >> 5] = highest;
  __syncthreads();
  if (threadIdx.x) return;
  if (state[DONE] != 0) {  // the codes were handed on
    state[Z_AGO] = 1;
    return;
  }
  for (int w = 0; w < blockDim.x >> 5; ++w) highest = tops[w] > highest ? tops[w] : highest;
  const double residual2 = total[0], product = total[1], length2 = total[2], ahead = total[3];
  if (product > 0 && residual2 > 0) {
    const double best = product / residual2, feasible = highest > 0 ? alpha / highest : best;
    const double scale = best < feasible ? best : feasible;
    const double value = scale * product - 0.5 * scale * scale * residual2;
    if (value > state[BOUND]) state[BOUND] = value;
  }
  if (state[OBJECTIVE] - state[BOUND] <= tolerance) {  // before the step
    state[DONE] = 1;
    state[MOMENTUM] = 0;
    state[Z_AGO] += 1;
    return;
  }
  const double curvature = state[CURVATURE];
  if (method == BACKTRACKING && curvature < most && total[5] > curvature * length2) {
    state[LEARNED] = 2 * curvature < most ? 2 * curvature : most;
    state[CURVATURE] = most;
    state[FAILED] = 1;
    state[Z_AGO] += 1;
    state[BEFORE_AGO] += 1;
    aim(state);
    return;
  }
  state[BEFORE_AGO] = state[Z_AGO] + 1;
  state[Z_AGO] = 1;
  state[OBJECTIVE] = 0.5 * total[6] + alpha * total[4];
  state[COUNT] += 1;
  if (method == BACKTRACKING) {
    if (ahead < 0) {
      state[TOTAL] = 0;
      state[PULL] = 0;
    } else {
      state[PULL] = (1 - state[SHARE]) / state[SHARE];
      state[TOTAL] += (1 + sqrt(1 + 4 * curvature * state[TOTAL])) / (2 * curvature);
    }
    state[CURVATURE] = state[FAILED] != 0 ? state[LEARNED] : 0.9 * curvature;
    state[FAILED] = 0;
    aim(state);
  } else if (method == FISTA) {
    const double t_old = ahead < 0 ? 1.0 : state[T_NOW], t = 0.5 * (1 + sqrt(1 + 4 * t_old * t_old));
    state[MOMENTUM] = (t_old - 1) / t;
    state[T_NOW] = t;
  }
  if (state[OBJECTIVE] - state[BOUND] <= tolerance) state[DONE] = 1;
  if (state[DONE] == 0 && state[COUNT] >= max_iter) state[DONE] = 2;
  if (state[DONE] != 0) state[MOMENTUM] = 0;
}
