// Batch normalization: batch statistics, forward pass, running statistics. x, y and add are (rows, channels) in T.
//
// `batch_norm` does everything in one launch if a slice of channels fits into shared memory and the rows need hardly be
// split; otherwise `moments` and then `normalize` run. `commit` and `merge_statistics` combine statistics.
#include "batch_norm.cuh"

namespace bnengine {

// ---- statistics

// Accumulates the rows of one thread: their count and, in double, the sums of d and d^2, where d is the difference from
// the thread's first row. That row is a sample of the data, so little cancels, and double has 29 bits more than float.
// Both sums are scaled by 1 / kHeld because a block then adds its mean without a multiplication.
template <class T, int VEC>
struct Gathered {
  Pack<T, VEC> from;
  double count = 0, sum[VEC] = {}, squares[VEC] = {};

  __device__ __forceinline__ Gathered(const T*, index, index, const Slice<VEC>&) {}

  // Adds kHeld rows with float sums. Returns false if the squares may have underflowed or overflowed, or are NaN: the
  // caller then repeats all rows with add_row, in double.
  __device__ __forceinline__ bool add_block(const Pack<T, VEC> (&held)[kHeld]) {
    constexpr float kShare = 1.0f / kHeld;
    bool trusted = true;
    if (count == 0) from = held[0];
    count += kHeld;
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
      float x[kHeld];
#pragma unroll
      for (int k = 0; k < kHeld; ++k) x[k] = held[k][v];
      const Block<float> block = block_of(x);
      const double d = (block.pivot - from[v]) + block.shift;
      sum[v] += d, squares[v] += block.squares * kShare, squares[v] += d * d;
      trusted &= block.squares > 1e-29f && block.squares < 1e30f;
    }
    return trusted;
  }

  __device__ __forceinline__ void add_row(const Pack<T, VEC>& row) {
    if (count == 0) from = row;
    count += 1;
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
      const double d = row[v] - double(from[v]), part = d * (1.0 / kHeld);
      sum[v] += part, squares[v] += d * part;
    }
  }

  __device__ __forceinline__ Moment moment(int v, double inverse) const {
    if (count == 0) return {};
    const double shift = sum[v] * kHeld * inverse, rest = (squares[v] - sum[v] * shift) * kHeld;
    return {count, from[v] + shift, rest < 0 ? 0.0 : rest};
  }
};

// For doubles no wider type is at hand. Therefore a pivot of the channel's magnitude is subtracted first (the median of
// three rows, because a single row may be an outlier), and blocks are merged one by one. Other types use pivot 0.
__device__ __forceinline__ double pivot_of(const double* x, index rows, index channels, index channel) {
  return median(x[channel], x[rows / 2 * channels + channel], x[(rows - 1) * channels + channel]);
}
template <class T>
__device__ __forceinline__ double pivot_of(const T*, index, index, index) {
  return 0;
}

template <int VEC>
struct Gathered<double, VEC> {
  Moment of[VEC] = {};
  double pivot[VEC] = {}, count = 0;

  __device__ __forceinline__ Gathered(const double* x, index rows, index channels, const Slice<VEC>& at) {
#pragma unroll
    for (int v = 0; v < VEC; ++v)
      if (at.inside) pivot[v] = pivot_of(x, rows, channels, at.channel + v);
  }

  __device__ __forceinline__ bool add_block(const Pack<double, VEC> (&held)[kHeld]) {
    count += kHeld;
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
      double x[kHeld];
#pragma unroll
      for (int k = 0; k < kHeld; ++k) x[k] = held[k][v] - pivot[v];
      const Block<double> block = block_of(x);
      merge(of[v], {double(kHeld), block.pivot + block.shift, block.squares}, kHeld / count);
    }
    return true;
  }

  __device__ __forceinline__ void add_row(const Pack<double, VEC>& row) {
    count += 1;
#pragma unroll
    for (int v = 0; v < VEC; ++v) merge(of[v], {1, row[v] - pivot[v], 0}, 1 / count);
  }

  __device__ __forceinline__ Moment moment(int v, double) const { return of[v]; }
};

