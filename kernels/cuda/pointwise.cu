// Elementwise operations on flat arrays of `size` elements: activations, sums, casts.
//
// All kernels have a flat grid of any size and blocks of (32, 8), read each input once and write each output once. VEC
// elements form one 16-byte access; the last size % VEC elements are processed singly.
#include "common.cuh"

namespace bnengine {

// activation: y = g(x).
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2) activation(PARAMETERS_activation) {
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<T, N> values = load<N>(x + i);
#pragma unroll
    for (int k = 0; k < N; ++k) values.set(k, activate<G>(values[k], Arithmetic<T>(slope)));
    store<N>(y + i, values);
  });
}

// activation_backward: dx = dy g'(x), stored or added. Reads only the one of x and y that the derivative needs.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2) activation_backward(PARAMETERS_activation_backward) {
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<T, N> values = load<N>(dy + i), in = {}, out = {};
    if (kNeedsZ<G>) in = load<N>(x + i);
    if (kNeedsY<G>) out = load<N>(y + i);
#pragma unroll
    for (int k = 0; k < N; ++k) values.set(k, derivative<G>(values[k], out[k], in[k], Arithmetic<T>(slope)));
    store_or_add<N>(dx + i, values, adds);
  });
}

// total: out = a + b, stored or added.
template <class T, int VEC>
__global__ void __launch_bounds__(kThreads, 2) total(PARAMETERS_total) {
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<T, N> sum = load<N>(a + i);
    const Pack<T, N> other = load<N>(b + i);
#pragma unroll
    for (int k = 0; k < N; ++k) sum.set(k, sum[k] + other[k]);
    store_or_add<N>(out + i, sum, adds);
  });
}

// cast: y = x, converted from S to T. VEC elements of the narrower type make 16 bytes; the wider type takes more
// accesses.
template <class S, class T, int VEC>
__global__ void __launch_bounds__(kThreads, 2) cast(PARAMETERS_cast) {
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    const Pack<S, N> values = load<N>(x + i);
    Pack<T, N> out;
#pragma unroll
    for (int k = 0; k < N; ++k) out.set(k, Arithmetic<T>(values[k]));
    store<N>(y + i, out);
  });
}

}  // namespace bnengine
