// Elementwise parts of a dense layer: bias and activation after the product z = x W, and their gradients before the
// products of the backward pass. All matrices are (rows, outputs) in T.
#include "slices.cuh"

namespace bnengine {

// bias_activation: y = g(z + b). b (outputs,) may be null, y may be z.
//
// Grid (slices of outputs, splits of the rows), block (32, 8); blocks are independent. A thread keeps the biases of its
// VEC outputs in registers while it goes down its rows, so b is read once per thread.
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

// bias_activation_backward: dz = dy g'(z) from y, and db = sum dz over the rows. Either may be null, dz may be dy.
//
// Grid (slices of outputs, splits of the rows), block (32, 8). Reads dy (and y) once for both results. Splits meet in
// partial and arrivals; the last block of a slice writes db. Activations whose derivative needs z are excluded, because
// a dense layer does not store z.
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
