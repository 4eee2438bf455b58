// Accelerated proximal gradient with a step that finds itself (Florea and Vorobyov 2017), for several problems of
// convolutional coding at once: problem b holds J signals, (J, C, *signal_shape), and their maps, (J, K, *positions).
// Each problem has a row of numbers, its state; what it does next is decided on the device, so that rounds follow each
// other without the host. A round, for every problem that is not done:
//
//   aim      take the images that were decided upon, and the residual W (x - D y) at the extrapolated point y
//            ... correlate: slope c = D' of it
//   step     take the maps that were decided upon, and make new ones: prox(y + c / curvature)
//            ... synthesize: the image of the new maps
//   look     sums over that image
//   decide   lower bound, whether the step holds, whether the problem is done, and the next point
//
// Sums are added up in one order: by thread, by block, by problem.

enum State {
  PHASE, COMMIT, SHARE, CURVATURE, TOTAL, STRIDE, OBJECTIVE, BOUND, TOLERANCE, MOST, ITERATIONS, OLD_SHARE, PULL,
  CONVERGED, FROM_NEW, ENERGY, N_STATE
};
enum Phase { LOAD, FIRST, RUN, DONE };     // new maps are to be taken over; first curvature; iterations; nothing
enum Commit { NOTHING, PULLED, REPLACED };  // what becomes of codes and of the far point

// Where samples lie in an array of larger axes: in a grid for Fourier transforms.
struct Inset {
  int n1, n2, n_inner, first, wide1, wide2;
  long long n_outer;
  bool same;
  __device__ __forceinline__ Inset(const int* numbers) {
    const int n0 = numbers[0], wide0 = numbers[3], o0 = numbers[6], o1 = numbers[7], o2 = numbers[8];
    n1 = numbers[1];
    n2 = numbers[2];
    wide1 = numbers[4];
    wide2 = numbers[5];
    n_inner = n0 * n1 * n2;
    n_outer = (long long)wide0 * wide1 * wide2;
    first = (o0 * wide1 + o1) * wide2 + o2;
    same = n_outer == n_inner;
  }
  __device__ __forceinline__ int place(int i) const {
    if (same) return i;
    const int line = i / n2, plane = line / n1;
    return first + (plane * wide1 + line - plane * n1) * wide2 + i - line * n2;
  }
};

// Sums of a block's threads, one number of `count` a warp in `parts`; thread 0 has the totals. All threads take part.
template <int COUNT>
__device__ __forceinline__ void block_sums(double (&sums)[COUNT], double* parts, bool first_is_largest) {
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
#pragma unroll
  for (int s = 0; s < COUNT; ++s) {
    sums[s] = s == 0 && first_is_largest ? warp_max(sums[s]) : warp_sum(sums[s]);
    if (lane == 0) parts[s * WARP + warp] = sums[s];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
#pragma unroll
    for (int s = 0; s < COUNT; ++s)
      for (int w = 1; w < warps; ++w) {
        const double other = parts[s * WARP + w];
        sums[s] = s == 0 && first_is_largest ? (other > sums[s] ? other : sums[s]) : sums[s] + other;
      }
  }
}

// Images and residuals, (B, n) and with `inset` (B, J C, *grid); sums (B, blocks, 2): |r|^2 and <x, r>. `made` are the
// images of the new maps.
// instance: aim<float> registers 64
// instance: aim<double> registers 72
template <typename T>
__global__ void __launch_bounds__(256, 2) aim(const double* __restrict__ state, const T* __restrict__ target,
                                           const T* __restrict__ mask, const T* __restrict__ made,
                                           const int* __restrict__ inset, const long long n, T* __restrict__ image,
                                           T* __restrict__ far, T* __restrict__ residual, double* __restrict__ sums) {
  SHARED(double, parts, 2 * WARP);
  const double* own = state + (long long)blockIdx.y * N_STATE;
  const int phase = (int)own[PHASE], commit = (int)own[COMMIT];
  const Inset in(inset);
  const T share = (T)own[SHARE], rest = T(1) - share, old = (T)own[OLD_SHARE], pull = (T)own[PULL];
  double total[2] = {};
  if (phase == FIRST || phase == RUN)
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (long long)gridDim.x * blockDim.x) {
      const long long at = blockIdx.y * n + i;
      T here = image[at], there = far[at];
      if (commit != NOTHING) {
        const T reached = made[at];
        there = commit == REPLACED ? reached : there + pull * (reached - ((T(1) - old) * here + old * there));
        here = reached;
        image[at] = here;
        far[at] = there;
      }
      const T rest_of = target[at] - (rest * here + share * there);
      const long long channel = i / in.n_inner;
      residual[(blockIdx.y * (n / in.n_inner) + channel) * in.n_outer + in.place((int)(i - channel * in.n_inner))] =
          mask == nullptr ? rest_of : mask[at] * rest_of;
      total[0] += (double)rest_of * (double)rest_of;
      total[1] += (double)target[at] * (double)rest_of;
    }
  block_sums<2>(total, parts, false);
  if (threadIdx.x == 0)
    for (int s = 0; s < 2; ++s) sums[((long long)blockIdx.y * gridDim.x + blockIdx.x) * 2 + s] = total[s];
}

