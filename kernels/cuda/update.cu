// What ends an optimizer step: check_step it, update the flat buffers, count it. A is float or double.
//
// Every rule is `ok ? new : old`, with ok in device memory: a skipped step leaves every bit as it was. Results may go to
// the arrays that they were computed from.
#include "common.cuh"

namespace bnengine {

// ---- check_step

// ok: loss, gradients and pending statistics are finite, and the norm (clipped to `clip`, infinite for none) has a square in A;
// norm = |gradients|_2 / scale; factor = min(1, clip / norm) / scale. Without `scaling` the scale is 1.
template <class A, int VEC>
__global__ void __launch_bounds__(kThreads, 2)
    check_step(PARAMETERS_check_step) {
  double found[2] = {0, 0};  // sum of squares, and how many pending statistics are not finite
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    const Pack<A, N> g = load<N>(gradients + i);
#pragma unroll
    for (int k = 0; k < N; ++k) found[0] += double(g[k]) * double(g[k]);
  });
  for_each<1>(pending_size, [&](auto, index i) { found[1] += !finite(pending[i]); });
  if (!grid_sum(found, partial, arrivals) || thread_number() != 0) return;
  const bool sound = finite(double(*loss)) && found[1] == 0;
  const StepCheck<A> verdict = verdict_of<A>(found[0], sound, scaling ? double(scaling[0]) : 1, clip);
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

// The parameters once more in H, 16 bits, for products, where there is such a 16-bit copy and the step is good.
template <int N, class H, class A>
__device__ __forceinline__ void store_shadow(H* copy16, index i, const Pack<A, N>& p, bool good) {
  if constexpr (!kSame<H, A>) {
    if (!good) return;
    Pack<H, N> narrow;
#pragma unroll
    for (int k = 0; k < N; ++k) narrow.set(k, p[k]);
    store<N>(copy16 + i, narrow);
  }
}

// One step of a rule of kernels/rules.h. H = A here and below: there is no copy16, and its pointer is null.
template <int VEC, int kOptional, class Rule, class A, class H, int kSlots>
__device__ __forceinline__ void update(const Rule& rule, A rate, A factor, bool good, const Frozen& frozen,
                                       const A* parameters, const A* gradients, const A* const (&slots)[kSlots],
                                       A* new_parameters, A* const (&new_slots)[kSlots], H* copy16, index size,
                                       index decay_end, A weight_decay, bool decoupled) {
  for_each<VEC>(size, [&](auto width, index i) {
    constexpr int N = decltype(width)::value;
    Pack<A, N> p = load<N>(parameters + i), state[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      state[s] = s < kSlots - kOptional ? load<N>(slots[s] + i) : load_slot<N>(slots[s], i);
    const Pack<A, N> g = load<N>(gradients + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if (!good || frozen(i + k)) continue;
      const A decay = i + k < decay_end ? weight_decay : A(0);
      A slot[kSlots];
#pragma unroll
      for (int s = 0; s < kSlots; ++s) slot[s] = state[s].element[k];
      update_element(rule, rate, g[k], factor, decoupled ? A(0) : decay, decoupled ? decay : A(0), p.element[k], slot);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) state[s].element[k] = slot[s];
    }
    store<N>(new_parameters + i, p);
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      if (s < kSlots - kOptional)
        store<N>(new_slots[s] + i, state[s]);
      else
        store_slot<N>(new_slots[s], i, state[s]);
    store_shadow<N>(copy16, i, p, good);
  });
}

// Each optimizer is a kernel under the name of its op, with the slots, settings and flags of its rule. Table rows begin with
// the learning rate. With `decoupled`, weight decay shrinks p instead of entering the gradient.
#define BNENGINE_OPTIMIZER(OP, RULE_OF, OPTIONAL)                                                                      \
  template <class A, int VEC, class H = A>                                                                             \
  __global__ void __launch_bounds__(kThreads, 3) OP(PARAMETERS_##OP) {                                                 \
    const A* const slots[] = {SLOTS_##OP};                                                                             \
    A* const new_slots[] = {NEW_SLOTS_##OP};                                                                           \
    const double settings[] = {SETTINGS_##OP 0};                                                                       \
    const bool flags[] = {FLAGS_##OP false};                                                                           \
    constexpr int kSlots = sizeof slots / sizeof *slots;                                                               \
    bool has[kSlots];                                                                                                  \
    for (int s = 0; s < kSlots; ++s) has[s] = slots[s] != nullptr;                                                     \
    const A* row = next_row(table, counters, table_rows, int(table_columns));                                          \
    const RULE_OF<A> rule(Setup<A>{row + 1, settings, flags, has});                                                    \
    update<VEC, OPTIONAL>(rule, row[0], *factor, *ok, Frozen{frozen, frozen_count}, parameters, gradients, slots,      \
                          new_parameters, new_slots, copy16, size, decay_end, A(weight_decay), decoupled);             \
  }
BNENGINE_OPTIMIZERS(BNENGINE_OPTIMIZER)

// ---- averages and counts

// averaged <- decay averaged + (1 - decay) values.
template <class A, int VEC>
__global__ void __launch_bounds__(kThreads, 2)
    average(PARAMETERS_average) {
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
__global__ void count_step(PARAMETERS_count_step) {
  if (thread_number() != 0) return;
  advance_counters(counters, *ok, out);
  if (cursor) {
    new_cursor[0] = cursor[0] + rows;
    new_cursor[1] = cursor[1] + 1;
  }
}

// sums = (loss times its divisor, divisor, rows right, rows) of an epoch so far. One thread.
template <class A>
__global__ void add_epoch_sums(PARAMETERS_add_epoch_sums) {
  if (thread_number() != 0) return;
  add_step_sums(sums, double(*value), double(*divisor), *correct, double(rows), *ok, out);
}

}  // namespace bnengine