// Accumulates all rows of this thread and calls keep(row, x) for each. If a float sum was out of range, starts again
// and adds row by row in double.
template <class T, int VEC, class Keep>
__device__ __forceinline__ Gathered<T, VEC> gather_rows(const T* x, index rows, index channels, const Slice<VEC>& at,
                                                        Keep keep) {
  for (bool in_blocks = true;; in_blocks = false) {
    Gathered<T, VEC> seen(x, rows, channels, at);
    bool trusted = true;
    for (index row = at.row; at.inside && row < rows; row += kHeld * at.step) {
      Pack<T, VEC> held[kHeld];
      const int n = fetch(held, x, row, rows, channels, at);
#pragma unroll
      for (int k = 0; k < kHeld; ++k)
        if (k < n) keep(row + k * at.step, held[k]);
      if (in_blocks && n == kHeld) {
        trusted &= seen.add_block(held);
      } else {
#pragma unroll
        for (int k = 0; k < kHeld; ++k)
          if (k < n) seen.add_row(held[k]);
      }
    }
    if (trusted) return seen;
  }
}

// Merges the COUNT moments get(0), get(1), ... in two passes, which need one division instead of one per merge.
template <int COUNT, class Get>
__device__ __forceinline__ Moment united(Get get) {
  const double from = get(0).mean;
  double count = 0, sum = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const Moment m = get(i);
    count += m.count, sum += m.count * (m.mean - from);
  }
  const double shift = count > 0 ? sum / count : 0.0;
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const Moment m = get(i);
    const double d = (m.mean - from) - shift;
    squares += m.squares + m.count * d * d;
  }
  return {count, from + shift, squares};
}

// Merges the moments of all threads of a block in a fixed order. Thread t < kChannels returns the moment of channel
// first_channel + t; the other threads return zeros.
template <class T, int VEC>
__device__ __forceinline__ Moment merge_block(const Gathered<T, VEC>& seen, const Slice<VEC>& at) {
  using S = Slice<VEC>;
  __shared__ Moment of_warp[kWarps][S::kChannels];
  const double inverse = seen.count > 0 ? 1 / seen.count : 0.0;
  double count[S::kRounds + 1] = {seen.count}, share[S::kRounds + 1];
#pragma unroll
  for (int r = 0; r < S::kRounds; ++r) {  // counts do not depend on the channel: one division serves all
    const double other = __shfl_down_sync(kAllLanes, count[r], S::kAcross << r);
    count[r + 1] = count[r] + other;
    share[r] = other > 0 ? other / count[r + 1] : 0.0;
  }
#pragma unroll
  for (int v = 0; v < VEC; ++v) {
    Moment m = seen.moment(v, inverse);
#pragma unroll
    for (int r = 0; r < S::kRounds; ++r) {
      m.count = count[r];
      const Moment other = {count[r + 1] - count[r], __shfl_down_sync(kAllLanes, m.mean, S::kAcross << r),
                            __shfl_down_sync(kAllLanes, m.squares, S::kAcross << r)};
      if (other.count > 0) merge(m, other, share[r]);
    }
    m.count = count[S::kRounds];
    if (at.row_in_warp == 0) of_warp[threadIdx.y][at.in_slice + v] = m;
  }
  __syncthreads();
  const int t = thread_number();
  if (t >= S::kChannels) return {};
  return united<kWarps>([&](int w) { return of_warp[w][t]; });
}

