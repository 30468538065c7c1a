// The end of an optimizer step: check it, update the flat buffers, count it. kernels/rules.h has the rules.
//
// All parameters are in one flat buffer, as are gradients and each optimizer slot; a block is any range of them. Every
// result is `ok ? new : old` with ok in memory, so a skipped step leaves every bit unchanged. Outputs may be the arrays
// of the inputs. Sums are taken over chunks that the shape determines, in the fixed order of abreast.h, so that the
// number of threads changes no bit.
#include <string.h>

#include <utility>

#include "abreast.h"
#include "layout.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

// -- check_step

// Sets partial[c] = (sum of squares of a chunk of gradients, number of non-finite values in a chunk of pending
// statistics) for chunks [begin, end) of `chunk` gradients and `some` pending values.
template <class A>
void check_chunks(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::CheckChunks<A> a(arguments);
  const A* g = a.gradients;
  const double* pending = a.pending;
  double* partial = a.partial;
  const index size = a.size, chunk = a.chunk, proposed = a.proposed, some = a.some;
  const auto least = [](index x, index y) { return x < y ? x : y; };
  for (index c = begin; c < end; ++c) {
    partial[2 * c] = sum_abreast(least(size, c * chunk), least(size, (c + 1) * chunk),
                                 [g](index i) { return double(g[i]) * double(g[i]); });
    partial[2 * c + 1] = sum_abreast(least(proposed, c * some), least(proposed, (c + 1) * some),
                                     [pending](index i) { return finite(pending[i]) ? 0.0 : 1.0; });
  }
}

// Decides from the sums of all chunks whether this step may change anything. An infinite clip means no clipping; a null
// `scaling` means no loss scale.
template <class A>
void check_step(const Arguments& arguments, index, index, Worker&) {
  const layout::CheckStep<A> a(arguments);
  const double* partial = a.partial;
  const A* scaling = a.scaling;
  const index chunks = a.chunks;
  const double squares = sum_abreast(0, chunks, [partial](index c) { return partial[2 * c]; });
  const double unsound = sum_abreast(0, chunks, [partial](index c) { return partial[2 * c + 1]; });
  const bool sound = finite(double(*a.loss)) && unsound == 0;
  const StepCheck<A> verdict = verdict_of<A>(squares, sound, scaling ? double(scaling[0]) : 1, a.clip);
  *a.ok = verdict.ok, *a.norm = verdict.norm, *a.factor = verdict.factor;
  if (scaling)
    rescale(scaling, a.new_scaling, verdict.ok, verdict.overflown, A(a.growth), A(a.backoff), A(a.every));
}

// -- optimizers

enum class Decay { none, gradient, move };  // what weight decay is added to

// Compile-time constants of a loop.
template <Decay kDecay>
struct Decayed {
  static constexpr Decay value = kDecay;
};
template <unsigned kSet>
struct Bits {
  static constexpr bool has(int bit) { return kSet >> bit & 1; }
};

// Calls f(Bits<set>()), so that a separate loop is compiled for each value of kCount bits.
template <int kCount, unsigned kSet = 0, class F>
void choose(unsigned set, F f) {
  if constexpr (kCount == 0)
    f(Bits<kSet>());
  else if (set >> (kCount - 1) & 1)
    choose<kCount - 1, kSet | 1u << (kCount - 1)>(set, f);
  else
    choose<kCount - 1, kSet>(set, f);
}

// A step of an optimizer. `Given` is its struct in layout.h. A slot that a variant lacks is null.
template <class A, class Given>
struct Step {
  const Given given;
  const A* row;
  A factor, decay;

  explicit Step(const Arguments& a)
      : given(a), row(next_row(given.table, given.counters, given.rows, int(given.columns))), factor(*given.factor),
        decay(A(given.weight_decay)) {}

  // Copies the old values of elements [begin, end).
  void keep(index begin, index end) const {
    const auto moved = [&](const A* from, A* to) {
      if (begin < end && from && from != to) memcpy(to + begin, from + begin, size_t(end - begin) * sizeof(A));
    };
    moved(given.parameters, given.new_parameters);
    for (int s = 0; s < Given::kSlots; ++s) moved(given.slots[s], given.new_slots[s]);
  }

  // Calls update(begin, end, Decayed<what>) for each piece of a block that changes: not for frozen ranges, and
  // separately before and after the end of the decayed range.
  template <class F>
  void each_piece(index begin, index end, F update) const {
    if (!*given.ok) return keep(begin, end);
    const index *range = given.frozen.ends, *const last = range + 2 * given.frozen.count;
    for (; range != last && begin < end; range += 2) {
      if (range[1] <= begin) continue;
      const index from = range[0] < begin ? begin : range[0] < end ? range[0] : end;
      const index to = range[1] < end ? range[1] : end;
      each_side(begin, from, update);
      keep(from, to);
      begin = to;
    }
    each_side(begin, end, update);
  }

