// Loops that process 16 elements in parallel, whatever the width of the vectors.
//
// A sum has 16 partial sums, one per position in a group of 16 elements, which are added in a fixed order at the end.
// AVX2, AVX-512 and NEON therefore give the same bits.
#pragma once
#include "functions.h"
#include "vector.h"

namespace bnengine {
namespace BNENGINE_ISA {

constexpr int kAbreast = 16;

template <int N>
struct Count {
  VECTOR constexpr operator int() const { return N; }
};

// Reduces 16 numbers with `join`, halving their count each time: a fixed order.
template <class T, class Join>
VECTOR T joined(const T (&lane)[kAbreast], Join join) {
  T eight[8], four[4];
  for (int l = 0; l < 8; ++l) eight[l] = join(lane[l], lane[l + 8]);
  for (int l = 0; l < 4; ++l) four[l] = join(eight[l], eight[l + 4]);
  return join(join(four[0], four[2]), join(four[1], four[3]));
}

// Sixteen partial sums.
struct Sums {
  double lane[kAbreast] = {};

  VECTOR double total() const {
    return joined(lane, [](double a, double b) { return a + b; });
  }
};

// Returns the sum over [begin, end) of f(i), which returns double.
template <class F>
VECTOR double sum_abreast(index begin, index end, F f) {
  Sums sums;
  index i = begin;
  for (; i + kAbreast <= end; i += kAbreast)
    for (int l = 0; l < kAbreast; ++l) sums.lane[l] += f(i + l);
  for (int l = 0; i < end; ++i, ++l) sums.lane[l] += f(i);
  return sums.total();
}

// Load and store the first `count` of 16 elements and access no memory after them. load_tile fills the rest with
// `padding`.
template <class T>
VECTOR void load_tile(const T* from, int count, T padding, T (&to)[kAbreast]) {
  static const T kOrder[kAbreast] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int at = 0; at < kAbreast; at += kLanes<T>) {
    const int left = count - at, some = left < 0 ? 0 : left < kLanes<T> ? left : kLanes<T>;
    const Vector<T> there = load_part(from + at, some);
    store(to + at, load(kOrder + at) < broadcast(T(count)) ? there : broadcast(padding));
  }
}
template <class T>
VECTOR void store_tile(const T (&from)[kAbreast], int count, T* to) {
  for (int at = 0; at < kAbreast; at += kLanes<T>) {
    const int left = count - at, some = left < 0 ? 0 : left < kLanes<T> ? left : kLanes<T>;
    store_part(to + at, load(from + at), some);
  }
}

// Four vectors that go through a computation together. A single chain of dependent operations would stall on the
// latency of each, and four chains in sequence exceed the processor's reorder window.
template <class T>
struct Four {
  Vector<T> a, b, c, d;
  VECTOR Four(Vector<T> a, Vector<T> b, Vector<T> c, Vector<T> d) : a(a), b(b), c(c), d(d) {}
  explicit VECTOR Four(T x) : a(broadcast(x)), b(a), c(a), d(a) {}
};
template <class T>
VECTOR Four<T> operator+(const Four<T>& x, const Four<T>& y) {
  return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d};
}
template <class T>
VECTOR Four<T> operator-(const Four<T>& x, const Four<T>& y) {
  return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d};
}
template <class T>
VECTOR Four<T> operator*(const Four<T>& x, const Four<T>& y) {
  return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d};
}
template <class T>
VECTOR Four<T> fused(const Four<T>& x, const Four<T>& y, const Four<T>& z) {
  return {fused(x.a, y.a, z.a), fused(x.b, y.b, z.b), fused(x.c, y.c, z.c), fused(x.d, y.d, z.d)};
}
template <class T>
VECTOR Vector<T> at_least(Vector<T> x, Vector<T> low) {
  return x < low ? low : x;
}
template <class T>
VECTOR Four<T> at_least(const Four<T>& x, T least) {
  const Vector<T> low = broadcast(least);
  return {at_least<T>(x.a, low), at_least<T>(x.b, low), at_least<T>(x.c, low), at_least<T>(x.d, low)};
}
template <class T>
VECTOR Vector<T> with_exponent(Vector<T> x) {
  return (Vector<T>)((Vector<functions::Bits<T>>)x << functions::Format<T>::kDigits);
}
template <class T>
VECTOR Four<T> with_exponent(const Four<T>& x) {
  return {with_exponent<T>(x.a), with_exponent<T>(x.b), with_exponent<T>(x.c), with_exponent<T>(x.d)};
}

// Calls f(tile, index of its first element, number of its elements) for each group of 16 elements of a row. The last
// tile is padded.
template <class T, class F>
VECTOR void each_tile(const T* x, index n, T padding, F f) {
  index i = 0;
  for (; i + kAbreast <= n; i += kAbreast) f(x + i, i, Count<kAbreast>());
  if (i == n) return;
  T part[kAbreast];
  load_tile(x + i, int(n - i), padding, part);
  f(part, i, int(n - i));
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
