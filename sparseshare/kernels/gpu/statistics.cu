// Sums over coded signals. Codes are rows of a CSR matrix, no atom twice in a row. All sums are in one fixed order.

// How often each chunk of signals uses each atom: counts (n_atoms, n_chunks). One warp a chunk, its counts in shared
// memory. The order in which whole numbers are added does not matter.
// instance: count_by_atom<256> registers 40
template <int CHUNK>
__global__ void count_by_atom(const long long* __restrict__ indptr, const int* __restrict__ indices,
                              const int n_signals, const int n_atoms, const int n_chunks, int* __restrict__ counts) {
  DYNAMIC_SHARED(int, mine);
  const int chunk = blockIdx.x, lane = threadIdx.x;
  for (int k = lane; k < n_atoms; k += WARP) mine[k] = 0;
  __syncwarp();
  const long long first = (long long)chunk * CHUNK, last = min(first + CHUNK, (long long)n_signals);
  for (long long a = indptr[first] + lane; a < indptr[last]; a += WARP) atomicAdd(&mine[indices[a]], 1);
  __syncwarp();
  for (int k = lane; k < n_atoms; k += WARP) counts[(long long)k * n_chunks + chunk] = mine[k];
}

// Where every non-zero goes when they are listed atom by atom, signals in order. `ends` are the running sums of
// `counts`. A row has no atom twice, so the lanes that list a row never meet in one count.
// instance: place_by_atom<256> registers 64
template <int CHUNK>
__global__ void place_by_atom(const long long* __restrict__ indptr, const int* __restrict__ indices,
                              const int n_signals, const int n_atoms, const int n_chunks,
                              const int* __restrict__ counts, const long long* __restrict__ ends,
                              int* __restrict__ signals, int* __restrict__ positions) {
  DYNAMIC_SHARED(int, place);
  const int chunk = blockIdx.x, lane = threadIdx.x;
  for (int k = lane; k < n_atoms; k += WARP) {
    const long long at = (long long)k * n_chunks + chunk;
    place[k] = (int)ends[at] - counts[at];
  }
  __syncwarp();
  const int first = chunk * CHUNK, last = min(first + CHUNK, n_signals);
  for (int i = first; i < last; ++i) {
    for (long long a = indptr[i] + lane; a < indptr[i + 1]; a += WARP) {
      const int at = place[indices[a]]++;
      signals[at] = i;
      positions[at] = (int)a;
    }
    __syncwarp();
  }
}

// Sums of w_ik [w_i x_i] over pieces of each atom's list: partial (n_pieces, n_atoms + n_features), of which a launch
// makes the columns from `first_column` on. One warp a piece, its sums in shared memory.
// instance: accumulate_pieces<float> registers 64
// instance: accumulate_pieces<double> registers 64
template <typename T>
__global__ void accumulate_pieces(const long long* __restrict__ indptr, const int* __restrict__ indices,
                                  const T* __restrict__ values, const T* __restrict__ X, const int n_atoms,
                                  const int n_features, const int n_lists, const long long* __restrict__ starts,
                                  const long long* __restrict__ piece_starts, const int piece_length,
                                  const int* __restrict__ signals, const int* __restrict__ positions,
                                  const int first_column, const int n_columns, double* __restrict__ partial) {
  DYNAMIC_SHARED(double, shared);
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP, warp = threadIdx.x / WARP;
  double* sums = shared + (long long)warp * n_columns;
  const long long n_pieces = piece_starts[n_lists], width = (long long)n_atoms + n_features;
  for (long long piece = (long long)blockIdx.x * warps + warp; piece < n_pieces; piece += (long long)gridDim.x * warps) {
    int list = 0, after = n_lists;
    while (after - list > 1) {
      const int middle = (list + after) / 2;
      if (piece_starts[middle] <= piece) list = middle;
      else after = middle;
    }
    const long long begin = starts[list] + (piece - piece_starts[list]) * piece_length;
    const long long end = min(begin + piece_length, starts[list + 1]);
    for (int c = lane; c < n_columns; c += WARP) sums[c] = 0;
    __syncwarp();
    for (long long p = begin; p < end; p += WARP) {
      const int there = (int)min((long long)WARP, end - p);
      int signal = 0, length = 0;
      long long row = 0;
      double weight = 0;
      if (lane < there) {  // what is fetched one after the other for each signal is fetched for 32 at a time
        signal = signals[p + lane];
        weight = (double)values[positions[p + lane]];
        row = indptr[signal];
        length = (int)(indptr[signal + 1] - row);
      }
      for (int s = 0; s < there; ++s) {
        const double w = __shfl_sync(FULL, weight, s);
        const long long entries = __shfl_sync(FULL, row, s);
        const int count = __shfl_sync(FULL, length, s), i = __shfl_sync(FULL, signal, s);
        for (int a = lane; a < count; a += WARP) {
          const int c = indices[entries + a] - first_column;
          if (c >= 0 && c < n_columns) sums[c] += w * (double)values[entries + a];
        }
        const T* x = X + (long long)i * n_features;
        const int from = n_atoms - first_column;  // the column of feature 0
        for (int f = lane; f < n_features; f += WARP) {
          const int c = from + f;
          if (c >= 0 && c < n_columns) sums[c] += w * (double)x[f];
        }
        __syncwarp();
      }
    }
    for (int c = lane; c < n_columns; c += WARP) partial[piece * width + first_column + c] = sums[c];
  }
}

