// The functions of kernels/cpu/functions.h over arrays, and how far they are from libm's in a wider type.
#include "functions.h"

#include <math.h>
#include <string.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

using Count = long long;

#define ARRAYS(name)                                                    \
  EXPORT void name##_float(const float* x, float* y, Count n) {         \
    for (Count i = 0; i < n; ++i) y[i] = bnengine::name(x[i]);          \
  }                                                                     \
  EXPORT void name##_double(const double* x, double* y, Count n) {      \
    for (Count i = 0; i < n; ++i) y[i] = bnengine::name(x[i]);          \
  }
ARRAYS(exponential)
ARRAYS(logarithm)
ARRAYS(log_of_one_plus)
ARRAYS(hyperbolic_tangent)
ARRAYS(error_function)

struct Found {
  double worst;  // in units in the last place of the exact result
  double at;
  Count wrong;           // NaN, infinity, zero or sign where libm has another
  unsigned long long bits;  // a sum over all results' bits
};

template <class Wide>
using Reference = Wide (*)(Wide);
static const Reference<double> kDouble[] = {exp, log, log1p, tanh, erf};
static const Reference<long double> kLong[] = {expl, logl, log1pl, tanhl, erfl};

// |y - exact| in units in the last place of exact as a T; negative where one cannot be measured and they differ.
template <class T, class Wide>
static double distance(T y, Wide exact) {
  const T rounded = T(exact);
  if (exact != exact) return y != y ? 0 : -1;
  if (isinf(rounded) || isinf(y)) return y == rounded ? 0 : -1;
  if (exact == 0 || y != y) return y == 0 && !signbit(y) == !signbit(exact) ? 0 : -1;
  if (!signbit(y) != !signbit(exact)) return -1;
  constexpr int kDigits = sizeof(T) == 4 ? 24 : 53, kLeast = sizeof(T) == 4 ? -125 : -1021;
  int exponent;
  frexp(double(rounded == 0 ? T(0) : rounded), &exponent);
  if (rounded == 0 || exponent < kLeast) exponent = kLeast;
  return double(fabsl((long double)(y) - (long double)(exact)) * ldexpl(1, kDigits - exponent));
}

template <class T, class Wide>
static void measure(Reference<Wide> reference, const T* x, const T* y, Count n, Found& found) {
  for (Count i = 0; i < n; ++i) {
    const double error = distance<T, Wide>(y[i], reference(Wide(x[i])));
    if (error < 0) found.wrong++, found.at = x[i];
    if (error > found.worst) found.worst = error, found.at = x[i];
  }
}

EXPORT void measure_float(int which, const float* x, const float* y, Count n, Found* found) {
  measure<float, double>(kDouble[which], x, y, n, *found);
}
EXPORT void measure_double(int which, const double* x, const double* y, Count n, Found* found) {
  measure<double, long double>(kLong[which], x, y, n, *found);
}

// Floats by their bits, from `begin` up to `end`; without `measured` only the sum of their results' bits.
EXPORT void sweep(int which, Count begin, Count end, int measured, Found* found) {
  static constexpr int kSome = 4096;
  static void (*const kOwn[])(const float*, float*, Count) = {exponential_float, logarithm_float, log_of_one_plus_float,
                                                              hyperbolic_tangent_float, error_function_float};
  float x[kSome], y[kSome];
  unsigned bits[kSome];
  for (Count from = begin; from < end; from += kSome) {
    const Count n = end - from < kSome ? end - from : kSome;
    for (Count i = 0; i < n; ++i) bits[i] = unsigned(from + i);
    memcpy(x, bits, sizeof x);
    kOwn[which](x, y, n);
    for (Count i = 0; i < n; ++i)
      if (y[i] != y[i]) y[i] = 0;  // which NaN it is does not count
    memcpy(bits, y, sizeof bits);
    for (Count i = 0; i < n; ++i) found->bits += bits[i] * (2ull * (unsigned long long)(from + i) + 1);
    if (!measured) continue;
    kOwn[which](x, y, n);
    measure<float, double>(kDouble[which], x, y, n, *found);
  }
}
