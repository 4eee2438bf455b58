// Codes of patches gathered over the cells of a grid, positive and negative parts apart.

// The patches of image `image` from row `top`, column `left` on; numbers are counted image by image, along rows.
__device__ __forceinline__ long long patch_number(long long image, int row, int column, int rows, int width) {
  return (image * rows + row) * width + column;
}

// One block pools 32 atoms over one cell of one image. Its warps share out the patches of the cell, each a run of them,
// and add up their sums in order.
// instance: pool_cells<float, 1> registers 48
// instance: pool_cells<float, 2> registers 48
// instance: pool_cells<double, 1> registers 64
// instance: pool_cells<double, 2> registers 64
template <typename T, int SIGNS>
__global__ void __launch_bounds__(256) pool_cells(
    const T* __restrict__ products, const long long first, const long long n, const int n_atoms,
    const int* __restrict__ row_edges, const int* __restrict__ column_edges, const int row_cells,
    const int column_cells, const int rows, const int width, const long long first_image,
    const T* __restrict__ lower, const T* __restrict__ upper, const bool maximum, T* __restrict__ sums) {
  SHARED(T, parts, SIGNS * 256);
  const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int chunks = (n_atoms + WARP - 1) / WARP, cells = row_cells * column_cells;
  const long long cell_of_image = blockIdx.x / chunks, image = first_image + cell_of_image / cells;
  const int chunk = (int)(blockIdx.x - cell_of_image * chunks), atom = chunk * WARP + lane;
  const int cell = (int)(cell_of_image % cells), row_cell = cell / column_cells, column_cell = cell % column_cells;
  const int top = row_edges[row_cell], left = column_edges[column_cell];
  const int across = column_edges[column_cell + 1] - left;
  const long long patches = (long long)(row_edges[row_cell + 1] - top) * across;
  const long long begin = patches * warp / warps, end = patches * (warp + 1) / warps;
  T plus = T(0), minus = T(0);
  if (atom < n_atoms) {
    const T high = upper == nullptr ? T(0) : upper[atom], low = lower == nullptr ? T(0) : lower[atom];
    int row = across ? (int)(begin / across) : 0, column = (int)(begin - (long long)row * across);
    for (long long i = begin; i < end; ++row, column = 0) {
      const int here = (int)min((long long)(across - column), end - i);
      const long long number = patch_number(image, top + row, left + column, rows, width) - first;
      const T* from = products + number * n_atoms + atom;
#pragma unroll 4
      for (int c = 0; c < here; ++c) {
        if (number + c >= 0 && number + c < n) {
          const T q = from[(long long)c * n_atoms];
          const T above = max(q - high, T(0)), below = SIGNS == 2 ? max(low - q, T(0)) : T(0);
          plus = maximum ? max(plus, above) : plus + above;
          minus = maximum ? max(minus, below) : minus + below;
        }
      }
      i += here;
    }
  }
  parts[threadIdx.x] = plus;
  if (SIGNS == 2) parts[256 + threadIdx.x] = minus;
  __syncthreads();
  if (warp < SIGNS && atom < n_atoms) {
    T* out = sums + ((cell_of_image + first_image * cells) * SIGNS + warp) * n_atoms + atom;
    T total = *out;
    for (int w = 0; w < warps; ++w) {
      const T part = parts[warp * 256 + w * WARP + lane];
      total = maximum ? max(total, part) : total + part;
    }
    *out = total;
  }
}

// max(mean distance - distance, 0) in the place of the products of patches and centres: one warp a patch.
// instance: nearness_rows<float> registers 40
// instance: nearness_rows<double> registers 48
template <typename T>
__global__ void __launch_bounds__(256) nearness_rows(T* __restrict__ products, const long long n, const int n_centres,
                                                     const T* __restrict__ norms2, const T* __restrict__ centres2) {
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const long long i = (long long)blockIdx.x * warps + threadIdx.x / WARP;
  T* row = products + i * n_centres;
  T sum = T(0);
  if (i < n) {
    for (int k = lane; k < n_centres; k += WARP) {
      row[k] = sqrt(max(norms2[i] + centres2[k] - T(2) * row[k], T(0)));
      sum += row[k];
    }
  }
  const T mean = warp_sum(sum) / T(n_centres);
  if (i < n) {
    for (int k = lane; k < n_centres; k += WARP) row[k] = max(mean - row[k], T(0));
  }
}

// Sparse codes: one warp, which is a block, takes the patches of a cell in their order, for `chunk` of the atoms.
// instance: pool_codes<float> registers 96
// instance: pool_codes<double> registers 96
template <typename T>
__global__ void __launch_bounds__(32) pool_codes(
    const int* __restrict__ starts, const int* __restrict__ atoms, const T* __restrict__ values, const long long first,
    const long long n, const int n_atoms, const int chunk, const int* __restrict__ row_edges,
    const int* __restrict__ column_edges, const int row_cells, const int column_cells, const int rows, const int width,
    const long long first_image, const bool maximum, T* __restrict__ sums) {
  DYNAMIC_SHARED(T, total);
  const int lane = threadIdx.x, cells = row_cells * column_cells, lowest = blockIdx.y * chunk;
  const int here = min(chunk, n_atoms - lowest);
  const long long image = first_image + blockIdx.x / cells;
  const int cell = blockIdx.x % cells, row_cell = cell / column_cells, column_cell = cell % column_cells;
  T* out = sums + (image * cells + cell) * 2 * n_atoms + lowest;
  for (int k = lane; k < here; k += WARP) {
    total[k] = out[k];
    total[chunk + k] = out[n_atoms + k];
  }
  __syncwarp();
  for (int row = row_edges[row_cell]; row < row_edges[row_cell + 1]; ++row) {
#pragma unroll 1
    for (int column = column_edges[column_cell]; column < column_edges[column_cell + 1]; ++column) {
      const long long number = patch_number(image, row, column, rows, width) - first;
      if (number < 0 || number >= n) continue;
      const int end = starts[number + 1];
#pragma unroll 1
      for (int at = starts[number] + lane; at < end; at += WARP) {
        const int atom = atoms[at] - lowest;
        if (atom >= 0 && atom < here) {  // the atoms of a code are distinct: no two lanes meet
          const T size = magnitude(values[at]);
          T* own = total + (values[at] >= T(0) ? atom : chunk + atom);
          *own = maximum ? max(*own, size) : *own + size;
        }
      }
      __syncwarp();
    }
  }
  for (int k = lane; k < here; k += WARP) {
    out[k] = total[k];
    out[n_atoms + k] = total[chunk + k];
  }
}
