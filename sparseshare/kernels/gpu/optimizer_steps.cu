// Steps of optimizers: all parameters of a network in one launch.
//
// A parameter is a row of eight integers in `table` (addresses of values, gradient, first and second state, uses; number
// of values; parts that the gradient is the sum of; flags) and one of three numbers in `factors` (factor of the rate, its
// own l1 and l2 penalty). A block works on VALUES values of one of them.
#define VALUES 1024
#define NONNEGATIVE 1
#define PENALISED 2

// instance: fused_step<float, 0> registers 48
// instance: fused_step<float, 1> registers 64
// instance: fused_step<float, 2> registers 64
// instance: fused_step<double, 0> registers 56
// instance: fused_step<double, 1> registers 64
// instance: fused_step<double, 2> registers 64
template <typename T, int KIND>
__global__ void fused_step(const long long* __restrict__ table, const double* __restrict__ factors, const double rate,
                           const double l1, const double l2, const double decay1, const double decay2,
                           const double epsilon) {
  long long chunk = blockIdx.x;
  const long long* row = table;
  for (long long n; chunk >= (n = (row[5] + VALUES - 1) / VALUES); row += 8) chunk -= n;
  const double* factor = factors + 3 * ((row - table) / 8);
  T* values = reinterpret_cast<T*>(row[0]);
  const T* gradient = reinterpret_cast<const T*>(row[1]);
  T* first = reinterpret_cast<T*>(row[2]);
  T* second = reinterpret_cast<T*>(row[3]);
  const long long* uses = reinterpret_cast<const long long*>(row[4]);
  const long long size = row[5], parts = row[6], flags = row[7];
  const T by_l1 = T(flags & PENALISED ? l1 + factor[1] : 0.0), by_l2 = T(flags & PENALISED ? l2 + factor[2] : 0.0);
  const T scaled = T(KIND == 2 ? rate : rate * factor[0]), a = T(decay1), b = T(decay2), e = T(epsilon);
  const long long end = min(size, (chunk + 1) * VALUES);
  for (long long i = chunk * VALUES + threadIdx.x; i < end; i += blockDim.x) {
    const T value = values[i];
    T g = T(0);
    for (long long part = 0; part < parts; ++part) g += gradient[part * size + i];
    const T times = uses ? T(uses[i]) : T(1);
    g += times * (by_l2 * value + (value > T(0) ? by_l1 : value < T(0) ? -by_l1 : T(0)));
    T moved;
    if (KIND == 0) {
      moved = value - scaled * g;
    } else if (KIND == 1) {
      const T velocity = a * first[i] - scaled * g;
      first[i] = velocity;
      moved = value + velocity;
    } else {
      const T m = a * first[i] + (T(1) - a) * g, v = b * second[i] + (T(1) - b) * g * g;
      first[i] = m;
      second[i] = v;
      moved = value - scaled * m / (sqrt(v) + e);
    }
    values[i] = flags & NONNEGATIVE && moved < T(0) ? T(0) : moved;
  }
}
