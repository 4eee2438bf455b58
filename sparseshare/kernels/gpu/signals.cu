// Signals enter the solvers scaled by a power of two, codes leave as sorted rows in the user's units. One warp a signal.

__device__ __forceinline__ long long bits_of(double value) { return __double_as_longlong(value); }
__device__ __forceinline__ long long bits_of(float value) { return __float_as_int(value); }

// 2^power as a double, for any power whose result is a normal number.
__device__ __forceinline__ double power_of_two(int power) { return __longlong_as_double((long long)(power + 1023) << 52); }

// Scale rows to a largest entry in [1, 2); `bad` becomes the first row with NaN or infinity.
// instance: scale_rows<float> registers 64
// instance: scale_rows<double> registers 64
template <typename T>
__global__ void scale_rows(const T* __restrict__ X, T* __restrict__ out, int* __restrict__ exponents,
                           double* __restrict__ units, double* __restrict__ norms2, int* __restrict__ bad,
                           const int n_rows, const int n_features) {
  constexpr int mantissa = sizeof(T) == 4 ? 23 : 52, bias = sizeof(T) == 4 ? 127 : 1023;
  constexpr long long magnitude_bits = sizeof(T) == 4 ? 0x7fffffffLL : 0x7fffffffffffffffLL;
  const int lane = threadIdx.x % WARP;
  for (long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / WARP; row < n_rows;
       row += (long long)gridDim.x * blockDim.x / WARP) {
    const T* x = X + row * n_features;
    long long largest = 0;
    for (int k = lane; k < n_features; k += WARP) {
      const long long bits = bits_of(x[k]) & magnitude_bits;
      largest = bits > largest ? bits : largest;
    }
    largest = warp_max(largest);
    const int power = (int)(largest >> mantissa);
    if (power > 2 * bias && lane == 0) atomicMin(bad, (int)row);
    // 2^-exponent is to be a normal number, so the very largest entries are left between 2 and 4.
    const int exponent = largest > 0 ? min(max(power - bias, 2 - bias), bias - 1) : 0;
    const double unit = power_of_two(-exponent);
    double norm2 = 0;
    for (int k = lane; k < n_features; k += WARP) {
      const T value = x[k] * (T)unit;
      out[row * n_features + k] = value;
      norm2 += (double)value * (double)value;
    }
    norm2 = warp_sum(norm2);
    if (lane == 0) {
      exponents[row] = exponent;
      units[row] = unit;
      norms2[row] = norm2;
    }
  }
}

// Entries of each code that are not zero.
// instance: count_entries<float> registers 64
// instance: count_entries<double> registers 64
template <typename T>
__global__ void count_entries(const T* __restrict__ values, const int* __restrict__ counts,
                              long long* __restrict__ lengths, const int n_rows, const int capacity) {
  const int lane = threadIdx.x % WARP;
  for (long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / WARP; row < n_rows;
       row += (long long)gridDim.x * blockDim.x / WARP) {
    int found = 0;
    for (int a = lane; a < counts[row]; a += WARP) found += values[row * capacity + a] != T(0);
    found = warp_sum(found);
    if (lane == 0) lengths[row] = found;
  }
}

// Codes as consecutive sorted rows: an entry's place is the number of entries of its row with lower atoms.
// instance: pack_rows<float> registers 64
// instance: pack_rows<double> registers 64
template <typename T>
__global__ void pack_rows(const int* __restrict__ indices, const T* __restrict__ values, const int* __restrict__ counts,
                          const int* __restrict__ exponents, const double* __restrict__ atom_scale,
                          const long long* __restrict__ ends, const long long* __restrict__ lengths,
                          int* __restrict__ out_indices, T* __restrict__ out_values, const int n_rows,
                          const int capacity) {
  const int lane = threadIdx.x % WARP;
  for (long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / WARP; row < n_rows;
       row += (long long)gridDim.x * blockDim.x / WARP) {
    const int* index = indices + row * capacity;
    const T* code = values + row * capacity;
    const long long begin = ends[row] - lengths[row];
    const double unit = power_of_two(exponents[row]);
    const int count = counts[row];
    for (int a = lane; a < count; a += WARP) {
      if (code[a] == T(0)) continue;
      int place = 0;
      for (int b = 0; b < count; ++b) place += code[b] != T(0) && index[b] < index[a];
      out_indices[begin + place] = index[a];
      out_values[begin + place] = (T)((double)code[a] * unit * atom_scale[index[a]]);
    }
  }
}

