// Losses and their gradients in one launch. Every block leaves its part of the loss: all parts add up to it.

__device__ __forceinline__ double block_sum(double value) {  // in one order; the first thread gets it
  SHARED(double, parts, 32);
  value = warp_sum(value);
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int warp = 1; warp < (int)blockDim.x / WARP; ++warp) value += parts[warp];
  return value;
}

// A warp a sample.
// instance: cross_entropy<float> registers 56
// instance: cross_entropy<double> registers 64
template <typename T>
__global__ void cross_entropy(const T* __restrict__ outputs, const long long* __restrict__ targets,
                              const double* __restrict__ class_weights, const long long n, const int n_classes,
                              T* __restrict__ gradient, double* __restrict__ losses) {
  const int lane = threadIdx.x % WARP;
  const long long sample = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
  const bool inside = sample < n;
  const T* z = outputs + sample * n_classes;
  const int count = inside ? n_classes : 0;
  double loss = 0.0;
  T largest = inside ? z[0] : T(0), sum = T(0);
  for (int c = lane; c < count; c += WARP) largest = max(largest, z[c]);
  largest = warp_max(largest);
  for (int c = lane; c < count; c += WARP) sum += exp(z[c] - largest);
  const T logarithm = log(warp_sum(sum));
  if (inside) {
    const long long target = targets[sample];
    const double weight = class_weights ? class_weights[target] : 1.0;
    for (int c = lane; c < count; c += WARP) {
      const T p = (z[c] - largest) - logarithm;
      if (c == target) loss = -weight * double(p) / double(n);
      gradient[sample * n_classes + c] = (exp(p) - (c == target ? T(1) : T(0))) * T(weight) / T(n);
    }
  }
  loss = block_sum(loss);
  if (threadIdx.x == 0) losses[blockIdx.x] = loss;
}

// instance: squared_error<float> registers 40
// instance: squared_error<double> registers 56
template <typename T>
__global__ void squared_error(const T* __restrict__ outputs, const T* __restrict__ targets, const long long size,
                              const long long n, T* __restrict__ gradient, double* __restrict__ losses) {
  const long long step = (long long)gridDim.x * blockDim.x;
  double loss = 0.0;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    const T error = outputs[i] - targets[i];
    gradient[i] = error / T(n);
    loss += double(error) * double(error);
  }
  loss = block_sum(loss);
  if (threadIdx.x == 0) losses[blockIdx.x] = 0.5 * loss / double(n);
}
