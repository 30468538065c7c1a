// Formulas for single elements, shared by the CUDA and the C++ kernels. A is the arithmetic type, float or double.
//
// They must agree with the references in bnengine/ops, NaN and infinity included: relu is `z < 0 ? 0 : z` and never
// fmax, which drops NaN.
#pragma once

#if defined(__CUDACC__)
#define RULE __host__ __device__ __forceinline__
#elif defined(BNENGINE_OWN_FUNCTIONS)
#define RULE inline __attribute__((always_inline))  // loops over elements vectorize only if it is inlined
#else
#define RULE inline
#endif
#ifndef __CUDACC_RTC__
#include <math.h>
#endif

namespace bnengine {

// -- elementary functions; a file that defines BNENGINE_OWN_FUNCTIONS brings its own versions of the first ones

#ifndef BNENGINE_OWN_FUNCTIONS
RULE float exponential(float x) { return expf(x); }
RULE double exponential(double x) { return exp(x); }
RULE float logarithm(float x) { return logf(x); }
RULE double logarithm(double x) { return log(x); }
RULE float log_of_one_plus(float x) { return log1pf(x); }
RULE double log_of_one_plus(double x) { return log1p(x); }
RULE float hyperbolic_tangent(float x) { return tanhf(x); }
RULE double hyperbolic_tangent(double x) { return tanh(x); }
RULE float error_function(float x) { return erff(x); }
RULE double error_function(double x) { return erf(x); }
#endif
RULE float square_root(float x) { return sqrtf(x); }
RULE double square_root(double x) { return sqrt(x); }

RULE float magnitude(float x) { return fabsf(x); }
RULE double magnitude(double x) { return fabs(x); }

RULE bool finite(double x) { return x - x == 0; }

// -- activations and their derivatives

// One row per activation: its name, what its derivative reads (nothing, the output y or the input z), y = g(z), and
// dz = dy g'(z). z, y, dy and slope have type A. bnengine/ops/activations.py has the same rows.
#define ACTIVATIONS(ROW)                                                                        \
  ROW(identity, nothing, z, dy)                                                                 \
  ROW(relu, y, z < 0 ? A(0) : z, positive(y) ? dy : A(0))                                       \
  ROW(leaky_relu, y, z < 0 ? z * slope : z, positive(y) ? dy : dy * slope)                      \
  ROW(sigmoid, y, logistic(z), dy * (y * (1 - y)))                                              \
  ROW(tanh, y, hyperbolic_tangent(z), dy * (1 - y * y))                                         \
  ROW(gelu, z, z * normal_cdf(z), dy * (normal_cdf(z) + z * normal_density(z)))                 \
  ROW(silu, z, z * logistic(z), dy * (logistic(z) * (1 + z * logistic(-z))))

template <class A>
RULE A logistic(A z) {
  const A small = exponential(-magnitude(z));  // never overflows
  return (z < 0 ? small : A(1)) / (1 + small);
}

template <class A>
RULE A normal_cdf(A z) {
  return (1 + error_function(z * A(0.70710678118654752440))) * A(0.5);
}

template <class A>
RULE A normal_density(A z) {
  return exponential(z * z * A(-0.5)) * A(0.39894228040143267794);
}

// Returns y > 0 from the bits: with -ftz=true a comparison treats subnormal numbers as 0.
RULE bool positive(float y) {
  union {
    float value;
    unsigned bits;
  } given{y};
  return given.bits - 1 < 0x7f800000u;
}
RULE bool positive(double y) { return y > 0; }

#define NAME_OF(NAME, READS, VALUE, DERIVATIVE) NAME,
#define READS_OF(NAME, READS, VALUE, DERIVATIVE) Reads::READS,
#define VALUE_OF(NAME, READS, VALUE, DERIVATIVE) \
  if constexpr (G == Activation::NAME) return VALUE;
#define DERIVATIVE_OF(NAME, READS, VALUE, DERIVATIVE) \
  if constexpr (G == Activation::NAME) return DERIVATIVE;

enum class Activation { ACTIVATIONS(NAME_OF) };
enum class Reads { nothing, y, z };
constexpr Reads kReads[] = {ACTIVATIONS(READS_OF)};
template <Activation G>
constexpr bool kNeedsY = kReads[int(G)] == Reads::y;
template <Activation G>
constexpr bool kNeedsZ = kReads[int(G)] == Reads::z;

template <Activation G, class A>
RULE A activate(A z, A slope) {
  ACTIVATIONS(VALUE_OF)
  return z;
}

template <Activation G, class A>
RULE A derivative(A dy, A y, A z, A slope) {
  ACTIVATIONS(DERIVATIVE_OF)
  return dy;
}

#undef NAME_OF
#undef READS_OF
#undef VALUE_OF
#undef DERIVATIVE_OF

// -- statistics

// (count, mean, sum of squared differences from the mean) of some rows of one channel.
struct Moment {
  double count, mean, squares;
};

// Merges b into a (Chan, Golub and LeVeque 1979). `share` is b.count / (a.count + b.count); it is the same for all
// channels, so callers divide once.
RULE void merge(Moment& a, const Moment& b, double share) {
  const double delta = b.mean - a.mean;
  a.mean += delta * share;
  a.squares += b.squares + delta * (a.count * share) * delta;  // 0 rows add 0, though delta^2 may overflow
  a.count += b.count;
}

RULE void merge(Moment& a, const Moment& b) {
  if (b.count > 0) merge(a, b, b.count / (a.count + b.count));
}

// The moments of a block of N rows. The block's mean is pivot + shift, where pivot is a rounded mean and shift corrects
// it; squares are about pivot + shift. A large mean therefore does not cancel, and outliers in other blocks cost no
// precision. N is a power of two, so that divisions by it are exact.
template <class A>
struct Block {
  A pivot, shift, squares;
};

template <int N, class A>
RULE A mean_of(const A (&x)[N]) {
  constexpr A kShare = A(1) / N;
  A mean = 0;
#pragma unroll
  for (int k = 0; k < N; ++k) mean += x[k] * kShare;
  return mean;
}

template <int N, class A>
RULE Block<A> block_about(const A (&x)[N], A pivot) {
  constexpr A kShare = A(1) / N;
  A sum = 0, squares = 0;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const A d = x[k] - pivot;
    sum += d;
    squares += d * d;
  }
  const A shift = sum * kShare, rest = squares - shift * sum;
  // If squares overflow, rest is inf - inf = NaN: return squares (inf). NaN inputs stay NaN.
  return {pivot, shift, rest < 0 ? A(0) : rest == rest ? rest : squares};
}

