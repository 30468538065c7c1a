// Packs panels of B into the order in which a tile reads them: row after row of the panel, contiguous, zero-padded to
// whole vectors.
#pragma once
#include "tile.h"

namespace bnengine {
namespace BNENGINE_ISA {

// Vectors of 32 bytes, to transpose squares of 8 floats or 4 doubles.
template <class T>
struct StripOf;
template <>
struct StripOf<float> {
  typedef float Type __attribute__((vector_size(32)));
  typedef int32_t Lanes __attribute__((vector_size(32)));
};
template <>
struct StripOf<double> {
  typedef double Type __attribute__((vector_size(32)));
  typedef int64_t Lanes __attribute__((vector_size(32)));
};
template <class T>
using Strip = typename StripOf<T>::Type;
template <class T>
constexpr int kStrip = 32 / int(sizeof(T));

// Selects lanes of a and b by index; the lanes of b are numbered after those of a. GCC and Clang name this differently.
#if defined(__clang__)
#define SHUFFLED(T, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLED(T, a, b, ...) __builtin_shuffle(a, b, StripOf<T>::Lanes{__VA_ARGS__})
#endif

// Transposes a square: to[k stride + i] = from[i][k].
VECTOR void transpose(const float* const (&from)[8], float* to, index stride) {
  Strip<float> r[8], pairs[8], fours[8];
  for (int i = 0; i < 8; ++i) __builtin_memcpy(&r[i], from[i], sizeof r[i]);
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = SHUFFLED(float, r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[i + 1] = SHUFFLED(float, r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      fours[i + 2 * j] = SHUFFLED(float, pairs[i + j], pairs[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      fours[i + 2 * j + 1] = SHUFFLED(float, pairs[i + j], pairs[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int k = 0; k < 4; ++k) {
    const Strip<float> low = SHUFFLED(float, fours[k], fours[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    const Strip<float> high = SHUFFLED(float, fours[k], fours[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    __builtin_memcpy(to + k * stride, &low, sizeof low);
    __builtin_memcpy(to + (k + 4) * stride, &high, sizeof high);
  }
}
VECTOR void transpose(const double* const (&from)[4], double* to, index stride) {
  Strip<double> r[4], pairs[4];
  for (int i = 0; i < 4; ++i) __builtin_memcpy(&r[i], from[i], sizeof r[i]);
  for (int i = 0; i < 4; i += 2) {
    pairs[i] = SHUFFLED(double, r[i], r[i + 1], 0, 4, 2, 6);
    pairs[i + 1] = SHUFFLED(double, r[i], r[i + 1], 1, 5, 3, 7);
  }
  for (int k = 0; k < 2; ++k) {
    const Strip<double> low = SHUFFLED(double, pairs[k], pairs[k + 2], 0, 1, 4, 5);
    const Strip<double> high = SHUFFLED(double, pairs[k], pairs[k + 2], 2, 3, 6, 7);
    __builtin_memcpy(to + k * stride, &low, sizeof low);
    __builtin_memcpy(to + (k + 2) * stride, &high, sizeof high);
  }
}

// Prefetches `count` elements. Rows may be a page apart, where the hardware prefetcher does not fetch the next one.
template <class T>
VECTOR void fetch(const T* from, index count) {
  for (index i = 0; i < count; i += 64 / index(sizeof(T))) __builtin_prefetch(from + i);
}

// Sets panel[k width + j] to b(k, j) for j < columns and to 0 for the rest of the width, a multiple of the lanes. b(k,
// j) is b[k stride + j].
constexpr index kAhead = 8;
template <class T>
void pack_rows(index length, index columns, const T* b, index stride, index width, T* panel) {
  const index whole = columns / kLanes<T> * kLanes<T>;
  const int rest = int(columns - whole);
  for (index k = 0; k < length; ++k, b += stride, panel += width) {
    if (k + kAhead < length) fetch(b + kAhead * stride, columns);
    for (index j = 0; j < whole; j += kLanes<T>) store(panel + j, load(b + j));
    if (rest) store(panel + whole, load_part(b + whole, rest));
  }
}

// Does the same as pack_rows where b(k, j) is b[j stride + k]: B is transposed in memory.
template <class T>
void pack_columns(index length, index columns, const T* b, index stride, index width, T* panel) {
  constexpr int kSide = kStrip<T>;
  static const T kNone[kSide] = {};
  for (index j = 0; j < width; j += kSide) {
    // Vectors may be narrower than a square, so the last columns of a panel may not fill one.
    const int side = width - j < kSide ? int(width - j) : kSide;
    const index squares = side < kSide ? 0 : length / kSide * kSide;
    const T* from[kSide];
    index ahead[kSide];
    for (int i = 0; i < kSide; ++i) {
      const bool there = j + i < columns;
      from[i] = there ? b + (j + i) * stride : kNone;
      ahead[i] = there ? kSide : 0;
    }
    for (index k = 0; k < squares; k += kSide) {
      transpose(from, panel + k * width + j, width);
      for (int i = 0; i < kSide; ++i) from[i] += ahead[i];
    }
    for (index k = squares; k < length; ++k)
      for (int i = 0; i < side; ++i) panel[k * width + j + i] = ahead[i] ? from[i][k - squares] : T(0);
  }
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
