// Batch normalisation: statistics, forward, running statistics. x, y and add are (rows, channels) in T.
#include "batch_norm.cuh"

namespace bnengine {

// ---- statistics

// Something of the size of a channel's values, which its means are told apart from: two doubles near 1e6 that differ by 1
// have no digits to spare. What is stored in fewer bits has them, and needs no pivot. The median of three rows, so that
// one outlier is not it.
template <class T>
__device__ __forceinline__ Arithmetic<T> pivot_of(const T* x, index rows, index channels, index channel) {
  if constexpr (sizeof(T) < 8) return 0;
  const Arithmetic<T> a = widened(x[channel]), b = widened(x[rows / 2 * channels + channel]),
                      c = widened(x[(rows - 1) * channels + channel]);
  if ((a <= b) == (b <= c)) return b;
  return (b <= a) == (a <= c) ? a : c;
}

template <class T, int VEC>
struct Gathered {  // what a thread has seen so far, per channel, less the pivot; the count is the same for all
  Moment of[VEC] = {};
  Arithmetic<T> pivot[VEC] = {};

  __device__ __forceinline__ Gathered(const T* x, index rows, index channels, const Slice<VEC>& at) {
#pragma unroll
    for (int v = 0; v < VEC; ++v)
      if (at.inside) pivot[v] = pivot_of(x, rows, channels, at.channel + v);
  }

  __device__ __forceinline__ void add(const Pack<T, VEC> (&held)[kHeld<VEC>], int n) {
    const double inverse = 1.0 / n, share = n / (of[0].count + n);
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
      Arithmetic<T> x[kHeld<VEC>];
#pragma unroll
      for (int k = 0; k < kHeld<VEC>; ++k) x[k] = k < n ? held[k][v] - pivot[v] : Arithmetic<T>(0);
      merge(of[v], moment_of<kHeld<VEC>>(x, n, inverse), share);
    }
  }
};

// Moments of all threads of a block, merged in a fixed order: `mine` is then the moment of channel
// `first_channel + thread_number()` in the first kChannels threads.
template <class T, int VEC>
__device__ __forceinline__ Moment merge_block(const Gathered<T, VEC>& seen, const Slice<VEC>& at) {
  using S = Slice<VEC>;
  __shared__ Moment of_warp[kWarps][S::kChannels];
#pragma unroll
  for (int v = 0; v < VEC; ++v) {
    Moment m = seen.of[v];
#pragma unroll
    for (int distance = S::kAcross; distance < kLanes; distance *= 2) {
      const Moment other = {__shfl_down_sync(kAllLanes, m.count, distance),
                            __shfl_down_sync(kAllLanes, m.mean, distance),
                            __shfl_down_sync(kAllLanes, m.squares, distance)};
      merge(m, other);
    }
    if (at.row_in_warp == 0) of_warp[threadIdx.y][at.in_slice + v] = m;
  }
  __syncthreads();
  Moment mine = {};
  if (thread_number() < S::kChannels)
    for (int w = 0; w < kWarps; ++w) merge(mine, of_warp[w][thread_number()]);
  return mine;
}

// Moments of all blocks of a slice, merged by the last one of them, in which this is true. partial is (splits, 3,
// channels).
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
  __shared__ Moment of_lane[kParallel][kChannels];
  Moment some = {};
  for (index s = lane; inside && s < gridDim.y; s += kParallel) {
    const double* p = partial + s * 3 * channels + channel;
    merge(some, {__ldcg(p), __ldcg(p + channels), __ldcg(p + 2 * channels)});
  }
  of_lane[lane][in_slice] = some;
  __syncthreads();
  mine = {};
  if (lane == 0)
    for (int l = 0; l < kParallel; ++l) merge(mine, of_lane[l][in_slice]);
  return true;
}

// A batch's own statistics, and the proposal that they are, or are merged into; proposal may be null.
__device__ __forceinline__ void write_moment(const Moment& mine, index channel, index channels, double* batch,
                                             double* proposal, index stride, bool adds) {
  const Statistic own = statistic_of(mine);
  write_statistic(batch + channel, channels, own);
  if (proposal == nullptr) return;
  write_statistic(proposal + channel, stride, adds ? merged(read_statistic(proposal + channel, stride), own) : own);
}

