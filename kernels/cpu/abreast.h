// Loops over elements that go 16 abreast, whatever the vectors' width: so a sum is the same with AVX2 and with AVX-512.
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

// What `join` makes of 16 numbers, halves abreast: in a fixed order.
template <class T, class Join>
VECTOR T joined(const T (&lane)[kAbreast], Join join) {
  T eight[8], four[4];
  for (int l = 0; l < 8; ++l) eight[l] = join(lane[l], lane[l + 8]);
  for (int l = 0; l < 4; ++l) four[l] = join(eight[l], eight[l + 4]);
  return join(join(four[0], four[2]), join(four[1], four[3]));
}

// One partial sum for each place abreast.
struct Sums {
  double lane[kAbreast] = {};

  VECTOR double total() const {
    return joined(lane, [](double a, double b) { return a + b; });
  }
};

// The sum of f(i), f gives double, over [begin, end).
template <class F>
VECTOR double sum_abreast(index begin, index end, F f) {
  Sums sums;
  index i = begin;
  for (; i + kAbreast <= end; i += kAbreast)
    for (int l = 0; l < kAbreast; ++l) sums.lane[l] += f(i + l);
  for (int l = 0; i < end; ++i, ++l) sums.lane[l] += f(i);
  return sums.total();
}

// The first `count` of 16 elements, then `padding`; nothing behind them is read or written.
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

// Four vectors that go through a computation step by step: chains one behind the other would be more than the processor
// looks ahead, and it would wait for each.
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

// f(tile of x, place of its first element, how many of its elements there are) for all of a row; the last one is padded.
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
