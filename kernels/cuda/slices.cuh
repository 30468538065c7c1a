// How blocks share out (rows, channels) arrays where a result is one per channel.
//
// A grid is (slices of channels, splits of the rows). With VEC > 1 the channels are a multiple of VEC and rows are aligned
// to 16 bytes.
#pragma once
#include "common.cuh"

namespace bnengine {

constexpr int kHeld = 8;  // rows that a thread holds at once: a block about its own mean

// The part of x that a thread of a block sees: VEC channels of every `step`-th row. A warp reads 128 bytes of a row.
template <int VEC>
struct Slice {
  static constexpr int kAcross = VEC == 1 ? kLanes : 8, kRows = kLanes / kAcross, kChannels = kAcross * VEC;
  int in_slice, row_in_warp;
  index first_channel, channel, row, step;
  bool inside;

  __device__ __forceinline__ explicit Slice(index channels) {
    in_slice = int(threadIdx.x) % kAcross * VEC;
    row_in_warp = int(threadIdx.x) / kAcross;
    first_channel = index(blockIdx.x) * kChannels;
    channel = first_channel + in_slice;
    row = (index(blockIdx.y) * kWarps + threadIdx.y) * kRows + row_in_warp;
    step = index(gridDim.y) * kWarps * kRows;
    inside = channel < channels;
  }
};

// The next `kHeld` rows of this thread from `row` on; returns how many there were.
template <class T, int VEC>
__device__ __forceinline__ int fetch(Pack<T, VEC> (&held)[kHeld], const T* x, index row, index rows, index channels,
                                     const Slice<VEC>& at) {
  int n = 0;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const index r = row + k * at.step;
    if (r < rows) held[k] = load<VEC>(x + r * channels + at.channel), n = k + 1;
  }
  return n;
}

// Sums over rows, two a channel: dz and dz x_norm, say. In A over kHeld rows, in double beyond.
template <int VEC>
struct Sums {
  double dz[VEC] = {}, dz_x_norm[VEC] = {};
};

// Over all threads of a block, in a fixed order: channel `first_channel + thread_number()` in the first kChannels.
template <int VEC>
__device__ __forceinline__ double2 sum_block(const Sums<VEC>& seen, const Slice<VEC>& at) {
  using S = Slice<VEC>;
  __shared__ double2 of_warp[kWarps][S::kChannels];
#pragma unroll
  for (int v = 0; v < VEC; ++v) {
    double dz = seen.dz[v], dz_x_norm = seen.dz_x_norm[v];
#pragma unroll
    for (int distance = S::kAcross; distance < kLanes; distance *= 2) {
      dz += __shfl_down_sync(kAllLanes, dz, distance);
      dz_x_norm += __shfl_down_sync(kAllLanes, dz_x_norm, distance);
    }
    if (at.row_in_warp == 0) of_warp[threadIdx.y][at.in_slice + v] = make_double2(dz, dz_x_norm);
  }
  __syncthreads();
  double2 sum = make_double2(0, 0);
  if (thread_number() < S::kChannels)
    for (int w = 0; w < kWarps; ++w) {
      sum.x += of_warp[w][thread_number()].x;
      sum.y += of_warp[w][thread_number()].y;
    }
  return sum;
}

// Over all blocks of a slice; true in the last one of them. partial is (splits, 2, channels).
template <int VEC>
__device__ __forceinline__ bool sum_splits(double2& sum, double* partial, unsigned* arrivals, index channels) {
  constexpr int kChannels = Slice<VEC>::kChannels, kParallel = kThreads / kChannels;
  if (gridDim.y == 1) return true;
  const int in_slice = thread_number() % kChannels, lane = thread_number() / kChannels;
  const index channel = index(blockIdx.x) * kChannels + in_slice;
  const bool inside = channel < channels;
  if (inside && lane == 0) {
    double* p = partial + blockIdx.y * 2 * channels + channel;
    p[0] = sum.x, p[channels] = sum.y;
  }
  if (!last_to_arrive(arrivals + blockIdx.x, gridDim.y)) return false;
  __shared__ double2 of_lane[kParallel][kChannels];
  double2 some = make_double2(0, 0);
  for (index s = lane; inside && s < gridDim.y; s += kParallel) {
    const double* p = partial + s * 2 * channels + channel;
    some.x += __ldcg(p), some.y += __ldcg(p + channels);
  }
  of_lane[lane][in_slice] = some;
  __syncthreads();
  sum = make_double2(0, 0);
  for (int l = 0; l < kParallel && lane == 0; ++l) sum.x += of_lane[l][in_slice].x, sum.y += of_lane[l][in_slice].y;
  return true;
}

}  // namespace bnengine
