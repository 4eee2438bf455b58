// Patches of images as rows of a matrix, and added back. Images are (n, h, w, C); patch (y, x) begins at pixel
// (y sy - top, x sx - left), and there are zeros where it sticks out.

// instance: pad_images<float> registers 40
// instance: pad_images<double> registers 40
template <typename T>
__global__ void pad_images(const T* __restrict__ images, const int h, const int w, const int channels, const int top,
                           const int left, const int height, const int width, const long long size,
                           T* __restrict__ padded) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x; p < size; p += step) {
    const long long pixel = divide(p, channels), line = divide(pixel, width), image = divide(line, height);
    const int c = int(p - pixel * channels);
    const int y = int(line - image * height) - top, x = int(pixel - line * width) - left;
    const bool inside = y >= 0 && y < h && x >= 0 && x < w;
    padded[p] = inside ? images[((image * h + y) * w + x) * channels + c] : T(0);
  }
}

// 2^log_lanes threads copy a line of a patch.
// instance: take_columns<float> registers 48
// instance: take_columns<double> registers 48
template <typename T>
__global__ void take_columns(const T* __restrict__ images, const int h, const int w, const int channels, const int top,
                             const int left, const int kh, const int kw, const int sy, const int sx, const int n_lines,
                             const int n_pixels, const long long n_tasks, const int log_lanes, T* __restrict__ columns) {
  const int lanes = 1 << log_lanes, run = kw * channels;
  const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const long long step = ((long long)gridDim.x * blockDim.x) >> log_lanes;
  const int lane = int(thread & (lanes - 1));
  for (long long task = thread >> log_lanes; task < n_tasks; task += step) {
    const long long row = divide(task, kh), line = divide(row, n_pixels), image = divide(line, n_lines);
    const int a = int(task - row * kh);
    const int y = int(line - image * n_lines) * sy + a - top, x = int(row - line * n_pixels) * sx - left;
    const T* from = images + ((image * h + y) * w + x) * channels;
    T* to = columns + task * run;
    const int first = x < 0 ? -x * channels : 0, last = min(run, (w - x) * channels);
    const bool inside = y >= 0 && y < h;
    for (int c = lane; c < run; c += lanes) to[c] = inside && c >= first && c < last ? from[c] : T(0);
  }
}

// A thread a pixel and channel: it adds up what all patches over it hold, in one order.
// instance: add_columns<float> registers 56
// instance: add_columns<double> registers 56
template <typename T>
__global__ void add_columns(const T* __restrict__ columns, const int h, const int w, const int channels, const int top,
                            const int left, const int kh, const int kw, const int sy, const int sx, const int n_lines,
                            const int n_pixels, const long long size, T* __restrict__ images) {
  const long long step = (long long)gridDim.x * blockDim.x, length = (long long)kh * kw * channels;
  for (long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x; p < size; p += step) {
    const long long pixel = divide(p, channels), line = divide(pixel, w), image = divide(line, h);
    const int c = int(p - pixel * channels);
    const int py = int(line - image * h) + top, px = int(pixel - line * w) + left;
    T sum = T(0);
    for (int a = 0; a < kh && a <= py; ++a) {
      const int y = (py - a) / sy;
      if (y * sy != py - a || y >= n_lines) continue;
      const T* row = columns + (image * n_lines + y) * n_pixels * length + (long long)a * kw * channels + c;
      for (int b = 0; b < kw && b <= px; ++b) {
        const int x = (px - b) / sx;
        if (x * sx == px - b && x < n_pixels) sum += row[x * length + b * channels];
      }
    }
    images[p] = sum;
  }
}
