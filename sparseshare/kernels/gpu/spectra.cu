// Convolutions in the frequency domain: products of spectra of maps, atoms and signals, summed over atoms or channels.
// A thread makes a frequency of several signals or channels at once, for which it reads maps and atoms once.

// A complex number of a spectrum.
template <typename T>
struct alignas(2 * sizeof(T)) Complex {
  T re, im;
};

// totals (J, C, F) += sum over the atoms of maps' spectra (J, M, F) times atoms' (K, C, F) from atom `first` on: a thread
// a frequency, for IMAGES signals and CHANNELS channels at once.
// instance: add_synthesis<float, 4, 1> registers 96
// instance: add_synthesis<float, 1, 4> registers 96
// instance: add_synthesis<double, 4, 1> registers 128
// instance: add_synthesis<double, 1, 4> registers 128
template <typename T, int IMAGES, int CHANNELS>
__global__ void __launch_bounds__(256, 2) add_synthesis(const T* __restrict__ spectra, const T* __restrict__ atoms,
                                                     const int first, const int n_signals, const int n_atoms,
                                                     const int n_channels, const long long n_frequencies,
                                                     T* __restrict__ totals) {
  const Complex<T>* z = reinterpret_cast<const Complex<T>*>(spectra);
  const Complex<T>* d = reinterpret_cast<const Complex<T>*>(atoms);
  Complex<T>* total = reinterpret_cast<Complex<T>*>(totals);
  const int j0 = blockIdx.y * IMAGES, c0 = blockIdx.z * CHANNELS;
  const long long f = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (f >= n_frequencies) return;
  Complex<T> sums[IMAGES][CHANNELS] = {};
#pragma unroll 4
  for (int k = 0; k < n_atoms; ++k) {
    Complex<T> map[IMAGES], atom[CHANNELS];
#pragma unroll
    for (int j = 0; j < IMAGES; ++j)
      if (j0 + j < n_signals) map[j] = z[((long long)(j0 + j) * n_atoms + k) * n_frequencies + f];
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
      if (c0 + c < n_channels) atom[c] = d[((long long)(first + k) * n_channels + c0 + c) * n_frequencies + f];
#pragma unroll
    for (int j = 0; j < IMAGES; ++j)
#pragma unroll
      for (int c = 0; c < CHANNELS; ++c)
        if (j0 + j < n_signals && c0 + c < n_channels) {
          sums[j][c].re += atom[c].re * map[j].re - atom[c].im * map[j].im;
          sums[j][c].im += atom[c].re * map[j].im + atom[c].im * map[j].re;
        }
  }
#pragma unroll
  for (int j = 0; j < IMAGES; ++j)
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
      if (j0 + j < n_signals && c0 + c < n_channels) {
        Complex<T>& out = total[((long long)(j0 + j) * n_channels + c0 + c) * n_frequencies + f];
        out.re += sums[j][c].re;
        out.im += sums[j][c].im;
      }
}

// out (J, M, F) = sum over the channels of the conjugates of atoms' spectra, from atom `first` on, times signals' (J, C, F).
// instance: correlate_spectra<float> registers 64
// instance: correlate_spectra<double> registers 88
template <typename T>
__global__ void __launch_bounds__(256, 2) correlate_spectra(const T* __restrict__ signals, const T* __restrict__ atoms,
                                                         const int first, const int n_signals, const int n_atoms,
                                                         const int n_channels, const long long n_frequencies,
                                                         T* __restrict__ out) {
  constexpr int IMAGES = 4;
  const Complex<T>* r = reinterpret_cast<const Complex<T>*>(signals);
  const Complex<T>* d = reinterpret_cast<const Complex<T>*>(atoms);
  Complex<T>* products = reinterpret_cast<Complex<T>*>(out);
  const int k = blockIdx.y, j0 = blockIdx.z * IMAGES;
  const long long f = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (f >= n_frequencies) return;
  Complex<T> sums[IMAGES] = {};
  for (int c = 0; c < n_channels; ++c) {
    const Complex<T> atom = d[((long long)(first + k) * n_channels + c) * n_frequencies + f];
#pragma unroll
    for (int j = 0; j < IMAGES; ++j)
      if (j0 + j < n_signals) {
        const Complex<T> here = r[((long long)(j0 + j) * n_channels + c) * n_frequencies + f];
        sums[j].re += atom.re * here.re + atom.im * here.im;
        sums[j].im += atom.re * here.im - atom.im * here.re;
      }
  }
#pragma unroll
  for (int j = 0; j < IMAGES; ++j)
    if (j0 + j < n_signals) products[((long long)(j0 + j) * n_atoms + k) * n_frequencies + f] = sums[j];
}