// Sums over the images of the new maps, (B, blocks, 2): |x - W D z|^2 and the squared length of their step. The images
// come in the grid as D z, and go to `made` as W D z.
// instance: look<float> registers 56
// instance: look<double> registers 64
template <typename T>
__global__ void __launch_bounds__(256, 2) look(const double* __restrict__ state, const T* __restrict__ target,
                                            const T* __restrict__ mask, const T* __restrict__ image,
                                            const T* __restrict__ far, const T* __restrict__ synthesized,
                                            const int* __restrict__ inset, const long long n, T* __restrict__ made,
                                            double* __restrict__ sums) {
  SHARED(double, parts, 2 * WARP);
  const double* own = state + (long long)blockIdx.y * N_STATE;
  const int phase = (int)own[PHASE];
  const Inset in(inset);
  const T share = (T)own[SHARE], rest = T(1) - share;
  double total[2] = {};
  if (phase != DONE)
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (long long)gridDim.x * blockDim.x) {
      const long long at = blockIdx.y * n + i, channel = i / in.n_inner;
      const T raw = synthesized[(blockIdx.y * (n / in.n_inner) + channel) * in.n_outer +
                                in.place((int)(i - channel * in.n_inner))];
      const T reached = mask == nullptr ? raw : mask[at] * raw;
      made[at] = reached;
      const T left = target[at] - reached;
      const T moved = phase == RUN ? reached - (rest * image[at] + share * far[at]) : reached;
      total[0] += (double)left * (double)left;
      total[1] += (double)moved * (double)moved;
    }
  block_sums<2>(total, parts, false);
  if (threadIdx.x == 0)
    for (int s = 0; s < 2; ++s) sums[((long long)blockIdx.y * gridDim.x + blockIdx.x) * 2 + s] = total[s];
}

template <typename T>
__device__ __forceinline__ T shrunk(T value, T threshold, bool positive) {
  if (!positive) return soft_threshold(value, threshold);
  const T rest = value - threshold;
  return rest > T(0) ? rest : T(0);
}

// What an entry does in a round: takes over what was decided, and says where it steps from.
template <typename T>
struct Entry {
  T code, far, point;
  __device__ __forceinline__ void take(T* codes, T* fars, const T* fresh, const long long at, const int commit,
                                       const T old, const T pull, const T share) {
    code = codes[at];
    far = fars[at];
    if (commit != NOTHING) {
      const T reached = fresh[at];
      far = commit == REPLACED ? reached : far + pull * (reached - ((T(1) - old) * code + old * far));
      code = reached;
      codes[at] = code;
      fars[at] = far;
    }
    point = (T(1) - share) * code + share * far;
  }
};

