// Patches made ready for coding, and the nearest atom of each, for vector quantisation.

// Patches as columns: one thread a patch, so that neighbours write neighbouring entries of a column and read pixels that
// the patch beside them reads, too. Less one pixel beforehand, as on the CPU: what is constant becomes exactly zero.
// instance: load_patches<float> registers 64
// instance: load_patches<double> registers 64
template <typename T>
__global__ void __launch_bounds__(128) load_patches(
    const T* __restrict__ images, const long long first, const int n, const int patch0, const int patch1,
    const int stride0, const int stride1, const int grid0, const int grid1, const int height, const int width,
    const T epsilon, const bool normalise, T* __restrict__ columns, const long long pitch) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const long long number = first + i, line = number / grid1, image = line / grid0;
  const T* from = images + ((image * height) + (line - image * grid0) * stride0) * width +
                  (number - line * grid1) * stride1;
  T base = T(0), mean = T(0), scale = T(1);
  if (normalise) {
    const T count = T(patch0 * patch1);
    base = from[0];
    for (int a = 0; a < patch0; ++a) {
#pragma unroll 4
      for (int b = 0; b < patch1; ++b) mean += from[(long long)a * width + b] - base;
    }
    mean /= count;
    T square = T(0);
    for (int a = 0; a < patch0; ++a) {
#pragma unroll 4
      for (int b = 0; b < patch1; ++b) {
        const T value = from[(long long)a * width + b] - base - mean;
        square += value * value;
      }
    }
    const T contrast = square / count + epsilon;
    scale = contrast > T(0) ? T(1) / sqrt(contrast) : T(0);
  }
  T* to = columns + i;
  for (int a = 0; a < patch0; ++a) {
#pragma unroll 4
    for (int b = 0; b < patch1; ++b) {
      const T value = from[(long long)a * width + b] - base - mean;
      *to = normalise ? value * scale : value;
      to += pitch;
    }
  }
}

// One warp a signal: the atom of the largest product less its offset, or of the largest in magnitude.
// instance: nearest_atoms<float> registers 48
// instance: nearest_atoms<double> registers 64
template <typename T>
__global__ void __launch_bounds__(256) nearest_atoms(const T* __restrict__ products, const long long n,
                                                     const int n_atoms, const T* __restrict__ offsets,
                                                     const bool with_sign, long long* __restrict__ labels,
                                                     T* __restrict__ values) {
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const long long i = (long long)blockIdx.x * warps + threadIdx.x / WARP;
  const T* row = products + i * n_atoms;
  T largest = T(0);
  int chosen = n_atoms;
  if (i < n) {
    for (int k = lane; k < n_atoms; k += WARP) {
      const T value = row[k] - offsets[k], size = with_sign ? magnitude(value) : value;
      if (chosen == n_atoms || size > largest) {
        largest = size;
        chosen = k;
      }
    }
  }
  // A lane without an atom must not win: its 0 is no product.
  if (chosen == n_atoms && i < n) largest = row[0] - offsets[0] - magnitude(row[0] - offsets[0]) - T(1);
  warp_argmax(largest, chosen);
  if (i < n && lane == 0) {
    labels[i] = chosen < n_atoms ? chosen : 0;
    values[i] = row[labels[i]] - offsets[labels[i]];
  }
}

// One block sums 32 features of the signals of one atom, which `sorted` lists from starts[atom] on. Its warps share them
// out, each a run, and add up their sums in order.
// instance: add_to_atoms<float> registers 48
// instance: add_to_atoms<double> registers 48
template <typename T>
__global__ void __launch_bounds__(256) add_to_atoms(
    const T* __restrict__ X, const int n_features, const long long* __restrict__ sorted,
    const long long* __restrict__ starts, const T* __restrict__ values, const bool weighted,
    double* __restrict__ sums, double* __restrict__ counts) {
  SHARED(double, parts, 256);
  SHARED(double, squares, 8);
  const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const long long atom = blockIdx.x;
  const int feature = blockIdx.y * WARP + lane;
  const long long here = starts[atom + 1] - starts[atom];
  const long long begin = starts[atom] + here * warp / warps, end = starts[atom] + here * (warp + 1) / warps;
  double sum = 0, square = 0;
#pragma unroll 4
  for (long long at = begin; at < end; ++at) {
    const long long i = sorted[at];
    const double value = weighted ? (double)values[i] : 1.0;
    if (feature < n_features) sum += value * (double)X[i * n_features + feature];
    square += value * value;
  }
  parts[threadIdx.x] = sum;
  if (lane == 0) squares[warp] = square;
  __syncthreads();
  if (warp == 0 && feature < n_features) {
    double total = sums[atom * n_features + feature];
    for (int w = 0; w < warps; ++w) total += parts[w * WARP + lane];
    sums[atom * n_features + feature] = total;
  }
  if (threadIdx.x == 0 && blockIdx.y == 0) {
    double total = counts[atom];
    for (int w = 0; w < warps; ++w) total += squares[w];
    counts[atom] = total;
  }
}
