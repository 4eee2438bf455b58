// Convolutions of maps with atoms, and their adjoint, sample by sample: for small atoms, and where spectra do not fit.
//
// Either way an entry of the result is a sum over taps of the entry `shift + tap` further on in what is read (for the
// synthesis with its taps turned round). A block makes a tile of the result from a tile of what is read in shared
// memory; a thread makes ROWS entries below each other, so that what it reads of a column serves all of them.

// Sizes along three axes, leading ones 1.
struct Geometry {
  int out[3], in[3], taps[3], shift[3];
  bool wraps;
  __device__ __forceinline__ Geometry(const int* numbers) {
#pragma unroll
    for (int a = 0; a < 3; ++a) {
      out[a] = numbers[a];
      in[a] = numbers[3 + a];
      taps[a] = numbers[6 + a];
      shift[a] = numbers[9 + a];
    }
    wraps = numbers[12] != 0;
  }
  // The entry of what is read at i along an axis, or -1.
  __device__ __forceinline__ int entry(int i, int axis) const {
    if (i >= 0 && i < in[axis]) return i;
    if (!wraps) return -1;
    i %= in[axis];
    return i < 0 ? i + in[axis] : i;
  }
  __device__ __forceinline__ long long outs() const { return (long long)out[0] * out[1] * out[2]; }
  __device__ __forceinline__ long long ins() const { return (long long)in[0] * in[1] * in[2]; }
};

// Where a block's tile of the result lies, and a thread's entries in it.
template <int ROWS>
struct Tile {
  static constexpr int THREADS = 256, WIDTH = ROWS == 1 ? 256 : 32, HEIGHT = THREADS / WIDTH * ROWS;
  int plane, top, left, row, column, wide, tall;
  __device__ __forceinline__ Tile(const Geometry& g) {
    const int across = (g.out[2] + WIDTH - 1) / WIDTH, down = (g.out[1] + HEIGHT - 1) / HEIGHT;
    left = (int)(blockIdx.x % across) * WIDTH;
    top = (int)(blockIdx.x / across % down) * HEIGHT;
    plane = (int)(blockIdx.x / across / down);
    row = (int)threadIdx.x / WIDTH * ROWS;
    column = (int)threadIdx.x % WIDTH;
    wide = WIDTH + g.taps[2] - 1;
    tall = HEIGHT + g.taps[1] - 1;
  }
  // Copy one plane of what is read, zeros where nothing is; whether this thread met anything else.
  template <typename T>
  __device__ __forceinline__ bool read(const Geometry& g, const T* __restrict__ plane_in, T* __restrict__ tile) const {
    bool any = false;
    for (int i = threadIdx.x; i < wide * tall; i += THREADS) {
      const int y = g.entry(top + g.shift[1] + i / wide, 1), x = g.entry(left + g.shift[2] + i % wide, 2);
      const T value = y >= 0 && x >= 0 ? plane_in[(long long)y * g.in[2] + x] : T(0);
      tile[i] = value;
      any |= value != T(0);
    }
    return any;
  }
  __device__ __forceinline__ bool inside(const Geometry& g, int r) const {
    return top + row + r < g.out[1] && left + column < g.out[2];
  }
  __device__ __forceinline__ long long place(const Geometry& g, int r) const {
    return ((long long)plane * g.out[1] + top + row + r) * g.out[2] + left + column;
  }
};

// Taps of several atoms or channels beside each other, to be read at once.
template <typename T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Beside {
  T of[N];
};

// One plane of taps for N sums of ROWS entries.
template <typename T, int ROWS, int N>
__device__ __forceinline__ void add_taps(const T* __restrict__ tile, const Beside<T, N>* __restrict__ taps,
                                         const int wide, const int height, const int width, T (&sums)[ROWS][N]) {
  for (int j = 0; j < width; ++j) {
    T column[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS - 1; ++r) column[r] = tile[r * wide + j];
    for (int i = 0; i < height; ++i) {
      column[ROWS - 1] = tile[(ROWS - 1 + i) * wide + j];
      const Beside<T, N> tap = taps[i * width + j];
#pragma unroll
      for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int n = 0; n < N; ++n) sums[r][n] += column[r] * tap.of[n];
#pragma unroll
      for (int r = 0; r < ROWS - 1; ++r) column[r] = column[r + 1];
    }
  }
}