template <int N, class A>
RULE Block<A> block_of(const A (&x)[N]) {
  return block_about(x, mean_of(x));
}

RULE double median(double a, double b, double c) {
  if ((a <= b) == (b <= c)) return b;
  return (b < a) == (a <= c) ? a : c;
}

// Stored statistics of one channel: (count, mean, biased variance).
struct Statistic {
  double count, mean, var;
};

RULE Statistic statistic_of(const Moment& m) { return {m.count, m.mean, m.squares / m.count}; }

// Returns the statistics of the union of two samples.
RULE Statistic merged(const Statistic& a, const Statistic& b) {
  if (!(b.count > 0)) return a;
  if (!(a.count > 0)) return b;
  const double n = a.count + b.count, share = b.count / n, delta = b.mean - a.mean;
  return {n, a.mean + delta * share, a.var + share * (b.var - a.var) + delta * delta * share * (1 - share)};
}

// Returns the running statistics after a step with these pending statistics. A negative decay means an exact merge.
RULE Statistic committed(const Statistic& running, const Statistic& pending, double decay, bool unbiased) {
  if (!(pending.count > 0)) return running;
  if (decay < 0) return merged(running, pending);
  const double n = pending.count, correction = unbiased && n > 1 ? n / (n - 1) : 1.0;
  return {running.count + n, decay * running.mean + (1 - decay) * pending.mean,
          decay * running.var + (1 - decay) * (pending.var * correction)};
}

// The mean as an unevaluated sum hi + lo, so that x - mean is precise even if the mean is large, and
// inv_std = 1 / sqrt(var + eps).
template <class A>
struct Center {
  A hi, lo, inv_std;
  RULE A normalized(A x) const { return ((x - hi) - lo) * inv_std; }
};
template <class A>
RULE Center<A> center_of(double mean, double var, double eps) {
  const A hi = A(mean);
  return {hi, A(mean - double(hi)), A(1 / square_root(var + eps))};
}

// dx = gamma inv_std (dz - dbeta / m - x_norm dgamma / m) for m rows, or gamma inv_std dz if the statistics are
// constants (running statistics). through_mean = dbeta / m, through_var = dgamma / m, scale = gamma inv_std.
template <class A>
RULE A input_gradient(A dz, A x_norm, A through_mean, A through_var, A scale, bool batch_statistics) {
  return (batch_statistics ? dz - through_mean - x_norm * through_var : dz) * scale;
}

// -- optimizers: a rule returns the move of one parameter, in units of the learning rate, and updates its slots