// Merges the moments of all blocks of a slice. Each block writes its moments to partial (splits, 3, channels); the last
// block to arrive reads them all and returns true with the result in `mine`, the others return false. It computes the
// mean first and then the squares about it, because a chain of pairwise merges would wait for a division at each link.
template <int VEC>
__device__ __forceinline__ bool merge_splits(Moment& mine, double* partial, unsigned* arrivals, index channels) {
  constexpr int kChannels = Slice<VEC>::kChannels, kParallel = kThreads / kChannels;
  if (gridDim.y == 1) return true;
  const int in_slice = thread_number() % kChannels, lane = thread_number() / kChannels;
  const index channel = index(blockIdx.x) * kChannels + in_slice;
  const bool inside = channel < channels;
  if (inside && lane == 0) {
    double* p = partial + blockIdx.y * 3 * channels + channel;
    p[0] = mine.count, p[channels] = mine.mean, p[2 * channels] = mine.squares;
  }
  if (!last_to_arrive(arrivals + blockIdx.x, gridDim.y)) return false;
  __shared__ double of_lane[3][kParallel][kChannels];
  const index splits = inside ? gridDim.y : 0;
  const double from = inside ? __ldcg(partial + channels + channel) : 0.0;
  double count = 0, sum = 0, squares = 0;
#pragma unroll 4
  for (index s = lane; s < splits; s += kParallel) {
    const double* p = partial + s * 3 * channels + channel;
    const double n = __ldcg(p);
    count += n, sum += n * (__ldcg(p + channels) - from);
  }
  of_lane[0][lane][in_slice] = count, of_lane[1][lane][in_slice] = sum;
  __syncthreads();
  count = 0, sum = 0;
#pragma unroll
  for (int l = 0; l < kParallel; ++l) count += of_lane[0][l][in_slice], sum += of_lane[1][l][in_slice];
  const double shift = sum / count;
#pragma unroll 4
  for (index s = lane; s < splits; s += kParallel) {
    const double* p = partial + s * 3 * channels + channel;
    const double d = (__ldcg(p + channels) - from) - shift;
    squares += __ldcg(p + 2 * channels) + __ldcg(p) * d * d;
  }
  of_lane[2][lane][in_slice] = squares;
  __syncthreads();
  squares = 0;
#pragma unroll
  for (int l = 0; l < kParallel; ++l) squares += of_lane[2][l][in_slice];
  mine = {count, from + shift, squares};
  return true;
}

// Writes the statistics of this batch, and stores them as the pending statistics (`adds`: merges them into those). The
// pending statistics become part of the running ones in `commit`; the pointer may be null.
__device__ __forceinline__ void write_moment(const Moment& mine, index channel, index channels, double* batch,
                                             double* pending, index stride, bool adds) {
  const Statistic own = statistic_of(mine);
  write_statistic(batch + channel, channels, own);
  if (pending == nullptr) return;
  write_statistic(pending + channel, stride, adds ? merged(read_statistic(pending + channel, stride), own) : own);
}

// moments: batch (3, channels) = count, mean and biased variance of each channel of x.
//
// Grid (slices of channels, splits of the rows), block (32, 8). Reads x once, in blocks of kHeld rows per thread.
// Splits meet in partial and arrivals, and the last block of a slice writes the result: one launch, no floating-point
// atomics, so the same grid gives the same bits.
template <class T, int VEC>
__global__ void __launch_bounds__(kThreads, 2) moments(PARAMETERS_moments) {
  const Slice<VEC> at(channels);
  const auto seen = gather_rows(x, rows, channels, at, [](index, const Pack<T, VEC>&) {});
  Moment mine = merge_block(seen, at);
  if (!merge_splits<VEC>(mine, partial, arrivals, channels)) return;
  const index channel = at.first_channel + thread_number();
  if (thread_number() >= Slice<VEC>::kChannels || channel >= channels) return;
  mine.mean += pivot_of(x, rows, channels, channel);
  write_moment(mine, channel, channels, batch, pending, stride, adds);
}

// ---- normalization

// Normalizes VEC elements of one row and stores them: y = g(x_norm gamma + beta + add).
template <Activation G, class T, int VEC>
__device__ __forceinline__ void normalize_row(const Pack<T, VEC>& x, const Pack<T, VEC>& add, bool has_add,
                                              const Affine<Arithmetic<T>> (&of)[VEC], Arithmetic<T> slope, T* y) {
  Pack<T, VEC> out;
#pragma unroll
  for (int v = 0; v < VEC; ++v) {
    Arithmetic<T> z = of[v](of[v].center.normalized(x[v]));
    if (has_add) z += add[v];
    out.set(v, activate<G>(z, slope));
  }
  store<VEC>(y, out);
}

