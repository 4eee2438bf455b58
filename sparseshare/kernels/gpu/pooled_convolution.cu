// A convolution, its thresholds and the largest values of its windows, and the gradient back. Images are (n, h, w, C);
// patch (y, x) begins at pixel (y sy - top, x sx - left); windows of ph x pw patches tile them.
#define TOGETHER 4  // patches of a window that are worked on at a time: a weight is read once for all of them
#define TAPS 16     // entries of a patch whose gradients a thread keeps

template <typename T>
struct Largest {  // of a window so far: NaN where there is one, else the first of equal ones
  T best;
  int where, count;
  __device__ __forceinline__ void see(const T a, const int number) {
    count += a != T(0);
    if (number == 0 || a > best || a != a) {
      best = a;
      where = number;
    }
  }
};

// A thread a window and filter, straight from the images: for patches of few entries.
// instance: pooled_taps<float> registers 96
// instance: pooled_taps<double> registers 128
template <typename T>
__global__ void pooled_taps(const T* __restrict__ images, const int h, const int w, const int channels, const int top,
                            const int left, const int kh, const int kw, const int sy, const int sx, const int ph,
                            const int pw, const T* __restrict__ weights, const T* __restrict__ bias,
                            const T* __restrict__ thresholds, const int mode, const int n_lines, const int n_pixels,
                            const int n_filters, const long long size, T* __restrict__ out,
                            unsigned char* __restrict__ place, int* __restrict__ counts) {
  const long long step = (long long)gridDim.x * blockDim.x;
  int count = 0;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    const long long window = divide(i, n_filters), line = divide(window, n_pixels), image = divide(line, n_lines);
    const int f = int(i - window * n_filters);
    const int y = int(line - image * n_lines) * ph * sy - top, x = int(window - line * n_pixels) * pw * sx - left;
    const T* from = images + image * h * w * channels;
    const T threshold = thresholds[f], offset = bias ? bias[f] : T(0);
    Largest<T> largest = {T(0), 0, 0};
    for (int first = 0; first < ph * pw; first += TOGETHER) {
      T sums[TOGETHER];
      int lines[TOGETHER], pixels[TOGETHER];
#pragma unroll
      for (int j = 0; j < TOGETHER; ++j) {
        const int number = min(first + j, ph * pw - 1);
        sums[j] = offset;
        lines[j] = y + number / pw * sy;
        pixels[j] = x + number % pw * sx;
      }
      const T* weight = weights + f;
      for (int a = 0; a < kh; ++a)
        for (int b = 0; b < kw; ++b) {
          const T* tap[TOGETHER];
          bool inside[TOGETHER];
#pragma unroll
          for (int j = 0; j < TOGETHER; ++j) {
            const int line_j = lines[j] + a, pixel_j = pixels[j] + b;
            inside[j] = line_j >= 0 && line_j < h && pixel_j >= 0 && pixel_j < w;
            tap[j] = from + ((long long)line_j * w + pixel_j) * channels;
          }
          for (int c = 0; c < channels; ++c, weight += n_filters) {
            const T factor = *weight;
#pragma unroll
            for (int j = 0; j < TOGETHER; ++j)
              if (inside[j]) sums[j] += tap[j][c] * factor;
          }
        }
#pragma unroll
      for (int j = 0; j < TOGETHER; ++j)
        if (first + j < ph * pw) largest.see(activation(sums[j], threshold, mode), first + j);
    }
    out[i] = largest.best;
    place[i] = (unsigned char)largest.where;
    count += largest.count;
  }
  leave_count(count, counts);
}

