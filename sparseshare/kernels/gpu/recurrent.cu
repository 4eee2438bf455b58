// Steps through time: the gates of an LSTM, and thresholds of what two products add up to.

// z holds tanh's arguments, of which those of the gates i, f and o are halved: sigmoid(z) = (1 + tanh(z / 2)) / 2.
// instance: lstm_step<float> registers 56
// instance: lstm_step<double> registers 48
template <typename T>
__global__ void lstm_step(T* __restrict__ gates, const T* __restrict__ before, T* __restrict__ memory,
                          T* __restrict__ shown, T* __restrict__ seen, const int n_units, const int first,
                          const long long size) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x; p < size; p += step) {
    const long long n = divide(p, n_units);
    const int k = int(p - n * n_units);
    T* row = gates + n * 4 * n_units + k;
    const T i = T(0.5) * tanh(row[0]) + T(0.5), f = T(0.5) * tanh(row[n_units]) + T(0.5);
    const T g = tanh(row[2 * n_units]), o = T(0.5) * tanh(row[3 * n_units]) + T(0.5);
    const T c = (before ? f * before[p] : T(0)) + i * g, s = tanh(c);
    row[0] = i;
    row[n_units] = f;
    row[2 * n_units] = g;
    row[3 * n_units] = o;
    memory[p] = c;
    shown[p] = s;
    seen[n * (first + n_units) + first + k] = o * s;
  }
}

// `before` is null in the first step.
// instance: lstm_gradient<float> registers 40
// instance: lstm_gradient<double> registers 48
template <typename T>
__global__ void lstm_gradient(const T* __restrict__ dh, const T* __restrict__ gates, const T* __restrict__ before,
                              const T* __restrict__ shown, T* __restrict__ dc, T* __restrict__ dz, const int n_units,
                              const long long size) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x; p < size; p += step) {
    const long long n = divide(p, n_units), at = n * 4 * n_units + (p - n * n_units);
    const T i = gates[at], f = gates[at + n_units], g = gates[at + 2 * n_units], o = gates[at + 3 * n_units];
    const T s = shown[p], slope = dh[p];
    const T total = dc[p] + slope * o * (T(1) - s * s);
    dz[at] = total * g * i * (T(1) - i);
    dz[at + n_units] = (before ? total * before[p] : T(0)) * f * (T(1) - f);
    dz[at + 2 * n_units] = total * i * (T(1) - g * g);
    dz[at + 3 * n_units] = slope * s * o * (T(1) - o);
    dc[p] = total * f;
  }
}

// instance: add_and_threshold<float> registers 56
// instance: add_and_threshold<double> registers 56
template <typename T>
__global__ void add_and_threshold(T* __restrict__ z, const T* __restrict__ more, const T* __restrict__ thresholds,
                                  const bool positive, const int n_units, const long long size,
                                  int* __restrict__ counts) {
  const long long step = (long long)gridDim.x * blockDim.x;
  int count = 0;
  for (long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x; p < size; p += step) {
    const T v = z[p] + more[p], threshold = thresholds[p % n_units];
    T a = soft_threshold(v, threshold);
    if (positive && a < T(0)) a = T(0);
    if (v != v) a = v;
    z[p] = a;
    count += a != T(0);
  }
  leave_count(count, counts);
}
