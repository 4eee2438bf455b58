// ISTA and FISTA for rows of signals, a warp a row. Matrix products are made by the driver in between.
//
// Codes are dense rows z. Images h of codes (z D, or z G) are linear in them, so the image of the extrapolated point
// y = z + momentum (z - before) is made of two images, and y itself is never stored: a step reads correlations, z and
// what was before it, and writes the new codes over the latter. Numbers of a row (momentum, status ...) are found under
// its number in the tile, rows[i], also after rows that are done have been left out. Atoms count `scale` times a row.

#define RUNNING 2        // status while a row is at work
#define FROM_RESIDUAL 0  // `products` are correlations with the residual
#define FROM_IMAGE 1     // `products` are minus those of the image: Q is missing
#define FROM_GRAM 2      // `products` are z G, and `before` those of the codes before

// Correlations with the residual at the point z + momentum (z - before).
template <typename T, int FORM>
__device__ __forceinline__ Pack<T> correlations_of(const T* products, const T* old, const T* q, const T momentum,
                                                   const T scale) {
  Pack<T> c = load_pack(products);
  if (FORM != FROM_GRAM) {
#pragma unroll
    for (int u = 0; u < Pack<T>::size; ++u) c.item[u] *= scale;
  }
  if (FORM == FROM_IMAGE) {
    const Pack<T> own = load_pack(q);
#pragma unroll
    for (int u = 0; u < Pack<T>::size; ++u) c.item[u] += own.item[u];
  }
  if (FORM == FROM_GRAM) {
    const Pack<T> own = load_pack(q);
    Pack<T> image = c;
    if (momentum != T(0)) {
      const Pack<T> before = load_pack(old);
#pragma unroll
      for (int u = 0; u < Pack<T>::size; ++u) image.item[u] += momentum * (c.item[u] - before.item[u]);
    }
#pragma unroll
    for (int u = 0; u < Pack<T>::size; ++u) c.item[u] = own.item[u] - image.item[u];
  }
  return c;
}

// Codes to start from as dense rows, and the numbers that belong to a row.
// instance: start<float> registers 64
// instance: start<double> registers 64
template <typename T>
__global__ void __launch_bounds__(256, 4) start(const T* __restrict__ Q, const T* __restrict__ weights,
                                                const T* __restrict__ alpha, const bool positive, const T rounding,
                                                const int* __restrict__ indices, const T* __restrict__ values,
                                                const int* __restrict__ counts, const int capacity, const int n_rows,
                                                const int n_atoms, T* __restrict__ z, T* __restrict__ momentum,
                                                double* __restrict__ t_now, T* __restrict__ floors,
                                                double* __restrict__ lowest, int* __restrict__ lowest_at,
                                                int* __restrict__ rows, signed char* __restrict__ status) {
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  for (int i = blockIdx.x * warps + threadIdx.x / WARP; i < n_rows; i += gridDim.x * warps) {
    const long long first = (long long)i * n_atoms;
    T largest = alpha[i];
    for (int k = lane; k < n_atoms; k += WARP) {
      T size = magnitude(Q[first + k]);
      if (weights) size = size / weights[first + k];
      largest = size > largest ? size : largest;
      z[first + k] = T(0);
    }
    largest = warp_max(largest);
    __syncwarp();
    for (int a = lane; a < counts[i]; a += WARP) {
      const T value = values[(long long)i * capacity + a];
      z[first + indices[(long long)i * capacity + a]] = positive && value < T(0) ? T(0) : value;
    }
    if (lane == 0) {
      momentum[i] = T(0);
      t_now[i] = 1;
      floors[i] = rounding * largest;
      lowest[i] = 1e300;
      lowest_at[i] = 0;
      rows[i] = i;
      status[i] = RUNNING;
    }
  }
}

// What is left of the signals at the extrapolated points, or at the codes, where it is observed.
// instance: residuals<float> registers 56
// instance: residuals<double> registers 64
template <typename T>
__global__ void __launch_bounds__(256, 4) residuals(const T* __restrict__ signals, const bool* __restrict__ missing,
                                                    const T* __restrict__ h, const T* __restrict__ before,
                                                    const T* __restrict__ momentum, const T* __restrict__ scales,
                                                    const int* __restrict__ rows, const bool extrapolated,
                                                    const int n_rows, const int n_features, T* __restrict__ out) {
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  for (int i = blockIdx.x * warps + threadIdx.x / WARP; i < n_rows; i += gridDim.x * warps) {
    const long long own = (long long)i * n_features, row = (long long)rows[i] * n_features;
    const T m = extrapolated ? momentum[rows[i]] : T(0), scale = scales ? scales[rows[i]] : T(1);
    for (int n = lane; n < n_features; n += WARP) {
      T image = h[own + n];
      if (m != T(0)) image += m * (image - before[own + n]);
      image *= scale;
      const T rest = signals ? signals[row + n] - image : -image;
      out[own + n] = missing && missing[row + n] ? T(0) : rest;
    }
  }
}

