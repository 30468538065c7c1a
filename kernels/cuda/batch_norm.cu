// Batch normalisation: statistics, forward, running statistics. x, y and add are (rows, channels) in T.
#include "batch_norm.cuh"

namespace bnengine {

// ---- statistics

// What a thread has seen of its channels: how many rows, and in double the sums of their differences from the first of
// them and of the squares of these. That first row lies among the others, so little cancels, and double has 29 bits more
// than float. Sums are kHeld times too small, as blocks then need no factor.
template <class T, int VEC>
struct Gathered {
  Pack<T, VEC> from;
  double count = 0, sum[VEC] = {}, squares[VEC] = {};

  __device__ __forceinline__ Gathered(const T*, index, index, const Slice<VEC>&) {}

  // By float sums over the block; false if squares may have vanished or overflowed in them, or are not numbers.
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

// Doubles near 1e6 that differ by 1 have no digits to spare: blocks are merged one by one, less something of the size of
// the channel's values, the median of three rows, so that one outlier is not it.
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

// All rows of this thread; keep(row, x) sees each of them. Where float sums were not to be trusted, row by row again.
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

// The union of COUNT samples whose counts, means and squares get(i) gives, all at once: one division for all.
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

// Moments of all threads of a block, merged in a fixed order: `mine` is then the moment of channel
// `first_channel + thread_number()` in the first kChannels threads.
template <class T, int VEC>
__device__ __forceinline__ Moment merge_block(const Gathered<T, VEC>& seen, const Slice<VEC>& at) {
  using S = Slice<VEC>;
  __shared__ Moment of_warp[kWarps][S::kChannels];
  const double inverse = seen.count > 0 ? 1 / seen.count : 0.0;
  double count[S::kRounds + 1] = {seen.count}, share[S::kRounds + 1];
#pragma unroll
  for (int r = 0; r < S::kRounds; ++r) {  // the same for all channels
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

// Moments of all blocks of a slice, merged by the last one of them, in which this is true. partial is (splits, 3,
// channels). First the mean of all, then squares about it: no division waits for another.
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

// A batch's own statistics, and the pending statistics that they are, or are merged into; pending may be null.
__device__ __forceinline__ void write_moment(const Moment& mine, index channel, index channels, double* batch,
                                             double* pending, index stride, bool adds) {
  const Statistic own = statistic_of(mine);
  write_statistic(batch + channel, channels, own);
  if (pending == nullptr) return;
  write_statistic(pending + channel, stride, adds ? merged(read_statistic(pending + channel, stride), own) : own);
}

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

// ---- normalisation

template <Activation G, class T, int VEC>
__device__ __forceinline__ void normalize_row(const Pack<T, VEC>& x, const Pack<T, VEC>& add, bool has_add,
                                              const Affine<Arithmetic<T>> (&of)[VEC], Arithmetic<T> slope, T* y) {
  Pack<T, VEC> out;
#pragma unroll
  for (int v = 0; v < VEC; ++v) {
    Arithmetic<T> z = of[v](of[v].centre.normalized(x[v]));
    if (has_add) z += add[v];
    out.set(v, activate<G>(z, slope));
  }
  store<VEC>(y, out);
}

// From the last row to the first: what moments, or a product, has left of x in the cache are the last ones.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2) normalize(PARAMETERS_normalize) {
  using A = Arithmetic<T>;
  constexpr int kAhead = VEC == 8 ? 3 : 2;  // rows on their way from memory
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

// moments and normalize in one launch, one block a slice of channels, whose rows stay in (dynamic) shared memory:
// rows * kChannels * sizeof(T) bytes.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 1) batch_norm(PARAMETERS_batch_norm) {
  using A = Arithmetic<T>;
  using S = Slice<VEC>;
  __shared__ Affine<A> shared[S::kChannels];
  Pack<T, VEC>* kept = reinterpret_cast<Pack<T, VEC>*>(dynamic_shared);  // rows of kAcross packs
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

// (3, channels) buffers, one thread a channel; where ok is false the old values, bit for bit. running may be out.
__global__ void __launch_bounds__(kThreads, 2) commit(PARAMETERS_commit) {
  for_each<1>(channels, [&](auto, index c) {
    const Statistic old = read_statistic(running + c, channels), seen = read_statistic(pending + c, channels);
    write_statistic(out + c, channels, *ok ? committed(old, seen, decay[c], unbiased[c]) : old);
  });
}

// Statistics of the union of two samples; a may be out.
__global__ void __launch_bounds__(kThreads, 2) merge_statistics(PARAMETERS_merge_statistics) {
  for_each<1>(channels, [&](auto, index c) {
    write_statistic(out + c, channels, merged(read_statistic(a + c, channels), read_statistic(b + c, channels)));
  });
}

}  // namespace bnengine
