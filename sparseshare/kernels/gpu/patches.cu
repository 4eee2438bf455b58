// Patches of an image as rows, and rows added back where they came from. An image is a box of three axes, see the CPU's.

__device__ __forceinline__ long long corner(long long number, int grid1, int grid2, int stride0, int stride1,
                                            int stride2, int size1, int size2) {
  const long long line = number / grid2, column = number - line * grid2, plane = line / grid1;
  return ((plane * stride0) * size1 + (line - plane * grid1) * stride1) * size2 + column * stride2;
}

// A block copies PATCHES patches. Its threads keep their places in a patch, so that nothing is divided on the way:
// neighbours read and write neighbouring entries of a line.
// instance: take_patches<float, 64> registers 48
// instance: take_patches<double, 64> registers 48
template <typename T, int PATCHES>
__global__ void take_patches(
    const T* __restrict__ image, const long long* __restrict__ numbers, const long long first, const long long n,
    const int patch0, const int patch1, const int patch2, const int stride0, const int stride1, const int stride2,
    const int grid1, const int grid2, const int size1, const int size2, T* __restrict__ rows) {
  SHARED(long long, corners, PATCHES);
  const long long start = (long long)blockIdx.x * PATCHES;
  const int here = (int)min((long long)PATCHES, n - start), thread = threadIdx.x, threads = blockDim.x;
  for (int i = thread; i < here; i += threads) {
    const long long number = numbers == nullptr ? first + start + i : numbers[start + i];
    corners[i] = corner(number, grid1, grid2, stride0, stride1, stride2, size1, size2);
  }
  __syncthreads();
  const int entries = patch0 * patch1 * patch2, width = min(entries, threads), together = threads / width;
  const int own = thread / width;
  if (own < together) {
    for (int place = thread - own * width; place < entries; place += width) {
      const int line = place / patch2, plane = line / patch1;
      const T* from = image + ((long long)plane * size1 + (line - plane * patch1)) * size2 + (place - line * patch2);
      T* to = rows + start * entries + place;
#pragma unroll 2
      for (int i = own; i < here; i += together) to[(long long)i * entries] = from[corners[i]];
    }
  }
}

// One thread an entry of the part [low, high) of the total: it sums the patches that cover it in their order.
// instance: add_patches<float> registers 56
// instance: add_patches<double> registers 56
template <typename T>
__global__ void __launch_bounds__(256) add_patches(
    const T* __restrict__ rows, const long long first, const long long n, const int patch0, const int patch1,
    const int patch2, const int stride0, const int stride1, const int stride2, const int grid0, const int grid1,
    const int grid2, const int low0, const int low1, const int low2, const int high0, const int high1, const int high2,
    const int size1, const int size2, double* __restrict__ total) {
  const long long lines = (long long)(high0 - low0) * (high1 - low1), entries = lines * (high2 - low2);
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < entries; i += stride) {
    const long long line = i / (high2 - low2), plane = line / (high1 - low1);
    const int x0 = low0 + (int)plane, x1 = low1 + (int)(line - plane * (high1 - low1));
    const int x2 = low2 + (int)(i - line * (high2 - low2));
    const int first0 = max(x0 - patch0 + stride0, 0) / stride0, last0 = min(x0 / stride0, grid0 - 1);
    const int first1 = max(x1 - patch1 + stride1, 0) / stride1, last1 = min(x1 / stride1, grid1 - 1);
    const int first2 = max(x2 - patch2 + stride2, 0) / stride2, last2 = min(x2 / stride2, grid2 - 1);
    double sum = total[((long long)x0 * size1 + x1) * size2 + x2];
    for (int a = first0; a <= last0; ++a) {
      for (int b = first1; b <= last1; ++b) {
        const long long number = ((long long)a * grid1 + b) * grid2 - first;
        const int place = ((x0 - a * stride0) * patch1 + (x1 - b * stride1)) * patch2 + x2;
#pragma unroll 4
        for (int c = first2; c <= last2; ++c) {
          if (number + c >= 0 && number + c < n) {
            sum += (double)rows[(number + c) * ((long long)patch0 * patch1 * patch2) + (place - c * stride2)];
          }
        }
      }
    }
    total[((long long)x0 * size1 + x1) * size2 + x2] = sum;
  }
}
