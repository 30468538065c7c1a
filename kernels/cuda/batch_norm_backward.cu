// Backward pass of batch normalization: dx, dgamma, dbeta, and dadd for the residual input.
//
// dy, x, y, add, dx and dadd are (rows, channels) in T; dgamma, dbeta and dadd may be null. dz = dy g'(z) is recomputed
// from y, or from z = x_norm gamma + beta + add, whichever the activation's derivative needs.
//
// `batch_norm_gradients` does everything in one launch if a slice of channels fits into shared memory; otherwise
// `batch_norm_sums` and then `batch_norm_backward` run.
#include "batch_norm.cuh"

namespace bnengine {

// Blocks per multiprocessor for __launch_bounds__. Derivatives that need z use too many registers for a second block.
template <Activation G>
constexpr int kResident = kNeedsZ<G> ? 1 : 2;

// The inputs of VEC elements of one row, and x_norm and dz computed from them.
template <Activation G, class T, int VEC>
struct Row {
  using A = Arithmetic<T>;
  Pack<T, VEC> dy, x, y, add;

  template <bool LAST>
  __device__ __forceinline__ void read(const T* dys, const T* xs, const T* ys, const T* adds, index i) {
    dy = load<VEC, LAST>(dys + i);
    x = load<VEC, LAST>(xs + i);
    if (kNeedsY<G>) y = load<VEC, LAST>(ys + i);
    if (kNeedsZ<G> && adds) add = load<VEC, LAST>(adds + i);
  }

  __device__ __forceinline__ void gradients(const Affine<A> (&of)[VEC], bool has_add, A slope, A (&x_norm)[VEC],
                                            A (&dz)[VEC]) const {
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
      x_norm[v] = of[v].center.normalized(x[v]);
      A z = 0, out = 0;
      if (kNeedsY<G>) out = y[v];
      if (kNeedsZ<G>) z = of[v](x_norm[v]);
      if (kNeedsZ<G> && has_add) z += add[v];
      dz[v] = derivative<G>(dy[v], out, z, slope);
    }
  }
};

// Sums dz and dz x_norm over this thread's rows and calls keep(row, x, dz) for each. Sums are in A over kHeld rows and
// in double across them.
template <Activation G, bool LAST, class T, int VEC, class Keep>
__device__ __forceinline__ Sums<2, VEC> sum_rows(const T* dy, const T* x, const T* y, const T* add,
                                                 const Affine<Arithmetic<T>> (&of)[VEC], index rows, index channels,
                                                 Arithmetic<T> slope, const Slice<VEC>& at, Keep keep) {
  using A = Arithmetic<T>;
  constexpr int kAhead = 2;  // rows that a thread loads before it uses the first
  Sums<2, VEC> seen;
  for (index begin = at.row; at.inside && begin < rows; begin += kHeld * at.step) {
    A sum_dz[VEC] = {}, sum_dz_x_norm[VEC] = {};
#pragma unroll 1
    for (int k = 0; k < kHeld; k += kAhead) {
      Row<G, T, VEC> row[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const index r = begin + (k + a) * at.step;
        if (r < rows) row[a].template read<LAST>(dy, x, y, add, r * channels + at.channel);
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const index r = begin + (k + a) * at.step;
        if (r >= rows) break;
        A x_norm[VEC], dz[VEC];
        row[a].gradients(of, add != nullptr, slope, x_norm, dz);
        keep(r, row[a].x, dz);
#pragma unroll
        for (int v = 0; v < VEC; ++v) sum_dz[v] += dz[v], sum_dz_x_norm[v] += dz[v] * x_norm[v];
      }
    }
#pragma unroll
    for (int v = 0; v < VEC; ++v) seen.of[v][0] += sum_dz[v], seen.of[v][1] += sum_dz_x_norm[v];
  }
  return seen;
}

