// What ends an optimizer step: judge it, update the flat buffers, count it. The rules are those of kernels/rules.h.
//
// Every rule is `ok ? new : old`, with ok in memory: a skipped step leaves every bit as it was. Results may go to the arrays
// that they were computed from. Flat arrays are cut anywhere.
#include <string.h>

#include "abreast.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

// -- judge

// partial[c] = (the sum of squares of a chunk of gradients, how many of a chunk of proposals are not finite), for chunks
// [begin, end). Arrays: gradients, proposals, partial (chunks, 2). Integers: gradients, those of a chunk, proposals, those
// of a chunk.
template <class A>
void judge_chunks(const Arguments& a, index begin, index end, Worker&) {
  const A* g = static_cast<const A*>(a.arrays[0]);
  const double* proposals = static_cast<const double*>(a.arrays[1]);
  double* partial = static_cast<double*>(a.arrays[2]);
  const index size = a.integers[0], chunk = a.integers[1], proposed = a.integers[2], some = a.integers[3];
  const auto least = [](index x, index y) { return x < y ? x : y; };
  for (index c = begin; c < end; ++c) {
    partial[2 * c] = sum_abreast(least(size, c * chunk), least(size, (c + 1) * chunk),
                                 [g](index i) { return double(g[i]) * double(g[i]); });
    partial[2 * c + 1] = sum_abreast(least(proposed, c * some), least(proposed, (c + 1) * some),
                                     [proposals](index i) { return finite(proposals[i]) ? 0.0 : 1.0; });
  }
}

// Arrays: loss, partial (chunks, 2), scaling or null, ok, norm, factor, the new scaling. Integers: chunks, every. Reals:
// clip, infinite for none; growth, backoff.
template <class A>
void judge(const Arguments& a, index, index, Worker&) {
  const double* partial = static_cast<const double*>(a.arrays[1]);
  const A* scaling = static_cast<const A*>(a.arrays[2]);
  const index chunks = a.integers[0];
  const double squares = sum_abreast(0, chunks, [partial](index c) { return partial[2 * c]; });
  const double unsound = sum_abreast(0, chunks, [partial](index c) { return partial[2 * c + 1]; });
  const bool sound = finite(double(*static_cast<const A*>(a.arrays[0]))) && unsound == 0;
  const Verdict<A> verdict = verdict_of<A>(squares, sound, scaling ? double(scaling[0]) : 1, a.reals[0]);
  *static_cast<bool*>(a.arrays[3]) = verdict.ok;
  *static_cast<double*>(a.arrays[4]) = verdict.norm;
  *static_cast<A*>(a.arrays[5]) = verdict.factor;
  if (scaling)
    rescale(scaling, static_cast<A*>(a.arrays[6]), verdict.ok, verdict.overflown, A(a.reals[1]), A(a.reals[2]),
            A(a.integers[1]));
}

// -- optimizers

template <bool kValue>
struct Is {
  static constexpr bool value = kValue;
};

// Calls f(Is<flag>): loops whose options are constants.
template <class F>
void choose(bool flag, F f) {
  if (flag)
    f(Is<true>());
  else
    f(Is<false>());
}

// The arguments that optimizers share. Arrays: table, counters, ok, factor; parameters, gradients and slots of the state; new
// parameters and slots; a slot that a variant lacks is null. Integers: rows of the table, border, a flag, how many ranges are
// frozen, and their begins and ends, sorted. The first real is the weight decay.
template <class A, int kSlots>
struct Step {
  const Arguments& given;
  const A* row;
  A factor, decay;
  bool ok;

  Step(const Arguments& a, int columns)
      : given(a),
        row(next_row(static_cast<const A*>(a.arrays[0]), static_cast<const index*>(a.arrays[1]), a.integers[0], columns)),
        factor(*static_cast<const A*>(a.arrays[3])),
        decay(A(a.reals[0])),
        ok(*static_cast<const bool*>(a.arrays[2])) {}

  bool flag() const { return given.integers[2] != 0; }
  const A* parameters() const { return static_cast<const A*>(given.arrays[4]); }
  const A* gradients() const { return static_cast<const A*>(given.arrays[5]); }
  const A* slot(int s) const { return static_cast<const A*>(given.arrays[6 + s]); }
  A* new_parameters() const { return static_cast<A*>(given.arrays[6 + kSlots]); }
  A* new_slot(int s) const { return static_cast<A*>(given.arrays[7 + kSlots + s]); }

