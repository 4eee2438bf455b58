// Activations of one signal gathered over cells of positions.

// Blocks are maps (channel, atom): the block's threads are the cells and signs, each of which goes through the non-zeros
// of the map in their order. `homes` has the cell of every position along axis 0, then along axes 1 and 2.
// instance: pool_entries<float> registers 48
// instance: pool_entries<double> registers 48
template <typename T>
__global__ void __launch_bounds__(128) pool_entries(
    const long long* __restrict__ indices, const T* __restrict__ values, const long long* __restrict__ starts,
    const int* __restrict__ homes, const int n0, const int n1, const int n2, const int cells1, const int cells2,
    const int n_cells, const int n_signs, const int n_atoms, const int n_channels, const bool maximum,
    double* __restrict__ out) {
  constexpr int TOGETHER = 128;
  SHARED(int, cell, TOGETHER);
  SHARED(double, size, TOGETHER);
  const int channel = blockIdx.x / n_atoms, atom = blockIdx.x % n_atoms;
  const long long n_positions = (long long)n0 * n1 * n2;
  for (int first = 0; first < n_cells * n_signs; first += TOGETHER) {
    const int mine = first + threadIdx.x, own_cell = mine / n_signs, sign = mine % n_signs;
    double total = 0;
    for (long long begin = starts[blockIdx.x]; begin < starts[blockIdx.x + 1]; begin += TOGETHER) {
      const int here = (int)min((long long)TOGETHER, starts[blockIdx.x + 1] - begin);
      __syncthreads();
      if ((int)threadIdx.x < here) {
        const long long position = indices[begin + threadIdx.x] % n_positions, line = position / n2;
        cell[threadIdx.x] = (homes[line / n1] * cells1 + homes[n0 + line % n1]) * cells2 + homes[n0 + n1 + position % n2];
        size[threadIdx.x] = (double)values[begin + threadIdx.x];
      }
      __syncthreads();
      for (int a = 0; a < here; ++a) {
        const double value = sign ? -size[a] : n_signs == 1 ? magnitude(size[a]) : size[a];
        if (cell[a] == own_cell && value > 0) total = maximum ? max(total, value) : total + value;
      }
    }
    if (mine < n_cells * n_signs)
      out[(((long long)own_cell * n_signs + sign) * n_atoms + atom) * n_channels + channel] = total;
  }
}
