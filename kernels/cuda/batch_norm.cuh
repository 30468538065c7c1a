// Shared by the forward and backward pass of batch normalization: stored statistics and the affine map of a channel.
//
// Statistics are three rows of doubles (count, mean, biased variance). Rows are `stride` elements apart, because one
// buffer holds the statistics of several layers as columns. gamma, beta and their gradients have the arithmetic type of
// the storage type T.
#pragma once
#include "slices.cuh"

namespace bnengine {

__device__ __forceinline__ Statistic read_statistic(const double* p, index stride) {
  return {p[0], p[stride], p[2 * stride]};
}
__device__ __forceinline__ void write_statistic(double* p, index stride, const Statistic& s) {
  p[0] = s.count, p[stride] = s.mean, p[2 * stride] = s.var;
}

// The affine map of one channel: mean (as a pair), inv_std, gamma and beta. One thread per channel computes it into
// shared memory, because its square root and division are in double and would be slow in every thread.
template <class A>
struct Affine {
  Center<A> center;
  A gamma, beta;
  __device__ __forceinline__ A operator()(A x_norm) const { return x_norm * gamma + beta; }
};

template <class A>
__device__ __forceinline__ Affine<A> affine_of(double mean, double var, double eps, const A* gamma, const A* beta,
                                               index channel) {
  return {center_of<A>(mean, var, eps), gamma ? gamma[channel] : A(1), beta ? beta[channel] : A(0)};
}

// Computes the affine maps of this block's channels from stored statistics; ends with a barrier.
template <class A, int VEC>
__device__ __forceinline__ void read_affine(Affine<A> (&shared)[Slice<VEC>::kChannels], const double* statistics,
                                            index stride, double eps, const A* gamma, const A* beta, index channels) {
  const int t = thread_number();
  const index channel = index(blockIdx.x) * Slice<VEC>::kChannels + t;
  if (t < Slice<VEC>::kChannels && channel < channels)
    shared[t] = affine_of(statistics[stride + channel], statistics[2 * stride + channel], eps, gamma, beta, channel);
  __syncthreads();
}

}  // namespace bnengine