// The same from products of patches and weights that have been made: z has a row a patch.
// instance: pool_products<float> registers 64
// instance: pool_products<double> registers 72
template <typename T>
__global__ void pool_products(const T* __restrict__ z, const T* __restrict__ bias, const T* __restrict__ thresholds,
                              const int mode, const int ph, const int pw, const int n_lines, const int n_pixels,
                              const int n_filters, const long long size, T* __restrict__ out,
                              unsigned char* __restrict__ place, int* __restrict__ counts) {
  const long long step = (long long)gridDim.x * blockDim.x;
  int count = 0;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    const long long window = divide(i, n_filters), line = divide(window, n_pixels);
    const int f = int(i - window * n_filters);
    const long long row = line * ph * n_pixels * pw + (window - line * n_pixels) * pw;
    const T threshold = thresholds[f], offset = bias ? bias[f] : T(0);
    Largest<T> largest = {T(0), 0, 0};
    for (int a = 0; a < ph; ++a)
      for (int b = 0; b < pw; ++b) {
        const T v = z[(row + (long long)a * n_pixels * pw + b) * n_filters + f] + offset;
        largest.see(activation(v, threshold, mode), a * pw + b);
      }
    out[i] = largest.best;
    place[i] = (unsigned char)largest.where;
    count += largest.count;
  }
  leave_count(count, counts);
}

// Gradient by the weights straight from images and slopes, for patches of few entries: a block takes 32 filters, TAPS
// entries of a patch and one part of the windows, whose sums it leaves.
// instance: tap_gradients<float> registers 136
// instance: tap_gradients<double> registers 160
template <typename T>
__global__ void tap_gradients(const T* __restrict__ images, const int h, const int w, const int channels, const int top,
                              const int left, const int kh, const int kw, const int sy, const int sx, const int ph,
                              const int pw, const T* __restrict__ slopes, const unsigned char* __restrict__ place,
                              const int n_lines, const int n_pixels, const int n_filters, const long long n_windows,
                              const long long windows_a_part, T* __restrict__ gradient) {
  SHARED(T, parts, 8 * TAPS * 32);
  SHARED(int, tap_line, TAPS);
  SHARED(int, tap_pixel, TAPS);
  SHARED(int, tap_channel, TAPS);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  const int f = blockIdx.x * WARP + lane, n_taps = kh * kw * channels, first = blockIdx.y * TAPS;
  if (threadIdx.x < TAPS) {
    const int tap = min(first + (int)threadIdx.x, n_taps - 1);
    tap_line[threadIdx.x] = tap / (kw * channels);
    tap_pixel[threadIdx.x] = tap / channels % kw;
    tap_channel[threadIdx.x] = tap % channels;
  }
  __syncthreads();
  T sums[TAPS];
#pragma unroll
  for (int t = 0; t < TAPS; ++t) sums[t] = T(0);
  const long long begin = blockIdx.z * windows_a_part, end = min(n_windows, begin + windows_a_part);
  if (f < n_filters)
    for (long long window = begin + warp; window < end; window += warps) {
      const T slope = slopes[window * n_filters + f];
      if (slope == T(0)) continue;
      const long long line = divide(window, n_pixels), image = divide(line, n_lines);
      const int where = place[window * n_filters + f];
      const int y = (int(line - image * n_lines) * ph + where / pw) * sy - top;
      const int x = (int(window - line * n_pixels) * pw + where % pw) * sx - left;
      const T* from = images + image * h * w * channels;
#pragma unroll
      for (int t = 0; t < TAPS; ++t) {
        const int line_t = y + tap_line[t], pixel_t = x + tap_pixel[t];
        if (line_t >= 0 && line_t < h && pixel_t >= 0 && pixel_t < w)
          sums[t] += slope * from[((long long)line_t * w + pixel_t) * channels + tap_channel[t]];
      }
    }
#pragma unroll
  for (int t = 0; t < TAPS; ++t) parts[(warp * TAPS + t) * WARP + lane] = sums[t];
  __syncthreads();
  for (int t = warp; t < TAPS; t += warps)
    if (f < n_filters && first + t < n_taps) {
      T sum = parts[t * WARP + lane];
      for (int other = 1; other < warps; ++other) sum += parts[(other * TAPS + t) * WARP + lane];
      gradient[((long long)blockIdx.z * n_taps + first + t) * n_filters + f] = sum;
    }
}
