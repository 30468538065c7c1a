// How blocks divide (rows, channels) arrays in kernels that work per channel, and sums per channel.
//
// The grid is (slices of channels, splits of the rows): blockIdx.x selects kChannels neighboring channels, blockIdx.y
// an interleaved part of the rows. VEC > 1 requires that channels is a multiple of VEC and that rows are aligned to 16
// bytes.
#pragma once
#include "common.cuh"

namespace bnengine {

// Rows that a thread loads into registers at once, and whose sums it computes in A before it continues in double.
constexpr int kHeld = 8;

// The elements of one thread: channels [channel, channel + VEC) of rows `row`, row + step, ... A warp reads 8 packs,
// 128 bytes, of each of 4 rows (with VEC = 1: 32 elements of one row), so that its accesses coalesce.
template <int VEC>
struct Slice {
  static constexpr int kAcross = VEC == 1 ? kLanes : 8, kRows = kLanes / kAcross, kChannels = kAcross * VEC,
                       kRounds = VEC == 1 ? 0 : 2;  // kRows = 2^kRounds
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

// Copies the entries of this thread's channels from an array per channel in shared memory.
template <int VEC, class C>
__device__ __forceinline__ void copy(C (&own)[VEC], const C* shared, const Slice<VEC>& at) {
#pragma unroll
  for (int v = 0; v < VEC; ++v)
    if (at.inside) own[v] = shared[at.in_slice + v];
}

// Loads the next kHeld rows of this thread, from `row` on; returns how many exist.
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

// COUNT sums over the rows for one channel. Callers add kHeld rows in A (fast) and accumulate those sums here in
// double.
template <int COUNT>
struct Total {
  double sum[COUNT] = {};
  __device__ __forceinline__ double& operator[](int i) { return sum[i]; }
  __device__ __forceinline__ const double& operator[](int i) const { return sum[i]; }
};

template <int COUNT, int VEC>
struct Sums {
  Total<COUNT> of[VEC];
};

// Sums over all threads of a block in a fixed order. Thread t < kChannels returns the sums of channel
// first_channel + t; the other threads return zeros.
template <int COUNT, int VEC>
__device__ __forceinline__ Total<COUNT> sum_block(const Sums<COUNT, VEC>& seen, const Slice<VEC>& at) {
  using S = Slice<VEC>;
  __shared__ double of_warp[kWarps][COUNT][S::kChannels];
#pragma unroll
  for (int v = 0; v < VEC; ++v)
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      double sum = seen.of[v][k];
#pragma unroll
      for (int distance = S::kAcross; distance < kLanes; distance *= 2)
        sum += __shfl_down_sync(kAllLanes, sum, distance);
      if (at.row_in_warp == 0) of_warp[threadIdx.y][k][at.in_slice + v] = sum;
    }
  __syncthreads();
  Total<COUNT> total;
  if (thread_number() < S::kChannels)
    for (int w = 0; w < kWarps; ++w)
      for (int k = 0; k < COUNT; ++k) total[k] += of_warp[w][k][thread_number()];
  return total;
}

// Sums over all blocks of a slice. Each block writes its sums to partial (splits, COUNT, channels); the last block to
// arrive reads them all and returns true with the result in `total`, the others return false.
template <int COUNT, int VEC>
__device__ __forceinline__ bool sum_splits(Total<COUNT>& total, double* partial, unsigned* arrivals, index channels) {
  constexpr int kChannels = Slice<VEC>::kChannels, kParallel = kThreads / kChannels;
  if (gridDim.y == 1) return true;
  const int in_slice = thread_number() % kChannels, lane = thread_number() / kChannels;
  const index channel = index(blockIdx.x) * kChannels + in_slice;
  const bool inside = channel < channels;
  for (int k = 0; k < COUNT && inside && lane == 0; ++k)
    partial[(index(blockIdx.y) * COUNT + k) * channels + channel] = total[k];
  if (!last_to_arrive(arrivals + blockIdx.x, gridDim.y)) return false;
  __shared__ double of_lane[kParallel][COUNT][kChannels];
  Total<COUNT> some;
  for (index s = lane; inside && s < gridDim.y; s += kParallel)
    for (int k = 0; k < COUNT; ++k) some[k] += __ldcg(partial + (s * COUNT + k) * channels + channel);
  for (int k = 0; k < COUNT; ++k) of_lane[lane][k][in_slice] = some[k];
  __syncthreads();
  total = {};
  for (int l = 0; l < kParallel && lane == 0; ++l)
    for (int k = 0; k < COUNT; ++k) total[k] += of_lane[l][k][in_slice];
  return true;
}

}  // namespace bnengine
