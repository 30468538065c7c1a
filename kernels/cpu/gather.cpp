// The rows of a micro-batch, out of a data set in memory: rows of bytes, whatever their type, or raw ones of x that are cast
// and scaled on their way.
#include <string.h>

#include "kernel.h"
#include "vector.h"

namespace bnengine {
namespace BNENGINE_ISA {
namespace {

constexpr index kAhead = 4;      // rows asked for before their turn, for they lie anywhere
constexpr index kAsked = 1024;   // bytes of a row that are asked for: the processor itself fetches the rest

// Row i of each output is row p = order[cursor[0] + offset + i] of its input, for i in [begin, end); the normaliser is
// normalisers[cursor[1]]. Row row_of(p) of x goes out by put(i, row), the others as their bytes. Arrays: x, target, weights or null,
// samples, normalisers, order, cursor, and at `to` the outputs of the first five. Integers: rows, bytes of a row of x, target,
// weights and normalisers, the bytes between two rows of x, offset.
template <class RowOf, class Put>
VECTOR void rows_of(const Arguments& given, char* const* to, index begin, index end, RowOf row_of, Put put) {
  const char* const* from = reinterpret_cast<const char* const*>(given.arrays);
  const char *x = from[0], *target = from[1], *weights = from[2];
  const index* samples = reinterpret_cast<const index*>(from[3]);
  const index *order = reinterpret_cast<const index*>(from[5]), *cursor = reinterpret_cast<const index*>(from[6]);
  const index bytes = given.integers[1], targets = given.integers[2], weighed = given.integers[3];
  const index normaliser = given.integers[4], between = given.integers[5];
  const index* chosen = order + cursor[0] + given.integers[6];
  for (index i = begin; i < end; ++i) {
    if (i + kAhead < end) {
      const char* next = x + row_of(chosen[i + kAhead]) * between;
      for (index byte = 0; byte < bytes && byte < kAsked; byte += 64) __builtin_prefetch(next + byte);
    }
    const index row = chosen[i];
    put(i, x + row_of(row) * between);
    memcpy(to[1] + i * targets, target + row * targets, size_t(targets));
    if (weights) memcpy(to[2] + i * weighed, weights + row * weighed, size_t(weighed));
    reinterpret_cast<index*>(to[3])[i] = samples[row];
  }
  if (begin == 0) memcpy(to[4], from[4] + cursor[1] * normaliser, size_t(normaliser));
}

void gather(const Arguments& given, index begin, index end, Worker&) {
  char* const* to = reinterpret_cast<char* const*>(given.arrays) + 7;
  const index bytes = given.integers[1];
  rows_of(given, to, begin, end, [](index p) { return p; },
          [=](index i, const char* row) { memcpy(to[0] + i * bytes, row, size_t(bytes)); });
}

// IEEE's 16 bits, as they lie in memory.
struct Half {
  uint16_t bits;
};

template <class W, class S>
VECTOR W widened(S value) {
  return W(value);
}
// Exact: the bits as those of a float 2^112 times too small, subnormal ones among them; infinity and NaN keep their mantissa.
template <class W>
VECTOR W widened(Half value) {
  const uint32_t magnitude = uint32_t(value.bits & 0x7fff) << 13;
  float small, scaled;
  memcpy(&small, &magnitude, sizeof small);
  scaled = small * 0x1p112f;
  uint32_t bits;
  memcpy(&bits, &scaled, sizeof bits);
  bits = (value.bits & 0x7c00) == 0x7c00 ? magnitude | 0x7f800000u : bits;
  bits |= uint32_t(value.bits & 0x8000) << 16;
  memcpy(&scaled, &bits, sizeof bits);
  return W(scaled);
}

// gather with rows samples[p] of x, of S, as rows of T: (x - mean) inv_scale in double and rounded once, or cast alone where
// mean is null. Arrays: as there, but mean and inv_scale in front of the outputs.
template <class S, class T>
void gather_raw(const Arguments& given, index begin, index end, Worker&) {
  char* const* to = reinterpret_cast<char* const*>(given.arrays) + 9;
  const double* mean = static_cast<const double*>(given.arrays[7]);
  const double* inv_scale = static_cast<const double*>(given.arrays[8]);
  const index features = given.integers[1] / index(sizeof(S));
  const index* samples = static_cast<const index*>(given.arrays[3]);
  rows_of(given, to, begin, end, [=](index p) { return samples[p]; }, [=](index i, const char* row) {
    const S* __restrict__ x = reinterpret_cast<const S*>(row);
    T* __restrict__ out = reinterpret_cast<T*>(to[0]) + i * features;
    if (mean) {
      for (index j = 0; j < features; ++j) out[j] = T((widened<double>(x[j]) - mean[j]) * inv_scale[j]);
    } else {
      for (index j = 0; j < features; ++j) out[j] = widened<T>(x[j]);
    }
  });
}

}  // namespace

#define RAW(name, S) {"gather_raw<" name ", float>", gather_raw<S, float>}, {"gather_raw<" name ", double>", gather_raw<S, double>}

const Entry* entries() {
  static const Entry table[] = {
      {"gather", gather},
      RAW("u1", uint8_t), RAW("u2", uint16_t), RAW("u4", uint32_t),
      RAW("i1", int8_t), RAW("i2", int16_t), RAW("i4", int32_t), RAW("i8", int64_t),
      RAW("f2", Half), RAW("f4", float), RAW("f8", double),
      {nullptr, nullptr},
  };
  return table;
}

}  // namespace BNENGINE_ISA
}  // namespace bnengine
