// Batch normalisation, the way back. dy, x, y, add, dx and dadd are (rows, channels) in T.
#include "batch_norm.cuh"

namespace bnengine {

// x_norm and dz of one row. add is read for gelu alone, which needs z.
template <Activation G, class T, int VEC>
__device__ __forceinline__ void row_gradients(const Pack<T, VEC>& dy, const Pack<T, VEC>& x, const T* y, const T* add,
                                              const Affine<Arithmetic<T>> (&of)[VEC], Arithmetic<T> slope,
                                              Arithmetic<T> (&x_norm)[VEC], Arithmetic<T> (&dz)[VEC]) {
  constexpr bool kNeedsY = G != Activation::identity && G != Activation::gelu;
  Pack<T, VEC> out = {}, other = {};
  if (kNeedsY) out = load<VEC>(y);
  if (G == Activation::gelu && add) other = load<VEC>(add);
#pragma unroll
  for (int v = 0; v < VEC; ++v) {
    x_norm[v] = of[v].centre.normalized(x[v]);
    Arithmetic<T> z = 0;
    if (G == Activation::gelu) z = of[v](x_norm[v]);
    if (G == Activation::gelu && add) z += other[v];
    dz[v] = derivative<G>(dy[v], out[v], z, slope);
  }
}

template <class A>
__device__ __forceinline__ void write_parameter_gradients(const Total<2>& sum, index channel, A* dgamma, A* dbeta,
                                                          bool adds_dgamma, bool adds_dbeta) {
  if (dbeta) dbeta[channel] = A(sum[0]) + (adds_dbeta ? dbeta[channel] : A(0));
  if (dgamma) dgamma[channel] = A(sum[1]) + (adds_dgamma ? dgamma[channel] : A(0));
}

// dbeta = sum dz, dgamma = sum dz x_norm; either may be null. sums (2, channels) holds both in double for the next pass.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2)
    batch_norm_sums(const double* statistics, const Arithmetic<T>* gamma, const Arithmetic<T>* beta, const T* dy,
                    const T* x, const T* y, const T* add, Arithmetic<T>* dgamma, Arithmetic<T>* dbeta, double* sums,
                    double* partial, unsigned* arrivals, index rows, index channels, index stride, double eps,
                    double slope, bool adds_dgamma, bool adds_dbeta) {
  using A = Arithmetic<T>;
  __shared__ Affine<A> shared[Slice<VEC>::kChannels];
  read_affine<A, VEC>(shared, statistics, stride, eps, gamma, beta, channels);
  const Slice<VEC> at(channels);
  Sums<2, VEC> seen;
  if (at.inside) {
    Affine<A> of[VEC];
#pragma unroll
    for (int v = 0; v < VEC; ++v) of[v] = shared[at.in_slice + v];
    for (index begin = at.row; begin < rows; begin += kHeld * at.step) {
      A dz_held[VEC] = {}, dz_x_norm_held[VEC] = {};
#pragma unroll 2
      for (int k = 0; k < kHeld; ++k) {
        const index row = begin + k * at.step, i = row * channels + at.channel;
        if (row >= rows) break;
        A x_norm[VEC], dz[VEC];
        row_gradients<G>(load<VEC>(dy + i), load<VEC>(x + i), y + i, add ? add + i : nullptr, of, A(slope), x_norm, dz);
#pragma unroll
        for (int v = 0; v < VEC; ++v) dz_held[v] += dz[v], dz_x_norm_held[v] += dz[v] * x_norm[v];
      }
#pragma unroll
      for (int v = 0; v < VEC; ++v) seen.of[v][0] += dz_held[v], seen.of[v][1] += dz_x_norm_held[v];
    }
  }
  Total<2> sum = sum_block(seen, at);
  if (!sum_splits<2, VEC>(sum, partial, arrivals, channels)) return;
  const index channel = at.first_channel + thread_number();
  if (thread_number() >= Slice<VEC>::kChannels || channel >= channels) return;
  sums[channel] = sum[0], sums[channels + channel] = sum[1];
  write_parameter_gradients(sum, channel, dgamma, dbeta, adds_dgamma, adds_dbeta);
}

// dx = gamma inv_std (dz - dbeta / m - x_norm dgamma / m), or gamma inv_std dz if the statistics are constants; dadd =
// dz. Either may be null.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 2)
    batch_norm_backward(const double* statistics, const Arithmetic<T>* gamma, const Arithmetic<T>* beta,
                        const double* sums, const T* dy, const T* x, const T* y, const T* add, T* dx, T* dadd,
                        index rows, index channels, index stride, double eps, double slope, bool batch_statistics,
                        bool adds_dx) {
  using A = Arithmetic<T>;
  using S = Slice<VEC>;
  __shared__ Affine<A> shared[S::kChannels];
  __shared__ A mean_dz[S::kChannels], mean_dz_x_norm[S::kChannels];
  const int t = thread_number();
  const index own = index(blockIdx.x) * S::kChannels + t;
  if (batch_statistics && t < S::kChannels && own < channels) {
    mean_dz[t] = A(sums[own] / double(rows));
    mean_dz_x_norm[t] = A(sums[channels + own] / double(rows));
  }
  read_affine<A, VEC>(shared, statistics, stride, eps, gamma, beta, channels);
  const S at(channels);
  if (!at.inside) return;
  Affine<A> of[VEC];
  A through_mean[VEC] = {}, through_var[VEC] = {};
#pragma unroll
  for (int v = 0; v < VEC; ++v) {
    of[v] = shared[at.in_slice + v];
    if (batch_statistics) through_mean[v] = mean_dz[at.in_slice + v], through_var[v] = mean_dz_x_norm[at.in_slice + v];
  }
  for (index row = at.row; row < rows; row += at.step) {
    const index i = row * channels + at.channel;
    A x_norm[VEC], dz[VEC];
    row_gradients<G>(load<VEC>(dy + i), load<VEC>(x + i), y + i, add ? add + i : nullptr, of, A(slope), x_norm, dz);
    Pack<T, VEC> out;
    if (dadd) {
#pragma unroll
      for (int v = 0; v < VEC; ++v) out.set(v, dz[v]);
      store<VEC>(dadd + i, out);
    }
    if (dx) {
#pragma unroll
      for (int v = 0; v < VEC; ++v) {
        const A inner = batch_statistics ? dz[v] - through_mean[v] - x_norm[v] * through_var[v] : dz[v];
        out.set(v, inner * (of[v].gamma * of[v].centre.inv_std));
      }
      store_or_add<VEC>(dx + i, out, adds_dx);
    }
  }
}

}  // namespace bnengine