  // Elements [begin, end) stay what they are.
  void keep(index begin, index end) const {
    const auto moved = [&](const A* from, A* to) {
      if (begin < end && from && from != to) memcpy(to + begin, from + begin, size_t(end - begin) * sizeof(A));
    };
    moved(parameters(), new_parameters());
    for (int s = 0; s < kSlots; ++s) moved(slot(s), new_slot(s));
  }

  // Calls update(begin, end, Is<decayed>) for the pieces of a block that change.
  template <class F>
  void each_piece(index begin, index end, F update) const {
    if (!ok) return keep(begin, end);
    const index *range = given.integers + 4, *const last = range + 2 * given.integers[3];
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
    const index border = decay != 0 ? given.integers[1] : 0, middle = border < begin ? begin : border < end ? border : end;
    if (begin < middle) update(begin, middle, Is<true>());
    if (middle < end) update(middle, end, Is<false>());
  }
};

// The flag: Nesterov's. Reals: weight decay, momentum.
template <class A>
void sgd(const Arguments& a, index begin, index end, Worker&) {
  const Step<A, 1> step(a, 1);
  const A rate = *step.row, momentum = A(a.reals[1]), factor = step.factor, decay = step.decay;
  const A *p = step.parameters(), *g = step.gradients(), *v = step.slot(0);
  A *new_p = step.new_parameters(), *new_v = step.new_slot(0);
  const auto update = [&](index from, index to, auto decayed, auto nesterov, auto moving) {
    const Sgd<A> rule = {rate, momentum, nesterov.value};
#pragma GCC ivdep
    for (index i = from; i < to; ++i) {
      A parameter = p[i], velocity = moving.value ? v[i] : A(0);
      rule(effective_gradient(g[i], factor, parameter, decayed.value ? decay : A(0)), parameter, velocity);
      new_p[i] = parameter;
      if (moving.value) new_v[i] = velocity;
    }
  };
  step.each_piece(begin, end, [&](index from, index to, auto decayed) {
    choose(step.flag(), [&](auto nesterov) {
      choose(v != nullptr, [&](auto moving) { update(from, to, decayed, nesterov, moving); });
    });
  });
}

// The flag: eps inside the root. Reals: weight decay, rho, eps, momentum. Slots: square, mean, velocity.
template <class A>
void rmsprop(const Arguments& a, index begin, index end, Worker&) {
  const Step<A, 3> step(a, 1);
  const A rate = *step.row, rho = A(a.reals[1]), rest = A(1 - a.reals[1]), eps = A(a.reals[2]), momentum = A(a.reals[3]);
  const A factor = step.factor, decay = step.decay;
  const A *p = step.parameters(), *g = step.gradients(), *s = step.slot(0), *m = step.slot(1), *v = step.slot(2);
  A *new_p = step.new_parameters(), *new_s = step.new_slot(0), *new_m = step.new_slot(1), *new_v = step.new_slot(2);
  const auto update = [&](index from, index to, auto decayed, auto inside, auto centred, auto moving) {
    const Rmsprop<A> rule = {rate, rho, rest, eps, momentum, inside.value, centred.value};
#pragma GCC ivdep
    for (index i = from; i < to; ++i) {
      A parameter = p[i], square = s[i], mean = centred.value ? m[i] : A(0), velocity = moving.value ? v[i] : A(0);
      const A slope = effective_gradient(g[i], factor, parameter, decayed.value ? decay : A(0));
      rule(slope, parameter, square, mean, velocity);
      new_p[i] = parameter;
      new_s[i] = square;
      if (centred.value) new_m[i] = mean;
      if (moving.value) new_v[i] = velocity;
    }
  };
  step.each_piece(begin, end, [&](index from, index to, auto decayed) {
    choose(step.flag(), [&](auto inside) {
      choose(m != nullptr, [&](auto centred) {
        choose(v != nullptr, [&](auto moving) { update(from, to, decayed, inside, centred, moving); });
      });
    });
  });
}