// One step from the extrapolated point, written over `before`; then the momentum for the next one, which is dropped
// where it points uphill. With WIDE > 0, for up to 32 WIDE features, the image of the new codes is summed over their
// non-zeros (into `next_image`) while they are at hand, and what is left of the signals at the next extrapolated point
// with it: where codes are sparse that saves a product and a pass over them.
// instance: step<float, 0, 0> registers 80
// instance: step<double, 0, 0> registers 80
// instance: step<float, 1, 0> registers 80
// instance: step<double, 1, 0> registers 80
// instance: step<float, 2, 0> registers 80
// instance: step<double, 2, 0> registers 80
// instance: step<float, 0, 2> registers 80
// instance: step<double, 0, 2> registers 80
// instance: step<float, 0, 8> registers 80
// instance: step<double, 0, 8> registers 80
template <typename T, int FORM, int WIDE>
__global__ void __launch_bounds__(256, 3) step(const T* __restrict__ products, const T* __restrict__ old_products,
                                               const T* __restrict__ Q, const T* __restrict__ z, T* before,
                                               const T* __restrict__ weights, const T* __restrict__ ridge,
                                               const T* __restrict__ alpha, const T* __restrict__ lengths,
                                               const T* __restrict__ scales, const int* __restrict__ rows,
                                               const signed char* __restrict__ status,
                                               const bool positive, const bool accelerated, const int n_rows,
                                               const int n_atoms, T* __restrict__ momentum, double* __restrict__ t_now,
                                               const T* __restrict__ atoms, const T* __restrict__ signals,
                                               const T* __restrict__ image, const int n_features,
                                               T* __restrict__ next_image, T* __restrict__ rest) {
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP, size = Pack<T>::size;
  for (int i = blockIdx.x * warps + threadIdx.x / WARP; i < n_rows; i += gridDim.x * warps) {
    const int row = rows[i];
    if (status[row] != RUNNING) continue;
    const long long own = (long long)i * n_atoms, home = (long long)row * n_atoms;
    const T m = momentum[row], length = lengths[row], threshold = length * alpha[row];
    const T scale = scales ? scales[row] : T(1);
    T uphill = T(0), h[WIDE ? WIDE : 1];
#pragma unroll
    for (int j = 0; j < WIDE; ++j) h[j] = T(0);
    for (int first = 0; first < n_atoms; first += WARP * size) {
      const int k = first + lane * size;
      Pack<T> next;
#pragma unroll
      for (int u = 0; u < size; ++u) next.item[u] = T(0);
      if (k < n_atoms) {
        const Pack<T> here = load_pack(z + own + k);
        const Pack<T> c = correlations_of<T, FORM>(products + own + k, old_products + own + k, Q + home + k, m, scale);
        Pack<T> y = here, level, quadratic;
        if (m != T(0)) {
          const Pack<T> old = load_pack(before + own + k);
#pragma unroll
          for (int u = 0; u < size; ++u) y.item[u] += m * (here.item[u] - old.item[u]);
        }
        if (weights) level = load_pack(weights + home + k);
        if (ridge) quadratic = load_pack(ridge + k);
#pragma unroll
        for (int u = 0; u < size; ++u) {
          T slope = c.item[u];
          if (ridge) slope -= scale * scale * quadratic.item[u] * y.item[u];
          T value = y.item[u] + length * slope;
          if (positive && value < T(0)) value = T(0);
          value = soft_threshold(value, weights ? threshold * level.item[u] : threshold);
          uphill += (y.item[u] - value) * (value - here.item[u]);
          next.item[u] = value;
        }
        store_pack(before + own + k, next);
      }
      if (WIDE) {
#pragma unroll
        for (int u = 0; u < size; ++u) {
          unsigned there = __ballot_sync(FULL, next.item[u] != T(0));
          while (there) {
            const int from = __ffs(there) - 1;
            there &= there - 1;
            const T w = __shfl_sync(FULL, next.item[u], from);
            const T* atom = atoms + (long long)(first + from * size + u) * n_features;
#pragma unroll
            for (int j = 0; j < WIDE; ++j) {
              const int n = lane + j * WARP;
              if (n < n_features) h[j] += w * atom[n];
            }
          }
        }
      }
    }
    uphill = warp_sum(uphill);
    const double t_old = uphill > T(0) ? 1.0 : t_now[row], t = 0.5 * (1 + sqrt(1 + 4 * t_old * t_old));
    const T ahead = accelerated ? T((t_old - 1) / t) : T(0);
    __syncwarp();  // all have read what belongs to the row
    if (lane == 0) {
      t_now[row] = t;
      momentum[row] = ahead;
    }
#pragma unroll
    for (int j = 0; j < WIDE; ++j) {
      const int n = lane + j * WARP;
      const long long at = (long long)i * n_features + n;
      if (n < n_features) {
        next_image[at] = h[j];
        rest[at] = signals[(long long)row * n_features + n] - (h[j] + ahead * (h[j] - image[at]));
      }
    }
  }
}

