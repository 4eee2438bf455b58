// Atom steps of K-SVD. Codes are listed by atom; the residual X - W D is kept up to date, so that every atom sees the
// steps of the earlier ones. Two or three launches an atom, each over all signals that use it.

// The direction sum_i w_i r_i and the mass sum_i w_i^2 of an atom, as one partial sum a block: partial
// (n_blocks, n_features + 1). Keeps a copy of the atom in `old`.
// instance: gather_direction<float> registers 72
// instance: gather_direction<double> registers 72
template <typename T>
__global__ void gather_direction(const long long* __restrict__ indptr, const int* __restrict__ signals,
                                 const T* __restrict__ values, const T* __restrict__ residual, const int atom,
                                 const int n_features, const T* __restrict__ dictionary, T* __restrict__ old,
                                 double* __restrict__ partial) {
  constexpr int WARPS = 8, COLUMNS = 4;
  SHARED(double, sums, WARPS * COLUMNS * WARP);
  SHARED(double, masses, WARPS);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const long long begin = indptr[atom], end = indptr[atom + 1], width = n_features + 1;
  for (int first = 0; first < n_features; first += COLUMNS * WARP) {
    double total[COLUMNS] = {}, mass = 0;
    for (long long a = begin + (long long)blockIdx.x * WARPS + warp; a < end; a += (long long)gridDim.x * WARPS) {
      const double value = (double)values[a];
      const T* row = residual + (long long)signals[a] * n_features;
      mass += value * value;
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const int f = first + c * WARP + lane;
        if (f < n_features) total[c] += value * (double)row[f];
      }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) sums[(warp * COLUMNS + c) * WARP + lane] = total[c];
    if (lane == 0) masses[warp] = mass;
    __syncthreads();
    if (threadIdx.x < COLUMNS * WARP && first + threadIdx.x < n_features) {
      double sum = 0;
      for (int w = 0; w < WARPS; ++w) sum += sums[w * COLUMNS * WARP + threadIdx.x];
      partial[blockIdx.x * width + first + threadIdx.x] = sum;
    }
    if (threadIdx.x == 0) {
      double sum = 0;
      for (int w = 0; w < WARPS; ++w) sum += masses[w];
      partial[blockIdx.x * width + n_features] = sum;
    }
    __syncthreads();
  }
  if (blockIdx.x == 0)
    for (int f = threadIdx.x; f < n_features; f += blockDim.x) old[f] = dictionary[(long long)atom * n_features + f];
}

// E_k = R + w_k d_k over the signals of an atom, times scale[0], in float64. Keeps a copy of the atom in `old`.
// instance: gather_errors<float> registers 48
// instance: gather_errors<double> registers 48
template <typename T>
__global__ void gather_errors(const long long* __restrict__ indptr, const int* __restrict__ signals,
                              const T* __restrict__ values, const T* __restrict__ residual, const int atom,
                              const int n_features, const T* __restrict__ dictionary, const double* __restrict__ scale,
                              T* __restrict__ old, double* __restrict__ errors) {
  const T* direction = dictionary + (long long)atom * n_features;
  const long long begin = indptr[atom], n_entries = (indptr[atom + 1] - begin) * n_features;
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < n_entries;
       e += (long long)gridDim.x * blockDim.x) {
    const long long a = begin + e / n_features;
    const int f = (int)(e % n_features);
    const double error = (double)residual[(long long)signals[a] * n_features + f];
    errors[e] = scale[0] * (error + (double)values[a] * (double)direction[f]);
  }
  if (blockIdx.x == 0)
    for (int f = threadIdx.x; f < n_features; f += blockDim.x) old[f] = direction[f];
}

// |product|^2 and <product, vector>, the same in all threads; each warp adds up all entries.
__device__ __forceinline__ void inner_products(const double* product, const double* vector, const int n,
                                               const int lane, double& squares, double& inner) {
  squares = inner = 0;
  for (int i = lane; i < n; i += WARP) {
    squares += product[i] * product[i];
    inner += product[i] * vector[i];
  }
  squares = warp_sum(squares);
  inner = warp_sum(inner);
}

