// Dropout. The mask is Philox of (seed, layer, step, the sample's index in the data set, feature). It does not depend
// on the position in the batch or on the grid, so splitting or reordering a batch keeps the same mask.
#include "common.cuh"

namespace bnengine {

// dropout: y = keep ? x / (1 - rate) : 0, and the mask `keep` for the backward pass; all are (rows, features).
//
// Flat grid, block (32, 8). Each thread takes four features of a sample at a time, because one Philox counter yields
// four words. VEC is 4, or 1 if features is not a multiple of 4 or the rows are not aligned. An element is kept if its
// word is at least threshold = rate 2^32.
template <class T, int VEC>
__global__ void __launch_bounds__(kThreads, 2) dropout(PARAMETERS_dropout) {
  constexpr int kFeatures = 4;
  const index blocks = (features + kFeatures - 1) / kFeatures;
  const Arithmetic<T> kept_share = Arithmetic<T>(1 - rate);
  for_each<1>(rows * blocks, [&](auto, index i) {
    const index row = quotient(i, blocks), block = i - row * blocks, first = row * features + block * kFeatures;
    const Words random = philox({{unsigned(block), unsigned(samples[row]), unsigned(*step), unsigned(layer)}},
                                unsigned(seed_low), unsigned(seed_high));
#pragma unroll
    for (int j = 0; j < kFeatures; j += VEC) {
      if (block * kFeatures + j >= features) break;
      Pack<T, VEC> values = load<VEC>(x + first + j);
      Pack<bool, VEC> kept;
#pragma unroll
      for (int k = 0; k < VEC; ++k) {
        kept.element[k] = index(random.word[j + k]) >= threshold;
        values.set(k, kept.element[k] ? values[k] / kept_share : Arithmetic<T>(0));
      }
      store<VEC>(y + first + j, values);
      store<VEC>(keep + first + j, kept);
    }
  });
}

// dropout_backward: dx = keep ? dy / (1 - rate) : 0, stored or added. Flat grid, block (32, 8); reads the stored mask.
template <class T, int VEC>
__global__ void __launch_bounds__(kThreads, 2) dropout_backward(PARAMETERS_dropout_backward) {
  const Arithmetic<T> kept_share = Arithmetic<T>(1 - rate);
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<T, N> values = load<N>(dy + i);
    const Pack<bool, N> kept = load<N>(keep + i);
#pragma unroll
    for (int k = 0; k < N; ++k) values.set(k, kept.element[k] ? values[k] / kept_share : Arithmetic<T>(0));
    store_or_add<N>(dx + i, values, adds);
  });
}

}  // namespace bnengine