// Duality gaps of the codes; who is done, and leaves with its non-zeros in the order of the atoms.
// instance: judge<float, 0> registers 80
// instance: judge<double, 0> registers 80
// instance: judge<float, 1> registers 80
// instance: judge<double, 1> registers 80
// instance: judge<float, 2> registers 80
// instance: judge<double, 2> registers 80
template <typename T, int FORM>
__global__ void __launch_bounds__(256, 3) judge(const T* __restrict__ products, const T* __restrict__ Q,
                                                const T* __restrict__ z, const T* __restrict__ weights,
                                                const T* __restrict__ ridge, const T* __restrict__ alpha,
                                                const double* __restrict__ norms2, const T* __restrict__ floors,
                                                const T* __restrict__ scales,
                                                const int* __restrict__ rows, const double tol, const bool positive,
                                                const int rounds, const bool last, const int idle, const int n_rows,
                                                const int n_atoms, const int capacity, double* __restrict__ lowest,
                                                int* __restrict__ lowest_at, int* __restrict__ indices,
                                                T* __restrict__ values, int* __restrict__ counts,
                                                double* __restrict__ gaps, int* __restrict__ iterations,
                                                signed char* __restrict__ status, int* __restrict__ running) {
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  for (int i = blockIdx.x * warps + threadIdx.x / WARP; i < n_rows; i += gridDim.x * warps) {
    const int row = rows[i];
    if (status[row] != RUNNING) continue;
    const long long own = (long long)i * n_atoms, home = (long long)row * n_atoms;
    const T penalty = alpha[row], scale = scales ? scales[row] : T(1);
    double fit = 0, size = 0, product = 0;
    T top = T(0), breach = T(0);
    int count = 0;
    for (int k = lane; k < n_atoms; k += WARP) {
      const T w = z[own + k], weight = weights ? weights[home + k] : T(1);
      T g = FORM == FROM_GRAM ? products[own + k] : scale * products[own + k];
      if (FORM == FROM_IMAGE) g += Q[home + k];
      if (FORM == FROM_GRAM) g = Q[home + k] - g;
      if (ridge) g -= scale * scale * ridge[k] * w;
      T height = positive ? g : magnitude(g);
      if (weights) height = height / weight;
      top = height > top ? height : top;
      if (w != T(0)) {
        ++count;
        fit += (double)w * ((double)Q[home + k] + (double)g);
        size += (double)magnitude(w) * (double)weight;
        product += (double)w * (double)g;
        const T off = magnitude((weights ? g / weight : g) - (w > T(0) ? penalty : -penalty));
        breach = off > breach ? off : breach;
      }
    }
    fit = warp_sum(fit);
    size = warp_sum(size);
    product = warp_sum(product);
    top = warp_max(top);
    breach = warp_max(breach);
    count = warp_sum(count);
    breach = top - penalty > breach ? top - penalty : breach;
    const double feasible = top <= penalty ? 1.0 : (double)penalty / (double)top;
    const double residual2 = norms2[row] - fit, rest = penalty * size - feasible * product;
    const double gap = 0.5 * (1 - feasible) * (1 - feasible) * (residual2 > 0 ? residual2 : 0) + (rest > 0 ? rest : 0);
    const bool lower = gap < lowest[row];
    const int since = lower ? rounds : lowest_at[row];
    __syncwarp();
    const T floor = floors[row];
    bool done = gap <= tol * 0.5 * norms2[row] || breach <= floor || (breach <= 3 * floor && rounds - since >= idle);
    done = done && count <= capacity;
    if (lane == 0 && lower) {
      lowest[row] = gap;
      lowest_at[row] = rounds;
    }
    if (lane == 0 && !done && !last) {
      atomicAdd(running, 1);
      atomicAdd(running + 1, count);
    }
    if (!done && !last) continue;
    int written = 0;
    for (int k = 0; k < n_atoms; k += WARP) {  // whole vectors of atoms: all lanes take part
      const T w = z[own + k + lane];
      const unsigned there = __ballot_sync(FULL, w != T(0));
      const int place = written + __popc(there & ((1u << lane) - 1));
      if (w != T(0) && place < capacity) {
        indices[(long long)row * capacity + place] = k + lane;
        values[(long long)row * capacity + place] = w;
      }
      written += __popc(there);
    }
    if (lane == 0) {
      counts[row] = written < capacity ? written : capacity;
      gaps[row] = written <= capacity ? gap : 1e300;
      iterations[row] = rounds;
      status[row] = done ? 0 : 1;
    }
  }
}
