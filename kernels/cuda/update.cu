// What ends an optimizer step: judge it, update the flat buffers, count it. A is float or double.
//
// Every rule is `ok ? new : old`, with ok in device memory: a skipped step leaves every bit as it was. Results may go to
// the arrays that they were computed from.
#include "common.cuh"

namespace bnengine {

// ---- judge

// ok: loss, gradients and proposals are finite, and the norm (clipped to `clip`, infinite for none) has a square in A;
// norm = |gradients|_2 / scale; factor = min(1, clip / norm) / scale. Without `scaling` the scale is 1.
template <class A, int VEC>
__global__ void __launch_bounds__(kThreads, 2)
    judge(const A* loss, const A* gradients, const double* proposals, const A* scaling, bool* ok, double* norm,
          A* factor, A* new_scaling, double* partial, unsigned* arrivals, index size, index proposed, double clip,
          double growth, double backoff, index every) {
  double found[2] = {0, 0};  // sum of squares, and how many proposals are not finite
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    const Pack<A, N> g = load<N>(gradients + i);
#pragma unroll
    for (int k = 0; k < N; ++k) found[0] += double(g[k]) * double(g[k]);
  });
  for_each<1>(proposed, [&](auto, index i) { found[1] += !finite(proposals[i]); });
  if (!grid_sum(found, partial, arrivals) || thread_number() != 0) return;
  const bool sound = finite(double(*loss)) && found[1] == 0;
  const Verdict<A> verdict = verdict_of<A>(found[0], sound, scaling ? double(scaling[0]) : 1, clip);
  *ok = verdict.ok;
  *norm = verdict.norm;
  *factor = verdict.factor;
  if (scaling) rescale(scaling, new_scaling, verdict.ok, verdict.overflown, A(growth), A(backoff), A(every));
}

// ---- optimizers

// Sorted ranges [begin, end) of frozen elements.
struct Frozen {
  const index* ranges;
  index count;

  __device__ __forceinline__ bool operator()(index i) const {
    index low = 0, high = count;  // the first range that ends behind i lies in [low, high]
    while (low < high) {
      const index middle = (low + high) / 2;
      if (ranges[2 * middle + 1] > i)
        high = middle;
      else
        low = middle + 1;
    }
    return low < count && i >= ranges[2 * low];
  }
};

// A state slot that a variant may lack: then it reads as zeros and is not written.
template <int N, class A>
__device__ __forceinline__ Pack<A, N> load_slot(const A* p, index i) {
  return p ? load<N>(p + i) : Pack<A, N>{};
}
template <int N, class A>
__device__ __forceinline__ void store_slot(A* p, index i, const Pack<A, N>& values) {
  if (p) store<N>(p + i, values);
}

// The parameters once more in H, 16 bits, for products, where there is such a shadow and the step is good.
template <int N, class H, class A>
__device__ __forceinline__ void store_shadow(H* shadow, index i, const Pack<A, N>& p, bool good) {
  if constexpr (!kSame<H, A>) {
    if (!good) return;
    Pack<H, N> narrow;
#pragma unroll
    for (int k = 0; k < N; ++k) narrow.set(k, p[k]);
    store<N>(shadow + i, narrow);
  }
}

// H = A here and below: there is no shadow, and its pointer is null.
template <class A, int VEC, class H = A>
__global__ void __launch_bounds__(kThreads, 3)
    sgd(const A* table, const index* counters, const bool* ok, const A* factor, const index* frozen_ranges,
        const A* parameters, const A* gradients, const A* velocity, A* new_parameters, A* new_velocity, H* shadow,
        index size, index table_rows, index frozen_count, index border, double momentum, double weight_decay,
        bool nesterov) {
  const Frozen frozen = {frozen_ranges, frozen_count};
  const Sgd<A> rule = {*next_row(table, counters, table_rows, 1), A(momentum), nesterov};
  const bool good = *ok;
  const A clipped = *factor;
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<A, N> p = load<N>(parameters + i), v = load_slot<N>(velocity, i);
    const Pack<A, N> g = load<N>(gradients + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if (!good || frozen(i + k)) continue;
      const A decay = i + k < border ? A(weight_decay) : A(0);
      rule(effective_gradient(g[k], clipped, p[k], decay), p.element[k], v.element[k]);
    }
    store<N>(new_parameters + i, p);
    store_slot<N>(new_velocity, i, v);
    store_shadow<N>(shadow, i, p, good);
  });
}

