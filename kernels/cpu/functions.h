// exp, log, log1p, tanh and erf of float and double without libm. They replace the functions of kernels/rules.h that
// depend on the platform's libm, which differs in bits and does not vectorize.
//
// No branch depends on a value, so loops over arrays compile to vector code. Every fused multiply-add is explicit, so
// an element has the same bits in scalar code, with AVX2 and with AVX-512. Errors are at most 2 units in the last place
// (tests/cpu/functions.json records those of all 2^32 floats); NaN, infinity, subnormal numbers and signed zero are
// handled correctly. The polynomials minimize the largest error; tests/cpu/coefficients.py derives them.
#pragma once
#include <stdint.h>

#define BNENGINE_OWN_FUNCTIONS
#define FUNCTION inline __attribute__((always_inline))  // a loop with a call is not vectorized

namespace bnengine {
namespace functions {

template <class T>
struct Format;
template <>
struct Format<float> {
  using Bits = uint32_t;
  static constexpr int kDigits = 23, kBias = 127;
  static constexpr float kShift = 0x1.8p23f;                       // the lowest bits of x + kShift are round(x)
  static constexpr float kCount = 0x1p23f;                         // the lowest bits of kCount + n are n, for n < 2^23
  static constexpr float kLog2Hi = 0x1.62e4p-1f;                   // its product with an exponent is exact
  static constexpr float kLog2Lo = 0x1.7f7d1cp-20f;
  static constexpr float kLeast = 0x1p-126f, kLift = 0x1p25f;      // smallest normal; kLift makes subnormals normal
  static constexpr int kLifted = 25;
  static constexpr float kExpLow = -104, kExpHigh = 89;            // outside, exp is 0 or infinite
  static constexpr float kLowered = 0x1p-64f;                      // 2^-kRaised; 2^kRaised makes any result normal
  static constexpr int kRaised = 64;
  static constexpr float kTanhOne = 10, kErfOne = 4;               // from here on tanh and erf round to 1
  static constexpr Bits kRootHalf = 0x3f3504f3;                    // the bits of sqrt(1/2)
};
template <>
struct Format<double> {
  using Bits = uint64_t;
  static constexpr int kDigits = 52, kBias = 1023;
  static constexpr double kShift = 0x1.8p52;
  static constexpr double kCount = 0x1p52;
  static constexpr double kLog2Hi = 0x1.62e42fefap-1;
  static constexpr double kLog2Lo = 0x1.cf79abc9e3b3ap-40;
  static constexpr double kLeast = 0x1p-1022, kLift = 0x1p54;
  static constexpr int kLifted = 54;
  static constexpr double kExpLow = -746, kExpHigh = 710;
  static constexpr double kLowered = 0x1p-512;
  static constexpr int kRaised = 512;
  static constexpr double kTanhOne = 20, kErfOne = 6;
  static constexpr Bits kRootHalf = 0x3fe6a09e667f3bcd;
};

template <class T>
using Bits = typename Format<T>::Bits;

FUNCTION float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FUNCTION double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
FUNCTION float absolute(float x) { return __builtin_fabsf(x); }
FUNCTION double absolute(double x) { return __builtin_fabs(x); }
FUNCTION float with_sign(float x, float sign) { return __builtin_copysignf(x, sign); }
FUNCTION double with_sign(double x, double sign) { return __builtin_copysign(x, sign); }

template <class To, class From>
FUNCTION To cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "a cast keeps all bits");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// Returns c0 + x (c1 + x (c2 + ...)).
template <class X, class T>
FUNCTION X polynomial(X, T c) {
  return X(c);
}
template <class X, class T, class... More>
FUNCTION X polynomial(X x, T c, More... more) {
  return fused(polynomial(x, more...), x, X(c));
}

// -- the polynomials: the approximated function, the interval, the error relative to the function (erf: absolute)

template <class T>
struct Coefficients;

template <>
struct Coefficients<float> {
  // (e^r - 1 - r) / r^2 for |r| <= log(2) / 2: 2^-28.3
  template <class X>
  static FUNCTION X exponential(X r) {
    return polynomial(r, 0.4999999341392316f, 0.16666520106201654f, 0.041668393942035746f, 0.00836878055703819f,
                      0.001381447947339738f);
  }
  // (2 artanh(s) - 2 s) / s^3, z = s^2, for |s| <= 3 - 2 sqrt(2): 2^-30.2
  static FUNCTION float logarithm(float z) {
    return polynomial(z, 0.6666677671799744f, 0.39977495467762914f, 0.29873076151800804f);
  }
  // (tanh(a) - a) / a^3, s = a^2, for a <= 0.55: 2^-29.9
  static FUNCTION float tangent(float s) {
    return polynomial(s, -0.33333317998941814f, 0.13332599915062976f, -0.05385365470610426f, 0.021076855172328136f,
                      -0.006281108271179139f);
  }
  // erf(a) / a - 1, s = a^2, for a <= 1: 2^-29.6
  static FUNCTION float error(float s) {
    return polynomial(s, 0.1283791659060055f, -0.37612627070353233f, 0.11283599295767306f, -0.02685440213357789f,
                      0.0051894440365885105f, -0.0008019946041419187f, 7.885856736078179e-05f);
  }
  // log(1 - erf(2 + t)) for -1 <= t <= 2: 2^-29.8
  static FUNCTION float tail(float t) {
    return polynomial(t, -5.364941053051779f, -4.418159358815961f, -0.9237531195803981f, -0.016487368793003297f,
                      0.0035437297065811133f, -0.000712505083209489f, 0.0001856944275939543f);
  }
};

template <>
struct Coefficients<double> {
  // 2^-64.0
  template <class X>
  static FUNCTION X exponential(X r) {
    return polynomial(r, 0.5, 0.16666666666666682, 0.04166666666666609, 0.008333333333316918, 0.001388888888911727,
                      0.00019841269896680793, 2.4801586924593533e-05, 2.75572345589393e-06, 2.755758280417429e-07,
                      2.5112144438451203e-08, 2.0826533845100594e-09);
  }
  // 2^-59.5
  static FUNCTION double logarithm(double z) {
    return polynomial(z, 0.6666666666666735, 0.3999999999941109, 0.2857142874326394, 0.22222198475838936,
                      0.18183569747669306, 0.15313903049004113, 0.14797509613809104);
  }
  // 2^-60.6
  static FUNCTION double tangent(double s) {
    return polynomial(s, -0.333333333333333, 0.13333333333326794, -0.053968253963854476, 0.021869488388388574,
                      -0.008863232640693625, 0.0035920924065268272, -0.0014555451481288158, 0.000588453509492157,
                      -0.00023340346935427848, 8.33464386219864e-05, -1.951239289403767e-05);
  }
  // 2^-62.8
  static FUNCTION double error(double s) {
    return polynomial(s, 0.1283791670955126, -0.3761263890318375, 0.11283791670954882, -0.026866170645077358,
                      0.005223977624823125, -0.0008548326981104899, 0.00012055331120715997, -1.4925595465585662e-05,
                      1.646100336901371e-06, -1.6350340137620873e-07, 1.465993914852787e-08, -1.137340444199581e-09,
                      5.957987852469534e-11);
  }
  // for -1 <= t <= 4: 2^-62.3
  static FUNCTION double tail(double t) {
    return polynomial(t, -5.364941264616638, -4.418160805994415, -0.923750841823778, -0.016465118136905165,
                      0.0035707563455390774, -0.000732399386049407, 0.00013530933896900726, -2.0706428159647163e-05,
                      1.9521812491200773e-06, 2.0362687228667598e-07, -1.7318523835942873e-07, 5.782226157053903e-08,
                      -1.3969707640035366e-08, 2.518624237122704e-09, -2.6160853192056796e-10, -3.4890348863204873e-11,
                      3.188477423439308e-11, -1.1097214857831509e-11, 2.143856089312978e-12, -1.7750521826305907e-13);
  }
};

// -- building blocks

// Moves the lowest bits of x to the exponent's position, and returns the number with these bits.
template <class T>
FUNCTION T with_exponent(T x) {
  return cast<T>(cast<Bits<T>>(x) << Format<T>::kDigits);
}

// Returns max(x, low), and NaN for NaN.
template <class T>
FUNCTION T at_least(T x, T low) {
  return x < low ? low : x;
}

// Returns 2^n for a whole number n for which 2^n is normal.
template <class T>
FUNCTION T power_of_two(T n) {
  using F = Format<T>;
  return cast<T>((cast<Bits<T>>(n + F::kShift) + Bits<T>(F::kBias)) << F::kDigits);
}

// Returns e^r, where e^x = 2^n e^r and r = x - n log(2) for a whole number n. X is T, or several vectors of T.
template <class T, class X>
FUNCTION X exponential_of_rest(X x, X n) {
  const X r = fused(n, X(-Format<T>::kLog2Lo), fused(n, X(-Format<T>::kLog2Hi), x));
  return fused(r * r, Coefficients<T>::exponential(r), r) + X(T(1));
}

constexpr double kLog2OfE = 1.44269504088896340736;

// Both exponentials multiply by 2^n in two factors, so that a subnormal result is rounded once. For n <= 0 one factor
// can be a constant.
template <class T, class X>
FUNCTION X exponential_of_negative(X x) {  // also for 0 and NaN
  using F = Format<T>;
  const X shift(F::kShift + F::kBias + F::kRaised), least = at_least(x, F::kExpLow);
  const X shifted = fused(least, X(T(kLog2OfE)), shift);
  return exponential_of_rest<T>(least, shifted - shift) * with_exponent(shifted) * X(F::kLowered);
}

template <class T>
FUNCTION T exponential(T x) {
  using F = Format<T>;
  x = at_least(x > F::kExpHigh ? F::kExpHigh : x, F::kExpLow);
  const T n = fused(x, T(kLog2OfE), F::kShift) - F::kShift, half = fused(n, T(0.5), F::kShift) - F::kShift;
  return exponential_of_rest<T>(x, n) * power_of_two(half) * power_of_two(n - half);
}

// The parts of a positive normal x = 2^e m, with m in [sqrt(1/2), sqrt(2)).
template <class T>
struct Split {
  T e, m;
};
template <class T>
FUNCTION Split<T> split(T x) {
  using F = Format<T>;
  constexpr Bits<T> kOne = Bits<T>(F::kBias) << F::kDigits, kFraction = (Bits<T>(1) << F::kDigits) - 1;
  const Bits<T> from = cast<Bits<T>>(x) + (kOne - F::kRootHalf);
  const T e = cast<T>(cast<Bits<T>>(F::kCount) | (from >> F::kDigits)) - (F::kCount + F::kBias);
  return {e, cast<T>((from & kFraction) + F::kRootHalf)};
}

// Returns e log(2) + log(1 + f). With s = f / (2 + f), log(1 + f) = 2 artanh(s) = f - s (f - (2 artanh(s) - 2 s) / s).
template <class T>
FUNCTION T logarithm_of(T e, T f) {
  const T s = f / (2 + f), z = s * s;
  const T rest = s * (f - z * Coefficients<T>::logarithm(z));
  return fused(e, Format<T>::kLog2Hi, f - fused(e, -Format<T>::kLog2Lo, rest));
}

// Returns y for a positive finite x, and the logarithm of x for all others.
template <class T>
FUNCTION T at_the_ends(T x, T y) {
  constexpr T kInfinity = __builtin_inf();
  y = x == kInfinity ? kInfinity : y;
  y = x == 0 ? -kInfinity : y;
  y = x < 0 ? T(__builtin_nan("")) : y;
  return x != x ? x : y;
}

template <class T>
FUNCTION T logarithm(T x) {
  using F = Format<T>;
  const bool small = x < F::kLeast;
  const Split<T> parts = split(small ? x * F::kLift : x);
  return at_the_ends(x, logarithm_of(small ? parts.e - F::kLifted : parts.e, parts.m - 1));
}

// Returns log(u + rest), where u is 1 + x rounded, and `rest` the rounding error. If the exponent e of u is 0, the
// argument of logarithm_of is f = x exactly.
template <class T>
FUNCTION T log_of_one_plus(T x) {
  const T u = 1 + x, back = u - 1, rest = (1 - (u - back)) + (x - back);
  const Split<T> parts = split(u);
  const T e = parts.e > 100 ? T(100) : parts.e;  // `rest` is negligible there
  const T y = at_the_ends(u, logarithm_of(parts.e, fused(rest, power_of_two(-e), parts.m - 1)));
  return x == 0 ? x : y;
}

template <class T>
FUNCTION T hyperbolic_tangent(T x) {
  const T a = absolute(x), s = a * a;
  const T small = fused(a * s, Coefficients<T>::tangent(s), a);
  const T large = 1 - 2 / (exponential(2 * (a > Format<T>::kTanhOne ? Format<T>::kTanhOne : a)) + 1);
  return with_sign(a < T(0.55) ? small : large, x);
}

template <class T>
FUNCTION T error_function(T x) {
  const T a = absolute(x);
  const T small = fused(a, Coefficients<T>::error(a * a), a);
  const T end = a > Format<T>::kErfOne ? Format<T>::kErfOne : a;
  const T large = 1 - exponential(Coefficients<T>::tail(end - 2));
  return with_sign(a < 1 ? small : large, x);
}

}  // namespace functions

FUNCTION float exponential(float x) { return functions::exponential(x); }
FUNCTION double exponential(double x) { return functions::exponential(x); }
FUNCTION float logarithm(float x) { return functions::logarithm(x); }
FUNCTION double logarithm(double x) { return functions::logarithm(x); }
FUNCTION float log_of_one_plus(float x) { return functions::log_of_one_plus(x); }
FUNCTION double log_of_one_plus(double x) { return functions::log_of_one_plus(x); }
FUNCTION float hyperbolic_tangent(float x) { return functions::hyperbolic_tangent(x); }
FUNCTION double hyperbolic_tangent(double x) { return functions::hyperbolic_tangent(x); }
FUNCTION float error_function(float x) { return functions::error_function(x); }
FUNCTION double error_function(double x) { return functions::error_function(x); }

}  // namespace bnengine

#undef FUNCTION
#include "../rules.h"