template <class T, int VEC>
__global__ void __launch_bounds__(kThreads, 2)
    moments(const T* x, double* batch, double* proposal, double* partial, unsigned* arrivals, index rows,
            index channels, index stride, bool adds) {
  const Slice<VEC> at(channels);
  Gathered<T, VEC> seen(x, rows, channels, at);
  for (index row = at.row; at.inside && row < rows; row += kHeld<VEC> * at.step) {
    Pack<T, VEC> held[kHeld<VEC>];
    const int n = fetch(held, x, row, rows, channels, at);
    seen.add(held, n);
  }
  Moment mine = merge_block(seen, at);
  if (!merge_splits<VEC>(mine, partial, arrivals, channels)) return;
  const index channel = at.first_channel + thread_number();
  if (thread_number() >= Slice<VEC>::kChannels || channel >= channels) return;
  mine.mean += pivot_of(x, rows, channels, channel);
  write_moment(mine, channel, channels, batch, proposal, stride, adds);
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

template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2)
    normalize(const double* statistics, const Arithmetic<T>* gamma, const Arithmetic<T>* beta, const T* x,
              const T* add, T* y, index rows, index channels, index stride, double eps, double slope) {
  using A = Arithmetic<T>;
  constexpr int kAhead = 2;  // rows on their way from memory
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
      const index row = begin + a * at.step, i = row * channels + at.channel;
      if (row < rows) own[a] = load<VEC>(x + i);
      if (row < rows && add) other[a] = load<VEC>(add + i);
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const index row = begin + a * at.step;
      if (row < rows)
        normalize_row<G>(own[a], other[a], add != nullptr, of, A(slope), y + row * channels + at.channel);
    }
  }
}

// moments and normalize in one launch, one block a slice of channels, whose rows stay in (dynamic) shared memory:
// rows * kChannels * sizeof(T) bytes.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 1)
    batch_norm(const Arithmetic<T>* gamma, const Arithmetic<T>* beta, const T* x, const T* add, double* batch,
               double* proposal, T* y, index rows, index channels, index stride, double eps, double slope, bool adds) {
  using A = Arithmetic<T>;
  using S = Slice<VEC>;
  __shared__ Affine<A> shared[S::kChannels];
  Pack<T, VEC>* kept = reinterpret_cast<Pack<T, VEC>*>(dynamic_shared);  // rows of kAcross packs
  const S at(channels);
  const int across = at.in_slice / VEC;
  Gathered<T, VEC> seen(x, rows, channels, at);
  for (index row = at.row; at.inside && row < rows; row += kHeld<VEC> * at.step) {
    Pack<T, VEC> held[kHeld<VEC>];
    const int n = fetch(held, x, row, rows, channels, at);
    seen.add(held, n);
#pragma unroll
    for (int k = 0; k < kHeld<VEC>; ++k)
      if (k < n) kept[(row + k * at.step) * S::kAcross + across] = held[k];
  }
  Moment mine = merge_block(seen, at);
  const int t = thread_number();
  const index channel = at.first_channel + t;
  if (t < S::kChannels && channel < channels) {
    mine.mean += pivot_of(x, rows, channels, channel);
    write_moment(mine, channel, channels, batch, proposal, stride, adds);
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
__global__ void __launch_bounds__(kThreads, 2)
    commit(const bool* ok, const double* running, const double* proposal, const double* decay, const bool* unbiased,
           double* out, index channels) {
  for_each<1>(channels, [&](auto, index c) {
    const Statistic old = read_statistic(running + c, channels), seen = read_statistic(proposal + c, channels);
    write_statistic(out + c, channels, *ok ? committed(old, seen, decay[c], unbiased[c]) : old);
  });
}

// Statistics of the union of two samples; a may be out.
__global__ void __launch_bounds__(kThreads, 2)
    merge_statistics(const double* a, const double* b, double* out, index channels) {
  for_each<1>(channels, [&](auto, index c) {
    write_statistic(out + c, channels, merged(read_statistic(a + c, channels), read_statistic(b + c, channels)));
  });
}

}  // namespace bnengine