template <class A, int VEC, class H = A>
__global__ void __launch_bounds__(kThreads, 3)
    rmsprop(const A* table, const index* counters, const bool* ok, const A* factor, const index* frozen_ranges,
            const A* parameters, const A* gradients, const A* square, const A* mean, const A* velocity,
            A* new_parameters, A* new_square, A* new_mean, A* new_velocity, H* shadow, index size,
            index table_rows, index frozen_count, index border, double rho, double eps, double momentum,
            double weight_decay, bool eps_inside) {
  const Frozen frozen = {frozen_ranges, frozen_count};
  const Rmsprop<A> rule = {*next_row(table, counters, table_rows, 1), A(rho), A(1 - rho), A(eps), A(momentum),
                           eps_inside, mean != nullptr};
  const bool good = *ok;
  const A clipped = *factor;
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<A, N> p = load<N>(parameters + i), s = load<N>(square + i);
    Pack<A, N> m = load_slot<N>(mean, i), v = load_slot<N>(velocity, i);
    const Pack<A, N> g = load<N>(gradients + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if (!good || frozen(i + k)) continue;
      const A decay = i + k < border ? A(weight_decay) : A(0);
      const A slope = effective_gradient(g[k], clipped, p[k], decay);
      rule(slope, p.element[k], s.element[k], m.element[k], v.element[k]);
    }
    store<N>(new_parameters + i, p);
    store<N>(new_square + i, s);
    store_slot<N>(new_mean, i, m);
    store_slot<N>(new_velocity, i, v);
    store_shadow<N>(shadow, i, p, good);
  });
}

// Table rows are (rate, c1, c2). With `decoupled`, weight decay shrinks p instead of entering the gradient.
template <class A, int VEC, class H = A>
__global__ void __launch_bounds__(kThreads, 3)
    adam(const A* table, const index* counters, const bool* ok, const A* factor, const index* frozen_ranges,
         const A* parameters, const A* gradients, const A* m, const A* v, const A* largest, A* new_parameters,
         A* new_m, A* new_v, A* new_largest, H* shadow, index size, index table_rows, index frozen_count,
         index border, double beta1, double beta2, double eps, double weight_decay, bool decoupled) {
  const Frozen frozen = {frozen_ranges, frozen_count};
  const A* row = next_row(table, counters, table_rows, 3);
  const Adam<A> rule = {row[0],   1 / row[1],   1 / row[2], A(beta1), A(1 - beta1),
                        A(beta2), A(1 - beta2), A(eps),     largest != nullptr};
  const bool good = *ok;
  const A clipped = *factor;
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<A, N> p = load<N>(parameters + i), first = load<N>(m + i), second = load<N>(v + i);
    Pack<A, N> most = load_slot<N>(largest, i);
    const Pack<A, N> g = load<N>(gradients + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if (!good || frozen(i + k)) continue;
      const A decay = i + k < border ? A(weight_decay) : A(0);
      const A slope = effective_gradient(g[k], clipped, p[k], decoupled ? A(0) : decay);
      rule(slope, decoupled ? decay : A(0), p.element[k], first.element[k], second.element[k], most.element[k]);
    }
    store<N>(new_parameters + i, p);
    store<N>(new_m + i, first);
    store<N>(new_v + i, second);
    store_slot<N>(new_largest, i, most);
    store_shadow<N>(shadow, i, p, good);
  });
}

// ---- averages and counts

// averaged <- decay averaged + (1 - decay) values.
template <class A, int VEC>
__global__ void __launch_bounds__(kThreads, 2)
    average(const bool* ok, const A* averaged, const A* values, A* out, index size, double decay) {
  const bool good = *ok;
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<A, N> mean = load<N>(averaged + i);
    const Pack<A, N> value = load<N>(values + i);
#pragma unroll
    for (int k = 0; k < N; ++k)
      if (good) mean.set(k, averaged_with(mean[k], value[k], A(decay), A(1 - decay)));
    store<N>(out + i, mean);
  });
}

// counters = (steps, row of the table, skipped, skipped in a row, longest such run); cursor = (position in the data,
// steps of the epoch), null where the data are not on the device. One thread.
__global__ void advance(const bool* ok, const index* counters, const index* cursor, index* out, index* new_cursor,
                        index rows) {
  if (thread_number() != 0) return;
  count_step(counters, *ok, out);
  if (cursor) {
    new_cursor[0] = cursor[0] + rows;
    new_cursor[1] = cursor[1] + 1;
  }
}

// sums = (loss times its divisor, divisor, rows right, rows) of an epoch so far. One thread.
template <class A>
__global__ void tally(const A* value, const A* normaliser, const double* hits, const bool* ok, const double* sums,
                      double* out, index rows) {
  if (thread_number() != 0) return;
  tally_step(sums, double(*value), double(*normaliser), *hits, double(rows), *ok, out);
}

}  // namespace bnengine
