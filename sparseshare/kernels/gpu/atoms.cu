// The atom sweep: d_k <- P(d_k + (B_k - A_k D) / A_kk), atom by atom. Matrix products give the steps of a block of atoms
// for the dictionary before it; within the block each step corrects the later ones.

// A_rows = A_k / A_kk and B_rows = B_k / A_kk; rows of zeros where A_kk <= least_mass[0]. One block of threads an atom.
// instance: normalise_rows<float> registers 32
// instance: normalise_rows<double> registers 32
template <typename T>
__global__ void normalise_rows(const double* __restrict__ A, const double* __restrict__ B,
                               const double* __restrict__ least_mass, const int first, const int n_atoms,
                               const int n_features, T* __restrict__ A_rows, T* __restrict__ B_rows) {
  const long long row = blockIdx.x, k = first + row;
  const double mass = A[k * n_atoms + k], inverse = mass > least_mass[0] ? 1 / mass : 0.0;
  for (int j = threadIdx.x; j < n_atoms; j += blockDim.x) A_rows[row * n_atoms + j] = (T)(A[k * n_atoms + j] * inverse);
  for (int f = threadIdx.x; f < n_features; f += blockDim.x)
    B_rows[row * n_features + f] = (T)(B[k * n_features + f] * inverse);
}

// The h for which max(h - depth, 0) has |.|_1 = budget, or, with `ball`, |.|_1 = budget |.|_2; the depth of an entry is
// how far its magnitude is below `top`, the largest. Each lane tries a height, until no depth is left between two.
template <typename T>
__device__ double height_for_budget(const T* row, const int n_features, const int lane, const double top,
                                    const double budget, const bool ball) {
  double low = 0, high = top;
  for (int round = 0; round < 16; ++round) {
    const double height = low + (high - low) * ((lane + 1) / 32.0);
    double l1 = 0, l2 = 0;
    for (int f = 0; f < n_features; ++f) {
      const double rest = height - (top - magnitude((double)row[f]));
      if (rest > 0) {
        l1 += rest;
        l2 += rest * rest;
      }
    }
    const bool reached = lane == WARP - 1 || (ball ? l1 * l1 >= budget * budget * l2 : l1 >= budget);
    const int enough = __ffs(__ballot_sync(FULL, reached)) - 1;
    const double next_low = __shfl_sync(FULL, height, enough > 0 ? enough - 1 : 0);
    high = __shfl_sync(FULL, height, enough);
    if (enough > 0) low = next_low;
    bool between = false;
#pragma unroll 1
    for (int f = lane; f < n_features; f += WARP) {
      const double depth = top - magnitude((double)row[f]);
      between = between || (depth >= low && depth < high);
    }
    if (!__any_sync(FULL, between)) break;
  }
  double count = 0, total = 0, squares = 0;
#pragma unroll 1
  for (int f = lane; f < n_features; f += WARP) {
    const double depth = top - magnitude((double)row[f]);
    if (depth < high) {
      count += 1;
      total += depth;
      squares += depth * depth;
    }
  }
  count = warp_sum(count);
  total = warp_sum(total);
  squares = warp_sum(squares);
  if (!ball) return (budget + total) / count;
  const double free = count - budget * budget, spread = max(count * squares - total * total, 0.0);
  if (free <= 1e-12 * count) return high;
  const double height = min((total + budget * sqrt(spread / free)) / count, high);
  return height > 0 ? height : high;  // the largest entries are all alike
}

// Squared norm of max(height - depth, 0).
template <typename T>
__device__ double cut_norm2(const T* row, const int n_features, const int lane, const double top, const double height) {
  double squares = 0;
  for (int f = lane; f < n_features; f += WARP) {
    const double size = max(height - (top - magnitude((double)row[f])), 0.0);
    squares += size * size;
  }
  return warp_sum(squares);
}