// The flag: decoupled, weight decay shrinks p instead of entering the gradient. Table rows are (rate, c1, c2). Reals: weight
// decay, beta1, beta2, eps. Slots: m, v, largest.
template <class A>
void adam(const Arguments& a, index begin, index end, Worker&) {
  const Step<A, 3> step(a, 3);
  const A rate = step.row[0], unbiased1 = 1 / step.row[1], unbiased2 = 1 / step.row[2], eps = A(a.reals[3]);
  const A beta1 = A(a.reals[1]), rest1 = A(1 - a.reals[1]), beta2 = A(a.reals[2]), rest2 = A(1 - a.reals[2]);
  const A factor = step.factor, decay = step.decay;
  const A *p = step.parameters(), *g = step.gradients(), *m = step.slot(0), *v = step.slot(1), *most = step.slot(2);
  A *new_p = step.new_parameters(), *new_m = step.new_slot(0), *new_v = step.new_slot(1), *new_most = step.new_slot(2);
  const auto update = [&](index from, index to, auto decayed, auto decoupled, auto amsgrad) {
    const Adam<A> rule = {rate, unbiased1, unbiased2, beta1, rest1, beta2, rest2, eps, amsgrad.value};
    const A l2 = decayed.value && !decoupled.value ? decay : A(0), shrinks = decayed.value && decoupled.value ? decay : A(0);
#pragma GCC ivdep
    for (index i = from; i < to; ++i) {
      A parameter = p[i], first = m[i], second = v[i], largest = amsgrad.value ? most[i] : A(0);
      rule(effective_gradient(g[i], factor, parameter, l2), shrinks, parameter, first, second, largest);
      new_p[i] = parameter;
      new_m[i] = first;
      new_v[i] = second;
      if (amsgrad.value) new_most[i] = largest;
    }
  };
  step.each_piece(begin, end, [&](index from, index to, auto decayed) {
    choose(step.flag(), [&](auto decoupled) {
      choose(most != nullptr, [&](auto amsgrad) { update(from, to, decayed, decoupled, amsgrad); });
    });
  });
}

// -- averages and counts

// out[begin:end] = decay averaged + (1 - decay) values, where ok. Arrays: ok, averaged, values, out. Reals: decay.
template <class A>
void average(const Arguments& a, index begin, index end, Worker&) {
  const A *averaged = static_cast<const A*>(a.arrays[1]), *values = static_cast<const A*>(a.arrays[2]);
  A* out = static_cast<A*>(a.arrays[3]);
  if (!*static_cast<const bool*>(a.arrays[0])) {
    if (begin < end && out != averaged) memcpy(out + begin, averaged + begin, size_t(end - begin) * sizeof(A));
    return;
  }
  const A decay = A(a.reals[0]), rest = A(1 - a.reals[0]);
#pragma GCC ivdep
  for (index i = begin; i < end; ++i) out[i] = averaged_with(averaged[i], values[i], decay, rest);
}

// Arrays: ok, counters (5), cursor (2) or null, the new ones. Integers: rows.
void advance(const Arguments& a, index, index, Worker&) {
  const index* cursor = static_cast<const index*>(a.arrays[2]);
  index* moved = static_cast<index*>(a.arrays[4]);
  count_step(static_cast<const index*>(a.arrays[1]), *static_cast<const bool*>(a.arrays[0]),
             static_cast<index*>(a.arrays[3]));
  if (!cursor) return;
  moved[0] = cursor[0] + a.integers[0];
  moved[1] = cursor[1] + 1;
}

// Arrays: value, normaliser, hits, ok, sums (4), the new sums. Integers: rows.
template <class A>
void tally(const Arguments& a, index, index, Worker&) {
  tally_step(static_cast<const double*>(a.arrays[4]), double(*static_cast<const A*>(a.arrays[0])),
             double(*static_cast<const A*>(a.arrays[1])), *static_cast<const double*>(a.arrays[2]), double(a.integers[0]),
             *static_cast<const bool*>(a.arrays[3]), static_cast<double*>(a.arrays[5]));
}

}  // namespace

const Entry* entries() {
  static const Entry table[] = {
      {"judge_chunks<float>", judge_chunks<float>},
      {"judge_chunks<double>", judge_chunks<double>},
      {"judge<float>", judge<float>},
      {"judge<double>", judge<double>},
      {"sgd<float>", sgd<float>},
      {"sgd<double>", sgd<double>},
      {"rmsprop<float>", rmsprop<float>},
      {"rmsprop<double>", rmsprop<double>},
      {"adam<float>", adam<float>},
      {"adam<double>", adam<double>},
      {"average<float>", average<float>},
      {"average<double>", average<double>},
      {"advance", advance},
      {"tally<float>", tally<float>},
      {"tally<double>", tally<double>},
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