// Writes dbeta = sum dz and dgamma = sum dz x_norm of a channel, or adds them to the stored gradients.
template <class A>
__device__ __forceinline__ void write_parameter_gradients(const Total<2>& sum, index channel, A* dgamma, A* dbeta,
                                                          bool adds_dgamma, bool adds_dbeta) {
  if (dbeta) dbeta[channel] = A(sum[0]) + (adds_dbeta ? dbeta[channel] : A(0));
  if (dgamma) dgamma[channel] = A(sum[1]) + (adds_dgamma ? dgamma[channel] : A(0));
}

// The coefficients of input_gradient (kernels/rules.h) for one channel.
template <class A>
struct InputGradient {
  A through_mean, through_var, scale;

  __device__ __forceinline__ InputGradient() {}
  __device__ __forceinline__ InputGradient(double sum_dz, double sum_dz_x_norm, index rows, const Affine<A>& of)
      : through_mean(A(sum_dz / double(rows))),
        through_var(A(sum_dz_x_norm / double(rows))),
        scale(of.gamma * of.center.inv_std) {}
  __device__ __forceinline__ A operator()(A dz, A x_norm, bool batch_statistics) const {
    return input_gradient(dz, x_norm, through_mean, through_var, scale, batch_statistics);
  }
};

// Stores dx, and dadd = dz if required, for VEC elements of one row.
template <class T, int VEC>
__device__ __forceinline__ void write_row(const Arithmetic<T> (&dz)[VEC], const Arithmetic<T> (&x_norm)[VEC],
                                          const InputGradient<Arithmetic<T>> (&to)[VEC], T* dx, T* dadd, index i,
                                          bool batch_statistics, bool adds_dx) {
  Pack<T, VEC> out;
  if (dadd) {
#pragma unroll
    for (int v = 0; v < VEC; ++v) out.set(v, dz[v]);
    store<VEC>(dadd + i, out);
  }
#pragma unroll
  for (int v = 0; v < VEC; ++v) out.set(v, to[v](dz[v], x_norm[v], batch_statistics));
  store_or_add<VEC>(dx + i, out, adds_dx);
}

// batch_norm_sums: dbeta = sum dz and dgamma = sum dz x_norm over the rows.
//
// Grid (slices of channels, splits of the rows), block (32, 8). Reads dy, x and, as the activation needs, y or add.
// Splits meet in partial and arrivals; the last block of a slice writes dgamma, dbeta and sums (2, channels), which
// keeps both in double for batch_norm_backward.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, kResident<G>) batch_norm_sums(PARAMETERS_batch_norm_sums) {
  using A = Arithmetic<T>;
  __shared__ Affine<A> shared[Slice<VEC>::kChannels];
  read_affine<A, VEC>(shared, statistics, stride, eps, gamma, beta, channels);
  const Slice<VEC> at(channels);
  Affine<A> of[VEC];
  copy(of, shared, at);
  const auto keep = [](index, const Pack<T, VEC>&, const A(&)[VEC]) {};
  Total<2> sum = sum_block(sum_rows<G, false>(dy, x, y, add, of, rows, channels, A(slope), at, keep), at);
  if (!sum_splits<2, VEC>(sum, partial, arrivals, channels)) return;
  const index channel = at.first_channel + thread_number();
  if (thread_number() >= Slice<VEC>::kChannels || channel >= channels) return;
  sums[channel] = sum[0], sums[channels + channel] = sum[1];
  write_parameter_gradients(sum, channel, dgamma, dbeta, adds_dgamma, adds_dbeta);
}