// The leading eigenvector of a symmetric positive matrix C (n, n), by power iteration from a unit atom; where two
// eigenvalues are too close for it, C is squared again and again. `direction` (n + 1) receives it with the sign of the
// atom, and a zero; `squared` (2, n, n) is scratch. One block of threads.
// instance: leading_vector<float> registers 64
// instance: leading_vector<double> registers 64
template <typename T>
__global__ void leading_vector(const double* __restrict__ C, const T* __restrict__ atom, const int n, const double tol,
                               const int max_iter, double* squared, double* __restrict__ direction) {
  constexpr int SQUARINGS = 30;
  DYNAMIC_SHARED(double, shared);
  double* vector = shared;
  double* product = shared + n;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  const double* matrix = C;
  double squares, inner;
  for (int i = threadIdx.x; i < n; i += blockDim.x) vector[i] = (double)atom[i];
  __syncthreads();
  bool found = false;
  for (int round = 0; !found && round < max_iter + SQUARINGS; ++round) {
    if (round >= max_iter) {  // the matrix of twice as many iterations, scaled to stay in range
      const double* before = matrix;
      double* after = squared + (long long)((round - max_iter) % 2) * n * n;
      double largest = 0;
      for (int i = 0; i < n; ++i) largest = max(largest, before[(long long)i * n + i]);
      const double scale = largest > 0 ? 1 / largest : 0.0;
      for (int e = threadIdx.x; e < n * n; e += blockDim.x) {
        double sum = 0;
        for (int l = 0; l < n; ++l)
          sum += scale * before[(long long)(e / n) * n + l] * (scale * before[(long long)l * n + e % n]);
        after[e] = sum;
      }
      matrix = after;
      __syncthreads();
    }
    for (int i = warp; i < n; i += warps) {
      double sum = 0;
      for (int j = lane; j < n; j += WARP) sum += matrix[(long long)i * n + j] * vector[j];
      sum = warp_sum(sum);
      if (lane == 0) product[i] = sum;
    }
    __syncthreads();
    inner_products(product, vector, n, lane, squares, inner);
    double error = 0;
    for (int i = lane; i < n; i += WARP) {
      const double difference = product[i] - inner * vector[i];
      error += difference * difference;
    }
    error = warp_sum(error);
    found = inner > 0 && error <= tol * inner * (tol * inner);
    const double inverse = squares > 0 ? 1 / sqrt(squares) : 0.0;
    __syncthreads();
    if (squares > 0)
      for (int i = threadIdx.x; i < n; i += blockDim.x) vector[i] = product[i] * inverse;
    __syncthreads();
  }
  for (int i = threadIdx.x; i < n; i += blockDim.x) product[i] = (double)atom[i];
  __syncthreads();
  inner_products(product, vector, n, lane, squares, inner);
  for (int i = threadIdx.x; i < n; i += blockDim.x) direction[i] = inner >= 0 ? vector[i] : -vector[i];
  if (threadIdx.x == 0) direction[n] = 0;
}

// Give an atom its new direction, (sum of `partial` + mass * old) normalised, and each of its signals the best
// coefficient for it. Every block sums the partial sums by itself. Dynamic shared memory: n_features doubles, twice as
// many of T.
// instance: replace_atom<float> registers 64
// instance: replace_atom<double> registers 64
template <typename T>
__global__ void replace_atom(const long long* __restrict__ indptr, const int* __restrict__ signals,
                             T* __restrict__ values, T* __restrict__ residual, const int atom, const int n_features,
                             const int n_parts, const double* __restrict__ partial, const T* __restrict__ old,
                             T* __restrict__ dictionary) {
  DYNAMIC_SHARED(double, sums);  // in float64: squares of small data would leave the range of float32
  T* direction = reinterpret_cast<T*>(sums + n_features);
  T* before = direction + n_features;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  const long long width = n_features + 1;
  double mass = 0, squares = 0;
  for (int p = 0; p < n_parts; ++p) mass += partial[p * width + n_features];
  for (int f = threadIdx.x; f < n_features; f += blockDim.x) {
    double sum = mass * (double)old[f];
    for (int p = 0; p < n_parts; ++p) sum += partial[p * width + f];
    sums[f] = sum;
    before[f] = old[f];
  }
  __syncthreads();
  for (int f = lane; f < n_features; f += WARP) squares += sums[f] * sums[f];
  squares = warp_sum(squares);
  const double inverse = squares > 0 ? 1 / sqrt(squares) : 0.0;
  for (int f = threadIdx.x; f < n_features; f += blockDim.x) direction[f] = (T)(sums[f] * inverse);
  __syncthreads();
  T overlap = 0;
  for (int f = lane; f < n_features; f += WARP) overlap += before[f] * direction[f];
  overlap = warp_sum(overlap);
  const long long begin = indptr[atom], end = squares > 0 ? indptr[atom + 1] : begin;
  for (long long a = begin + (long long)blockIdx.x * warps + warp; a < end; a += (long long)gridDim.x * warps) {
    T* row = residual + (long long)signals[a] * n_features;
    const T value = values[a];
    T inner = 0;
    for (int f = lane; f < n_features; f += WARP) inner += row[f] * direction[f];
    const T coefficient = value * overlap + warp_sum(inner);
    for (int f = lane; f < n_features; f += WARP) row[f] += value * before[f] - coefficient * direction[f];
    __syncwarp();
    if (lane == 0) values[a] = coefficient;
  }
  if (blockIdx.x == 0 && squares > 0)
    for (int f = threadIdx.x; f < n_features; f += blockDim.x)
      dictionary[(long long)atom * n_features + f] = direction[f];
}
