// Largest values and means over windows of images (n, h, w, C), and their gradients. Window (y, x) begins at (y sy, x sx).

// instance: largest_in_windows<float, unsigned char> registers 56
// instance: largest_in_windows<float, int> registers 56
// instance: largest_in_windows<double, unsigned char> registers 64
// instance: largest_in_windows<double, int> registers 64
template <typename T, typename P>
__global__ void largest_in_windows(const T* __restrict__ images, const int h, const int w, const int channels,
                                   const int kh, const int kw, const int sy, const int sx, const int n_lines,
                                   const int n_pixels, const long long size, T* __restrict__ out,
                                   P* __restrict__ place) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    const long long window = divide(i, channels), line = divide(window, n_pixels), image = divide(line, n_lines);
    const int c = int(i - window * channels);
    const long long y = (line - image * n_lines) * sy, x = (window - line * n_pixels) * sx;
    const T* corner = images + ((image * h + y) * w + x) * channels + c;
    T best = corner[0];
    int where = 0;
    for (int a = 0; a < kh; ++a)
      for (int b = 0; b < kw; ++b) {
        const T v = corner[((long long)a * w + b) * channels];
        if (v > best || v != v) {
          best = v;
          where = a * kw + b;
        }
      }
    out[i] = best;
    place[i] = P(where);
  }
}

// A thread a pixel and channel looks at all windows over it: only those whose largest it was, or at all for means.
template <typename T, typename P>
__device__ __forceinline__ T window_sum(const T* __restrict__ gradient, const P* __restrict__ place, const long long i,
                                        const int h, const int w, const int channels, const int kh, const int kw,
                                        const int sy, const int sx, const int n_lines, const int n_pixels) {
  const long long pixel = divide(i, channels), line = divide(pixel, w), image = divide(line, h);
  const int c = int(i - pixel * channels);
  const int py = int(line - image * h), px = int(pixel - line * w);
  T sum = T(0);
  const int top = py < kh ? 0 : (py - kh) / sy + 1, left = px < kw ? 0 : (px - kw) / sx + 1;
  for (int y = top; y < n_lines && y * sy <= py; ++y)
    for (int x = left; x < n_pixels && x * sx <= px; ++x) {
      const long long window = ((image * n_lines + y) * n_pixels + x) * channels + c;
      if (!place || int(place[window]) == (py - y * sy) * kw + px - x * sx) sum += gradient[window];
    }
  return sum;
}

// instance: largest_gradient<float, unsigned char> registers 40
// instance: largest_gradient<float, int> registers 40
// instance: largest_gradient<double, unsigned char> registers 40
// instance: largest_gradient<double, int> registers 40
template <typename T, typename P>
__global__ void largest_gradient(const T* __restrict__ gradient, const P* __restrict__ place, const int h, const int w,
                                 const int channels, const int kh, const int kw, const int sy, const int sx,
                                 const int n_lines, const int n_pixels, const T factor, const long long size,
                                 T* __restrict__ out) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step)
    out[i] = factor * window_sum(gradient, place, i, h, w, channels, kh, kw, sy, sx, n_lines, n_pixels);
}

// instance: mean_of_windows<float> registers 64
// instance: mean_of_windows<double> registers 64
template <typename T>
__global__ void mean_of_windows(const T* __restrict__ images, const int h, const int w, const int channels, const int kh,
                                const int kw, const int sy, const int sx, const int n_lines, const int n_pixels,
                                const long long size, T* __restrict__ out) {
  const long long step = (long long)gridDim.x * blockDim.x;
  const T share = T(1) / T(kh * kw);
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    const long long window = divide(i, channels), line = divide(window, n_pixels), image = divide(line, n_lines);
    const int c = int(i - window * channels);
    const long long y = (line - image * n_lines) * sy, x = (window - line * n_pixels) * sx;
    const T* corner = images + ((image * h + y) * w + x) * channels + c;
    T sum = T(0);
    for (int a = 0; a < kh; ++a)
      for (int b = 0; b < kw; ++b) sum += corner[((long long)a * w + b) * channels] * share;
    out[i] = sum;
  }
}