// Give an atom the projection of `row`, and `row` the step that the atom takes. One warp; a lane keeps to its entries.
template <typename T>
__device__ void project_and_step(T* row, T* atom, const int n_features, const int lane, const bool sphere,
                                 const bool nonnegative, const bool zero_mean, const double l1_budget) {
  double best = -1e308;
  int best_place = 0x7fffffff;
  for (int f = lane; f < n_features; f += WARP)
    if ((double)row[f] > best) {
      best = (double)row[f];
      best_place = f;
    }
  warp_argmax(best, best_place);
  if (zero_mean) {
#pragma unroll 1
    for (int twice = 0; twice < 2; ++twice) {  // the first mean of large entries leaves its rounding error
      double mean = 0;
      for (int f = lane; f < n_features; f += WARP) mean += (double)row[f];
      mean = warp_sum(mean) / n_features;
      for (int f = lane; f < n_features; f += WARP) row[f] = (T)((double)row[f] - mean);
    }
  }
  double squares = 0, total = 0, top = 0;
  for (int f = lane; f < n_features; f += WARP) {
    if (nonnegative && row[f] < T(0)) row[f] = T(0);
    const double size = magnitude((double)row[f]);
    squares += size * size;
    total += size;
    top = max(top, size);
  }
  squares = warp_sum(squares);
  double inverse = squares > 0 && (sphere || squares > 1) ? 1 / sqrt(squares) : 1.0, height = top;
  bool cut = false;
  if (l1_budget > 0) {
    total = warp_sum(total);
    if (total * inverse > l1_budget) {
      top = warp_max(top);
      __syncwarp();  // other lanes' entries are read from here on
      cut = true;
      bool ball = false;
#pragma unroll 1
      for (;; ball = true) {  // a loop, so that there is one copy of what it calls
        height = height_for_budget(row, n_features, lane, top, l1_budget, ball);
        squares = cut_norm2(row, n_features, lane, top, height);
        if (ball || !(squares > 1)) break;
      }
      inverse = ball ? 1 / sqrt(squares) : 1.0;
      __syncwarp();  // kept: other lanes have read the entries that each lane writes below
    }
  }
  const bool nothing = sphere && squares == 0;  // every point is equally near
  for (int f = lane; f < n_features; f += WARP) {
    const double value = (double)row[f];
    double result = value * inverse;
    if (cut) {
      const double size = max(height - (top - magnitude(value)), 0.0) * inverse;
      result = value > 0 ? size : -size;
    }
    if (nothing) {
      result = f == (nonnegative ? best_place : 0) ? 1.0 : 0.0;
      if (zero_mean) result = f == 0 ? 0.70710678118654752 : f == 1 ? -0.70710678118654752 : 0.0;
    }
    const T old = atom[f];
    atom[f] = (T)result;
    row[f] = (T)result - old;
  }
}

// Block coordinate descent over `n_block` atoms from `first` on; one block of threads. While warp 0 makes the step of
// atom i, the other warps correct the atoms after it by the step of atom i - 1: one barrier an atom.
//
// ratios (n_block, n_atoms): A_kj / A_kk; targets (n_block, n_features): B_k / A_kk; products: A_k D / A_kk for the
// dictionary before the block. `scratch` (n_block, n_features) takes the place of shared memory where that is too small.
// instance: sweep_block<float> registers 72
// instance: sweep_block<double> registers 72
template <typename T>
__global__ void sweep_block(const int first, const int n_block, const int n_atoms, const int n_features,
                            const T* __restrict__ ratios, const T* __restrict__ targets,
                            const T* __restrict__ products, const bool sphere, const bool nonnegative,
                            const bool zero_mean, const double l1_budget, T* dictionary, T* scratch) {
  DYNAMIC_SHARED(T, shared);
  T* coupling = shared;  // of the block's atoms among each other
  T* rows = scratch ? scratch : shared + n_block * n_block;  // where each atom would go; after its turn, its step
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  T* atoms = dictionary + (long long)first * n_features;
  for (int e = threadIdx.x; e < n_block * n_block; e += blockDim.x)
    coupling[e] = ratios[(long long)(e / n_block) * n_atoms + first + e % n_block];
  for (long long e = threadIdx.x; e < (long long)n_block * n_features; e += blockDim.x)
    rows[e] = atoms[e] + (targets[e] - products[e]);
  __syncthreads();
  for (int i = 0; i < n_block; ++i) {
    const T* step = rows + (long long)(i - 1) * n_features;
    const int next = warp == 0 ? i : i + warp;
    for (int j = next; i > 0 && j < n_block; j += warp == 0 ? n_block : warps - 1) {
      const T ratio = coupling[j * n_block + i - 1];
      T* row = rows + (long long)j * n_features;
      if (ratio != T(0))
        for (int f = lane; f < n_features; f += WARP) row[f] -= ratio * step[f];
    }
    if (warp == 0) {
      T* row = rows + (long long)i * n_features;
      if (coupling[i * n_block + i] == T(0))
        for (int f = lane; f < n_features; f += WARP) row[f] = T(0);  // no mass: no step
      else
        project_and_step(row, atoms + (long long)i * n_features, n_features, lane, sphere, nonnegative, zero_mean,
                         l1_budget);
    }
    __syncthreads();
  }
}
