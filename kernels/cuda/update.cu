// The end of a training step: check it, update parameters and averages, count it. A is float or double.
//
// All parameters are in one flat buffer, as are gradients and each optimizer slot, so one launch updates a network.
// Every result is `ok ? new : old` with ok in device memory: a skipped step leaves every bit unchanged, and the host
// need not wait. Outputs may be the arrays of the inputs.
#include "common.cuh"

namespace bnengine {

// ---- check_step

// check_step: decides whether this step may change anything, and the factor of its gradients.
//
//   norm   = |gradients|_2 / scale, where scale is scaling[0], or 1 if scaling is null
//   ok     = loss, gradients and pending statistics are finite, and min(norm, clip) squared does not overflow A
//   factor = min(1, clip / norm) / scale; an infinite clip means no clipping
//
// Flat grid, block (32, 8). Reads gradients and pending statistics once and sums squares in double; the last block to
// arrive writes the scalars and the next loss scale (new_scaling).
template <class A, int VEC>
__global__ void __launch_bounds__(kThreads, 2)
    check_step(PARAMETERS_check_step) {
  double found[2] = {0, 0};  // sum of squares; number of pending statistics that are not finite
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

// Sorted ranges [begin, end) of frozen elements; frozen(i) is a binary search.
struct Frozen {
  const index* ranges;
  index count;

  __device__ __forceinline__ bool operator()(index i) const {
    index low = 0, high = count;  // the first range with end > i is in [low, high]
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

// Load and store an optional state slot. If the pointer is null, it reads as zeros and is not written.
template <int N, class A>
__device__ __forceinline__ Pack<A, N> load_slot(const A* p, index i) {
  return p ? load<N>(p + i) : Pack<A, N>{};
}
template <int N, class A>
__device__ __forceinline__ void store_slot(A* p, index i, const Pack<A, N>& values) {
  if (p) store<N>(p + i, values);
}

// Writes the parameters in the 16-bit type H, which matrix products read. Writes nothing if H = A or the step is
// skipped.
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

// Applies a rule of kernels/rules.h to all elements. The last kOptional slots may be null. H = A means that there is no
// 16-bit copy: copy16 is null.
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

// Defines one kernel per optimizer (sgd, rmsprop, adam, lion), with the slots, settings and flags of its rule.
//
// Flat grid, block (32, 8); reads and writes parameters and slots once and reads gradients once. The scalars of the
// step come from row counters[1] of `table` in device memory and begin with the learning rate, so a captured graph
// follows the schedule. Elements before decay_end have weight decay, which enters the gradient or, with `decoupled`,
// shrinks p.
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

// average: out = decay averaged + (1 - decay) values, or averaged if *ok is false. Flat grid, block (32, 8).
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

// count_step: counts this step, as good or as skipped, and moves the cursor of the data. A single thread works.
//
// counters = (steps, row of the table, skipped steps, skipped in a row, longest such run); cursor = (position in the
// data, steps of the epoch), null if the data set is not in device memory.
__global__ void count_step(PARAMETERS_count_step) {
  if (thread_number() != 0) return;
  advance_counters(counters, *ok, out);
  if (cursor) {
    new_cursor[0] = cursor[0] + rows;
    new_cursor[1] = cursor[1] + 1;
  }
}

// add_epoch_sums: adds this step to the sums of the epoch, unless it is skipped. A single thread works.
//
// sums = (loss times its divisor, divisor, correct rows, rows), in double.
template <class A>
__global__ void add_epoch_sums(PARAMETERS_add_epoch_sums) {
  if (thread_number() != 0) return;
  add_step_sums(sums, double(*value), double(*divisor), *correct, double(rows), *ok, out);
}

}  // namespace bnengine
