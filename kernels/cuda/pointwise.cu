// Element by element over flat arrays: activations, sums, casts; and the gather of rows.
#include "common.cuh"

namespace bnengine {

template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2) activation(const T* x, T* y, index size, double slope) {
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<T, N> values = load<N>(x + i);
#pragma unroll
    for (int k = 0; k < N; ++k) values.set(k, activate<G>(values[k], Arithmetic<T>(slope)));
    store<N>(y + i, values);
  });
}

// x is read for gelu alone, y for the others.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2)
    activation_backward(const T* dy, const T* x, const T* y, T* dx, index size, double slope, bool adds) {
  constexpr bool kNeedsX = G == Activation::gelu, kNeedsY = !kNeedsX && G != Activation::identity;
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<T, N> values = load<N>(dy + i), in = {}, out = {};
    if (kNeedsX) in = load<N>(x + i);
    if (kNeedsY) out = load<N>(y + i);
#pragma unroll
    for (int k = 0; k < N; ++k) values.set(k, derivative<G>(values[k], out[k], in[k], Arithmetic<T>(slope)));
    store_or_add<N>(dx + i, values, adds);
  });
}

template <class T, int VEC>
__global__ void __launch_bounds__(kThreads, 2) total(const T* a, const T* b, T* out, index size, bool adds) {
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<T, N> sum = load<N>(a + i);
    const Pack<T, N> other = load<N>(b + i);
#pragma unroll
    for (int k = 0; k < N; ++k) sum.set(k, sum[k] + other[k]);
    store_or_add<N>(out + i, sum, adds);
  });
}

// VEC is that of the narrower type.
template <class S, class T, int VEC>
__global__ void __launch_bounds__(kThreads, 2) cast(const S* x, T* y, index size) {
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    const Pack<S, N> values = load<N>(x + i);
    Pack<T, N> out;
#pragma unroll
    for (int k = 0; k < N; ++k) out.set(k, Arithmetic<T>(values[k]));
    store<N>(y + i, out);
  });
}

// ---- rows of a data set

// Numbers that data come in, besides the storage types, are exact in double.
__device__ __forceinline__ double raw(double x) { return x; }
__device__ __forceinline__ double raw(__half x) { return __half2float(x); }
__device__ __forceinline__ double raw(__nv_bfloat16 x) { return __bfloat162float(x); }

// out[i] = (x[rows[i]] - mean) * inv_scale, in double; mean and inv_scale (features,) are both null for a plain cast, or
// copy. VEC is that of the wider type.
template <class S, class T, int VEC>
__global__ void __launch_bounds__(kThreads, 2)
    gather(const double* mean, const double* inv_scale, const S* x, const index* rows, T* out, index count,
           index features) {
  const index packs = features / VEC;
  for_each<1>(count * packs, [&](auto, index i) {
    const index row = quotient(i, packs), feature = (i - row * packs) * VEC;
    const Pack<S, VEC> values = load<VEC>(x + rows[row] * features + feature);
    Pack<T, VEC> scaled;
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      if constexpr (kSame<S, T>) scaled.element[k] = values.element[k];
      if (kSame<S, T> && !mean) continue;
      const double value = raw(values.element[k]);
      const double moved = mean ? (value - mean[feature + k]) * inv_scale[feature + k] : value;
      scaled.element[k] = stored<T>(Arithmetic<T>(moved));
    }
    store<VEC>(out + row * features + feature, scaled);
  });
}

}  // namespace bnengine