 private:
  template <class F>
  void each_side(index begin, index end, F update) const {
    const index decayed = decay != 0 ? given.decay_end : 0;
    const index middle = decayed < begin ? begin : decayed < end ? decayed : end;
    if (begin < middle) {
      if (given.decoupled)
        update(begin, middle, Decayed<Decay::move>());
      else
        update(begin, middle, Decayed<Decay::gradient>());
    }
    if (middle < end) update(middle, end, Decayed<Decay::none>());
  }
};

// Updates elements [begin, end). The bits of `Set` are the flags, then the optional slots, which come after the first
// kAlways slots.
template <class Rule, class Set, Decay kDecay, int kAlways, class A, class Given, int... kSlot, int... kFlag>
void update_piece(const Step<A, Given>& step, index begin, index end, std::integer_sequence<int, kSlot...>,
                  std::integer_sequence<int, kFlag...>) {
  const Given& given = step.given;
  constexpr bool kHas[] = {(kSlot < kAlways || Set::has(Given::kFlags + kSlot - kAlways))...};
  constexpr bool kFlagged[] = {Set::has(kFlag)..., false};
  const Rule rule(Setup<A>{step.row + 1, given.settings, kFlagged, kHas});
  const A rate = *step.row, factor = step.factor;
  const A decay = kDecay == Decay::gradient ? step.decay : A(0), shrinking = kDecay == Decay::move ? step.decay : A(0);
  const A *p = given.parameters, *g = given.gradients, *const old[] = {given.slots[kSlot]...};
  A *new_p = given.new_parameters, *const now[] = {given.new_slots[kSlot]...};
#pragma GCC ivdep
  for (index i = begin; i < end; ++i) {
    A parameter = p[i], slot[] = {kHas[kSlot] ? old[kSlot][i] : A(0)...};
    update_element(rule, rate, g[i], factor, decay, shrinking, parameter, slot);
    new_p[i] = parameter;
    ((kHas[kSlot] ? void(now[kSlot][i] = slot[kSlot]) : void()), ...);
  }
}

template <class Rule, class A, class Given, int kOptional>
void update(const Arguments& a, index begin, index end, Worker&) {
  constexpr int kSlots = Given::kSlots, kFlags = Given::kFlags, kAlways = kSlots - kOptional;
  const Step<A, Given> step(a);
  unsigned set = 0;
  for (int f = 0; f < kFlags; ++f) set |= unsigned(step.given.flags[f]) << f;
  for (int s = kAlways; s < kSlots; ++s) set |= unsigned(step.given.slots[s] != nullptr) << (kFlags + s - kAlways);
  step.each_piece(begin, end, [&](index from, index to, auto decayed) {
    choose<kFlags + kOptional>(set, [&](auto bits) {
      update_piece<Rule, decltype(bits), decltype(decayed)::value, kAlways>(
          step, from, to, std::make_integer_sequence<int, kSlots>(), std::make_integer_sequence<int, kFlags>());
    });
  });
}

// -- averages and counts

// Sets out[begin:end] = decay averaged + (1 - decay) values if ok, else averaged.
template <class A>
void average(const Arguments& arguments, index begin, index end, Worker&) {
  const layout::Average<A> a(arguments);
  const A *averaged = a.averaged, *values = a.values;
  A* out = a.out;
  if (!*a.ok) {
    if (begin < end && out != averaged) memcpy(out + begin, averaged + begin, size_t(end - begin) * sizeof(A));
    return;
  }
  const A decay = A(a.decay), rest = A(1 - a.decay);
#pragma GCC ivdep
  for (index i = begin; i < end; ++i) out[i] = averaged_with(averaged[i], values[i], decay, rest);
}

// Advances the counters (5), and the cursor (2) of the data set unless it is null.
void count_step(const Arguments& arguments, index, index, Worker&) {
  const layout::CountStep a(arguments);
  advance_counters(a.counters, *a.ok, a.new_counters);
  if (!a.cursor) return;
  a.new_cursor[0] = a.cursor[0] + a.rows;
  a.new_cursor[1] = a.cursor[1] + 1;
}

template <class A>
void add_epoch_sums(const Arguments& arguments, index, index, Worker&) {
  const layout::AddEpochSums<A> a(arguments);
  add_step_sums(a.sums, double(*a.value), double(*a.divisor), *a.correct, double(a.rows), *a.ok, a.out);
}

}  // namespace

#define BNENGINE_ENTRIES(OP, RULE_OF, OPTIONAL)                                         \
  {#OP "<float>", update<RULE_OF<float>, float, layout::RULE_OF<float>, OPTIONAL>},    \
      {#OP "<double>", update<RULE_OF<double>, double, layout::RULE_OF<double>, OPTIONAL>},

const Entry* entries() {
  static const Entry table[] = {
      {"check_chunks<float>", check_chunks<float>},
      {"check_chunks<double>", check_chunks<double>},
      {"check_step<float>", check_step<float>},
      {"check_step<double>", check_step<double>},
      BNENGINE_OPTIMIZERS(BNENGINE_ENTRIES)
      {"average<float>", average<float>},
      {"average<double>", average<double>},
      {"count_step", count_step},
      {"add_epoch_sums<float>", add_epoch_sums<float>},
      {"add_epoch_sums<double>", add_epoch_sums<double>},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
