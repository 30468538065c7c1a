// Collects the rows of a micro-batch from a data set in device memory.
#include "common.cuh"

namespace bnengine {

// gather: row i of each output is row order[cursor[0] + offset + i] of its input; *divisor_out = divisors[cursor[1]].
//
// Flat grid, block (32, 8); a grid-stride loop for each array. A row has `features` elements of x, `targets` of target
// and `weighed` of weights; weights and weights_out may both be null. `cursor` is in device memory and count_step moves
// it, so a captured graph replays with new rows and the host copies nothing. Only x, the largest array, uses wide
// accesses.
template <class T, int VEC, class Y>
__global__ void __launch_bounds__(kThreads, 2) gather(PARAMETERS_gather) {
  const index* chosen = order + cursor[0] + offset;
  const index packs = features / VEC;
  for_each<1>(rows * packs, [&](auto, index i) {
    const index row = quotient(i, packs), feature = (i - row * packs) * VEC;
    store<VEC>(x_out + row * features + feature, load<VEC>(x + chosen[row] * features + feature));
  });
  for_each<1>(rows * targets, [&](auto, index i) {
    const index row = quotient(i, targets);
    target_out[i] = target[chosen[row] * targets + i - row * targets];
  });
  for_each<1>(weights ? rows * weighed : 0, [&](auto, index i) {
    const index row = quotient(i, weighed);
    weights_out[i] = weights[chosen[row] * weighed + i - row * weighed];
  });
  for_each<1>(rows, [&](auto, index i) {
    samples_out[i] = samples[chosen[i]];
    if (i == 0) *divisor_out = divisors[cursor[1]];
  });
}

}  // namespace bnengine