// Maps of one atom of one of the J signals (blockIdx.x) of a problem (blockIdx.z), in the grid where they have an inset.
// sums (B, J K, blocks, 4): the largest |c| over its weight, |new - y|^2, <new - y, new - codes>, and the weighted norm.
// instance: step<float> registers 56
// instance: step<double> registers 80
template <typename T>
__global__ void __launch_bounds__(256, 2) step(const double* __restrict__ state, const T* __restrict__ slopes,
                                            const T* __restrict__ weights, const int weights_a_map,
                                            const int* __restrict__ inset, const int n_atoms, const double alpha,
                                            const bool positive, T* __restrict__ codes, T* __restrict__ fars,
                                            T* __restrict__ fresh, double* __restrict__ sums) {
  SHARED(double, parts, 4 * WARP);
  const double* own = state + (long long)blockIdx.z * N_STATE;
  const int phase = (int)own[PHASE], commit = (int)own[COMMIT];
  const Inset in(inset);
  const T share = (T)own[SHARE], old = (T)own[OLD_SHARE], pull = (T)own[PULL], one = T(1);
  const T length = (T)(1.0 / own[CURVATURE]), level = (T)(alpha / own[CURVATURE]);
  const long long map = ((long long)blockIdx.z * gridDim.x + blockIdx.x) * in.n_outer;
  const T* own_weights = weights == nullptr ? nullptr : weights + (long long)(blockIdx.x % n_atoms) * weights_a_map;
  T largest = T(0);
  double total[4] = {};
  if (phase != DONE)
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < in.n_inner; i += gridDim.y * blockDim.x) {
      const long long at = map + in.place(i);
      const T weight = own_weights == nullptr ? one : own_weights[weights_a_map > 1 ? i : 0];
      if (phase == LOAD) {
        T start = fresh[at];
        if ((positive && start < T(0)) || isinf(weight)) start = T(0);
        fresh[at] = start;
        if (start != T(0)) total[3] += (double)weight * (double)magnitude(start);
        continue;
      }
      Entry<T> entry;
      entry.take(codes, fars, fresh, at, commit, old, pull, share);
      const T slope = slopes[at], height = positive ? slope : magnitude(slope);
      if (height > T(0)) largest = max(largest, height / weight);
      if (phase == FIRST) {
        fresh[at] = slope;
        total[1] += (double)slope * (double)slope;
        continue;
      }
      const T reached = shrunk(entry.point + length * slope, level * weight, positive), moved = reached - entry.point;
      fresh[at] = reached;
      total[1] += (double)moved * (double)moved;
      total[2] += (double)moved * (double)(reached - entry.code);
      if (reached != T(0)) total[3] += (double)weight * (double)magnitude(reached);
    }
  total[0] = (double)largest;
  block_sums<4>(total, parts, true);
  if (threadIdx.x == 0)
    for (int s = 0; s < 4; ++s)
      sums[(((long long)blockIdx.z * gridDim.x + blockIdx.x) * gridDim.y + blockIdx.y) * 4 + s] = total[s];
}

// The least a at which |max(m - (1 - joint) a, 0)|_2 <= joint a for the magnitudes m, if it is above `least`.
template <typename T>
__device__ __forceinline__ T epsilon_norm(const T* slopes, const long long stride, const int count, const T weight,
                                          const bool positive, const T joint, const T least) {
  T norm2 = T(0), inside = T(0);
  for (int j = 0; j < count; ++j) {
    const T slope = slopes[j * stride], m = (positive ? max(slope, T(0)) : magnitude(slope)) / weight;
    const T over = max(m - (T(1) - joint) * least, T(0));
    norm2 += m * m;
    inside += over * over;
  }
  if (!(sqrt(inside) > joint * least)) return least;
  T low = least, high = sqrt(norm2);
  if (isinf(high) || joint == T(1)) return max(high, least);
  for (int halving = 0; halving < (sizeof(T) == 4 ? 26 : 54); ++halving) {
    const T middle = T(0.5) * (low + high);
    T sum = T(0);
    for (int j = 0; j < count; ++j) {
      const T slope = slopes[j * stride], m = (positive ? max(slope, T(0)) : magnitude(slope)) / weight;
      const T over = max(m - (T(1) - joint) * middle, T(0));
      sum += over * over;
    }
    if (sqrt(sum) <= joint * middle) high = middle;
    else low = middle;
  }
  return high;
}