// Codes into rows of zeros.
// instance: spread_rows<float> registers 64
// instance: spread_rows<double> registers 64
template <typename T>
__global__ void spread_rows(const int* __restrict__ indices, const T* __restrict__ values,
                            const int* __restrict__ counts, const int* __restrict__ exponents,
                            const double* __restrict__ atom_scale, T* __restrict__ out, const int n_rows,
                            const int capacity, const int n_atoms) {
  const int lane = threadIdx.x % WARP;
  for (long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / WARP; row < n_rows;
       row += (long long)gridDim.x * blockDim.x / WARP) {
    const double unit = power_of_two(exponents[row]);
    for (int a = lane; a < counts[row]; a += WARP) {
      const int j = indices[row * capacity + a];
      out[row * n_atoms + j] = (T)((double)values[row * capacity + a] * unit * atom_scale[j]);
    }
  }
}

// Rows of a CSR array in the user's units as codes to start from; atoms of scale 0 are left out.
// instance: start_rows<float> registers 64
// instance: start_rows<double> registers 64
template <typename T>
__global__ void start_rows(const long long* __restrict__ indptr, const int* __restrict__ indices,
                           const T* __restrict__ codes, const int* __restrict__ exponents,
                           const double* __restrict__ atom_scale, int* __restrict__ out_indices,
                           T* __restrict__ out_values, int* __restrict__ counts, const int n_rows, const int capacity) {
  const int lane = threadIdx.x % WARP;
  for (long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / WARP; row < n_rows;
       row += (long long)gridDim.x * blockDim.x / WARP) {
    const double unit = power_of_two(-exponents[row]);
    int filled = 0;
    for (long long first = indptr[row]; first < indptr[row + 1]; first += WARP) {
      const long long entry = first + lane;
      const int j = entry < indptr[row + 1] ? indices[entry] : -1;
      const bool wanted = j >= 0 && codes[entry] != T(0) && atom_scale[j] > 0;
      const unsigned together = __ballot_sync(FULL, wanted);
      const int place = filled + __popc(together & ((1u << lane) - 1));
      if (wanted && place < capacity) {
        out_indices[row * capacity + place] = j;
        out_values[row * capacity + place] = (T)((double)codes[entry] / atom_scale[j] * unit);
      }
      filled += __popc(together);
    }
    if (lane == 0) counts[row] = filled < capacity ? filled : capacity;
  }
}

// Relative duality gaps, none below what rounding allows to claim, and who has converged.
// instance: certify_rows<float> registers 64
// instance: certify_rows<double> registers 64
template <typename T>
__global__ void certify_rows(const T* __restrict__ values, const int* __restrict__ counts,
                             const double* __restrict__ gaps, const double* __restrict__ norms2,
                             const signed char* __restrict__ status, const double tol, const double rounding,
                             double* __restrict__ relative, bool* __restrict__ converged, const int n_rows,
                             const int capacity) {
  const int lane = threadIdx.x % WARP;
  for (long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / WARP; row < n_rows;
       row += (long long)gridDim.x * blockDim.x / WARP) {
    double norm1 = 0;
    for (int a = lane; a < counts[row]; a += WARP) norm1 += magnitude((double)values[row * capacity + a]);
    norm1 = warp_sum(norm1);
    if (lane == 0) {
      const double half = norms2[row] > 0 ? 0.5 * norms2[row] : 1.0;
      const double floor = rounding * sqrt(norms2[row]) * norm1 / half;
      const double gap = gaps[row] / half > floor ? gaps[row] / half : floor;
      relative[row] = gap;
      converged[row] = status[row] == 0 || gap <= (tol > floor ? tol : floor);
    }
  }
}