// Correlations of signals (J, C, *in) with atoms (K, C, *taps) at all positions: out (J, K, *out). Blocks are numbered
// by tile, by `atoms_a_block` atoms, and by signal.
// instance: correlate_directly<float, 1> registers 128
// instance: correlate_directly<float, 4> registers 112
// instance: correlate_directly<double, 1> registers 128
// instance: correlate_directly<double, 4> registers 128
template <typename T, int ROWS>
__global__ void __launch_bounds__(256, 2) correlate_directly(
    const T* __restrict__ signals, const T* __restrict__ atoms, const int* __restrict__ geometry, const int n_channels,
    const int n_atoms, const int atoms_a_block, T* __restrict__ out) {
  constexpr int ATOMS = 4;
  DYNAMIC_SHARED(T, memory);
  const Geometry g(geometry);
  const Tile<ROWS> tile(g);
  Beside<T, ATOMS>* taps = reinterpret_cast<Beside<T, ATOMS>*>(memory);
  const int in_plane = g.taps[1] * g.taps[2], n_planes = n_channels * g.taps[0];
  T* shared = memory + ATOMS * in_plane;
  const int begin = blockIdx.y * atoms_a_block, end = min(begin + atoms_a_block, n_atoms);
  const T* signal = signals + blockIdx.z * (n_channels * g.ins());
  for (int first = begin; first < end; first += ATOMS) {
    T sums[ROWS][ATOMS] = {};
    for (int p = 0; p < n_planes; ++p) {
      const int c = p / g.taps[0], i0 = p % g.taps[0], depth = g.entry(tile.plane + g.shift[0] + i0, 0);
      if (depth < 0) continue;  // the same for the whole block
      __syncthreads();
      if (n_planes > 1 || first == begin)
        tile.read(g, signal + c * g.ins() + (long long)depth * g.in[1] * g.in[2], shared);
      for (int i = threadIdx.x; i < ATOMS * in_plane; i += Tile<ROWS>::THREADS) {
        const int k = first + i % ATOMS;
        const long long tap = ((long long)(k * n_channels + c) * g.taps[0] + i0) * in_plane + i / ATOMS;
        memory[i] = k < end ? atoms[tap] : T(0);
      }
      __syncthreads();
      add_taps<T, ROWS, ATOMS>(shared + tile.row * tile.wide + tile.column, taps, tile.wide, g.taps[1], g.taps[2], sums);
    }
#pragma unroll
    for (int n = 0; n < ATOMS; ++n)
#pragma unroll
      for (int r = 0; r < ROWS; ++r)
        if (first + n < end && tile.inside(g, r))
          out[((long long)blockIdx.z * n_atoms + first + n) * g.outs() + tile.place(g, r)] = sums[r][n];
  }
}

// Sums of maps (J, K, *in) convolved with atoms: out (parts, J, C, *out), each part of them a run of the atoms. Blocks
// are numbered by tile, by group of CHANNELS channels and part, and by signal. Tiles without a non-zero cost only their
// reading.
// instance: synthesize_directly<float, 1, 1> registers 96
// instance: synthesize_directly<float, 4, 1> registers 112
// instance: synthesize_directly<float, 1, 4> registers 120
// instance: synthesize_directly<float, 4, 4> registers 96
// instance: synthesize_directly<double, 1, 1> registers 104
// instance: synthesize_directly<double, 4, 1> registers 120
// instance: synthesize_directly<double, 1, 4> registers 128
// instance: synthesize_directly<double, 4, 4> registers 128
template <typename T, int ROWS, int CHANNELS>
__global__ void __launch_bounds__(256, 2) synthesize_directly(
    const T* __restrict__ maps, const T* __restrict__ atoms, const int* __restrict__ geometry, const int n_channels,
    const int n_atoms, const int n_parts, T* __restrict__ out) {
  DYNAMIC_SHARED(T, memory);
  const Geometry g(geometry);
  const Tile<ROWS> tile(g);
  Beside<T, CHANNELS>* taps = reinterpret_cast<Beside<T, CHANNELS>*>(memory);
  const int in_plane = g.taps[1] * g.taps[2], n_taps = g.taps[0] * in_plane;
  T* shared = memory + (CHANNELS * in_plane + 3) / 4 * 4;
  const int part = blockIdx.y % n_parts, first = blockIdx.y / n_parts * CHANNELS;
  const int begin = (int)((long long)n_atoms * part / n_parts), end = (int)((long long)n_atoms * (part + 1) / n_parts);
  T sums[ROWS][CHANNELS] = {};
  for (int p = begin * g.taps[0]; p < end * g.taps[0]; ++p) {
    const int k = p / g.taps[0], i0 = p % g.taps[0], depth = g.entry(tile.plane + g.shift[0] + i0, 0);
    if (depth < 0) continue;  // the same for the whole block
    __syncthreads();
    const T* map = maps + ((long long)blockIdx.z * n_atoms + k) * g.ins();
    const bool any = tile.read(g, map + (long long)depth * g.in[1] * g.in[2], shared);
    for (int i = threadIdx.x; i < CHANNELS * in_plane; i += Tile<ROWS>::THREADS) {
      const int c = first + i % CHANNELS, turned = n_taps - 1 - (i0 * in_plane + i / CHANNELS);
      memory[i] = c < n_channels ? atoms[(long long)(k * n_channels + c) * n_taps + turned] : T(0);
    }
    if (!__syncthreads_or(any)) continue;
    add_taps<T, ROWS, CHANNELS>(shared + tile.row * tile.wide + tile.column, taps, tile.wide, g.taps[1], g.taps[2],
                                sums);
  }
#pragma unroll
  for (int n = 0; n < CHANNELS; ++n)
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
      if (first + n < n_channels && tile.inside(g, r))
        out[(((long long)part * gridDim.z + blockIdx.z) * n_channels + first + n) * g.outs() + tile.place(g, r)] =
            sums[r][n];
}