// `step` where an l2 norm over the J signals is part of the penalty: blockIdx.x is the atom, sums (B, K, blocks, 4).
// instance: joint_step<float> registers 128
// instance: joint_step<double> registers 128
template <typename T>
__global__ void __launch_bounds__(256, 2) joint_step(const double* __restrict__ state, const T* __restrict__ slopes,
                                                  const T* __restrict__ weights, const int weights_a_map,
                                                  const int* __restrict__ inset, const int n_signals,
                                                  const double alpha, const double joint, const bool positive,
                                                  T* __restrict__ codes, T* __restrict__ fars, T* __restrict__ fresh,
                                                  double* __restrict__ sums) {
  SHARED(double, parts, 4 * WARP);
  const double* own = state + (long long)blockIdx.z * N_STATE;
  const int phase = (int)own[PHASE], commit = (int)own[COMMIT];
  const Inset in(inset);
  const T share = (T)own[SHARE], old = (T)own[OLD_SHARE], pull = (T)own[PULL], one = T(1), together = (T)joint;
  const T length = (T)(1.0 / own[CURVATURE]), level = (T)(alpha / own[CURVATURE]);
  const long long stride = gridDim.x * in.n_outer;
  const long long map = blockIdx.z * n_signals * stride + blockIdx.x * in.n_outer;
  const T* own_weights = weights == nullptr ? nullptr : weights + (long long)blockIdx.x * weights_a_map;
  T largest = T(0);
  double total[4] = {};
  if (phase != DONE)
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < in.n_inner; i += gridDim.y * blockDim.x) {
      const long long first = map + in.place(i);
      const T weight = own_weights == nullptr ? one : own_weights[weights_a_map > 1 ? i : 0];
      double l1 = 0, norm2 = 0;
      if (phase == RUN) {  // shrink each code, then all of them together
        const T apart = (one - together) * level * weight, jointly = together * level * weight;
        double before2 = 0;
        for (int j = 0; j < n_signals; ++j) {
          const long long at = first + j * stride;
          Entry<T> entry;
          entry.take(codes, fars, fresh, at, commit, old, pull, share);
          const T value = entry.point + length * slopes[at];
          const T kept = together == one ? (positive ? max(value, T(0)) : value) : shrunk(value, apart, positive);
          fresh[at] = kept;
          before2 += (double)kept * (double)kept;
        }
        const T norm = (T)sqrt(before2), left = norm - jointly, factor = left > T(0) ? left / norm : T(0);
        for (int j = 0; j < n_signals; ++j) {
          const long long at = first + j * stride;
          const T code = codes[at], point = (one - share) * code + share * fars[at];
          const T reached = factor * fresh[at], moved = reached - point;
          fresh[at] = reached;
          total[1] += (double)moved * (double)moved;
          total[2] += (double)moved * (double)(reached - code);
          l1 += (double)magnitude(reached);
          norm2 += (double)reached * (double)reached;
        }
      } else {
        for (int j = 0; j < n_signals; ++j) {
          const long long at = first + j * stride;
          if (phase == LOAD) {
            T start = fresh[at];
            if ((positive && start < T(0)) || isinf(weight)) start = T(0);
            fresh[at] = start;
            l1 += (double)magnitude(start);
            norm2 += (double)start * (double)start;
          } else {
            Entry<T> entry;
            entry.take(codes, fars, fresh, at, commit, old, pull, share);
            fresh[at] = slopes[at];
            total[1] += (double)slopes[at] * (double)slopes[at];
          }
        }
      }
      if (norm2 > 0) total[3] += (double)weight * ((1 - joint) * l1 + joint * sqrt(norm2));
      if (phase != LOAD && !isinf(weight))
        largest = epsilon_norm(slopes + first, stride, n_signals, weight, positive, together, largest);
    }
  total[0] = (double)largest;
  block_sums<4>(total, parts, true);
  if (threadIdx.x == 0)
    for (int s = 0; s < 4; ++s)
      sums[(((long long)blockIdx.z * gridDim.x + blockIdx.x) * gridDim.y + blockIdx.y) * 4 + s] = total[s];
}

// The largest dual value of the multiples of a residual up to alpha / needed.
__device__ __forceinline__ double dual_value(double product, double norm2, double alpha, double needed) {
  if (product <= 0 || norm2 <= 0) return 0;
  double scale = product / norm2;
  if (needed > 0 && alpha / needed < scale) scale = alpha / needed;
  return scale * product - 0.5 * scale * scale * norm2;
}