// X(op, rule, number of optional slots, which come last). The op's row in bnengine/ops/update.py names its slots,
// settings (numeric options) and flags (Boolean options).
#define BNENGINE_OPTIMIZERS(X) \
  X(sgd, Sgd, 1)               \
  X(rmsprop, Rmsprop, 2)       \
  X(adam, Adam, 1)             \
  X(lion, Lion, 0)

// The inputs of a rule's constructor: the scalars of the step after the learning rate, settings, flags, and which slots
// exist. A missing slot reads as 0 in each step.
template <class A>
struct Setup {
  const A* scalars;
  const double* settings;
  const bool *flags, *has;
};

template <class A>
struct Sgd {
  A momentum;
  bool nesterov;
  RULE explicit Sgd(const Setup<A>& s) : momentum(A(s.settings[0])), nesterov(s.flags[0]) {}
  RULE A operator()(A g, A* slot) const {
    A& velocity = slot[0];
    velocity = velocity * momentum + g;
    return nesterov ? g + momentum * velocity : velocity;
  }
};

template <class A>
struct Rmsprop {
  A rho, rest, eps, momentum;  // rest = 1 - rho, rounded once
  bool eps_inside, centered;
  RULE explicit Rmsprop(const Setup<A>& s)
      : rho(A(s.settings[0])), rest(A(1 - s.settings[0])), eps(A(s.settings[1])), momentum(A(s.settings[2])),
        eps_inside(s.flags[0]), centered(s.has[1]) {}
  RULE A operator()(A g, A* slot) const {
    A &square = slot[0], &mean = slot[1], &velocity = slot[2];
    square = square * rho + g * g * rest;
    mean = mean * rho + g * rest;
    A spread = centered ? square - mean * mean : square;
    spread = spread > 0 ? spread : A(0);  // rounding can make the difference negative
    const A divisor = eps_inside ? square_root(spread + eps) : square_root(spread) + eps;
    velocity = velocity * momentum + g / divisor;
    return velocity;
  }
};

template <class A>
struct Adam {
  A unbiased1, unbiased2;  // 1 / c: a division per element would cost as much as all other operations
  A beta1, rest1, beta2, rest2, eps;  // rest = 1 - beta, rounded once
  bool amsgrad;
  RULE explicit Adam(const Setup<A>& s)
      : unbiased1(1 / s.scalars[0]), unbiased2(1 / s.scalars[1]), beta1(A(s.settings[0])), rest1(A(1 - s.settings[0])),
        beta2(A(s.settings[1])), rest2(A(1 - s.settings[1])), eps(A(s.settings[2])), amsgrad(s.has[2]) {}
  RULE A operator()(A g, A* slot) const {
    A &m = slot[0], &v = slot[1], &largest = slot[2];
    m = m * beta1 + g * rest1;
    v = v * beta2 + g * g * rest2;
    largest = v > largest ? v : largest;
    return m * unbiased1 / (square_root((amsgrad ? largest : v) * unbiased2) + eps);
  }
};

template <class A>
struct Lion {
  A beta1, rest1, beta2, rest2;  // rest = 1 - beta, rounded once
  RULE explicit Lion(const Setup<A>& s)
      : beta1(A(s.settings[0])), rest1(A(1 - s.settings[0])), beta2(A(s.settings[1])), rest2(A(1 - s.settings[1])) {}
  RULE A operator()(A g, A* slot) const {
    A& m = slot[0];
    const A c = m * beta1 + g * rest1;
    m = m * beta2 + g * rest2;
    return c > 0 ? A(1) : c < 0 ? A(-1) : c - c;  // c - c keeps NaN
  }
};

// Updates one element. Weight decay enters the gradient (`decay`) or, if decoupled, the move (`shrinking`); the other
// one is 0.
template <class Rule, class A>
RULE void update_element(const Rule& rule, A rate, A g, A factor, A decay, A shrinking, A& p, A* slot) {
  A move = rule(decay != 0 ? g * factor + p * decay : g * factor, slot);
  if (shrinking != 0) move = move + p * shrinking;
  p = p - rate * move;
}

// -- random numbers: Philox 4x32-10 (Salmon et al. 2011), four words per counter

struct Words {
  unsigned word[4];
};

RULE unsigned high_word(unsigned a, unsigned b) { return unsigned((unsigned long long)(a) * b >> 32); }

