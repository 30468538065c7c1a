// The rule of one element: what CUDA and C++ compute in the same way. A is the arithmetic type, float or double.
//
// The formulas are those of bnengine/ops, whose references these must agree with, NaN and infinity included: relu is
// `z < 0 ? 0 : z` and never fmax, which drops NaN.
#pragma once

#if defined(__CUDACC__)
#define RULE __host__ __device__ __forceinline__
#else
#define RULE inline
#endif
#ifndef __CUDACC_RTC__
#include <math.h>
#endif

namespace bnengine {

// -- functions that a platform may bring its own versions of

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

enum class Activation { identity, relu, leaky_relu, sigmoid, tanh, gelu };

template <class A>
RULE A normal_cdf(A z) {
  return (1 + error_function(z * A(0.70710678118654752440))) * A(0.5);
}

template <class A>
RULE A normal_density(A z) {
  return exponential(z * z * A(-0.5)) * A(0.39894228040143267794);
}

template <Activation G, class A>
RULE A activate(A z, A slope) {
  if constexpr (G == Activation::relu) return z < 0 ? A(0) : z;
  if constexpr (G == Activation::leaky_relu) return z < 0 ? z * slope : z;
  if constexpr (G == Activation::sigmoid) {
    const A small = exponential(-magnitude(z));  // never overflows
    return (z < 0 ? small : A(1)) / (1 + small);
  }
  if constexpr (G == Activation::tanh) return hyperbolic_tangent(z);
  if constexpr (G == Activation::gelu) return z * normal_cdf(z);
  return z;
}

// y > 0, told from the bits: a comparison may take subnormal numbers for 0 (-ftz=true).
RULE bool positive(float y) {
  union {
    float value;
    unsigned bits;
  } given{y};
  return given.bits - 1 < 0x7f800000u;
}
RULE bool positive(double y) { return y > 0; }

// dz = dy g'(z), told from y = g(z); gelu alone is told from z.
template <Activation G, class A>
RULE A derivative(A dy, A y, A z, A slope) {
  if constexpr (G == Activation::relu) return positive(y) ? dy : A(0);
  if constexpr (G == Activation::leaky_relu) return positive(y) ? dy : dy * slope;
  if constexpr (G == Activation::sigmoid) return dy * (y * (1 - y));
  if constexpr (G == Activation::tanh) return dy * (1 - y * y);
  if constexpr (G == Activation::gelu) return dy * (normal_cdf(z) + z * normal_density(z));
  return dy;
}

// -- statistics: (count, mean, sum of squared differences from the mean) of some rows of one channel

struct Moment {
  double count, mean, squares;
};

// Chan, Golub and LeVeque (1979). `share` is b.count / (a.count + b.count), the same for all channels.
RULE void merge(Moment& a, const Moment& b, double share) {
  const double delta = b.mean - a.mean;
  a.mean += delta * share;
  a.squares += b.squares + delta * delta * (a.count * share);
  a.count += b.count;
}

RULE void merge(Moment& a, const Moment& b) {
  if (b.count > 0) merge(a, b, b.count / (a.count + b.count));
}

// The moments of a block of N rows about the block's own mean, p + shift with p a rounded mean: no large mean cancels, and
// no outlier elsewhere costs digits. N is a power of two, so that divisions by it are exact.
template <class A>
struct Block {
  A pivot, shift, squares;
};

template <int N, class A>
RULE Block<A> block_of(const A (&x)[N]) {
  constexpr A kShare = A(1) / N;
  A pivot = 0, sum = 0, squares = 0;
#pragma unroll
  for (int k = 0; k < N; ++k) pivot += x[k] * kShare;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const A d = x[k] - pivot;
    sum += d;
    squares += d * d;
  }
  const A shift = sum * kShare, rest = squares - shift * sum;
  return {pivot, shift, rest < 0 ? A(0) : rest};
}

// Statistics as they are stored: (count, mean, biased variance).
struct Statistic {
  double count, mean, var;
};

RULE Statistic statistic_of(const Moment& m) { return {m.count, m.mean, m.squares / m.count}; }

RULE Statistic merged(const Statistic& a, const Statistic& b) {
  if (!(b.count > 0)) return a;
  if (!(a.count > 0)) return b;
  const double n = a.count + b.count, share = b.count / n, delta = b.mean - a.mean;
  return {n, a.mean + delta * share, a.var + share * (b.var - a.var) + delta * delta * share * (1 - share)};
}

// Running statistics after a step with a proposal; decay -1 merges exactly.
RULE Statistic committed(const Statistic& running, const Statistic& proposal, double decay, bool unbiased) {
  if (!(proposal.count > 0)) return running;
  if (decay < 0) return merged(running, proposal);
  const double n = proposal.count, correction = unbiased && n > 1 ? n / (n - 1) : 1.0;
  return {running.count + n, decay * running.mean + (1 - decay) * proposal.mean,
          decay * running.var + (1 - decay) * (proposal.var * correction)};
}

// The mean as a pair of numbers, so that a large one does not cancel, and 1 / sqrt(var + eps).
template <class A>
struct Centre {
  A hi, lo, inv_std;
  RULE A normalized(A x) const { return ((x - hi) - lo) * inv_std; }
};
template <class A>
RULE Centre<A> centre_of(double mean, double var, double eps) {
  const A hi = A(mean);
  return {hi, A(mean - double(hi)), A(1 / square_root(var + eps))};
}

// -- optimizers: the new values of one parameter and its state

template <class A>
RULE A effective_gradient(A g, A factor, A p, A decay) {
  return decay != 0 ? g * factor + p * decay : g * factor;
}

template <class A>
struct Sgd {
  A rate, momentum;
  bool nesterov;
  RULE void operator()(A g, A& p, A& velocity) const {
    velocity = velocity * momentum + g;
    p = p - rate * (nesterov ? g + momentum * velocity : velocity);
  }
};

template <class A>
struct Rmsprop {
  A rate, rho, rest, eps, momentum;  // rest = 1 - rho, rounded once
  bool eps_inside, centred;
  RULE void operator()(A g, A& p, A& square, A& mean, A& velocity) const {
    square = square * rho + g * g * rest;
    mean = mean * rho + g * rest;
    A spread = centred ? square - mean * mean : square;
    spread = spread > 0 ? spread : A(0);  // rounding can leave a difference below 0
    const A divisor = eps_inside ? square_root(spread + eps) : square_root(spread) + eps;
    velocity = velocity * momentum + g / divisor;
    p = p - rate * velocity;
  }
};

template <class A>
struct Adam {
  A rate, c1, c2, beta1, rest1, beta2, rest2, eps;  // rest = 1 - beta, rounded once
  bool amsgrad;
  RULE void operator()(A g, A decay, A& p, A& m, A& v, A& largest) const {
    m = m * beta1 + g * rest1;
    v = v * beta2 + g * g * rest2;
    largest = v > largest ? v : largest;
    A move = m / c1 / (square_root((amsgrad ? largest : v) / c2) + eps);
    if (decay != 0) move = move + p * decay;
    p = p - rate * move;
  }
};

// -- random numbers: Philox 4x32-10 (Salmon et al. 2011)

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

// -- losses: the value of one element

template <class A>
RULE A binary_surprise(A logit, A target) {
  const A positive = logit < 0 ? A(0) : logit;
  return positive - logit * target + log_of_one_plus(exponential(-magnitude(logit)));
}

}  // namespace bnengine