// batch_norm_backward: dx and dadd = dz, from the sums of batch_norm_sums.
//
// Grid (slices of channels, splits of the rows), block (32, 8); blocks are independent. Recomputes dz, since storing it
// would cost more memory traffic than reading dy again. Rows run from last to first, because batch_norm_sums has left
// the last rows in the cache.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, kResident<G>)
    batch_norm_backward(PARAMETERS_batch_norm_backward) {
  using A = Arithmetic<T>;
  using S = Slice<VEC>;
  __shared__ Affine<A> shared[S::kChannels];
  __shared__ InputGradient<A> shared_to[S::kChannels];
  read_affine<A, VEC>(shared, statistics, stride, eps, gamma, beta, channels);
  const S at(channels);
  const int t = thread_number();
  const index own = at.first_channel + t;
  if (t < S::kChannels && own < channels)
    shared_to[t] = InputGradient<A>(batch_statistics ? sums[own] : 0.0, batch_statistics ? sums[channels + own] : 0.0,
                                    rows, shared[t]);
  __syncthreads();
  if (!at.inside) return;
  Affine<A> of[VEC];
  InputGradient<A> to[VEC];
  copy(of, shared, at);
  copy(to, shared_to, at);
  for (index r = at.row; r < rows; r += at.step) {
    const index i = (rows - 1 - r) * channels + at.channel;
    Row<G, T, VEC> row;
    row.template read<true>(dy, x, y, add, i);
    A x_norm[VEC], dz[VEC];
    row.gradients(of, add != nullptr, A(slope), x_norm, dz);
    write_row(dz, x_norm, to, dx, dadd, i, batch_statistics, adds_dx);
  }
}

// batch_norm_gradients: all gradients in one launch.
//
// Grid (slices of channels), block (32, 8): one block has all rows of its channels. It reads the inputs once and keeps
// x and dz in dynamic shared memory, rows * kChannels * (sizeof(T) + sizeof(A)) bytes, for the second pass. This saves
// a launch and a pass over memory, but leaves the device idle where slices are few; the launcher decides.
template <class T, int VEC, Activation G>
__global__ void __launch_bounds__(kThreads, 1) batch_norm_gradients(PARAMETERS_batch_norm_gradients) {
  using A = Arithmetic<T>;
  using S = Slice<VEC>;
  struct alignas(sizeof(A) * VEC < 16 ? sizeof(A) * VEC : 16) Gradients {
    A dz[VEC];
  };
  __shared__ Affine<A> shared[S::kChannels];
  __shared__ InputGradient<A> shared_to[S::kChannels];
  Gradients* kept_dz = reinterpret_cast<Gradients*>(dynamic_shared);  // (rows, kAcross)
  Pack<T, VEC>* kept_x = reinterpret_cast<Pack<T, VEC>*>(kept_dz + rows * S::kAcross);
  read_affine<A, VEC>(shared, statistics, stride, eps, gamma, beta, channels);
  const S at(channels);
  const int across = at.in_slice / VEC;
  Affine<A> of[VEC];
  copy(of, shared, at);
  const auto keep = [&](index r, const Pack<T, VEC>& own, const A(&dz)[VEC]) {
    kept_x[r * S::kAcross + across] = own;
#pragma unroll
    for (int v = 0; v < VEC; ++v) kept_dz[r * S::kAcross + across].dz[v] = dz[v];
  };
  const Total<2> sum = sum_block(sum_rows<G, true>(dy, x, y, add, of, rows, channels, A(slope), at, keep), at);
  const int t = thread_number();
  const index channel = at.first_channel + t;
  if (t < S::kChannels && channel < channels) {
    write_parameter_gradients(sum, channel, dgamma, dbeta, adds_dgamma, adds_dbeta);
    shared_to[t] = InputGradient<A>(sum[0], sum[1], rows, shared[t]);
  }
  __syncthreads();
  if (!at.inside) return;
  InputGradient<A> to[VEC];
  copy(to, shared_to, at);
  for (index r = at.row; r < rows; r += at.step) {
    const Pack<T, VEC> own = kept_x[r * S::kAcross + across];
    const Gradients& mine = kept_dz[r * S::kAcross + across];
    A x_norm[VEC];
#pragma unroll
    for (int v = 0; v < VEC; ++v) x_norm[v] = of[v].center.normalized(own[v]);
    write_row(mine.dz, x_norm, to, dx, dadd, r * channels + at.channel, batch_statistics, adds_dx);
  }
}

}  // namespace bnengine