// One block a problem: adds up the sums of its round, (B, n_aimed, 2), (B, n_stepped, 4) and (B, n_looked, 2). `bounded`:
// whether the residual gives a lower bound, which it does not where a weight is 0.
// instance: decide<256> registers 64
template <int THREADS>
__global__ void __launch_bounds__(THREADS) decide(const double* __restrict__ aimed, const int n_aimed,
                                                  const double* __restrict__ stepped, const int n_stepped,
                                                  const double* __restrict__ looked, const int n_looked,
                                                  const double alpha, const bool bounded, const int max_iter,
                                                  double* __restrict__ state) {
  SHARED(double, parts, 4 * WARP);
  double* own = state + (long long)blockIdx.x * N_STATE;
  const int phase = (int)own[PHASE];
  double first[2] = {}, middle[4] = {}, last[2] = {};
  if (phase != DONE) {
    for (int i = threadIdx.x; i < n_aimed; i += THREADS)
      for (int s = 0; s < 2; ++s) first[s] += aimed[((long long)blockIdx.x * n_aimed + i) * 2 + s];
    for (int i = threadIdx.x; i < n_stepped; i += THREADS) {
      const double* part = stepped + ((long long)blockIdx.x * n_stepped + i) * 4;
      middle[0] = part[0] > middle[0] ? part[0] : middle[0];
      for (int s = 1; s < 4; ++s) middle[s] += part[s];
    }
    for (int i = threadIdx.x; i < n_looked; i += THREADS)
      for (int s = 0; s < 2; ++s) last[s] += looked[((long long)blockIdx.x * n_looked + i) * 2 + s];
  }
  block_sums<2>(first, parts, false);
  __syncthreads();
  block_sums<4>(middle, parts, true);
  __syncthreads();
  block_sums<2>(last, parts, false);
  if (threadIdx.x != 0 || phase == DONE) return;
  const double objective = 0.5 * last[0] + alpha * middle[3];
  own[COMMIT] = NOTHING;
  if (phase == LOAD) {
    own[OBJECTIVE] = objective;
    own[COMMIT] = REPLACED;
    own[SHARE] = 0;
    own[PHASE] = FIRST;
    return;
  }
  const double bound = bounded ? dual_value(first[1], first[0], alpha, middle[0]) : 0;
  if (bound > own[BOUND]) own[BOUND] = bound;
  if (own[OBJECTIVE] - own[BOUND] <= own[TOLERANCE]) {
    own[PHASE] = DONE;
    own[CONVERGED] = 1;
    return;
  }
  double curvature = own[CURVATURE];
  const double most = own[MOST], total = own[TOTAL];
  if (phase == FIRST) {
    curvature = middle[1] > 0 && last[1] < most * middle[1] ? last[1] / middle[1] : most;
    curvature = 0.9 * (curvature > 0 ? curvature : most);
    own[PHASE] = RUN;
  } else if (curvature < most && !(last[1] <= curvature * middle[1])) {  // the step was too long
    curvature = 2 * curvature < most ? 2 * curvature : most;
  } else {
    own[ITERATIONS] += 1;
    own[OBJECTIVE] = objective;
    if (objective - own[BOUND] <= own[TOLERANCE] || own[ITERATIONS] >= max_iter) {
      own[PHASE] = DONE;
      own[CONVERGED] = objective - own[BOUND] <= own[TOLERANCE];
      own[FROM_NEW] = 1;
      return;
    }
    if (middle[2] < 0) {
      own[COMMIT] = REPLACED;
      own[TOTAL] = 0;
    } else {
      own[COMMIT] = PULLED;
      own[OLD_SHARE] = own[SHARE];
      own[PULL] = own[STRIDE] * curvature;
      own[TOTAL] = total + own[STRIDE];
    }
    curvature *= 0.9;
  }
  const double stride = (1 + sqrt(1 + 4 * curvature * own[TOTAL])) / (2 * curvature);
  own[CURVATURE] = curvature;
  own[STRIDE] = stride;
  own[SHARE] = stride / (own[TOTAL] + stride);
}

// The maps of some problems, (n, J K, *positions), without their grid.
// instance: take<float> registers 32
// instance: take<double> registers 32
template <typename T>
__global__ void __launch_bounds__(256, 2) take(const double* __restrict__ state, const int* __restrict__ problems,
                                            const int* __restrict__ inset, const T* __restrict__ codes,
                                            const T* __restrict__ fresh, T* __restrict__ out) {
  const int b = problems[blockIdx.z];
  const T* from = (state[(long long)b * N_STATE + FROM_NEW] != 0 ? fresh : codes);
  const Inset in(inset);
  from += ((long long)b * gridDim.x + blockIdx.x) * in.n_outer;
  for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < in.n_inner; i += gridDim.y * blockDim.x)
    out[((long long)blockIdx.z * gridDim.x + blockIdx.x) * in.n_inner + i] = from[in.place(i)];
}
