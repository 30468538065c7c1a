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

// One partial sum for each place abreast, and their sum in a fixed order.
struct Sums {
  double lane[kAbreast] = {};

  VECTOR double total() const {
    double rest[kAbreast];
    for (int l = 0; l < kAbreast; ++l) rest[l] = lane[l];
    for (int half = kAbreast / 2; half > 0; half /= 2)
      for (int l = 0; l < half; ++l) rest[l] += rest[l + half];
    return rest[0];
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

// The first `count` of 16 elements; nothing behind them is read or written.
template <class T>
VECTOR void load_tile(const T* from, int count, T padding, T (&to)[kAbreast]) {
  for (int at = 0; at < kAbreast; at += kLanes<T>) {
    const int left = count - at, some = left < 0 ? 0 : left < kLanes<T> ? left : kLanes<T>;
    store(to + at, load_part(from + at, some));
  }
  for (int l = 0; l < kAbreast; ++l) to[l] = l < count ? to[l] : padding;
}
template <class T>
VECTOR void store_tile(const T (&from)[kAbreast], int count, T* to) {
  for (int at = 0; at < kAbreast; at += kLanes<T>) {
    const int left = count - at, some = left < 0 ? 0 : left < kLanes<T> ? left : kLanes<T>;
    store_part(to + at, load(from + at), some);
  }
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

// f(tile of x, tile of y, place, count): as above, and what f puts into the tile of y is stored.
template <class T, class F>
VECTOR void map_tiles(const T* x, T* y, index n, T padding, F f) {
  index i = 0;
  for (; i + kAbreast <= n; i += kAbreast) f(x + i, y + i, i, Count<kAbreast>());
  if (i == n) return;
  T part[kAbreast], made[kAbreast];
  load_tile(x + i, int(n - i), padding, part);
  f(part, made, i, int(n - i));
  store_tile(made, int(n - i), y + i);
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