// normalize: y = g((x - mean) inv_std gamma + beta + add) with given statistics; gamma, beta and add may be null.
//
// Grid (slices of channels, splits of the rows), block (32, 8); blocks are independent. Each block first puts the
// affine maps of its channels into shared memory, then reads x (and add) and writes y once. Rows run from last to
// first, because the kernel before (moments or a matrix product) has left the last rows of x in the cache.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2) normalize(PARAMETERS_normalize) {
  using A = Arithmetic<T>;
  constexpr int kAhead = VEC == 8 ? 3 : 2;  // rows that a thread loads before it uses the first
  __shared__ Affine<A> shared[Slice<VEC>::kChannels];
  read_affine<A, VEC>(shared, statistics, stride, eps, gamma, beta, channels);
  const Slice<VEC> at(channels);
  if (!at.inside) return;
  Affine<A> of[VEC];
  copy(of, shared, at);
  for (index begin = at.row; begin < rows; begin += kAhead * at.step) {
    Pack<T, VEC> own[kAhead], other[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const index row = begin + a * at.step, i = (rows - 1 - row) * channels + at.channel;
      if (row < rows) own[a] = load<VEC, true>(x + i);
      if (row < rows && add) other[a] = load<VEC, true>(add + i);
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const index row = begin + a * at.step, i = (rows - 1 - row) * channels + at.channel;
      if (row < rows) normalize_row<G>(own[a], other[a], add != nullptr, of, A(slope), y + i);
    }
  }
}

// batch_norm: moments and normalize in one launch.
//
// Grid (slices of channels), block (32, 8): one block has all rows of its channels. It reads x once from global memory
// and keeps it in dynamic shared memory, rows * kChannels * sizeof(T) bytes, for the second pass. Writes batch, pending
// and y. This saves a launch and a pass over x, but leaves the device idle where slices are few; the launcher decides.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 1) batch_norm(PARAMETERS_batch_norm) {
  using A = Arithmetic<T>;
  using S = Slice<VEC>;
  __shared__ Affine<A> shared[S::kChannels];
  Pack<T, VEC>* kept = reinterpret_cast<Pack<T, VEC>*>(dynamic_shared);  // (rows, kAcross) packs
  const S at(channels);
  const int across = at.in_slice / VEC;
  const auto keep = [&](index row, const Pack<T, VEC>& own) { kept[row * S::kAcross + across] = own; };
  const auto seen = gather_rows(x, rows, channels, at, keep);
  Moment mine = merge_block(seen, at);
  const int t = thread_number();
  const index channel = at.first_channel + t;
  if (t < S::kChannels && channel < channels) {
    mine.mean += pivot_of(x, rows, channels, channel);
    write_moment(mine, channel, channels, batch, pending, stride, adds);
    shared[t] = affine_of(mine.mean, mine.squares / mine.count, eps, gamma, beta, channel);
  }
  __syncthreads();
  if (!at.inside) return;
  Affine<A> of[VEC];
  copy(of, shared, at);
  for (index row = at.row; row < rows; row += at.step) {
    const index i = row * channels + at.channel;
    Pack<T, VEC> other;
    if (add) other = load<VEC>(add + i);
    normalize_row<G>(kept[row * S::kAcross + across], other, add != nullptr, of, A(slope), y + i);
  }
}

// ---- running statistics

// commit: out = running statistics after a step, or the old ones bit for bit if *ok is false. `ok` is read on the
// device, so the host need not wait for it.
//
// Flat grid, one thread per channel. running, pending and out are (3, channels) in double; out may be running.
__global__ void __launch_bounds__(kThreads, 2) commit(PARAMETERS_commit) {
  for_each<1>(channels, [&](auto, index c) {
    const Statistic old = read_statistic(running + c, channels), seen = read_statistic(pending + c, channels);
    write_statistic(out + c, channels, *ok ? committed(old, seen, decay[c], unbiased[c]) : old);
  });
}

// merge_statistics: out = statistics of the union of two samples. Flat grid, one thread per channel; a, b and out are
// (3, channels) in double; out may be a.
__global__ void __launch_bounds__(kThreads, 2) merge_statistics(PARAMETERS_merge_statistics) {
  for_each<1>(channels, [&](auto, index c) {
    write_statistic(out + c, channels, merged(read_statistic(a + c, channels), read_statistic(b + c, channels)));
  });
}

}  // namespace bnengine
