// What a dense layer does beside its products: bias and activation behind x W, and their gradients before x^T dz.
#include "slices.cuh"

namespace bnengine {

// y = g(z + b); b (outputs,) may be null, y may be z.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2) bias_activation(PARAMETERS_bias_activation) {
  using A = Arithmetic<T>;
  const Slice<VEC> at(outputs);
  if (!at.inside) return;
  A bias[VEC];
#pragma unroll
  for (int v = 0; v < VEC; ++v) bias[v] = b ? b[at.channel + v] : A(0);
  for (index row = at.row; row < rows; row += at.step) {
    const index i = row * outputs + at.channel;
    Pack<T, VEC> values = load<VEC>(z + i);
#pragma unroll
    for (int v = 0; v < VEC; ++v) values.set(v, activate<G>(b ? values[v] + bias[v] : values[v], A(slope)));
    store<VEC>(y + i, values);
  }
}

// dz = dy g'(z) from y, and db = sum dz over the rows; either may be null, dz may be dy. Not for a derivative that reads z,
// which a dense layer does not keep.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2) bias_activation_backward(PARAMETERS_bias_activation_backward) {
  static_assert(!kNeedsZ<G>, "a dense layer keeps no z");
  using A = Arithmetic<T>;
  const Slice<VEC> at(outputs);
  Sums<1, VEC> seen;
  for (index begin = at.row; at.inside && begin < rows; begin += kHeld * at.step) {
    A held[VEC] = {};
#pragma unroll 4
    for (int k = 0; k < kHeld; ++k) {
      const index row = begin + k * at.step, i = row * outputs + at.channel;
      if (row >= rows) break;
      Pack<T, VEC> values = load<VEC>(dy + i), out = {};
      if (kNeedsY<G>) out = load<VEC>(y + i);
#pragma unroll
      for (int v = 0; v < VEC; ++v) {
        const A own = derivative<G>(values[v], out[v], A(0), A(slope));
        held[v] += own;
        values.set(v, own);
      }
      if (dz) store<VEC>(dz + i, values);
    }
#pragma unroll
    for (int v = 0; v < VEC; ++v) seen.of[v][0] += held[v];
  }
  if (db == nullptr) return;
  Total<1> sum = sum_block(seen, at);
  if (!sum_splits<1, VEC>(sum, partial, arrivals, outputs)) return;
  const index output = at.first_channel + thread_number();
  if (thread_number() < Slice<VEC>::kChannels && output < outputs)
    db[output] = A(sum[0]) + (adds_db ? db[output] : A(0));
}

}  // namespace bnengine