RULE Words philox(Words c, unsigned key0, unsigned key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = high_word(0xD2511F53u, c.word[0]), low0 = 0xD2511F53u * c.word[0];
    const unsigned high1 = high_word(0xCD9E8D57u, c.word[2]), low1 = 0xCD9E8D57u * c.word[2];
    c = {{high1 ^ c.word[1] ^ key0, low1, high0 ^ c.word[3] ^ key1, low0}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

// -- the end of an optimizer step: check, loss scale, counters

template <class A>
struct StepCheck {
  bool ok, overflown;  // overflown: only the gradients overflowed, so a smaller scale may help
  double norm;
  A factor;
};

// Checks a step. `squares` is the sum of squares of the scaled gradients, in double; `sound`: loss and pending
// statistics are finite; an infinite clip means no clipping. The clipped norm squared must not overflow A, because Adam
// and RMSprop store squares of gradients.
template <class A>
RULE StepCheck<A> verdict_of(double squares, bool sound, double scale, double clip) {
  constexpr double kLargest = sizeof(A) == 4 ? 1.844674352395373e19 : 1.3407807929942596e154;  // sqrt of A's maximum
  const double norm = square_root(squares) / scale;
  const bool usable = clip > kLargest ? norm <= kLargest : finite(norm);
  return {usable && sound, sound && !finite(norm), norm, A((norm > clip ? clip / norm : 1) / scale)};
}

// Computes the next loss scale. scaling = (scale, good steps since it changed, skipped in a row, longest such run). The
// limits are those of bnengine/ops/check_step.py. `out` may be `scaling`.
template <class A>
RULE void rescale(const A* scaling, A* out, bool ok, bool overflown, A growth, A backoff, A every) {
  constexpr A kSmallest = A(5.9604644775390625e-8), kLargest = A(18446744073709551616.0);  // 2^-24, 2^64
  const A scale = scaling[0], good = scaling[1], longest = scaling[3];
  const bool grows = ok && good + 1 >= every;
  A changed = overflown ? scale * backoff : grows ? scale * growth : scale;
  changed = changed < kSmallest ? kSmallest : changed > kLargest ? kLargest : changed;
  const bool excused = overflown && scale > 1 && changed < scale;  // the search for a scale does not count as failure
  const A in_a_row = ok ? A(0) : scaling[2] + A(!excused);
  out[0] = changed;
  out[1] = grows || overflown ? A(0) : ok ? good + 1 : good;
  out[2] = in_a_row;
  out[3] = in_a_row > longest ? in_a_row : longest;
}

// Returns the table row for the next step; after the last row, the last row again. I is an integer type.
template <class A, class I>
RULE const A* next_row(const A* table, const I* counters, I rows, int columns) {
  return table + (counters[1] < rows ? counters[1] : rows - 1) * columns;
}

// Counts a step. counters = (steps, row of the table, skipped steps, skipped in a row, longest such run). `out` may be
// `counters`.
template <class I>
RULE void advance_counters(const I* counters, bool ok, I* out) {
  const I good = ok, in_a_row = (counters[3] + 1) * (1 - good), longest = counters[4];
  out[0] = counters[0] + good;
  out[1] = counters[1] + good;
  out[2] = counters[2] + 1 - good;
  out[3] = in_a_row;
  out[4] = in_a_row > longest ? in_a_row : longest;
}

// Adds a good step to sums = (loss times its divisor, divisor, correct rows, rows) of the epoch. `out` may be `sums`.
RULE void add_step_sums(const double* sums, double value, double divisor, double correct, double rows, bool ok,
                        double* out) {
  const double more[4] = {value * divisor, divisor, correct, rows};
  for (int k = 0; k < 4; ++k) out[k] = ok ? sums[k] + more[k] : sums[k];
}

// Returns the exponential average after a step; rest = 1 - decay, rounded once.
template <class A>
RULE A averaged_with(A mean, A value, A decay, A rest) {
  return mean * decay + value * rest;
}

// -- losses

// Returns a target probability after label smoothing: kept = 1 - smoothing, spread = smoothing / classes.
template <class A>
RULE A smoothed(A plain, A kept, A spread) {
  return spread != 0 ? plain * kept + spread : plain;
}

// -log of the probability that sigmoid(logit) gives the target; this form does not overflow.
template <class A>
RULE A binary_surprise(A logit, A target) {
  const A positive = logit < 0 ? A(0) : logit;
  return positive - logit * target + log_of_one_plus(exponential(-magnitude(logit)));
}

// Elementwise losses: the value for one output, and its derivative (slope).
template <class A>
struct BinaryCrossEntropy {
  RULE A value(A logit, A target) const { return binary_surprise(logit, target); }
  RULE A slope(A logit, A target) const { return activate<Activation::sigmoid>(logit, A(0)) - target; }
};
template <class A>
struct SquaredError {
  RULE A value(A p, A target) const { return (p - target) * (p - target); }
  RULE A slope(A p, A target) const { return (p - target) * 2; }
};

}  // namespace bnengine