// A += weight * partial and B += weight * partial, the pieces of a list in order; one thread an entry.
// instance: add_pieces<double> registers 64
template <typename T>
__global__ void add_pieces(const T* __restrict__ partial, const long long* __restrict__ piece_starts,
                           const int n_lists, const int n_atoms, const int n_features, const double weight,
                           T* __restrict__ A, T* __restrict__ B) {
  const long long width = (long long)n_atoms + n_features, n_entries = n_lists * width;
  for (long long entry = (long long)blockIdx.x * blockDim.x + threadIdx.x; entry < n_entries;
       entry += (long long)gridDim.x * blockDim.x) {
    const long long list = entry / width, column = entry % width;
    T total = 0;
    for (long long piece = piece_starts[list]; piece < piece_starts[list + 1]; ++piece)
      total += partial[piece * width + column];
    if (column < n_atoms) A[list * n_atoms + column] += weight * total;
    else B[list * n_features + column - n_atoms] += weight * total;
  }
}

// l1[k] += weight * sum_i |w_ik| and counts[k] += number of signals that use atom k. One block of 256 an atom.
// instance: atom_usage<float> registers 40
// instance: atom_usage<double> registers 40
template <typename T>
__global__ void atom_usage(const long long* __restrict__ starts, const int* __restrict__ positions,
                           const T* __restrict__ values, const double weight, double* __restrict__ l1,
                           double* __restrict__ counts) {
  SHARED(double, sums, 8);
  SHARED(double, used, 8);
  const int k = blockIdx.x, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  double sum = 0, use = 0;
  for (long long p = starts[k] + threadIdx.x; p < starts[k + 1]; p += blockDim.x) {
    const double value = (double)values[positions[p]];
    sum += magnitude(value);
    use += value != 0;
  }
  sum = warp_sum(sum);
  use = warp_sum(use);
  if (lane == 0) {
    sums[warp] = sum;
    used[warp] = use;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0, count = 0;
    for (int w = 0; w < 8; ++w) {
      total += sums[w];
      count += used[w];
    }
    l1[k] += weight * total;
    counts[k] += count;
  }
}

// Codes into their places in a dense array of zeros. One warp a signal.
// instance: spread_codes<float> registers 40
// instance: spread_codes<double> registers 40
template <typename T>
__global__ void spread_codes(const long long* __restrict__ indptr, const int* __restrict__ indices,
                             const T* __restrict__ values, const int n_signals, const int n_atoms,
                             T* __restrict__ dense) {
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  for (long long i = (long long)blockIdx.x * warps + threadIdx.x / WARP; i < n_signals;
       i += (long long)gridDim.x * warps)
    for (long long a = indptr[i] + lane; a < indptr[i + 1]; a += WARP) dense[i * n_atoms + indices[a]] = values[a];
}

// x_i - w_i D into `residual` and its squared norm into `squares`; either may be missing, and `residual` may be X.
// One warp a signal.
// instance: residual_rows<float> registers 48
// instance: residual_rows<double> registers 64
template <typename T>
__global__ void residual_rows(const long long* __restrict__ indptr, const int* __restrict__ indices,
                              const T* __restrict__ values, const T* X, const T* __restrict__ dictionary,
                              const int n_signals, const int n_features, T* residual, double* __restrict__ squares) {
  constexpr int COLUMNS = 4;  // a lane holds
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  for (long long i = (long long)blockIdx.x * warps + threadIdx.x / WARP; i < n_signals;
       i += (long long)gridDim.x * warps) {
    const long long begin = indptr[i], end = indptr[i + 1];
    double total = 0;
    for (int first = 0; first < n_features; first += COLUMNS * WARP) {
      T rest[COLUMNS];
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const int f = first + c * WARP + lane;
        rest[c] = f < n_features ? X[i * n_features + f] : T(0);
      }
      for (long long a = begin; a < end; a += WARP) {
        const int there = (int)min((long long)WARP, end - a);
        const int index = lane < there ? indices[a + lane] : 0;
        const T value = lane < there ? values[a + lane] : T(0);
        for (int s = 0; s < there; ++s) {
          const T w = __shfl_sync(FULL, value, s);
          const T* atom = dictionary + (long long)__shfl_sync(FULL, index, s) * n_features;
#pragma unroll
          for (int c = 0; c < COLUMNS; ++c) {
            const int f = first + c * WARP + lane;
            if (f < n_features) rest[c] -= w * atom[f];
          }
        }
      }
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const int f = first + c * WARP + lane;
        if (f < n_features && residual) residual[i * n_features + f] = rest[c];
        total += (double)rest[c] * (double)rest[c];
      }
    }
    total = warp_sum(total);
    if (lane == 0 && squares) squares[i] = total;
  }
}
